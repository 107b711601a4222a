"""How well outlined nuclei agree with the truth: how many, how exactly, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(9))
"""Intersection over union (IoU) from a half to 0.9, as Caicedo 2019 (doi 10.1038/s41592-019-0612-7) has it."""

HELD = 0.5
"""What has more than this share of its pixels in a nucleus, or in ignored area, lies in it."""

TOUCHING = 0.1
"""Nuclei of a lower IoU have nothing to do with each other."""


@dataclass(frozen=True)
class Errors:
    """Labels of the nuclei that went wrong, in the reading order of their first pixels.

    Attributes
    ----------
    missed : ndarray
        True nuclei that nothing found answers to.
    split : ndarray
        True nuclei that two or more found ones lie in.
    merged : ndarray
        Found nuclei that two or more true ones lie in.
    false : ndarray
        Found nuclei where there is none.
    inexact : ndarray
        True nuclei whose answer, one for one, has an IoU below a half.
    """

    missed: np.ndarray
    split: np.ndarray
    merged: np.ndarray
    false: np.ndarray
    inexact: np.ndarray


def average_precision(
    labels: np.ndarray,
    truth: np.ndarray,
    ignore: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> np.ndarray:
    """Share of right nuclei among all that are right, false or missed: TP / (TP + FP + FN).

    Found and true nuclei are paired one to one, as many as can be, where their IoU reaches the threshold.

    Parameters
    ----------
    labels, truth : int ndarray, shape (Y, X)
        Found and true nuclei; 0 for background.
    ignore : bool ndarray, shape (Y, X), optional
        Where the truth isn't known: what lies in it and answers to no true nucleus isn't false.
    thresholds : sequence of float
        Above 0 and at most 1.

    Returns
    -------
    float64 ndarray, shape (len(thresholds),)
        1 where nothing is there and nothing was found.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> truth = np.array([[1, 1, 1, 1, 0, 2, 2]])
    >>> average_precision(np.array([[5, 5, 5, 0, 0, 0, 7]]), truth, thresholds=(0.5, 0.7, 0.9)).round(2).tolist()
    [1.0, 0.33, 0.0]
    """
    overlap = _overlap(labels, truth, ignore)
    return np.array([_precision(overlap, threshold) for threshold in thresholds], np.float64)


def aggregated_jaccard(labels: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> float:
    """Aggregated Jaccard index (AJI; Kumar 2017, doi 10.1109/TMI.2017.2677499).

    Each true nucleus takes the found one of the highest IoU: the shared pixels of all these pairs, by their united
    pixels and those of found nuclei that none has taken.

    Parameters
    ----------
    labels, truth, ignore
        As for `average_precision`.

    Returns
    -------
    float
        1 where nothing is there and nothing was found.
    """
    overlap = _overlap(labels, truth, ignore)
    best = _best_of_each_true(overlap)
    taken = overlap.found[best]
    untaken = ~overlap.ignored
    untaken[taken] = False
    shared_px = overlap.shared_px[best].sum()
    united_px = overlap.true_px.sum() + overlap.found_px[taken].sum() - shared_px + overlap.found_px[untaken].sum()
    return float(shared_px / united_px) if united_px else 1.0


def count_error(labels: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> int:
    """Nuclei found too many (positive) or too few (negative), not counting what `average_precision` ignores at 0.5."""
    overlap = _overlap(labels, truth, ignore)
    right, false = _right_and_false(overlap, 0.5)
    return right + false - len(overlap.true_px)


def find_errors(labels: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None = None) -> Errors:
    """Say which nuclei went wrong, and how.

    Parameters
    ----------
    labels, truth, ignore
        As for `average_precision`.

    Returns
    -------
    Errors
        A true nucleus is under one kind at most, and one that lies in a merged nucleus under none.
    """
    overlap = _overlap(labels, truth, ignore)
    true_lies_in = overlap.shared_px > HELD * overlap.true_px[overlap.true]
    found_lies_in = overlap.shared_px > HELD * overlap.found_px[overlap.found]
    touching = true_lies_in | found_lies_in | (overlap.iou >= TOUCHING)
    merged = overlap.per_found(true_lies_in) > 1
    split = overlap.per_true(found_lies_in) > 1
    single = ~split & (overlap.per_true(true_lies_in & merged[overlap.found]) == 0)
    touched = overlap.per_true(touching) > 0
    right = overlap.per_true(overlap.iou >= 0.5) > 0
    return Errors(
        missed=overlap.true_labels[single & ~touched],
        split=overlap.true_labels[split],
        merged=overlap.found_labels[merged],
        false=overlap.found_labels[(overlap.per_found(touching) == 0) & ~overlap.ignored],
        inexact=overlap.true_labels[single & touched & ~right],
    )


@dataclass(frozen=True)
class _Overlap:
    """Which nuclei share pixels; both sorts numbered from 0 in reading order, so that no label's value matters.

    Attributes
    ----------
    found_labels, true_labels : int ndarray, shapes (f,) and (t,)
    found_px, true_px : int ndarray, shapes (f,) and (t,)
        Areas.
    ignored : bool ndarray, shape (f,)
        Found nuclei that lie in ignored area.
    found, true, shared_px : int ndarray, shape (n,)
        The pairs that share pixels.
    """

    found_labels: np.ndarray
    true_labels: np.ndarray
    found_px: np.ndarray
    true_px: np.ndarray
    ignored: np.ndarray
    found: np.ndarray
    true: np.ndarray
    shared_px: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each pair."""
        return self.shared_px / (self.found_px[self.found] + self.true_px[self.true] - self.shared_px)

    def per_found(self, pairs: np.ndarray) -> np.ndarray:
        """How many of these pairs each found nucleus is in."""
        return np.bincount(self.found[pairs], minlength=len(self.found_px))

    def per_true(self, pairs: np.ndarray) -> np.ndarray:
        """How many of these pairs each true nucleus is in."""
        return np.bincount(self.true[pairs], minlength=len(self.true_px))


