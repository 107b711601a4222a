"""TIFF slides: OME-TIFF, multi-page and ImageJ; striped, tiled, pyramidal or compressed."""

from __future__ import annotations

import logging
import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import Source
from ctc_imaging.readers.tiff_metadata import read_metadata
from ctc_imaging.readers.tiff_planes import DAMAGE, EncodedPlane, RawPlane
from ctc_imaging.readers.tiff_structure import check_structure, is_tiff

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A compressed chunk is decoded whole: beyond this, memory would grow with the slide.
MAX_CHUNK_BYTES = 256 * 2**20

_DTYPES = ("uint8", "uint16", "float32")
_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_CHANNEL_AXES = "CISQ"
_AXIS_NAMES = {"Z": "focal planes (Z)", "T": "time points (T)"}
_AGAIN = "copy it from the scanner again"


class TiffReader:
    """Reads TIFF files with tifffile, strictly."""

    name = "tiff"

    def accepts(self, path: Path) -> bool:
        """Tell whether it is a file that is a TIFF, or is named like one."""
        return path.is_file() and (path.suffix.lower() in _SUFFIXES or is_tiff(path))

    def open(self, path: Path) -> Source:
        """Open the base level of the file's largest image.

        Raises
        ------
        SlideError
            If the file is damaged, incomplete, or holds something else than one plane a channel.
        """
        import tifffile

        check_structure(path)
        files: list[Any] = []
        try:
            with _collected_log() as records:
                tif = tifffile.TiffFile(path)
                files.append(tif)
                return _open(path, tif, files, records)
        except DAMAGE as error:
            _close(files)
            raise SlideError(path, f"the TIFF is damaged ({error!r:.160})", _AGAIN) from error
        except SlideError:
            _close(files)
            raise


def _open(path: Path, tif: Any, files: list[Any], records: list[logging.LogRecord]) -> Source:
    series = _largest(path, tif)
    planes = _planes(path, series, files)
    metadata = read_metadata(path, tif, series, len(planes))
    faults = [record for record in records if record.levelno >= logging.ERROR]
    if faults:
        raise SlideError(path, f"the TIFF is damaged ({_said(faults[0])})", _AGAIN)
    warnings = (*metadata.warnings, *(_said(record) for record in records))
    return Source("tiff", planes, metadata.channel_names, metadata.pixel_size_um, warnings, lambda: _close(files))


def _close(files: list[Any]) -> None:
    for file in files:
        file.close()


def _largest(path: Path, tif: Any) -> Any:
    """Return the one series that is the slide; others may only be smaller (labels, thumbnails)."""
    first = tif.pages.first
    series = tif.series
    if "<OME" in (first.description or "")[:2048] and (not series or series[0].kind != "ome"):
        raise SlideError(path, "its OME-XML is damaged or points elsewhere", "export the scan again as OME-TIFF")
    areas = [one.keyframe.imagelength * one.keyframe.imagewidth for one in series]
    if not areas or max(areas) == 0:
        raise SlideError(path, "it holds no image", _AGAIN)
    if areas.count(max(areas)) > 1:
        raise SlideError(
            path, f"it holds {areas.count(max(areas))} images of one size", "save each slide in its own file"
        )
    return series[areas.index(max(areas))]


def _planes(path: Path, series: Any, files: list[Any]) -> tuple[RawPlane | EncodedPlane, ...]:
    key = series.keyframe
    _check_kind(path, series)
    separate, depth, height, width, samples = key.shaped
    count = math.prod(series.get_shape(squeeze=False)) // (height * width)
    if depth != 1 or count % (separate * samples):
        raise SlideError(path, f"axes {series.axes} aren't channels of one plane", "export one plane a channel")
    planes: list[RawPlane | EncodedPlane]
    if series.is_truncated and key.is_contiguous:
        planes = list(_run_of_planes(path, series, count))
    else:
        pages = list(series)
        if any(page is None for page in pages) or len(pages) * separate * samples != count:
            found = sum(page is not None for page in pages)
            raise SlideError(path, f"only {found} of its {count // (separate * samples)} planes are there", _AGAIN)
        planes = [plane for page in pages for plane in _page_planes(path, page, files)]
    for plane in planes:
        _check_extents(path, plane)
    return tuple(planes)


