"""Draws from the posterior of a patient's clones: a tree, and which clones each sample has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from ctc_imaging.clonality.clone_trees import TreeData, WeightedTrees, draw_log_weights, weigh_trees
from ctc_imaging.clonality.tree_moves import gains_at_nodes

if TYPE_CHECKING:
    from ctc_imaging.clonality.sample_evidence import PatientEvidence

TRUNK_FROM = 0.9
"""A clone in this share of the cancer cells of every primary sample counts as trunk."""

_FRACTION_DRAWS = 500


@dataclass(frozen=True)
class CloneDraws:
    """Draws given one grouping of the mutations.

    Attributes
    ----------
    trees : WeightedTrees
        Over the clones of most mutations.
    tree : int64 ndarray, shape (n_draws,)
        Which of `trees` each draw has.
    fractions : float32 ndarray, shape (n_draws, n_samples, n_clones)
        Of a single cell 0 or 1.
    blanks : float32 ndarray, shape (n_draws, n_samples, n_clones)
        The same for samples of the same kinds without any data.
    primary_samples : int
        The first samples are the primary's.
    """

    trees: WeightedTrees
    tree: np.ndarray
    fractions: np.ndarray
    blanks: np.ndarray
    primary_samples: int

    @property
    def clones(self) -> int:
        """How many clones there are."""
        return self.fractions.shape[2]

    @property
    def trunk(self) -> np.ndarray:
        """Which clones are trunk in each draw, shape (n_draws, n_clones)."""
        if self.primary_samples == 0:
            return np.zeros((len(self.tree), self.clones), bool)
        return np.all(self.fractions[:, : self.primary_samples] >= TRUNK_FROM, axis=1)

    def verdicts(self, a: int, b: int) -> np.ndarray:
        """Shares of draws in which two samples have nothing in common, only trunk, or more."""
        return self._share(self.fractions[:, a] > 0, self.fractions[:, b] > 0)

    def verdicts_before(self, a: int, b: int) -> np.ndarray:
        """The same shares if neither sample had data."""
        return self._share(self.blanks[:, a] > 0, self.blanks[:, b] > 0)

    def _share(self, in_a: np.ndarray, in_b: np.ndarray) -> np.ndarray:
        both = in_a & in_b
        # What contradicts the rest is no proof of anything.
        both[:, self.trees.misfits] = False
        beyond = (both & ~self.trunk).any(axis=1)
        nothing = ~both.any(axis=1)
        return np.array([nothing.mean(), (~nothing & ~beyond).mean(), beyond.mean()])

    def placed(self, clone: int) -> bool:
        """Whether the clone is on the trees."""
        return clone in self.trees.placed

    def best_parent(self, clone: int) -> int | None:
        """Parent of a clone in the weightiest tree, None under the root and for clones that aren't placed."""
        if not self.placed(clone):
            return None
        parent = self.trees.parents[0, self._place(clone)]
        return None if parent == len(self.trees.placed) else int(self.trees.placed[parent])

    def parent_support(self, clone: int) -> float:
        """Posterior chance of the parent that `best_parent` gives; 0 for clones that aren't placed."""
        if not self.placed(clone):
            return 0.0
        parents = self.trees.parents[:, self._place(clone)]
        return float(self.trees.weights[parents == parents[0]].sum())

    def _place(self, clone: int) -> int:
        return int(np.flatnonzero(self.trees.placed == clone)[0])

    def trunk_chance(self, clone: int) -> float:
        """Chance that all cancer cells of the primary have the clone."""
        return float(self.trunk[:, clone].mean())

    def present_chance(self, sample: int, clone: int) -> float:
        """Chance that the sample has the clone."""
        return float((self.fractions[:, sample, clone] > 0).mean())

    def mean_fraction(self, sample: int, clone: int) -> float:
        """Posterior mean of the clone's fraction in the sample."""
        return float(self.fractions[:, sample, clone].mean())

    def leaves_chance(self, sample: int, clone: int) -> float:
        """Chance that the clone is the last one that the sample has in common with the primary."""
        if self.primary_samples == 0:
            return 0.0
        common = (self.fractions[:, : self.primary_samples] > 0).any(axis=1) & (self.fractions[:, sample] > 0)
        if not self.placed(clone):
            return 0.0
        is_child = np.zeros_like(common)
        is_child[:, self.trees.placed] = self.trees.parents[self.tree] == self._place(clone)
        return float((common[:, clone] & ~(common & is_child).any(axis=1)).mean())


