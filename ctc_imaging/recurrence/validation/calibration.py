"""Whether risks are as high as what happens: observed beside predicted, in groups and by one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from ctc_imaging.recurrence.product_limit import product_limit
from ctc_imaging.recurrence.validation.scores import resampled
from ctc_imaging.recurrence.validation.weights import weigh

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.product_limit import Estimate

    Floats = NDArray[np.float64]

GROUPS = 5
_CLIP = 1e-4
_STEPS = 50


@dataclass(frozen=True)
class Calibration:
    """Observed beside predicted risk.

    Parameters
    ----------
    groups : DataFrame
        One row a group from low risk to high: `n`, `predicted` (mean), `observed` (one minus Kaplan-Meier), `low`,
        `high` (95 %).
    ratio : Estimate
        Observed over predicted of all; 1 is right.
    slope : Estimate
        Of the status on the risk's logit, weighed for censoring; 1 is right, below it risks are too extreme.
    """

    groups: pd.DataFrame
    ratio: Estimate
    slope: Estimate


def calibration(
    risk: Floats,
    time: Floats,
    event: NDArray[np.bool_],
    horizon: float,
    landmark: float = -np.inf,
    groups: int = GROUPS,
    seed: int = 0,
) -> Calibration:
    """Hold risks against what happened by the horizon.

    Parameters
    ----------
    risk, time, event, horizon, landmark
        As of `scores.brier`.
    groups : int
        Of equal numbers of subjects; equal risks stay together.
    seed : int
        Of the bootstrap that the limits of ratio and slope come from.

    Returns
    -------
    Calibration
    """

    def ratio(some: NDArray[np.intp]) -> float:
        return _observed(time[some], event[some], horizon)[0] / float(risk[some].mean())

    def slope(some: NDArray[np.intp]) -> float:
        return _slope(risk[some], time[some], event[some], horizon, landmark)

    rank = pd.Series(risk).rank(method="max").to_numpy()
    place = np.minimum((rank - 1) * groups // len(risk), groups - 1).astype(int)
    rows = []
    for group in np.unique(place):
        own = place == group
        observed = _observed(time[own], event[own], horizon)
        rows.append((int(own.sum()), float(risk[own].mean()), *observed))
    table = pd.DataFrame(rows, columns=["n", "predicted", "observed", "low", "high"])
    return Calibration(table, resampled(ratio, len(risk), seed=seed), resampled(slope, len(risk), seed=seed))


def _observed(time: Floats, event: NDArray[np.bool_], horizon: float) -> tuple[float, float, float]:
    """One minus Kaplan-Meier at the horizon with limits; NaN where follow-up ends before it."""
    free = product_limit(time, event)
    if time.max() < horizon and free.survival[-1] > 0:
        return np.nan, np.nan, np.nan
    low, high = free.limits()
    place = int(np.searchsorted(free.times, horizon, side="right")) - 1
    if place < 0:
        return 0.0, np.nan, np.nan
    return 1 - float(free.survival[place]), 1 - float(high[place]), 1 - float(low[place])


def _slope(risk: Floats, time: Floats, event: NDArray[np.bool_], horizon: float, landmark: float) -> float:
    """Weighted logistic regression of the status on the logit of the risk, by Newton's steps."""
    status = weigh(time, event, horizon, landmark)
    design = np.column_stack([np.ones(len(risk)), logit(risk.clip(_CLIP, 1 - _CLIP))])
    if np.ptp(design[:, 1]) == 0:
        return np.nan
    line = np.array([0.0, 1.0])
    for _ in range(_STEPS):
        chance = expit(design @ line)
        gradient = design.T @ (status.weight * (status.case - chance))
        information = (design * (status.weight * chance * (1 - chance))[:, None]).T @ design
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            return np.nan
        line = line + step.clip(-2, 2)
        if np.abs(step).max() < 1e-8:
            return float(line[1])
    return np.nan
