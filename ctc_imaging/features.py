"""One row a cell: place, size and shape in µm, each marker's signal over local background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numba import njit

from ctc_imaging.panel import Panel, Role

_FAR = 2**40

_EDGES = ("top", "left", "bottom", "right")
_EDGE_NAMES = np.array(["+".join(_EDGES[i] for i in range(4) if code >> i & 1) for code in range(16)], object)


@dataclass(frozen=True)
class CellPixels:
    """A window's cells with the pixels to measure them on.

    Attributes
    ----------
    cells, nuclei : int32 ndarray, shape (k, 4)
        Runs (see `outlines`) of the cells to measure, labelled 1..n. A nucleus has its cell's label, and not
        every cell has one.
    above, signal : float32 ndarray, shape (C, h, w)
        Pixels over local background, in the slide's units and in units of its noise.
    origin_px : tuple of int
        Working coordinates (y, x) of the window's first pixel.
    slide_px : tuple of int
        Height and width of the whole slide in its own pixels, for cells cut by its edge.
    factor : int
        Side of a working pixel in the slide's own pixels; the first begins where the slide does.
    """

    cells: np.ndarray
    nuclei: np.ndarray
    above: np.ndarray
    signal: np.ndarray
    origin_px: tuple[int, int]
    slide_px: tuple[int, int]
    factor: int = 1


def measure_cells(view: CellPixels, panel: Panel, pixel_size_um: float) -> pd.DataFrame:
    """Measure the cells 1..n of a window.

    Parameters
    ----------
    view : CellPixels
    panel : Panel
        Gives the order of the channels and the names of their columns.
    pixel_size_um : float
        Of the slide's own pixels.

    Returns
    -------
    DataFrame
        n rows, columns as ``cells.parquet`` up to ``MARKER_snr``, then ``at_edge``. The nuclear stain
        is averaged over the nucleus, every other marker over the whole cell, and so is the nuclear stain
        where there is no nucleus. ``edges`` names the edges of the scan that cut the cell (``top``,
        ``left``, ``bottom``, ``right``), joined by ``+``.
    """
    sums = _sums(view, panel)
    y_px, x_px = _centres(sums, view).T
    working_um = pixel_size_um * view.factor
    edges = _edges(sums.boxes, view)
    table = {
        "y_um": y_px * pixel_size_um,
        "x_um": x_px * pixel_size_um,
        "y_px": y_px,
        "x_px": x_px,
        "area_um2": sums.area_px * working_um**2,
        "diameter_um": np.sqrt(4 / np.pi * sums.area_px) * working_um,
        "nucleus_area_um2": sums.nucleus_px * working_um**2,
        "eccentricity": _eccentricity(sums),
        "solidity": sums.area_px / _hull_areas(view.cells, sums.boxes),
        **_signals(sums, panel),
    }
    return pd.DataFrame({**table, "at_edge": edges != "", "edges": edges})


class _Sums(NamedTuple):
    """What is added up over the pixels of each cell, shape (n, ...).

    Integers wherever possible, counted from the cell's own first pixel in reading order; signals in reading
    order: so that the same pixels give the same bits in any window.
    """

    area_px: np.ndarray
    nucleus_px: np.ndarray
    boxes: np.ndarray  # y0, y1, x0, x1 in the window
    first: np.ndarray  # y, x in the window
    moments: np.ndarray  # y, x, yy, xx, yx from there
    over_cell: np.ndarray  # (above, signal), channels
    over_nucleus: np.ndarray  # (above, signal) of the nuclear stain


def _sums(view: CellPixels, panel: Panel) -> _Sums:
    count, nuclear = int(view.cells[:, 0].max(initial=0)), slice(_nuclear(panel), _nuclear(panel) + 1)
    planes = [np.ascontiguousarray(planes, np.float32) for planes in (view.above, view.signal)]
    area_px, boxes, first, moments = _add_up_places(view.cells, count)
    return _Sums(
        area_px=area_px,
        nucleus_px=_add_up_places(view.nuclei, count)[0],
        boxes=boxes,
        first=first,
        moments=moments,
        over_cell=np.stack([_add_up(view.cells, channels, count) for channels in planes], axis=1),
        over_nucleus=np.hstack([_add_up(view.nuclei, channels[nuclear], count) for channels in planes]),
    )


def _nuclear(panel: Panel) -> int:
    return next(index for index, channel in enumerate(panel.channels) if channel.role == Role.NUCLEUS)


@njit(cache=True)
def _add_up_places(runs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Area, box, first pixel and moments of each label; see `_Sums`."""
    area, boxes = np.zeros(count, np.int64), np.zeros((count, 4), np.int64)
    first, moments = np.zeros((count, 2), np.int64), np.zeros((count, 5), np.int64)
    for index in range(len(runs)):
        i, y, start, stop = runs[index, 0] - 1, runs[index, 1], runs[index, 2], runs[index, 3]
        if area[i] == 0:
            first[i] = y, start
            boxes[i] = y, y, start, stop
        area[i] += stop - start
        boxes[i, 1], boxes[i, 2], boxes[i, 3] = y + 1, min(boxes[i, 2], start), max(boxes[i, 3], stop)
        dy = y - first[i, 0]
        for dx in range(start - first[i, 1], stop - first[i, 1]):
            moments[i, 0] += dy
            moments[i, 1] += dx
            moments[i, 2] += dy * dy
            moments[i, 3] += dx * dx
            moments[i, 4] += dy * dx
    return area, boxes, first, moments


