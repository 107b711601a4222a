"""A slide scan as lazy pixels: open it, read any region, and only the chunks beneath are decoded."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.errors import SlideError
from ctc_imaging.readers import Source, open_source
from ctc_imaging.readers.base import MAX_PIXEL_SIZE_UM, MIN_PIXEL_SIZE_UM, is_plausible_pixel_size
from ctc_imaging.readers.remote import faults, to_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray

# Enough for the chunks under a tile and its halo in five channels, so that neighbours needn't decode twice.
CACHE_BYTES = 256 * 2**20

# Scanners round the scale they write; two figures further apart than this are two different objectives.
PIXEL_SIZE_TOLERANCE = 0.02


class Slide:
    """Lazy pixels (C, Y, X) of one scan; a context manager.

    Not shared between threads or processes: each worker opens the slide by its path.

    Attributes
    ----------
    path : Path
        The file or folder.
    reader : str
        Name of the reader that opened it.
    shape : tuple of int
        (C, Y, X).
    dtype : numpy.dtype
        uint8, uint16 or float32, in native byte order.
    pixel_size_um : float or None
        Side of a pixel in µm, to 6 significant digits; None when neither the file nor the caller tells.
    channel_names : tuple of (str or None)
        As in the file; None where it gives none.
    chunk_shapes_px : tuple of tuple of int
        Height and width of each channel's chunks.
    files : tuple of Path
        All files whose bytes make up the slide, sorted.
    chunks_read : int
        Chunks decoded so far (cache hits not counted).
    """

    def __init__(self, path: Path, source: Source, pixel_size_um: float | None, cache_bytes: int = CACHE_BYTES) -> None:
        planes = source.planes
        self.path = path
        self.reader = source.reader
        self.shape = (len(planes), *planes[0].shape)
        self.dtype = planes[0].dtype
        self.pixel_size_um = pixel_size_um
        self.channel_names = source.channel_names
        self.chunk_shapes_px = tuple(plane.chunk_shape_px for plane in planes)
        self.files = source.files
        self.chunks_read = 0
        self._source = source
        self._cache: OrderedDict[tuple[int, int, int], NDArray] = OrderedDict()
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What the reader found odd but readable; the first time it's asked for, some readers look at pixels."""
        return (*self._source.warnings, *self._source.look())

    @property
    def chunk_shape_px(self) -> tuple[int, int]:
        """Height and width of the first channel's chunks."""
        return self.chunk_shapes_px[0]

    def read(self, channels: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> NDArray:
        """Read a region of some channels.

        Parameters
        ----------
        channels : sequence of int
            Indices of channels, in the order wanted.
        y0, y1, x0, x1 : int
            The region in px, ends exclusive, within the slide.

        Returns
        -------
        numpy.ndarray
            (c, y1 - y0, x1 - x0) in the slide's dtype.

        Raises
        ------
        IndexError
            If a channel or the region isn't on the slide.
        SlideError
            If a chunk is damaged, or holds values that aren't finite.
        """
        self._check_region(channels, y0, y1, x0, x1)
        region = np.empty((len(channels), y1 - y0, x1 - x0), self.dtype)
        for target, channel in zip(region, channels, strict=True):
            self._fill(target, channel, y0, x0)
        return region

    def _check_region(self, channels: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> None:
        count, height, width = self.shape
        if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
            raise IndexError(f"region [{y0}:{y1}, {x0}:{x1}] isn't on the slide of {height} x {width} px")
        if any(not 0 <= channel < count for channel in channels):
            raise IndexError(f"channels {list(channels)} aren't all on the slide of {count}")

    def close(self) -> None:
        """Close the files and forget the cached chunks."""
        self._cache.clear()
        self._cached_bytes = 0
        self._source.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self, target: NDArray, channel: int, y0: int, x0: int) -> None:
        y1, x1 = y0 + target.shape[0], x0 + target.shape[1]
        high, wide = self._source.planes[channel].chunk_shape_px
        for row, column in product(range(y0 // high, -(-y1 // high)), range(x0 // wide, -(-x1 // wide))):
            chunk = self._chunk(channel, row, column)
            top, left = row * high, column * wide
            ya, yb = max(y0, top), min(y1, top + chunk.shape[0])
            xa, xb = max(x0, left), min(x1, left + chunk.shape[1])
            target[ya - y0 : yb - y0, xa - x0 : xb - x0] = chunk[ya - top : yb - top, xa - left : xb - left]

    def _chunk(self, channel: int, row: int, column: int) -> NDArray:
        key = (channel, row, column)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        try:
            chunk = self._source.planes[channel].read_chunk(row, column)
        except faults() as error:
            fault = f"chunk {row}, {column} of channel {channel} can't be read ({type(error).__name__})"
            raise SlideError(self.path, fault, "check the disk, or the connection to it") from error
        self.chunks_read += 1
        if chunk.dtype.kind == "f" and not np.isfinite(chunk).all():
            raise SlideError(
                self.path,
                f"channel {channel} holds values that aren't finite numbers (chunk {row}, {column})",
                "export the scan again without masked pixels",
            )
        self._cache[key] = chunk
        self._cached_bytes += chunk.nbytes
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return chunk


def open_slide(path: str | Path, pixel_size_um: float | None = None) -> Slide:
    """Open a slide strictly, without reading its pixels.

    Parameters
    ----------
    path : str or Path
        A TIFF file (OME-TIFF, multi-page, ImageJ), a folder of one TIFF per channel or of frames, an OME-Zarr,
        what a bioio plug-in opens, or the URL of one of these.
    pixel_size_um : float, optional
        Side of a pixel in µm, for files that don't tell.

    Returns
    -------
    Slide
        A context manager.

    Raises
    ------
    SlideError
        If the slide is missing, damaged or ambiguous, or its own pixel size differs from
        `pixel_size_um` by more than 2 %.
    """
    path = to_path(path)
    if pixel_size_um is not None and not is_plausible_pixel_size(pixel_size_um):
        raise SlideError(
            path,
            f"a pixel size of {pixel_size_um:g} µm isn't that of a cell scan",
            f"give micrometres a pixel, between {MIN_PIXEL_SIZE_UM} and {MAX_PIXEL_SIZE_UM}",
        )
    source = open_source(path)
    try:
        return Slide(path, source, _agree(path, source.pixel_size_um, pixel_size_um))
    except BaseException:
        source.close()
        raise


def _agree(path: Path, found: float | None, given: float | None) -> float | None:
    """Return the pixel size on which file and caller agree: the file's own where both tell."""
    if found is None or given is None:
        return _rounded(given if found is None else found)
    if not math.isclose(found, given, rel_tol=PIXEL_SIZE_TOLERANCE):
        raise SlideError(
            path,
            f"its metadata say {found:g} µm a pixel, the table or option says {given:g} µm",
            "correct the one that is wrong",
        )
    return _rounded(found)


def _rounded(size_um: float | None) -> float | None:
    """Round to 6 significant digits: the same scale, told as a ratio, in XML or in JSON, is the same number."""
    return None if size_um is None else float(f"{size_um:.6g}")
