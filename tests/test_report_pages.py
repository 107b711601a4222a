"""The pages beside the report: each stands alone, links hold, and it says what a person needs and its limits."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.report import write_report
from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.names import page_names
from ctc_imaging.report.pages.patient import next_visit
from ctc_imaging.report.pages.scheme import scheme_card
from ctc_imaging.report.pages.signing import signing_of, waiting
from ctc_imaging.report.source import Run, read_run

from .report_fixture import SURGERY, VISITS, write_run, write_survival
from .test_report import Page

SCHEDULE = [
    {"name": name, "day": day, "window_days": [2, 2]} for name, day in VISITS.items()
]  # as schedule.yaml has it, which may be JSON
NOT_A_NUMBER = re.compile(r"\b(nan|None(?!:| is given)|NaT|inf)\b|<NA>")
PREFIX = "data:text/csv;charset=utf-8,"


@dataclass(frozen=True)
class Made:
    """A run with its pages as a browser sees them."""

    run: Path

    @cached_property
    def pages(self) -> dict[str, Page]:
        """Every page by its place under RUN."""
        files = [self.run / "report.html", *sorted((self.run / "pages").rglob("*.html"))]
        return {path.relative_to(self.run).as_posix(): Page(path.read_text(encoding="utf-8")) for path in files}

    def text(self, place: str) -> str:
        """What stands on a page."""
        return " ".join(self.pages[place].sections.values())

    def downloads(self, place: str) -> dict[str, pd.DataFrame]:
        """Tables that a page holds, by the name of their file."""
        links = [link for link in self.pages[place].all("a") if (link.get("href") or "").startswith(PREFIX)]
        return {
            str(link["download"]): pd.read_csv(io.StringIO(unquote(str(link["href"]).removeprefix(PREFIX))))
            for link in links
        }


def write(run: Path) -> Made:
    write_report(run)
    return Made(run)


def add_care(run: Path) -> None:
    """Add imaging, AFP, treatment and planned visits to a run's tables."""
    days = {"negative": 90, "equivocal": 180, "positive": 240}
    scans = [("P001", SURGERY + timedelta(day), "MRI", result) for result, day in days.items()]
    afp = [("P001", SURGERY + timedelta(day), "AFP", value) for day, value in ((-3, 37.5), (91, 8), (240, 900))]
    tables = run / "tables"
    pd.DataFrame(scans, columns=["patient_id", "imaging_date", "modality", "result"]).to_csv(
        tables / "imaging.csv", index=False
    )
    pd.DataFrame(afp, columns=["patient_id", "date", "marker", "value"]).to_csv(tables / "markers.csv", index=False)
    clinical = pd.read_csv(tables / "clinical.csv")
    for name in ("adjuvant_kind", "adjuvant_start_date", "adjuvant_end_date"):
        clinical[name] = pd.Series(dtype=object)
    clinical.loc[0, ["adjuvant_kind", "adjuvant_start_date", "adjuvant_end_date"]] = [
        "TACE", str(SURGERY + timedelta(40)), str(SURGERY + timedelta(70))
    ]  # fmt: skip
    clinical.assign(MVI=1, size_cm=4.5).to_csv(tables / "clinical.csv", index=False)
    (tables / "schedule.yaml").write_text(json.dumps(SCHEDULE))


