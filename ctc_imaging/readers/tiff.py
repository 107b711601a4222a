"""TIFF slides: OME-TIFF, multi-page and ImageJ; striped, tiled, pyramidal or compressed."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import Source
from ctc_imaging.readers.logs import collected_log
from ctc_imaging.readers.pixels import check_chunk_size, in_focus, type_read
from ctc_imaging.readers.remote import base_name, is_remote
from ctc_imaging.readers.tiff_metadata import read_metadata
from ctc_imaging.readers.tiff_planes import DAMAGE, EncodedPlane, RawPlane
from ctc_imaging.readers.tiff_structure import check_structure, is_tiff
from ctc_imaging.readers.tiff_xml import check_xml

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ctc_imaging.readers.base import Plane

_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_CHANNEL_AXES = "CISQ"
_AGAIN = "copy it from the scanner again"


class TiffReader:
    """Reads TIFF files with tifffile, strictly."""

    name = "tiff"

    def accepts(self, path: Path) -> bool:
        """Tell whether it is a file that is a TIFF, or is named like one."""
        return path.is_file() and (base_name(path).lower().endswith(_SUFFIXES) or is_tiff(path))

    def open(self, path: Path) -> Source:
        """Open the base level of the file's largest image.

        Raises
        ------
        SlideError
            If the file is damaged, incomplete, or holds something else than one plane a channel.
        """
        check_structure(path)
        files: list[Any] = []
        try:
            with collected_log("tifffile") as records:
                tif = _tiff_file(path, files)
                check_xml(path, tif)
                return _open(path, tif, files, records)
        except DAMAGE as error:
            _close(files)
            # Not chained to the error, which may quote metadata that name a patient.
            raise SlideError(path, f"the TIFF is damaged ({type(error).__name__})", _AGAIN) from None
        except SlideError:
            _close(files)
            raise


def _tiff_file(path: Path, files: list[Any]) -> Any:
    """Open a local file by its name, since its OME-XML may name others beside it, and a remote one as a stream."""
    import tifffile

    if is_remote(path):
        files.append(path.open("rb"))
    tif = tifffile.TiffFile(files[0] if files else path)
    files.insert(0, tif)
    return tif


def _open(path: Path, tif: Any, files: list[Any], records: list[logging.LogRecord]) -> Source:
    series = _largest(path, tif)
    planes, focus = in_focus(_stacks(path, series, _planes(path, series, files)))
    metadata = read_metadata(path, tif, series, len(planes))
    faults = [record for record in records if record.levelno >= logging.ERROR]
    if faults:
        raise SlideError(path, f"the TIFF is damaged ({_said(faults[0])})", _AGAIN)
    odd = dict.fromkeys(f"a fault was worked around ({_said(record)})" for record in records)
    return Source(
        reader="tiff",
        planes=planes,
        channel_names=metadata.channel_names,
        pixel_size_um=metadata.pixel_size_um,
        warnings=(*focus, *metadata.warnings, *odd),
        close=lambda: _close(files),
        files=_files(path, series),
    )


def _files(path: Path, series: Any) -> tuple[Path, ...]:
    """Return the slide's file and the others that its metadata spread the planes over."""
    if is_remote(path):
        return (path,)
    real = path.resolve()
    others = [Path(name) for name in {page.parent.filehandle.path for page in series} - {str(real)}]
    beside = [path.parent / other.relative_to(real.parent) for other in others if other.is_relative_to(real.parent)]
    if len(beside) < len(others) or not all(other.exists() for other in beside):
        raise SlideError(path, "some of its planes lie in files outside its folder", "give the path of the scan itself")
    return tuple(sorted({path, *beside}))


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
        _check_numbers(path, key)
        planes = list(_run_of_planes(path, series, count))
    else:
        pages = list(series)
        if any(page is None for page in pages) or len(pages) * separate * samples != count:
            found = sum(page is not None for page in pages)
            raise SlideError(path, f"only {found} of its {count // (separate * samples)} planes are there", _AGAIN)
        for page in pages:
            _check_numbers(path, page)
        planes = [plane for page in pages for plane in _page_planes(path, page, files)]
    for plane in planes:
        if (plane.shape, plane.dtype) != (planes[0].shape, planes[0].dtype):
            kinds = " and ".join(f"{one.shape} {one.dtype}" for one in (planes[0], plane))
            raise SlideError(path, f"its channels differ: {kinds}", "export all channels alike")
        _check_extents(path, plane)
    return tuple(planes)


def _check_kind(path: Path, series: Any) -> None:
    """Refuse what isn't greyscale planes of channels, at one or more depths."""
    key = series.keyframe
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if sizes.get("T", 1) > 1:
        raise SlideError(
            path, f"it has {sizes['T']} time points (T)", "export one plane a channel, with planes marked as channels"
        )
    other = [axis for axis, size in sizes.items() if axis not in "YXZ" and size > 1]
    if len(other) > 1 or any(axis not in _CHANNEL_AXES for axis in other):
        raise SlideError(path, f"its axes {series.axes} aren't channels and a plane", "export one plane a channel")
    if key.photometric in (2, 6) and key.planarconfig == 1 and key.samplesperpixel > 1:
        raise SlideError(path, "a colour (RGB) image, not one channel a stain", "export each stain as a grey channel")
    type_read(path, key.dtype)


def _stacks(path: Path, series: Any, planes: Sequence[Plane]) -> list[list[Plane]]:
    """Sort planes, which come in the order of the series' axes, by channel and then by depth."""
    lengths = [(axis, size) for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YX"]
    depth = dict(lengths).get("Z", 1)
    order = np.arange(len(planes)).reshape([size for _, size in lengths] or [1])
    if depth > 1:
        order = np.moveaxis(order, [axis for axis, _ in lengths].index("Z"), -1)
    return [[planes[index] for index in stack] for stack in order.reshape(-1, depth)]


def _check_numbers(path: Path, page: Any) -> None:
    """Refuse chunks whose places a damaged tag tells in fractions."""
    if not all(isinstance(number, int) for number in (*page.dataoffsets, *page.databytecounts)):
        raise SlideError(path, "the places of its chunks aren't whole numbers", _AGAIN)


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
    check_chunk_size(path, plane.chunk_shape_px, plane.dtype)


def _said(record: logging.LogRecord) -> str:
    """Say where tifffile found a fault, but not in its words: they may quote a barcode or a patient's name."""
    message = record.getMessage()
    tag = re.search(r"TiffTag (\d+)", message)
    error = re.search(r"raised (\w+)", message)
    return (f"TIFF tag {tag[1]}" if tag else "its metadata") + (f": {error[1]}" if error else "")
