"""Reading a region of a plane, whatever chunks it is stored in."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.readers.base import Plane


class Box(NamedTuple):
    """A rectangle in px, ends exclusive."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this rectangle in an array that begins at 0, 0."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def __bool__(self) -> bool:
        """Tell whether there is a pixel in it."""
        return self.y0 < self.y1 and self.x0 < self.x1

    def __and__(self, other: Box) -> Box:
        """Return what two rectangles share; false where that is nothing."""
        return Box(max(self.y0, other.y0), min(self.y1, other.y1), max(self.x0, other.x0), min(self.x1, other.x1))

    def moved(self, y_px: int, x_px: int) -> Box:
        """Return the rectangle moved down and right."""
        return Box(self.y0 + y_px, self.y1 + y_px, self.x0 + x_px, self.x1 + x_px)


def chunk_box(row: int, column: int, chunk_shape_px: tuple[int, int], shape: tuple[int, int]) -> Box:
    """Return where a chunk of a grid lies, clipped at the plane's border."""
    (high, wide), (height, width) = chunk_shape_px, shape
    return Box(row * high, min((row + 1) * high, height), column * wide, min((column + 1) * wide, width))


def chunks_under(box: Box, chunk_shape_px: tuple[int, int]) -> list[tuple[int, int]]:
    """List the (row, column) of all chunks of a grid that a rectangle touches, row by row."""
    high, wide = chunk_shape_px
    return list(product(range(box.y0 // high, -(-box.y1 // high)), range(box.x0 // wide, -(-box.x1 // wide))))


def read_box(plane: Plane, box: Box) -> NDArray:
    """Read a rectangle of a plane, each chunk beneath once.

    Parameters
    ----------
    plane : Plane
    box : Box
        Within the plane.

    Returns
    -------
    ndarray, shape (y1 - y0, x1 - x0)
        In the plane's dtype.

    Raises
    ------
    SlideError
        If a chunk is damaged.
    """
    pixels = np.empty((box.y1 - box.y0, box.x1 - box.x0), plane.dtype)
    for row, column in chunks_under(box, plane.chunk_shape_px):
        chunk = chunk_box(row, column, plane.chunk_shape_px, plane.shape)
        shared = box & chunk
        source = plane.read_chunk(row, column)[shared.moved(-chunk.y0, -chunk.x0).slices]
        pixels[shared.moved(-box.y0, -box.x0).slices] = source
    return pixels
