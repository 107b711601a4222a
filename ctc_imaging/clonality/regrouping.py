"""Mutations moved between groups one at a time, the groups' fractions integrated out, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

_NEW_GROUPS = 60


@njit(cache=True)
def _log_marginal(total: np.ndarray, extra: np.ndarray, prior: np.ndarray, spans: np.ndarray) -> float:
    """Log likelihood of a group with one mutation more, its fraction in every sample integrated out."""
    result = 0.0
    for s in range(len(spans) - 1):
        top = -np.inf
        for c in range(spans[s], spans[s + 1]):
            top = max(top, prior[c] + total[c] + extra[c])
        sum_ = 0.0
        for c in range(spans[s], spans[s + 1]):
            sum_ += np.exp(prior[c] + total[c] + extra[c] - top)
        result += top + np.log(sum_)
    return result


@njit(cache=True)
def regroup(
    likelihood: np.ndarray,
    prior: np.ndarray,
    spans: np.ndarray,
    start: np.ndarray,
    draws: int,
    sweeps: int,
    seed: int,
    greedy: bool,
) -> np.ndarray:
    """Take each mutation out and put it where it fits, again and again (Neal 2000, algorithm 3, concentration 1).

    Parameters
    ----------
    likelihood, prior, spans
        As in `clone_mixture.Evidence`.
    start : int64 ndarray, shape (n_mutations,)
        Groups to begin with.
    draws, sweeps : int
        A draw is kept after every so many sweeps; a third as many are thrown away before.
    seed : int
    greedy : bool
        Take the likeliest group instead of drawing one, and end where nothing moves.

    Returns
    -------
    int64 ndarray, shape (draws, n_mutations)
    """
    np.random.seed(seed)  # noqa: NPY002 - numba's own generator, of this thread
    n, columns = likelihood.shape
    labels, nothing = start.copy(), np.zeros(columns)
    # Room for new groups; with many mutations looking through all that could be would take long.
    most = min(n + 1, start.max() + 1 + _NEW_GROUPS)
    sums, sizes, alone = np.zeros((most, columns)), np.zeros(most, np.int64), np.zeros(most)
    for i in range(n):
        sums[labels[i]] += likelihood[i]
        sizes[labels[i]] += 1
    for k in range(most):
        alone[k] = _log_marginal(sums[k], nothing, prior, spans) if sizes[k] else 0.0
    kept, log_share = np.empty((draws, n), np.int64), np.empty(most)
    burn_in = draws // 3
    for draw in range(-burn_in, draws):
        for _ in range(sweeps):
            moved = False
            for i in range(n):
                old = labels[i]
                sizes[old] -= 1
                sums[old] -= likelihood[i]
                if sizes[old] == 0:
                    sums[old] = 0.0
                alone[old] = _log_marginal(sums[old], nothing, prior, spans) if sizes[old] else 0.0
                labels[i] = new = _draw_group(likelihood[i], sums, sizes, alone, prior, spans, log_share, greedy)
                moved = moved or new != old
                sizes[new] += 1
                sums[new] += likelihood[i]
                alone[new] = _log_marginal(sums[new], nothing, prior, spans)
            if greedy and not moved:
                break
        if draw >= 0:
            kept[draw] = labels
    return kept


@njit(cache=True)
def _draw_group(
    row: np.ndarray,
    sums: np.ndarray,
    sizes: np.ndarray,
    alone: np.ndarray,
    prior: np.ndarray,
    spans: np.ndarray,
    log_share: np.ndarray,
    greedy: bool,
) -> int:
    """Draw a group for one mutation; the first empty one stands for a new group."""
    empty_seen, top = False, -np.inf
    for k in range(len(sizes)):
        log_share[k] = -np.inf
        if sizes[k] == 0 and empty_seen:
            continue
        empty_seen = empty_seen or sizes[k] == 0
        weight = np.log(max(sizes[k], 1))
        log_share[k] = weight + _log_marginal(sums[k], row, prior, spans) - alone[k]
        top = max(top, log_share[k])
    if greedy:
        return int(log_share.argmax())
    left = 0.0
    for k in range(len(sizes)):
        left += np.exp(log_share[k] - top)
    left *= np.random.random()  # noqa: NPY002
    for k in range(len(sizes)):
        left -= np.exp(log_share[k] - top)
        if left <= 0:
            return k
    return 0