def draw_clones(patient: PatientEvidence, labels: np.ndarray, draws: int, rng: np.random.Generator) -> CloneDraws:
    """Draw trees and fractions given which mutations make up each clone.

    Parameters
    ----------
    patient : PatientEvidence
    labels : int64 ndarray, shape (n_mutations,)
        The clone of each mutation.
    draws : int
    rng : Generator
    """
    posterior = patient.evidence.posterior_of(labels)
    data = _tree_data(patient, posterior, labels, rng)
    trees = weigh_trees(data)
    chosen = rng.choice(len(trees.weights), draws, p=trees.weights)
    blank = _blank_data(patient, data, rng)
    return CloneDraws(
        trees,
        chosen,
        _draw_samples(patient, data, trees, chosen, rng),
        _draw_samples(patient, blank, trees, chosen, rng),
        patient.primary_samples,
    )


def _tree_data(
    patient: PatientEvidence, posterior: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> TreeData:
    per_sample = patient.evidence.per_sample(posterior)
    grids = patient.evidence.per_sample(patient.evidence.grid)
    bulk = [
        _draw_fractions(chances, grid, rng)
        for chances, grid, cell in zip(per_sample, grids, patient.is_cell, strict=True)
        if not cell
    ]
    sums = patient.evidence.per_sample(patient.evidence.group_sums(labels))
    cells = [part[:, 1] - part[:, 0] for part, cell in zip(sums, patient.is_cell, strict=True) if cell]
    k = len(posterior)
    return TreeData(
        np.array(bulk).reshape(len(bulk), _FRACTION_DRAWS, k),
        patient.is_tumour[~patient.is_cell],
        np.ascontiguousarray(np.array(cells).reshape(len(cells), k).T),
    )


def _draw_fractions(chances: np.ndarray, grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw from each clone's own posterior, shape (`_FRACTION_DRAWS`, n_clones)."""
    below = np.cumsum(chances, axis=1)
    places = [np.searchsorted(row / row[-1], rng.random(_FRACTION_DRAWS)) for row in below]
    return grid[np.minimum(places, len(grid) - 1)].T


def _blank_data(patient: PatientEvidence, data: TreeData, rng: np.random.Generator) -> TreeData:
    evidence, clones = patient.evidence, data.cells.shape[0]
    priors, grids = evidence.per_sample(np.exp(evidence.log_prior)), evidence.per_sample(evidence.grid)
    bulk = [
        _draw_fractions(np.tile(prior, (clones, 1)), grid, rng)
        for prior, grid, cell in zip(priors, grids, patient.is_cell, strict=True)
        if not cell
    ]
    return TreeData(np.array(bulk).reshape(data.bulk.shape), data.is_tumour, np.zeros_like(data.cells))


def _draw_samples(
    patient: PatientEvidence, data: TreeData, trees: WeightedTrees, chosen: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw what every sample has, given a tree for each draw; clones that aren't placed follow their own evidence."""
    n, clones = len(chosen), data.cells.shape[0]
    bulk, cells = np.flatnonzero(~patient.is_cell), np.flatnonzero(patient.is_cell)
    result = np.zeros((n, len(patient.is_cell), clones), np.float32)
    for draws, s in zip(data.bulk, bulk, strict=True):
        result[:, s] = draws[rng.integers(len(draws), size=n)]
    result[:, cells] = rng.random((n, len(cells), clones)) < expit(data.cells.T)
    placed = data.only(list(trees.placed))
    for tree in np.unique(chosen):
        rows, parents = np.flatnonzero(chosen == tree), trees.parents[tree]
        for draws, tumour, s in zip(placed.bulk, placed.is_tumour, bulk, strict=True):
            fits = _softmax(draw_log_weights(parents, draws, bool(tumour)))
            result[np.ix_(rows, [s], trees.placed)] = draws[rng.choice(len(draws), len(rows), p=fits)][:, None]
        paths, gains = _paths(parents), gains_at_nodes(parents, placed.cells)
        for cell, s in enumerate(cells):
            nodes = rng.choice(len(paths), len(rows), p=_softmax(gains[:, cell]))
            result[np.ix_(rows, [s], trees.placed)] = paths[nodes][:, None]
    return result


def _paths(parents: np.ndarray) -> np.ndarray:
    """Clones that a cell at each node has, shape (n_clones + 1, n_clones), the root last."""
    n = len(parents)
    paths = np.zeros((n + 1, n), bool)
    for node in range(n):
        k = node
        while k < n:
            paths[node, k] = True
            k = parents[k]
    return paths


def _softmax(log_weights: np.ndarray) -> np.ndarray:
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()
