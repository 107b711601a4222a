"""The report: one page that stands alone, is honest about what is missing, and is the same every time."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import RunError
from ctc_imaging.report import write_report
from ctc_imaging.report.figures import NO_COUNT, draw_patient, draw_risk, draw_survival, to_svg
from ctc_imaging.report.gallery import choose
from ctc_imaging.report.patients import event_days, outcome
from ctc_imaging.report.pictures import channel_tiles, draw_bar, strip, thumbnail
from ctc_imaging.report.words import interval, limits, number, p_value, percent, term, whole
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.record import Review

from .report_fixture import write_run, write_survival

VOID = {"meta", "img", "br", "link", "input", "hr"}
SECTIONS = [
    *("night", "samples", "slides", "batches", "drift", "gallery", "patients", "risk", "survival", "lead-time"),
    *("decision", "methods"),
]


class Page(HTMLParser):
    """What a browser would see: tags with attributes, headings, and the text of each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.sections: dict[str, str] = {}
        self.section = ""
        self.feed(text)
        self.close()

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = dict(attrs)["aria-labelledby"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.section = "" if tag == "section" else self.section

    def handle_data(self, data):
        self.sections[self.section] = " ".join(f"{self.sections.get(self.section, '')} {data}".split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return a run with a failed slide, a poor one, a missed visit and a separate survival cohort."""
    run = write_run(tmp_path_factory.mktemp("report") / "night")
    write_survival(run)
    write_report(run)
    return run


@pytest.fixture(scope="module")
def page(made) -> Page:
    return Page((made / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def changed(made, tmp_path) -> Path:
    """Return a copy of the run for a test to change."""
    return Path(shutil.copytree(made, tmp_path / "night"))


def read(run: Path) -> Page:
    """Write the report without the pages beside it, which have tests of their own."""
    return Page(write_report(run, pages=False).read_text(encoding="utf-8"))


def edit(path: Path, **values) -> None:
    """Set columns of a run's table to one value each."""
    pd.read_csv(path).assign(**values).to_csv(path, index=False)


# --- the page as a page


def test_the_page_needs_nothing_from_outside(made, page):
    text = (made / "report.html").read_text(encoding="utf-8")
    for _, attrs in page.tags:
        assert attrs.get("src", "data:image/").startswith("data:image/")
        assert attrs.get("href", "#").startswith(("#", "data:text/csv", "pages/"))
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert not page.all("script")
    assert not page.all("link")
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'")


def test_tags_close_headings_descend_and_ids_are_unique(page):
    assert not page.open
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")} <= set(ids)


def test_pictures_and_tables_speak_to_a_screen_reader(page):
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") in {"col", "row", "colgroup"} for head in page.all("th"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    assert page.all("html")[0]["lang"] == "en-GB"
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))


def test_sections_stand_in_the_agreed_order(page):
    assert [name for name in page.sections if name] == SECTIONS


def test_the_same_run_gives_the_same_bytes_and_no_litter(changed):
    first = {path: path.read_bytes() for path in changed.rglob("*.html")}
    before = sorted(path.name for path in changed.iterdir())
    assert write_report(changed) == changed / "report.html"
    assert {path: path.read_bytes() for path in changed.rglob("*.html")} == first
    assert len(first) > 20
    assert sorted(path.name for path in changed.iterdir()) == before


def test_text_from_tables_can_t_become_markup(changed):
    evil = '<script>alert("1")</script>&'
    edit(changed / "timeline.csv", patient_id=evil)
    edit(changed / "slides.csv", reason=evil)
    page = read(changed)
    assert not page.all("script")
    assert evil in page.sections["patients"]
    assert evil in page.sections["slides"]


def test_a_hundred_slides_stay_far_below_15_mb(tmp_path):
    run = write_run(tmp_path / "night", patients=17, overview_px=400)
    assert len(pd.read_csv(run / "slides.csv")) > 100
    assert write_report(run, pages=False).stat().st_size < 4e6


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run here"):
        write_report(tmp_path)


# --- what it says


def test_the_headline_answers_whether_the_night_went_well(page):
    assert "16 of 18 slides were counted; 1 slide failed and 1 couldn't be assessed." in page.sections["night"]
    assert re.search(r"\d+ of 15 samples CTC-positive cut-off 2 CTC per 5 mL", page.sections["night"])
    assert "Research use only" in page.sections["night"]


def test_failed_slides_come_first_with_their_reason(page):
    text = page.sections["slides"]
    order = [
        text.index(word) for word in ("failed truncated file: page 3 of 4", "not assessable out of focus", "counted")
    ]
    assert order == sorted(order)


