"""Trees over clones that a patient's samples allow, each with its posterior weight.

A tree is its parents: `parents[k]` of clone k, where the number of clones stands for the unmutated root. A clone's
fraction holds its children's: their sum can't be above it in any bulk sample, and a single cell has all clones on the
way from the root to one node, and no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numba import njit

from ctc_imaging.clonality.tree_moves import gains_at_nodes

TOLERANCE = 0.03
"""Standard deviation by which fractions may break the rule of sums: purity and copy numbers are estimates."""

_NO_TRUNK = 0.05
"""Chance that a tumour's trunk isn't among the mutations looked at (a small panel)."""

MOST_CLONES = 10
"""On a tree; the search grows fast with them."""

_CONTRADICTION = 12.0
"""Log likelihood lost by a clone in its best place from which it isn't believed."""

_FAR_BELOW = 12.0
_WIDEST_FAN = 4


@dataclass(frozen=True)
class TreeData:
    """What the samples say of the clones.

    Attributes
    ----------
    bulk : float64 ndarray, shape (n_bulk, n_draws, n_clones)
        Fractions drawn from each clone's posterior in each bulk sample, clones apart.
    is_tumour : bool ndarray, shape (n_bulk,)
        Samples in which every cancer cell descends from some clone; false for pools of cells picked from blood.
    cells : float64 ndarray, shape (n_clones, n_cells)
        Log likelihood ratio of each clone in each single cell, present to absent.
    """

    bulk: np.ndarray
    is_tumour: np.ndarray
    cells: np.ndarray

    def only(self, clones: list[int]) -> TreeData:
        """Keep these clones, in this order."""
        return TreeData(
            np.ascontiguousarray(self.bulk[:, :, clones]), self.is_tumour, np.ascontiguousarray(self.cells[clones])
        )


@dataclass(frozen=True)
class WeightedTrees:
    """Trees, the weightiest first, and weights that sum to 1.

    Attributes
    ----------
    parents : int64 ndarray, shape (n_trees, n_placed)
        By position in `placed`; n_placed stands for the root.
    weights : float64 ndarray, shape (n_trees,)
    placed : int64 ndarray, shape (n_placed,)
        The clones on the trees.
    misfits : int64 ndarray, shape (n_misfits,)
        Clones that no tree has room for; wrong copy numbers or artefacts, most likely.
    """

    parents: np.ndarray
    weights: np.ndarray
    placed: np.ndarray
    misfits: np.ndarray


def weigh_trees(data: TreeData, *, widest: int = 100) -> WeightedTrees:
    """Find the trees the data allow and their posterior weights, trees being equally likely before the data.

    Clones are placed one after the other, the one of most mutations first, each in every possible place: under any
    clone already there, above any of that clone's children. Of the trees so far the `widest` best are kept, so with
    few clones the weights are exact up to the number of draws. A clone that contradicts those already there wherever
    it is put is left out, and so are clones beyond `MOST_CLONES`.

    Parameters
    ----------
    data : TreeData
        Clones in order of their number of mutations.
    widest : int
        Most trees kept at each step.

    Returns
    -------
    WeightedTrees
    """
    kept: list[tuple[int, ...]] = [()]
    placed: list[int] = []
    misfits: list[int] = []
    scores, before = np.zeros(1), 0.0
    for clone in range(data.cells.shape[0]):
        if len(placed) == MOST_CLONES:
            break
        part = data.only([*placed, clone])
        trees, fits = _best_trees({tree for start in kept for tree in _placements(start)}, part, widest)
        after = max(tree_log_weight(np.array(tree, np.int64), part, trunk_seen=False) for tree in trees)
        alone = float((np.logaddexp(0.0, data.cells[clone]) - np.log(2)).sum())
        if before + alone - after > _CONTRADICTION:
            misfits.append(clone)
            continue
        kept, scores, before = trees, fits, after
        placed.append(clone)
    weights = np.exp(scores - scores[0])
    parents = np.array(kept, np.int64).reshape(len(kept), len(placed))
    return WeightedTrees(parents, weights / weights.sum(), np.array(placed, np.int64), np.array(misfits, np.int64))


def _best_trees(trees: set[tuple[int, ...]], data: TreeData, widest: int) -> tuple[list[tuple[int, ...]], np.ndarray]:
    ordered = sorted(trees)
    scores = np.array([tree_log_weight(np.array(tree, np.int64), data) for tree in ordered])
    best = np.argsort(-scores, kind="stable")[:widest]
    best = best[scores[best] > scores[best[0]] - _FAR_BELOW]
    return [ordered[i] for i in best], scores[best]


def tree_log_weight(parents: np.ndarray, data: TreeData, *, trunk_seen: bool = True) -> float:
    """Log of how well a tree fits: cells over all nodes they may hang at, bulk samples over the drawn fractions.

    Without `trunk_seen` nothing is asked of the clones under the root but that they fit into the whole.
    """
    total = 0.0
    for draws, tumour in zip(data.bulk, data.is_tumour, strict=True):
        fits = draw_log_weights(parents, draws, bool(tumour) and trunk_seen)
        top = fits.max()
        total += float(top + np.log(np.exp(fits - top).mean()))
    if data.cells.shape[1]:
        gains = gains_at_nodes(parents, data.cells)
        top = gains.max(axis=0)
        total += float((top + np.log(np.exp(gains - top).mean(axis=0))).sum())
    return total


@njit(cache=True)
def draw_log_weights(parents: np.ndarray, draws: np.ndarray, is_tumour: bool) -> np.ndarray:
    """Log of how well each draw of fractions keeps to the rule of sums.

    Parameters
    ----------
    parents : int64 ndarray, shape (n_clones,)
    draws : float64 ndarray, shape (n_draws, n_clones)
    is_tumour : bool
        The clones under the root then make up the whole, unless the trunk wasn't looked at.

    Returns
    -------
    float64 ndarray, shape (n_draws,)
    """
    n = len(parents)
    fits = np.zeros(len(draws))
    room = np.empty(n + 1)
    for d in range(len(draws)):
        room[:n] = draws[d]
        room[n] = 1.0
        for k in range(n):
            room[parents[k]] -= draws[d, k]
        for k in range(n + 1):
            if room[k] < 0:
                fits[d] -= 0.5 * (room[k] / TOLERANCE) ** 2
        if is_tumour and room[n] > 0:
            fits[d] += np.log(_NO_TRUNK + (1 - _NO_TRUNK) * np.exp(-0.5 * (room[n] / TOLERANCE) ** 2))
    return fits


def _placements(tree: tuple[int, ...]) -> set[tuple[int, ...]]:
    """All trees with one clone more, numbered last; the root's number grows by one."""
    new = len(tree)
    tree = tuple(new + 1 if parent == new else parent for parent in tree)
    grown = set()
    for place in (*range(new), new + 1):
        children = [k for k in range(new) if tree[k] == place]
        for adopted in _subsets(children):
            grown.add((*(new if k in adopted else parent for k, parent in enumerate(tree)), place))
    return grown


def _subsets(children: list[int]) -> list[tuple[int, ...]]:
    # A wide fan has too many subsets: there a new clone takes none, one, two or all.
    sizes = range(len(children) + 1) if len(children) <= _WIDEST_FAN else (0, 1, 2, len(children))
    return [subset for size in sizes for subset in combinations(children, size)]
