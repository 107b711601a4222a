"""Recurrence-free survival by pattern, the time-varying Cox model and the landmark risk, ready for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ctc_imaging.counting import COUNT_COLUMNS
from ctc_imaging.errors import CtcImagingError
from ctc_imaging.panel import CutOff
from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.figures import draw_risk, draw_survival, group_colour, to_svg
from ctc_imaging.report.source import Run, read_clinical, read_table
from ctc_imaging.report.words import MISSING, is_missing, label, p_value, percent, term

if TYPE_CHECKING:
    from ctc_imaging.recurrence import Analysis, Curve, LandmarkRisk, LandmarkSurvival
    from ctc_imaging.recurrence.competing import LandmarkIncidence
    from ctc_imaging.recurrence.product_limit import Estimate

DAYS_A_MONTH = 30.4375
RISKS_LISTED = 24  # with more patients the page shows all risks as a drawing instead of a table


@dataclass(frozen=True)
class SurvivalPage:
    """What the survival section says; `reason` tells why there are no figures."""

    patients: int
    separate: bool
    landmark_day: float
    horizon_days: float
    reason: str = ""
    figure: str = ""
    csv: str = ""
    groups: tuple[dict[str, str], ...] = ()
    at_risk_days: tuple[str, ...] = ()
    at_risk: tuple[tuple[str, tuple[str, ...]], ...] = ()
    logrank: str = ""
    excluded: tuple[tuple[str, int], ...] = ()
    cox: tuple[dict[str, str], ...] = ()
    cox_size: str = ""
    risks: tuple[dict[str, str], ...] = ()
    risk_figure: str = ""
    risk_csv: str = ""
    risk_size: str = ""
    warnings: tuple[str, ...] = ()
    incidence: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def survival_page(run: Run) -> SurvivalPage:
    """Analyse recurrence, from RUN/survival/ where there is one, else from the run's own patients.

    Parameters
    ----------
    run : Run
        Its configuration sets `landmark_day` and `horizon_days`.

    Returns
    -------
    SurvivalPage
        Without figures, but with the reason, where the data can't carry an analysis.
    """
    settings = run.folder.settings()
    landmark, horizon = float(settings.landmark_day), float(settings.horizon_days)
    separate = is_separate(run)
    try:
        timeline, clinical = survival_tables(run)
        if clinical is None or timeline.empty:
            return SurvivalPage(0, separate, landmark, horizon, reason=_no_data(clinical))
        from ctc_imaging.recurrence import analyse

        analysis = analyse(timeline, clinical, landmark, horizon)
    except CtcImagingError as error:
        return SurvivalPage(0, separate, landmark, horizon, reason=str(error))
    return _page(analysis, timeline["patient_id"].nunique(), separate, landmark, horizon)


def _no_data(clinical: pd.DataFrame | None) -> str:
    if clinical is None:
        return "The run was given no clinical table (--clinical), so nothing is known about recurrence or death"
    return "There are no samples of patients, so there is no course to compare"


def survival_tables(run: Run) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the timeline and the clinical table that recurrence is told from.

    Parameters
    ----------
    run : Run

    Returns
    -------
    timeline : DataFrame
        As of `timeline.build_timeline`: of RUN/survival/ where there is one, else the run's own.
    clinical : DataFrame or None
        None where the run was given none.

    Raises
    ------
    CtcImagingError
        If a table is damaged.
    """
    if not is_separate(run):
        return run.timeline, run.clinical
    from ctc_imaging.timeline import build_timeline

    folder = run.folder.survival
    clinical = read_clinical(folder / "clinical.csv")
    cutoff = CutOff(**run.cutoff) if run.cutoff else None
    counts = read_table(folder / "counts.csv", COUNT_COLUMNS)
    return build_timeline(counts, clinical, None, cutoff, float(run.folder.settings().landmark_day)), clinical


def is_separate(run: Run) -> bool:
    """Say whether RUN/survival/ holds another cohort than the run's own patients."""
    return all((run.folder.survival / name).is_file() for name in ("counts.csv", "clinical.csv"))


def _page(analysis: Analysis, patients: int, separate: bool, landmark: float, horizon: float) -> SurvivalPage:
    survival, cox, risk = analysis.survival, analysis.cox, analysis.risk
    return SurvivalPage(
        patients=patients,
        separate=separate,
        landmark_day=landmark,
        horizon_days=horizon,
        notes=tuple(analysis.notes),
        incidence=() if analysis.incidence is None else _incidence_rows(analysis.incidence),
        **(_survival_parts(survival) if survival is not None else {}),
        **(_cox_parts(cox) if cox is not None else {}),
        **(_risk_parts(risk) if risk is not None else {}),
    )


