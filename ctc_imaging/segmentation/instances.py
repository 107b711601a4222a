"""From maps of a window to nuclei: each pixel goes where its step points, and belongs to who is there."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

FOREGROUND = 0.5
SEED_DEPTH = 0.5
NEAR_PX = 3
"""A step that ends this near to a seed has arrived."""

MIN_DIAMETER_UM = 3.0


def find_instances(maps: np.ndarray, min_area_px: float, longest_step_px: float = np.inf) -> np.ndarray:
    """Part the foreground into nuclei.

    Parameters
    ----------
    maps : float32 ndarray, shape (4, h, w)
        Foreground (0 to 1), depth (0 to 1), and the step to the nucleus's centre (rows, columns; px).
    min_area_px : float
        Smaller nuclei are specks.
    longest_step_px : float
        Steps are cut to this, rows and columns apart, so that what a pixel depends on lies within `support_px`.

    Returns
    -------
    int32 ndarray, shape (h, w)
        Labels 1..n in the reading order of the nuclei's first pixels.
    """
    foreground = maps[0] > FOREGROUND
    _, seeds = cv2.connectedComponents((foreground & (maps[1] > SEED_DEPTH)).astype(np.uint8), connectivity=8)
    pixels = np.flatnonzero(foreground)
    voted = _vote(pixels, seeds, maps[2], maps[3], longest_step_px)
    kept = _grow(pixels, voted, seeds)
    return _renumber(pixels, kept, min_area_px)


def support_px(longest_step_px: float) -> int:
    """How far from a pixel (px) lies what decides to whom it votes."""
    return int(np.ceil(longest_step_px)) + 1 + NEAR_PX


@njit(cache=True)
def _vote(pixels: np.ndarray, seeds: np.ndarray, down: np.ndarray, right: np.ndarray, longest: float) -> np.ndarray:
    """Give each foreground pixel the seed that its step leads to; 0 where it leads nowhere."""
    height, width = seeds.shape
    voted = np.zeros((height, width), np.int32)
    for pixel in pixels:
        y, x = pixel // width, pixel % width
        if seeds[y, x]:
            voted[y, x] = seeds[y, x]
            continue
        row = y + min(max(down[y, x], -longest), longest)
        column = x + min(max(right[y, x], -longest), longest)
        at_y = min(max(int(np.floor(row + 0.5)), 0), height - 1)
        at_x = min(max(int(np.floor(column + 0.5)), 0), width - 1)
        voted[y, x] = _nearest(seeds, at_y, at_x)
    return voted


@njit(cache=True)
def _nearest(seeds: np.ndarray, y: int, x: int) -> int:
    """Seed nearest to a pixel, within `NEAR_PX`; of equally near ones the first in reading order."""
    if seeds[y, x]:
        return seeds[y, x]
    best, found = NEAR_PX * NEAR_PX + 1, 0
    for row in range(max(y - NEAR_PX, 0), min(y + NEAR_PX + 1, seeds.shape[0])):
        for column in range(max(x - NEAR_PX, 0), min(x + NEAR_PX + 1, seeds.shape[1])):
            squared = (row - y) ** 2 + (column - x) ** 2
            if seeds[row, column] and squared < best:
                best, found = squared, seeds[row, column]
    return found


@njit(cache=True)
def _grow(pixels: np.ndarray, voted: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Keep of each nucleus what hangs together with its seed."""
    height, width = voted.shape
    kept = np.zeros((height, width), np.int32)
    queue = np.empty(len(pixels), np.int64)
    filled = 0
    for pixel in pixels:
        y, x = pixel // width, pixel % width
        if seeds[y, x]:
            kept[y, x] = seeds[y, x]
            queue[filled] = pixel
            filled += 1
    taken = 0
    while taken < filled:
        y, x = queue[taken] // width, queue[taken] % width
        taken += 1
        for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0)):
            row, column = y + dy, x + dx
            inside = 0 <= row < height and 0 <= column < width
            if inside and kept[row, column] == 0 and voted[row, column] == kept[y, x]:
                kept[row, column] = kept[y, x]
                queue[filled] = row * width + column
                filled += 1
    return kept


@njit(cache=True)
def _renumber(pixels: np.ndarray, labels: np.ndarray, min_area_px: float) -> np.ndarray:
    """Number labels 1..n by their first pixels, leaving out specks."""
    width = labels.shape[1]
    most = 0
    for pixel in pixels:
        most = max(most, labels[pixel // width, pixel % width])
    areas = np.zeros(most + 1, np.int64)
    for pixel in pixels:
        areas[labels[pixel // width, pixel % width]] += 1
    lookup = np.zeros(most + 1, np.int32)
    count = 0
    for pixel in pixels:
        y, x = pixel // width, pixel % width
        label = labels[y, x]
        if label == 0:
            continue
        if areas[label] < min_area_px:
            labels[y, x] = 0
            continue
        if lookup[label] == 0:
            count += 1
            lookup[label] = count
        labels[y, x] = lookup[label]
    return labels
