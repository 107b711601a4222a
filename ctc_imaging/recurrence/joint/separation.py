"""Separation: covariates whose effect on the hazard has no bound, because they tell who never had the event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NOTHING = 1e-9


def separated(names: Sequence[str], values: NDArray[np.float64], event: NDArray[np.bool_]) -> str:
    """Name the covariates whose effects have no bound.

    The likelihood rises without end along a sum of covariates that is the same for all who had the event, and no
    higher for anybody else (Albert and Anderson, Biometrika 1984;71:1-10). Linear programming finds such a sum.

    Parameters
    ----------
    names : sequence of str
    values : ndarray of float64, shape (n, m)
        Covariates of the hazard.
    event : ndarray of bool, shape (n,)
        Who had the event.

    Returns
    -------
    str
        The fault in words, empty where there is none.
    """
    from scipy.linalg import null_space

    for name, column in zip(names, values.T, strict=True):
        levels = np.unique(column)
        for level in levels if len(levels) == 2 else ():
            if not event[column == level].any():
                return f"nobody with {name} = {level:g} had the event, so its effect has no bound"
    scale = np.maximum(np.abs(values).max(axis=0, initial=0.0), 1e-300)
    scaled = np.column_stack([np.ones(len(values)), values / scale])
    # The triangle of the rows has the same null space, and doesn't grow with the subjects.
    level_at_events = null_space(np.linalg.qr(scaled[event], mode="r"))
    if level_at_events.shape[1] == 0 or event.all():
        return ""
    weights = level_at_events @ _lowest(scaled[~event] @ level_at_events)
    telling = [name for name, weight in zip(names, weights[1:], strict=True) if abs(weight) > 1e-6]
    return f"{' and '.join(telling)}: by it somebody never has the event, so its effect has no bound" if telling else ""


def _lowest(others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the weights (k,) that make others (n, k) as low as can be without lifting anybody; zeros if none do."""
    from scipy.optimize import linprog

    rows = np.unique(others, axis=0)
    found = linprog(rows.sum(axis=0), A_ub=rows, b_ub=np.full(len(rows), 0.0), bounds=(-1, 1))
    lowers = found.status == 0 and found.fun < -_NOTHING * len(rows)
    return np.asarray(found.x if lowers else np.zeros(others.shape[1]))
