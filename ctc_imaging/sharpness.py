"""How blurred the nuclei of an image are, in µm, whatever their contrast and number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The edge model reads a leukocyte's nucleus, which is hardly wider than the blur itself, as half as blurred as
# it is. With this factor, simulated discs of 7 to 10 µm blurred by 0.5, 1.0, 1.5, 2.0, 2.5 µm read 0.0, 1.1, 1.7,
# 2.1, 2.5 µm; nuclei with texture and lobes read about 0.4 µm less.
_EDGE_FACTOR = 2.0

# The finer smoothing must tame the noise, the coarser (twice it) still tell a leukocyte's edge from its body.
_FINE_UM = 0.75
_MIN_FINE_PX = 1.5

# Edges reach from the nucleus down to where this share of its contrast is left.
_EDGE_SHARE = 0.15

# Less than half a leukocyte's nucleus (debris, a corner of a cell) has no edge to trust.
_MIN_NUCLEUS_AREA_UM2 = 20.0

# Beyond this nothing of a cell is left, and the ratio of energies is noise.
_MOST_UM = 20.0


def blur_um(plane: NDArray, background: float, contrast: float, noise: float, pixel_size_um: float) -> float:
    """Measure the blur of the nuclei in an image.

    Across an edge blurred by a Gaussian the gradient is a Gaussian of the same width, whose energy falls with
    the width. The ratio of the energies after smoothing by s and by 2 s therefore gives the width, and neither
    contrast nor the length of the edges matters.

    Parameters
    ----------
    plane : ndarray, shape (Y, X)
        A nuclear stain.
    background, contrast, noise : float
        Level of the background, height of the nuclei above it, and noise of a pixel, in grey levels.
    pixel_size_um : float
        Side of a pixel in µm.

    Returns
    -------
    float
        Standard deviation of the blur in µm; at most 20, NaN without nuclei.
    """
    fine_px = max(_MIN_FINE_PX, _FINE_UM / pixel_size_um)
    fine, coarse = (_smoothed(plane.astype(np.float32), s) for s in (fine_px, 2 * fine_px))
    nuclei = coarse > background + _EDGE_SHARE * contrast
    if np.count_nonzero(nuclei) * pixel_size_um**2 < _MIN_NUCLEUS_AREA_UM2:
        return np.nan
    fine_energy = _edge_energy(fine, nuclei, noise, fine_px)
    coarse_energy = _edge_energy(coarse, nuclei, noise, 2 * fine_px)
    return min(_EDGE_FACTOR * _edge_blur_px(fine_energy, coarse_energy, fine_px) * pixel_size_um, _MOST_UM)


def _smoothed(plane: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Smooth by a Gaussian cut off at three standard deviations."""
    reach = int(3 * sigma_px + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    weights /= weights.sum()
    return cv2.sepFilter2D(plane, -1, weights, weights, borderType=cv2.BORDER_REFLECT)


def _edge_energy(image: NDArray, where: NDArray[np.bool_], noise: float, smoothing_px: float) -> float:
    """Mean squared gradient, less what white noise smoothed by this Gaussian leaves of itself."""
    dy, dx = np.gradient(image)
    return float(np.mean((dy * dy + dx * dx)[where])) - noise**2 / (4 * np.pi * smoothing_px**4)


def _edge_blur_px(fine: float, coarse: float, fine_px: float) -> float:
    """Solve fine / coarse = sqrt((b² + 4 s²) / (b² + s²)) for the blur b of an edge smoothed by s and 2 s."""
    if coarse <= 0 or fine <= coarse:
        return np.inf
    ratio = (fine / coarse) ** 2
    return fine_px * float(np.sqrt(max(4 - ratio, 0) / (ratio - 1)))