@njit(cache=True)
def _add_up(runs: np.ndarray, planes: np.ndarray, count: int) -> np.ndarray:
    """Sum of each plane over each label, shape (count, planes)."""
    sums = np.zeros((count, len(planes)))
    for index in range(len(runs)):
        i, y, start, stop = runs[index, 0] - 1, runs[index, 1], runs[index, 2], runs[index, 3]
        for channel in range(len(planes)):
            total = sums[i, channel]
            for x in range(start, stop):
                total += planes[channel, y, x]
            sums[i, channel] = total
    return sums


def _centres(sums: _Sums, view: CellPixels) -> np.ndarray:
    """Centres of gravity (y, x) in the slide's own pixels, shape (n, 2)."""
    area_px = sums.area_px[:, None]
    working = (area_px * (sums.first + np.array(view.origin_px)) + sums.moments[:, :2]) / area_px
    return working * view.factor + (view.factor - 1) / 2


def _eccentricity(sums: _Sums) -> np.ndarray:
    """Eccentricity of the ellipse with the same second moments (0 a circle, towards 1 a line)."""
    area_px = sums.area_px.astype(float)
    y, x, yy, xx, yx = sums.moments.T.astype(float)
    # 1/12 is a pixel's own second moment: without it a line of pixels would have no width.
    yy = (area_px * yy - y * y) / area_px**2 + 1 / 12
    xx = (area_px * xx - x * x) / area_px**2 + 1 / 12
    yx = (area_px * yx - y * x) / area_px**2
    spread = np.sqrt((yy - xx) ** 2 + 4 * yx**2)
    return np.sqrt(2 * spread / (yy + xx + spread))


@njit(cache=True)
def _hull_areas(runs: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Area of the convex hull of each cell's pixels, which are squares of side 1."""
    # Outermost corners at each height between rows, as seen from the left and from the right.
    starts = np.zeros(len(boxes) + 1, np.int64)
    starts[1:] = np.cumsum(boxes[:, 1] - boxes[:, 0] + 1)
    left, right = np.full(starts[-1], _FAR), np.full(starts[-1], _FAR)
    for index in range(len(runs)):
        cell = runs[index, 0] - 1
        corner = starts[cell] + runs[index, 1] - boxes[cell, 0]
        for place in (corner, corner + 1):
            left[place], right[place] = min(left[place], runs[index, 2]), min(right[place], -runs[index, 3])
    areas = np.empty(len(boxes))
    for cell in range(len(boxes)):
        rows = slice(starts[cell], starts[cell + 1])
        areas[cell] = -(_under_hull(left[rows]) + _under_hull(right[rows])) / 2
    return areas


@njit(cache=True)
def _under_hull(values: np.ndarray) -> int:
    """Twice the area between the lower convex hull of values at 0, 1, 2, ... and zero."""
    hull, last, area = np.empty(len(values), np.int64), -1, 0
    for i in range(len(values)):
        while last > 0:
            a, b = hull[last - 1], hull[last]
            if (values[b] - values[a]) * (i - a) < (values[i] - values[a]) * (b - a):
                break
            last -= 1
        last += 1
        hull[last] = i
    for k in range(last):
        area += (hull[k + 1] - hull[k]) * (values[hull[k]] + values[hull[k + 1]])
    return area


def _signals(sums: _Sums, panel: Panel) -> dict[str, np.ndarray]:
    """Mean above background of each channel, and the same in noise units."""
    nuclear, has_nucleus = _nuclear(panel), sums.nucleus_px > 0
    means = sums.over_cell / sums.area_px[:, None, None]
    means[has_nucleus, :, nuclear] = sums.over_nucleus[has_nucleus] / sums.nucleus_px[has_nucleus, None]
    columns = {}
    for index, short in enumerate(panel.shorts):
        columns[f"{short}_mean"], columns[f"{short}_snr"] = means[:, :, index].T
    return columns


def _edges(boxes: np.ndarray, view: CellPixels) -> np.ndarray:
    """Name which edges of the scan each cell touches."""
    (y0, x0), (height, width) = view.origin_px, (-(-side // view.factor) for side in view.slide_px)
    touched = boxes[:, 0] + y0 == 0, boxes[:, 2] + x0 == 0, boxes[:, 1] + y0 == height, boxes[:, 3] + x0 == width
    return _EDGE_NAMES[sum(edge << bit for bit, edge in enumerate(np.array(touched, np.int64)))]
