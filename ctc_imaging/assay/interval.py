"""Limits of the CTCs per mL that a count stands for: chance, false calls and lost cells, as well as each is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainccinv, gammaln, xlogy

from ctc_imaging.assay.error_rates import FalseCalls, Recovery

Array = NDArray[np.float64]
_TURNS = 100
_PRECISION = 1e-10
# So many samples at a time keep the work in the processor's cache.
_CHUNK = 256


def total_limits(
    count: ArrayLike,
    volume_ml: ArrayLike,
    leukocytes: ArrayLike,
    false_calls: FalseCalls,
    recovery: Recovery,
    confidence: float = 0.95,
) -> tuple[Array, Array]:
    """Limits of the CTCs per mL of blood behind a count of which some may be false, and some not found.

    The count is Poisson with mean (CTCs per mL x volume x recovery + false calls). Both tails are exact tests, averaged
    over what the error rates may be (Cousins and Highland, Nucl Instrum Methods A 1992;320:331-5). The upper tail is
    taken as a share of that of the false calls alone (Read, J Phys G 2002;28:2693-704): else a sample with fewer false
    calls than expected would have lower limits than a perfect assay gives, or none. With rates known and no false calls
    the limits are Garwood's over volume x recovery.

    Parameters
    ----------
    count : array_like of int
        CTCs called in each sample; where it is missing (NaN), so are the limits.
    volume_ml : array_like
        Blood assessed, mL.
    leukocytes : array_like
        Of each sample.
    false_calls : FalseCalls
    recovery : Recovery
    confidence : float

    Returns
    -------
    low, high : ndarray of float64
        CTCs per mL. The low limit is 0 where the count may be all false.

    Examples
    --------
    >>> low, high = total_limits(3, 5.0, 75_000, FalseCalls(1e-6), Recovery(0.81))
    >>> round(float(low), 2), round(float(high), 2)
    (0.13, 2.15)
    """
    values = (np.asarray(value, dtype=float) for value in (count, volume_ml, leukocytes))
    counts, volumes, cells = np.broadcast_arrays(*values)
    limits = np.full((2, counts.size), np.nan)
    known = np.flatnonzero(np.isfinite(counts + cells) & (volumes > 0))
    # Equal counts share a table's width.
    known = known[np.argsort(counts.flat[known], kind="stable")]
    for start in range(0, len(known), _CHUNK):
        at = known[start : start + _CHUNK]
        found = _limits(counts.flat[at], cells.flat[at], false_calls, recovery, (1 - confidence) / 2)
        limits[:, at] = found / volumes.flat[at]
    low, high = limits.reshape(2, *counts.shape)
    return low, high


class Calls:
    """The chance of at most so many calls in a sample, whatever the CTCs in it.

    Parameters
    ----------
    count, leukocytes : ndarray, shape (n,)
        Calls, and leukocytes, of each sample; below 0 calls the chance is 0.
    false_calls, recovery
        The chance is the mean over what they may be.
    """

    def __init__(self, count: Array, leukocytes: Array, false_calls: FalseCalls, recovery: Recovery) -> None:
        self._share, self._weight = recovery.points()
        # So many true calls leave room for as many false ones.
        self._true = np.arange(max(count.max(initial=0), 0) + 1)
        room = count[:, None] - self._true
        self._false = false_calls.at_most(room, leukocytes[:, None])
        self._change = false_calls.at_most(room - 1, leukocytes[:, None]) - self._false

    def at_most(self, ctcs: Array) -> Array:
        """Return the chance with so many CTCs (n,) in the blood assessed on average, and its slope, shape (2, n)."""
        mean = ctcs[:, None, None] * self._share[:, None]
        true = np.exp(xlogy(self._true, mean) - mean - gammaln(self._true + 1))
        chance = np.einsum("s,nsk,nk->n", self._weight, true, self._false)
        slope = np.einsum("s,nsk,nk->n", self._weight * self._share, true, self._change)
        return np.stack([chance, slope])


def decreasing_root(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Find where functions that fall from above 0 to below it cross it: Newton's steps, halving where they leave.

    Parameters
    ----------
    function : callable
        Of x (n,), returns values and slopes, shape (2, n).
    low, high : ndarray, shape (n,)
        Either side of the roots.
    """
    low, high = low.copy(), high.copy()
    x = (low + high) / 2
    for _ in range(_TURNS):
        value, slope = function(x)
        low, high = np.where(value > 0, x, low), np.where(value > 0, high, x)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = x - value / slope
        after = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
        if (np.abs(after - x) <= _PRECISION * (1 + x)).all():
            return after
        x = after
    return x


def _limits(count: Array, leukocytes: Array, false_calls: FalseCalls, recovery: Recovery, tail: float) -> Array:
    """Return both limits of the CTCs in the blood assessed, shape (2, n)."""
    as_few = Calls(count, leukocytes, false_calls, recovery)
    fewer = Calls(count - 1, leukocytes, false_calls, recovery)
    offset = np.array([[1.0], [0.0]])
    none = np.zeros(len(count))
    # Garwood's limit for a smaller tail and the least recovery lies above both.
    most = gammainccinv(count + 1, tail / 4) / recovery.points()[0].min()
    least_chance = tail * as_few.at_most(none)[0]
    high = decreasing_root(lambda ctcs: as_few.at_most(ctcs) - offset * least_chance, none, most)
    low = decreasing_root(lambda ctcs: fewer.at_most(ctcs) - offset * (1 - tail), none, most)
    all_false = fewer.at_most(none)[0] <= 1 - tail
    return np.stack([np.where(all_false, 0.0, low), high])