def _check_kind(path: Path, series: Any) -> None:
    """Refuse what isn't one greyscale plane a channel."""
    key = series.keyframe
    sizes = dict(zip(series.axes, series.shape, strict=True))
    for axis, size in sizes.items():
        if axis in _AXIS_NAMES and size > 1:
            raise SlideError(
                path, f"it has {size} {_AXIS_NAMES[axis]}", "export one plane a channel, with planes marked as channels"
            )
    other = [axis for axis, size in sizes.items() if axis not in "YX" and size > 1]
    if len(other) > 1 or any(axis not in _CHANNEL_AXES for axis in other):
        raise SlideError(path, f"its axes {series.axes} aren't channels and a plane", "export one plane a channel")
    if key.photometric in (2, 6) and key.planarconfig == 1 and key.samplesperpixel > 1:
        raise SlideError(path, "a colour (RGB) image, not one channel a stain", "export each stain as a grey channel")
    if key.dtype is None or key.dtype.name not in _DTYPES:
        kind = "unknown" if key.dtype is None else key.dtype.name
        raise SlideError(path, f"pixels of type {kind}", f"export it as {', '.join(_DTYPES)}")


def _run_of_planes(path: Path, series: Any, count: int) -> list[RawPlane]:
    """Planes that follow each other uncompressed, described by a single page (large ImageJ stacks)."""
    key = series.keyframe
    shape = (key.imagelength, key.imagewidth)
    dtype = key.dtype.newbyteorder(key.parent.byteorder)
    size = shape[0] * shape[1] * dtype.itemsize
    if key.samplesperpixel != 1:
        raise SlideError(path, "several samples a pixel in a single-page stack", "export one plane a channel")
    handle = key.parent.filehandle
    return [RawPlane(path, handle, key.dataoffsets[0] + index * size, shape, dtype, 1, 0) for index in range(count)]


def _page_planes(path: Path, page: Any, files: list[Any]) -> Iterator[RawPlane | EncodedPlane]:
    key = page.keyframe
    handle = page.parent.filehandle
    if handle.closed:
        handle.open()
        files.append(handle)
    separate, _, height, width, samples = key.shaped
    dtype = key.dtype.newbyteorder(page.parent.byteorder)
    for index in range(separate):
        for sample in range(samples):
            if key.is_contiguous and _is_one_run(page):
                offset = page.dataoffsets[0] + index * height * width * dtype.itemsize
                yield RawPlane(path, handle, offset, (height, width), dtype, samples, sample)
            else:
                yield EncodedPlane(path, handle, page, index, sample)


def _is_one_run(page: Any) -> bool:
    """Tell whether the page's own chunks follow each other; tifffile only looks at the first page's."""
    ends = [offset + size for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    return len(ends) > 0 and list(page.dataoffsets[1:]) == ends[:-1]


def _check_extents(path: Path, plane: RawPlane | EncodedPlane) -> None:
    """Refuse a plane whose chunks aren't all within the file, or too large to decode."""
    size = plane.handle.size
    if min(*plane.shape, *plane.chunk_shape_px) < 1:
        raise SlideError(path, "its image or its chunks have no size", _AGAIN)
    if isinstance(plane, RawPlane):
        if plane.end > size:
            raise SlideError(path, f"the file ends at byte {size}, its pixels at {plane.end}", _AGAIN)
        return
    rows, columns = plane.grid
    extents = plane.extents
    if len(extents) != rows * columns or any(not offset or not length for offset, length in extents):
        raise SlideError(path, "some of its chunks were never written", _AGAIN)
    if any(offset + length > size for offset, length in extents):
        raise SlideError(path, f"the file ends at byte {size}, before the last of its chunks", _AGAIN)
    if math.prod(plane.chunk_shape_px) * plane.dtype.itemsize > MAX_CHUNK_BYTES:
        raise SlideError(path, "each channel is one huge compressed block", "export the scan as tiled OME-TIFF")


class _Collector(logging.Handler):
    """Keeps log records in a list."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _collected_log() -> Iterator[list[logging.LogRecord]]:
    """Collect what tifffile warns about while it opens a file."""
    handler = _Collector()
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)


def _said(record: logging.LogRecord) -> str:
    """Say a log message without the object it begins with."""
    return re.sub(r"^<tifffile\.\S+ [^>]*> ", "", record.getMessage())[:160]
