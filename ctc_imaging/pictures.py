"""Pictures that are no slides (PNG, JPEG, BMP; TIFF in colour or of odd integers), read whole and strictly."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import is_plausible_pixel_size
from ctc_imaging.readers.logs import collected_log
from ctc_imaging.readers.pixels import check_chunk_size
from ctc_imaging.readers.scale import length_um, square_pixel_size_um
from ctc_imaging.readers.tiff_metadata import read_metadata
from ctc_imaging.readers.tiff_planes import DAMAGE
from ctc_imaging.readers.tiff_structure import check_structure, is_tiff
from ctc_imaging.readers.tiff_xml import check_xml

MAX_PIXELS = 2**27
"""Of one plane that is read, and segmented, whole: about 11,500 by 11,500, for which segmentation takes 10 GB."""

COLOURS = ("red", "green", "blue")

_AGAIN = "copy or export it again"
_SLIDE_TYPES = ("uint8", "uint16", "float16", "float32", "float64")
_RGB, _YCBCR = 2, 6
_INTERLEAVED = 1
_UM_PER_DENSITY_UNIT = {1: 25_400.0, 2: 1e4}  # JFIF: dots per inch, per cm
_UM_PER_M = 1e6


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes
    ----------
    pixels : ndarray, shape (C, Y, X)
        As stored; transparency is left out.
    channel_names : tuple of (str or None)
        `COLOURS` for a colour picture.
    pixel_size_um : float or None
        As the file tells, where it can be that of a microscope (a printer's 72 dpi can't).
    """

    pixels: NDArray
    channel_names: tuple[str | None, ...]
    pixel_size_um: float | None


def is_picture(path: Path) -> bool:
    """Tell by a file's first bytes whether it is a picture; a TIFF that a slide could be is none."""
    if not path.is_file():
        return False
    return _decoder(path) is not None or (is_tiff(path) and _is_odd_tiff(path))


def read_picture(path: Path) -> Picture:
    """Read a picture whole.

    Parameters
    ----------
    path : Path
        For which `is_picture` is true.

    Returns
    -------
    Picture

    Raises
    ------
    SlideError
        If it is damaged, cut short, larger than `MAX_PIXELS`, or more than channels of one plane.
    """
    decode = _decoder(path) or _read_tiff
    try:
        return decode(path)
    except DAMAGE as error:
        # Not chained to the error, which may quote metadata that name a patient.
        raise SlideError(path, f"the picture is damaged or cut short ({type(error).__name__})", _AGAIN) from None


def check_size(path: Path, height: int, width: int) -> None:
    """Refuse a plane that is too large to be held whole.

    Raises
    ------
    SlideError
        If it has more than `MAX_PIXELS`.
    """
    if height * width > MAX_PIXELS:
        raise SlideError(
            path,
            f"{height} x {width} px are too many for one piece ({MAX_PIXELS} px)",
            "cut out a part, or use 'ctc-imaging run', which reads slides of any size",
        )


def _decoder(path: Path) -> Callable[[Path], Picture] | None:
    with path.open("rb") as file:
        head = file.read(8)
    return next((decode for magic, decode in _DECODERS.items() if head.startswith(magic)), None)


def _read_png(path: Path) -> Picture:
    import imagecodecs

    data = path.read_bytes()
    width, height = struct.unpack_from(">II", data, 16)
    check_size(path, height, width)
    scale_um = None
    for kind, body in _png_chunks(data):
        if kind == b"pHYs":
            x, y, unit = struct.unpack(">IIB", body)
            scale_um = _scale(path, (x, y), _UM_PER_M if unit == 1 else None)
    return _picture(imagecodecs.png_decode(data), scale_um)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of a PNG's chunks; libpng would print what it thinks of damaged ones."""
    place, kind = 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, place + 8 + length)
        if zlib.crc32(body, zlib.crc32(kind)) != checksum:
            raise ValueError(f"PNG chunk at byte {place} is damaged")
        yield kind, body
        place += 12 + length


def _read_jpeg(path: Path) -> Picture:
    import imagecodecs

    data = path.read_bytes()
    header = _jpeg_header(data)
    check_size(path, header.height, header.width)
    if header.components not in (1, len(COLOURS)):
        raise SlideError(path, f"a JPEG of {header.components} inks, not of light", "export the image as TIFF")
    # Decoders fill what is missing of a cut JPEG with grey.
    if data.find(b"\xff\xd9", header.end) < 0:
        raise SlideError(path, "the picture is cut short", _AGAIN)
    return _picture(imagecodecs.jpeg_decode(data), _scale(path, header.density, header.um_per_density))


@dataclass
class _JpegHeader:
    height: int = 0
    width: int = 0
    components: int = 0
    density: tuple[int, int] = (0, 0)
    um_per_density: float | None = None
    end: int = 2


