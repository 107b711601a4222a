"""Nuclei of a single image of any microscope, with or without a known scale."""

from __future__ import annotations

import warnings
from dataclasses import replace

import cv2
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from ctc_imaging.errors import SegmentationError
from ctc_imaging.segmentation import windows
from ctc_imaging.segmentation.background import level_and_noise
from ctc_imaging.segmentation.classical import NOISE_THRESHOLD, ClassicalFinder
from ctc_imaging.segmentation.dark import stained_blocks
from ctc_imaging.segmentation.instances import find_instances
from ctc_imaging.segmentation.model import NucleusFinder, load_finder

TYPICAL_NUCLEUS_UM = 8.0
"""Diameter a nucleus is taken to have where an image's scale has to be guessed from its nuclei."""

PLAUSIBLE_UM = (0.02, 5.0)

INSCRIBED_SHARE = 0.79
"""Diameter of the inscribed circle of a thresholded, smoothed nucleus to that of a circle of its area (dsb2018)."""

FINE_UM = 0.44
"""Scale a single image is brought to: its outlines are worth more than its time."""

RANGE_PX = (14.0, 24.0)
"""Typical nuclei a finder sees best; those of cultured cells would be larger at the scale of blood."""

LOOKS: tuple[float, ...] = (0.8, 1.2)
"""An image is looked at twice, smaller and larger than the finder's scale and the second time upside down, and the
two are averaged: for a network in doubt a better guess than either. A slide is looked at once."""

SMALLEST_PX = 4.0
"""Smallest diameter of a nucleus at the finder's scale."""

GLOW_SHARE = 0.3
"""What is wider than this share of an image is no typical nucleus, but light from out of focus."""

FEWEST = 5
"""Smaller objects than that which glows, from which on these are taken for the nuclei."""

MOST_PIXELS = 2**27
"""An image isn't enlarged beyond this: about 10 GB of memory while it is looked at."""


class UnknownScaleWarning(UserWarning):
    """The pixel size was estimated from the image, not known.

    Attributes
    ----------
    pixel_size_um : float
        The estimate.
    """

    def __init__(self, pixel_size_um: float) -> None:
        super().__init__(f"pixel size unknown: {pixel_size_um:.2f} µm estimated from the nuclei")
        self.pixel_size_um = pixel_size_um


def segment_nuclei(image: np.ndarray, pixel_size_um: float | None = None, model: str = "nuclei") -> np.ndarray:
    """Segment the nuclei of one plane.

    Parameters
    ----------
    image : ndarray, shape (Y, X)
        Nuclear stain, bright on dark; any integer or floating type.
    pixel_size_um : float, optional
        Estimated from the size of the bright objects, with an `UnknownScaleWarning`, where it is not given.
    model : str
        Name of a nucleus network, or ``classical``, which needs no weights.

    Returns
    -------
    uint32 ndarray, shape (Y, X)
        0 for background, 1..n for nuclei in reading order.

    Raises
    ------
    SegmentationError
        If the image isn't one plane of finite numbers, or the pixel size isn't plausible.
    ModelError
        If there is no such model.
    """
    return segment_with(load_finder(model), image, pixel_size_um)


def segment_with(finder: NucleusFinder, image: np.ndarray, pixel_size_um: float | None = None) -> np.ndarray:
    """Segment the nuclei of one plane by a finder in hand; else as `segment_nuclei`."""
    plane = _checked(image)
    if pixel_size_um is not None and not PLAUSIBLE_UM[0] <= pixel_size_um <= PLAUSIBLE_UM[1]:
        raise SegmentationError("image", f"a pixel size of {pixel_size_um} µm is not plausible", "give it in µm")
    threshold, signal = _signal(plane)
    if not (signal > threshold).any():
        return np.zeros(plane.shape, np.uint32)
    diameter_px = _typical_diameter_px(signal, threshold)
    if pixel_size_um is None:
        pixel_size_um = float(np.clip(TYPICAL_NUCLEUS_UM / diameter_px, *PLAUSIBLE_UM))
        warnings.warn(UnknownScaleWarning(pixel_size_um), stacklevel=3)
    looks = LOOKS
    if isinstance(finder, ClassicalFinder):
        finder, looks = replace(finder, threshold=threshold), (1.0,)
    best_zoom = _zoom(pixel_size_um, diameter_px)
    zoom = min(best_zoom, (MOST_PIXELS / plane.size) ** 0.5)
    # The scale a nucleus has to the finder, not the true one: cultured cells are shown as if they were of blood.
    maps = _averaged(finder, signal, zoom, FINE_UM * best_zoom / zoom, looks)
    return find_instances(maps, np.pi / 4 * (SMALLEST_PX / zoom) ** 2).astype(np.uint32)


