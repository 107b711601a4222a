"""Which windows of a tile a nucleus finder looks at: one about each small stained region, a fixed grid over large ones.

A window's place and size follow from the stained region alone, and a patch of the grid from the slide's
origin: a finder sees the same pixels whatever tile asks, and says the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from ctc_imaging.segmentation.dark import BLOCK_PX
from ctc_imaging.segmentation.model import NucleusFinder

SIDES_PX = (32, 48, 64, 96, 128)
"""Windows are squares just large enough for a region, which has a rim of dark blocks of its own."""


@dataclass(frozen=True)
class Patches:
    """A fixed grid over large regions: the side of its squares, and what is shown around each (px)."""

    side_px: int
    margin_px: int


SLIDE_PATCHES = Patches(160, 16)
IMAGE_PATCHES = Patches(384, 64)
"""For single images, where halos cost nothing and every outline counts."""

LARGEST_PX = SIDES_PX[-1]
"""Regions longer than this are looked at patch by patch."""

AT_ONCE, PATCHES_AT_ONCE = 256, 16


@dataclass(frozen=True)
class Regions:
    """Stained regions of a tile, in blocks.

    Attributes
    ----------
    labels : int32 ndarray, shape (rows, columns)
        Region of each block, 0 where it is dark.
    boxes : int ndarray, shape (n, 4)
        Of the regions 1..n: top, left, height, width in working pixels.
    """

    labels: np.ndarray
    boxes: np.ndarray

    @property
    def large(self) -> np.ndarray:
        """Which regions are too long for a window of their own (bool, shape (n,))."""
        return self.boxes[:, 2:].max(axis=1, initial=0) > LARGEST_PX


def find_regions(stained: np.ndarray) -> Regions:
    """Join stained blocks, each with a rim of its neighbours, to regions."""
    wide = cv2.dilate(stained.astype(np.uint8), np.ones((3, 3), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(wide, connectivity=8)
    boxes = stats[1:, [cv2.CC_STAT_TOP, cv2.CC_STAT_LEFT, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_WIDTH]]
    return Regions(labels, boxes.astype(np.int64) * BLOCK_PX)


def touching(regions: Regions, zone: tuple[slice, slice]) -> np.ndarray:
    """Return which regions 1..n have a block in a zone given in working pixels (bool, shape (n,))."""
    rows, columns = (slice(side.start // BLOCK_PX, -(-side.stop // BLOCK_PX)) for side in zone)
    found = np.zeros(len(regions.boxes) + 1, bool)
    found[np.unique(regions.labels[rows, columns])] = True
    return found[1:]


def look(
    finder: NucleusFinder,
    signal: np.ndarray,
    regions: Regions,
    wanted: np.ndarray,
    zone: tuple[slice, slice],
    origin_px: tuple[int, int],
    pixel_size_um: float,
    patches: Patches = SLIDE_PATCHES,
) -> np.ndarray:
    """Let a finder look at regions.

    Parameters
    ----------
    finder : NucleusFinder
    signal : float32 ndarray, shape (h, w)
        Stain in noise units on the working grid; where it ends the slide ends, or nothing wanted is near.
    regions : Regions
    wanted : bool ndarray, shape (n,)
        Which regions to look at.
    zone : tuple of slice
        Where large regions are looked at.
    origin_px : tuple of int
        Of the signal's first pixel, in working pixels from the slide's origin; multiples of `BLOCK_PX`.
    pixel_size_um : float
        Of the working grid.
    patches : Patches

    Returns
    -------
    float32 ndarray, shape (4, h, w)
        See `NucleusFinder.maps`; zero where nobody looked.
    """
    maps = np.zeros((4, *signal.shape), np.float32)
    small = np.flatnonzero(wanted & ~regions.large) + 1
    for side, chosen in _by_side(regions, small):
        boxes = regions.boxes[chosen - 1]
        corners = boxes[:, :2] + (boxes[:, 2:] - side) // 2
        for start in range(0, len(chosen), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            seen = finder.maps(cut(signal, corners[part], side), pixel_size_um)
            _keep(maps, seen, corners[part], chosen[part], regions.labels)
    large = np.concatenate([[False], wanted & regions.large])[regions.labels]
    margin = patches.margin_px
    corners = np.array(list(_corners(large, zone, origin_px, patches)), np.int64).reshape(-1, 2)
    for start in range(0, len(corners), PATCHES_AT_ONCE):
        some = corners[start : start + PATCHES_AT_ONCE]
        seen = finder.maps(cut(signal, some - margin, patches.side_px + 2 * margin), pixel_size_um)
        inner = np.ascontiguousarray(seen[..., margin:-margin, margin:-margin])
        _keep(maps, inner, some, np.ones(len(some), np.int32), large.astype(np.int32))
    return maps


def _by_side(regions: Regions, chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Part regions by the side of the smallest window that shows them whole."""
    longest = regions.boxes[chosen - 1, 2:].max(axis=1, initial=0)
    classes = np.searchsorted(SIDES_PX, longest)
    for index, side in enumerate(SIDES_PX):
        members = chosen[classes == index]
        if len(members):
            yield side, members


