"""Labelled objects as runs of pixels along rows: all that is needed to measure, send and paint them."""

from __future__ import annotations

import numpy as np
from numba import njit

COLUMNS = ("label", "y", "x0", "x1")
"""Of runs: x1 is the first pixel after it."""


def find_runs(labels: np.ndarray) -> np.ndarray:
    """List the runs of a label image.

    Parameters
    ----------
    labels : int32 ndarray, shape (h, w)
        0 for background.

    Returns
    -------
    int32 ndarray, shape (n, 4)
        `COLUMNS`, in reading order.
    """
    return _find_runs(np.ascontiguousarray(labels, np.int32))


def relabelled(runs: np.ndarray, lookup: np.ndarray) -> np.ndarray:
    """Give runs new labels, ``lookup[label]``; those that become 0 are left out."""
    labels = lookup[runs[:, 0]]
    kept = runs[labels > 0]
    kept[:, 0] = labels[labels > 0]
    return kept


def first_runs(runs: np.ndarray, count: int) -> np.ndarray:
    """Index of the first run of each label 1..count in reading order, -1 where there is none (int64)."""
    return _first_runs(runs, count)


def paint_runs(
    plane: np.ndarray, runs: np.ndarray, values: np.ndarray, corner_px: tuple[int, int], factor: int
) -> None:
    """Write runs into part of a plane.

    Parameters
    ----------
    plane : uint32 ndarray, shape (h, w)
    runs : int32 ndarray, shape (n, 4)
        On a grid whose pixels are squares of `factor` pixels of the plane; what lies outside is left out.
    values : uint32 ndarray
        What to write for each label.
    corner_px : tuple of int
        Place (y, x) of the plane's first pixel.
    factor : int
    """
    _paint_runs(plane, runs, values, corner_px[0], corner_px[1], factor)


@njit(cache=True)
def _find_runs(labels: np.ndarray) -> np.ndarray:
    height, width = labels.shape
    runs, end = np.empty((4 * width, 4), np.int32), 0
    for y in range(height):
        if end + width > len(runs):
            runs = np.concatenate((runs, np.empty_like(runs)))
        end = _add_runs(labels[y], y, runs, end)
    return runs[:end].copy()


@njit(cache=True)
def _add_runs(row: np.ndarray, y: int, runs: np.ndarray, end: int) -> int:
    label, start = 0, 0
    for x in range(len(row)):
        if row[x] == label:
            continue
        if label > 0:
            runs[end, 0], runs[end, 1], runs[end, 2], runs[end, 3] = label, y, start, x
            end += 1
        label, start = row[x], x
    if label > 0:
        runs[end, 0], runs[end, 1], runs[end, 2], runs[end, 3] = label, y, start, len(row)
        end += 1
    return end


@njit(cache=True)
def _first_runs(runs: np.ndarray, count: int) -> np.ndarray:
    first = np.full(count, -1, np.int64)
    for index in range(len(runs)):
        place = runs[index, 0] - 1
        if first[place] < 0:
            first[place] = index
    return first


@njit(cache=True)
def _paint_runs(plane: np.ndarray, runs: np.ndarray, values: np.ndarray, top: int, left: int, factor: int) -> None:
    height, width = plane.shape
    for index in range(len(runs)):
        value = values[runs[index, 0]]
        y0 = runs[index, 1] * factor - top
        x0, x1 = max(runs[index, 2] * factor - left, 0), min(runs[index, 3] * factor - left, width)
        for y in range(max(y0, 0), min(y0 + factor, height)):
            for x in range(x0, x1):
                plane[y, x] = value
