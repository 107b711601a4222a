"""Bubbles and folds: wide areas whose background is lifted or dimmed in every channel at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ctc_imaging.blocks import BLOCK_PX, PATCH_PX, Blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# Cells stain some channels, bubbles and folds shift all. With two channels a clump of leukocytes looks the same.
_MIN_CHANNELS = 3

# In units of a pixel's noise, and as a ratio, both needed: on simulated slides of every setting no patch departs
# from the field by 2.4 in every channel, with a vignetting of 40 % too.
_MIN_SHIFT = 3.0
_MIN_RATIO = 1.3

# Fifteen cells across; the dark corners of four fields that meet (vignetting 40 %) span less.
_MIN_LENGTH_UM = 150.0

# The light is even over this distance, and what is enclosed by a wider ring is no bubble (the edge of a coverslip).
_FIELD_UM = 2000.0

# Where the scale isn't known, that of a usual scan is taken.
_USUAL_PIXEL_UM = 0.5

_CLIP = 2.5
_ROUNDS = 6
_MOST_POINTS = 20_000


def find_bubbles(
    blocks: Blocks,
    noise: Mapping[str, float],
    void: NDArray[np.bool_],
    slide_px: tuple[int, int],
    pixel_um: float | None,
) -> NDArray[np.bool_]:
    """Find the blocks that lie under a bubble or a fold.

    Parameters
    ----------
    blocks : Blocks
    noise : mapping of str to float
        Noise of a pixel of each channel, by short name.
    void : ndarray of bool, shape (gy, gx)
        Blocks that were never scanned.
    slide_px : tuple of int
        Height and width of the slide.
    pixel_um : float or None
        Side of a pixel in µm.

    Returns
    -------
    ndarray of bool, shape (gy, gx)
    """
    if len(noise) < _MIN_CHANNELS:
        return np.zeros(void.shape, bool)
    pixel_um = pixel_um or _USUAL_PIXEL_UM
    levels = np.stack([level_map(blocks, short) for short in noise])
    known = known_patches(levels, void, slide_px)
    lifted, dimmed = known.copy(), known.copy()
    for level, spread in zip(levels, noise.values(), strict=True):
        field = light_field(level, known, max(1, round(_FIELD_UM / (BLOCK_PX * pixel_um))))
        ratio = np.maximum(level + spread, spread) / np.maximum(field + spread, spread)
        lifted &= (level - field > _MIN_SHIFT * spread) & (ratio > _MIN_RATIO)
        dimmed &= (field - level > _MIN_SHIFT * spread) & (ratio < 1 / _MIN_RATIO)
    patch_um = PATCH_PX * pixel_um
    patches = _large(lifted | dimmed, _MIN_LENGTH_UM / patch_um, _FIELD_UM / patch_um) & known
    return np.any(_by_block(patches), axis=(1, 3))


def level_map(blocks: Blocks, short: str) -> NDArray[np.float32]:
    """Lay a channel's background levels on patches side by side, shape (py, px)."""
    levels = blocks.stains[short]["levels"]
    rows, columns, side, _ = levels.shape
    return levels.swapaxes(1, 2).reshape(rows * side, columns * side)


def known_patches(levels: NDArray[np.float32], void: NDArray[np.bool_], slide_px: tuple[int, int]) -> NDArray[np.bool_]:
    """Find the patches that lie on the slide and were scanned: (C, py, px) to (py, px)."""
    side = BLOCK_PX // PATCH_PX
    known: NDArray[np.bool_] = np.any(levels != 0, axis=0)
    known &= ~void.repeat(side, axis=0).repeat(side, axis=1)
    known[-(-slide_px[0] // PATCH_PX) :] = False
    known[:, -(-slide_px[1] // PATCH_PX) :] = False
    return known


def light_field(level: NDArray[np.float32], known: NDArray[np.bool_], window_blocks: int) -> NDArray[np.float64]:
    """Estimate the background as it would be without bubbles and folds.

    A quadratic surface follows light that falls off over the slide; what is left of it over millimetres is the
    median of the blocks around.

    Parameters
    ----------
    level : ndarray of float32, shape (py, px)
        Background of patches, a whole number of blocks.
    known : ndarray of bool, shape (py, px)
        Patches to go by.
    window_blocks : int
        Reach of that median.

    Returns
    -------
    ndarray of float64, shape (py, px)
    """
    if not known.any():
        return level.astype(np.float64)
    surface = _surface(level, known)
    rest = np.where(known, level - surface, np.nan)
    side = BLOCK_PX // PATCH_PX
    of_block = _by_block(rest).swapaxes(1, 2).reshape(level.shape[0] // side, level.shape[1] // side, -1)
    seen = np.isfinite(of_block).any(axis=2)
    typical = np.zeros(seen.shape)
    typical[seen] = np.nanmedian(of_block[seen], axis=1)
    nearest = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
    local = ndimage.median_filter(typical[tuple(nearest)], size=2 * (window_blocks // 2) + 1, mode="reflect")
    return surface + local.repeat(side, axis=0).repeat(side, axis=1)


def _by_block(patches: NDArray) -> NDArray:
    """Take patches apart by block: (gy, 4, gx, 4)."""
    side = BLOCK_PX // PATCH_PX
    return patches.reshape(patches.shape[0] // side, side, patches.shape[1] // side, side)


def _surface(level: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fit a quadratic surface to most of the patches, whatever the others are."""
    y, x = (2 * at / max(size - 1, 1) - 1 for at, size in zip(np.indices(level.shape), level.shape, strict=True))
    terms = np.stack([np.ones(level.shape), y, x, y * y, y * x, x * x], axis=-1)
    step = -(-int(known.sum()) // _MOST_POINTS)
    points, values = terms[known][::step], level[known][::step].astype(np.float64)
    kept = np.ones(len(values), bool)
    for _ in range(_ROUNDS):
        weights = np.linalg.lstsq(points[kept], values[kept], rcond=None)[0]
        rest = np.abs(values - points @ weights)
        kept = rest <= max(_CLIP * 1.4826 * float(np.median(rest)), 1e-6 * float(np.abs(values).max()))
    return terms @ weights


def _large(shifted: NDArray[np.bool_], min_length: float, widest: float) -> NDArray[np.bool_]:
    """Keep the areas of some length (in patches), each with its rim and with what it encloses."""
    everywhere = np.ones((3, 3), bool)
    areas, _ = ndimage.label(ndimage.binary_dilation(shifted, everywhere), structure=everywhere)
    kept = np.zeros(shifted.shape, bool)
    for number, box in enumerate(ndimage.find_objects(areas), start=1):
        area = areas[box] == number
        if _longest_side(shifted[box] & area) >= min_length:
            kept[box] |= area
    enclosed, _ = ndimage.label(ndimage.binary_fill_holes(kept) & ~kept)
    for number, box in enumerate(ndimage.find_objects(enclosed), start=1):
        if max(side.stop - side.start for side in box) <= widest:
            kept[box] |= enclosed[box] == number
    return kept


def _longest_side(mask: NDArray[np.bool_]) -> int:
    """Longer side of the box around a mask."""
    return max(int(np.ptp(at)) + 1 for at in np.nonzero(mask))
