"""The command recurrence predict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result
from ctc_imaging.cli.recurrence import model as choice
from ctc_imaging.cli.recurrence import tables
from ctc_imaging.errors import ConfigError

if TYPE_CHECKING:
    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint import JointModel

HORIZON_DAYS = 730.0

Patient = Annotated[
    str | None, typer.Option("--patient", metavar="ID", help="One subject, with limits, at each visit; else everybody.")
]
Landmark = Annotated[
    float | None,
    typer.Option("--landmark", metavar="T", help="Predict from what was known then; by default the last measurement."),
]
Horizons = Annotated[
    str | None, typer.Option("--horizons", metavar="A,B", help="Risk by these times; 730 days for a RUN.")
]
Picture = Annotated[
    Path | None, typer.Option("--picture", metavar="F", help="Draw one subject's updates, as .svg or .png.")
]


def predict(
    run: tables.Run = None,
    patient: Patient = None,
    landmark: Landmark = None,
    horizons: Horizons = None,
    picture: Picture = None,
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
    """Predict the risk of the event by horizons, given the measurements so far.

    No later visit is looked at. The model is fitted to all subjects first.
    """
    from ctc_imaging.recurrence.joint import fit_joint

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
    if horizons is None and run is None:
        raise ConfigError("--horizons", "is missing", "give one or more times, like 12,24")
    wanted = choice.numbers(horizons, "--horizons") if horizons else (HORIZON_DAYS,)
    model = fit_joint(spec, follow_up)
    for line in (*follow_up.notes, *model.notes):
        note(line)
    if patient is None:
        if picture is not None:
            raise ConfigError("--picture", "is of one subject", "name one by --patient")
        found = _everybody(model, follow_up, landmark, wanted)
    else:
        found = _one(model, follow_up, patient, landmark, wanted, picture)
    found |= {"converged": model.converged, "time_unit": follow_up.time_unit}
    result(found, _lines(found), as_json)
    if not model.converged:
        raise typer.Exit(1)


def _everybody(
    model: JointModel, follow_up: FollowUp, landmark: float | None, horizons: tuple[float, ...]
) -> dict[str, Any]:
    """Predict for all at risk at the landmark, without limits."""
    from ctc_imaging.recurrence.joint.prediction import JointPredictor

    if landmark is None:
        raise ConfigError("--landmark", "is missing", "give the time to predict from, or one subject by --patient")
    _check_horizons(model, landmark, horizons)
    table = JointPredictor(model).risk(follow_up.at(landmark), landmark, horizons)
    rows = [
        {"id": str(subject), "landmark": landmark, "horizon": horizon, "risk": _plain(risk)}
        for subject, row in table.iterrows()
        for horizon, risk in row.items()
    ]
    return {"predictions": rows}


def _one(
    model: JointModel,
    follow_up: FollowUp,
    patient: str,
    landmark: float | None,
    horizons: tuple[float, ...],
    picture: Path | None,
) -> dict[str, Any]:
    """Predict for one subject at the landmark with limits, and at each measurement before."""
    from ctc_imaging.recurrence.joint.prediction import predict_patient, updates

    named = [subject for subject in follow_up.subjects if str(subject) == patient]
    if not named:
        raise ConfigError("--patient", f"there is nobody called {patient!r}", "name one of the event table")
    own = follow_up.subset(named)
    days = own.long.loc[own.long[own.time] >= 0, own.time]
    now = landmark if landmark is not None else float(days.max()) if len(days) else 0.0
    _check_horizons(model, now, horizons)
    table = predict_patient(model, own, now, horizons)
    course = updates(model, own, max(horizons), None, now)
    if picture is not None:
        from ctc_imaging.report.risk_chart import save_updates

        save_updates(picture, own, course, model)
    rows = [{"id": patient, "landmark": now, "horizon": horizon, **row} for horizon, row in table.iterrows()]
    return {"predictions": rows, "updates": course.to_dict("records")}


def _check_horizons(model: JointModel, landmark: float, horizons: tuple[float, ...]) -> None:
    if min(horizons) <= landmark or max(horizons) > model.longest:
        raise ConfigError(
            "--horizons",
            f"they don't all lie after {landmark:g} and within the longest follow-up, {model.longest:g}",
            "choose others",
        )


def _lines(found: dict[str, Any]) -> str:
    unit = found["time_unit"]
    lines = []
    for row in found["predictions"]:
        limits = f" ({row['low']:.1%} to {row['high']:.1%})" if "low" in row else ""
        risk = "unknown: a covariate is missing" if row["risk"] is None else f"{row['risk']:.1%}{limits}"
        lines.append(
            f"{row['id']}: free of the event at {row['landmark']:g}, risk by {row['horizon']:g} {unit}: {risk}"
        )
    earlier = [row for row in found.get("updates", []) if row["time"] < found["predictions"][0]["landmark"]]
    lines += [
        f"  as known at {row['time']:g}: {row['risk']:.1%} ({row['low']:.1%} to {row['high']:.1%})" for row in earlier
    ]
    return "\n".join(lines)


def _plain(value: float) -> float | None:
    return float(value) if value == value else None