def test_zero_is_a_result_with_its_upper_limit_and_a_gap_is_not_zero(made, page):
    counts = pd.read_csv(made / "counts.csv")
    zero = counts[counts["ctc"] == 0].iloc[0]
    assert f"0 (0–{zero['ctc_per_ml_high']:.2f})" in page.sections["samples"]
    assert "91 missed" in page.sections["patients"]
    assert "183 not assessable: out of focus on 71 % of the slide" in page.sections["patients"]


def test_controls_stand_apart(page):
    patients, controls = page.sections["samples"].split("Controls", 1)
    assert "blank-1" in controls
    assert "blank-1" not in patients
    assert "blank-1" not in page.sections["patients"]


def test_the_cut_off_is_named_with_volume_and_source(page):
    for section in ("patients", "methods"):
        assert "2 CTC per 5 mL" in page.sections[section]
        assert "Guo 2018" in page.sections[section]


def test_the_gallery_says_how_many_it_shows_and_what_they_are(made, page):
    slides = pd.read_csv(made / "slides.csv")
    total = int(slides["ctc"].sum())
    assert f"Showing {min(total, 48)} of {total} CTCs on {(slides['ctc'] > 0).sum()} slides" in page.sections["gallery"]
    assert "composite DAPI CK Vimentin CD45" in page.sections["gallery"]
    assert re.search(r"P00\d-\d, cell \d+ CTC probability 0\.\d{3}, hybrid, in a CTC cluster", page.sections["gallery"])


def test_survival_comes_from_the_separate_cohort_and_says_so(page):
    text = page.sections["survival"]
    assert "Simulated data. This section doesn't show the run's own patients" in text
    assert "120 patients, tables only, no slides" in text
    assert "Free of recurrence 24 months after surgery" in text
    assert "stayed negative" in text
    assert "p < 0.001" in text
    assert "each doubling of 1 + CTC in 5 mL" in text


def test_real_data_aren_t_called_simulated(tmp_path):
    page = read(write_run(tmp_path / "night", patients=1, simulated=False))
    assert not any("imulat" in text for name, text in page.sections.items() if name)


def test_too_few_patients_give_reasons_instead_of_figures(tmp_path):
    text = read(write_run(tmp_path / "night", patients=2)).sections["survival"]
    assert "Limits of this analysis" in text
    assert "Hazard ratio" not in text


def test_reviews_decide_what_the_gallery_shows(changed):
    facts = json.loads((changed / "run.json").read_text())
    slides = pd.read_csv(changed / "slides.csv")
    slide_id = slides.loc[slides["ctc"] > 1, "slide_id"].iloc[0]
    known = {"slide_id": slide_id, "time": "2026-01-01T00:00:00.000000+00:00", "reason": "", "earlier_call": "ctc"}
    known |= {"reader": "Dr Li", "model_hash": "", "run_hash": facts["hash"], "slide_sha256": "aa"}
    with Ledger(changed / "ledger.sqlite", create=True) as ledger:
        ledger.set_slides([slide_id])
        ledger.finish(slide_id, 1.0, "aa", "")
        calls = {1: ("artefact", ""), 2: ("ctc", "mesenchymal")}
        ledger.add_reviews(
            [Review(cell_id=cell, call=call, phenotype=kind, **known) for cell, (call, kind) in calls.items()]
        )
    text = read(changed).sections["gallery"]
    assert f"{slide_id}, cell 1 " not in text
    assert f"{slide_id}, cell 2 called by Dr Li, mesenchymal" in text


def test_a_replaced_slide_counts_neither_as_failed_nor_as_counted(changed):
    slides = pd.read_csv(changed / "slides.csv")
    slides["rescan_of"] = slides["rescan_of"].astype(object)
    slides.loc[0, "rescan_of"] = slides.loc[1, "slide_id"]
    slides.to_csv(changed / "slides.csv", index=False)
    page = read(changed)
    assert "16 of 17 slides were counted; 1 couldn't be assessed." in page.sections["night"]
    assert "replaced" in page.sections["slides"]


def test_an_unfinished_run_says_so(changed):
    edit(changed / "slides.csv", state="pending", assessable=False)
    assert "isn't finished: 18 slides still to do" in read(changed).sections["night"]


# --- runs with little in them


def test_no_ctc_anywhere(tmp_path):
    page = read(write_run(tmp_path / "night", patients=1, ctc=lambda _: 0))
    assert "No cell was called a CTC" in page.sections["gallery"]
    assert "CTC per mL median 0, highest 0" in page.sections["samples"]


def test_no_clinical_data(tmp_path):
    page = read(write_run(tmp_path / "night", patients=1, clinical=False))
    assert "first sample , not the surgery" in page.sections["patients"]
    assert "No survival figures. The run was given no clinical table" in page.sections["survival"]


def test_one_patient_of_a_panel_without_phenotypes(tmp_path):
    page = read(write_run(tmp_path / "night", patients=1, panel="epithelial-3"))
    assert "composite DAPI CK CD45" in page.sections["gallery"]
    assert "Remark undetermined CTCs only" in page.sections["samples"]
    assert "hybrid" not in page.sections["samples"]


