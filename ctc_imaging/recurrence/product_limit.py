"""The Kaplan-Meier estimate and what is read off it: limits, median, restricted mean, the log-rank test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import chdtrc, ndtr

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

_Z_95 = 1.959963984540054


class Estimate(NamedTuple):
    """A figure with its 95 % limits; NaN where the data can't tell."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ProductLimit:
    """Survival just after each time at which a follow-up ends.

    `times` ascend; `at_risk` and `events` (sums of weights) are those at each time; `greenwood` is the variance of
    the logarithm of `survival` (Greenwood 1926), infinite once survival is 0. All of shape (times,).
    """

    times: Floats
    at_risk: Floats
    events: Floats
    survival: Floats
    greenwood: Floats

    def at(self, time: ArrayLike) -> Floats:
        """Survival up to and including a time, in the shape of `time`."""
        return np.append(1.0, self.survival)[np.searchsorted(self.times, time, side="right")]

    def before(self, time: ArrayLike) -> Floats:
        """Survival just before a time, in the shape of `time`."""
        return np.append(1.0, self.survival)[np.searchsorted(self.times, time, side="left")]

    def limits(self) -> tuple[Floats, Floats]:
        """Pointwise 95 % limits on the scale log(-log) (Kalbfleisch and Prentice 2002); NaN at survival 0 and 1."""
        with np.errstate(divide="ignore", invalid="ignore"):
            half = _Z_95 * np.sqrt(self.greenwood) / np.abs(np.log(self.survival))
            low, high = self.survival ** np.exp(half), self.survival ** np.exp(-half)
        known = (self.survival > 0) & (self.survival < 1)
        return np.where(known, low, np.nan), np.where(known, high, np.nan)

    def median(self) -> Estimate:
        """First time by which half have had the event, with limits (Brookmeyer and Crowley, Biometrics 1982;38:29-41).

        A limit that follow-up doesn't reach is NaN.
        """
        return Estimate(*(self._first_below_half(curve) for curve in (self.survival, *self.limits())))

    def restricted_mean(self, horizon: float) -> tuple[float, float]:
        """Mean time without the event up to a horizon, and its standard error.

        Parameters
        ----------
        horizon : float
            Not after the end of follow-up, unless survival is 0 by then.

        Returns
        -------
        mean, standard_error : float
            NaN where follow-up ends before the horizon.
        """
        if not self.reaches(horizon):
            return float("nan"), float("nan")
        until = self.times < horizon
        steps = np.diff(np.concatenate([[0.0], self.times[until], [horizon]]))
        areas = steps * np.append(1.0, self.survival[until])
        beyond = areas[::-1].cumsum()[::-1][1:]
        events, at_risk = self.events[until], self.at_risk[until]
        with np.errstate(divide="ignore", invalid="ignore"):
            jumps = np.where(events < at_risk, events / (at_risk * (at_risk - events)), 0.0)
        return float(areas.sum()), float(np.sqrt(beyond**2 @ jumps))

    def reaches(self, horizon: float) -> bool:
        """Whether survival at a horizon is known."""
        return bool(len(self.times) and (self.times[-1] >= horizon or self.survival[-1] == 0))

    def _first_below_half(self, curve: Floats) -> float:
        # Rounding of products such as 2/3 * 3/4 mustn't decide.
        below = np.flatnonzero(curve <= 0.5 + 1e-12)
        return float(self.times[below[0]]) if len(below) else float("nan")


