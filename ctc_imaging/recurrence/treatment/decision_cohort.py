"""The patients about whom adjuvant treatment is decided: free of the event at the landmark, with what is known then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.covariates import LEAST_KNOWN, baseline_covariates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp

MODEL = "effect of treatment"
_WORDS = {"positive": True, "negative": False}
_MOST_LEVELS = 6


@dataclass(frozen=True)
class DecisionCohort:
    """Who is at risk at the landmark, in one order throughout.

    `start` is the time treatment began (inf: never), `positive` the marker from samples drawn up to the landmark and
    before treatment, `covariates` a table of float64 without gaps. `excluded` counts who was left out, by reason.
    """

    landmark: float
    ids: pd.Index
    stop: NDArray[np.float64]
    event: NDArray[np.bool_]
    start: NDArray[np.float64]
    positive: NDArray[np.bool_]
    covariates: pd.DataFrame
    excluded: dict[str, int]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of patients."""
        return len(self.ids)

    @property
    def design(self) -> NDArray[np.float64]:
        """The covariates as an array of shape (n, k)."""
        return self.covariates.to_numpy(dtype=float)


def decision_cohort(
    follow_up: FollowUp,
    landmark: float,
    start: pd.Series,
    marker: str = "status",
    positive_from: float | None = None,
    covariates: Sequence[str] | None = None,
    marker_after: float = -np.inf,
) -> DecisionCohort:
    """Gather the patients at risk at the decision landmark.

    Parameters
    ----------
    follow_up : FollowUp
    landmark : float
        When the decision is taken; follow-up starts here.
    start : Series of float64
        As of `treatment_start`.
    marker : str
        Column of the measurements: texts positive and negative, or numbers with `positive_from`.
    positive_from : float, optional
        From which value on the marker is positive.
    covariates : sequence of str, optional
        Columns of the event table that may have guided the choice of treatment. Without it microvascular invasion,
        AFP, BCLC stage and size, where the table has them.
    marker_after : float
        Measurements up to this time say nothing of the marker at the decision, as those from before surgery.

    Returns
    -------
    DecisionCohort

    Raises
    ------
    StatisticsError
        If a column isn't there or nobody is left.
    """
    at_risk = follow_up.at(landmark)
    events = at_risk.events.set_index(at_risk.id)
    began = start.reindex(events.index)
    table, notes = covariate_table(at_risk, covariates)
    notes += _read_early(at_risk, start, marker)
    positive = marker_at(at_risk, start, marker, positive_from, marker_after).reindex(events.index)
    unknown = {
        "treated, but it isn't known since when": began.isna(),
        "no sample with a status up to the landmark and before treatment": positive.isna(),
        "a covariate isn't known": table.isna().any(axis=1),
    }
    kept, excluded = _without(unknown, events.index)
    over = follow_up.events[follow_up.event_time] <= landmark
    had = follow_up.events[follow_up.event]
    excluded = {"event by the landmark": int((over & had).sum()), "lost by the landmark": int((over & ~had).sum())} | (
        excluded
    )
    if not len(kept):
        raise StatisticsError(MODEL, f"no patient is left at {landmark:g} {follow_up.time_unit}", _why(excluded))
    return DecisionCohort(
        float(landmark),
        kept,
        events.loc[kept, at_risk.event_time].to_numpy(dtype=float),
        events.loc[kept, at_risk.event].to_numpy(dtype=bool),
        began[kept].to_numpy(dtype=float),
        positive[kept].to_numpy(dtype=bool),
        table.loc[kept],
        excluded,
        tuple(notes),
    )


def marker_at(
    known: FollowUp,
    start: pd.Series,
    marker: str = "status",
    positive_from: float | None = None,
    marker_after: float = -np.inf,
) -> pd.Series:
    """Take each subject's last status from before treatment: a count under treatment tells of the treatment too.

    Parameters
    ----------
    known : FollowUp
        As of `FollowUp.at`.
    start : Series of float64
        As of `treatment_start`.
    marker, positive_from, marker_after
        See `decision_cohort`.

    Returns
    -------
    Series of bool, as object
        By subject, only those with a status.
    """
    long = known.long
    if marker not in long:
        raise StatisticsError(MODEL, f"the measurements have no column {marker}", "name another with --marker")
    status = _positive(long[marker], marker, positive_from)
    usable = (long[known.time] > marker_after) & (long[known.time] <= long[known.id].map(start))
    return status[usable & status.notna()].groupby(long[known.id]).last()


