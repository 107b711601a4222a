"""Whom a scheme would have named, and what adjuvant treatment went with by CTC status: observational, a hypothesis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.figures import to_svg
from ctc_imaging.report.limits_chart import Panel, draw_limits
from ctc_imaging.report.source import Run
from ctc_imaging.report.survival import survival_tables
from ctc_imaging.report.words import interval, number, p_value, percent

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.scheme import Scheme
    from ctc_imaging.recurrence.scheme_evaluation import SchemeEvaluation
    from ctc_imaging.recurrence.treatment import TreatmentEffect

SCHEME = "ctc-positive-1-month"
GRACE_DAYS = 60.0
# A page wants an answer in seconds; the command draws more.
_DRAWS = 200
_STRATA = {"positive": "CTC-positive", "negative": "CTC-negative"}


@dataclass(frozen=True)
class SchemePart:
    """A scheme, evaluated."""

    name: str
    suggests: str
    statement: str
    day: str
    horizon: str
    groups: tuple[dict[str, str], ...]
    accuracy: tuple[dict[str, str], ...]
    logrank: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class EffectPart:
    """The effect of treatment by CTC status."""

    statement: str
    figure: str
    csv: str
    rows: tuple[dict[str, str], ...]
    interaction: str
    patients: str
    horizon: str
    grace: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class DecisionPage:
    """The section; a reason where a part is missing."""

    scheme: SchemePart | None = None
    scheme_reason: str = ""
    effect: EffectPart | None = None
    effect_reason: str = ""


def decision_page(run: Run) -> DecisionPage:
    """Evaluate the shipped scheme, and compare treated with untreated patients by CTC status.

    Parameters
    ----------
    run : Run

    Returns
    -------
    DecisionPage
    """
    from ctc_imaging.recurrence.follow_up import follow_up_of_run
    from ctc_imaging.recurrence.scheme_yaml import load_scheme
    from ctc_imaging.recurrence.treatment import treatment_start

    try:
        timeline, clinical = survival_tables(run)
        if clinical is None:
            missing = "The run was given no clinical table (--clinical)"
            return DecisionPage(scheme_reason=missing, effect_reason=missing)
        follow_up = follow_up_of_run(timeline, clinical)
        scheme = load_scheme(SCHEME)
    except CtcImagingError as error:
        return DecisionPage(scheme_reason=str(error), effect_reason=str(error))
    start, untreated = None, ""
    try:
        start = treatment_start(follow_up, None)
    except CtcImagingError as error:
        untreated = str(error)
    evaluated, scheme_reason = _evaluated(follow_up, scheme, start)
    effect, effect_reason = _effect(follow_up, scheme, start) if start is not None else (None, untreated)
    return DecisionPage(evaluated, scheme_reason, effect, effect_reason)


def _evaluated(follow_up: FollowUp, scheme: Scheme, start: pd.Series | None) -> tuple[SchemePart | None, str]:
    from ctc_imaging.recurrence.scheme_evaluation import evaluate_scheme

    try:
        return _scheme_part(evaluate_scheme(scheme, follow_up, start, replicates=_DRAWS)), ""
    except CtcImagingError as error:
        return None, str(error)


def _effect(follow_up: FollowUp, scheme: Scheme, start: pd.Series) -> tuple[EffectPart | None, str]:
    from ctc_imaging.recurrence.treatment import decision_cohort, treatment_effect

    try:
        cohort = decision_cohort(follow_up, scheme.decision_day, start, marker_after=0.0)
        return _effect_part(treatment_effect(cohort, GRACE_DAYS, scheme.horizon_day, replicates=_DRAWS)), ""
    except CtcImagingError as error:
        return None, str(error)


def _scheme_part(found: SchemeEvaluation) -> SchemePart:
    rows = tuple(
        {
            "group": row["group"],
            "patients": f"{row['patients']:,}",
            "events": f"{row['events']:,}",
            "free": _limited(row["rfs"], row["low"], row["high"]),
        }
        for row in found.groups.to_dict("records")
    )
    accuracy = tuple(
        {"quantity": row["quantity"], "value": _limited(row["estimate"], row["low"], row["high"])}
        for row in found.accuracy.to_dict("records")
    )
    logrank = "" if found.logrank_p is None else p_value(found.logrank_p)
    day, horizon = f"{found.scheme.decision_day:g}", interval(found.scheme.horizon_day)
    name, suggests = found.scheme.name, found.scheme.suggests
    return SchemePart(name, suggests, found.statement, day, horizon, rows, accuracy, logrank, found.notes)


def _effect_part(found: TreatmentEffect) -> EffectPart:
    figures = {
        (row["stratum"], row["quantity"]): (row["estimate"], row["low"], row["high"])
        for row in found.strata.to_dict("records")
    }
    rows = tuple(
        {
            "stratum": words,
            "untreated": _limited(*figures[stratum, "rfs_untreated"]),
            "treated": _limited(*figures[stratum, "rfs_treated"]),
            "difference": _limited(*figures[stratum, "rfs_difference"]),
            "ratio": _ratio(*figures[stratum, "hazard_ratio"]),
        }
        for stratum, words in _STRATA.items()
        if (stratum, "rfs_difference") in figures
    )
    ratio = next(row for row in found.interaction.to_dict("records") if row["quantity"] == "hazard_ratio")
    told = f"{_ratio(ratio['estimate'], ratio['low'], ratio['high'])}, {p_value(ratio['p'])}"
    figure = _effect_figure(figures, found.statement) if rows else ""
    horizon, patients = interval(found.horizon), f"{found.patients:,}"
    csv = csv_link(found.strata)
    return EffectPart(found.statement, figure, csv, rows, told, patients, horizon, f"{found.grace:g}", found.notes)


def _effect_figure(figures: dict[tuple[str, str], tuple[float, float, float]], statement: str) -> str:
    there = [stratum for stratum in _STRATA if (stratum, "rfs_difference") in figures]
    panels = (
        Panel("Treated less untreated, free", [figures[one, "rfs_difference"] for one in there], "difference"),
        Panel("Hazard ratio", [figures[one, "hazard_ratio"] for one in there], "ratio"),
    )
    figure = draw_limits([_STRATA[one] for one in there], panels)
    return to_svg(figure, "treatment", f"Effect of adjuvant treatment by CTC status: {statement}")


def _limited(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "–"
    limits = "" if math.isnan(low) else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{percent(value)}{limits}".replace("-", "−")


def _ratio(value: float, low: float, high: float) -> str:
    return f"{number(value)} ({number(low)} to {number(high)})"
