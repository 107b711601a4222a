"""The morning page and the batch charts: what failed and what to do, at the top, and never more than is known."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ctc_imaging.batch_quality import STAIN_COLUMNS, stain_figures, stain_remarks
from ctc_imaging.report import write_report
from ctc_imaging.report.charts import draw_controls, draw_stains, slide_places
from ctc_imaging.report.figures import to_svg
from ctc_imaging.report.morning import REMEDIES, remedy_for, split_reason

from .report_fixture import write_run

CHANNELS = {"dapi": "nucleus", "ck": "epithelial", "vim": "mesenchymal", "cd45": "leukocyte"}


def text_of(run: Path, section: str) -> str:
    """Return the text of one section of the run's page, as a reader sees it."""
    page = write_report(run, pages=False).read_text(encoding="utf-8")
    part = re.search(rf'<section aria-labelledby="{section}">(.*?)</section>', page, re.DOTALL)
    assert part is not None
    return " ".join(re.sub(r"<[^>]+>", " ", part[1]).split())


def write_batches(run: Path, weak: str = "P002-3") -> None:
    """Give a run of the fixture a cohort of three batches and a table of stains in which one slide is weak."""
    slides = pd.read_csv(run / "slides.csv")
    batch = [f"B{1 + place // 6}" for place in range(len(slides))]
    cohort = slides[["slide_id", "sample_id", "patient_id", "sample_date", "sample_kind", "blood_volume_ml"]]
    (run / "tables").mkdir(exist_ok=True)
    cohort.assign(slide="/scans/" + slides["slide_id"] + ".tif", batch=batch).to_csv(
        run / "tables" / "cohort.csv", index=False
    )
    rng = np.random.default_rng(5)
    rows = [
        dict.fromkeys(STAIN_COLUMNS, "") | {
            "slide_id": row["slide_id"], "sample_id": row["sample_id"], "sample_kind": row["sample_kind"],
            "sample_date": row["sample_date"], "batch": batch[place], "panel": "emt-4", "channel": short, "role": role,
            "leukocyte_snr": (0.3 if short == "ck" else 10.0) * rng.lognormal(0, 0.1) * (
                0.3 if (row["slide_id"], short) == (weak, "cd45") else 1
            ), "leukocytes": 250, "ctc": 0, "background": 200.0, "noise": 18.0,
        }
        for place, row in enumerate(slides.to_dict("records")) for short, role in CHANNELS.items()
        if row["assessable"]
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(run / "stains.csv", index=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    run = write_run(tmp_path_factory.mktemp("batches") / "night")
    write_batches(run)
    return run


@pytest.fixture
def changed(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "night"))


def edit(path: Path, where: dict[str, str], **values) -> None:
    """Set columns of the rows of a run's table in which a column has a value."""
    table = pd.read_csv(path).astype(object)
    for column, value in where.items():
        for name, new in values.items():
            table.loc[table[column] == value, name] = new
    table.to_csv(path, index=False)


# --- the morning


def test_the_top_names_each_slide_without_a_result_its_file_fault_and_remedy(changed):
    reason = "/scans/night 7/P001-1.tif: the TIFF is incomplete; copy it from the scanner again"
    edit(changed / "slides.csv", {"slide_id": "P001-1"}, reason=reason)
    text = text_of(changed, "night")
    assert "2 slides without a result" in text
    row = "P001-1 failed P001-1.tif / scans/ night 7 the TIFF is incomplete copy it from the scanner again"
    assert row in text
    poor = text.index("not assessable P001-4.tif")
    assert poor > text.index(row)
    assert "out of focus on 71 % of the slide; nuclear stain weak scan again with a new focus map" in text[poor:]


def test_warnings_stand_at_the_top_the_most_urgent_first(changed):
    edit(changed / "counts.csv", {"sample_id": "blank-1"}, ctc=9)
    edit(changed / "slides.csv", {"slide_id": "P002-1"}, quality_reasons="1.2% of the slide is saturated")
    edit(changed / "slides.csv", {"slide_id": "P002-2"}, quality_reasons="3.4% of the slide is saturated")
    write_batches(changed, weak="P002-5")
    text = text_of(changed, "night")
    assert "1 control failed." in text
    assert "0 of 1 controls passed failed in batch B3" in text
    order = [
        "batch B3 Control blank-1 (blank) failed: 9 CTCs in",
        "P002-5 CD45 0.3",
        "P002-1, P002-2 on 2 slides: …% of the slide is saturated scan again with a shorter exposure",
    ]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "repeat the control; until then hold back the results of batch B3" in text


def test_a_good_night_has_no_lists(tmp_path):
    run = write_run(tmp_path / "night", patients=1)
    for name in ("slides", "counts", "timeline"):
        pd.read_csv(run / f"{name}.csv").head(1).to_csv(run / f"{name}.csv", index=False)
    text = text_of(run, "night")
    assert "All slides were counted, 1 of 1." in text
    assert "There are no warnings, but this run had no controls." in text
    assert "without a result" not in text.replace("samples with a result", "")


def test_many_failures_fold_after_a_dozen(changed):
    table = pd.read_csv(changed / "slides.csv").assign(state="failed", assessable=False, reason="a.tif: empty; copy it")
    table.to_csv(changed / "slides.csv", index=False)
    page = write_report(changed, pages=False).read_text(encoding="utf-8")
    assert page.count("<summary>6 more</summary>") == 1


@pytest.mark.parametrize(
    ("reason", "parts"),
    [
        ("/a b/c.tif: short; it ends early; copy it again", ("/a b/c.tif", "short; it ends early", "copy it again")),
        (r"C:\scans\c.tif: no pixels; export again", (r"C:\scans\c.tif", "no pixels", "export again")),
        ("s3://lab/c.tif: no such file; check the path", ("s3://lab/c.tif", "no such file", "check the path")),
        ("the worker process died (killed); too little memory?", ("", None, "run again, with fewer --workers")),
        ("KeyError: 'dapi': odd; very odd", ("", "KeyError: 'dapi': odd; very odd", "run again")),
        ("", ("", "", "run again")),
    ],
)
def test_a_reason_is_taken_apart_only_where_it_is_a_typed_error(reason, parts):
    where, fault, remedy = split_reason(reason)
    assert where == parts[0]
    assert fault == (reason if parts[1] is None else parts[1])
    assert remedy.startswith(parts[2])


def test_every_quality_fault_has_a_remedy():
    assert remedy_for("stain cd45 (leukocyte) shows no signal").startswith("check filter and exposure")
    assert remedy_for("3.1% of the slide lies under a bubble or fold") == REMEDIES["bubble or fold"]
    assert remedy_for("something new") == "look at its pictures under Quality of slides"


# --- batches


def test_the_batch_section_names_what_failed_and_states_the_rules(changed):
    edit(changed / "counts.csv", {"sample_id": "blank-1"}, ctc=9)
    text = text_of(changed, "batches")
    assert re.search(r"B1 2024-01-12 to 2025-01-14 4 of 6 none none B2 \S+ to \S+ 6 of 6 1 none B3", text)
    assert "failed 9 CTCs in" in text
    assert "one-sided p &lt; 0.00135" in text
    assert "CK by the CTCs of spiked samples and stain controls, as only CTCs carry it" in text


def test_without_cohort_and_stains_the_page_says_what_is_missing(tmp_path):
    text = text_of(write_run(tmp_path / "night", patients=1), "batches")
    assert "the run was made by an older version" in text
    assert "blank-1 blank" in text


def test_the_page_with_batches_is_the_same_every_time_and_needs_nothing_from_outside(made):
    first = write_report(made).read_bytes()
    assert write_report(made).read_bytes() == first
    assert not re.search(rb"https?://|url\((?!#)", first)


def test_quality_maps_are_shown_folded_and_small_where_there_are_any(changed):
    without = write_report(changed, pages=False).stat().st_size
    drawing = np.full((700, 1200, 3), 255, np.uint8)
    drawing[100:600, 100:600] = np.kron(np.random.default_rng(0).integers(0, 255, (20, 20, 3)), np.ones((25, 25, 1)))
    for slide in ("P001-0", "P001-2"):
        cv2.imwrite(str(changed / "slides" / slide / "quality.png"), drawing)
    page = write_report(changed, pages=False).read_text(encoding="utf-8")
    assert len(re.findall(r'<details class="maps"><summary>Quality maps</summary><img src="data:image/webp', page)) == 2
    assert len(page) - without < 2 * 70_000


# --- drawings


def figures_of(batches: int, slides: int) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        dict.fromkeys(STAIN_COLUMNS, "") | {
            "slide_id": f"s{batch}-{slide}", "sample_kind": "patient", "batch": f"B{batch}", "panel": "p",
            "sample_date": f"2025-{12 - batch:02d}-{1 + slide:02d}", "channel": "cd45", "role": "leukocyte",
            "leukocyte_snr": rng.lognormal(2, 0.1), "background": 200.0, "noise": 18.0,
        }
        for batch in range(batches) for slide in range(slides)
    ]  # fmt: skip
    return stain_figures(pd.DataFrame(rows))


