"""Cells around their nuclei: marker signal nearest to a nucleus, and connected to it, is its cytoplasm."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

REACH_UM = 4.0
"""Cytoplasm ends at most this far from its nucleus."""

SMOOTHING_UM = 0.5
MARKER_THRESHOLD = 1.5
"""Smoothed marker signal from which a pixel may be cytoplasm (noise units of a single pixel)."""

PLATEAU_SHARE = 0.4
"""Cytoplasm ends where a marker falls to this share of its own plateau in the cell."""


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
    smooth = np.stack([ndimage.gaussian_filter(marker, sigma_px) for marker in markers])
    cells = nuclei.copy()
    for label, box in enumerate(ndimage.find_objects(territory), start=1):
        if box is not None:
            own, nucleus = territory[box] == label, nuclei[box] == label
            cells[box][_outline(own, nucleus, smooth[:, *box])] = label
    return cells


def _outline(own: np.ndarray, nucleus: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """Mask of one cell: its nucleus and what is stained and connected to it within its own territory."""
    stained = nucleus.copy()
    for marker in markers:
        signal = own & (marker > MARKER_THRESHOLD)
        if signal.any():
            stained |= signal & (marker > PLATEAU_SHARE * np.percentile(marker[signal], 90))
    pieces, _ = ndimage.label(stained)
    return ndimage.binary_fill_holes(np.isin(pieces, np.unique(pieces[nucleus]))) & own


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
