"""What is too large to be a cell: tiles rely on its being left out, and the slide's quality on its being reported."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from ctc_imaging.segmentation.dark import BLOCK_PX

MAX_LENGTH_UM = 40.0
"""Longest side of the box around a nucleus; a halo that holds this holds all that matters."""

CLEAR = 10.0
"""Stain that would be a nucleus, were it of a nucleus's size (mean signal of a block, noise units)."""

APART_UM = 12.0
"""Between the nuclei of a tissue no place is farther from all of them; haze over it hides none."""


def drop_long(labels: np.ndarray, longest_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Leave out the objects that are as long as `longest_px` or longer.

    Parameters
    ----------
    labels : int32 ndarray, shape (h, w)
    longest_px : int

    Returns
    -------
    kept : int32 ndarray, shape (h, w)
    dropped : bool ndarray, shape (h, w)
        Pixels of what was left out.
    """
    long = [
        label
        for label, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None and max(side.stop - side.start for side in box) >= longest_px
    ]
    if not long:
        return labels, np.zeros(labels.shape, bool)
    dropped = np.isin(labels, long)
    return np.where(dropped, 0, labels), dropped


def unresolved(signal: np.ndarray, nuclei: np.ndarray, working_um: float) -> np.ndarray:
    """Mark where there is nuclear stain, longer than any nucleus, and no nucleus found: clots, smears, fibres.

    Parameters
    ----------
    signal : float32 ndarray, shape (h, w)
        Nuclear stain over background in noise units, on the working grid.
    nuclei : int32 ndarray, shape (h, w)
    working_um : float

    Returns
    -------
    bool ndarray, shape (h, w)
        In whole blocks; depends on what lies within `MAX_LENGTH_UM` of a block.
    """
    block_um = BLOCK_PX * working_um
    stained = (_block_means(signal) > CLEAR).astype(np.uint8)
    if not stained.any():
        return np.zeros(signal.shape, bool)
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(stained, connectivity=8)
    long = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1) * block_um >= MAX_LENGTH_UM
    long[0] = False
    away = cv2.distanceTransform((_block_means((nuclei > 0).astype(np.float32)) == 0).astype(np.uint8), cv2.DIST_L2, 5)
    blocks = long[pieces] & (away > APART_UM / block_um)
    return blocks.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1)[: signal.shape[0], : signal.shape[1]]


def _block_means(plane: np.ndarray) -> np.ndarray:
    height, width = plane.shape
    whole = cv2.copyMakeBorder(plane, 0, -height % BLOCK_PX, 0, -width % BLOCK_PX, cv2.BORDER_REPLICATE)
    size = whole.shape[1] // BLOCK_PX, whole.shape[0] // BLOCK_PX
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA))
