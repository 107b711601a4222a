"""Planes of a TIFF file, decoded strip by strip or tile by tile."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.pixels import as_read, type_read

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# tifffile and its codecs raise all of these on damaged bytes; none of them is a fault of the program.
DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)

# Uncompressed pixels have no chunks of their own: they are read in squares of this side.
RAW_CHUNK_PX = 512


@dataclass(frozen=True)
class RawPlane:
    """A plane stored as one uncompressed run of rows, samples of a pixel side by side."""

    path: Path
    handle: Any
    offset: int
    shape: tuple[int, int]
    stored_dtype: np.dtype
    samples: int
    sample: int

    @property
    def dtype(self) -> np.dtype:
        """Data type that pixels are read as."""
        return type_read(self.path, self.stored_dtype)

    @property
    def chunk_shape_px(self) -> tuple[int, int]:
        """Height and width of a chunk in px."""
        return min(RAW_CHUNK_PX, self.shape[0]), min(RAW_CHUNK_PX, self.shape[1])

    @property
    def end(self) -> int:
        """Offset of the first byte after the plane."""
        return self.offset + self.shape[0] * self._row_bytes

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * self.samples * self.stored_dtype.itemsize

    def read_chunk(self, row: int, column: int) -> NDArray:
        """Read one square, clipped at the plane's border."""
        high, wide = self.chunk_shape_px
        y0, x0 = row * high, column * wide
        height, width = min(high, self.shape[0] - y0), min(wide, self.shape[1] - x0)
        pixel_bytes = self.samples * self.stored_dtype.itemsize
        start = self.offset + y0 * self._row_bytes + x0 * pixel_bytes
        rows = [self._read(start + y * self._row_bytes, width * pixel_bytes) for y in range(height)]
        values = np.frombuffer(b"".join(rows), self.stored_dtype).reshape(height, width, self.samples)
        return as_read(values[:, :, self.sample], self.dtype)

    def _read(self, offset: int, size: int) -> bytes:
        self.handle.seek(offset)
        data: bytes = self.handle.read(size)
        if len(data) != size:
            raise _cut(self.path)
        return data


@dataclass(frozen=True)
class EncodedPlane:
    """A plane of a TIFF page stored in compressed strips, or in tiles."""

    path: Path
    handle: Any
    page: Any
    separate: int
    sample: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.page.keyframe.imagelength, self.page.keyframe.imagewidth

    @property
    def dtype(self) -> np.dtype:
        """Data type that pixels are read as."""
        return type_read(self.path, self.page.keyframe.dtype)

    @property
    def chunk_shape_px(self) -> tuple[int, int]:
        """Height and width of a strip or tile in px."""
        key = self.page.keyframe
        if key.is_tiled:
            return key.tilelength, key.tilewidth
        return min(key.rowsperstrip, key.imagelength), key.imagewidth

    @property
    def grid(self) -> tuple[int, int]:
        """Number of rows and columns of chunks."""
        (height, width), (high, wide) = self.shape, self.chunk_shape_px
        return -(-height // high), -(-width // wide)

    @property
    def extents(self) -> list[tuple[int, int]]:
        """Offset and length in bytes of each chunk in the file, row by row."""
        rows, columns = self.grid
        first, last = self.separate * rows * columns, (self.separate + 1) * rows * columns
        return list(zip(self.page.dataoffsets[first:last], self.page.databytecounts[first:last], strict=True))

    def read_chunk(self, row: int, column: int) -> NDArray:
        """Decode one strip or tile, clipped at the plane's border."""
        rows, columns = self.grid
        index = (self.separate * rows + row) * columns + column
        self.handle.seek(self.page.dataoffsets[index])
        data = self.handle.read(self.page.databytecounts[index])
        if len(data) != self.page.databytecounts[index]:
            raise _cut(self.path)
        tables = {"jpegtables": self.page.jpegtables} if self.page.jpegtables else {}
        try:
            decoded = self.page.keyframe.decode(data, index, **tables)[0]
        except DAMAGE as error:
            raise self._undecodable(row, column, type(error).__name__) from error
        high, wide = self.chunk_shape_px
        height, width = min(high, self.shape[0] - row * high), min(wide, self.shape[1] - column * wide)
        if decoded is None or decoded.shape[1] < height or decoded.shape[2] < width or decoded.shape[3] <= self.sample:
            raise self._undecodable(row, column, "too few pixels")
        return as_read(decoded[0, :height, :width, self.sample], self.dtype)

    def _undecodable(self, row: int, column: int, reason: str) -> SlideError:
        return SlideError(
            self.path, f"chunk {row}, {column} can't be decoded ({reason})", "copy it from the scanner again"
        )


def _cut(path: Path) -> SlideError:
    return SlideError(path, "the file became shorter while it was read", "wait until the copy is complete")
