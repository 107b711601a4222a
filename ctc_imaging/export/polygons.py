"""Label images → polygons along the edges of pixels, exact and in one pass from top to bottom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from ctc_imaging.outlines import find_runs

Polygon = list[list[list[int]]]
"""Rings of corners (x, y), the outer one first, then holes; each ends where it begins."""

_ROWS = 1024
# A cell of which nothing was seen for so many rows is complete.
_GAP_ROWS = 64


class Outline(NamedTuple):
    """One cell: its parts and those of its nucleus, the latter empty where there is none."""

    cell_id: int
    cell: list[Polygon]
    nucleus: list[Polygon]


def outlines_of(labels: Any, rows: int = _ROWS) -> Iterator[Outline]:
    """Trace all cells of a slide and their nuclei.

    Parameters
    ----------
    labels : array of uint32, shape (2, height, width)
        As of `store.labels.open_labels`; read in bands.
    rows : int
        Height of a band; changes nothing but memory.

    Yields
    ------
    Outline
        In the order in which cells end. Corners lie on the edges of pixels: the first pixel spans 0 to 1.
    """
    pieces: dict[int, tuple[list[NDArray], list[NDArray]]] = defaultdict(lambda: ([], []))
    height = labels.shape[1]
    for top in range(0, height, rows):
        for plane in (0, 1):
            band = np.asarray(labels[plane, top : top + rows])
            for cell_id, runs in _by_label(find_runs(band)):
                runs[:, 1] += top
                pieces[cell_id][plane].append(runs)
        end = min(top + rows, height)
        complete = [cell_id for cell_id, runs in pieces.items() if end == height or _last_row(runs) < end - _GAP_ROWS]
        for cell_id in sorted(complete):
            cell, nucleus = pieces.pop(cell_id)
            yield Outline(cell_id, polygons_of(cell), polygons_of(nucleus))


def polygons_of(runs: list[NDArray]) -> list[Polygon]:
    """Trace one object.

    Parameters
    ----------
    runs : list of int32 ndarray, shape (n, 4)
        Runs of the object, as of `outlines.find_runs`.

    Returns
    -------
    list of Polygon
        One for each part that hangs together by the sides of its pixels.
    """
    if not runs:
        return []
    _, y, x0, x1 = np.concatenate(runs).T
    top, left = int(y.min()), int(x0.min())
    mask = np.zeros((int(y.max()) - top + 3, int(x1.max()) - left + 2), bool)
    for row, start, end in zip(y - top + 1, x0 - left + 1, x1 - left + 1, strict=True):
        mask[row, start:end] = True
    parts, count = ndimage.label(mask)
    # The mask has a margin of one pixel.
    corner = np.array([left - 1, top - 1])
    return [_rings(mask if count == 1 else parts == part, corner) for part in range(1, count + 1)]


def _last_row(runs: tuple[list[NDArray], list[NDArray]]) -> int:
    return max(int(piece[-1, 1]) for plane in runs for piece in plane)


def _by_label(runs: NDArray) -> Iterator[tuple[int, NDArray]]:
    """Split runs by label, each label's in reading order."""
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    starts = np.flatnonzero(np.diff(runs[:, 0], prepend=0))
    for piece in np.split(runs, starts[1:]) if len(runs) else ():
        yield int(piece[0, 0]), piece.copy()


def _rings(mask: NDArray[np.bool_], corner: NDArray[np.intp]) -> Polygon:
    corners, ends = _trace(mask)
    rings = np.split(corners, ends[:-1])
    # The object lies to the right of the way, so the outer ring alone turns clockwise.
    rings.sort(key=lambda ring: _turns(ring), reverse=True)
    return [(np.concatenate([ring, ring[:1]]) + corner).tolist() for ring in rings]


def _turns(ring: NDArray) -> float:
    x, y = ring.T.astype(float)
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


@njit(cache=True)
def _is_edge(mask: np.ndarray, y: int, x: int, way: int) -> bool:
    """Say whether a border starts at this corner going east, south, west or north (0 to 3), the object to its right."""
    if way == 0:
        return mask[y, x] and not mask[y - 1, x]
    if way == 1:
        return mask[y, x - 1] and not mask[y, x]
    if way == 2:
        return mask[y - 1, x - 1] and not mask[y, x - 1]
    return mask[y - 1, x] and not mask[y - 1, x - 1]


@njit(cache=True)
def _trace(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Follow all borders of an object that hangs together; corners (x, y), and after which of them each ring ends."""
    height, width = mask.shape
    seen = np.zeros((height, width), np.bool_)
    corners, count = np.empty((4 * height * width, 2), np.int64), 0
    ends, rings = np.empty(height * width, np.int64), 0
    for y0 in range(1, height):
        for x0 in range(1, width):
            if seen[y0, x0] or not _is_edge(mask, y0, x0, 0):
                continue
            y, x, way, before = y0, x0, 0, -1
            while not (way == 0 and seen[y, x]):
                if way == 0:
                    seen[y, x] = True
                if way != before:
                    corners[count, 0], corners[count, 1] = x, y
                    count += 1
                before = way
                x += (way == 0) - (way == 2)
                y += (way == 1) - (way == 3)
                # Left before right: then no ring touches itself where two pixels meet at a corner.
                for turn in (3, 0, 1):
                    if _is_edge(mask, y, x, (before + turn) % 4):
                        way = (before + turn) % 4
                        break
            ends[rings] = count
            rings += 1
    return corners[:count].copy(), ends[:rings].copy()
