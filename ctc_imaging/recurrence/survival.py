"""Recurrence-free survival by the pattern at a landmark: curves start there, among those still at risk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.product_limit import (
    Estimate,
    logrank_p,
    product_limit,
    restricted_mean_difference,
)
from ctc_imaging.timeline import PATTERNS, patterns_at

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MODEL = "recurrence-free survival"
# The table of numbers at risk has a column each quarter of the horizon, up to twice the horizon.
_COLUMNS_TO_HORIZON = 4
_UNKNOWN = Estimate(float("nan"), float("nan"), float("nan"))
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Curve:
    """Kaplan-Meier estimate of one group with 95 % limits (log-log, pointwise).

    `days` since surgery, from the landmark on; `survival`, `low`, `high` hold from each day to the next.
    `rfs_horizon` is (estimate, low, high) at the horizon, NaN where follow-up ends before it; limits are
    NaN where nobody or everybody had the event. `median` is the day since surgery by which half have had it;
    `restricted_mean` the mean days free of it between landmark and horizon.
    """

    group: str
    n: int
    events: int
    days: NDArray[np.float64]
    survival: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    rfs_horizon: tuple[float, float, float]
    median: Estimate = _UNKNOWN
    restricted_mean: Estimate = _UNKNOWN


@dataclass(frozen=True)
class Difference:
    """By how many days free of the event, between landmark and horizon, one group is ahead of another."""

    group: str
    reference: str
    days: Estimate
    p: float


@dataclass(frozen=True)
class LandmarkSurvival:
    """Curves by pattern, numbers at risk (groups by days since surgery), log-rank test, and who was left out.

    `differences` compares the restricted mean of each pattern with the first one's.
    """

    landmark_day: float
    horizon_days: float
    curves: tuple[Curve, ...]
    at_risk: pd.DataFrame
    logrank_p: float | None
    excluded: dict[str, int]
    differences: tuple[Difference, ...] = ()


def recurrence_free_times(clinical: pd.DataFrame) -> pd.DataFrame:
    """Days from surgery to recurrence or death of any cause, whichever is first, else to the last contact.

    Parameters
    ----------
    clinical : DataFrame
        As of `cohort.load_clinical`.

    Returns
    -------
    DataFrame
        Index `patient_id`; `days` (float64) and `event` (bool).
    """
    names = ["surgery_date", "recurrence_date", "death_date", "last_contact_date"]
    dates = clinical.set_index("patient_id")[names].apply(pd.to_datetime)
    first = dates[["recurrence_date", "death_date"]].min(axis=1)
    end = first.fillna(dates["last_contact_date"])
    days = (end - dates["surgery_date"]).dt.days.astype("float64")
    return pd.DataFrame({"days": days, "event": first.notna()})


def at_risk_at(times: pd.DataFrame, landmark_day: float) -> tuple[pd.DataFrame, dict[str, int]]:
    """Keep the patients without event and under observation after the landmark.

    Parameters
    ----------
    times : DataFrame
        As of `recurrence_free_times`.
    landmark_day : float
        Days since surgery.

    Returns
    -------
    times : DataFrame
        The patients at risk.
    excluded : dict of str to int
        How many were left out, by reason.
    """
    early = times["days"] <= landmark_day
    excluded = {
        "recurrence or death by the landmark": int((early & times["event"]).sum()),
        "last contact by the landmark": int((early & ~times["event"]).sum()),
    }
    return times[~early], excluded


def landmark_survival(
    timeline: pd.DataFrame, clinical: pd.DataFrame, landmark_day: float, horizon_days: float
) -> tuple[LandmarkSurvival, list[str]]:
    """Recurrence-free survival by the pattern fixed at a landmark (Anderson, J Clin Oncol 1983;1:710-9).

    Parameters
    ----------
    timeline : DataFrame
        `patient_id`, `day`, `status`. The pattern is read from samples up to the landmark, none after.
    clinical : DataFrame
        As of `cohort.load_clinical`.
    landmark_day, horizon_days : float
        Days since surgery.

    Returns
    -------
    survival : LandmarkSurvival
    notes : list of str
        What the curves can't say.

    Raises
    ------
    StatisticsError
        If no patient at risk at the landmark has a pattern.
    """
    times = recurrence_free_times(clinical)
    times = times[times.index.isin(timeline["patient_id"])]
    at_risk, excluded = at_risk_at(times, landmark_day)
    pattern = patterns_at(timeline, landmark_day).reindex(at_risk.index)
    excluded["no sample with a status before surgery and by the landmark"] = int(pattern.isna().sum())
    known = at_risk.assign(pattern=pattern).dropna(subset=["pattern"])
    if known.empty:
        raise StatisticsError(
            MODEL,
            f"no patient at risk on day {landmark_day:g} has a status before surgery and one after it",
            "see the notes on status in the timeline, or set a later landmark_day",
        )
    groups = {name: known[known["pattern"] == name] for name in PATTERNS.values() if name in set(known["pattern"])}
    curves = tuple(
        kaplan_meier(group["days"], group["event"], name, landmark_day, horizon_days) for name, group in groups.items()
    )
    at_risk = _numbers_at_risk({name: group["days"] for name, group in groups.items()}, landmark_day, horizon_days)
    p = logrank_p_value(known["days"] - landmark_day, known["event"], known["pattern"])
    differences = restricted_differences(groups, landmark_day, horizon_days)
    survival = LandmarkSurvival(landmark_day, horizon_days, curves, at_risk, p, excluded, differences)
    return survival, _notes(survival)


def kaplan_meier(
    days: ArrayLike, event: ArrayLike, group: str = "", landmark_day: float = 0.0, horizon_days: float = 730.0
) -> Curve:
    """Estimate survival from the landmark on (Kaplan and Meier 1958; limits of Kalbfleisch and Prentice 2002).

    Parameters
    ----------
    days : array_like of float, shape (n,)
        Days since surgery to event or censoring, all after the landmark.
    event : array_like of bool, shape (n,)
        Whether it was the event. An event on the day of the horizon counts.
    group : str
        Name of the curve.
    landmark_day, horizon_days : float
        Days since surgery.

    Returns
    -------
    Curve
    """
    followed = np.asarray(days, dtype=float)
    happened = np.asarray(event, dtype=bool)
    estimate = product_limit(followed - landmark_day, happened)
    low, high = estimate.limits()
    place = int(np.searchsorted(estimate.times, horizon_days - landmark_day, side="right"))
    steps = np.append(0.0, estimate.times) + landmark_day
    values, low, high = np.append(1.0, estimate.survival), np.append(np.nan, low), np.append(np.nan, high)
    known = estimate.reaches(horizon_days - landmark_day) and horizon_days >= landmark_day
    mean, error = estimate.restricted_mean(horizon_days - landmark_day) if known else (np.nan, np.nan)
    return Curve(
        group,
        len(followed),
        int(happened.sum()),
        steps,
        values,
        low,
        high,
        (float(values[place]), float(low[place]), float(high[place])) if known else _UNKNOWN,
        Estimate(*(value + landmark_day for value in estimate.median())),
        Estimate(mean, mean - _Z_95 * error, mean + _Z_95 * error),
    )


def restricted_differences(
    groups: dict[str, pd.DataFrame], landmark_day: float, horizon_days: float
) -> tuple[Difference, ...]:
    """Compare the mean days free of the event between landmark and horizon with those of the first group.

    Parameters
    ----------
    groups : dict of str to DataFrame
        `days` since surgery and `event`, as of `recurrence_free_times`, of those at risk at the landmark.
    landmark_day, horizon_days : float
        Days since surgery.

    Returns
    -------
    tuple of Difference
        Without groups whose follow-up ends before the horizon.
    """
    curves = {name: product_limit(group["days"] - landmark_day, group["event"]) for name, group in groups.items()}
    means = {name: curve.restricted_mean(horizon_days - landmark_day) for name, curve in curves.items()}
    known = {name: mean for name, mean in means.items() if np.isfinite(mean[0])}
    first, *others = known or [""]
    return tuple(Difference(name, first, *restricted_mean_difference(known[name], known[first])) for name in others)


def logrank_p_value(days: ArrayLike, event: ArrayLike, group: ArrayLike) -> float | None:
    """Compare groups by the log-rank test (Mantel 1966; Peto and Peto 1972).

    Parameters
    ----------
    days, event, group : array_like, shape (n,)
        Follow-up, whether it ended with the event, and the group's name.

    Returns
    -------
    float or None
        None with fewer than two groups or no event.
    """
    if len(set(np.asarray(group))) < 2 or not np.any(event):
        return None
    return logrank_p(days, event, group)


def _numbers_at_risk(days: dict[str, pd.Series], landmark_day: float, horizon_days: float) -> pd.DataFrame:
    step = horizon_days / _COLUMNS_TO_HORIZON
    last = max(float(group.max()) for group in days.values())
    count = int(np.clip(np.ceil(last / step), _COLUMNS_TO_HORIZON, 2 * _COLUMNS_TO_HORIZON))
    columns = [landmark_day, *(day for day in np.rint(np.arange(1, count + 1) * step) if day > landmark_day)]
    rows = {name: [int((group >= day).sum()) for day in columns] for name, group in days.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=pd.Index(columns, name="day")).rename_axis("group")


def _notes(survival: LandmarkSurvival) -> list[str]:
    notes = []
    short = [curve.group for curve in survival.curves if np.isnan(curve.rfs_horizon[0])]
    if short:
        listed = ", ".join(name.replace("_", " ") for name in short)
        notes.append(f"follow-up ends before day {survival.horizon_days:g} in: {listed}.")
    if len(survival.curves) < 2:
        notes.append("all patients at risk have one pattern, so there is nothing to compare.")
    return notes