def _overlap(labels: np.ndarray, truth: np.ndarray, ignore: np.ndarray | None) -> _Overlap:
    ignore = np.zeros(truth.shape, bool) if ignore is None else ignore
    if not labels.shape == truth.shape == ignore.shape:
        raise ValueError(f"labels {labels.shape}, truth {truth.shape} and ignore {ignore.shape} differ in shape")
    found_labels, found_px, found = _numbered(labels)
    true_labels, true_px, true = _numbered(truth)
    ignored_px = np.bincount(found[ignore.ravel() & (found >= 0)], minlength=len(found_px))
    both = (found >= 0) & (true >= 0)
    pairs, shared_px = np.unique(found[both] * len(true_px) + true[both], return_counts=True)
    rows, columns = np.divmod(pairs, max(len(true_px), 1))
    return _Overlap(
        found_labels, true_labels, found_px, true_px, ignored_px > HELD * found_px, rows, columns, shared_px
    )


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels in reading order, their areas, and each pixel's place among them (-1 for background)."""
    flat = labels.ravel()
    pixels = np.flatnonzero(flat)
    numbers = np.full(len(flat), -1, np.int64)
    numbers[pixels], values = pd.factorize(flat[pixels])
    return values, np.bincount(numbers[pixels]), numbers


def _precision(overlap: _Overlap, threshold: float) -> float:
    right, false = _right_and_false(overlap, threshold)
    total = len(overlap.true_px) + false
    return right / total if total else 1.0


def _right_and_false(overlap: _Overlap, threshold: float) -> tuple[int, int]:
    """Count the pairs, and the found nuclei without one that aren't ignored.

    A largest set of pairs can always be chosen so that it leaves as few of the others out as a largest set of
    theirs alone would: which ties go to ignored nuclei needn't be settled.
    """
    near = overlap.iou >= threshold
    counted = near & ~overlap.ignored[overlap.found]
    return _most_pairs(overlap, near), int((~overlap.ignored).sum()) - _most_pairs(overlap, counted)


def _most_pairs(overlap: _Overlap, allowed: np.ndarray) -> int:
    """Count the pairs of a largest one-to-one matching among the allowed ones."""
    if not allowed.any():
        return 0
    shape = len(overlap.found_px), len(overlap.true_px)
    graph = csr_array((np.ones(int(allowed.sum())), (overlap.found[allowed], overlap.true[allowed])), shape=shape)
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


def _best_of_each_true(overlap: _Overlap) -> np.ndarray:
    """Index of each true nucleus's pair of the highest IoU, the first of equals; none where it has no pair."""
    order = np.lexsort((overlap.found, -overlap.iou, overlap.true))
    _, first = np.unique(overlap.true[order], return_index=True)
    return order[first]
