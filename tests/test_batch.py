"""A batch: each slide fails alone, any stop can be resumed, nothing is ever mixed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest

from ctc_imaging.config import Settings
from ctc_imaging.errors import CtcImagingError, RunError, TableError
from ctc_imaging.files import sha256_file
from ctc_imaging.recount import recount
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.run_folder import SCHEMA_VERSION, RunFolder

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.syspath_prepend(FAKES)
    import fake_pipeline

    fake_pipeline.without_heavy_parts(monkeypatch)
    return fake_pipeline


@pytest.fixture
def start(fake, tmp_path):
    """Return a function that runs a cohort of texts, written at the first call."""
    from ctc_imaging.batch import run_cohort

    def start(texts: dict[str, str] | None = None, settings=None, cohort=None, out="run", **options):
        if texts is not None:
            fake.write_cohort(tmp_path / "input", texts)
        options = {"workers": 1, "process": fake.process, **options}
        cohort = cohort or tmp_path / "input" / "cohort.csv"
        return run_cohort(cohort, tmp_path / out, settings or Settings(), **options)

    return start


def results_of(run: Path) -> dict[str, str]:
    """Hash what must be the same however the run came about."""
    files = [*run.glob("slides/*/cells.parquet"), run / "counts.csv", run / "slides.csv", run / "timeline.csv"]
    return {path.relative_to(run).as_posix(): sha256_file(path) for path in files}


def states_of(run: Path) -> dict[str, str]:
    with Ledger(run / "ledger.sqlite") as ledger:
        return {slide_id: state.state for slide_id, state in ledger.slides().items()}


def test_a_cohort_becomes_a_run_folder(start, tmp_path):
    told = []
    result = start({"S1": "a", "S2": "b", "S3": "c"}, progress=told.append)
    assert (result.done, result.failed) == (("S1", "S2", "S3"), {})
    run = tmp_path / "run"
    assert len(pd.read_csv(run / "counts.csv")) == 3
    assert len(pd.read_csv(run / "slides.csv")) == 3
    assert (run / "timeline.csv").is_file()
    assert (run / "report.html").is_file()
    facts = json.loads((run / "run.json").read_text())
    assert facts["configuration"]["seed"] == 0
    assert facts["panel"]["name"] == "emt-4"
    assert len(facts["panel"]["hash"]) == len(facts["model"]["hash"]) == 64
    assert [(tally.done, tally.failed, tally.left) for tally in told] == [(0, 0, 3), (1, 0, 2), (2, 0, 1), (3, 0, 0)]
    assert not list(run.glob("slides/.*"))


def test_bad_slides_fail_alone_with_their_reason(start, tmp_path):
    result = start({"S1": "a", "S2": "raise", "S3": "crash", "S4": "b", "S5": "exit"})
    assert result.done == ("S1", "S4")
    assert result.failed["S2"] == "ValueError: no cells in this text"
    assert "signal 9" in result.failed["S3"]
    assert "exit code 3" in result.failed["S5"]
    slides = pd.read_csv(tmp_path / "run" / "slides.csv").set_index("slide_id")
    assert slides.loc["S2", "reason"] == "ValueError: no cells in this text"
    assert slides.loc["S2":"S3", "ctc"].isna().all()
    assert not slides.loc["S2", "assessable"]
    log = (tmp_path / "run" / "run.log").read_text()
    assert "Traceback" in log
    assert not (tmp_path / "run" / "slides" / "S2").exists()


def test_a_slide_that_crashes_once_is_saved_by_a_second_try(start):
    result = start({"S1": "crash once", "S2": "a"})
    assert (result.done, result.failed) == (("S1", "S2"), {})


def test_a_slide_without_all_its_results_fails_alone(start):
    result = start({"S1": "a", "S2": "lacking"})
    assert (result.done, list(result.failed)) == (("S1",), ["S2"])
    assert "results lack overview.png" in result.failed["S2"]


def test_a_damaged_run_folder_is_refused_in_one_line(start, tmp_path):
    start({"S1": "a"})
    run = tmp_path / "run"
    facts = (run / "run.json").read_text()
    for damaged in (facts[:100], "[]", "{}", facts.replace(f'"schema": {SCHEMA_VERSION}', '"schema": 99')):
        (run / "run.json").write_text(damaged)
        with pytest.raises(RunError, match=r"run\.json"):
            start()
    (run / "run.json").write_text(facts)
    (run / "ledger.sqlite").unlink()
    with pytest.raises(RunError, match="ledger is missing"):
        recount(RunFolder(run))


def test_a_missing_slide_fails_alone(start, tmp_path, fake):
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a", "S2": "b"})
    (cohort.parent / "slides" / "S2.tif").unlink()
    assert set(start().failed) == {"S2"}


def test_a_scan_that_changes_while_it_is_read_fails(start):
    result = start({"S1": "rewrite"})
    assert "changed while it was read" in result.failed["S1"]


def test_what_workers_print_goes_to_the_log(start, tmp_path, capfd):
    start({"S1": "print"})
    assert capfd.readouterr().out == ""
    assert "printed by a worker" in (tmp_path / "run" / "run.log").read_text()


def test_the_number_of_workers_changes_nothing(start, tmp_path):
    texts = {f"S{index}": f"text {index}" for index in range(5)}
    start(texts, workers=1)
    alone = results_of(tmp_path / "run")
    start(workers=3, force=True)
    assert results_of(tmp_path / "run") == alone


def test_a_second_start_does_only_what_is_missing(start, tmp_path):
    start({"S1": "a", "S2": "raise", "S3": "c"})
    before = (tmp_path / "run" / "slides" / "S1" / "cells.parquet").stat().st_mtime_ns
    (tmp_path / "input" / "slides" / "S2.tif").write_text("healed")
    (tmp_path / "run" / "slides" / "S3" / "quality.json").unlink()
    result = start()
    assert result.done == ("S1", "S2", "S3")
    assert (tmp_path / "run" / "slides" / "S1" / "cells.parquet").stat().st_mtime_ns == before
    assert (tmp_path / "run" / "slides" / "S3" / "quality.json").is_file()


def test_damaged_results_are_named_and_made_anew(start, tmp_path):
    start({"S1": "a", "S2": "b"})
    before = results_of(tmp_path / "run")
    for name, text in (("cells.parquet", "PAR1"), ("quality.json", "{"), ("quality.json", "{}")):
        (tmp_path / "run" / "slides" / "S1" / name).write_text(text)
        with pytest.raises(RunError, match=r"slides/S1: its results are damaged .* run the same command"):
            recount(RunFolder(tmp_path / "run"))
        start()
        assert results_of(tmp_path / "run") == before


def test_a_refused_start_leaves_everything_as_it_was(start, tmp_path, fake, monkeypatch):
    import shutil

    start({"S1": "a", "S2": "b"})
    before, states = results_of(tmp_path / "run"), states_of(tmp_path / "run")
    (tmp_path / "input").rename(tmp_path / "old")
    fake.write_cohort(tmp_path / "input", {"S3": "c"})
    monkeypatch.setattr("ctc_imaging.batch.needed_bytes", lambda sizes, workers: 10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 1, 1))
    with pytest.raises(RunError, match="needs about"):
        start(force=True)
    assert (results_of(tmp_path / "run"), states_of(tmp_path / "run")) == (before, states)


def test_an_unknown_setting_of_a_run_is_named(start, tmp_path):
    start({"S1": "a"})
    run = tmp_path / "run" / "run.json"
    run.write_text(run.read_text().replace('"seed":', '"sown":', 1))
    with pytest.raises(RunError, match=r"run\.json: damaged .*sown"):
        RunFolder(tmp_path / "run").settings()


def test_a_scan_changed_after_the_fact_is_refused_and_a_touched_one_is_not(start, tmp_path):
    start({"S1": "a", "S2": "b"})
    slide = tmp_path / "input" / "slides" / "S1.tif"
    slide.touch()
    assert start().failed == {}
    slide.write_text("x")
    with pytest.raises(RunError, match="scan has changed"):
        start()
    start(force=True)
    cells = pd.read_parquet(tmp_path / "run" / "slides" / "S1" / "cells.parquet")
    assert len(cells) == len(sys.modules["fake_pipeline"].cells_of("x"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": Settings(seed=1)}, "configuration (seed was 0, is 1)"),
        ({"settings": Settings(panel="epithelial-3")}, "another panel"),
        ({"texts": {"S1": "a", "S2": "b", "S3": "c"}}, "another cohort"),
    ],
)
def test_another_run_in_the_same_folder_is_refused_unless_forced(start, tmp_path, fake, changed, said):
    start({"S1": "a", "S2": "b"})
    before = results_of(tmp_path / "run")
    texts = changed.pop("texts", None)
    if texts:
        (tmp_path / "input").rename(tmp_path / "old")
        fake.write_cohort(tmp_path / "input", texts)
    with pytest.raises(RunError) as caught:
        start(**changed)
    assert said in str(caught.value)
    assert "--force" in str(caught.value)
    assert results_of(tmp_path / "run") == before
    assert start(**changed, force=True).failed == {}
    assert len(states_of(tmp_path / "run")) == len(texts or {"S1", "S2"})


def test_another_model_is_refused(start, monkeypatch):
    import ctc_imaging.inputs

    start({"S1": "a"})
    monkeypatch.setattr(ctc_imaging.inputs, "model_hash", lambda name: "1" * 64)
    with pytest.raises(RunError, match="another model"):
        start()


def test_moving_the_whole_cohort_makes_no_other_run(start, tmp_path):
    start({"S1": "a", "S2": "b"})
    before = results_of(tmp_path / "run")
    (tmp_path / "input").rename(tmp_path / "moved")
    start(cohort=tmp_path / "moved" / "cohort.csv")
    assert results_of(tmp_path / "run") == before


def test_a_newer_clinical_table_is_taken_without_computing_anything_anew(start, tmp_path):
    start({"S1": "a", "S2": "b"})
    assert "patient's first sample" in start().notes[0]
    clinical = tmp_path / "clinical.csv"
    header = "patient_id;surgery_date;last_contact_date;recurrence_date;death_date\n"
    clinical.write_text(header + "P0;2024-01-11;2026-01-01;;\n")
    start(clinical=clinical)
    assert pd.read_csv(tmp_path / "run" / "timeline.csv")["day"].tolist() == [-10, 20]
    start()
    assert pd.read_csv(tmp_path / "run" / "timeline.csv")["day"].tolist() == [-10, 20]


def test_all_tables_are_kept_in_the_run(start, tmp_path):
    (tmp_path / "clinical.csv").write_text(
        "patient_id,surgery_date,last_contact_date,recurrence_date,death_date,MVI\nP0,2024-01-02,2026-01-01,,,1\n"
    )
    (tmp_path / "imaging.csv").write_text("patient_id,imaging_date,modality,result\nP0,2024-06-01,CT,negative\n")
    (tmp_path / "markers.csv").write_text("patient_id,date,marker,value\nP0,2024-06-01,AFP,12.5\n")
    (tmp_path / "schedule.yaml").write_text("- {name: 1 month, day: 30, window_days: [7, 14]}\n")
    names = ("clinical", "imaging", "markers")
    tables = {name: tmp_path / f"{name}.csv" for name in names} | {"schedule": tmp_path / "schedule.yaml"}
    start({"S1": "a", "S2": "b"}, **tables)
    run = RunFolder(tmp_path / "run")
    assert set(run.read()["tables"]) == {"cohort", *tables}
    assert all(run.table(name).is_file() for name in ("cohort", *tables))
    assert run.panel().name == "emt-4"
    assert run.panel().hash == run.read()["panel"]["hash"]
    assert run.settings() == Settings()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"clinical": "none.csv"}, "no such file"),
        ({"settings": Settings(panel="none")}, "no such panel"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_bad_input_stops_before_any_slide_and_makes_no_folder(start, tmp_path, options, error):
    if "clinical" in options:
        options["clinical"] = tmp_path / options["clinical"]
    with pytest.raises(CtcImagingError, match=error):
        start({"S1": "a"}, **options)
    assert not (tmp_path / "run").exists()


def test_a_panel_of_ones_own_is_kept_in_the_run(start, tmp_path, fake, monkeypatch):
    own = (resources.files("ctc_imaging") / "panels" / "epithelial-3.yaml").read_text().replace("epithelial-3", "ours")
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a", "S2": "b", "S3": "c", "S4": "d"})
    (cohort.parent / "ours.yaml").write_text(own)
    lines = cohort.read_text().splitlines()
    cohort.write_text(
        "\n".join(
            [lines[0] + ",panel", *(f"{line},ours.yaml" for line in lines[1:3]), *(f"{line}," for line in lines[3:])]
        )
    )
    start()
    run = RunFolder(tmp_path / "run")
    called = str(tmp_path / "input" / "ours.yaml")
    assert (run.panel().name, run.panel(called).name) == ("emt-4", "ours")
    (tmp_path / "input").rename(tmp_path / "moved")
    start(cohort=tmp_path / "moved" / "cohort.csv")
    recount(run)


def test_the_run_goes_by_the_panel_its_slides_name(start, tmp_path, fake):
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a"})
    lines = cohort.read_text().splitlines()
    cohort.write_text(f"{lines[0]},panel\n{lines[1]},epithelial-3\n")
    start()
    assert RunFolder(tmp_path / "run").panel().name == "epithelial-3"


def test_one_patient_is_never_read_with_two_panels(start, tmp_path, fake):
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a", "S2": "b"})
    lines = cohort.read_text().splitlines()
    cohort.write_text("\n".join([lines[0] + ",panel", lines[1] + ",", lines[2] + ",epithelial-3"]))
    with pytest.raises(TableError, match="patient P0 has slides of the panels emt-4 and epithelial-3"):
        start()


def test_a_folder_with_something_else_in_it_is_left_alone(start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.docx").touch()
    with pytest.raises(RunError, match=r"not empty \(thesis.docx\)"):
        start({"S1": "a"})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.docx"]


def test_a_second_run_at_once_is_refused(start, tmp_path):
    start({"S1": "a"})
    run = RunFolder(tmp_path / "run")
    with run.locked(), pytest.raises(RunError, match="another run is at work"):
        start()
    start()


def test_a_simulated_cohort_is_called_so(start, tmp_path):
    start({"S1": "a"})
    assert json.loads((tmp_path / "run" / "run.json").read_text())["simulated"] is False
    (tmp_path / "input" / "truth").mkdir()
    start()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["simulated"] is True


@pytest.fixture
def launch(fake, tmp_path):
    """Return a function that starts the same run by the command line, in a process of its own."""
    (tmp_path / "pids").mkdir()

    def launch(wait_s: float) -> subprocess.Popen:
        command = [sys.executable, FAKES / "fake_pipeline.py", "run", tmp_path / "input" / "cohort.csv"]
        here = {"FAKE_WAIT": str(wait_s), "FAKE_PIDS": str(tmp_path / "pids")}
        options = ["--out", tmp_path / "run", "--workers", "2"]
        return subprocess.Popen([*command, *options], env={**os.environ, **here}, stderr=subprocess.PIPE, text=True)

    return launch


def workers_of(tmp_path: Path) -> list[int]:
    """List the worker processes that are still there."""
    return [int(path.name) for path in (tmp_path / "pids").iterdir() if is_alive(int(path.name))]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def count_states(run: Path, state: str) -> int:
    return list(states_of(run).values()).count(state) if (run / "ledger.sqlite").exists() else 0


@pytest.mark.skipif(os.name != "posix", reason="kills processes by signal")
def test_killed_and_resumed_equals_uninterrupted(start, launch, fake, tmp_path):
    run = tmp_path / "run"
    fake.write_cohort(tmp_path / "input", {f"S{index}": f"wait {index}" for index in range(8)})
    start(out="whole")
    for done in (1, 4):
        process = launch(0.1)
        wait_until(lambda: count_states(run, "done") >= done)  # noqa: B023
        process.kill()
        process.communicate()
        wait_until(lambda: not workers_of(tmp_path))
        assert count_states(run, "done") < 8
    assert start().failed == {}
    assert results_of(run) == results_of(tmp_path / "whole")
    assert not list((run / "slides").glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="kills processes by signal")
def test_a_killed_worker_costs_nothing(start, launch, fake, tmp_path):
    run = tmp_path / "run"
    fake.write_cohort(tmp_path / "input", {f"S{index}": f"wait {index}" for index in range(4)})
    start(out="whole")
    process = launch(0.4)
    wait_until(lambda: count_states(run, "running") and workers_of(tmp_path))
    os.kill(workers_of(tmp_path)[0], signal.SIGKILL)
    process.communicate()
    assert process.returncode == 0
    assert set(states_of(run).values()) == {"done"}
    assert results_of(run) == results_of(tmp_path / "whole")


@pytest.mark.skipif(os.name != "posix", reason="interrupts processes by signal")
def test_ctrl_c_ends_at_once_and_leaves_a_run_to_go_on_with(start, launch, fake, tmp_path):
    run = tmp_path / "run"
    fake.write_cohort(tmp_path / "input", {f"S{index}": f"wait {index}" for index in range(3)})
    process = launch(60)
    wait_until(lambda: count_states(run, "running") and workers_of(tmp_path))
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said.endswith("ctc-imaging: error: interrupted; the same command goes on from here\n")
    assert "Traceback" not in said
    assert workers_of(tmp_path) == []
    assert "stopped" in (run / "run.log").read_text()
    assert len(start().done) == 3
