"""The working copy of a slide: each channel decoded into one file of square blocks, which any region is read from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.errors import SlideError
from ctc_imaging.files import write_json
from ctc_imaging.readers import Source
from ctc_imaging.slide import Slide

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_PX = 512
"""Side of a block, whose rows lie one after the other: a region of a slide takes a few long reads, not one a row."""

_INDEX = "index.json"


@dataclass(frozen=True)
class BlockPlane:
    """A channel as a file of blocks, in reading order; those at the right and lower edge are padded.

    Attributes
    ----------
    path : Path
    file : int
        Its descriptor.
    shape : tuple of int
        Height and width in px.
    dtype : dtype
    """

    path: Path
    file: int
    shape: tuple[int, int]
    dtype: np.dtype

    @property
    def chunk_shape_px(self) -> tuple[int, int]:
        """Height and width of a block in px."""
        return BLOCK_PX, BLOCK_PX

    @property
    def total_bytes(self) -> int:
        """Bytes of the file."""
        return -(-self.shape[0] // BLOCK_PX) * self._across * self._block_bytes

    @property
    def _across(self) -> int:
        return -(-self.shape[1] // BLOCK_PX)

    @property
    def _block_bytes(self) -> int:
        return BLOCK_PX * BLOCK_PX * self.dtype.itemsize

    def read_chunk(self, row: int, column: int) -> NDArray:
        """Read one block, clipped at the plane's border (see `read_rows`)."""
        return self.read_rows(row, column, 0, min(BLOCK_PX, self.shape[0] - row * BLOCK_PX))

    def read_rows(self, row: int, column: int, first: int, last: int) -> NDArray:
        """Read some rows of a block, which lie side by side; clipped at the plane's right border.

        Raises
        ------
        SlideError
            If the file is too short.
        """
        rows = np.empty((last - first, BLOCK_PX), self.dtype)
        start = (row * self._across + column) * self._block_bytes + first * BLOCK_PX * self.dtype.itemsize
        if os.preadv(self.file, [rows.data], start) != rows.nbytes:
            raise SlideError(self.path, "its working copy is damaged: it ends too early", "run the slide again")
        return rows[:, : self.shape[1] - column * BLOCK_PX]

    def put(self, pixels: NDArray, y0: int, x0: int) -> None:
        """Write pixels to their place."""
        for ya, yb, xa, xb in _cuts(y0, x0, pixels.shape):
            self._put_in_block(pixels[ya - y0 : yb - y0, xa - x0 : xb - x0], ya, xa)

    def _put_in_block(self, part: NDArray, y0: int, x0: int) -> None:
        (row, y), (column, x) = divmod(y0, BLOCK_PX), divmod(x0, BLOCK_PX)
        start = (row * self._across + column) * self._block_bytes
        row_bytes = BLOCK_PX * self.dtype.itemsize
        if x == 0 and x0 + part.shape[1] == self.shape[1]:
            part = np.pad(part, ((0, 0), (0, BLOCK_PX - part.shape[1])))
        if part.shape[1] == BLOCK_PX:
            _write(self.file, np.ascontiguousarray(part), start + y * row_bytes)
            return
        for number, line in enumerate(part, start=y):
            _write(self.file, np.ascontiguousarray(line), start + number * row_bytes + x * self.dtype.itemsize)


def begin_copy(folder: Path, short: str, shape: tuple[int, int], dtype: np.dtype) -> BlockPlane:
    """Make the file of a channel; its `file` is for the caller to close."""
    path = folder / short
    plane = BlockPlane(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), shape, dtype)
    os.ftruncate(plane.file, plane.total_bytes)
    return plane


def finish_copy(folder: Path, scan: Slide, channels: Sequence[str]) -> None:
    """Write what `open_copy` needs to know, when all channels are there."""
    facts = {
        "reader": scan.reader,
        "shape": list(scan.shape[1:]),
        "dtype": scan.dtype.name,
        "pixel_size_um": scan.pixel_size_um,
        "channels": list(channels),
    }
    write_json(folder / _INDEX, facts)


class WorkingCopy(Slide):
    """A slide that is pickled as the place where it lies: whoever unpickles it opens the files anew."""

    def __init__(self, scan: Path, source: Source, pixel_size_um: float | None, blocks: Sequence[BlockPlane]) -> None:
        super().__init__(scan, source, pixel_size_um)
        self._blocks = blocks

    def __reduce__(self) -> tuple[Callable[[Path, Path], Slide], tuple[Path, Path]]:
        return open_copy, (self.files[0].parent, self.path)

    def _fill(self, target: NDArray, channel: int, y0: int, x0: int) -> None:
        """Read no more of a block than the rows that are wanted, and keep nothing: no decoding is saved by it."""
        plane = self._blocks[channel]
        for ya, yb, xa, xb in _cuts(y0, x0, target.shape):
            top, left = ya // BLOCK_PX, xa // BLOCK_PX
            rows = plane.read_rows(top, left, ya - top * BLOCK_PX, yb - top * BLOCK_PX)
            target[ya - y0 : yb - y0, xa - x0 : xb - x0] = rows[:, xa - left * BLOCK_PX : xb - left * BLOCK_PX]


def open_copy(folder: Path, scan: Path, warnings: tuple[str, ...] = ()) -> Slide:
    """Open a working copy as a slide, its channels named by the panel's short names, in its order.

    Parameters
    ----------
    folder : Path
    scan : Path
        What it is a copy of, for messages; the copy itself doesn't tell, as paths may name patients.
    warnings : tuple of str
        Those of the scan.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    facts: dict[str, Any] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
    dtype, shape = np.dtype(facts["dtype"]), (facts["shape"][0], facts["shape"][1])
    paths = tuple(folder / short for short in facts["channels"])
    planes = tuple(BlockPlane(scan, os.open(path, os.O_RDONLY), shape, dtype) for path in paths)

    def close() -> None:
        for plane in planes:
            os.close(plane.file)

    source = Source(
        reader=facts["reader"],
        planes=planes,
        channel_names=tuple(facts["channels"]),
        pixel_size_um=facts["pixel_size_um"],
        warnings=warnings,
        close=close,
        files=paths,
    )
    return WorkingCopy(scan, source, facts["pixel_size_um"], planes)


def _cuts(y0: int, x0: int, shape: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Cut a region along the blocks' borders: first and last row, first and last column of each part."""
    y1, x1 = y0 + shape[0], x0 + shape[1]
    for top in range(y0 // BLOCK_PX * BLOCK_PX, y1, BLOCK_PX):
        for left in range(x0 // BLOCK_PX * BLOCK_PX, x1, BLOCK_PX):
            yield max(y0, top), min(y1, top + BLOCK_PX), max(x0, left), min(x1, left + BLOCK_PX)


def _write(file: int, data: NDArray, offset: int) -> None:
    """Write all bytes: on a disk that is nearly full the system may take only some, and says so at the next try."""
    view = data.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        done += os.pwrite(file, view[done:], offset + done)
