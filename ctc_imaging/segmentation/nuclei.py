"""Nuclei in one window: seeds at the scale of a nucleus, watershed, outlines at a share of each plateau."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

NOISE_THRESHOLD = 4.0
"""A pixel of the smoothed stain may be nucleus from this signal (noise units of a single pixel)."""

SMOOTHING_UM = 0.5
SEED_SCALE_UM = 1.5
"""Blur before looking for seeds: lobes of one nucleus (about 3 µm apart) melt, nuclei (7 µm) don't."""

SEED_RADIUS_UM = 2.0
PLATEAU_SHARE = 0.4
"""A nucleus ends where the stain falls to this share of its own plateau."""

MIN_DIAMETER_UM = 3.0
MAX_CLUMP_UM = 150.0
"""Nothing connected and longer than this is taken for a clump of cells."""

RAISE = 1.2
RAISES = 24
"""How often the threshold is raised for a longer one (80-fold in all), before it is left out and reported."""


@dataclass(frozen=True)
class Nuclei:
    """Nuclei of a window.

    Attributes
    ----------
    labels : int32 ndarray, shape (h, w)
        0 where there is no nucleus.
    clumps : int32 ndarray, shape (h, w)
        Connected stained regions: what one watershed flooded, nuclei in it depend on nothing outside.
    oversized : bool ndarray, shape (h, w)
        Stained regions too long to be cells, however high the threshold: no nucleus is looked for there.
    """

    labels: np.ndarray
    clumps: np.ndarray
    oversized: np.ndarray


def support_px(pixel_size_um: float) -> int:
    """How far from a pixel (px) the image can influence whether it is stained or a seed."""
    sigma_px = max(SEED_SCALE_UM, SMOOTHING_UM) / pixel_size_um
    return int(np.ceil(4 * sigma_px + SEED_RADIUS_UM / pixel_size_um)) + 4


def find_nuclei(
    signal: np.ndarray,
    pixel_size_um: float,
    threshold: float = NOISE_THRESHOLD,
    trusted: tuple[slice, slice] = (slice(None), slice(None)),
) -> Nuclei:
    """Segment the nuclei of one window.

    Parameters
    ----------
    signal : float32 ndarray, shape (h, w)
        Nuclear stain over background, in noise units.
    pixel_size_um : float
    threshold : float
        Smallest signal of a stained pixel.
    trusted : tuple of slice
        Where the window's borders don't reach; clumps are taken from here only.

    Returns
    -------
    Nuclei
    """
    smooth = ndimage.gaussian_filter(signal, SMOOTHING_UM / pixel_size_um)
    stained = np.zeros(signal.shape, np.float32)
    stained[trusted] = smooth[trusted]
    clumps, oversized = _clumps(stained, threshold, MAX_CLUMP_UM / pixel_size_um)
    compressed = np.log1p(np.maximum(smooth, 0))
    seeds = _seeds(compressed, clumps, pixel_size_um)
    basins = _basins(compressed, clumps, seeds)
    return Nuclei(_outlines(basins, smooth, pixel_size_um), clumps, oversized)


def _clumps(smooth: np.ndarray, threshold: float, longest_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Label connected stained regions, and mask those that stay too long.

    In tissue and thick smears haze joins everything: within a region that is too long the threshold
    is raised step by step. What parts from it on the way is a clump, outlined as it parted.
    """
    regions, _ = ndimage.label(smooth > threshold, structure=np.ones((3, 3)))
    clumps = regions.astype(np.int32)
    oversized = np.zeros(smooth.shape, bool)
    for region, box in enumerate(ndimage.find_objects(regions), start=1):
        if _length(box) > longest_px:
            inside = regions[box] == region
            pieces, left = _raise(smooth[box], inside, threshold, longest_px)
            clumps[box][inside] = np.where(pieces > 0, pieces + clumps.max(), 0)[inside]
            oversized[box] |= left
    return clumps, oversized


def _raise(smooth: np.ndarray, mask: np.ndarray, threshold: float, longest_px: float) -> tuple[np.ndarray, np.ndarray]:
    """Raise the threshold within a mask until no piece is too long; return the pieces and what never parted."""
    parted = np.zeros(mask.shape, np.int32)
    for _ in range(RAISES):
        threshold *= RAISE
        pieces, _ = ndimage.label(mask & (smooth > threshold), structure=np.ones((3, 3)))
        mask = np.zeros(mask.shape, bool)
        for piece, box in enumerate(ndimage.find_objects(pieces), start=1):
            here = pieces[box] == piece
            if _length(box) > longest_px:
                mask[box] |= here
            else:
                parted[box][here] = parted.max() + 1
        if not mask.any():
            break
    return parted, mask


def _length(box: tuple[slice, slice]) -> int:
    return max(side.stop - side.start for side in box)


def _seeds(compressed: np.ndarray, clumps: np.ndarray, pixel_size_um: float) -> np.ndarray:
    """Label the peaks of the blurred stain; a clump without one gets its brightest pixel."""
    blurred = ndimage.gaussian_filter(compressed, SEED_SCALE_UM / pixel_size_um)
    radius = max(1, round(SEED_RADIUS_UM / pixel_size_um))
    peaks = (blurred == ndimage.maximum_filter(blurred, size=2 * radius + 1)) & (clumps > 0)
    seedless = np.setdiff1d(clumps, [0, *np.unique(clumps[peaks])])
    peaks.ravel()[_brightest(compressed, clumps, seedless)] = True
    seeds, _ = ndimage.label(peaks, structure=np.ones((3, 3)))
    return seeds


def _brightest(compressed: np.ndarray, clumps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Find the flat index of each wanted clump's brightest pixel, the first of equal ones."""
    is_wanted = np.zeros(int(clumps.max(initial=0)) + 1, bool)
    is_wanted[wanted] = True
    pixels = np.flatnonzero(is_wanted[clumps])
    pixels = pixels[np.lexsort((-compressed.ravel()[pixels], clumps.ravel()[pixels]))]
    _, first = np.unique(clumps.ravel()[pixels], return_index=True)
    return pixels[first]


def _basins(compressed: np.ndarray, clumps: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Part each clump among its seeds.

    Clump by clump, because equal grey values are parted in an order that depends on all that one
    watershed sees: alone, a clump is parted the same way whatever lies around it.
    """
    basins = np.zeros(clumps.shape, np.int32)
    for clump, box in enumerate(ndimage.find_objects(clumps), start=1):
        if box is None:
            continue
        inside = clumps[box] == clump
        markers = np.where(inside, seeds[box], 0)
        found = np.unique(markers[markers > 0])
        parted = found[0] * inside if len(found) == 1 else watershed(-compressed[box], markers=markers, mask=inside)
        basins[box][inside] = parted[inside]
    return basins


def _outlines(basins: np.ndarray, smooth: np.ndarray, pixel_size_um: float) -> np.ndarray:
    """Shrink each basin to its own plateau, fill holes, keep its largest piece, drop specks."""
    min_area_px = np.pi / 4 * (MIN_DIAMETER_UM / pixel_size_um) ** 2
    labels = np.zeros(basins.shape, np.int32)
    for label, box in enumerate(ndimage.find_objects(basins), start=1):
        if box is None:
            continue
        inside = basins[box] == label
        values = smooth[box]
        plateau = np.percentile(values[inside], 90)
        piece = _largest_piece(inside & (values > PLATEAU_SHARE * plateau))
        piece = ndimage.binary_fill_holes(piece) & inside
        if piece.sum() >= min_area_px:
            labels[box][piece] = label
    return labels


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    pieces, count = ndimage.label(mask)
    if count <= 1:
        return mask
    return pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
