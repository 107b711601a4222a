"""How rare CTCs are: probabilities brought from one prevalence to another."""

from __future__ import annotations

import numpy as np

BALANCED = (1 / 3, 1 / 3, 1 / 3)
"""All classes equally common: what a crop alone says of its cell."""

RARE = (5e-4, 0.96, 0.0395)
"""One CTC to 2,000 other cells: at this prevalence a cell called CTC must be likelier than not to be one."""


def at_prevalence(p: np.ndarray, before: tuple[float, float, float], after: tuple[float, float, float]) -> np.ndarray:
    """Correct probabilities for another prevalence (prior shift; Saerens 2002, Neural Comput 14:21-41).

    Parameters
    ----------
    p : ndarray of float64, shape (n, 3)
        Probabilities in the order of `CLASSES`.
    before, after : tuple of float
        Share of each class among the cells, where `p` holds and where it shall hold.

    Returns
    -------
    ndarray of float64, shape (n, 3)
    """
    odds = p * (np.asarray(after) / np.asarray(before))
    return odds / odds.sum(axis=1, keepdims=True)


def threshold_at(before: tuple[float, float, float], after: tuple[float, float, float]) -> float:
    """Return the p_ctc at one prevalence that is 0.5 at another, against the commonest class."""
    ctc, other = (after[index] / before[index] for index in (0, int(np.argmax(after))))
    return other / (ctc + other)
