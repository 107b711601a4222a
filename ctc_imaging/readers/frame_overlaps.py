"""Whether fields that overlap show the same cells: a sample of the overlaps, matched by correlation."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ctc_imaging.readers.regions import Box, read_box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.readers.mosaic import Mosaic

# Twelve fields decoded once more are below 2 % of a scan of 175 fields in four stains.
SAMPLES = 6

# Narrower overlaps hold no cell to match.
_LEAST_PX = 16

# Cells raise the brightest per mille of an overlap over this many times its noise, which alone reaches 3.1.
_LEAST_SIGNAL = 6.0

# Two exposures of the same simulated cells, also weakly stained or out of focus, correlate by 0.80 to 1.00 in all
# stains but keratin, which few cells carry (0.2 to 0.9); different cells, shifted until they fit best, by up to
# 0.63. Hence the majority decides.
_LEAST_CORRELATION = 0.65
_LEAST_MEETING = 0.4

# Stages are good to a pixel.
_TOLERATED_PX = 1.0


def overlap_warnings(mosaic: Mosaic, channels: int) -> tuple[str, ...]:
    """Look at some overlaps, evenly spread over the slide and the channels, and say what doesn't fit.

    Parameters
    ----------
    mosaic : Mosaic
    channels : int

    Returns
    -------
    tuple of str
        Empty where fields agree to a pixel, or nothing can be told.
    """
    pairs = _sample(mosaic)
    shifts: list[float] = []
    unlike = 0
    for number, (one, other) in enumerate(pairs):
        shift = _shift_px(mosaic, number % channels, one, other)
        if shift is not None and np.isfinite(shift):
            shifts.append(shift)
        unlike += shift == np.inf
    if unlike > len(shifts):
        return (
            f"in {unlike} of {unlike + len(shifts)} overlaps looked at, neighbouring fields show different cells: "
            "check order, start, flips and overlap",
        )
    if shifts and np.median(shifts) > _TOLERATED_PX:
        return (
            f"neighbouring fields are shifted by {np.median(shifts):.0f} px against each other "
            f"(median of {len(shifts)} overlaps): check overlap_px, step_um or pixel_size_um",
        )
    return ()


def _sample(mosaic: Mosaic) -> list[tuple[int, int]]:
    """Choose pairs of overlapping fields, the widest overlap at each of some places evenly spread over the slide."""
    crowded = [fields for _, fields in sorted(mosaic.touching.items()) if len(fields) > 1]
    chosen: dict[tuple[int, int], None] = {}
    for index in np.linspace(0, len(crowded) - 1, min(SAMPLES, len(crowded))).round().astype(int):
        pairs = [pair for pair in combinations(crowded[index], 2) if _is_wide(_overlap(mosaic, *pair))]
        if pairs:
            chosen[max(pairs, key=lambda pair: (_area(_overlap(mosaic, *pair)), pair))] = None
    return list(chosen)


def _overlap(mosaic: Mosaic, one: int, other: int) -> Box:
    return mosaic.boxes[one] & mosaic.boxes[other]


def _is_wide(box: Box) -> bool:
    return min(box.y1 - box.y0, box.x1 - box.x0) >= _LEAST_PX


def _area(box: Box) -> int:
    return (box.y1 - box.y0) * (box.x1 - box.x0)


def _shift_px(mosaic: Mosaic, channel: int, one: int, other: int) -> float | None:
    """Distance in px by which two fields disagree; infinite if they show different things, None without cells."""
    # skimage loads much of scipy, and few slides come as fields.
    from skimage.registration import phase_cross_correlation

    box = _overlap(mosaic, one, other)
    first, second = (
        _cells(read_box(mosaic.fields.plane(field, channel), box.moved(-place.y0, -place.x0)))
        for field, place in ((one, mosaic.boxes[one]), (other, mosaic.boxes[other]))
    )
    if first is None or second is None:
        return None
    shift = phase_cross_correlation(first, second, normalization=None)[0].astype(int)
    if _correlation(first, second, int(shift[0]), int(shift[1])) < _LEAST_CORRELATION:
        return float(np.inf)
    return float(np.hypot(*shift))


def _cells(pixels: NDArray) -> NDArray[np.float32] | None:
    """Keep what has the size of cells, neither noise nor uneven light; None where nothing rises above the noise."""
    values = np.nan_to_num(pixels.astype(np.float32))
    band = cv2.GaussianBlur(values, (0, 0), 1.0) - cv2.GaussianBlur(values, (0, 0), 8.0)
    noise = 1.4826 * float(np.median(np.abs(band)))
    if np.percentile(band, 99.9) <= max(_LEAST_SIGNAL * noise, np.finfo(np.float32).tiny):
        return None
    return band


def _correlation(one: NDArray, other: NDArray, down: int, right: int) -> float:
    """Correlate two views where they meet after the second is moved."""
    (height, width) = one.shape
    meeting = Box(0, height, 0, width) & Box(down, height + down, right, width + right)
    if not meeting or _area(meeting) < _LEAST_MEETING * one.size:
        return 0.0
    a = one[meeting.slices].ravel().astype(np.float64)
    b = other[meeting.moved(-down, -right).slices].ravel().astype(np.float64)
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0
