"""The command recurrence fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result
from ctc_imaging.cli.recurrence import model as choice
from ctc_imaging.cli.recurrence import tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctc_imaging.recurrence.joint import JointModel


def fit(
    run: tables.Run = None,
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
    """Fit the joint model of counts and recurrence.

    By exact maximum likelihood, to a RUN, or to any table of measurements beside a table of events. Exit code 1 if
    the fit didn't converge.
    """
    import typer

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
    model = fit_joint(spec, follow_up)
    found = {**model.summary(), "notes": [*follow_up.notes, *model.notes]}
    for line in found["notes"]:
        note(line)
    result(found, _lines(model), as_json)
    if not model.converged:
        raise typer.Exit(1)


def _lines(model: JointModel) -> str:
    """Lay the fit out for a person."""
    head = f"{model.subjects} subjects, {sum(model.measurements)} measurements, {model.events} events"
    state = "converged" if model.converged else "NOT converged"
    top = f"log-likelihood {model.log_likelihood:.3f}, {state} in {model.seconds:.1f} s"
    table = model.table[["estimate", "se", "low", "high", "p"]]
    columns = {
        "estimate": "{:.4g}",
        "se": "{:.3g}",
        "low": "{:.4g}",
        "high": "{:.4g}",
        "p": "{:.3g}",
    }
    text = table.to_string(formatters={name: _formatted(form) for name, form in columns.items()}, na_rep="")
    return "\n".join(
        [head, top, "", text, "", "low, high: 95 % limits; p by Wald's test. Hazards are multiplied by exp(estimate)."]
    )


def _formatted(form: str) -> Callable[[float], str]:
    return lambda value: form.format(value) if value == value else ""
