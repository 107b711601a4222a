"""The command recurrence decide: whom a scheme would have named, and what adjuvant treatment did by CTC status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result
from ctc_imaging.cli.recurrence import tables
from ctc_imaging.errors import ConfigError, StatisticsError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.scheme import Scheme
    from ctc_imaging.recurrence.scheme_evaluation import SchemeEvaluation
    from ctc_imaging.recurrence.treatment import TreatmentEffect

SchemeName = Annotated[str | None, typer.Option("--scheme", metavar="F", help="A shipped scheme, or a YAML file.")]
Start = Annotated[
    str | None, typer.Option("--treatment-start", metavar="COL", help="Event table: start of treatment, empty if none.")
]
Marker = Annotated[str, typer.Option(metavar="COL", help="Column of the measurements that tells the CTC status.")]
PositiveFrom = Annotated[float | None, typer.Option(metavar="X", help="From which value of it patients are positive.")]
Covariates = Annotated[
    str | None, typer.Option(metavar="A,B", help="What may have guided treatment; else MVI, AFP, BCLC and size.")
]
Landmark = Annotated[float | None, typer.Option(metavar="T", help="When is decided; else the scheme's day.")]
Grace = Annotated[float, typer.Option(metavar="T", help="How long after the decision treatment may begin.")]
Horizon = Annotated[float | None, typer.Option(metavar="T", help="To when effects are told; else the scheme's day.")]
Method = Annotated[str, typer.Option(metavar="NAME", help="clone-censor-weight or landmark.")]
Population = Annotated[str, typer.Option(metavar="NAME", help="overlap, or whole: whose effect is told.")]
Draws = Annotated[int, typer.Option("--draws", metavar="N", min=50, help="Bootstrap draws behind the limits.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of everything random.")]

DEFAULT_SCHEME = "ctc-positive-1-month"


def decide(
    run: tables.Run = None,
    long: tables.Long = None,
    events: tables.Events = None,
    id: tables.Id = None,
    time: tables.Time = None,
    event_time: tables.EventTime = None,
    event: tables.Event = None,
    scheme: SchemeName = None,
    treatment_start: Start = None,
    marker: Marker = "status",
    positive_from: PositiveFrom = None,
    covariates: Covariates = None,
    landmark: Landmark = None,
    grace: Grace = 60,
    horizon: Horizon = None,
    method: Method = "clone-censor-weight",
    population: Population = "overlap",
    draws: Draws = 500,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Evaluate a scheme, and compare treatment by CTC status.

    Observational, a hypothesis: nothing is applied to anybody. What the data can't carry is named.
    """
    if method not in ("clone-censor-weight", "landmark"):
        raise ConfigError("--method", f"{method!r} isn't known", "choose clone-censor-weight or landmark")
    if population not in ("overlap", "whole"):
        raise ConfigError("--population", f"{population!r} isn't known", "choose overlap or whole")
    from ctc_imaging.recurrence.decision_words import effect_facts, effect_lines, scheme_facts, scheme_lines
    from ctc_imaging.recurrence.scheme_yaml import load_scheme
    from ctc_imaging.recurrence.treatment import STATEMENT

    followed = tables.load(run, long, events, id, time, event_time, event)
    chosen = load_scheme(scheme or DEFAULT_SCHEME) if scheme or run else None
    told: list[str] = []
    start = _start(followed, treatment_start, told)
    evaluated = _evaluated(chosen, followed, start, seed, told, asked=scheme is not None)
    if chosen is not None:
        landmark = chosen.decision_day if landmark is None else landmark
        horizon = chosen.horizon_day if horizon is None else horizon
    reading: dict[str, Any] = {
        "marker": marker,
        "positive_from": positive_from,
        "covariates": None if covariates is None else [name.strip() for name in covariates.split(",") if name.strip()],
    }
    if run is not None:
        # A sample from before surgery doesn't tell the status at the decision.
        reading["marker_after"] = 0.0
    analysis = {"method": method, "population": population, "replicates": draws, "seed": seed}
    effect = None if start is None else _effect(followed, start, (landmark, horizon), grace, reading, analysis, told)
    if evaluated is None and effect is None:
        raise StatisticsError("recurrence decide", told[0] if told else "there is nothing to judge", "see --help")
    simulated = run is not None and _simulated(run)
    if simulated:
        told.append("SIMULATED patients: no figure here says anything about a real one.")
    for line in told:
        note(line)
    facts = {
        "statement": STATEMENT,
        "simulated": simulated,
        "scheme": None if evaluated is None else scheme_facts(evaluated),
        "treatment": None if effect is None else effect_facts(effect),
        "notes": told,
    }
    lines = [] if evaluated is None else scheme_lines(evaluated)
    lines += [] if effect is None else effect_lines(effect)
    result(facts, "\n".join(lines), as_json)