def add_sign_off(run: Path) -> None:
    """Write sign_off.csv: the first sample signed, the second read to the end, the third begun."""
    counts = pd.read_csv(run / "counts.csv")
    rows = []
    for place, row in enumerate(counts[counts["assessable"].astype(str) == "True"].to_dict("records")):
        found = int(row["ctc"]) + 2
        read = {0: found, 1: found, 2: 1}.get(place, 0)
        rows.append({
            "sample_id": row["sample_id"], "ctc_machine": int(row["ctc"]), "ctc": int(row["ctc"]), "candidates": found,
            "candidates_read": read, "added": 0, "disputed": 0, "overruled": 0, "overruled_without_reason": 0,
            "readers": "A. Reader" if read else None, "ready": place == 1,
            "signed_by": "B. Signer" if place == 0 else None,
            "signed_on": "2026-11-22T08:15:00+00:00" if place == 0 else None,
            "ctc_signed": int(row["ctc"]) if place == 0 else None, "amendments": 0,
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(run / "sign_off.csv", index=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    """Three patients with a failed, a poor and a missed visit, signatures, imaging, AFP, treatment; and a cohort."""
    run = write_run(tmp_path_factory.mktemp("pages") / "night")
    write_survival(run, patients=60)
    add_care(run)
    add_sign_off(run)
    return write(run)


@pytest.fixture(scope="module")
def source(made) -> Run:
    return read_run(made.run)


# --- every page as a page


def test_every_sample_and_patient_has_a_page(made, source):
    places = set(made.pages)
    assert {"report.html", "pages/batch.html", "pages/cohort.html"} < places
    assert {f"pages/samples/{one}.html" for one in source.counts["sample_id"]} < places
    assert {f"pages/patients/{one}.html" for one in source.timeline["patient_id"]} < places


def test_every_page_needs_nothing_from_outside(made):
    for place, page in made.pages.items():
        text = (made.run / place).read_text(encoding="utf-8")
        assert not re.search(r"https?://|@import|url\((?!#)", text), place
        assert not page.all("link"), place
        assert all((attrs.get("src") or "data:image/").startswith("data:image/") for _, attrs in page.tags), place
        policy = next(str(meta["content"]) for meta in page.all("meta") if "http-equiv" in meta)
        assert policy.startswith("default-src 'none'"), place
        assert "unsafe-inline" not in policy.partition("script-src")[2], place


def test_the_only_script_is_the_one_that_the_policy_names(made):
    import base64
    import hashlib

    for place in set(made.pages) - {"report.html"}:
        text = (made.run / place).read_text(encoding="utf-8")
        scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
        assert len(scripts) == 1
        assert f"'sha256-{digest}'" in text


def test_every_link_leads_somewhere(made):
    ids = {place: {attrs["id"] for _, attrs in page.tags if "id" in attrs} for place, page in made.pages.items()}
    for place, page in made.pages.items():
        for link in page.all("a"):
            target = str(link["href"])
            if target.startswith("data:"):
                continue
            file, _, anchor = target.partition("#")
            there = (made.run / place).parent / unquote(file) if file else made.run / place
            led = there.resolve().relative_to(made.run.resolve()).as_posix()
            assert led in made.pages, (place, target)
            assert not anchor or anchor in ids[led], (place, target)


def test_headings_descend_ids_are_unique_and_pictures_speak(made):
    for place, page in made.pages.items():
        assert not page.open, place
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels.count(1) == 1 == levels[0], place
        assert all(after <= before + 1 for before, after in pairwise(levels)), place
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(ids) == len(set(ids)), place
        assert all(image["alt"] for image in page.all("img")), place
        assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg")), place
        assert all(head.get("scope") for head in page.all("th")), place


def test_pages_of_samples_and_patients_no_longer_there_are_removed(tmp_path):
    run = write_run(tmp_path / "night", patients=2, clinical=False)
    keep = run / "pages" / "notes.txt"
    first = set(write(run).pages)
    keep.write_text("mine")
    for name in ("counts.csv", "slides.csv", "timeline.csv"):
        table = pd.read_csv(run / name)
        table[table["patient_id"] != "P002"].to_csv(run / name, index=False)
    gone = first - set(write(run).pages)
    assert {"pages/patients/P002.html", "pages/samples/P002-0.html"} <= gone
    assert all("P002" in place for place in gone)
    assert keep.read_text() == "mine"


def test_a_report_can_be_written_without_pages(tmp_path):
    run = write_run(tmp_path / "night", patients=1, clinical=False)
    page = Page(write_report(run, pages=False).read_text(encoding="utf-8"))
    assert not (run / "pages").exists()
    assert not [link for link in page.all("a") if str(link["href"]).startswith("pages/")]


# --- names


WEIRD = ["../../etc/passwd", "A/B", "Müller & Söhne", "<script>x</script>", "#1?", "CON"]


def test_weird_ids_stay_inside_the_folder_and_lead_to_their_pages(tmp_path):
    run = write_run(tmp_path / "night", patients=1, clinical=False)
    timeline = pd.read_csv(run / "timeline.csv")
    timeline.assign(patient_id=(WEIRD * 2)[: len(timeline)]).to_csv(run / "timeline.csv", index=False)
    made = write(run)
    patients = {place for place in made.pages if place.startswith("pages/patients/")}
    assert len(patients) == min(len(WEIRD), len(timeline))
    assert not [path for path in tmp_path.rglob("*.html") if run not in path.parents]
    assert not [place for place in made.pages if "<script>x" in (run / place).read_text(encoding="utf-8")]
    test_every_link_leads_somewhere(made)


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=12, unique=True))
def test_no_two_ids_share_a_name_on_any_file_system(ids):
    names = page_names(ids)
    assert set(names) == set(ids)
    assert len({name.casefold() for name in names.values()}) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name) for name in names.values())


# --- data


