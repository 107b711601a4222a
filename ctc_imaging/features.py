"""One row a cell: place, size and shape in µm, each marker's signal over local background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from ctc_imaging.panel import Panel, Role


@dataclass(frozen=True)
class CellPixels:
    """A window's cells with the pixels to measure them on.

    Attributes
    ----------
    cells, nuclei : int32 ndarray, shape (h, w)
        Labels 1..n of the cells to measure; 0 for everything else.
    above, signal : float32 ndarray, shape (C, h, w)
        Pixels over local background, in the slide's units and in units of its noise.
    origin_px : tuple of int
        Slide coordinates (y, x) of the window's first pixel.
    slide_px : tuple of int
        Height and width of the whole slide, for cells cut by its edge.
    """

    cells: np.ndarray
    nuclei: np.ndarray
    above: np.ndarray
    signal: np.ndarray
    origin_px: tuple[int, int]
    slide_px: tuple[int, int]


def measure_cells(view: CellPixels, panel: Panel, pixel_size_um: float) -> pd.DataFrame:
    """Measure the cells 1..n of a window.

    Parameters
    ----------
    view : CellPixels
    panel : Panel
        Gives the order of the channels and the names of their columns.
    pixel_size_um : float

    Returns
    -------
    DataFrame
        n rows, columns as ``cells.parquet`` up to ``MARKER_snr``, then ``at_edge``. The nuclear stain
        is averaged over the nucleus, every other marker over the whole cell. ``edges`` names the
        edges of the scan that cut the cell (``top``, ``left``, ``bottom``, ``right``), joined by ``+``.
    """
    count = int(view.cells.max(initial=0))
    rows, columns = np.nonzero(view.cells)
    label = view.cells[rows, columns]
    y_px, x_px = rows + float(view.origin_px[0]), columns + float(view.origin_px[1])
    area_px = _sums(label, count)
    centre_y, centre_x = _sums(label, count, y_px) / area_px, _sums(label, count, x_px) / area_px
    boxes = ndimage.find_objects(view.cells)
    table = {
        "y_um": centre_y * pixel_size_um,
        "x_um": centre_x * pixel_size_um,
        "y_px": centre_y,
        "x_px": centre_x,
        "area_um2": area_px * pixel_size_um**2,
        "diameter_um": np.sqrt(4 / np.pi * area_px) * pixel_size_um,
        "nucleus_area_um2": _sums(view.nuclei[view.nuclei > 0], count) * pixel_size_um**2,
        "eccentricity": _eccentricity(label, count, y_px, x_px, area_px),
        "solidity": _solidity(view.cells, boxes, area_px),
        **_signals(view, panel, count),
    }
    edges = [_edges(box, view) for box in boxes]
    return pd.DataFrame({**table, "at_edge": [edge != "" for edge in edges], "edges": edges}).astype({"at_edge": bool})


def _sums(label: np.ndarray, count: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Sum per label 1..count, in reading order, so the same pixels give the same bits in any window."""
    return np.bincount(label, weights=weights, minlength=count + 1)[1:].astype(np.float64)


def _signals(view: CellPixels, panel: Panel, count: int) -> dict[str, np.ndarray]:
    columns = {}
    for channel, above, signal in zip(panel.channels, view.above, view.signal, strict=True):
        region = view.nuclei if channel.role == Role.NUCLEUS else view.cells
        inside = region > 0
        label = region[inside]
        area_px = _sums(label, count)
        columns[f"{channel.short}_mean"] = _sums(label, count, above[inside]) / area_px
        columns[f"{channel.short}_snr"] = _sums(label, count, signal[inside]) / area_px
    return columns


def _eccentricity(label: np.ndarray, count: int, y_px: np.ndarray, x_px: np.ndarray, area_px: np.ndarray) -> np.ndarray:
    """Eccentricity of the ellipse with the same second moments (0 a circle, towards 1 a line)."""
    mean_y, mean_x = _sums(label, count, y_px) / area_px, _sums(label, count, x_px) / area_px
    dy, dx = y_px - mean_y[label - 1], x_px - mean_x[label - 1]
    # 1/12 is a pixel's own second moment: without it a line of pixels would have no width.
    yy = _sums(label, count, dy * dy) / area_px + 1 / 12
    xx = _sums(label, count, dx * dx) / area_px + 1 / 12
    xy = _sums(label, count, dy * dx) / area_px
    spread = np.sqrt((yy - xx) ** 2 + 4 * xy**2)
    return np.sqrt(2 * spread / (yy + xx + spread))


def _solidity(cells: np.ndarray, boxes: list[tuple[slice, slice]], area_px: np.ndarray) -> np.ndarray:
    """Area over the area of the convex hull of the pixels' corners."""
    result = np.empty(len(boxes))
    for index, box in enumerate(boxes):
        mask = np.pad(cells[box] == index + 1, ((0, 1), (0, 1)))
        # Corners of pixels: a pixel at (y, x) covers (y, x) to (y + 1, x + 1).
        corners = mask | np.roll(mask, 1, 0) | np.roll(mask, 1, 1) | np.roll(mask, (1, 1), (0, 1))
        hull = cv2.convexHull(np.argwhere(corners).astype(np.int32))
        result[index] = area_px[index] / cv2.contourArea(hull)
    return result


def _edges(box: tuple[slice, slice], view: CellPixels) -> str:
    """Name which edges of the scan the cell touches."""
    rows, columns = box
    y0, x0 = view.origin_px
    touched = {
        "top": rows.start + y0 == 0,
        "left": columns.start + x0 == 0,
        "bottom": rows.stop + y0 == view.slide_px[0],
        "right": columns.stop + x0 == view.slide_px[1],
    }
    return "+".join(edge for edge, touches in touched.items() if touches)
