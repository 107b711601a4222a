"""The report's page on clonality: which visit's CTCs carried the relapse's mutations, how long before imaging."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ctc_imaging.report import write_report
from ctc_imaging.report.clonality import clonality_page, imaging_of
from ctc_imaging.report.clonality_words import Imaging, lead, sentence, visits
from ctc_imaging.report.source import read_run

from .report_fixture import write_run
from .test_report import SECTIONS, Page

WORDS = {
    "shared_subclone": "a subclone shared",
    "common_origin": "common origin",
    "unrelated": "none",
    "cannot_tell": "?",
}


def patient(name: str = "P-001", verdicts: tuple[str, ...] = ("common_origin", "shared_subclone"), **more) -> dict:
    """Make a patient as in clonality.json, one CTC sample a verdict, on days -3, 30, 91, ..."""
    days = [-3, 30, 91, 183, 365][: len(verdicts)]
    ctcs = [{"sample_id": f"c{number}", "kind": "ctc", "day": day} for number, day in enumerate(days)]
    tissue = [{"sample_id": "t", "kind": "primary", "day": 0}, {"sample_id": "r", "kind": "relapse", "day": 400}]
    ids = [sample["sample_id"] for sample in (*tissue, *ctcs)]
    return {
        "patient_id": name,
        "samples": [*tissue, *ctcs],
        "mutations": [
            {"mutation": f"m{n}", "gene": "TP53" if n == 0 else None, "clone": 0, "calls": dict.fromkeys(ids, 1.0)}
            for n in range(3)
        ],
        "pairs": [
            {"sample_a": "t", "sample_b": "r", "shared": 3, "private_a": 0, "private_b": 0, "p_value": 1e-9}
            | {"verdict": "common_origin"}
        ],
        "clones": [{"clone": 0, "parent": None, "mutations": ["m0", "m1", "m2"], "trunk": 1.0, "placed": True}],
        "tree_support": 0.97,
        "ctcs": [
            {"sample_id": f"c{number}", "relapse": "r", "relapse_mutations": 3, "known": 3, "carried": 2 + number % 2}
            | {"beyond_trunk": 2, "carried_beyond_trunk": number, "verdict": verdict}
            for number, verdict in enumerate(verdicts)
        ],
        "notes": ["One sample of the primary."],
        **more,
    }


def write(run: Path, *patients: dict, **more) -> None:
    facts = {
        "schema": 1,
        "statement": "For research use only.",
        "simulated": True,
        "relatedness_only": False,
        "words": WORDS,
        "patients": list(patients),
        "notes": ["A note with P-001 in it."],
        **more,
    }
    (run / "clonality.json").write_text(json.dumps(facts), encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "night")


@pytest.fixture(scope="module")
def names(run) -> list[str]:
    return sorted(pd.read_csv(run / "counts.csv")["patient_id"].dropna().unique())


def test_a_run_without_sequencing_shows_nothing(run):
    (run / "clonality.json").unlink(missing_ok=True)
    page = Page(write_report(run, pages=False).read_text(encoding="utf-8"))
    assert [name for name in page.sections if name] == SECTIONS
    assert "Sequencing:" not in page.sections["patients"]


def test_the_section_stands_after_the_patients(run, names):
    write(run, patient(names[0]), patient(names[1], verdicts=()))
    page = Page(write_report(run, pages=False).read_text(encoding="utf-8"))
    shown = [name for name in page.sections if name]
    assert shown == [*SECTIONS[: SECTIONS.index("risk")], "clonality", *SECTIONS[SECTIONS.index("risk") :]]
    assert not page.open
    text = page.sections["clonality"]
    assert "1 of 2 CTC samples shared a subclone with the relapse beyond the primary's trunk" in text
    assert "For research, not medical advice" in text
    assert "Simulated data" in text
    assert "There is no CTC among the sequenced samples" in text
    assert "One sample of the primary." in text
    assert page.sections["patients"].count("Sequencing:") == 2
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    anchors = {attrs["href"][1:] for attrs in page.all("a") if (attrs.get("href") or "").startswith("#clonality")}
    assert anchors <= set(ids)


def test_patients_of_other_runs_are_counted_and_not_named(run, names):
    write(run, patient(names[0]), patient("Jane Doe"))
    text = write_report(run, pages=False).read_text(encoding="utf-8")
    assert "Jane Doe" not in text
    assert "Left out: 1 sequenced patient who isn't in this run." in Page(text).sections["clonality"]
    write(run, patient("Jane Doe"))
    assert clonality_page(read_run(run)).reason == "None of the sequenced patients is in this run"


@pytest.mark.parametrize("text", ["{", "[]", '{"patients": 3}', '{"patients": [{}], "notes": []}', "\x00"])
def test_a_damaged_file_leaves_the_rest_of_the_report_whole(run, text):
    (run / "clonality.json").write_text(text, encoding="utf-8")
    page = clonality_page(read_run(run))
    assert page.shown
    assert "damaged" in page.reason
    assert page.patients == ()


def test_names_from_a_file_are_never_markup(run, names):
    evil = "<script>alert(1)</script>"
    write(run, patient(names[0], notes=[evil]), notes=[evil])
    assert "<script>" not in write_report(run, pages=False).read_text(encoding="utf-8")


def test_a_visit_reads_as_days_before_imaging():
    rows = visits(patient(), Imaging(91.0, "first positive scan"), WORDS)
    assert [row["day"] for row in rows] == ["−3", "30"]
    assert [row["before"] for row in rows] == ["3.1 months", "2.0 months"]
    assert [row["beyond"] for row in rows] == ["0 of 2", "1 of 2"]
    assert rows[1]["verdict"] == "a subclone shared (1)"


def test_ctcs_of_unknown_day_are_shown_without_a_lead():
    samples = [{**s, "day": None} for s in patient()["samples"]]
    rows = visits(patient(samples=samples), Imaging(91.0, "recurrence"), WORDS)
    assert [(row["day"], row["before"], row["samples"]) for row in rows] == [("–", "–", "2")]
    assert "first on" not in sentence(patient(samples=samples), Imaging(91.0, "recurrence"))


def test_leads_are_in_the_units_of_a_clinic():
    assert [lead(days) for days in (0, 1, 60, 61, 730, -1)] == [
        *("0 days", "1 day", "60 days", "2.0 months", "24 months", "after it")
    ]


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (("common_origin", "common_origin"), "that it was seeded by them isn't shown"),
        (("unrelated", "unrelated"), "may be a new primary"),
        (("unrelated", "cannot_tell"), "of the others it cannot be told"),
        (("cannot_tell",), "cannot be told"),
        (("cannot_tell", "shared_subclone"), "the first on day 30, 12 months before imaging showed the relapse"),
    ],
)
def test_the_sentence_claims_no_more_than_the_verdicts(verdicts, said):
    text = sentence(patient(verdicts=verdicts), Imaging(400.0, "recurrence"))
    assert said in text
    assert ("subclone" in text) == ("shared_subclone" in verdicts)


def test_imaging_is_the_first_positive_scan_then_the_recurrence_then_the_relapses_own_sample(run, names):
    source = read_run(run)
    assert imaging_of(source, patient(names[0]), {names[0]: 77.0}) == Imaging(77.0, "first positive scan")
    assert imaging_of(source, patient("nobody"), {}) == Imaging(400.0, "relapse sampled")
    known = source.clinical.dropna(subset=["recurrence_date"]).iloc[0]
    day = (known["recurrence_date"] - known["surgery_date"]).days
    assert imaging_of(source, patient(known["patient_id"]), {}) == Imaging(float(day), "recurrence")
