"""Survival when the event is only known to lie between two visits: no date is made up in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.competing import RECURRENCE, recurrence_causes

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

MODEL = "interval-censored survival"
MAX_ITERATIONS = 5000
# How far below its maximum the log-likelihood may end.
_GAP = 1e-6
_MAX_HALVINGS = 30


@dataclass(frozen=True)
class TurnbullCurve:
    """The nonparametric estimate: masses on the intervals (left, right] in which alone the data place events.

    Where within its interval a mass lies no data can tell; `left` equals `right` for events whose time is known.
    """

    left: Floats
    right: Floats
    mass: Floats
    log_likelihood: float
    iterations: int

    def bounds(self, time: ArrayLike) -> tuple[Floats, Floats]:
        """Least and greatest survival at a time that the estimate allows; they differ within its intervals."""
        when = np.asarray(time, dtype=float)
        total = np.append(0.0, np.cumsum(self.mass))
        begun = self.left < when[..., None]
        begun |= (self.left == self.right) & (self.left == when[..., None])
        ended = self.right <= when[..., None]
        return 1 - total[begun.sum(axis=-1)], 1 - total[ended.sum(axis=-1)]


def recurrence_intervals(clinical: pd.DataFrame, imaging: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Say between which scans each patient's recurrence came.

    Parameters
    ----------
    clinical : DataFrame
        As of `cohort.load_clinical`.
    imaging : DataFrame
        As of `cohort.load_imaging`. Equivocal scans tell nothing.

    Returns
    -------
    intervals : DataFrame
        Index `patient_id`; `left` (last negative scan before, 0 without one) and `right` (first positive scan, or the
        recorded date if earlier; infinite if none), in days since surgery. A patient without recurrence is known to
        be free of it up to the last negative scan, not up to the last contact or death.
    notes : list of str
        Who is left out.
    """
    causes = recurrence_causes(clinical)
    surgery = pd.to_datetime(clinical.set_index("patient_id")["surgery_date"])
    day = (pd.to_datetime(imaging["imaging_date"]) - imaging["patient_id"].map(surgery)).dt.days
    scans = imaging.assign(day=day)[day > 0]
    recorded = causes["days"].where(causes["cause"] == RECURRENCE, np.inf)
    positive = scans[scans["result"] == "positive"].groupby("patient_id")["day"].min()
    right = np.minimum(recorded, positive.reindex(causes.index).fillna(np.inf))
    negative = scans[(scans["result"] == "negative") & (scans["day"] < scans["patient_id"].map(right))]
    left = negative.groupby("patient_id")["day"].max().reindex(causes.index).fillna(0.0)
    intervals = pd.DataFrame({"left": left.astype(float), "right": right.astype(float)})
    told = (intervals["left"] > 0) | np.isfinite(intervals["right"])
    lost = int((~told).sum())
    notes = [f"{lost} patient(s) without a scan that says anything are left out."] if lost else []
    return intervals[told], notes


def turnbull(left: ArrayLike, right: ArrayLike) -> TurnbullCurve:
    """Estimate survival from intervals without assuming a shape (Turnbull, J R Stat Soc B 1976;38:290-5).

    Each iteration takes a step of expectation-maximisation and one of the iterative convex minorant (Wellner and Zhan,
    J Am Stat Assoc 1997;92:945-59); it ends when the log-likelihood is known to be within 1e-6 of its maximum.

    Parameters
    ----------
    left, right : array_like of float, shape (n,)
        The event lies in (left, right]; equal where its time is known, `right` infinite where it wasn't seen.

    Returns
    -------
    TurnbullCurve

    Raises
    ------
    StatisticsError
        If an interval ends before it begins, a bound is missing, or no event was seen.

    Examples
    --------
    >>> curve = turnbull([0, 0, 2, 4], [3, 3, 5, np.inf])
    >>> curve.left.tolist(), curve.right.tolist(), curve.mass.round(6).tolist()
    ([2.0, 4.0], [3.0, 5.0], [0.666667, 0.333333])
    """
    lower, upper = _checked(left, right)
    begins, ends, first, last = _innermost(lower, upper)
    mass = np.full(len(begins), 1 / len(begins))
    for iteration in range(1, MAX_ITERATIONS + 1):
        mass = mass * _pull(mass, first, last) / len(lower)
        mass = _convex_minorant_step(mass, first, last)
        if _pull(mass, first, last).max() - len(lower) < _GAP:
            value = float(np.log(_chance(mass, first, last)).sum())
            return TurnbullCurve(begins, ends, mass, value, iteration)
    fault = f"the estimate hasn't converged after {MAX_ITERATIONS} iterations"
    raise StatisticsError(MODEL, fault, "use a parametric curve")