def test_slides_stand_by_date_inside_batches_by_date():
    places = slide_places(figures_of(3, 4))
    assert list(places.index) == [f"s{batch}-{slide}" for batch in (2, 1, 0) for slide in range(4)]


def test_what_stands_out_is_marked_and_named_and_nothing_else():
    figures = figures_of(2, 6)
    chosen = (figures["slide_id"] == "s0-3") & (figures["figure"] == "strength")
    figures.loc[chosen, "log_value"] -= np.log(4)
    odd = stain_remarks(figures)
    svg = to_svg(draw_stains(figures, odd, ["cd45", "ck"]), "stains", "stains")
    assert ">s0-3</text>" in svg
    assert ">s0-2</text>" not in svg
    assert ">batch B1</text>" in svg
    assert "not measured on any slide" in svg


def test_failed_controls_are_named_on_their_chart():
    rows = {
        "sample_id": ["b1", "b2", "s1"], "sample_kind": ["blank", "blank", "spiked"], "batch": ["", "B2", "B2"],
        "sample_date": "2025-01-01", "found": [0.0, 9, 15], "out_of": [5.0, 5, 20], "rate": [0, 1.8, 0.75],
        "low": [0, 0.8, 0.5], "high": [0.7, 3.4, 0.9], "verdict": ["passed", "failed", "passed"],
    }  # fmt: skip
    figure = draw_controls(pd.DataFrame(rows))
    assert [axes.get_title() for axes in figure.axes] == ["Blanks", "Spiked samples"]
    svg = to_svg(figure, "controls", "controls")
    assert ">b2</text>" in svg
    assert ">b1</text>" not in svg
    assert ">2025-01-01</text>" in svg
