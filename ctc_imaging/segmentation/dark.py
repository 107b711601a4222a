"""Where a tile is stained at all: a blur, a threshold and a coarse grid, so that dark parts of a slide cost little."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

BLOCK_PX = 4
"""Side of a block in working pixels, counted from the slide's origin."""

BOX_UM = 2.0
"""Side of the blur: half of the smallest nucleus (4 µm), so that a box in its middle sees nothing but stain."""

SMALLEST_BOX_PX = 3
"""Boxes of two coarse pixels average too little noise away."""

CLEAR = 6.0
"""Standard deviations of a box's noise: by chance one box in a thousand million is above."""


def stained_blocks(signal: np.ndarray, pixel_size_um: float) -> np.ndarray:
    """Mark the blocks that a nucleus may touch.

    A block is marked where the mean of a box of k x k pixels about any of its pixels is above 6 / k, six
    standard deviations of the mean of k x k pixels of noise 1; k pixels are about 2 µm, at least 3. Binned
    pixels have less noise than 1, so with them noise is marked even less often and stain is as clear.

    Nothing of 4 µm at SNR 5 (mean over the nucleus, before the optics blur it by σ 0.35 µm) is passed over:
    a box is at most as wide as the nucleus, and the best one lies within half a pixel of its centre along
    each axis, so it sees most of its height. Of a flat disc (a domed one is clearer still), placed in the
    worst way between pixels, it sees

    ==================  ====  ====  ====  ====  ====  ====  ====
    working pixel (µm)  0.35  0.5   0.65  0.8   1.0   1.15  1.3
    ==================  ====  ====  ====  ====  ====  ====  ====
    k                   6     4     3     3     3     3     3
    its mean            4.96  4.96  4.94  4.73  4.15  3.61  3.11
    above 6 / k, in σ   23.8  13.8  8.8   8.2   6.4   4.8   3.3
    ==================  ====  ====  ====  ====  ====  ====  ====

    with k x k unbinned pixels; with bins of two the same height stands over half the noise. Placed in the
    worst way the nucleus has four such boxes, and one of them is enough: of 30,000 at 1.3 µm none was missed.

    Parameters
    ----------
    signal : float32 ndarray, shape (h, w)
        Nuclear stain over background on the working grid, in noise units of a single native pixel; its first
        pixel at a multiple of `BLOCK_PX` from the slide's origin.
    pixel_size_um : float
        Of the working grid.

    Returns
    -------
    bool ndarray, shape (ceil(h / BLOCK_PX), ceil(w / BLOCK_PX))
        A block depends on pixels within `support_px` of its own; beyond the signal's edge is its mirror image.
    """
    box = _box_px(pixel_size_um)
    before, after = box // 2, box - 1 - box // 2
    plane = np.asarray(signal, np.float32)
    if plane.size == 0:
        return np.zeros((-(-plane.shape[0] // BLOCK_PX), -(-plane.shape[1] // BLOCK_PX)), bool)
    padded = cv2.copyMakeBorder(plane, before, after, before, after, cv2.BORDER_REFLECT)
    return _mark(padded, box, CLEAR * box)


def support_px(pixel_size_um: float) -> int:
    """How far from a block (working px) the signal can influence whether it is marked."""
    return _box_px(pixel_size_um) // 2


def _box_px(pixel_size_um: float) -> int:
    return max(SMALLEST_BOX_PX, round(BOX_UM / pixel_size_um))


@njit(cache=True)
def _mark(padded: np.ndarray, box: int, limit: float) -> np.ndarray:
    """Mark the blocks in which the sum of any box is above a limit.

    Each box is summed anew, in one order: a running sum would depend on where the window begins.
    """
    height, width = padded.shape[0] - box + 1, padded.shape[1] - box + 1
    marked = np.zeros((-(-height // BLOCK_PX), -(-width // BLOCK_PX)), np.bool_)
    highest = np.empty(marked.shape[1] * BLOCK_PX, np.float32)
    for row in range(len(marked)):
        highest[:] = -np.inf
        for y in range(row * BLOCK_PX, min((row + 1) * BLOCK_PX, height)):
            _raise_to(highest, _box_sums(padded[y : y + box], width))
        for column in range(marked.shape[1]):
            for x in range(column * BLOCK_PX, (column + 1) * BLOCK_PX):
                marked[row, column] |= highest[x] > limit
    return marked


@njit(cache=True)
def _box_sums(rows: np.ndarray, width: int) -> np.ndarray:
    """Sum each box of as many rows and columns as there are rows."""
    along_y = rows[0].copy()
    for row in rows[1:]:
        for x in range(len(along_y)):
            along_y[x] += row[x]
    sums = along_y[:width].copy()
    for shift in range(1, len(rows)):
        for x in range(width):
            sums[x] += along_y[x + shift]
    return sums


@njit(cache=True)
def _raise_to(highest: np.ndarray, values: np.ndarray) -> None:
    for x in range(len(values)):
        highest[x] = max(highest[x], values[x])
