"""Cells around their nuclei, shared out fairly between neighbours, and stained objects without a nucleus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from ctc_imaging.segmentation.oversized import MAX_LENGTH_UM

REACH_UM = 4.0
"""Cytoplasm ends at most this far from its nucleus."""

SMOOTHING_UM = 0.5
MARKER_THRESHOLD = 1.5
"""Smoothed marker signal from which a pixel may be cytoplasm (noise units)."""

PLATEAU_SHARE = 0.4
"""Cytoplasm ends where a marker falls to this share of its own plateau in the cell."""

BRIGHTEST_SHARE = 0.1
"""The plateau is what this share of a cell's stained pixels are above: more of them than a speck of dirt covers."""

UNLIKE_COST = 8.0
"""A nucleus counts as this many times farther, and once, from a pixel that has none of its markers."""

DARK = 0.5
"""Marker signal that says nothing yet about the mix of markers (noise units)."""

ANUCLEATE_THRESHOLD = 5.0
"""Smoothed marker signal from which a pixel may be part of an object without a nucleus (noise units)."""

ANUCLEATE_MIN_DIAMETER_UM = 4.0

_BLUR_PX = 2
_BLOCK_PX = 16


@dataclass(frozen=True)
class Cells:
    """Cells of a window, and stained objects without a nucleus.

    Attributes
    ----------
    labels : int32 ndarray, shape (h, w)
        Each cell has its nucleus's label and contains it. The objects without one come after all nuclei.
    anucleate : int32 ndarray, shape (k,)
        Labels of the objects without a nucleus, ascending in reading order of their first pixels.
    """

    labels: np.ndarray
    anucleate: np.ndarray


def support_px(pixel_size_um: float) -> int:
    """How far (px) from an object's own pixels others can influence its outline.

    Its own are those of its nucleus, or all of an object without one. What lies within reach of a nucleus
    may go to a rival that has it in reach too, and the mix of markers at the rival's far end may decide it;
    or it may belong to an object without a nucleus.
    """
    return int(np.ceil((2 * REACH_UM + MAX_LENGTH_UM) / pixel_size_um)) + _BLUR_PX + 1


def find_cells(nuclei: np.ndarray, markers: np.ndarray, pixel_size_um: float) -> Cells:
    """Outline the cells of one window, and the stained objects without a nucleus.

    A pixel in reach of several nuclei goes to the nearest, where markers unlike a nucleus's own count as
    distance. What of it is stained and joined to its nucleus is the cell. What is bright somewhere out of
    reach of all nuclei, and joined to none of them, is an object without a nucleus.

    Parameters
    ----------
    nuclei : int32 ndarray, shape (h, w)
        Nucleus labels, in any order, each at most `MAX_LENGTH_UM` long; 0 where there is none.
    markers : float32 ndarray, shape (m, h, w)
        Signal of the markers other than the nuclear stain, in noise units.
    pixel_size_um : float
        Of the working grid.

    Returns
    -------
    Cells
    """
    reach_px = REACH_UM / pixel_size_um
    kernel = _kernel(SMOOTHING_UM / pixel_size_um)
    # One type of array, or numba compiles anew. Whole frames come from numpy: numba's own memory is handed out in
    # small pages, which costs more than the work.
    nuclei, markers = np.ascontiguousarray(nuclei, np.int32), np.ascontiguousarray(markers, np.float32)
    labels, territory, cost = nuclei.copy(), nuclei.copy(), np.empty(nuclei.shape, np.float32)
    boxes, order = _boxes(nuclei, int(nuclei.max(initial=0)), int(reach_px))
    _share_out(nuclei, markers, kernel, boxes, order, reach_px, territory, cost)
    anucleate = _label_anucleate(labels, nuclei, markers, kernel, territory, pixel_size_um)
    _add_cytoplasm(labels, territory, markers, kernel, boxes, order)
    return Cells(labels, anucleate)


def _kernel(sigma_px: float) -> np.ndarray:
    """Weights of a Gaussian at its middle and one and two pixels away; 0.35 µm pixels need no more for 0.5 µm."""
    weights = np.exp(-0.5 * (np.arange(_BLUR_PX + 1) / sigma_px) ** 2)
    return (weights / (weights[0] + 2 * weights[1:].sum())).astype(np.float32)


