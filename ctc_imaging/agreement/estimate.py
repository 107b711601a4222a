"""A figure with its 95 % limits, from what each cell contributes to it, cells of a sample taken together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, stdtrit

Array = NDArray[np.float64]

SAMPLES_NEEDED = 5
"""Limits by sample need so many; from fewer, cells are taken as independent."""
BY_SAMPLE, BY_CELL, NO_LIMITS = "samples", "cells", ""

_TAIL = 0.025


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % limits, and what was taken as independent for these; NaN where something isn't defined.

    Attributes
    ----------
    value, low, high : float
    limits_by : str
        "samples" where cells of one sample may resemble each other, "cells" where each counts for itself, "" where
        there are no limits, as of a single cell.
    """

    value: float
    low: float
    high: float
    limits_by: str

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON: None where something isn't defined."""
        return {name: plain(value) for name, value in asdict(self).items()}


UNDEFINED = Estimate(np.nan, np.nan, np.nan, NO_LIMITS)


def estimate(value: float, low: float, high: float, limits_by: str) -> Estimate:
    """Make an estimate; one without limits says so."""
    return Estimate(float(value), float(low), float(high), NO_LIMITS if np.isnan(low) else limits_by)


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: None for NaN."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def groups_of(samples: ArrayLike | None, count: int) -> tuple[NDArray[np.intp], str]:
    """Number what is taken as independent: samples where there are enough of them, else cells."""
    if samples is not None:
        _, group = np.unique(np.asarray(samples), return_inverse=True)
        if group.max(initial=-1) + 1 >= SAMPLES_NEEDED:
            return group, BY_SAMPLE
    return np.arange(count), BY_CELL


def standard_error(influence: Array, group: NDArray[np.intp]) -> tuple[float, int]:
    """Return the standard error of a mean-like figure, and its degrees of freedom.

    Parameters
    ----------
    influence : ndarray of float64, shape (n,)
        By how much each cell moves the figure, summing to 0 (the delta method's linear terms times n).
    group : ndarray of int, shape (n,)
        Number of the group of each cell; groups are independent.
    """
    totals = np.bincount(group, influence)
    groups = len(totals)
    if groups < 2:
        return np.nan, 0
    return float(np.sqrt(groups / (groups - 1) * (totals**2).sum()) / len(influence)), groups - 1


def half_width(influence: Array, group: NDArray[np.intp]) -> float:
    """Return half the width of 95 % limits, by Student's t."""
    error, freedom = standard_error(influence, group)
    return error * float(stdtrit(freedom, 1 - _TAIL)) if freedom else np.nan


def exact_share(hits: int, trials: int) -> tuple[float, float]:
    """Return the exact 95 % limits of a share (Clopper and Pearson, Biometrika 1934;26:404-13)."""
    low = float(betaincinv(hits, trials - hits + 1, _TAIL)) if hits else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - _TAIL)) if hits < trials else 1.0
    return low, high
