"""How well risks tell who has the event by a horizon: discrimination and error, censoring weighed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from ctc_imaging.recurrence.product_limit import Estimate
from ctc_imaging.recurrence.validation.weights import weigh

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 300
_SHARES = (0.025, 0.975)


def auc(
    risk: Floats,
    time: Floats,
    event: NDArray[np.bool_],
    horizon: float,
    landmark: float = -np.inf,
    at_horizon: bool = True,
) -> float:
    """Chance that who has the event by the horizon was given a higher risk than who hasn't (cumulative/dynamic).

    Uno, J Am Stat Assoc 2007;102:527-37; of those at risk at the landmark. Equal risks count half.

    Parameters
    ----------
    risk, time, event : ndarray, shape (n,)
        Predicted risk (or any score), end of follow-up, whether that was the event.
    horizon, landmark, at_horizon
        See `weights.weigh`.

    Returns
    -------
    float
        NaN without a case or without a control.
    """
    status = weigh(time, event, horizon, landmark, at_horizon)
    cases = status.case * status.weight
    controls = (1 - status.case) * status.weight
    below = _weight_below(risk, controls)
    total = cases.sum() * controls.sum()
    return float((cases * below).sum() / total) if total > 0 else np.nan


def brier(risk: Floats, time: Floats, event: NDArray[np.bool_], horizon: float, landmark: float = -np.inf) -> float:
    """Mean squared difference between risk and status at the horizon (Graf 1999; Gerds, Biom J 2006;48:1029-40).

    Parameters
    ----------
    risk : ndarray of float64, shape (n,)
        Risk of the event by the horizon, 0 to 1.
    time, event, horizon, landmark
        As of `auc`.

    Returns
    -------
    float
        0 is best; a coin has .25.
    """
    status = weigh(time, event, horizon, landmark)
    return float((status.weight * (status.case - risk) ** 2).sum() / len(risk))


def integrated_brier(
    risks: Floats, time: Floats, event: NDArray[np.bool_], horizons: Floats, landmark: float = -np.inf
) -> float:
    """Mean of the Brier score over horizons, by the trapezium rule.

    Parameters
    ----------
    risks : ndarray of float64, shape (n, horizons)
    time, event, landmark
        As of `auc`.
    horizons : ndarray of float64, shape (horizons,)
        Two or more, rising.

    Returns
    -------
    float
    """
    scores = [brier(risk, time, event, horizon, landmark) for risk, horizon in zip(risks.T, horizons, strict=True)]
    return float(np.trapezoid(scores, horizons) / (horizons[-1] - horizons[0]))


def resampled(
    figure: Callable[[NDArray[np.intp]], float], count: int, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Give a figure with 95 % limits by the bootstrap's quantiles.

    Parameters
    ----------
    figure : callable
        The figure from subjects' numbers, which may repeat.
    count : int
        Subjects.
    resamples, seed : int

    Returns
    -------
    Estimate
    """
    rng = np.random.default_rng(seed)
    drawn = np.array([figure(rng.integers(0, count, count)) for _ in range(resamples)])
    known = drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, _SHARES) if len(known) > resamples / 2 else (np.nan, np.nan)
    return Estimate(float(figure(np.arange(count))), float(low), float(high))


def _weight_below(risk: Floats, weight: Floats) -> Floats:
    """Weight of the subjects with a lower risk than each, and half of that of those with the same."""
    rank = rankdata(risk, method="dense").astype(np.intp) - 1
    total = np.bincount(rank, weight)
    below = np.concatenate([[0.0], np.cumsum(total)[:-1]])
    return np.asarray(below[rank] + total[rank] / 2)
