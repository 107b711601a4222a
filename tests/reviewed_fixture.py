"""A small run of simulated slides, reviewed by two readers who know the truth, the second not always."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctc_imaging.workers import Outcome

SHAPE_PX = (448, 448)
CTC, LEUKOCYTES = 24, 64


def make_run(folder: Path, patients: int = 3, batches: int = 3, first_seed: int = 900, name: str = "run") -> Path:
    """Simulate a slide a patient, and run the pipeline in this process."""
    from ctc_imaging.batch import run_cohort
    from ctc_imaging.config import Settings

    run = folder / name
    cohort = write_cohort(folder / f"{name}-cohort", patients, batches, first_seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctc_imaging.batch.run_tasks", _run_here)
        patch.setattr("ctc_imaging.report.write_report", lambda run: run / "report.html")
        result = run_cohort(cohort, run, Settings(), workers=1)
    assert not result.failed
    return run


def _run_here(tasks, started, **_):
    """Do tasks in this process: starting one for each slide takes longer than so small a slide."""
    for task in tasks:
        started(task.key)
        yield Outcome(task.key, result=task.function(*task.arguments))


def write_cohort(folder: Path, patients: int, batches: int, first_seed: int) -> Path:
    from ctc_imaging.simulation import simulate_slide, write_slide

    rows = []
    for number in range(patients):
        slide = folder / f"S{number}"
        write_slide(simulate_slide(SHAPE_PX, ctc=CTC, leukocytes=LEUKOCYTES, seed=first_seed + number), slide)
        rows.append(
            {
                "slide": f"S{number}/slide.ome.tif",
                "patient_id": f"P{first_seed + number}",
                "sample_date": "2026-01-05",
                "blood_volume_ml": 5,
                "slide_id": f"S{number}",
                "batch": f"B{number % batches}" if batches else "",
            }
        )
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


def truth_of(run: Path, slide_id: str, cohort: Path) -> pd.DataFrame:
    """Each cell's id and true class."""
    from ctc_training.dataset import match_cells

    cells = pd.read_parquet(run / "slides" / slide_id / "cells.parquet")
    truth = pd.read_csv(cohort / slide_id / "truth.csv")
    match = match_cells(cells, truth)
    classes = np.where(match >= 0, truth["class"].to_numpy()[match], "artefact")
    return pd.DataFrame({"slide_id": slide_id, "cell_id": cells["cell_id"], "call": classes})


def write_reviews(run: Path, file: Path, wrong: float = 0.1, slides: tuple[str, ...] | None = None) -> Path:
    """Write the table of two readers' reviews: A is right, B calls some leukocytes dirt."""
    cohort = run.with_name(f"{run.name}-cohort")
    slide_ids = slides or tuple(sorted(path.name for path in (run / "slides").iterdir()))
    right = pd.concat([truth_of(run, slide_id, cohort) for slide_id in slide_ids], ignore_index=True)
    other = right.copy()
    flips = (np.random.default_rng(0).random(len(other)) < wrong) & (other["call"] == "leukocyte")
    other.loc[flips, "call"] = "artefact"
    table = pd.concat([right.assign(reader="A"), other.assign(reader="B")], ignore_index=True)
    table.to_csv(file, index=False)
    return file
