"""A Dask cluster gives the bytes of a local run, whatever dies; what can't work is refused before any slide."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ctc_imaging.cli import main
from ctc_imaging.cluster import FEW_PARTS, connected, installed, map_by_all, survey
from ctc_imaging.errors import ConfigError
from ctc_imaging.files import sha256_file
from ctc_imaging.simulation import simulate_slide, write_slide
from ctc_imaging.store.ledger import Ledger

pytest.importorskip("distributed", reason="needs the extra 'cluster'")

FAKES = Path(__file__).parent / "fakes"
LOG = "run.log"


class Machines:
    """A scheduler and workers, each a process of its own, as on several machines."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.pids = folder / "pids"
        self.pids.mkdir(parents=True)
        self.processes: list[subprocess.Popen] = []
        found = folder / "scheduler.json"
        self.scheduler = self._start("dask_scheduler", "--port", "0", "--scheduler-file", str(found), **settings)
        wait_until(lambda: found.exists() and found.stat().st_size)
        self.address = json.loads(found.read_text())["address"]

    def worker(self, threads: int = 1, **environment: str) -> subprocess.Popen:
        options = ("--nthreads", str(threads), "--no-nanny", "--memory-limit", "0", "--death-timeout", "60")
        return self._start("dask_worker", self.address, *options, **environment)

    def _start(self, module: str, *options: str, **environment: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *options]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": (self.folder / f"{len(self.processes)}.log").open("wb")}
        here = {
            "PYTHONPATH": f"{FAKES}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            "FAKE_PIDS": str(self.pids),
            "FAKE_WAIT": "0.5",
        }
        with quiet["stderr"]:
            process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--no-dashboard"],
                env={**os.environ, **here, **environment},
                cwd=self.folder,
                **quiet,
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A scheduler with three workers; whoever kills one starts another."""
    machines = Machines(tmp_path_factory.mktemp("three"))
    machines.workers = [machines.worker(threads) for threads in (2, 1, 1)]
    yield machines
    machines.stop()


@pytest.fixture
def machines(tmp_path):
    """Return a function that starts a scheduler."""
    started = []

    def start(**settings: str) -> Machines:
        started.append(Machines(tmp_path / f"machines{len(started)}", **settings))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.syspath_prepend(FAKES)
    import fake_pipeline

    return fake_pipeline


@pytest.fixture
def launch():
    """Return a function that starts ``ctc-imaging run``, by default with the stand-in for the pipeline."""
    started = []

    def launch(cohort: Path, out: Path, *options: str, program=(FAKES / "fake_pipeline.py",)) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, *program, "run", cohort, "--out", out, *options],
            env={**os.environ, "FAKE_WAIT": "0.5"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def finish(process: subprocess.Popen) -> tuple[int, str]:
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def succeeds(*processes: subprocess.Popen) -> None:
    for process in processes:
        code, said = finish(process)
        assert code == 0, said


def wait_until(condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def results_of(run: Path) -> dict[str, str]:
    """Hash what must be the same however the run came about."""
    files = [*run.glob("slides/*/cells.parquet"), *(run / f"{name}.csv" for name in ("counts", "slides", "timeline"))]
    return {path.relative_to(run).as_posix(): sha256_file(path) for path in files}


def states_of(run: Path) -> dict[str, str]:
    if not (run / "ledger.sqlite").exists():
        return {}
    with Ledger(run / "ledger.sqlite") as ledger:
        return {slide_id: state.state for slide_id, state in ledger.slides().items()}


def test_a_worker_killed_at_work_changes_no_byte(three, fake, launch, tmp_path):
    cohort = fake.write_cohort(tmp_path / "input", {f"S{index}": f"wait {index}" for index in range(7)})
    local = launch(cohort, tmp_path / "local", "--workers", "1")
    process = launch(cohort, tmp_path / "run", "--scheduler", three.address)
    victim = three.workers.pop()
    wait_until((three.pids / str(victim.pid)).exists)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    three.workers.append(three.worker())
    succeeds(process, local)
    assert results_of(tmp_path / "run") == results_of(tmp_path / "local")
    assert not list(tmp_path.glob("run/slides/.*"))


def test_a_bad_slide_fails_alone_with_its_reason_in_the_log(three, fake, launch, tmp_path):
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a", "S2": "raise", "S3": "exit", "S4": "b"})
    code, said = finish(launch(cohort, tmp_path / "run", "--scheduler", three.address))
    assert code == 1
    assert states_of(tmp_path / "run") == {"S1": "done", "S2": "failed", "S3": "failed", "S4": "done"}
    assert "S2 failed: ValueError: no cells in this text" in said
    assert "S3 failed: the worker process died (exit code 3)" in said
    assert "Traceback" in (tmp_path / "run" / LOG).read_text()


def test_a_slide_that_kills_every_worker_it_meets_fails_alone(machines, fake, launch, tmp_path):
    cluster = machines(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    for _ in range(2):
        cluster.worker()
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "crash", "S2": "wait a", "S3": "wait b", "S4": "c"})
    code, said = finish(launch(cohort, tmp_path / "run", "--scheduler", cluster.address))
    assert code == 1
    assert "S1 failed: the worker process died" in said
    assert states_of(tmp_path / "run") == {"S1": "failed", "S2": "done", "S3": "done", "S4": "done"}


def test_workers_may_come_late_and_when_the_scheduler_dies_what_is_done_is_kept(machines, fake, launch, tmp_path):
    cluster, run = machines(), tmp_path / "run"
    cohort = fake.write_cohort(tmp_path / "input", {f"S{index}": f"wait {index}" for index in range(4)})
    process = launch(cohort, run, "--scheduler", cluster.address)
    assert process.stderr.readline() == f"ctc-imaging: note: waiting for workers of {cluster.address}\n"
    cluster.worker()
    wait_until(lambda: "done" in states_of(run).values())
    cluster.scheduler.send_signal(signal.SIGKILL)
    code, said = finish(process)
    assert code == 2
    assert said.splitlines()[-1].startswith(f"ctc-imaging: error: --scheduler {cluster.address}: the Dask scheduler is")
    assert "Traceback" not in said
    assert states_of(run)["S0"] == "done"
    assert (run / "slides" / "S0" / "cells.parquet").is_file()


def test_ctrl_c_ends_the_run_at_once(three, fake, launch, tmp_path):
    run = tmp_path / "run"
    cohort = fake.write_cohort(tmp_path / "input", {f"S{index}": "wait" for index in range(60)})
    process = launch(cohort, run, "--scheduler", three.address)
    wait_until(lambda: "running" in states_of(run).values())
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 130
    assert said.endswith("ctc-imaging: error: interrupted; the same command goes on from here\n")
    assert "Traceback" not in said
    assert "pending" in states_of(run).values()


def test_a_worker_with_another_installation_is_refused_before_any_slide(machines, fake, launch, tmp_path):
    cluster = machines()
    (tmp_path / "other" / "ctc_imaging").mkdir(parents=True)
    (tmp_path / "other" / "ctc_imaging" / "__init__.py").touch()
    cluster.worker(PYTHONPATH=str(tmp_path / "other"))
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a"})
    code, said = finish(launch(cohort, tmp_path / "run", "--scheduler", cluster.address))
    assert code == 2
    error = said.splitlines()[-1]
    assert "error: worker tcp://127.0.0.1:" in error
    assert "ctc_imaging" in error
    assert set(states_of(tmp_path / "run").values()) <= {"pending"}


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers there"),
        (["--scheduler", "nonsense"], "no Dask scheduler answers there"),
        (["--scheduler", "tcp://127.0.0.1:9", "--workers", "2"], "aren't started here"),
    ],
)
def test_an_address_that_is_none_is_refused_in_one_line(fake, tmp_path, monkeypatch, capsys, options, fault):
    monkeypatch.setattr("ctc_imaging.cluster._CONNECT_SECONDS", 0.5)
    fake.without_heavy_parts(monkeypatch)
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a"})
    assert main(["run", str(cohort), "--out", str(tmp_path / "run"), *options]) == 2
    said = capsys.readouterr().err
    assert fault in said.splitlines()[-1]
    assert "Traceback" not in said


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"ctc-imaging\[cluster\]"), connected("tcp://127.0.0.1:9"):
        pass


def test_a_worker_says_what_it_lacks(tmp_path):
    here = installed(("default", "nuclei"), ("numpy",))
    (tmp_path / "token").touch()
    assert survey(here, [str(tmp_path / "token")]) is None
    assert "doesn't see" in survey(here, [str(tmp_path / "token"), str(tmp_path / "none")])[0]
    older = replace(here, facts=(*here.facts[:-1], ("numpy", "0.1")))
    assert "its numpy is" in survey(older, [str(tmp_path / "token")])[0]


def test_parts_of_a_slide_are_done_by_all_workers_in_order(three, fake):
    from distributed import Client

    with Client(three.address) as client:
        found = client.submit(fake.in_parts, 30, pure=False).result(timeout=60)
    assert [number for number, _ in found] == list(range(30))
    assert len({pid for _, pid in found}) > 1


def test_few_parts_stay_where_they_are():
    items = list(range(FEW_PARTS))
    assert list(map_by_all(str, items)) == [str(item) for item in items]


COMMAND = ("-c", "import sys; from ctc_imaging.cli import main; sys.exit(main())")


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """A cohort of three small slides and one of more tiles than are left to one worker, and its local run."""
    folder = tmp_path_factory.mktemp("slides")
    rows = ["slide,slide_id,patient_id,sample_date,blood_volume_ml"]
    for index, (side, cells) in enumerate([(260, 20), (720, 190), (220, 15), (200, 12)]):
        write_slide(simulate_slide((side, side), ctc=8, leukocytes=cells, seed=index), folder / f"S{index}")
        rows.append(f"S{index}/slide.ome.tif,S{index},P{index},2026-01-01,5")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    (folder / "settings.yaml").write_text("tile_px: 256\n")
    return folder / "cohort.csv", ("--config", str(folder / "settings.yaml"))


def test_real_slides_and_tiles_come_out_the_same_though_a_worker_dies(three, slides, launch, tmp_path):
    cohort, options = slides
    run = tmp_path / "run"
    process = launch(cohort, run, "--scheduler", three.address, *options, program=COMMAND)
    # The labels of the large slide are made just before its tiles are shared out.
    wait_until(lambda: list(run.glob("slides/.S1.*.partial/labels.ome.zarr/0")))
    victim = three.workers.pop()
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    three.workers.append(three.worker())
    local = launch(cohort, tmp_path / "local", "--workers", "1", *options, program=COMMAND)
    succeeds(process, local)
    assert results_of(run) == results_of(tmp_path / "local")


def test_a_cluster_of_ones_own_processes(fake, launch, tmp_path):
    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a", "S2": "b", "S3": "raise"})
    code, said = finish(launch(cohort, tmp_path / "run", "--scheduler", "local", "--workers", "2"))
    assert code == 1
    # Nothing of Dask's own; how many lines of progress there are, time tells.
    kept = [line for line in said.splitlines() if " of 3 slides" not in line]
    assert len(kept) == 3, said
    assert states_of(tmp_path / "run") == {"S1": "done", "S2": "done", "S3": "failed"}