def _checked(left: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats]:
    lower, upper = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    if np.isnan(lower).any() or np.isnan(upper).any() or not np.isfinite(lower).all():
        raise StatisticsError(MODEL, "a bound of an interval is missing", "leave these subjects out, or correct them")
    if (backwards := int((lower > upper).sum())) or (lower < 0).any():
        fault = f"{backwards} interval(s) end before they begin" if backwards else "an interval begins before time 0"
        raise StatisticsError(MODEL, fault, "correct them")
    if not np.isfinite(upper).any():
        raise StatisticsError(MODEL, "nobody has the event", "follow more patients for longer")
    return lower, upper


def _innermost(lower: Floats, upper: Floats) -> tuple[Floats, Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Find the intervals that can carry mass, and which of them each subject's interval covers (first, last)."""
    # At one time a known event begins before an interval ends, and another begins after it: codes -1, 0 and 1.
    exact = lower == upper
    begins = np.unique(np.column_stack([lower, np.where(exact, -1.0, 1.0)]), axis=0)
    ends = np.unique(np.column_stack([upper, np.zeros_like(upper)]), axis=0)
    both = np.vstack([begins, ends])
    order = np.lexsort((both[:, 1], both[:, 0]))
    is_begin = order < len(begins)
    place = np.flatnonzero(is_begin[:-1] & ~is_begin[1:])
    inner_left, inner_right = both[order[place], 0], both[order[place + 1], 0]
    # In (left, right] lie the innermost intervals that begin at or after left, and end at or before right.
    inner_open = (inner_left < inner_right).astype(float)
    first = _rank(np.column_stack([inner_left, inner_open]), np.column_stack([lower, 1.0 - exact]))
    last = np.searchsorted(inner_right, upper, side="right")
    return inner_left, inner_right, first, last


def _rank(sorted_pairs: Floats, pairs: Floats) -> NDArray[np.intp]:
    """Count the sorted pairs that come before each pair."""
    every = np.unique(np.vstack([sorted_pairs, pairs]), axis=0, return_inverse=True)[1].ravel()
    return np.searchsorted(every[: len(sorted_pairs)], every[len(sorted_pairs) :], side="left")


def _chance(mass: Floats, first: NDArray[np.intp], last: NDArray[np.intp]) -> Floats:
    total = np.append(0.0, np.cumsum(mass))
    return total[last] - total[first]


def _pull(mass: Floats, first: NDArray[np.intp], last: NDArray[np.intp]) -> Floats:
    """Derivative of the log-likelihood to each mass."""
    size = len(mass) + 1
    inverse = 1 / _chance(mass, first, last)
    return np.cumsum(np.bincount(first, inverse, size) - np.bincount(last, inverse, size))[:-1]


def _convex_minorant_step(mass: Floats, first: NDArray[np.intp], last: NDArray[np.intp]) -> Floats:
    """Take a Newton step of the distribution function with a diagonal Hessian, kept monotone, if it climbs."""
    if len(mass) < 2:
        return mass
    chance = _chance(mass, first, last)
    size = len(mass) + 1
    slope = (np.bincount(last, 1 / chance, size) - np.bincount(first, 1 / chance, size))[1:-1]
    bend = (np.bincount(last, chance**-2, size) + np.bincount(first, chance**-2, size))[1:-1]
    bend = np.maximum(bend, 1e-12 * bend.max())
    current = np.cumsum(mass)[:-1]
    wanted = np.clip(isotonic_regression(current + slope / bend, weights=bend).x, 0.0, 1.0)
    before = np.log(chance).sum()
    for halving in range(_MAX_HALVINGS):
        steps = np.concatenate([[0.0], current + (wanted - current) / 2**halving, [1.0]])
        trial = np.maximum(np.diff(steps), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            after = np.log(_chance(trial, first, last)).sum()
        if after >= before:
            return trial
    return mass