def test_one_patient_with_one_sample(tmp_path):
    run = write_run(tmp_path / "night", patients=1)
    for name in ("slides", "counts", "timeline"):
        pd.read_csv(run / f"{name}.csv").assign(pattern=None).head(1).to_csv(run / f"{name}.csv", index=False)
    page = read(run)
    assert "All slides were counted, 1 of 1." in page.sections["night"]
    assert "has a status before surgery and one after it" in page.sections["survival"]


def test_all_slides_failed(tmp_path):
    page = read(write_run(tmp_path / "night", patients=2, fail_all=True))
    assert "No slide could be counted" in page.sections["night"]
    assert "0 of 11 samples with a result" in page.sections["night"]
    assert "No cell was called a CTC" in page.sections["gallery"]
    assert "30 not assessable: truncated file" in page.sections["patients"]


def test_no_patient_at_all(tmp_path):
    page = read(write_run(tmp_path / "night", patients=0))
    assert "There is no patient's sample" in page.sections["samples"]
    assert "There is no patient's course to show" in page.sections["patients"]
    assert "No survival figures" in page.sections["survival"]


def test_nothing_but_run_json(changed):
    for path in changed.iterdir():
        if path.name != "run.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = read(changed)
    assert "This run has no slides." in page.sections["night"]
    assert [name for name in page.sections if name] == SECTIONS


# --- drawings


def visits(**columns) -> pd.DataFrame:
    rows = {
        "day": [-3.0, 7, 30, 91, 183],
        "visit_status": ["done", "not_assessable", "done", "missed", "done"],
        "ctc_per_ml": [0.6, np.nan, 0, np.nan, 4],
        "ctc_per_ml_low": [0.1, np.nan, 0, np.nan, 2],
        "ctc_per_ml_high": [2, np.nan, 0.74, np.nan, 7],
        "status": ["positive", None, "negative", None, None],
    }
    return pd.DataFrame({**rows, **columns})


def test_visits_without_a_count_stand_below_zero_and_break_the_line():
    axes = draw_patient(visits(), 0.4, {"surgery": 0.0, "recurrence": 200.0}, 10.0).axes[0]
    dots, missed, poor = (offsets for offsets in axes.collections if type(offsets).__name__ == "PathCollection")
    assert len(dots.get_offsets()) == 3
    assert (np.asarray(dots.get_offsets())[:, 1] >= 0).all()
    assert {float(y) for marks in (missed, poor) for y in np.asarray(marks.get_offsets())[:, 1]} == {NO_COUNT}
    assert NO_COUNT < 0
    assert max(len(line.get_xdata()) for line in axes.lines if line.get_color() == "#7b8794") == 1


def test_positive_negative_and_unjudged_dots_look_different():
    axes = draw_patient(visits(), 0.4, {}, 10.0).axes[0]
    dots = next(marks for marks in axes.collections if type(marks).__name__ == "PathCollection")
    assert len({tuple(colour) for colour in dots.get_facecolors()}) == 3


@settings(max_examples=10)
@given(
    counts=st.lists(st.one_of(st.none(), st.floats(0, 1e4)), min_size=1, max_size=10),
    event_day=st.one_of(st.none(), st.floats(0, 6000)),
)
def test_any_series_can_be_drawn_small_and_twice_alike(counts, event_day):
    values = pd.Series(counts, dtype=float)
    status = np.where(values.isna(), "missed", "done")
    days = np.arange(len(counts)) * 40.0 - 5
    columns = {"ctc_per_ml": values, "ctc_per_ml_low": values / 2, "ctc_per_ml_high": values * 2 + 1}
    series = pd.DataFrame({"day": days, "visit_status": status, "status": None, **columns})
    events = {} if event_day is None else {"recurrence": event_day}
    top = float(np.nanmax([2.0, *columns["ctc_per_ml_high"]]))
    svg, again = (to_svg(draw_patient(series, None, events, top), "patient", "alt") for _ in range(2))
    assert svg == again
    assert len(svg) < 15_000


def test_two_drawings_never_share_an_id_and_text_stays_text():
    first, second = (to_svg(draw_patient(visits(), 0.4, {"death": 20.0}, 10.0), name, "a & b") for name in "ab")
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert ">death</text>" in first
    assert 'aria-label="a &amp; b"' in first


def test_curves_without_limits_and_a_single_risk_can_be_drawn():
    class Curve:
        group, days = "persistently_negative", np.array([30.0, 400.0])
        survival = np.array([1.0, 0.5])
        low = high = np.array([np.nan, np.nan])

    at_risk = pd.DataFrame({30: [2], 730: [0]}, index=["persistently_negative"])
    svg = to_svg(draw_survival([Curve()], at_risk, 30, 730), "survival", "curves")
    assert "stayed negative" in svg
    assert ">At risk</text>" in svg
    assert "100 %" in to_svg(draw_risk(pd.DataFrame({"risk": [0.3], "low": [0.1], "high": [0.6]})), "risk", "risks")


