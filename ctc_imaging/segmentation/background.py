"""The slide-wide light field and camera noise, so that thresholds mean the same in every tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import ndimage

BLOCK_PX = 128
"""Side of the fixed blocks the background is measured in, counted from the slide's origin."""

STRIDE_PX = 2
"""Every second pixel of a block is enough for its level and noise."""

CLIP = 2.5
"""Pixels this many noise units above the level are cells or dirt, not background."""

DENSEST_SHARE = 0.2
"""Share of the pixels that must be background for its level to be found."""

ROUNDS = 4


class PixelSource(Protocol):
    """What this package needs of a slide."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""

    def read(self, channels: list[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Return the pixels of a window, (channels, rows, columns)."""


@dataclass(frozen=True)
class Background:
    """Level and noise of each panel channel on a grid of blocks.

    Attributes
    ----------
    level, noise : float32 ndarray, shape (C, rows, columns)
        Background in the slide's units, and the standard deviation of its pixels.
    """

    level: np.ndarray
    noise: np.ndarray

    def window(self, y0: int, y1: int, x0: int, x1: int) -> tuple[np.ndarray, np.ndarray]:
        """Interpolate level and noise at each pixel of a window.

        Returns
        -------
        level, noise : float32 ndarray, shape (C, y1 - y0, x1 - x0)
        """
        rows = _weights(np.arange(y0, y1), self.level.shape[1])
        columns = _weights(np.arange(x0, x1), self.level.shape[2])
        return _bilinear(self.level, rows, columns), _bilinear(self.noise, rows, columns)

    def signal(self, pixels: np.ndarray, y0: int, x0: int) -> np.ndarray:
        """Turn the pixels of a window into signal over background in noise units (float32)."""
        level, noise = self.window(y0, y0 + pixels.shape[1], x0, x0 + pixels.shape[2])
        return (pixels.astype(np.float32) - level) / noise


def measure_background(slide: PixelSource, channels: Mapping[str, int]) -> Background:
    """Measure background level and noise of a slide in one sparse pass.

    Parameters
    ----------
    slide : Slide
        Anything with ``shape`` (C, Y, X) and ``read``.
    channels : mapping of str to int
        Short name to channel index, in panel order (see `Panel.assign`).

    Returns
    -------
    Background
        Its first axis follows `channels`.
    """
    _, height, width = slide.shape
    indices = list(channels.values())
    strips = [
        _measure_strip(slide.read(indices, y0, min(y0 + BLOCK_PX, height), 0, width))
        for y0 in range(0, height, BLOCK_PX)
    ]
    level, noise = np.stack([np.stack(parts, axis=1) for parts in zip(*strips, strict=True)])
    # A block full of cells has no background of its own: its neighbours' median stands in.
    level, noise = (ndimage.median_filter(grid, size=(1, 3, 3), mode="nearest") for grid in (level, noise))
    return Background(level.astype(np.float32), np.maximum(noise, _smallest_noise(noise)).astype(np.float32))


def _measure_strip(strip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    width = strip.shape[2]
    estimates = np.array(
        [
            [level_and_noise(plane[::STRIDE_PX, x0 : x0 + BLOCK_PX : STRIDE_PX]) for x0 in range(0, width, BLOCK_PX)]
            for plane in strip
        ]
    )
    return estimates[..., 0], estimates[..., 1]


def level_and_noise(pixels: np.ndarray) -> tuple[float, float]:
    """Estimate the background of pixels of which many may be brighter objects.

    Starts from the narrowest interval that holds a share of the pixels (background varies less than
    objects do, so that is where it lies, even where most pixels are cells), then takes the median of
    what remains after clipping brighter pixels. The noise is the spread of the half below (median
    absolute deviation, scaled to a Gaussian's standard deviation): objects only add light.
    """
    values = np.sort(pixels, axis=None).astype(np.float64)
    level = _densest(values)
    noise = _spread_below(values, level)
    kept = len(values)
    for _ in range(ROUNDS):
        remaining = int(np.searchsorted(values, level + CLIP * noise, side="right"))
        if remaining == kept or noise == 0:
            break
        kept = remaining
        level = float(np.median(values[:kept]))
        noise = _spread_below(values, level)
    return level, noise


def _densest(ordered: np.ndarray) -> float:
    """Middle of the narrowest interval that holds `DENSEST_SHARE` of sorted values.

    Only intervals that start in the lower half count: saturated pixels don't vary at all, but lie above.
    """
    held = max(1, int(DENSEST_SHARE * len(ordered)))
    starts = max(1, len(ordered) // 2 - held + 1)
    widths = ordered[held - 1 : held - 1 + starts] - ordered[:starts]
    start = int(np.argmin(widths))
    return float(ordered[start + held // 2])


def _spread_below(ordered: np.ndarray, level: float) -> float:
    below = ordered[: max(1, int(np.searchsorted(ordered, level, side="right")))]
    return 1.4826 * float(np.median(level - below))


def _smallest_noise(noise: np.ndarray) -> np.ndarray:
    """A floor per channel for blocks without noise (clipped, padded or constant pixels)."""
    positive = np.where(noise > 0, noise, np.nan)
    with np.errstate(all="ignore"):
        typical = np.array(
            [np.median(grid[np.isfinite(grid)]) if np.isfinite(grid).any() else 1.0 for grid in positive]
        )
    return (0.25 * typical)[:, None, None]


def _weights(pixels: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left block, right block and the right one's share for each pixel position."""
    position = np.clip((pixels - (BLOCK_PX - 1) / 2) / BLOCK_PX, 0, blocks - 1)
    left = np.minimum(np.floor(position).astype(np.intp), max(blocks - 2, 0))
    right = np.minimum(left + 1, blocks - 1)
    return left, right, (position - left).astype(np.float32)


def _bilinear(
    grid: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
    columns: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    top, bottom, down = rows
    left, right, across = columns
    along_x = grid[:, :, left] * (1 - across) + grid[:, :, right] * across
    share = down[None, :, None]
    # In place: this is done for every pixel of a slide, and memory is what it waits for.
    above, below = np.take(along_x, top, axis=1), np.take(along_x, bottom, axis=1)
    above *= 1 - share
    below *= share
    above += below
    return above
