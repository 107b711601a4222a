"""The demo: a simulated cohort through everything, with a larger one of tables only for the survival pages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ctc_imaging
from ctc_imaging.batch import BatchResult, run_cohort
from ctc_imaging.config import Settings
from ctc_imaging.errors import RunError
from ctc_imaging.files import write_json, write_text
from ctc_imaging.progress import Progress, Tally
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.workers import processors

PATIENTS = 16
# So few patients prove the plumbing and no survival; tables cost nothing.
SURVIVAL_PATIENTS = 300
SHAPE_PX = (1024, 1024)
LEUKOCYTES = 400
_README = "Simulated: {patients} patients, tables only, seed {seed}. For the survival pages of the demo's report.\n"


def simulate_demo(out: Path, seed: int = 0, workers: int | None = None, progress: Progress | None = None) -> None:
    """Simulate the demo's two cohorts, unless an earlier call has done so.

    Parameters
    ----------
    out : Path
        Gets ``cohort/`` with slides, and ``run/survival/`` with tables.
    seed : int
    workers : int, optional
        Slides simulated at a time, by default as many as there are processors.
    progress : callable, optional
        Told of every slide.

    Raises
    ------
    RunError
        If the folder holds something else, or a demo of another seed or version.
    """
    _claim(out, seed)
    cohort, survival = out / "cohort", RunFolder(out / "run").survival
    if not cohort.is_dir():
        _simulate(cohort, PATIENTS, seed, False, workers or processors(), progress)
    if not survival.is_dir():
        _simulate(survival, SURVIVAL_PATIENTS, seed + 1, True, 1, None)


def run_demo(out: Path, seed: int = 0, workers: int | None = None, progress: Progress | None = None) -> BatchResult:
    """Run everything on the cohort of `simulate_demo`; the same call goes on after a stop."""
    cohort = out / "cohort"
    return run_cohort(
        cohort / "cohort.csv",
        out / "run",
        Settings(seed=seed),
        clinical=cohort / "clinical.csv",
        imaging=cohort / "imaging.csv",
        schedule=cohort / "schedule.yaml",
        workers=workers,
        progress=progress,
    )


def _claim(out: Path, seed: int) -> None:
    """Write down what the folder is for, or check that it is for the same."""
    facts = {"version": ctc_imaging.__version__, "seed": seed}
    claim = out / "demo.json"
    if claim.is_file():
        before = json.loads(claim.read_text(encoding="utf-8"))
        if before != facts:
            raise RunError(out, f"holds a demo of {_named(before)}, not of {_named(facts)}", "use another --out")
    elif out.exists() and any(out.iterdir()):
        raise RunError(out, "isn't empty, and holds no demo", "give --out a new folder")
    else:
        write_json(claim, facts)


def _named(facts: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _simulate(
    target: Path, patients: int, seed: int, tables_only: bool, workers: int, progress: Progress | None
) -> None:
    """Simulate a cohort beside its place and move it there whole."""
    from ctc_imaging.simulation import simulate_cohort

    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    simulate_cohort(
        partial,
        patients=patients,
        seed=seed,
        shape_px=SHAPE_PX,
        leukocytes=LEUKOCYTES,
        tables_only=tables_only,
        controls=not tables_only,
        workers=workers,
        progress=None if progress is None else lambda done, total: progress(Tally(total, done, 0)),
    )
    if tables_only:
        write_text(partial / "README.txt", _README.format(patients=patients, seed=seed))
    partial.replace(target)
