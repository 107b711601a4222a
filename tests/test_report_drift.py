"""Drift on the page: which batch, what is off, and what can't be judged; never resting on colour alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ctc_imaging.drift import judge_drift, make_reference
from ctc_imaging.files import write_csv
from ctc_imaging.panel import load_panel
from ctc_imaging.report import write_report
from ctc_imaging.report.drift import shown

from .report_fixture import write_run
from .test_drift import a_slide, rows_of

PANEL = load_panel("emt-4")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("drift") / "night")


@pytest.fixture(scope="module")
def reference():
    rng = np.random.default_rng(1)
    return make_reference([a_slide(rng) for _ in range(12)], PANEL, simulated=True)


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "night"))


def section(run: Path) -> str:
    """Return the page's section on drift."""
    page = write_report(run, pages=False).read_text(encoding="utf-8")
    part = re.search(r'<section aria-labelledby="drift">(.*?)</section>', page, re.DOTALL)
    assert part is not None
    return part[1]


def text_of(run: Path) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", " ", section(run), flags=re.DOTALL)).split())


def judge(run: Path, batches, reference, simulated=True) -> None:
    """Write the drift of some batches, and the reference that the model had."""
    write_csv(run / "drift.csv", judge_drift(rows_of(batches), reference, simulated))
    facts = json.loads((run / "run.json").read_text())
    facts["model"]["reference"], facts["simulated"] = reference, simulated
    (run / "run.json").write_text(json.dumps(facts))


def test_a_batch_that_is_off_is_named_with_figure_training_and_limits(run, reference):
    judge(run, [{}, {"cd45": 0.4}, {}], reference)
    text = text_of(run)
    assert "1 of 3 batches is unlike the slides that the model learnt from." in text
    assert re.search(r"batch B01 CD45 on leukocytes, SNR [\d.]+ [\d.]+ [\d.]+ to [\d.]+ compare stain lots", text)
    assert "batch B00" not in text


def test_an_alarm_shows_in_the_drawing_without_its_colour(run, reference):
    judge(run, [{}, {"cd45": 0.4}, {}], reference)
    drawn = section(run)
    assert "▲ CD45 on leukocytes" in drawn
    assert drawn.count("▲ ") == 1
    assert "with an alarm: batch B01" in drawn


def test_batches_like_training_are_said_to_be_so_and_the_charts_are_folded(run, reference):
    judge(run, [{}, {}], reference)
    assert "No drift: all 2 batches are like the slides that the model learnt from." in text_of(run)
    assert '<details class="sheet">' in section(run)
    judge(run, [{}], reference)
    assert "No drift: the batch is like" in text_of(run)


def test_an_alarm_against_simulated_slides_on_real_ones_says_what_it_is_worth(run, reference):
    judge(run, [{"cd45": 0.4}], reference, simulated=False)
    assert "The model learnt from simulated slides." in text_of(run)
    judge(run, [{"cd45": 0.4}], reference, simulated=True)
    assert "The model learnt from simulated slides." not in text_of(run)


def test_without_a_reference_it_says_what_the_batches_were_compared_with(run):
    judge(run, [{}, {}, {"size": 1.3}, {}, {}, {}], None)
    text = text_of(run)
    assert "1 of 6 batches is unlike the others." in text
    assert "The model has no record of its training slides" in text
    judge(run, [{}, {}], None)
    assert "Drift can't be judged" in text_of(run).replace("&#39;", "'")


def test_a_run_of_an_older_version_says_how_to_measure(run):
    assert "ctc-imaging counts RUN measures it" in text_of(run)


def test_many_slides_stay_small(run, reference):
    judge(run, [{}] * 40, reference)
    assert len(section(run)) < 600_000


def test_numbers_are_told_to_the_digits_that_matter():
    assert shown("indeterminate_share", 0.0032) == "0.32 %"
    assert shown("leukocyte_snr", 0.3513) == "0.35"
    assert shown("background", 237.764) == "238"