def _simulated(run: Path) -> bool:
    """Whether the patients were: the slides of the run, or the larger cohort in its place."""
    from ctc_imaging.report.source import read_run

    return read_run(run).simulated or (run / "survival").is_dir()


def _start(followed: FollowUp, column: str | None, told: list[str]) -> pd.Series | None:
    from ctc_imaging.recurrence.treatment import treatment_start

    try:
        return treatment_start(followed, column)
    except StatisticsError as error:
        if column is not None:
            raise
        told.append(f"no effect of treatment is given: {error.fault}.")
        return None


def _evaluated(
    scheme: Scheme | None, followed: FollowUp, start: pd.Series | None, seed: int, told: list[str], asked: bool
) -> SchemeEvaluation | None:
    """Evaluate a scheme; one that wasn't asked for may fail with a note."""
    if scheme is None:
        return None
    from ctc_imaging.recurrence.scheme_evaluation import evaluate_scheme

    try:
        risks = _risks(scheme, followed, seed) if scheme.needs_risk else None
        return evaluate_scheme(scheme, followed, start, risks, seed=seed)
    except (ConfigError, StatisticsError) as error:
        if asked:
            raise
        told.append(f"scheme {scheme.name} isn't evaluated: {error.fault}.")
        return None


def _risks(scheme: Scheme, followed: FollowUp, seed: int) -> pd.Series:
    """Predict by landmark Cox models on the last count, fitted to the other patients."""
    from ctc_imaging.recurrence.landmark_cox import LandmarkCox
    from ctc_imaging.recurrence.scheme_risks import cross_fitted_risks

    if "ctc_per_ml" not in followed.long:
        raise ConfigError(
            scheme.name, "asks for a predicted risk, and the measurements have no ctc_per_ml", "use a RUN"
        )
    return cross_fitted_risks(scheme, followed, LandmarkCox(("ctc_per_ml",), "log(1 + 5 * ctc_per_ml)"), seed=seed)


def _effect(
    followed: FollowUp,
    start: pd.Series,
    when: tuple[float | None, float | None],
    grace: float,
    reading: dict[str, Any],
    analysis: dict[str, Any],
    told: list[str],
) -> TreatmentEffect | None:
    from ctc_imaging.progress import Tally, show_progress
    from ctc_imaging.recurrence.treatment import decision_cohort, treatment_effect

    landmark, horizon = when
    if landmark is None or horizon is None:
        raise ConfigError("--landmark", "is missing, or --horizon is", "give both, or a --scheme that has them")
    try:
        cohort = decision_cohort(followed, landmark, start, **reading)
        with show_progress(sys.stderr, "bootstrap draws") as tell:
            return treatment_effect(
                cohort,
                grace,
                horizon,
                time_unit=followed.time_unit,
                progress=lambda done, total: tell(Tally(total, done, 0)),
                **analysis,
            )
    except StatisticsError as error:
        told.append(f"no effect of treatment is given: {error.fault}.")
        return None