def _label_anucleate(
    labels: np.ndarray,
    nuclei: np.ndarray,
    markers: np.ndarray,
    kernel: np.ndarray,
    territory: np.ndarray,
    pixel_size_um: float,
) -> np.ndarray:
    """Add the labels of the objects without a nucleus; return them."""
    smallest_px = np.pi / 4 * (ANUCLEATE_MIN_DIAMETER_UM / pixel_size_um) ** 2
    longest_px, reach = MAX_LENGTH_UM / pixel_size_um, int(REACH_UM / pixel_size_um)
    positive, pixels = np.zeros(nuclei.shape, np.bool_), np.empty((nuclei.size + 1, 2), np.int32)
    sizes = _find_anucleate(nuclei, markers, kernel, territory, smallest_px, longest_px, reach, positive, pixels)
    if not len(sizes):
        return np.zeros(0, np.int32)
    rows, columns = pixels[: sizes.sum()].T
    order = np.argsort(np.minimum.reduceat(rows.astype(np.int64) * nuclei.shape[1] + columns, np.cumsum(sizes) - sizes))
    found = np.empty(len(sizes), np.int32)
    found[order] = np.arange(1, len(sizes) + 1) + nuclei.max(initial=0)
    labels[rows, columns] = np.repeat(found, sizes)
    return found[order]