def _zoom(pixel_size_um: float, diameter_px: float) -> float:
    """By how much to enlarge an image for a finder: to its scale, unless the nuclei would leave its range."""
    least, most = (limit / diameter_px for limit in RANGE_PX)
    return float(np.clip(pixel_size_um / FINE_UM, least, most))


def _averaged(
    finder: NucleusFinder, signal: np.ndarray, zoom: float, working_um: float, looks: tuple[float, ...]
) -> np.ndarray:
    """Average looks at an image, each at its own share of the scale, every second one upside down."""
    maps = np.zeros((4, *signal.shape), np.float32)
    for number, share in enumerate(looks):
        if number % 2 == 0:
            maps += _maps(finder, signal, zoom * share, working_um / share)
        else:
            turned = _maps(finder, np.ascontiguousarray(signal[::-1, ::-1]), zoom * share, working_um / share)
            turned[2:] *= -1
            maps += turned[:, ::-1, ::-1]
    maps /= len(looks)
    return maps


def _maps(finder: NucleusFinder, signal: np.ndarray, zoom: float, working_um: float) -> np.ndarray:
    """Look at an image at the finder's scale, and bring the maps back to the image's."""
    height, width = signal.shape
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    seen = cv2.resize(signal, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    regions = windows.find_regions(stained_blocks(seen, working_um))
    everything = slice(0, seen.shape[0]), slice(0, seen.shape[1])
    wanted = np.ones(len(regions.boxes), bool)
    maps = windows.look(finder, seen, regions, wanted, everything, (0, 0), working_um, windows.IMAGE_PATCHES)
    maps = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR) for plane in maps])
    maps[2:] /= np.float32(zoom)
    return maps


def _checked(image: np.ndarray) -> np.ndarray:
    plane = np.asarray(image)
    if plane.ndim != 2 or 0 in plane.shape or plane.dtype.kind not in "uif":
        raise SegmentationError(
            "image", f"shape {plane.shape} of {plane.dtype} is not one plane of grey values", "choose one channel"
        )
    if not np.isfinite(plane).all():
        raise SegmentationError("image", "some pixels are not finite numbers", "export the image anew")
    return plane.astype(np.float32)


def _signal(plane: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the image in noise units, with the threshold that parts stain from background.

    An image without noise (8 bits, denoised) would make any shade of background a signal, so the
    threshold is never below half the way to Otsu's.
    """
    level, noise = level_and_noise(plane)
    noise = max(noise, 1e-3 * float(np.ptp(plane)), float(np.finfo(np.float32).tiny))
    signal = (plane - np.float32(level)) / np.float32(noise)
    if np.ptp(signal) == 0:
        return NOISE_THRESHOLD, signal
    return max(NOISE_THRESHOLD, 0.5 * float(threshold_otsu(signal))), signal


def _typical_diameter_px(signal: np.ndarray, threshold: float) -> float:
    """Diameter of the typical nucleus; where that would be a glow, of the objects that stand out from it."""
    radii_px = _inscribed_radii_px(signal, threshold)
    if 2 * _typical(radii_px) > GLOW_SHARE * min(signal.shape):
        side = max(min(signal.shape) // 8, 1)
        standing_out = _inscribed_radii_px(signal - cv2.blur(signal, (side, side)), threshold)
        radii_px = standing_out if len(standing_out) >= FEWEST else radii_px
    return 2 * _typical(radii_px) / INSCRIBED_SHARE


def _typical(radii_px: np.ndarray) -> float:
    """Median weighted by area: specks are many, but their area is small."""
    if not len(radii_px):
        return TYPICAL_NUCLEUS_UM * INSCRIBED_SHARE / 2
    ordered = np.sort(radii_px)
    share = np.cumsum(ordered**2)
    return float(ordered[np.searchsorted(share, share[-1] / 2)])


def _inscribed_radii_px(signal: np.ndarray, threshold: float) -> np.ndarray:
    """Radii of the circles that fit inside what is stained: clumps of nuclei have one in each of their nuclei."""
    stained = signal > max(threshold, float(threshold_otsu(signal)))
    depth_px = cv2.distanceTransform(ndimage.binary_fill_holes(stained).astype(np.uint8), cv2.DIST_L2, 5)
    depth_px = cv2.GaussianBlur(depth_px, (0, 0), 1.0)
    return np.asarray(depth_px[(depth_px == cv2.dilate(depth_px, np.ones((7, 7), np.uint8))) & (depth_px > 1.5)])
