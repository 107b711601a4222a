"""Boxes of a slide, and its working grid: whole squares of pixels, counted from the origin, of about 0.5 µm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ctc_imaging.segmentation.background import PixelSource

WORKING_UM = 0.5
ALIGNMENT_PX = 16
"""Corners of tiles and halos are multiples of this, on the working grid."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, ends excluded."""

    y0: int
    y1: int
    x0: int
    x1: int

    def grown(self, by_px: int, height: int, width: int) -> Box:
        """Return the box widened on all sides, clipped to the slide."""
        return Box(
            max(self.y0 - by_px, 0), min(self.y1 + by_px, height), max(self.x0 - by_px, 0), min(self.x1 + by_px, width)
        )

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Return the slices that cut this box out of an array covering `outer`."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)

    def meets(self, other: Box) -> bool:
        """Tell whether the boxes have a pixel in common."""
        return self.y0 < other.y1 and other.y0 < self.y1 and self.x0 < other.x1 and other.x0 < self.x1


@dataclass(frozen=True)
class Grid:
    """The working grid of a slide.

    Attributes
    ----------
    factor : int
        Native pixels along a side of a working pixel.
    pixel_size_um : float
        Of a native pixel.
    slide_px : tuple of int
        Native height and width.
    """

    factor: int
    pixel_size_um: float
    slide_px: tuple[int, int]

    @classmethod
    def of(cls, slide_px: tuple[int, int], pixel_size_um: float) -> Grid:
        """Choose the working grid of a slide."""
        return cls(max(1, round(WORKING_UM / pixel_size_um)), pixel_size_um, slide_px)

    @property
    def working_um(self) -> float:
        """Side of a working pixel."""
        return self.factor * self.pixel_size_um

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in working pixels; the last ones may be cut by the slide's edge."""
        return -(-self.slide_px[0] // self.factor), -(-self.slide_px[1] // self.factor)

    def px(self, length_um: float) -> int:
        """Turn a length into working pixels, rounded up."""
        return int(np.ceil(length_um / self.working_um))

    def halo(self, length_px: int) -> int:
        """Round a halo up to the alignment of tiles."""
        return -(-length_px // ALIGNMENT_PX) * ALIGNMENT_PX

    def cores(self, tile_px: int) -> list[Box]:
        """Part the slide without gap or overlap, in reading order; sides about `tile_px` working pixels."""
        side = self.halo(tile_px)
        return list(tile_cores(*self.shape, side))

    def read(self, slide: PixelSource, channels: list[int], box: Box) -> np.ndarray:
        """Read the native pixels of a box of working pixels."""
        f, (height, width) = self.factor, self.slide_px
        return slide.read(channels, box.y0 * f, min(box.y1 * f, height), box.x0 * f, min(box.x1 * f, width))


def tile_cores(height: int, width: int, tile_px: int) -> Iterator[Box]:
    """Yield the boxes that part an image without gap or overlap, in reading order."""
    for y0 in range(0, height, tile_px):
        for x0 in range(0, width, tile_px):
            yield Box(y0, min(y0 + tile_px, height), x0, min(x0 + tile_px, width))
