"""From places on a grid or a stage to whole pixels on the slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.errors import SlideError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ctc_imaging.readers.frame_fields import FrameSet
    from ctc_imaging.readers.frame_layout import FrameLayout

# A slide of which the fields fill less, or fill it more often, has positions in a wrong unit or scale: fields that
# overlap by half in both directions fill it four times, and islands of tissue a good part.
_LEAST_FILLED, _MOST_FILLED = 0.02, 8.0


def corners_px(
    folder: Path, layout: FrameLayout, found: FrameSet, shape: tuple[int, int], pixel_size_um: float | None
) -> list[tuple[int, int]]:
    """Place every field on the slide.

    Parameters
    ----------
    folder : Path
        For errors.
    layout : FrameLayout
    found : FrameSet
    shape : tuple of int
        Height and width of a field in px.
    pixel_size_um : float or None

    Returns
    -------
    list of (int, int)
        Top and left of each field in px, from the top-left of the slide, rounded to the nearest.

    Raises
    ------
    SlideError
        If the scale is needed and unknown, two fields fall onto each other, or the positions can't be those of
        fields of this size, or leave the layout's rows and columns incomplete.
    """
    places = np.array([place[:2] for place in found.places], dtype=np.float64)
    unit = found.places[0].unit
    if unit == "grid":
        exact = places * _step_px(layout, shape, pixel_size_um)
    else:
        signs = np.array([-1 if layout.flip_y else 1, -1 if layout.flip_x else 1])
        exact = places * signs / (1 if unit == "px" else _scale(layout, pixel_size_um))
    offsets = exact - exact.min(axis=0)
    _check_filled(folder, offsets, shape)
    corners = np.floor(offsets + 0.5).astype(np.int64)
    _check_twice(found, corners)
    if unit != "grid" and layout.grid.counts is not None:
        _check_counts(folder, layout.grid.counts, corners)
    return [(int(top), int(left)) for top, left in corners]


def _step_px(layout: FrameLayout, shape: tuple[int, int], pixel_size_um: float | None) -> NDArray:
    grid = layout.grid
    if grid.step_um is not None:
        return np.array(grid.step_um) / _scale(layout, pixel_size_um)
    step = np.array(shape) - np.array(grid.overlap_px or (0, 0))
    if step.min() < 1:
        fault = f"fields of {shape[0]} x {shape[1]} px can't overlap by {max(grid.overlap_px or ())} px"
        raise SlideError(f"{layout.where}, grid, overlap_px", fault, "write the overlap that the scanner tells")
    return step


def _scale(layout: FrameLayout, pixel_size_um: float | None) -> float:
    if pixel_size_um is None:
        fault = "places in µm need the pixel size, which the fields don't tell"
        raise SlideError(layout.where, fault, "add pixel_size_um to frames.yaml")
    return pixel_size_um


def _check_twice(found: FrameSet, corners: NDArray[np.int64]) -> None:
    seen: dict[tuple[int, int], int] = {}
    for field, (top, left) in enumerate(corners):
        other = seen.setdefault((int(top), int(left)), field)
        if other != field:
            path, twin = found.files[field][0], found.files[other][0]
            raise SlideError(path, f"it lies where {twin.name} lies, to the pixel", "keep one of the two fields")


def _check_filled(folder: Path, offsets: NDArray[np.float64], shape: tuple[int, int]) -> None:
    """Refuse places so far apart, or so close, that their unit or the pixel size must be wrong."""
    height, width = (float(last) + side for last, side in zip(offsets.max(axis=0), shape, strict=True))
    filled = len(offsets) * shape[0] * shape[1] / (height * width)
    if not _LEAST_FILLED <= filled <= _MOST_FILLED:
        fault = f"{len(offsets)} fields of {shape[0]} x {shape[1]} px can't lie on {height:.0f} x {width:.0f} px"
        raise SlideError(folder, fault, "correct the unit of the positions, pixel_size_um or the overlap")


def _check_counts(folder: Path, counts: tuple[int, int], corners: NDArray[np.int64]) -> None:
    """Name the first field of a grid that no stage position belongs to."""
    spans = zip(corners.max(axis=0), counts, strict=True)
    steps = [last / (count - 1) if count > 1 and last else np.inf for last, count in spans]
    there = {(round(top / steps[0]), round(left / steps[1])) for top, left in corners}
    for row, column in np.ndindex(counts):
        if (row, column) not in there:
            number = row * counts[1] + column + 1
            name = f"field {number} of {counts[0] * counts[1]} (row {row + 1}, column {column + 1})"
            raise SlideError(folder, f"{name} isn't there", "copy it from the scanner again, or scan the slide again")
    if len(corners) > counts[0] * counts[1]:
        fault = f"{len(corners)} fields, {counts[0]} rows of {counts[1]} were told"
        raise SlideError(folder, fault, "correct rows and columns in frames.yaml")
