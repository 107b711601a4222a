"""The line of each result: what the controls say of it, and plainly where none says anything."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ctc_imaging.assay import RATE_COLUMNS
from ctc_imaging.report import write_report
from ctc_imaging.report.results import statement

from .report_fixture import write_run

RATES = {
    "batch_name": "batch B1", "batch_verdict": "passed", "false_from": "run", "blanks": 6, "blank_leukocytes": 450_000,
    "blank_ctc": 2, "false_per_100k": 0.56, "recovery_from": "run", "spiked_tubes": 4, "recovery": 0.81,
    "recovery_low": 0.737, "recovery_high": 0.868, "all_reviewed": False,
}  # fmt: skip
NO_CONTROLS = {
    "batch_verdict": "", "false_from": "simulated", "blanks": 0, "recovery_from": "simulated", "spiked_tubes": 0,
    "recovery": None, "recovery_low": None, "recovery_high": None,
}  # fmt: skip


def line(ctc=3, blank: float | None = 1, **changed) -> str:
    return statement(pd.Series({"ctc": ctc, "limit_of_blank": blank}), pd.Series(RATES | changed))


def test_a_result_beside_its_controls_reads_as_one_line():
    assert line() == "3 CTCs, above the limit of blank, recovery 81 % (74–87), batch passed"
    assert line(1) == "1 CTC, not above the limit of blank, recovery 81 % (74–87), batch passed"
    assert line(0) == "0 CTCs, recovery 81 % (74–87), batch passed"
    assert line(batch_verdict="failed").endswith(", batch failed")
    assert line(batch_verdict="not judged").endswith(", controls of the batch not judged")
    assert line(batch_verdict="").endswith(", batch without controls")
    assert line(batch_name="the run").endswith(", controls passed")
    assert line(batch_name="the run", batch_verdict="").endswith("(74–87)")


def test_a_reader_stands_in_for_the_limit_of_blank():
    assert line(blank=None, all_reviewed=True) == (
        "3 CTCs, each confirmed by a reader, recovery 81 % (74–87), batch passed"
    )
    assert line(1, None, all_reviewed=True).startswith("1 CTC, confirmed by a reader, ")


def test_without_controls_the_line_says_so():
    assert line(blank=None, **NO_CONTROLS) == "3 CTCs; no controls in this run: limits from simulated slides"
    by_model = NO_CONTROLS | {"false_from": "model", "recovery_from": "model"}
    assert line(blank=None, **by_model).endswith("no controls in this run: limits from the model's own test slides")
    nothing = NO_CONTROLS | {"false_from": None, "recovery_from": None}
    assert line(blank=None, **nothing) == "3 CTCs; no controls in this run: limits of chance only"
    read = line(2, None, **NO_CONTROLS, all_reviewed=True)
    assert read.startswith("2 CTCs, each confirmed by a reader; no controls in this run")


def test_without_one_kind_of_control_the_line_says_which():
    assert line(recovery_from="simulated", spiked_tubes=0) == (
        "3 CTCs, above the limit of blank, recovery not known, batch passed"
    )
    missing = line(blank=None, false_from="simulated", blanks=0)
    assert (
        "limit of blank not known (no blank in this run), false calls from simulated slides, recovery 81 %" in missing
    )
    few = line(blank=None, false_from="simulated", blanks=2)
    assert "limit of blank not known (too few leukocytes in the blanks)" in few


# --- the page


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("results") / "night")


@pytest.fixture
def changed(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "night"))


def write_rates(run: Path, blank: float | None = 1, **columns) -> None:
    """Give the patients' samples of a run limits of blank and error rates."""
    counts = pd.read_csv(run / "counts.csv")
    known = (counts["sample_kind"] == "patient") & counts["assessable"].astype(bool)
    counts.loc[known, "limit_of_blank"] = blank
    counts.loc[known, ["ctc_per_ml_total_low", "ctc_per_ml_total_high"]] = [0.0, 4.5]
    counts.to_csv(run / "counts.csv", index=False)
    rates = counts.loc[known, ["sample_id"]].assign(**RATES | columns)
    rates.reindex(columns=list(RATE_COLUMNS)).to_csv(run / "error_rates.csv", index=False)
    timeline = pd.read_csv(run / "timeline.csv")
    timeline["limit_of_blank"] = timeline["sample_id"].map(counts.set_index("sample_id")["limit_of_blank"])
    timeline.to_csv(run / "timeline.csv", index=False)


def section(run: Path, name: str = "samples") -> str:
    page = write_report(run, pages=False).read_text(encoding="utf-8")
    part = re.search(rf'<section aria-labelledby="{name}">(.*?)</section>', page, re.DOTALL)
    assert part is not None
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", part[1])).split())


def test_the_page_has_each_result_with_its_total_limits_and_says_what_they_rest_on(changed):
    write_rates(changed)
    text = section(changed)
    counts = pd.read_csv(changed / "counts.csv")
    patients = counts[(counts["sample_kind"] == "patient") & counts["assessable"]]
    assert text.count("recovery 81 % (74–87), batch passed") == len(patients)
    assert text.count("not assessable: out of focus on 71 %") == 2
    assert "(0–4.5)" in text
    assert (
        "Limits of blank rest on 6 blanks and donors of the whole run: 2 false CTCs among 450,000 leukocytes." in text
    )
    assert "Recovery is that of 4 spiked samples of the whole run." in text
    above = int((patients["ctc"] > 1).sum())
    assert f"Above the limit of blank {above} of {len(patients)}" in text


def test_a_page_without_controls_says_so_where_the_figures_stand(changed):
    write_rates(changed, None, **NO_CONTROLS)
    text = section(changed)
    assert "no controls in this run: limits from simulated slides" in text
    assert "False calls are those of the model on simulated slides: 0.56 among 100,000 leukocytes." in text
    assert "recovery isn't known" in text
    assert "Above the limit of blank" not in text


def test_a_run_of_an_older_version_says_how_to_have_them(changed):
    text = section(changed)
    assert "Nothing is known of false calls and lost cells" in text
    assert "ctc-imaging counts RUN works them out." in text


def test_positives_that_a_blank_might_have_given_are_a_warning(changed):
    timeline = pd.read_csv(changed / "timeline.csv")
    positive = timeline[timeline["status"] == "positive"]
    write_rates(changed, 1)
    assert "not above the limit of blank: " not in section(changed, "night")
    highest = float(positive["ctc"].max())
    write_rates(changed, highest)
    text = section(changed, "night")
    assert f"CTC-positive by the cut-off, but not above the limit of blank: {len(positive)} samples" in text
    assert "have a reader look at each CTC" in text