def test_a_download_is_the_table_it_was_made_of():
    table = pd.DataFrame({"name": ["Müller, A", 'says "5 %"', "a#b\nc"], "value": [0.1, 1e-9, 123456.0]})
    link = csv_link(table)
    assert re.fullmatch(r"[\x21-\x7e]+", link)
    back = pd.read_csv(io.StringIO(unquote(link.removeprefix(PREFIX))))
    pd.testing.assert_frame_equal(back, table)
    assert csv_link(table.iloc[:0]) == ""


def test_the_course_downloaded_is_the_timeline(made, source):
    got = made.downloads("pages/patients/P001.html")["course-P001.csv"]
    own = source.timeline[(source.timeline["patient_id"] == "P001") & (source.timeline["visit_status"] == "done")]
    counts = got[got["what"] == "ctc_per_ml"]
    assert list(counts["day"]) == list(own["day"])
    assert list(counts["value"]) == pytest.approx(list(own["ctc_per_ml"].astype(float)), rel=1e-5)
    assert list(counts["high"]) == pytest.approx(list(own["ctc_per_ml_high"].astype(float)), rel=1e-5)
    assert {"imaging", "AFP", "treatment begins", "recurrence", "visit without a count"} <= set(got["what"])


@pytest.mark.parametrize("name", ["survival.csv", "dynamics.csv"])
def test_the_investigators_figures_can_be_downloaded(made, name):
    assert len(made.downloads("pages/cohort.html")[name])


def test_every_drawing_has_its_data_beside_it(made):
    for place in ("pages/cohort.html", "pages/batch.html", "pages/patients/P001.html"):
        text = (made.run / place).read_text(encoding="utf-8")
        drawings = len(re.findall(r'<svg[^>]* role="img"', text))
        assert drawings <= len(made.downloads(place)), place


# --- the words


def test_the_patients_page_says_what_it_is_not(made):
    for place in (place for place in made.pages if place.startswith("pages/patients/")):
        text = made.text(place)
        assert "Not medical advice, and not for treatment decisions." in text
        assert "circulating tumour cells (CTCs)" in text
        assert "This patient is simulated" in text
        assert "What this page may not be used for" in text
        assert "It is evaluated, never applied." in text


def test_the_patients_page_tells_risk_limits_change_and_the_day_it_was_known(made):
    text = made.text("pages/patients/P003.html")
    assert re.search(r"\d+ % risk of recurrence or death by 24 months after surgery, as it was known on day \d+", text)
    assert re.search(r"95 % limits \d+ % to \d+ %", text)
    assert "What changed since the visit before?" in text
    assert re.search(r"fitted to [\d,]+ counts of \d+ patients, \d+ recurrences or deaths", text)


def test_the_cut_off_stands_with_its_number_assay_and_source(made, source):
    text = made.text("pages/patients/P001.html")
    assert f"cut-off: {source.cutoff['ctc']} CTCs in" in text
    assert f"source: {source.cutoff['source']}" in text
    assert f"assay: {source.cutoff['assay']}" in text


def test_a_missed_visit_is_named_and_never_a_zero(made):
    text = made.text("pages/patients/P001.html")
    assert "day 91 (missed" in text
    assert "A missing count is never read as negative." in text


def test_care_stands_beside_the_counts(made):
    text = made.text("pages/patients/P001.html")
    assert "TACE, day 40" in text
    assert "Microvascular invasion (MVI) yes" in text
    tables = (made.run / "pages/patients/P001.html").read_text(encoding="utf-8")
    assert [word for word in ("equivocal", "positive", "negative") if f"<td>{word}</td>" not in tables] == []
    assert "37.5" in text


def test_the_scheme_is_named_by_the_hash_of_its_text_and_drawn(made, source):
    card = scheme_card(source)
    text = made.text("pages/patients/P002.html")
    assert card.version in text
    assert card.source in text
    assert re.fullmatch(r"[0-9a-f]{12}", card.version)
    assert any(
        attrs.get("aria-label") == "Flow chart of the scheme"
        for attrs in made.pages["pages/patients/P002.html"].all("ol")
    )


def test_a_scheme_of_the_laboratorys_own_is_taken_and_a_damaged_one_is_no_end(made, tmp_path):
    run = tmp_path / "night"
    shutil.copytree(made.run, run, ignore=shutil.ignore_patterns("pages", "slides"))
    shipped = scheme_card(read_run(run))
    (run / "tables" / "scheme.yaml").write_text("name: [")
    broken = scheme_card(read_run(run))
    assert broken.reason
    assert broken.says("P001", None) == ""
    assert not shipped.reason


