"""Nuclei without weights: a threshold that follows the stain, and stained regions parted where they have a waist.

A pixel is stained above a share of the plateau about it, so a dim nucleus is outlined beside a bright one. How deep
in the stain a pixel lies, by its distance to the outline and by its brightness, makes a landscape. Each of its hills
is a nucleus; hills with hardly a saddle between them are one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import cv2
import numpy as np
from numba import njit

from ctc_imaging.files import sha256_json

NOISE_THRESHOLD = 4.0
"""A pixel of the smoothed stain may be nucleus from this signal (noise units of a single pixel)."""

METHOD = "plateau, landscape, hills"
"""Part of the hash; to be named anew when the same constants would give other outlines."""

_DIAGONAL = np.float32(0.5**0.5)


@dataclass(frozen=True)
class ClassicalFinder:
    """Finds nuclei by brightness and shape: a `NucleusFinder`.

    Its constants were chosen on the images that nucleus networks are trained on.

    Attributes
    ----------
    threshold : float
        Nothing dimmer is stained (noise units).
    smoothing_um, blur_um : float
        σ of the Gaussians that smooth the stain and the landscape.
    plateau_um, plateau_blur_um : float
        A pixel's plateau is the brightest stain this near, evened out by a Gaussian of this σ.
    plateau_share : float
        A nucleus ends where the stain falls to this share of the plateau.
    saddle_um : float
        Two hills are one where the lower stands less than this above the saddle ...
    large_um2, large_um : float
        ... and less by `large_um` for each e-fold by which both together are larger than `large_um2`.
    smallest_um : float
        Hills smaller than a circle of this diameter are specks.
    seed_um : float
        Radius of the seed about a hill's top.
    """

    threshold: float = NOISE_THRESHOLD
    smoothing_um: float = 0.25
    blur_um: float = 0.9
    plateau_um: float = 3.0
    plateau_blur_um: float = 1.5
    plateau_share: float = 0.41
    saddle_um: float = 0.26
    large_um2: float = 60.0
    large_um: float = 0.3
    smallest_um: float = 3.0
    seed_um: float = 1.0

    @property
    def name(self) -> str:
        """Name as the user gives it."""
        return "classical"

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides an outline."""
        return sha256_json({"method": METHOD, **asdict(self)})

    def maps(self, signal: np.ndarray, pixel_size_um: float) -> np.ndarray:
        """Find nuclei in windows.

        Parameters
        ----------
        signal : float32 ndarray, shape (n, s, s)
            Stain in noise units.
        pixel_size_um : float

        Returns
        -------
        float32 ndarray, shape (n, 4, s, s)
            Foreground (0 to 1; 0.5 at the outline), depth (0 to 1; above 0.5 about the top of each nucleus's hill),
            and the step to that top in rows and columns (px).
        """
        maps = np.zeros((len(signal), 4, *signal.shape[1:]), np.float32)
        for shown, found in zip(signal, maps, strict=True):
            self._look(np.ascontiguousarray(shown, np.float32), pixel_size_um, found)
        return maps

    def _look(self, shown: np.ndarray, pixel_size_um: float, found: np.ndarray) -> None:
        share = self._share(shown, pixel_size_um)
        stained = (share > self.plateau_share).astype(np.uint8)
        depth_px = cv2.distanceTransform(stained, cv2.DIST_L2, cv2.DIST_MASK_5)
        height = _blurred(depth_px * share, self.blur_um / pixel_size_um)
        tops = _climb(height, stained)
        px_per_um = 1 / pixel_size_um
        _join(height, tops, self.saddle_um * px_per_um, self.large_um2 * px_per_um**2, self.large_um * px_per_um)
        _drop_small(tops, np.pi / 4 * (self.smallest_um * px_per_um) ** 2)
        _paint(found, share * np.float32(0.5 / self.plateau_share), tops, self.seed_um / pixel_size_um)

    def _share(self, shown: np.ndarray, pixel_size_um: float) -> np.ndarray:
        """Say how bright each pixel is as a share of its plateau, of what is as dim as the threshold at least.

        The plateau is so even that half the resolution shows it.
        """
        rows, columns = shown.shape
        smooth = _blurred(shown, self.smoothing_um / pixel_size_um)
        half = cv2.resize(smooth, ((columns + 1) // 2, (rows + 1) // 2), interpolation=cv2.INTER_AREA)
        reach = round(self.plateau_um / pixel_size_um / 2)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        even = _blurred(cv2.dilate(half, disc), self.plateau_blur_um / pixel_size_um / 2)
        plateau = cv2.resize(even, (columns, rows), interpolation=cv2.INTER_LINEAR)
        return np.asarray(smooth / np.maximum(plateau, np.float32(self.threshold / self.plateau_share)))


def _blurred(plane: np.ndarray, sigma_px: float) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma_px))


