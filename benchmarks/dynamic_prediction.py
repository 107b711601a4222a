"""Dynamic predictions of the joint model beside landmark Cox models, five-fold on the same folds of real data.

pbc (312 patients, serum bilirubin, death or transplant; years) and aids (467, CD4 counts, death; months), from
../shared/data. Landmarks and windows were set before the first run: pbc 3, 5 and 7 years and 1 to 3 years ahead, aids
6 and 12 months and 3 and 6 ahead. Differences are joint model less landmark Cox; limits by the bootstrap over subjects.

Run: python benchmarks/dynamic_prediction.py --shared ../shared/data
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ctc_imaging.recurrence.follow_up import FollowUp, follow_up_of_tables
from ctc_imaging.recurrence.joint import JointPredictorFit, JointSpec, MarkerSpec
from ctc_imaging.recurrence.landmark_cox import LandmarkCox
from ctc_imaging.recurrence.predictor import PredictorFit
from ctc_imaging.recurrence.validation import (
    Points,
    by_window,
    cross_validate,
    difference_table,
    integrated_table,
    score_table,
)

JOINT, COX, COX_SLOPE = "joint model", "landmark Cox", "landmark Cox with slope"


@dataclass(frozen=True)
class Task:
    """A data set, the models and the points to predict at."""

    name: str
    follow_up: FollowUp
    models: Mapping[str, PredictorFit]
    points: Points


def pbc(shared: Path) -> Task:
    """Serum bilirubin in primary biliary cirrhosis."""
    columns = {"id": "id", "time": "year", "event_time": "years", "event": "status2"}
    follow_up = follow_up_of_tables(shared / "pbc/pbc2_long.csv", shared / "pbc/pbc2_id.csv", **columns)
    marker = MarkerSpec("log(serBilir) ~ year")
    spec = JointSpec((marker,), "drug + age", baseline="piecewise")
    models: dict[str, PredictorFit] = {
        JOINT: JointPredictorFit(spec),
        COX: LandmarkCox(("serBilir",), "log(serBilir) + drug + age"),
        COX_SLOPE: LandmarkCox(("serBilir",), "log(serBilir) + serBilir_slope + drug + age", ("last", "slope")),
    }
    return Task("pbc", follow_up, models, by_window((3.0, 5.0, 7.0), (1.0, 2.0, 3.0)))


def aids(shared: Path) -> Task:
    """CD4 counts in HIV infection."""
    columns = {"id": "patient", "time": "obstime", "event_time": "Time", "event": "death"}
    follow_up = follow_up_of_tables(shared / "aids/aids_long.csv", shared / "aids/aids_id.csv", **columns)
    marker = MarkerSpec("CD4 ~ obstime + obstime:drug")
    spec = JointSpec((marker,), "drug", baseline="piecewise")
    models: dict[str, PredictorFit] = {
        JOINT: JointPredictorFit(spec),
        COX: LandmarkCox(("CD4",), "CD4 + drug"),
        COX_SLOPE: LandmarkCox(("CD4",), "CD4 + CD4_slope + drug", ("last", "slope")),
    }
    return Task("aids", follow_up, models, by_window((6.0, 12.0), (3.0, 6.0)))


def report(task: Task, folds: int, repeats: int, seed: int) -> None:
    """Cross-validate and print the tables."""
    begun = time.perf_counter()
    predictions = cross_validate(task.models, task.follow_up, task.points, folds, repeats, seed)
    seconds = time.perf_counter() - begun
    print(f"\n### {task.name}: {folds} folds, dealt {repeats} time(s) from seed {seed}; {seconds:.0f} s\n")
    for note in predictions.notes:
        print(f"- {note}")
    scores = score_table(predictions, seed)
    wide = scores.pivot_table(index=["landmark", "horizon", "score", "n", "events"], columns="model", values="value")
    print(_markdown(wide[list(predictions.models)].reset_index()))
    print("\nIntegrated Brier score:\n")
    whole = integrated_table(predictions, seed)
    print(_markdown(whole.pivot_table(index=["landmark", "n"], columns="model", values="value").reset_index()))
    for other in (COX, COX_SLOPE):
        print(f"\n{JOINT} less {other}:\n")
        print(_markdown(difference_table(predictions, JOINT, other, seed)))


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [[cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for task in (pbc(options.shared), aids(options.shared)):
        report(task, options.folds, options.repeats, options.seed)


if __name__ == "__main__":
    main()
