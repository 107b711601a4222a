"""Moves from one mutation tree to the next, and their scores, compiled.

A tree is its parents: `parents[v]` of mutation v, where n, their number, stands for the root.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_REHANG, _EXCHANGE = 0.55, 0.9
"""Chance of hanging a branch elsewhere, and of that or exchanging two mutations; else two branches are exchanged."""

_CLEAR = 1e-9


@njit(cache=True)
def gains_at_nodes(parents: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Log likelihood gained over the root by hanging each cell at each node.

    Parameters
    ----------
    parents : int64 ndarray, shape (n,)
    gain : float64 ndarray, shape (n, n_cells)
        Log likelihood ratio of each call, with the mutation to without.

    Returns
    -------
    float64 ndarray, shape (n + 1, n_cells)
        The root's row, zeros, is last.
    """
    n, cells = gain.shape
    at = np.zeros((n + 1, cells))
    _fill(parents, gain, at, np.empty(n + 1, np.int64), np.empty(n, np.int64), np.empty(n + 1, np.int64))
    return at


@njit(cache=True)
def _fill(
    parents: np.ndarray, gain: np.ndarray, at: np.ndarray, child: np.ndarray, sibling: np.ndarray, order: np.ndarray
) -> float:
    """Fill `at` from the root down; returns the score, the cells' sum of their best. The rest is room to work in."""
    n, cells = gain.shape
    child[:] = -1
    for v in range(n):
        sibling[v] = child[parents[v]]
        child[parents[v]] = v
    order[0], known = n, 1
    for k in range(n + 1):
        above = order[k]
        v = child[above]
        while v >= 0:
            for cell in range(cells):
                at[v, cell] = at[above, cell] + gain[v, cell]
            order[known] = v
            known += 1
            v = sibling[v]
    score = 0.0
    for cell in range(cells):
        best = 0.0
        for v in range(n):
            best = max(best, at[v, cell])
        score += best
    return score


@njit(cache=True)
def _is_below(parents: np.ndarray, v: int, above: int) -> bool:
    """Whether node v is `above` or comes after it."""
    while v < len(parents):
        if v == above:
            return True
        v = parents[v]
    return False


@njit(cache=True)
def rehang(parents: np.ndarray, a: int, place: int) -> bool:
    """Hang the branch of a under `place`; false where nothing would change or a ring would close."""
    if place == parents[a] or _is_below(parents, place, a):
        return False
    parents[a] = place
    return True


@njit(cache=True)
def exchange(parents: np.ndarray, a: int, b: int) -> bool:
    """Exchange two mutations, each taking the other's place and children; false where they are one."""
    if a == b:
        return False
    above_a, above_b = parents[a], parents[b]
    for v in range(len(parents)):
        if parents[v] == a:
            parents[v] = b
        elif parents[v] == b:
            parents[v] = a
    parents[a] = b if above_b == a else above_b
    parents[b] = a if above_a == b else above_a
    return True


@njit(cache=True)
def exchange_branches(parents: np.ndarray, a: int, b: int) -> bool:
    """Exchange two branches with all they carry; false where one holds the other."""
    if parents[a] == parents[b] or _is_below(parents, a, b) or _is_below(parents, b, a):
        return False
    parents[a], parents[b] = parents[b], parents[a]
    return True


@njit(cache=True)
def _random_move(parents: np.ndarray) -> bool:
    n = len(parents)
    kind, a = np.random.random(), np.random.randint(n)  # noqa: NPY002 - numba seeds its own generator
    if kind < _REHANG:
        return rehang(parents, a, np.random.randint(n + 1))  # noqa: NPY002
    b = np.random.randint(n)  # noqa: NPY002
    return exchange(parents, a, b) if kind < _EXCHANGE else exchange_branches(parents, a, b)


@njit(cache=True)
def _move(parents: np.ndarray, kind: int, a: int, b: int) -> bool:
    n = len(parents)
    if kind == 0:
        return rehang(parents, a, b)
    if b == n or b <= a:
        return False
    return exchange(parents, a, b) if kind == 1 else exchange_branches(parents, a, b)


@njit(cache=True)
def climb(parents: np.ndarray, gain: np.ndarray) -> float:
    """Take, in place, the first better tree one move away, again and again until there is none; returns the score."""
    n, cells = gain.shape
    at, trial = np.zeros((n + 1, cells)), parents.copy()
    child, sibling, order = np.empty(n + 1, np.int64), np.empty(n, np.int64), np.empty(n + 1, np.int64)
    best = _fill(parents, gain, at, child, sibling, order)
    better = True
    while better:
        better = False
        for kind in range(3):
            for a in range(n):
                for b in range(n + 1):
                    trial[:] = parents
                    if not _move(trial, kind, a, b):
                        continue
                    score = _fill(trial, gain, at, child, sibling, order)
                    if score > best + _CLEAR:
                        best, better = score, True
                        parents[:] = trial
    return best


@njit(cache=True)
def anneal(gain: np.ndarray, steps: int, hot: float, cold: float, seed: int) -> tuple[float, np.ndarray]:
    """Simulated annealing from the star tree, then `climb`.

    Parameters
    ----------
    gain : float64 ndarray, shape (n, n_cells)
    steps : int
    hot, cold : float
        Temperatures at the start and the end, in units of log likelihood; they fall geometrically.
    seed : int

    Returns
    -------
    score : float
        Above that of the tree without mutations.
    parents : int64 ndarray, shape (n,)
    """
    np.random.seed(seed)  # noqa: NPY002 - numba's own generator, of this thread
    n, cells = gain.shape
    at, child, sibling, order = (
        np.zeros((n + 1, cells)),
        np.empty(n + 1, np.int64),
        np.empty(n, np.int64),
        np.empty(n + 1, np.int64),
    )
    parents = np.full(n, n, np.int64)
    now = _fill(parents, gain, at, child, sibling, order)
    best, best_parents, trial = now, parents.copy(), parents.copy()
    for step in range(steps):
        trial[:] = parents
        if not _random_move(trial):
            continue
        score = _fill(trial, gain, at, child, sibling, order)
        heat = hot * (cold / hot) ** (step / steps)
        if score >= now or np.random.random() < np.exp((score - now) / heat):  # noqa: NPY002
            now = score
            parents[:] = trial
            if now > best + _CLEAR:
                best = now
                best_parents[:] = parents
    return climb(best_parents, gain), best_parents