def _corners(
    large: np.ndarray, zone: tuple[slice, slice], origin_px: tuple[int, int], patches: Patches
) -> Iterator[tuple[int, int]]:
    """Corners of the patches that touch a zone and hold a block of a large region, in the window's pixels."""
    side = patches.side_px
    for y in _grid(zone[0], origin_px[0], side):
        for x in _grid(zone[1], origin_px[1], side):
            rows = slice(max(y, 0) // BLOCK_PX, max(y + side, 0) // BLOCK_PX)
            columns = slice(max(x, 0) // BLOCK_PX, max(x + side, 0) // BLOCK_PX)
            if large[rows, columns].any():
                yield y, x


def _grid(zone: slice, origin_px: int, side_px: int) -> range:
    """First pixels of the squares, counted from the slide's origin, that touch a zone of the window."""
    first = (zone.start + origin_px) // side_px * side_px - origin_px
    return range(first, zone.stop, side_px)


@njit(cache=True)
def cut(signal: np.ndarray, corners: np.ndarray, side: int) -> np.ndarray:
    """Cut square windows; beyond the signal's edge they show its mirror image."""
    height, width = signal.shape
    windows = np.empty((len(corners), side, side), np.float32)
    for index in range(len(corners)):
        for row in range(side):
            y = _mirrored(corners[index, 0] + row, height)
            for column in range(side):
                windows[index, row, column] = signal[y, _mirrored(corners[index, 1] + column, width)]
    return windows


@njit(cache=True)
def _mirrored(place: int, length: int) -> int:
    if 0 <= place < length:
        return place
    if length == 1:
        return 0
    place = abs(place) % (2 * length - 2)
    return place if place < length else 2 * length - 2 - place


@njit(cache=True)
def _keep(maps: np.ndarray, seen: np.ndarray, corners: np.ndarray, labels: np.ndarray, blocks: np.ndarray) -> None:
    """Copy of each window the blocks that bear its label."""
    height, width = maps.shape[1:]
    side = seen.shape[-1]
    for index in range(len(corners)):
        top, left = corners[index]
        bottom, right = min(top + side, height), min(left + side, width)
        for row in range(max(top, 0) // BLOCK_PX, -(-bottom // BLOCK_PX)):
            column, last = max(left, 0) // BLOCK_PX, -(-right // BLOCK_PX)
            while column < last:
                start = column
                while column < last and blocks[row, column] == labels[index]:
                    column += 1
                if column == start:
                    column += 1
                    continue
                x0, x1 = max(start * BLOCK_PX, left, 0), min(column * BLOCK_PX, right)
                for plane in range(maps.shape[0]):
                    for y in range(max(row * BLOCK_PX, top, 0), min((row + 1) * BLOCK_PX, bottom)):
                        for x in range(x0, x1):
                            maps[plane, y, x] = seen[index, plane, y - top, x - left]