# --- pictures


def test_each_channel_has_its_own_colour_between_its_limits():
    crop = np.zeros((2, 4, 4), np.uint16)
    crop[0, 0, 0], crop[1, 1, 1], crop[1, 2, 2] = 300, 200, 9000
    tiles = channel_tiles(crop, [100, 100], [300, 300], ["#0000ff", "#ff8000"])
    np.testing.assert_allclose(tiles[0, 0, 0], [0, 0, 1])
    np.testing.assert_allclose(tiles[1, 1, 1], [0.5, 0.25098, 0], atol=1e-4)
    np.testing.assert_allclose(tiles[1, 2, 2], [1, 0.50196, 0], atol=1e-4)
    assert tiles[:, 3, 3].max() == 0


@given(pixel_size_um=st.floats(0.25, 1.0))
def test_the_scale_bar_is_10_um_long(pixel_size_um):
    picture = draw_bar(np.zeros((96, 96, 3), np.uint8), pixel_size_um)
    row = picture[-6, :, 0] > 0
    assert abs(row.sum() * pixel_size_um - 10) <= pixel_size_um / 2


def test_a_strip_is_the_composite_and_then_every_channel():
    crop = np.full((3, 48, 48), 1000, np.uint16)
    picture = strip(crop, [0] * 3, [1000] * 3, ["#ff0000", "#00ff00", "#0000ff"], 0.5)
    centres = [tuple(int(value) for value in picture[40, 48 + tile * 99]) for tile in range(4)]
    assert centres == [(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert picture.shape == (96, 4 * 96 + 3 * 3, 3)


def test_a_missing_or_damaged_overview_is_no_failure(tmp_path):
    (tmp_path / "overview.png").write_bytes(b"\x89PNG but not really")
    assert thumbnail(tmp_path / "overview.png") is None
    assert thumbnail(tmp_path / "none.png") is None


@given(
    slides=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    count=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_the_gallery_takes_each_slides_surest_cells_fairly(slides, count, seed):
    table = pd.DataFrame({"slide_id": np.repeat([f"s{i}" for i in range(len(slides))], slides)})
    table["cell_id"] = np.arange(len(table))
    table["p_ctc"] = np.random.default_rng(seed).uniform(size=len(table))
    chosen = choose(table, count)
    assert len(chosen) == min(count, len(table))
    taken = chosen["slide_id"].value_counts().reindex(table["slide_id"].unique(), fill_value=0)
    for name, group in table.groupby("slide_id"):
        best = set(group.nlargest(taken[name], "p_ctc")["cell_id"])
        assert set(chosen.loc[chosen["slide_id"] == name, "cell_id"]) == best
        assert taken[name] >= min(len(group), taken.max() - 1)


# --- words


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (number(0.0053), "<0.01"),
        (number(0.999), "1.0"),
        (number(3.6889), "3.7"),
        (number(118.4), "118"),
        (number(7.5), "7.5"),
        (number(0), "0"),
        (number(np.nan), "–"),
        (number(np.inf), "not estimable"),
        (whole(pd.NA), "–"),
        (whole(73570.0), "73,570"),
        (percent(0.451), "45 %"),
        (limits(0, 0.7377), "0–0.74"),
        (p_value(0.0004), "p < 0.001"),
        (p_value(0.0123), "p = 0.012"),
        (p_value(0.42), "p = 0.42"),
        (p_value(None), "–"),
        (interval(7), "day 7"),
        (interval(30), "1 month"),
        (interval(730), "24 months"),
        (term("log2(1 + AFP)"), "each doubling of 1 + AFP"),
        (outcome({}), "No clinical data."),
        (outcome({"surgery": 0, "recurrence": 240, "death": 300}), "Recurrence on day 240, death on day 300."),
        (outcome({"surgery": 0, "death": 300}), "Death on day 300."),
    ],
)
def test_numbers_read_as_a_clinic_writes_them(made, words):
    assert made == words


def test_events_are_days_since_surgery_and_unknown_ones_are_absent():
    day = pd.Timestamp("2024-01-15")
    dates = {"surgery_date": [day], "recurrence_date": [pd.NaT], "death_date": [day + pd.Timedelta(days=40)]}
    clinical = pd.DataFrame({"patient_id": ["a"], **dates, "last_contact_date": [day + pd.Timedelta(days=40)]})
    assert event_days(clinical, "a") == {"surgery": 0, "death": 40, "last_contact": 40}
    assert event_days(clinical, "b") == {}
    assert event_days(None, "a") == {}
