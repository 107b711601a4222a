"""Each patient's page: what the risk is, how sure, what changed, and nothing that was known only later."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from ctc_imaging.report import write_report
from ctc_imaging.report.risk import risk_page
from ctc_imaging.report.risk_chart import Course, draw_course
from ctc_imaging.report.source import read_run

from .report_fixture import write_run, write_survival


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of three patients, with a larger cohort beside it for the model."""
    folder = write_run(tmp_path_factory.mktemp("risk") / "run")
    write_survival(folder)
    return folder


@pytest.fixture(scope="module")
def page(run):
    """Its section."""
    return risk_page(read_run(run))


def section(folder) -> str:
    text = write_report(folder, pages=False).read_text(encoding="utf-8")
    found = re.search(r'<section aria-labelledby="risk">.*?</section>', text, re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split())


def test_each_patient_is_told_a_risk_its_limits_and_what_changed(run, page):
    assert {one.patient for one in page.patients} == set(read_run(run).timeline["patient_id"])
    text = section(run)
    for one in page.patients:
        assert f"{one.risk} risk of recurrence or death by 24 months after surgery, as it was known on" in text
        assert f"between {one.low} and {one.high}" in text
        assert one.change in text
    assert "For research use only" in text


def test_the_highest_risk_comes_first(page):
    assert [one.bar for one in page.patients] == sorted((one.bar for one in page.patients), reverse=True)


def test_simulated_patients_are_called_simulated(run):
    assert section(run).count("SIMULATED patient") == len(risk_page(read_run(run)).patients)


def test_the_model_says_whom_it_was_fitted_to(run, page):
    assert not page.own
    assert "other patients than these" in section(run)
    assert any("doubling" in row["term"] for row in page.model)


def test_how_long_a_patient_was_seen_after_the_last_count_changes_no_risk(run, page):
    run_read = read_run(run)
    clinical = run_read.clinical.copy()
    clinical["last_contact_date"] += pd.Timedelta(days=300)
    later = risk_page(type(run_read)(**{**vars(run_read), "clinical": clinical}))
    before = {one.patient: (one.risk, one.low, one.high, one.day) for one in page.patients}
    after = {one.patient: (one.risk, one.low, one.high, one.day) for one in later.patients}
    assert before == after


def test_without_clinical_data_the_page_says_why(tmp_path):
    assert "no clinical table" in section(write_run(tmp_path / "run", clinical=False)).lower()


def test_too_few_patients_give_a_reason(tmp_path):
    assert "No risks." in section(write_run(tmp_path / "run", patients=1))


def test_the_picture_holds_the_latest_risk_in_words():
    values = pd.DataFrame({"time": [-3.0, 30.0], "value": [0.4, 1.2], "low": [0.1, 0.5], "high": [1.0, 2.4]})
    risks = pd.DataFrame({"time": [0.0, 30.0], "risk": [0.4, 0.62], "low": [0.2, 0.4], "high": [0.7, 0.8]})
    figure = draw_course(
        Course(values, risks, "CTC per mL", "Days", 730.0, "within 2 years", cutoff=0.4, known="as known on day 30")
    )
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "62 % (40 % to 80 %)\nas known on day 30" in words
