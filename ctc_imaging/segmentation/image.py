"""Nuclei of a single image of any microscope, with or without a known scale."""

from __future__ import annotations

import warnings

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from ctc_imaging.errors import SegmentationError
from ctc_imaging.segmentation.background import level_and_noise
from ctc_imaging.segmentation.nuclei import NOISE_THRESHOLD, find_nuclei

TYPICAL_NUCLEUS_UM = 8.0
"""Diameter a nucleus is taken to have where an image's scale has to be guessed from its nuclei."""

PLAUSIBLE_UM = (0.02, 5.0)


class UnknownScaleWarning(UserWarning):
    """The pixel size was estimated from the image, not known."""


class OversizedWarning(UserWarning):
    """Part of the image is stained over a greater length than any clump of cells."""


def segment_nuclei(image: np.ndarray, pixel_size_um: float | None = None) -> np.ndarray:
    """Segment the nuclei of one plane.

    Parameters
    ----------
    image : ndarray, shape (Y, X)
        Nuclear stain, bright on dark; any integer or floating type.
    pixel_size_um : float, optional
        Estimated from the size of the bright objects, with an `UnknownScaleWarning`, where it is not given.
        An `OversizedWarning` tells of stain without a gap over a greater length than any clump of cells.

    Returns
    -------
    uint32 ndarray, shape (Y, X)
        0 for background, 1..n for nuclei in reading order.

    Raises
    ------
    SegmentationError
        If the image isn't one plane of finite numbers, or the pixel size isn't plausible.
    """
    plane = _checked(image)
    threshold, signal = _signal(plane)
    if not (signal > threshold).any():
        return np.zeros(plane.shape, np.uint32)
    if pixel_size_um is None:
        pixel_size_um = _estimate_pixel_size_um(signal, threshold)
        warnings.warn(
            f"pixel size unknown: {pixel_size_um:.2f} µm estimated from the nuclei", UnknownScaleWarning, stacklevel=2
        )
    if not PLAUSIBLE_UM[0] <= pixel_size_um <= PLAUSIBLE_UM[1]:
        raise SegmentationError("image", f"a pixel size of {pixel_size_um} µm is not plausible", "give it in µm")
    found = find_nuclei(signal, pixel_size_um, threshold)
    if found.oversized.any():
        share = found.oversized.mean()
        warnings.warn(f"{share:.1%} of the image is stained without a gap: left out", OversizedWarning, stacklevel=2)
    return _in_reading_order(found.labels)


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


def _estimate_pixel_size_um(signal: np.ndarray, threshold: float) -> float:
    """Scale at which the typical nucleus, by the circle that fits inside it, has a typical diameter.

    Inscribed circles, because clumps of touching nuclei have one in each of their nuclei.
    """
    stained = signal > max(threshold, float(threshold_otsu(signal)))
    depth_px = ndimage.gaussian_filter(ndimage.distance_transform_edt(ndimage.binary_fill_holes(stained)), 1.0)
    peaks = depth_px[(depth_px == ndimage.maximum_filter(depth_px, size=7)) & (depth_px > 1.5)]
    if not len(peaks):
        return 1.0
    # Weighted by area: specks are many, but their area is small.
    order = np.argsort(peaks)
    share = np.cumsum(peaks[order] ** 2)
    radius_px = float(peaks[order][np.searchsorted(share, share[-1] / 2)])
    return float(np.clip(TYPICAL_NUCLEUS_UM / (2 * radius_px), *PLAUSIBLE_UM))


def _in_reading_order(labels: np.ndarray) -> np.ndarray:
    values, first = np.unique(labels, return_index=True)
    values, first = values[values > 0], first[values > 0]
    lookup = np.zeros(int(labels.max()) + 1, np.uint32)
    lookup[values[np.argsort(first)]] = np.arange(1, len(values) + 1)
    return lookup[labels]