def _jpeg_header(data: bytes) -> _JpegHeader:
    """Walk the segments of a JPEG up to its first scan."""
    header = _JpegHeader()
    while True:
        place = header.end
        marker, kind, length = struct.unpack_from(">BBH", data, place)
        if marker != 0xFF or length < 2:
            raise ValueError(f"no JPEG segment at byte {place}")
        header.end = place + 2 + length
        if kind == 0xE0 and data[place + 4 : place + 9] == b"JFIF\0":
            unit, *density = struct.unpack_from(">BHH", data, place + 11)
            header.density, header.um_per_density = (density[0], density[1]), _UM_PER_DENSITY_UNIT.get(unit)
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            header.height, header.width, header.components = struct.unpack_from(">HHB", data, place + 5)
        elif kind == 0xDA:
            return header


def _read_bmp(path: Path) -> Picture:
    import imagecodecs

    data = path.read_bytes()
    width, height = struct.unpack_from("<ii", data, 18)
    check_size(path, abs(height), abs(width))
    return _picture(imagecodecs.bmp_decode(data), None)


def _scale(path: Path, density: tuple[int, int], unit_um: float | None) -> float | None:
    """Turn pixels per unit, in X and Y, into a microscope's µm per pixel; None where it is a printer's."""
    if unit_um is None:
        return None
    sizes = [length_um(1 / count, unit_um) if count else None for count in density]
    plausible = [size for size in sizes if size is not None and is_plausible_pixel_size(size)]
    return square_pixel_size_um(path, plausible)[0]


def _picture(samples: NDArray, pixel_size_um: float | None) -> Picture:
    """Put channels first; the second of two samples and the fourth of four are transparency."""
    if samples.ndim == 2:
        samples = samples[:, :, None]
    if samples.shape[2] < len(COLOURS):
        return Picture(samples[None, :, :, 0], (None,), pixel_size_um)
    return Picture(np.moveaxis(samples[:, :, : len(COLOURS)], 2, 0), COLOURS, pixel_size_um)


def _is_odd_tiff(path: Path) -> bool:
    """Tell whether a TIFF is a picture in colour, or of integers that no scanner counts in.

    What can't be told is left to the reader of slides, which says why.
    """
    import tifffile

    try:
        check_structure(path)
        with collected_log("tifffile"), tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            return _is_coloured(page) or (page.dtype is not None and page.dtype.name not in _SLIDE_TYPES)
    except (SlideError, *DAMAGE):
        return False


def _is_coloured(page: Any) -> bool:
    return (
        page.photometric in (_RGB, _YCBCR)
        and page.planarconfig == _INTERLEAVED
        and page.samplesperpixel >= len(COLOURS)
    )


def _read_tiff(path: Path) -> Picture:
    import tifffile

    with collected_log("tifffile") as records, tifffile.TiffFile(path) as tif:
        check_xml(path, tif)
        series = max(tif.series, key=lambda one: one.keyframe.imagelength * one.keyframe.imagewidth)
        channel_axis = _check_layout(path, series)
        pixels = series.asarray()
        if pixels.shape != series.shape or any(record.levelno >= logging.ERROR for record in records):
            raise SlideError(path, "the TIFF is damaged", _AGAIN)
        planes = pixels[None] if channel_axis is None else np.moveaxis(pixels, channel_axis, 0)
        metadata = read_metadata(path, tif, series, len(planes))
        if _is_coloured(series.keyframe):
            return Picture(planes[: len(COLOURS)], COLOURS, metadata.pixel_size_um)
        return Picture(planes, metadata.channel_names, metadata.pixel_size_um)


def _check_layout(path: Path, series: Any) -> int | None:
    """Check, before it is decoded, that a TIFF is whole, not too large, and one plane of channels: on which axis."""
    page, axes = series.keyframe, str(series.axes)
    check_size(path, page.imagelength, page.imagewidth)
    if not page.is_contiguous:
        check_chunk_size(path, page.chunks, page.dtype)
    _check_extents(path, series)
    other = [axis for axis in axes if axis not in "YX"]
    if len(other) > 1 or any(axis not in "CISQ" for axis in other):
        raise SlideError(path, f"its axes {axes} aren't channels and a plane", "export one plane a channel")
    return axes.index(other[0]) if other else None


def _check_extents(path: Path, series: Any) -> None:
    """Refuse a TIFF of which a page or a chunk is missing: tifffile would fill it with zeros."""
    for page in series:
        extents = [] if page is None else list(zip(page.dataoffsets, page.databytecounts, strict=True))
        size = 0 if page is None else page.parent.filehandle.size
        if not extents or any(not (offset and length and offset + length <= size) for offset, length in extents):
            raise SlideError(path, "the TIFF is cut short", _AGAIN)


_DECODERS: dict[bytes, Callable[[Path], Picture]] = {
    b"\x89PNG\r\n\x1a\n": _read_png,
    b"\xff\xd8\xff": _read_jpeg,
    b"BM": _read_bmp,
}