@njit(cache=True)
def _climb(height: np.ndarray, stained: np.ndarray) -> np.ndarray:
    """Find the top (flat index) that the steepest way up leads to from each stained pixel; -1 elsewhere."""
    columns = height.shape[1]
    tops = np.full(height.size, -1, np.int32)
    for pixel in range(height.size):
        if stained[pixel // columns, pixel % columns]:
            tops[pixel] = _step_up(height, stained, pixel // columns, pixel % columns)
    for pixel in range(height.size):
        if tops[pixel] >= 0:
            top = _top_of(tops, pixel)
            at = pixel
            while tops[at] != top:
                tops[at], at = top, tops[at]
    return tops


@njit(cache=True)
def _step_up(height: np.ndarray, stained: np.ndarray, y: int, x: int) -> int:
    """Choose the stained neighbour with the steepest rise; on level ground the first in reading order."""
    rows, columns = height.shape
    steepest, to = np.float32(0), y * columns + x
    for row in range(max(y - 1, 0), min(y + 2, rows)):
        for column in range(max(x - 1, 0), min(x + 2, columns)):
            if not stained[row, column]:
                continue
            rise = height[row, column] - height[y, x]
            if row != y and column != x:
                rise *= _DIAGONAL
            place = row * columns + column
            if rise > steepest or (rise == steepest == 0 and place < to):
                steepest, to = rise, place
    return to


@njit(cache=True)
def _top_of(tops: np.ndarray, pixel: int) -> int:
    while tops[pixel] != pixel:
        pixel = tops[pixel]
    return pixel


@njit(cache=True)
def _join(height: np.ndarray, tops: np.ndarray, saddle: float, large: float, less: float) -> None:
    """Make hills one, from the highest saddle down, where the lower hill hardly stands above it."""
    ones, others, saddles = _borders(height, tops)
    heights = height.ravel()
    areas = _areas(tops)
    for border in np.argsort(-saddles, kind="mergesort"):
        low, high = _top_of(tops, ones[border]), _top_of(tops, others[border])
        if (heights[low], -low) > (heights[high], -high):
            low, high = high, low
        area = areas[low] + areas[high]
        allowed = saddle - less * np.log(max(area / large, 1.0))
        if low != high and heights[low] - saddles[border] < allowed:
            tops[low] = high
            areas[high] = area
    for pixel in range(tops.size):
        if tops[pixel] >= 0:
            tops[pixel] = _top_of(tops, pixel)


@njit(cache=True)
def _areas(tops: np.ndarray) -> np.ndarray:
    """Count the pixels of each hill, at the place of its top."""
    areas = np.zeros(tops.size, np.int32)
    for top in tops:
        if top >= 0:
            areas[top] += 1
    return areas


@njit(cache=True)
def _drop_small(tops: np.ndarray, smallest_px: float) -> None:
    areas = _areas(tops)
    for pixel in range(tops.size):
        if tops[pixel] >= 0 and areas[tops[pixel]] < smallest_px:
            tops[pixel] = -1


@njit(cache=True)
def _borders(height: np.ndarray, tops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List where pixels of two hills touch: the hills' tops, and the lower of the heights."""
    rows, columns = height.shape
    most = 4 * np.count_nonzero(tops >= 0)
    ones, others, saddles = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.float32)
    count = 0
    for pixel in np.flatnonzero(tops >= 0):
        y, x = pixel // columns, pixel % columns
        for row, column in ((y, x + 1), (y + 1, x - 1), (y + 1, x), (y + 1, x + 1)):
            if row == rows or not 0 <= column < columns:
                continue
            other = tops[row * columns + column]
            if other >= 0 and other != tops[pixel]:
                ones[count], others[count] = tops[pixel], other
                saddles[count] = min(height[y, x], height[row, column])
                count += 1
    return ones[:count], others[:count], saddles[:count]


@njit(cache=True)
def _paint(found: np.ndarray, foreground: np.ndarray, tops: np.ndarray, seed_px: float) -> None:
    """Fill in the maps of a window, which are zero."""
    rows, columns = foreground.shape
    for y in range(rows):
        for x in range(columns):
            top = tops[y * columns + x]
            found[0, y, x] = min(max(foreground[y, x], 0.0), 1.0 if top >= 0 else 0.5)
            if top < 0:
                continue
            down, right = top // columns - y, top % columns - x
            found[2, y, x], found[3, y, x] = down, right
            depth = max(1 - 0.5 * np.sqrt(down * down + right * right) / seed_px, 0.0)
            apart = top == y * columns + x or not _at_border(tops, y, x, columns)
            found[1, y, x] = depth if apart else min(depth, 0.5)


@njit(cache=True)
def _at_border(tops: np.ndarray, y: int, x: int, columns: int) -> bool:
    """Whether a pixel touches another nucleus; seeds that touch would be one."""
    rows = tops.size // columns
    for row in range(max(y - 1, 0), min(y + 2, rows)):
        for column in range(max(x - 1, 0), min(x + 2, columns)):
            other = tops[row * columns + column]
            if other >= 0 and other != tops[y * columns + x]:
                return True
    return False
