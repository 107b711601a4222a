"""The command recurrence validate."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result
from ctc_imaging.cli.recurrence import model as choice
from ctc_imaging.cli.recurrence import tables
from ctc_imaging.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.recurrence.predictor import PredictorFit
    from ctc_imaging.recurrence.validation import Points, Predictions

LANDMARK_DAYS, HORIZON_DAYS = (90.0, 180.0), (730.0,)
JOINT, BASELINE = "joint model", "without marker"

Landmarks = Annotated[
    str | None, typer.Option("--landmarks", metavar="A,B", help="Predict from what was known then; 90,180 for a RUN.")
]
Horizons = Annotated[
    str | None, typer.Option("--horizons", metavar="A,B", help="Risk by these times; 730 days for a RUN.")
]
Folds = Annotated[int, typer.Option("--folds", min=2, metavar="N", help="Parts, of which each is left out once.")]
Repeats = Annotated[int, typer.Option("--repeats", min=1, metavar="N", help="How often the parts are dealt anew.")]


def validate(
    run: tables.Run = None,
    landmarks: Landmarks = None,
    horizons: Horizons = None,
    folds: Folds = 5,
    repeats: Repeats = 1,
    seed: options.Seed = None,
    long: tables.Long = None,
    events: tables.Events = None,
    id: tables.Id = None,
    time: tables.Time = None,
    event_time: tables.EventTime = None,
    event: tables.Event = None,
    long_formula: choice.LongFormula = None,
    event_formula: choice.EventFormula = None,
    family: choice.Family = None,
    exposure: choice.Exposure = None,
    random_effects: choice.RandomEffects = None,
    association: choice.Association = None,
    baseline: choice.Baseline = None,
    knots: choice.Knots = None,
    nodes: choice.Nodes = None,
    time_points: choice.TimePoints = None,
    as_json: options.AsJson = False,
) -> None:
    """Judge the joint model by subjects it wasn't fitted to.

    AUC, Brier score and calibration by cross-validation, beside a Cox model of the same covariates without the
    marker. Later visits and outcomes are hidden from the predictions.
    """
    from ctc_imaging.recurrence.baseline_cox import BaselineCoxFit
    from ctc_imaging.recurrence.joint import JointPredictorFit
    from ctc_imaging.recurrence.validation import by_horizon, cross_validate

    follow_up = tables.load(run, long, events, id, time, event_time, event)
    spec = choice.make_spec(
        follow_up,
        run,
        long_formula,
        event_formula,
        family,
        exposure,
        random_effects,
        association,
        baseline,
        knots,
        nodes,
        time_points,
    )
    points = by_horizon(
        _times(landmarks, "--landmarks", LANDMARK_DAYS if run else None),
        _times(horizons, "--horizons", HORIZON_DAYS if run else None),
    )
    _check(points)
    models: dict[str, PredictorFit] = {JOINT: JointPredictorFit(spec), BASELINE: BaselineCoxFit(spec.event_formula)}
    told = None if as_json or not sys.stderr.isatty() else note
    predictions = cross_validate(models, follow_up, points, folds, repeats, seed or 0, told)
    for line in (*follow_up.notes, *predictions.notes):
        note(line)
    found = _found(predictions, seed or 0)
    found |= {"folds": folds, "repeats": repeats, "notes": [*follow_up.notes, *predictions.notes]}
    result(found, _lines(found, follow_up.time_unit), as_json)


def _times(text: str | None, option: str, usual: tuple[float, ...] | None) -> tuple[float, ...]:
    if text is None and usual is None:
        raise ConfigError(option, "is missing", "give one or more times, like 6,12")
    return choice.numbers(text, option) if text else usual or ()


def _check(points: Points) -> None:
    if not all(points.horizons):
        raise ConfigError("--horizons", "none lies after every landmark", "give later ones")


def _found(predictions: Predictions, seed: int) -> dict[str, Any]:
    from ctc_imaging.recurrence.validation import calibrations, difference_table, integrated_table, score_table

    held = calibrations(predictions, JOINT, seed)
    return {
        "scores": _rows(score_table(predictions, seed)),
        "integrated_brier": _rows(integrated_table(predictions, seed)),
        "differences": _rows(difference_table(predictions, JOINT, BASELINE, seed)),
        "calibration": [
            {
                "landmark": landmark,
                "horizon": horizon,
                "ratio": one.ratio._asdict(),
                "slope": one.slope._asdict(),
                "groups": _rows(one.groups),
            }
            for (landmark, horizon), one in held.items()
        ],
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    plain = table.astype(object).where(table.notna(), None)
    return [dict(zip(map(str, plain), row, strict=True)) for row in plain.itertuples(index=False)]


def _lines(found: dict[str, Any], unit: str) -> str:
    """Lay the scores out for a person."""
    lines = [f"{found['folds']} folds; limits are 95 %, by the bootstrap over subjects. Times in {unit}."]
    for row in found["scores"]:
        where = f"from {row['landmark']:g} to {row['horizon']:g}"
        size = f"({row['n']} at risk, {row['events']} events)"
        lines.append(f"{where}: {row['score']:5s} of {row['model']:15s} {_told(row)}  {size}")
    for row in found["differences"]:
        better = "higher is better" if row["score"] == "auc" else "lower is better"
        where = f"from {row['landmark']:g} to {row['horizon']:g}"
        lines.append(f"{where}: {row['score']:5s} {JOINT} less {BASELINE}: {_told(row)}; {better}")
    for row in found["calibration"]:
        where = f"from {row['landmark']:g} to {row['horizon']:g}"
        ratio, slope = (_told(row[name]) for name in ("ratio", "slope"))
        lines.append(f"{where}: observed over predicted {ratio}, slope {slope}; 1 is right")
    return "\n".join(lines)


def _told(row: dict[str, Any]) -> str:
    value, low, high = (float("nan") if row[name] is None else row[name] for name in ("value", "low", "high"))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