def _survival_parts(survival: LandmarkSurvival) -> dict[str, Any]:
    figure = draw_survival(survival.curves, survival.at_risk, survival.landmark_day, survival.horizon_days)
    names = ", ".join(label(curve.group) for curve in survival.curves)
    return {
        "figure": to_svg(figure, "survival", f"Recurrence-free survival since the landmark by pattern: {names}"),
        "csv": csv_link(pd.concat([_curve_table(curve) for curve in survival.curves])) if survival.curves else "",
        "groups": tuple(_group_row(curve) for curve in survival.curves),
        "at_risk_days": tuple(f"{float(day) / DAYS_A_MONTH:.0f}" for day in survival.at_risk.columns),
        "at_risk": tuple(
            (label(group), tuple(f"{int(count)}" for count in row)) for group, row in survival.at_risk.iterrows()
        ),
        "logrank": "" if is_missing(survival.logrank_p) else p_value(survival.logrank_p),
        "excluded": tuple((label(reason), int(count)) for reason, count in survival.excluded.items() if count),
    }


def _curve_table(curve: Curve) -> pd.DataFrame:
    """A curve's steps, a row each."""
    steps = {"day": curve.days, "free": curve.survival, "low": curve.low, "high": curve.high}
    return pd.DataFrame({"pattern": curve.group, **steps})


def _group_row(curve: Curve) -> dict[str, str]:
    estimate, low, high = curve.rfs_horizon
    return {
        "group": label(curve.group),
        "colour": group_colour(curve.group),
        "patients": f"{curve.n:,}",
        "events": f"{curve.events:,}",
        "rfs": percent(estimate),
        "limits": MISSING if is_missing(low) else f"{100 * low:.0f}–{percent(high)}",
        "median": _months(curve.median),
        "restricted_mean": _months(curve.restricted_mean),
    }


def _months(days: Estimate) -> str:
    """Days as months with their limits; a limit that follow-up doesn't reach is a dash."""
    if is_missing(days.value):
        return "not reached"
    value, low, high = (MISSING if is_missing(day) else f"{day / DAYS_A_MONTH:.1f}" for day in days)
    return f"{value} ({low} to {high})"


def _incidence_rows(incidence: LandmarkIncidence) -> tuple[dict[str, str], ...]:
    """One row a pattern, and one for everyone: recurrence, and death without it, by the horizon."""
    rows = []
    for group in (incidence.everyone, *incidence.groups):
        row = {"group": label(group.group), "patients": f"{group.n:,}"}
        for cause, (value, low, high) in group.by_horizon.items():
            limited = "" if is_missing(low) else f" ({100 * low:.0f}–{percent(high)})"
            row[cause] = f"{percent(value)}{limited}"
        rows.append(row)
    return tuple(rows)


def _cox_parts(cox: Any) -> dict[str, Any]:
    rows = tuple(
        {
            "term": term(row["term"]),
            "hazard_ratio": f"{row['hazard_ratio']:.2f}",
            "limits": f"{row['low']:.2f}–{row['high']:.2f}",
            "p": p_value(row["p"]),
        }
        for _, row in cox.table.iterrows()
    )
    size = f"{cox.n_patients:,} patients, {cox.n_events:,} events, {cox.n_rows:,} intervals"
    return {"cox": rows, "cox_size": size, "warnings": tuple(f"{one[0].upper()}{one[1:]}" for one in cox.disproportion)}


def _risk_parts(risk: LandmarkRisk) -> dict[str, Any]:
    size = f"{risk.n:,} patients at risk at the landmark, {risk.events:,} events"
    if len(risk.table) > RISKS_LISTED:
        alt = f"Risk of recurrence of {len(risk.table)} patients with limits, from the lowest to the highest"
        drawn = to_svg(draw_risk(risk.table), "risk", alt)
        return {"risk_figure": drawn, "risk_csv": csv_link(risk.table), "risk_size": size}
    rows = tuple(
        {
            "patient": str(row["patient_id"]),
            "risk": percent(row["risk"]),
            "limits": f"{100 * row['low']:.0f}–{percent(row['high'])}",
        }
        for _, row in risk.table.sort_values("risk", ascending=False, kind="stable").iterrows()
    )
    return {"risks": rows, "risk_size": size}