def product_limit(
    stop: ArrayLike, event: ArrayLike, start: ArrayLike | None = None, weights: ArrayLike | None = None
) -> ProductLimit:
    """Estimate survival (Kaplan and Meier, J Am Stat Assoc 1958;53:457-81).

    Parameters
    ----------
    stop : array_like of float, shape (n,)
        When follow-up ends.
    event : array_like of bool, shape (n,)
        Whether it ends with the event. Those censored at the same time are still at risk.
    start : array_like of float, shape (n,), optional
        When each comes under observation (late entry).
    weights : array_like of float, shape (n,), optional

    Returns
    -------
    ProductLimit

    Examples
    --------
    >>> product_limit([1, 2, 2, 3], [True, True, False, True]).survival.tolist()
    [0.75, 0.5, 0.0]
    """
    stop, event = np.asarray(stop, dtype=float), np.asarray(event, dtype=bool)
    weight = np.ones(len(stop)) if weights is None else np.asarray(weights, dtype=float)
    times, place = np.unique(stop, return_inverse=True)
    events = np.bincount(place, weight * event, len(times)).astype(np.float64)
    at_risk = np.bincount(place, weight, len(times))[::-1].cumsum()[::-1]
    if start is not None:
        entered = np.searchsorted(times, np.asarray(start, dtype=float), side="right")
        at_risk = at_risk - np.bincount(entered, weight, len(times) + 1)[::-1].cumsum()[-2::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        survival = np.cumprod(np.where(events > 0, 1 - events / at_risk, 1.0)).astype(np.float64)
        greenwood = np.cumsum(np.where(events > 0, events / (at_risk * (at_risk - events)), 0.0)).astype(np.float64)
    return ProductLimit(times, at_risk, events, survival, greenwood)


def restricted_mean_difference(one: tuple[float, float], other: tuple[float, float]) -> tuple[Estimate, float]:
    """Compare restricted means (Royston and Parmar, BMC Med Res Methodol 2013;13:152).

    Parameters
    ----------
    one, other : tuple of float
        Mean and standard error, as of `ProductLimit.restricted_mean`.

    Returns
    -------
    difference : Estimate
        Of `one` less `other`.
    p : float
    """
    difference, error = one[0] - other[0], float(np.hypot(one[1], other[1]))
    half = _Z_95 * error
    p = float(2 * ndtr(-abs(difference) / error)) if error > 0 else float("nan")
    return Estimate(difference, difference - half, difference + half), p


def logrank(stop: ArrayLike, event: ArrayLike, group: ArrayLike, start: ArrayLike | None = None) -> tuple[float, int]:
    """Compare the hazards of groups (Mantel 1966; Peto and Peto, J R Stat Soc A 1972;135:185-207).

    Parameters
    ----------
    stop, event, start : array_like, shape (n,)
        As of `product_limit`.
    group : array_like, shape (n,)
        Names of the groups.

    Returns
    -------
    chi_square : float
        NaN where the events tell nothing.
    df : int
        Groups less one.
    """
    stop, event = np.asarray(stop, dtype=float), np.asarray(event, dtype=bool)
    names, place = np.unique(np.asarray(group), return_inverse=True)
    if len(names) < 2:
        return float("nan"), 0
    everyone = product_limit(stop, event, start)
    own = [product_limit(stop, event, start, weights=place == code) for code in range(len(names) - 1)]
    tell = (everyone.events > 0) & (everyone.at_risk > 1)
    events, at_risk = everyone.events[tell], everyone.at_risk[tell]
    share = np.stack([curve.at_risk[tell] for curve in own]) / at_risk
    surprise = np.stack([curve.events[tell] for curve in own]).sum(axis=1) - share @ events
    spread = share * events * (at_risk - events) / (at_risk - 1)
    variance = np.diag(spread.sum(axis=1)) - spread @ share.T
    if np.linalg.matrix_rank(variance, hermitian=True) < len(own):
        return float("nan"), len(own)
    return float(surprise @ np.linalg.solve(variance, surprise)), len(own)


def logrank_p(stop: ArrayLike, event: ArrayLike, group: ArrayLike, start: ArrayLike | None = None) -> float:
    """P-value of `logrank`, with its parameters; NaN where the events tell nothing."""
    chi_square, df = logrank(stop, event, group, start)
    return float(chdtrc(df, chi_square))
