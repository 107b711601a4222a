"""The slide-wide light field and camera noise, so that thresholds mean the same in every tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numba import njit
from scipy import ndimage

BLOCK_PX = 128
"""Side of the fixed blocks the background is measured in, counted from the slide's origin."""

BANDS, BAND_PX, STRIDE_PX = 4, 8, 2
"""Every second pixel of four bands of eight rows is enough for a block's level and noise."""

CLIP = 2.5
"""Pixels this many noise units above the level are cells or dirt, not background."""

DENSEST_SHARE = 0.2
"""Share of the pixels that must be background for its level to be found."""

ROUNDS = 4

_KERNEL_DTYPES = (np.uint8, np.uint16, np.float32)


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

    def over(self, pixels: np.ndarray, y0: int, x0: int, factor: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Turn the pixels of a window into binned light over background, bit for bit the same in every window.

        Parameters
        ----------
        pixels : ndarray, shape (C, h, w)
            Of any integer or floating type; one plane a channel of the background.
        y0, x0 : int
            The window's corner on the slide in native px, a multiple of `factor`.
        factor : int
            Native pixels along each side of a bin; bins cut by the far edges average the pixels they have.

        Returns
        -------
        above, signal : float32 ndarray, shape (C, ceil(h / factor), ceil(w / factor))
            A bin's mean less the level at its centre in the slide's units, and that in units of the noise of a
            single native pixel.

        Raises
        ------
        ValueError
            If the corner cuts a bin.
        """
        if y0 % factor or x0 % factor:
            raise ValueError(f"a window at ({y0}, {x0}) px cuts bins of {factor} px")
        planes = np.ascontiguousarray(pixels if pixels.dtype in _KERNEL_DTYPES else pixels.astype(np.float32))
        count, height, width = planes.shape
        above = np.empty((count, -(-height // factor), -(-width // factor)), np.float32)
        signal = np.empty_like(above)
        middle = (factor - 1) / 2
        rows = _weights(y0 + factor * np.arange(above.shape[1]) + middle, self.level.shape[1])
        columns = _weights(x0 + factor * np.arange(above.shape[2]) + middle, self.level.shape[2])
        first, last = rows[0][0], rows[1][-1]
        level, noise = (_along_x(grid[:, first : last + 1], columns) for grid in (self.level, self.noise))
        _over(planes, factor, level, noise, (rows[0] - first, rows[1] - first, rows[2]), above, signal)
        return above, signal


def measure_background(slide: PixelSource, channels: Mapping[str, int]) -> Background:
    """Measure background level and noise of a slide in one sparse pass: a quarter of its rows are read, each once.

    Four bands of rows are read of each row of blocks: cheap where rows lie bare (arrays, working copies), but
    a source that decodes whole chunks has to keep a slide's width of them.

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
    height = slide.shape[1]
    indices = list(channels.values())
    strips = [_measure_strip(_sample(slide, indices, y0)) for y0 in range(0, height, BLOCK_PX)]
    level, noise = np.moveaxis(np.stack(strips, axis=1), -1, 0)
    # A block full of cells has no background of its own: its neighbours' median stands in.
    level, noise = (ndimage.median_filter(grid, size=(1, 3, 3), mode="nearest") for grid in (level, noise))
    return Background(level.astype(np.float32), np.maximum(noise, _smallest_noise(noise)).astype(np.float32))


def _sample(slide: PixelSource, channels: list[int], y0: int) -> np.ndarray:
    """Read the sampled pixels of a row of blocks, (channels, rows, every second column)."""
    _, height, width = slide.shape
    bands = [
        slide.read(channels, y0 + start, y0 + stop, 0, width)[:, :, ::STRIDE_PX]
        for start, stop in _bands(min(BLOCK_PX, height - y0))
    ]
    return np.concatenate(bands, axis=1)


def _bands(rows: int) -> list[tuple[int, int]]:
    """Rows to sample of a block of so many: the middles of its quarters, or all where it is small."""
    quarter = rows // BANDS
    if quarter <= BAND_PX:
        return [(0, rows)]
    starts = [band * quarter + (quarter - BAND_PX) // 2 for band in range(BANDS)]
    return [(start, start + BAND_PX) for start in starts]


def _measure_strip(sample: np.ndarray) -> np.ndarray:
    """Level and noise of each block of a row of blocks, (channels, blocks, 2)."""
    channels, rows, columns = sample.shape
    side = BLOCK_PX // STRIDE_PX
    whole = columns // side
    blocks = sample[:, :, : whole * side].reshape(channels, rows, whole, side).transpose(0, 2, 1, 3)
    estimates = [_estimates(blocks.reshape(channels, whole, rows * side))] if whole else []
    if columns % side:
        estimates.append(_estimates(sample[:, :, whole * side :].reshape(channels, 1, -1)))
    return np.concatenate(estimates, axis=1)


def level_and_noise(pixels: np.ndarray) -> tuple[float, float]:
    """Estimate the background of pixels of which many may be brighter objects.

    Starts from the narrowest interval that holds a share of the pixels (background varies less than
    objects do, so that is where it lies, even where most pixels are cells), then takes the median of
    what remains after clipping brighter pixels. The noise is the spread of the half below (median
    absolute deviation, scaled to a Gaussian's standard deviation): objects only add light.
    """
    level, noise = _estimates(np.reshape(pixels, (1, -1)))[0]
    return float(level), float(noise)


def _estimates(pixels: np.ndarray) -> np.ndarray:
    """Level and noise of the pixels along the last axis (see `level_and_noise`), side by side on a last axis of 2."""
    known = pixels if pixels.dtype in _KERNEL_DTYPES else pixels.astype(np.float64)
    # Of short integers the stable sort is a radix sort, several times as fast.
    ordered = np.sort(known, axis=-1, kind="stable" if known.dtype.itemsize <= 2 else None)
    return _estimate_each(ordered.reshape(-1, ordered.shape[-1])).reshape(*ordered.shape[:-1], 2)


@njit(cache=True)
def _estimate_each(ordered: np.ndarray) -> np.ndarray:
    estimates = np.empty((len(ordered), 2))
    for block in range(len(ordered)):
        estimates[block] = _estimate(ordered[block])
    return estimates


@njit(cache=True)
def _estimate(ordered: np.ndarray) -> tuple[float, float]:
    """Level and noise of sorted pixels."""
    kept = len(ordered)
    level = _densest(ordered)
    noise = _spread_below(ordered, level)
    for _ in range(ROUNDS):
        remaining = int(np.searchsorted(ordered, level + CLIP * noise, side="right"))
        if remaining == kept or noise == 0:
            break
        kept = remaining
        level = _middle(ordered[:kept])
        noise = _spread_below(ordered, level)
    return level, noise


@njit(cache=True)
def _densest(ordered: np.ndarray) -> float:
    """Middle of the narrowest interval that holds `DENSEST_SHARE` of sorted values.

    Only intervals that start in the lower half count: saturated pixels don't vary at all, but lie above.
    """
    held = max(1, int(DENSEST_SHARE * len(ordered)))
    start, narrowest = 0, np.float64(ordered[held - 1]) - np.float64(ordered[0])
    for candidate in range(1, len(ordered) // 2 - held + 1):
        width = np.float64(ordered[candidate + held - 1]) - np.float64(ordered[candidate])
        if width < narrowest:
            start, narrowest = candidate, width
    return np.float64(ordered[start + held // 2])


@njit(cache=True)
def _spread_below(ordered: np.ndarray, level: float) -> float:
    """Scaled median distance of the pixels up to a level from it."""
    below = ordered[: max(1, np.searchsorted(ordered, level, side="right"))]
    return 1.4826 * (level - _middle(below))


@njit(cache=True)
def _middle(ordered: np.ndarray) -> float:
    """Median of sorted pixels."""
    half = len(ordered) // 2
    return 0.5 * (np.float64(ordered[half]) + np.float64(ordered[len(ordered) - 1 - half]))


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
    along_x = _along_x(grid, columns)
    share = down[None, :, None]
    # In place: this is done for every pixel of a slide, and memory is what it waits for.
    above, below = np.take(along_x, top, axis=1), np.take(along_x, bottom, axis=1)
    above *= 1 - share
    below *= share
    above += below
    return above


def _along_x(grid: np.ndarray, columns: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    left, right, across = columns
    # Indexing with arrays would lay it out column by column.
    return np.take(grid, left, axis=2) * (1 - across) + np.take(grid, right, axis=2) * across


@njit(cache=True)
def _over(
    pixels: np.ndarray,
    factor: int,
    level: np.ndarray,
    noise: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
    above: np.ndarray,
    signal: np.ndarray,
) -> None:
    """Fill `above` and `signal`; level and noise are interpolated along x already."""
    top, bottom, down = rows
    for channel in range(len(pixels)):
        for y in range(len(top)):
            upper, lower, share = top[y], bottom[y], down[y]
            _bin(pixels[channel, y * factor : (y + 1) * factor], factor, above[channel, y])
            _subtract(above[channel, y], level[channel, upper], level[channel, lower], share)
            _divide(above[channel, y], noise[channel, upper], noise[channel, lower], share, signal[channel, y])


@njit(cache=True)
def _bin(rows: np.ndarray, factor: int, means: np.ndarray) -> None:
    """Average the bins of one row of bins."""
    if factor == 1:
        row = rows[0]
        for x in range(len(means)):
            means[x] = row[x]
        return
    whole = rows.shape[1] // factor
    means[:] = 0
    for row in rows:
        if factor == 2:
            for x in range(whole):
                means[x] += np.float32(row[2 * x]) + np.float32(row[2 * x + 1])
        else:
            for x in range(whole):
                for column in range(x * factor, (x + 1) * factor):
                    means[x] += np.float32(row[column])
        for column in range(whole * factor, len(row)):
            means[whole] += np.float32(row[column])
    share = np.float32(1 / (len(rows) * factor))
    for x in range(whole):
        means[x] *= share
    if whole < len(means):
        means[whole] /= np.float32(len(rows) * (rows.shape[1] - whole * factor))


@njit(cache=True)
def _subtract(means: np.ndarray, upper: np.ndarray, lower: np.ndarray, share: float) -> None:
    rest = np.float32(1) - share
    for x in range(len(means)):
        means[x] -= upper[x] * rest + lower[x] * share


# The error model of numpy: a check for zero before each division would keep it from several at once.
@njit(cache=True, error_model="numpy")
def _divide(above: np.ndarray, upper: np.ndarray, lower: np.ndarray, share: float, signal: np.ndarray) -> None:
    rest = np.float32(1) - share
    for x in range(len(above)):
        signal[x] = above[x] / (upper[x] * rest + lower[x] * share)
