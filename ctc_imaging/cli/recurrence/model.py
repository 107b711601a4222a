"""The options that say which joint model is meant, shared by fit, predict and validate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ctc_imaging.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint import JointSpec, MarkerSpec

_Value = TypeVar("_Value")

LongFormula = Annotated[
    list[str] | None,
    typer.Option("--long-formula", metavar="TEXT", help="Marker by time, like 'ctc ~ day + day:arm'; once a marker."),
]
EventFormula = Annotated[
    str | None, typer.Option("--event-formula", metavar="TEXT", help="Covariates of the hazard, like 'arm + age'.")
]
Family = Annotated[
    list[str] | None,
    typer.Option(
        "--family",
        metavar="NAME",
        help="gaussian, poisson, negative-binomial, zero-inflated-negative-binomial or hurdle-negative-binomial; "
        "once, or once a marker.",
    ),
]
Exposure = Annotated[
    list[str] | None, typer.Option("--exposure", metavar="COL", help="What counts are proportional to, as a volume.")
]
RandomEffects = Annotated[
    str | None, typer.Option("--random-effects", metavar="A,B", help="Of intercept, slope, spline.")
]
Association = Annotated[
    str | None,
    typer.Option("--association", metavar="A,B", help="What the hazard depends on: value, slope, area, random."),
]
Baseline = Annotated[str | None, typer.Option("--baseline", metavar="NAME", help="weibull, piecewise or spline.")]
Knots = Annotated[str | None, typer.Option("--knots", metavar="A,B,C", help="Inner knots of piecewise or spline.")]
Nodes = Annotated[int | None, typer.Option("--nodes", min=3, metavar="N", help="Quadrature points a random effect.")]
TimePoints = Annotated[
    int | None, typer.Option("--time-points", min=3, metavar="N", help="Points the hazard is integrated at.")
]


def make_spec(
    follow_up: FollowUp,
    run: Path | None,
    long_formula: list[str] | None,
    event_formula: str | None,
    family: list[str] | None,
    exposure: list[str] | None,
    random_effects: str | None,
    association: str | None,
    baseline: str | None,
    knots: str | None,
    nodes: int | None,
    time_points: int | None,
) -> JointSpec:
    """Make the specification: the default of a run, with what the options say instead.

    Raises
    ------
    ConfigError
        If an option has no meaning, or tables are given without --long-formula.
    """
    from dataclasses import replace

    from ctc_imaging.recurrence.joint import JointSpec
    from ctc_imaging.recurrence.joint.defaults import default_spec

    if run is None and not long_formula:
        raise ConfigError("--long-formula", "is missing", "write one like 'ctc ~ day'")
    usual = default_spec(follow_up) if run is not None else JointSpec(())
    effects = names(random_effects, "--random-effects") if random_effects else None
    markers = usual.markers
    if long_formula:
        nothing: Sequence[str | None] = [None]
        families = _each(family or ["gaussian"], long_formula, "--family")
        exposures = _each(nothing if exposure is None else exposure, long_formula, "--exposure")
        markers = _markers(long_formula, families, exposures, effects)
    elif family or exposure or effects:
        marker = markers[0]
        markers = (
            replace(
                marker,
                family=(family or [marker.family])[0],
                exposure=exposure[0] if exposure else marker.exposure,
                random_effects=effects or marker.random_effects,
            ),
        )
    return replace(
        usual,
        markers=markers,
        event_formula=usual.event_formula if event_formula is None else event_formula,
        association=names(association, "--association") if association else usual.association,
        baseline=baseline or usual.baseline,
        knots=numbers(knots, "--knots") if knots else None,
        nodes=nodes,
        time_points=time_points or usual.time_points,
    )


def names(text: str, option: str) -> tuple[str, ...]:
    """Read names with commas between them.

    Raises
    ------
    ConfigError
        If there is none, or one twice.
    """
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found or len(set(found)) < len(found):
        raise ConfigError(option, f"{text!r} names nothing, or a thing twice", "write names with commas between them")
    return found


def numbers(text: str, option: str) -> tuple[float, ...]:
    """Read numbers with commas between them.

    Raises
    ------
    ConfigError
        If they aren't numbers.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(option, f"{text!r} isn't numbers", "write them like 90,180,365") from error


def _markers(
    formulas: list[str], families: list[str], exposures: list[str | None], effects: tuple[str, ...] | None
) -> tuple[MarkerSpec, ...]:
    from ctc_imaging.recurrence.joint import MarkerSpec

    return tuple(
        MarkerSpec(formula, family, effects or ("intercept", "slope"), exposure)
        for formula, family, exposure in zip(formulas, families, exposures, strict=True)
    )


def _each(values: Sequence[_Value], formulas: list[str], option: str) -> list[_Value]:
    """Give every marker its own value, or all of them the only one."""
    if len(values) == 1:
        return list(values) * len(formulas)
    if len(values) != len(formulas):
        raise ConfigError(
            option, f"is given {len(values)} times for {len(formulas)} markers", "give it once, or to each"
        )
    return list(values)
