"""Nuclei of a single image of any microscope, with or without a known scale."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from ctc_imaging.errors import SegmentationError
from ctc_imaging.segmentation import windows
from ctc_imaging.segmentation.background import level_and_noise
from ctc_imaging.segmentation.dark import stained_blocks
from ctc_imaging.segmentation.instances import find_instances
from ctc_imaging.segmentation.model import CLASSICAL, NucleusFinder, load_finder
from ctc_imaging.segmentation.nuclei import NOISE_THRESHOLD, find_nuclei

TYPICAL_NUCLEUS_UM = 8.0
"""Diameter a nucleus is taken to have where an image's scale has to be guessed from its nuclei."""

PLAUSIBLE_UM = (0.02, 5.0)

INSCRIBED_SHARE = 0.79
"""Diameter of the inscribed circle of a thresholded, smoothed nucleus to that of a circle of its area (dsb2018)."""

FINE_UM = 0.44
"""Scale a single image is brought to: its outlines are worth more than its time."""

RANGE_PX = (14.0, 24.0)
"""Typical nuclei a finder sees best; those of cultured cells would be larger at the scale of blood."""

SMALLEST_PX = 4.0
"""Smallest diameter of a nucleus at the finder's scale."""


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
    finder = None if model == CLASSICAL else load_finder(model)
    return segment_with(finder, image, pixel_size_um)


def segment_with(finder: NucleusFinder | None, image: np.ndarray, pixel_size_um: float | None = None) -> np.ndarray:
    """Segment the nuclei of one plane by a finder in hand, None for the classical way; else as `segment_nuclei`."""
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
    if finder is None:
        return _in_reading_order(find_nuclei(signal, pixel_size_um, threshold).labels)
    zoom = min(_zoom(pixel_size_um, diameter_px), (MOST_PIXELS / plane.size) ** 0.5)
    maps = _maps(finder, signal, zoom, pixel_size_um / zoom)
    return find_instances(maps, np.pi / 4 * (SMALLEST_PX / zoom) ** 2).astype(np.uint32)


def _zoom(pixel_size_um: float, diameter_px: float) -> float:
    """By how much to enlarge an image for a finder: to its scale, unless the nuclei would leave its range."""
    least, most = (limit / diameter_px for limit in RANGE_PX)
    return float(np.clip(pixel_size_um / FINE_UM, least, most))


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
    """Diameter of the typical nucleus, told by the circle that fits inside it.

    Inscribed circles, because clumps of touching nuclei have one in each of their nuclei.
    """
    stained = signal > max(threshold, float(threshold_otsu(signal)))
    depth_px = cv2.distanceTransform(ndimage.binary_fill_holes(stained).astype(np.uint8), cv2.DIST_L2, 5)
    depth_px = cv2.GaussianBlur(depth_px, (0, 0), 1.0)
    peaks = depth_px[(depth_px == cv2.dilate(depth_px, np.ones((7, 7), np.uint8))) & (depth_px > 1.5)]
    if not len(peaks):
        return TYPICAL_NUCLEUS_UM
    # Weighted by area: specks are many, but their area is small.
    order = np.argsort(peaks)
    share = np.cumsum(peaks[order] ** 2)
    radius_px = float(peaks[order][np.searchsorted(share, share[-1] / 2)])
    return 2 * radius_px / INSCRIBED_SHARE


def _in_reading_order(labels: np.ndarray) -> np.ndarray:
    values, first = np.unique(labels, return_index=True)
    values, first = values[values > 0], first[values > 0]
    lookup = np.zeros(int(labels.max()) + 1, np.uint32)
    lookup[values[np.argsort(first)]] = np.arange(1, len(values) + 1)
    return lookup[labels]