def covariate_table(known: FollowUp, names: Sequence[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """Read covariates as numbers: texts of a few levels become one column a level but the first.

    Parameters
    ----------
    known : FollowUp
    names : sequence of str or None
        Columns of the event table; None for the usual ones.

    Returns
    -------
    table : DataFrame of float64
        By subject, NaN where unknown.
    notes : list of str
        What was left out.
    """
    events = known.events
    if names is None:
        given = baseline_covariates(events.rename(columns={known.id: "patient_id"}))
        table = given.set_axis(known.subjects)
    else:
        if missing := [name for name in names if name not in events]:
            raise StatisticsError(MODEL, f"the event table has no column {missing[0]}", "name others")
        columns = [_numbers(events[name]).set_axis(known.subjects) for name in names]
        table = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=known.subjects)
    faults = {str(name): fault for name in table if (fault := _fault(table[name]))}
    notes = [f"{name} isn't balanced: {fault}." for name, fault in faults.items()]
    if len(faults) == len(table.columns):
        notes.append("No covariate is balanced: treated and untreated are compared as they are.")
    return table.drop(columns=list(faults)), notes


def _read_early(known: FollowUp, start: pd.Series, marker: str) -> list[str]:
    """Say in how many a later sample was passed over, as it was drawn under treatment."""
    if marker not in known.long:
        return []
    under = (known.long[known.time] > known.long[known.id].map(start)) & known.long[marker].notna()
    count = known.long.loc[under, known.id].nunique()
    text = "patient(s) were treated before their last sample up to the landmark: an earlier one gives their status."
    return [f"{count} {text}"] if count else []


def _positive(values: pd.Series, marker: str, positive_from: float | None) -> pd.Series:
    if positive_from is not None:
        numbers = pd.to_numeric(values, errors="coerce").astype("float64")
        return (numbers >= positive_from).astype(object).where(numbers.notna())
    if values.notna().any() and not values.dropna().isin(list(_WORDS)).all():
        fault = f"{marker} isn't positive or negative everywhere"
        raise StatisticsError(MODEL, fault, "say from which value it is positive with --positive-from")
    return values.map(_WORDS).astype(object)


def _numbers(values: pd.Series) -> pd.DataFrame:
    numbers = pd.to_numeric(values, errors="coerce")
    if not (numbers.isna() & values.notna()).any():
        return numbers.astype("float64").to_frame(values.name)
    levels = sorted(values.dropna().unique())
    if len(levels) > _MOST_LEVELS:
        raise StatisticsError(MODEL, f"{values.name} has {len(levels)} different texts", "name another covariate")
    columns = {f"{values.name}: {level}": (values == level).astype("float64") for level in levels[1:]}
    return pd.DataFrame(columns, index=values.index).where(values.notna())


def _fault(values: pd.Series) -> str | None:
    known = values.dropna()
    if len(known) < LEAST_KNOWN * len(values):
        return f"known for {len(known)} of {len(values)} patients only"
    return "it is the same in all patients" if known.nunique() < 2 else None


def _without(unknown: dict[str, pd.Series], everybody: pd.Index) -> tuple[pd.Index, dict[str, int]]:
    """Leave out one reason after the other, so that nobody is counted twice."""
    kept, excluded = everybody, {}
    for reason, flag in unknown.items():
        out = flag[kept].astype(bool)
        excluded[reason] = int(out.sum())
        kept = kept[~out.to_numpy()]
    return kept, excluded


def _why(excluded: dict[str, int]) -> str:
    reasons = [f"{count}: {reason}" for reason, count in excluded.items() if count]
    return f"left out were {'; '.join(reasons)}" if reasons else "follow more patients"