@njit(cache=True)
def _boxes(nuclei: np.ndarray, count: int, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Box of each nucleus with a margin (y0, y1, x0, x1), by label; and the labels in reading order."""
    height, width = nuclei.shape
    boxes = np.zeros((count + 1, 4), np.int64)
    order = np.empty(count, np.int64)
    found = 0
    for y in range(height):
        row = nuclei[y]
        for x in range(width):
            label = row[x]
            if label == 0:
                continue
            if boxes[label, 1] == 0:
                order[found] = label
                found += 1
                boxes[label, 0], boxes[label, 2] = max(y - margin, 0), width
            boxes[label, 1] = min(y + 1 + margin, height)
            boxes[label, 2] = min(boxes[label, 2], max(x - margin, 0))
            boxes[label, 3] = max(boxes[label, 3], min(x + 1 + margin, width))
    return boxes, order[:found]


@njit(cache=True)
def _share_out(
    nuclei: np.ndarray,
    markers: np.ndarray,
    kernel: np.ndarray,
    boxes: np.ndarray,
    order: np.ndarray,
    reach_px: float,
    territory: np.ndarray,
    cost: np.ndarray,
) -> None:
    """Give each pixel in reach of a nucleus to the one it costs least, of equals to the first in reading order."""
    for label in order:
        y0, y1, x0, x1 = boxes[label]
        core, near = _is_label(nuclei, label, y0, y1, x0, x1), _smoothed(markers, kernel, y0, y1, x0, x1)
        own = _costs(core, near, _mix(core, near), reach_px)
        for y in range(y1 - y0):
            nuclear, owner, least = nuclei[y0 + y, x0:x1], territory[y0 + y, x0:x1], cost[y0 + y, x0:x1]
            for x in range(x1 - x0):
                if own[y, x] < np.inf and nuclear[x] == 0 and (owner[x] == 0 or own[y, x] < least[x]):
                    owner[x] = label
                    least[x] = own[y, x]


@njit(cache=True)
def _is_label(labels: np.ndarray, label: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    mask = np.empty((y1 - y0, x1 - x0), np.bool_)
    for y in range(y1 - y0):
        row = labels[y0 + y, x0:x1]
        for x in range(x1 - x0):
            mask[y, x] = row[x] == label
    return mask


@njit(cache=True)
def _smoothed(planes: np.ndarray, kernel: np.ndarray, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    """Part of some planes, blurred; beyond their borders the last pixel goes on."""
    count, height, width = planes.shape
    middle, near, far = kernel
    smooth = np.empty((count, y1 - y0, x1 - x0), np.float32)
    across = np.empty((y1 - y0 + 4, x1 - x0), np.float32)
    widened = np.empty(x1 - x0 + 4, np.float32)
    for m in range(count):
        for i in range(len(across)):
            row = planes[m, min(max(y0 + i - 2, 0), height - 1)]
            if x0 >= 2 and x1 + 2 <= width:
                part = row[x0 - 2 : x1 + 2]
            else:
                part = widened
                for x in range(len(part)):
                    part[x] = row[min(max(x0 + x - 2, 0), width - 1)]
            for x in range(x1 - x0):
                across[i, x] = middle * part[x + 2] + near * (part[x + 1] + part[x + 3]) + far * (part[x] + part[x + 4])
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                sides, ends = across[y + 1, x] + across[y + 3, x], across[y, x] + across[y + 4, x]
                smooth[m, y, x] = middle * across[y + 2, x] + near * sides + far * ends
    return smooth


@njit(cache=True)
def _mix(core: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Mean markers of a nucleus as a direction: of length 1, less where they hardly rise above the dark."""
    mix = np.zeros(len(near))
    for m in range(len(near)):
        for y in range(core.shape[0]):
            for x in range(core.shape[1]):
                if core[y, x]:
                    mix[m] += max(near[m, y, x], 0)
    mix /= core.sum()
    return (mix / np.sqrt((mix * mix).sum() + DARK * DARK)).astype(np.float32)


@njit(cache=True)
def _costs(core: np.ndarray, near: np.ndarray, mix: np.ndarray, reach_px: float) -> np.ndarray:
    """Squared distance of each pixel to a nucleus, counted as longer where the markers are unlike its mix."""
    costs = _squared_distances(core, int(reach_px))
    alike, power = np.zeros(core.shape, np.float32), np.full(core.shape, np.float32(DARK * DARK))
    for m in range(len(near)):
        for y in range(core.shape[0]):
            for x in range(core.shape[1]):
                signal = max(near[m, y, x], np.float32(0))
                alike[y, x] += signal * mix[m]
                power[y, x] += signal * signal
    one, dearest, farthest = np.float32(1), np.float32(UNLIKE_COST), np.float32(reach_px * reach_px)
    for y in range(core.shape[0]):
        for x in range(core.shape[1]):
            # The squared sine of the angle between the two mixes. In the dark it is 1 for all nuclei alike.
            unlike = one - alike[y, x] * alike[y, x] / power[y, x]
            factor = one + dearest * unlike
            costs[y, x] = costs[y, x] * factor * factor if costs[y, x] <= farthest else np.float32(np.inf)
    return costs


@njit(cache=True)
def _squared_distances(core: np.ndarray, reach: int) -> np.ndarray:
    """Squared distance to the nearest pixel of a mask, exact up to reach, larger than its square beyond."""
    height, width = core.shape
    far = np.float32(reach + 1)
    gaps = np.full((height, width + 2 * reach), far, np.float32)
    for y in range(height):
        for x in range(width):
            if core[y, x]:
                gaps[y, x + reach] = 0
            elif y > 0:
                gaps[y, x + reach] = min(gaps[y - 1, x + reach] + 1, far)
    for y in range(height - 2, -1, -1):
        for x in range(width):
            gaps[y, x + reach] = min(gaps[y, x + reach], gaps[y + 1, x + reach] + 1)
    squared = np.full(core.shape, far * far, np.float32)
    for y in range(height):
        for step in range(2 * reach + 1):
            along = np.float32((step - reach) ** 2)
            for x in range(width):
                squared[y, x] = min(squared[y, x], along + gaps[y, x + step] * gaps[y, x + step])
    return squared


@njit(cache=True)
def _find_anucleate(
    nuclei: np.ndarray,
    markers: np.ndarray,
    kernel: np.ndarray,
    territory: np.ndarray,
    smallest_px: float,
    longest_px: float,
    reach: int,
    positive: np.ndarray,
    pixels: np.ndarray,
) -> np.ndarray:
    """List the pixels (y, x) of the objects without a nucleus, object after object; return how many each has.

    Each has a bright pixel out of reach of all nuclei: most of a slide needn't be looked at twice.
    """
    height, width = nuclei.shape
    looked = np.zeros((height // _BLOCK_PX + 1, width // _BLOCK_PX + 1), np.bool_)
    bright = np.empty(width, np.int64)
    sizes, end = [0 for _ in range(0)], 0
    for y in range(height):
        for x in bright[: _find_bright(markers, territory, y, bright)]:
            if not looked[y // _BLOCK_PX, x // _BLOCK_PX]:
                _look(markers, kernel, positive, looked, y // _BLOCK_PX, x // _BLOCK_PX)
            if not positive[y, x]:
                continue
            stop = _take_piece(markers, kernel, positive, looked, y, x, pixels, end)
            piece = pixels[end:stop]
            if len(piece) >= smallest_px and _is_apart(piece, nuclei, markers, kernel, territory, longest_px, reach):
                sizes.append(len(piece))
                end = stop
    return np.array(sizes, np.int64)


@njit(cache=True)
def _find_bright(markers: np.ndarray, territory: np.ndarray, y: int, columns: np.ndarray) -> int:
    """Write where in a row a marker is bright out of reach of all nuclei; return how many pixels that are."""
    brightest = np.zeros(len(columns), np.float32)
    for m in range(len(markers)):
        row = markers[m, y]
        for x in range(len(row)):
            brightest[x] = row[x] if row[x] > brightest[x] else brightest[x]
    found = 0
    for x in range(len(columns)):
        if brightest[x] > ANUCLEATE_THRESHOLD and territory[y, x] == 0:
            columns[found] = x
            found += 1
    return found


@njit(cache=True)
def _take_piece(
    markers: np.ndarray,
    kernel: np.ndarray,
    positive: np.ndarray,
    looked: np.ndarray,
    y: int,
    x: int,
    pixels: np.ndarray,
    end: int,
) -> int:
    """Move the piece of positive pixels (8-connected) around one from the mask to a list; return the list's new end."""
    height, width = positive.shape
    positive[y, x] = False
    pixels[end, 0], pixels[end, 1] = y, x
    done, stop = end, end + 1
    while done < stop:
        y, x = pixels[done, 0], pixels[done, 1]
        done += 1
        for ny in range(max(y - 1, 0), min(y + 2, height)):
            for nx in range(max(x - 1, 0), min(x + 2, width)):
                # Written out, not called: a call costs as much as all the rest.
                if not looked[ny // _BLOCK_PX, nx // _BLOCK_PX]:
                    _look(markers, kernel, positive, looked, ny // _BLOCK_PX, nx // _BLOCK_PX)
                if positive[ny, nx]:
                    positive[ny, nx] = False
                    pixels[stop, 0], pixels[stop, 1] = ny, nx
                    stop += 1
    return stop


@njit(cache=True)
def _look(
    markers: np.ndarray, kernel: np.ndarray, positive: np.ndarray, looked: np.ndarray, row: int, column: int
) -> None:
    """Mark the positive pixels of a block."""
    looked[row, column] = True
    y0, x0 = row * _BLOCK_PX, column * _BLOCK_PX
    y1, x1 = min(y0 + _BLOCK_PX, positive.shape[0]), min(x0 + _BLOCK_PX, positive.shape[1])
    smooth = _smoothed(markers, kernel, y0, y1, x0, x1)
    for m in range(len(smooth)):
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                if smooth[m, y, x] > ANUCLEATE_THRESHOLD:
                    positive[y0 + y, x0 + x] = True


@njit(cache=True)
def _is_apart(
    piece: np.ndarray,
    nuclei: np.ndarray,
    markers: np.ndarray,
    kernel: np.ndarray,
    territory: np.ndarray,
    longest_px: float,
    reach: int,
) -> bool:
    """Tell whether a piece is short enough, and no stained bridge in reach of nuclei joins it to one of them."""
    height, width = nuclei.shape
    rows, columns = piece[:, 0], piece[:, 1]
    if max(rows.max() - rows.min(), columns.max() - columns.min()) + 1 > longest_px:
        return False
    y0, y1 = max(rows.min() - reach, 0), min(rows.max() + 1 + reach, height)
    x0, x1 = max(columns.min() - reach, 0), min(columns.max() + 1 + reach, width)
    joined = np.zeros((y1 - y0 + 2, x1 - x0 + 2), np.bool_)
    for i in range(len(piece)):
        joined[rows[i] - y0 + 1, columns[i] - x0 + 1] = territory[rows[i], columns[i]] > 0
    if not joined.any():
        return True
    bridge, smooth = np.zeros(joined.shape, np.bool_), _smoothed(markers, kernel, y0, y1, x0, x1)
    for y in range(y0, y1):
        for x in range(x0, x1):
            if territory[y, x] > 0:
                stained = (smooth[:, y - y0, x - x0] > MARKER_THRESHOLD).any()
                bridge[y - y0 + 1, x - x0 + 1] = stained or nuclei[y, x] > 0
    _grow(joined, bridge)
    return not bool((joined[1:-1, 1:-1] & (nuclei[y0:y1, x0:x1] > 0)).any())


@njit(cache=True)
def _add_cytoplasm(
    labels: np.ndarray,
    territory: np.ndarray,
    markers: np.ndarray,
    kernel: np.ndarray,
    boxes: np.ndarray,
    order: np.ndarray,
) -> None:
    """Add to each nucleus what of its territory is stained and joined to it, and the holes in that."""
    for label in order:
        y0, y1, x0, x1 = boxes[label]
        cell = np.zeros((y1 - y0 + 2, x1 - x0 + 2), np.bool_)
        own = np.zeros(cell.shape, np.bool_)
        for y in range(y1 - y0):
            row, owner = labels[y0 + y, x0:x1], territory[y0 + y, x0:x1]
            for x in range(x1 - x0):
                cell[y + 1, x + 1] = row[x] == label
                own[y + 1, x + 1] = owner[x] == label and (row[x] == 0 or row[x] == label)
        _grow(cell, _stained(own, _smoothed(markers, kernel, y0, y1, x0, x1)))
        outside = np.zeros(cell.shape, np.bool_)
        outside[0, 0] = True
        _grow(outside, ~cell)
        for y in range(y1 - y0):
            row = labels[y0 + y, x0:x1]
            for x in range(x1 - x0):
                if own[y + 1, x + 1] and not outside[y + 1, x + 1]:
                    row[x] = label


@njit(cache=True)
def _stained(own: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Mask of the pixels of a territory where a marker is above the threshold and a share of its plateau."""
    count, height, width = near.shape
    stained = np.zeros(own.shape, np.bool_)
    for m in range(count):
        signal = near[m]
        for y in range(height):
            for x in range(width):
                bright = own[y + 1, x + 1] and signal[y, x] > MARKER_THRESHOLD
                signal[y, x] = signal[y, x] if bright else np.float32(0)
        least = np.float32(max(PLATEAU_SHARE * _plateau(signal), MARKER_THRESHOLD))
        for y in range(height):
            for x in range(width):
                stained[y + 1, x + 1] |= signal[y, x] > least
    return stained


@njit(cache=True)
def _plateau(signal: np.ndarray) -> float:
    """What `BRIGHTEST_SHARE` of the values over 1 are above, rounded down by at most 3 %."""
    counts = np.zeros(32 * 32, np.int32)
    # The bits of a positive float sort as it does: the exponent, then the mantissa, whose first 5 count here.
    one = 127 << 5
    for bits in signal.reshape(signal.size).view(np.int32):
        counts[min(max((int(bits) >> 18) - one, 0), len(counts) - 1)] += 1
    counts[0] = 0
    above = int(BRIGHTEST_SHARE * counts.sum())
    place = len(counts) - 1
    while place > 0 and above >= counts[place]:
        above -= counts[place]
        place -= 1
    return 2.0 ** (place // 32) * (1 + place % 32 / 32)


@njit(cache=True)
def _grow(mask: np.ndarray, allowed: np.ndarray) -> None:
    """Grow a mask in place over all allowed pixels joined to it (4-connected).

    A step off one end of a row lands on the other side of the ring around it: of that, all or nothing is allowed.
    """
    reached, free = mask.reshape(mask.size), allowed.reshape(mask.size)
    width = mask.shape[1]
    stack, top = np.empty(mask.size, np.int64), 0
    for i in range(mask.size):
        stack[top] = i
        top += reached[i]
    while top > 0:
        top -= 1
        i = stack[top]
        for j in (i - width, i - 1, i + 1, i + width):
            if 0 <= j < mask.size and free[j] and not reached[j]:
                reached[j] = True
                stack[top] = j
                top += 1
