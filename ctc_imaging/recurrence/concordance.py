"""Which of two patients at risk has the event first: concordance of a score, in n log n also with late entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def count_greater(values: NDArray[np.int64], prefix: NDArray[np.intp], floor: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count, for each query, how many of the first `prefix` values are greater than `floor`.

    A wavelet matrix (Claude, Navarro and Ordóñez, Inform Syst 2015;47:15-32): one pass over values and queries for
    each binary digit.

    Parameters
    ----------
    values : ndarray of int64, shape (n,)
        Not negative.
    prefix, floor : ndarray, shape (q,)
        `floor` isn't greater than the greatest value.

    Returns
    -------
    ndarray of int64, shape (q,)

    Examples
    --------
    >>> count_greater(np.array([3, 0, 2, 2]), np.array([4, 1, 3]), np.array([1, 3, 2])).tolist()
    [3, 0, 1]
    """
    low, high = np.zeros_like(prefix), prefix.copy()
    found = np.zeros(len(prefix), np.int64)
    for digit in range(int(values.max(initial=0)).bit_length() - 1, -1, -1):
        one = (values >> digit & 1).astype(bool)
        zeros_before = np.append(0, np.cumsum(~one))
        zeros = zeros_before[-1]
        floor_one = (floor >> digit & 1).astype(bool)
        at_low, at_high = zeros_before[low], zeros_before[high]
        found += np.where(floor_one, 0, high - at_high - (low - at_low))
        low = np.where(floor_one, zeros + low - at_low, at_low)
        high = np.where(floor_one, zeros + high - at_high, at_high)
        values = np.concatenate([values[~one], values[one]])
    return found


def compared_pairs(
    score: ArrayLike, stop: ArrayLike, event: ArrayLike, start: ArrayLike | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Compare each row that ends with an event with those at risk at that time who didn't have it then.

    Parameters
    ----------
    score : array_like of float, shape (n,)
        Higher for those expected to have the event sooner.
    stop, event, start : array_like, shape (n,)
        Intervals (start, stop] and whether they end with the event; without `start` all begin before the first event.

    Returns
    -------
    greater, equal, less : ndarray of int64, shape (events,)
        How many rows at risk have a greater, an equal, a smaller score.
    """
    stop, event = np.asarray(stop, dtype=float), np.asarray(event, dtype=bool)
    _, ranks = np.unique(np.asarray(score, dtype=float), return_inverse=True)
    ranks = ranks.astype(np.int64)
    times, own = stop[event], ranks[event]
    # At equal times events come first, so that what outlasts an event is a prefix in descending order.
    leaving = np.lexsort((event, -stop))
    counts = [_above(ranks[leaving], _outlasting(stop, event, times), own)]
    if start is not None:
        start = np.asarray(start, dtype=float)
        entering = np.argsort(-start, kind="stable")
        later = len(start) - np.searchsorted(np.sort(start), times, side="left")
        counts.append(_above(ranks[entering], later, own))
    greater, at_least, everyone = counts[0] if start is None else counts[0] - counts[1]
    return greater, at_least - greater, everyone - at_least


def concordance(score: ArrayLike, stop: ArrayLike, event: ArrayLike, start: ArrayLike | None = None) -> float:
    """Harrell's C: of pairs whose order is known, the share in which the higher score has the event first.

    Equal scores count half; pairs whose events fall on the same time aren't compared (Harrell, JAMA
    1982;247:2543-6; for intervals Therneau and Watson, the concordance statistic and the Cox model, 2015).

    Parameters
    ----------
    score, stop, event, start : array_like, shape (n,)
        As of `compared_pairs`.

    Returns
    -------
    float
        NaN without a pair that can be compared.

    Examples
    --------
    >>> concordance([3, 2, 2, 1], [1, 2, 3, 4], [True, True, False, True])
    0.9
    """
    greater, equal, less = (int(count.sum()) for count in compared_pairs(score, stop, event, start))
    pairs = greater + equal + less
    return (less + equal / 2) / pairs if pairs else float("nan")


def _outlasting(stop: NDArray[np.float64], event: NDArray[np.bool_], times: NDArray[np.float64]) -> NDArray[np.intp]:
    """Count the rows that end after each time, or at it without the event."""
    later = len(stop) - np.searchsorted(np.sort(stop), times, side="right")
    censored = np.sort(stop[~event])
    tied = np.searchsorted(censored, times, side="right") - np.searchsorted(censored, times, side="left")
    return later + tied


def _above(ranks: NDArray[np.int64], prefix: NDArray[np.intp], own: NDArray[np.int64]) -> NDArray[np.int64]:
    greater = count_greater(ranks, prefix, own)
    at_least = np.where(own > 0, count_greater(ranks, prefix, np.maximum(own - 1, 0)), prefix)
    return np.stack([greater, at_least, prefix])