def test_the_next_visit_is_the_first_whose_window_was_not_used(source):
    early = source.timeline[source.timeline["day"].astype(float) <= 91].copy()
    early.loc[early["day"].astype(float) == 91, "day"] = 90  # a day early is still that visit
    run = Run(**{**vars(source), "timeline": early})
    assert next_visit(run, "P003", {}).startswith("6 months, day 183")
    assert next_visit(run, "P003", {"death": 420.0}) == ""
    assert "no schedule" in next_visit(Run(**{**vars(source), "schedule": ()}), "P003", {})


def test_a_samples_page_has_count_limits_blank_recovery_and_signature(made, source):
    first = source.counts.iloc[0]
    text = made.text(f"pages/samples/{first['sample_id']}.html")
    for words in ("CTC per mL, limits of chance", "Total limits per mL", "Limit of blank", "Recovery"):
        assert words in text
    assert "signed by B. Signer on 2026-11-22" in text
    assert "Research use only" in text


def test_a_sample_without_a_result_says_it_is_no_zero(made, source):
    failed = source.counts[~source.counts["assessable"]]["sample_id"].iloc[0]
    text = made.text(f"pages/samples/{failed}.html")
    assert "No result, which is not a count of zero" in text
    assert "nothing to sign" in text


def test_the_batch_page_says_what_to_do_and_who_waits(made, source):
    text = made.text("pages/batch.html")
    signing = signing_of(source)
    ready = [one.sample for one in signing.values() if one.state == "ready"]
    unsigned = waiting(source, signing)
    assert "What to do next" in text
    assert f"{len(unsigned)} samples wait for a signature" in text
    assert "1 sample that can be signed now" in text
    assert "1 sample whose reading has begun" in text
    assert "See to 1 slide that failed" in text
    links = {str(link["href"]) for link in made.pages["pages/batch.html"].all("a")}
    assert {f"samples/{one}.html" for one in ready} <= links


def test_the_cohort_page_has_the_investigators_sections(made):
    page = made.pages["pages/cohort.html"]
    assert [name for name in page.sections if name] == [
        *("people", "survival", "dynamics", "lead-time", "decision", "validation")
    ]
    assert "Not medical advice" in made.text("pages/cohort.html")


def test_tables_can_be_sorted_where_they_are_long(made):
    for place in ("pages/cohort.html", "pages/batch.html", "pages/patients/P001.html"):
        assert any("sortable" in (table.get("class") or "") for table in made.pages[place].all("table")), place


# --- broken and empty runs


SAID = {
    "no CTC anywhere": [("report.html", "upper limit"), ("pages/patients/P001.html", "0 CTCs in")],
    "no clinical data": [
        ("pages/patients/P001.html", "day 0 is the patient's first sample"),
        ("pages/patients/P001.html", "None is given. The run was given no clinical table"),
    ],
    "one patient": [("pages/cohort.html", "No risks:"), ("pages/cohort.html", "1 patient")],
    "all slides failed": [
        ("pages/batch.html", "no patient's sample has a result"),
        ("pages/patients/P001.html", "no sample of this patient has a result, which is not the same as zero"),
        ("pages/patients/P001.html", "None is given."),
    ],
    "no slides at all": [
        ("pages/cohort.html", "There is no patient's course"),
        ("pages/batch.html", "This run has no slides."),
    ],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "no CTC anywhere": {"ctc": lambda _: 0, "patients": 1},
    "no clinical data": {"clinical": False, "patients": 1},
    "one patient": {"patients": 1},
    "all slides failed": {"fail_all": True, "patients": 2},
    "no slides at all": {"patients": 0},
}


@pytest.fixture(scope="module", params=list(SAID))
def poor(request, tmp_path_factory) -> tuple[str, Made]:
    """A run that has little or nothing to show."""
    run = write_run(tmp_path_factory.mktemp("poor") / "night", **OPTIONS[request.param])
    if request.param == "no slides at all":
        for name in ("counts.csv", "slides.csv"):
            pd.read_csv(run / name).iloc[:0].to_csv(run / name, index=False)
    return request.param, write(run)


def test_a_broken_or_empty_run_makes_honest_pages(poor):
    name, made = poor
    for place in made.pages:
        text = made.text(place)
        assert not NOT_A_NUMBER.search(text), (place, NOT_A_NUMBER.search(text))
        assert "Traceback" not in text
    for place, words in SAID[name]:
        assert words in made.text(place)


def test_links_hold_in_a_broken_or_empty_run_too(poor):
    test_every_link_leads_somewhere(poor[1])
    test_headings_descend_ids_are_unique_and_pictures_speak(poor[1])


def test_what_holds_for_every_sample_is_said_once(poor):
    name, made = poor
    said = made.text("pages/batch.html").count("ctc-imaging counts RUN works it out")
    assert said == (0 if name in ("all slides failed", "no slides at all") else 1)
