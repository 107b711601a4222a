"""Decision curves: what treating everybody above a risk gains over treating nobody, or all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.recurrence.validation.scores import resampled
from ctc_imaging.recurrence.validation.weights import weigh

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NOBODY, EVERYBODY = "treat nobody", "treat everybody"


def net_benefit(
    treated: NDArray[np.bool_],
    time: Floats,
    event: NDArray[np.bool_],
    threshold: float,
    horizon: float,
    landmark: float = -np.inf,
) -> float:
    """True less weighted false treatments a subject (Vickers, Med Decis Making 2006;26:565-74).

    A false treatment weighs the odds of the threshold: who treats from a risk of 20 % on takes four needless
    treatments for one that is needed. Censoring is weighed out.

    Parameters
    ----------
    treated : ndarray of bool, shape (n,)
        Whom a rule would treat.
    time, event, horizon, landmark
        As of `validation.auc`.
    threshold : float
        Risk from which treatment is worth its harm, above 0 and below 1.

    Returns
    -------
    float
        At most the share that has the event; 0 for treating nobody.
    """
    status = weigh(time, event, horizon, landmark)
    right = (status.weight * status.case)[treated].sum()
    wrong = (status.weight * (1 - status.case))[treated].sum()
    return float((right - wrong * threshold / (1 - threshold)) / len(time))


def decision_curve(
    risks: Mapping[str, Floats],
    time: Floats,
    event: NDArray[np.bool_],
    thresholds: Sequence[float],
    horizon: float,
    landmark: float = -np.inf,
    seed: int = 0,
) -> pd.DataFrame:
    """Net benefit of "treat if risk >= p" of each model, beside treating everybody and nobody.

    Parameters
    ----------
    risks : mapping of str to ndarray of float64, shape (n,)
        Of subjects that the models weren't fitted to.
    time, event, horizon, landmark
        As of `net_benefit`.
    thresholds : sequence of float
    seed : int
        Of the bootstrap over subjects.

    Returns
    -------
    DataFrame
        `model`, `threshold`, `value`, `low`, `high` (95 %).
    """
    everybody = np.ones(len(time), bool)
    rows = []
    for threshold in thresholds:
        rules = {name: risk >= threshold for name, risk in risks.items()} | {EVERYBODY: everybody}
        for name, treated in rules.items():

            def figure(some: NDArray[np.intp], treated: NDArray[np.bool_] = treated, at: float = threshold) -> float:
                return net_benefit(treated[some], time[some], event[some], at, horizon, landmark)

            rows.append((name, threshold, *resampled(figure, len(time), seed=seed)))
        rows.append((NOBODY, threshold, 0.0, 0.0, 0.0))
    return pd.DataFrame(rows, columns=["model", "threshold", "value", "low", "high"])
