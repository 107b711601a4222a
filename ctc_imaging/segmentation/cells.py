"""Cells around their nuclei: marker signal nearest to a nucleus, and connected to it, is its cytoplasm."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

REACH_UM = 4.0
"""Cytoplasm ends at most this far from its nucleus."""

SMOOTHING_UM = 0.5
MARKER_THRESHOLD = 1.5
"""Smoothed marker signal from which a pixel is cytoplasm (noise units of a single pixel)."""


def support_px(pixel_size_um: float) -> int:
    """How far from a nucleus (px) other nuclei and pixels can influence its cell's outline."""
    return int(np.ceil((2 * REACH_UM + 4 * SMOOTHING_UM) / pixel_size_um)) + 2


def find_cells(nuclei: np.ndarray, markers: np.ndarray, pixel_size_um: float) -> np.ndarray:
    """Outline the cells of one window.

    Parameters
    ----------
    nuclei : int32 ndarray, shape (h, w)
        Nucleus labels.
    markers : float32 ndarray, shape (m, h, w)
        Signal of the markers other than the nuclear stain, in noise units.
    pixel_size_um : float

    Returns
    -------
    int32 ndarray, shape (h, w)
        Each cell has its nucleus's label and contains it.
    """
    if not nuclei.any():
        return nuclei.copy()
    territory = _nearest(nuclei, REACH_UM / pixel_size_um)
    sigma_px = SMOOTHING_UM / pixel_size_um
    stained = nuclei > 0
    for marker in markers:
        stained |= ndimage.gaussian_filter(marker, sigma_px) > MARKER_THRESHOLD
    return _connected_to_nucleus(np.where(stained, territory, 0), nuclei)


def _nearest(nuclei: np.ndarray, reach_px: float) -> np.ndarray:
    """Give each pixel within reach the label of its nearest nucleus.

    Between equally near nuclei the first in a fixed order of directions wins, so the outcome
    depends on the pixels within reach alone (a distance transform's own choice doesn't).
    """
    squared = np.rint(ndimage.distance_transform_edt(nuclei == 0) ** 2).astype(np.int64)
    margin = int(np.ceil(reach_px))
    padded = np.pad(nuclei, margin)
    territory = nuclei.copy()
    rows, columns = np.nonzero((squared > 0) & (squared <= reach_px**2))
    distance = squared[rows, columns]
    order = np.argsort(distance, kind="stable")
    rows, columns, distance = rows[order], columns[order], distance[order]
    for value, start, stop in _runs(distance):
        y, x = rows[start:stop], columns[start:stop]
        nearest = np.zeros(stop - start, nuclei.dtype)
        for dy, dx in _offsets(value, margin):
            nearest = np.where(nearest > 0, nearest, padded[y + dy + margin, x + dx + margin])
        territory[y, x] = nearest
    return territory


def _runs(ordered: np.ndarray) -> list[tuple[int, int, int]]:
    """Value, start and end of each run of equal values."""
    values, starts = np.unique(ordered, return_index=True)
    return list(zip(values.tolist(), starts.tolist(), [*starts[1:].tolist(), len(ordered)], strict=True))


def _offsets(squared: int, margin: int) -> list[tuple[int, int]]:
    """All steps (dy, dx) of a given squared length, in reading order."""
    steps = range(-margin, margin + 1)
    return [(dy, dx) for dy in steps for dx in steps if dy * dy + dx * dx == squared]


def _connected_to_nucleus(cells: np.ndarray, nuclei: np.ndarray) -> np.ndarray:
    """Drop the pieces of each cell that its nucleus doesn't touch, and fill its holes."""
    result = nuclei.copy()
    for label, box in enumerate(ndimage.find_objects(cells), start=1):
        if box is None:
            continue
        pieces, count = ndimage.label(cells[box] == label)
        core = nuclei[box] == label
        kept = pieces > 0 if count == 1 else np.isin(pieces, np.unique(pieces[core]))
        kept = ndimage.binary_fill_holes(kept) & ((cells[box] == label) | (nuclei[box] == 0) & (result[box] == 0))
        result[box][kept] = label
    return result
