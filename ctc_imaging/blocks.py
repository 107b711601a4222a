"""Figures of every stain in fixed blocks of a slide, measured in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ctc_imaging.panel import Panel, Role
from ctc_imaging.sharpness import blur_um
from ctc_imaging.staining import measure_overlap, overlap_type

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

# A block's background is also kept on squares of this side, fine enough to see the rim of a bubble.
PATCH_PX = 64

_COARSE_PX = 4
_PATCHES = BLOCK_PX // PATCH_PX
_FIGURES = ("background", "noise", "top", "minimum", "maximum", "at_maximum", "zeros")
_BLOCK = np.dtype([*((name, np.float64) for name in _FIGURES), ("levels", np.float32, (_PATCHES, _PATCHES))])


@dataclass(frozen=True, eq=False)
class Blocks:
    """Figures of a slide's blocks, each an array of shape (gy, gx).

    `stains` has, by short name, structured arrays in grey levels: ``background`` (25th centile) and ``top``
    (99.9th) of means of 4 x 4 px, ``noise`` (standard deviation of a pixel), ``minimum`` and ``maximum``,
    ``levels`` (4 x 4 medians of patches of 64 px); and in pixels ``at_maximum`` and ``zeros``. `has_nuclei` marks
    where the nuclear stain rises well above its noise, `blur_um` is the nuclei's blur, NaN where there are none,
    and `nuclei_fraction` the share of the area they cover. `overlaps` are structured arrays, see
    `ctc_imaging.staining.overlap_type`.
    """

    areas_px: NDArray[np.float64]
    stains: Mapping[str, NDArray]
    zeros_px: NDArray[np.float64]
    has_nuclei: NDArray[np.bool_]
    blur_um: NDArray[np.float64]
    nuclei_fraction: NDArray[np.float64]
    overlaps: NDArray

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
    overlaps = np.zeros(areas.shape, overlap_type(len(channels)))
    blur = np.full(areas.shape, np.nan)
    nucleus = next((c.short for c in panel.channels if c.role == Role.NUCLEUS and c.short in channels), None)
    for at in np.ndindex(areas.shape):
        region = [int(edge[i + end]) for edge, i in zip(edges, at, strict=True) for end in (0, 1)]
        planes = dict(zip(channels, slide.read(list(channels.values()), *region), strict=True))
        for short, plane in planes.items():
            stains[short][at] = _measure(plane)
        overlaps[at] = measure_overlap(_signal(planes, {short: stains[short][at] for short in planes}, slide))
        if nucleus is not None:
            blur[at] = _blur_um(planes[nucleus], stains[nucleus][at], slide.pixel_size_um)
    if nucleus is None:
        zeros = np.zeros(areas.shape)
        return Blocks(areas, stains, zeros, zeros > 0, blur, zeros, overlaps)
    nuclei, covered = stains[nucleus], overlaps["body"][..., list(channels).index(nucleus)]
    fraction = covered * _bin_px(slide.pixel_size_um) ** 2 / areas
    return Blocks(areas, stains, nuclei["zeros"], _has_nuclei(nuclei, slide.dtype), blur, fraction, overlaps)


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


def _measure(plane: NDArray) -> tuple[object, ...]:
    """Return the fields of `_BLOCK`, in their order."""
    pixels = plane.astype(np.float32)
    coarse = _shrunk(pixels, _COARSE_PX)
    background, top = np.percentile(coarse, [25, 99.9])
    # Neighbours differ by noise alone where the image is smooth, and the median leaves out where it isn't.
    steps = np.abs(np.diff(pixels[::_COARSE_PX], axis=1))
    noise = 1.4826 * 0.5**0.5 * float(np.median(steps)) if steps.size else 0.0
    low, high = float(plane.min()), float(plane.max())
    zeros = plane.size - np.count_nonzero(plane)
    return background, noise, top, low, high, np.count_nonzero(plane == high), zeros, _levels(coarse)


def _levels(coarse: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median of each patch of a block; a patch beyond the slide repeats the last pixels before its border."""
    side = BLOCK_PX // _COARSE_PX
    if coarse.shape != (side, side):
        coarse = coarse[:side, :side]
        coarse = np.pad(coarse, [(0, side - size) for size in coarse.shape], mode="edge")
    patch = side // _PATCHES
    patches = coarse.reshape(_PATCHES, patch, _PATCHES, patch).swapaxes(1, 2).reshape(_PATCHES, _PATCHES, -1)
    return np.partition(patches, patch * patch // 2, axis=2)[..., patch * patch // 2]


def _shrunk(pixels: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Average squares of `factor` px, leaving out what doesn't fill one."""
    high, wide = (size // factor for size in pixels.shape)
    if factor == 1 or not high or not wide:
        return pixels
    return cv2.resize(pixels[: high * factor, : wide * factor], (wide, high), interpolation=cv2.INTER_AREA)


def _bin_px(pixel_size_um: float | None) -> int:
    """Side in px of the squares of about 1 µm on which stains are compared; 2 where the scale isn't known."""
    return 2 if pixel_size_um is None else max(1, round(1 / pixel_size_um))


def _signal(planes: Mapping[str, NDArray], stats: Mapping[str, NDArray], slide: Slide) -> NDArray[np.float32]:
    """Means of about 1 x 1 µm over the block's background, in units of their noise, shape (C, h, w)."""
    bin_px = _bin_px(slide.pixel_size_um)
    signals = []
    for short, plane in planes.items():
        figures = stats[short]
        noise = floored_noise(figures["noise"], figures["maximum"] - figures["minimum"], slide.dtype) / bin_px
        binned = _shrunk(plane.astype(np.float32), bin_px)
        signals.append((binned - np.float32(figures["background"])) / np.float32(noise))
    return np.stack(signals)


def _has_nuclei(stats: NDArray, dtype: np.dtype) -> NDArray[np.bool_]:
    noise = floored_noise(stats["noise"], stats["maximum"] - stats["minimum"], dtype)
    return stats["top"] - stats["background"] >= MIN_NUCLEUS_SNR * noise


def _blur_um(plane: NDArray, stats: NDArray, pixel_size_um: float | None) -> float:
    if pixel_size_um is None or min(plane.shape) < MIN_SIDE_PX or not _has_nuclei(stats, plane.dtype):
        return np.nan
    background, noise, top = (float(stats[name]) for name in ("background", "noise", "top"))
    return blur_um(plane, background, top - background, noise, pixel_size_um)
