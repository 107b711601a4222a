"""Figures of every stain in fixed blocks of a slide, measured in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.panel import Panel, Role
from ctc_imaging.sharpness import blur_um

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ctc_imaging.slide import Slide

# Blocks lie on a fixed grid from the slide's corner, so that no figure depends on any tile size.
BLOCK_PX = 256

# A remnant at the lower or right border narrower than this holds too few nuclei to judge by itself.
MIN_SIDE_PX = 64

# Above five times the noise a nucleus is certain (good stains have 10 to 30) and its edge measurable.
MIN_NUCLEUS_SNR = 5.0

# Rounding to grey levels is itself a noise of this many levels, the least an integer image can have.
QUANTISATION_NOISE = 12**-0.5

_COARSE_PX = 4
_FIGURES = ("background", "noise", "top", "minimum", "maximum", "at_maximum", "zeros")
_BLOCK = np.dtype([(name, np.float64) for name in _FIGURES])


@dataclass(frozen=True, eq=False)
class Blocks:
    """Figures of a slide's blocks, each an array of shape (gy, gx).

    `stains` has, by short name, structured arrays in grey levels: ``background`` (25th centile) and ``top``
    (99.9th) of means of 4 x 4 px, ``noise`` (standard deviation of a pixel), ``minimum`` and ``maximum``; and
    in pixels ``at_maximum`` and ``zeros``. `has_nuclei` marks where the nuclear stain rises well above its
    noise, and `blur_um` is the nuclei's blur, NaN where there are none.
    """

    areas_px: NDArray[np.float64]
    stains: Mapping[str, NDArray]
    zeros_px: NDArray[np.float64]
    has_nuclei: NDArray[np.bool_]
    blur_um: NDArray[np.float64]

    def share(self, where: NDArray[np.bool_]) -> float:
        """Share of the slide's area in some of its blocks."""
        return float(self.areas_px[where].sum() / self.areas_px.sum())


def measure_blocks(slide: Slide, channels: Mapping[str, int], panel: Panel) -> Blocks:
    """Measure every stain in every block of 256 px, reading each pixel once.

    Parameters
    ----------
    slide : Slide
    channels : mapping of str to int
        The panel's short names to the slide's channels.
    panel : Panel

    Returns
    -------
    Blocks

    Raises
    ------
    SlideError
        If a chunk of the slide is damaged.
    """
    edges = [np.append(np.arange(0, size, BLOCK_PX), size) for size in slide.shape[1:]]
    areas = np.outer(*(np.diff(edge) for edge in edges)).astype(np.float64)
    stains = {short: np.zeros(areas.shape, _BLOCK) for short in channels}
    blur = np.full(areas.shape, np.nan)
    nucleus = next((c.short for c in panel.channels if c.role == Role.NUCLEUS and c.short in channels), None)
    for row, column in np.ndindex(areas.shape):
        region = [int(edge[at + end]) for edge, at in zip(edges, (row, column), strict=True) for end in (0, 1)]
        for short, plane in zip(channels, slide.read(list(channels.values()), *region), strict=True):
            stains[short][row, column] = _measure(plane)
            if short == nucleus:
                blur[row, column] = _blur_um(plane, stains[short][row, column], slide.pixel_size_um)
    nuclei = stains.get(nucleus or "", np.zeros(areas.shape, _BLOCK))
    return Blocks(areas, stains, nuclei["zeros"], _has_nuclei(nuclei, slide.dtype), blur)


def floored_noise(noise: NDArray | float, span: NDArray | float, dtype: np.dtype) -> NDArray[np.float64]:
    """Keep noise above the rounding of the pixels, so that noise-free images have a finite SNR.

    Parameters
    ----------
    noise, span : ndarray or float
        Noise, and the range from darkest to brightest pixel, in grey levels.
    dtype : numpy.dtype
        Of the pixels.

    Returns
    -------
    ndarray of float64
        Never 0.
    """
    rounding = QUANTISATION_NOISE if dtype.kind == "u" else np.multiply(span, 1e-6)
    return np.maximum(np.maximum(noise, rounding), np.finfo(np.float32).tiny)


def _measure(plane: NDArray) -> tuple[float, ...]:
    """Return the figures of `_FIGURES`, in their order."""
    pixels = plane.astype(np.float32)
    background, top = np.percentile(_coarse(pixels), [25, 99.9])
    # Neighbours differ by noise alone where the image is smooth, and the median leaves out where it isn't.
    steps = np.abs(np.diff(pixels[::_COARSE_PX], axis=1))
    noise = 1.4826 * 0.5**0.5 * float(np.median(steps)) if steps.size else 0.0
    low, high = float(plane.min()), float(plane.max())
    return background, noise, top, low, high, float(np.sum(plane == high)), float(np.sum(plane == 0))


def _coarse(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average squares of 4 x 4 px, leaving out what doesn't fill one."""
    high, wide = (size // _COARSE_PX for size in pixels.shape)
    if not high or not wide:
        return pixels
    cut = pixels[: high * _COARSE_PX, : wide * _COARSE_PX]
    return cut.reshape(high, _COARSE_PX, wide, _COARSE_PX).mean(axis=(1, 3))


def _has_nuclei(stats: NDArray, dtype: np.dtype) -> NDArray[np.bool_]:
    noise = floored_noise(stats["noise"], stats["maximum"] - stats["minimum"], dtype)
    return stats["top"] - stats["background"] >= MIN_NUCLEUS_SNR * noise


def _blur_um(plane: NDArray, stats: NDArray, pixel_size_um: float | None) -> float:
    if pixel_size_um is None or min(plane.shape) < MIN_SIDE_PX or not _has_nuclei(stats, plane.dtype):
        return np.nan
    background, noise, top = (float(stats[name]) for name in ("background", "noise", "top"))
    return blur_um(plane, background, top - background, noise, pixel_size_um)
