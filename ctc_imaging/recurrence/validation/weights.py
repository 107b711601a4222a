"""Who had the event by a horizon, and how much each subject counts for those who were censored before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.recurrence.product_limit import product_limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Weighted:
    """Status at the horizon, with inverse-probability-of-censoring weights that sum to about the subjects' number.

    `case` is 1 with the event by the horizon, 0 else; `weight` is 0 of whom the status isn't known.
    """

    case: Floats
    weight: Floats


def weigh(
    time: Floats, event: NDArray[np.bool_], horizon: float, landmark: float = -np.inf, at_horizon: bool = True
) -> Weighted:
    """Weigh subjects by the inverse of their chance not to have been censored (Graf, Stat Med 1999;18:2529-45).

    An event at exactly the horizon counts as one by it (T <= t), as in riskRegression and scikit-survival; without
    `at_horizon` it counts as neither, as in timeROC (T < t against T > t). At equal times events come before
    censoring. A subject with the event is weighed by the chance just before its time, one beyond the horizon by the
    chance at the horizon; one censored by the horizon not at all.

    Parameters
    ----------
    time : ndarray of float64, shape (n,)
        End of follow-up of subjects at risk after the landmark.
    event : ndarray of bool, shape (n,)
    horizon : float
        On the same clock.
    landmark : float
        Censoring is counted from here.
    at_horizon : bool
        Whether an event at the horizon itself counts.

    Returns
    -------
    Weighted
    """
    # Events a hair earlier, so that who has one at a time isn't at risk of being censored at it.
    earlier = np.where(event, np.nextafter(time, -np.inf), time)
    free = product_limit(earlier, ~event, start=None if np.isinf(landmark) else np.full(len(time), landmark))
    case = event & ((time <= horizon) if at_horizon else (time < horizon))
    beyond = time > horizon
    weight = np.zeros(len(time))
    weight[case] = 1 / np.maximum(free.before(earlier[case]), 1e-12)
    weight[beyond] = 1 / np.maximum(free.at(horizon), 1e-12)
    return Weighted(case.astype(float), weight)
