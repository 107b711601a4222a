"""Channel names and pixel size, as OME-XML, ImageJ or the TIFF tags tell them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import is_plausible_pixel_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Pixels of a scan are square; X and Y further apart than this are a wrong or anisotropic scale.
SQUARE_TOLERANCE = 0.01

_UM = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "pm": 1e-6, "å": 1e-4,
    "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "in": 25_400.0, "inch": 25_400.0,
}  # fmt: skip

_RESOLUTION_UNITS_UM = {2: 25_400.0, 3: 1e4}

# Names that software makes up ("Channel:0:1", "c:1/4 - scan.tif", "3") say nothing about the stain.
_PLACEHOLDER = re.compile(r"(channel|ch|c|image|page|slice)?[\s:_=#-]*\d+([:/]\d+)*(\s+-\s.*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Metadata:
    """What a file says about its channels and scale; None where it says nothing."""

    channel_names: tuple[str | None, ...]
    pixel_size_um: float | None
    warnings: tuple[str, ...]


def read_metadata(path: Path, tif: Any, series: Any, channels: int) -> Metadata:
    """Read channel names and pixel size of a TIFF series.

    Parameters
    ----------
    path : Path
        The file, for error messages.
    tif : tifffile.TiffFile
        The open file.
    series : tifffile.TiffPageSeries
        Its series that is the slide.
    channels : int
        The number of channels in the series.

    Returns
    -------
    Metadata

    Raises
    ------
    SlideError
        If pixels aren't square, or the OME-XML has no image for the series.
    """
    if series.kind == "ome":
        pixels = _ome_pixels(path, tif.ome_metadata, series)
        names = [element.get("Name") for element in _children(pixels, "Channel")]
        sizes = [_ome_size_um(pixels, axis) for axis in "XY"]
    else:
        imagej = tif.imagej_metadata or {}
        names = imagej.get("Labels") or []
        sizes = _tag_sizes_um(series.keyframe, str(imagej.get("unit", "")))
    size, warnings = _square(path, sizes)
    return Metadata(clean_names(names, channels), size, warnings)


def clean_names(names: Sequence[str | None], channels: int) -> tuple[str | None, ...]:
    """Trim channel names; None for those that only number the channel, or if there aren't as many as channels."""
    if len(names) != channels:
        return (None,) * channels
    trimmed = [(name or "").replace("\ufeff", "").replace("\0", "").strip() for name in names]
    return tuple(None if not name or _PLACEHOLDER.fullmatch(name) else name for name in trimmed)


def _ome_pixels(path: Path, xml: str, series: Any) -> ElementTree.Element:
    root = ElementTree.fromstring(xml.lstrip("\ufeff"))
    wanted = {axis: series.get_shape(squeeze=False)[series.get_axes(squeeze=False).index(axis)] for axis in "YX"}
    for image in _children(root, "Image"):
        for pixels in _children(image, "Pixels"):
            same_name = (image.get("Name") or "") == series.name
            if same_name and all(int(pixels.get(f"Size{axis}", 0)) == size for axis, size in wanted.items()):
                return pixels
    raise SlideError(path, "its OME-XML doesn't describe the image", "export the scan again as OME-TIFF")


def _children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def _ome_size_um(pixels: ElementTree.Element, axis: str) -> float | None:
    unit = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").strip().replace("\u03bc", "µ").lower())
    return _positive(pixels.get(f"PhysicalSize{axis}"), unit)


def _tag_sizes_um(page: Any, imagej_unit: str) -> list[float | None]:
    """µm per pixel in X and Y from the resolution tags, whose unit ImageJ writes elsewhere."""
    spelled = imagej_unit.strip().replace("\\u00B5", "µ").replace("\u03bc", "µ").lower()
    unit = _UM.get(spelled) or _RESOLUTION_UNITS_UM.get(int(page.tags.valueof(296, default=2)))
    if imagej_unit and spelled not in _UM:
        unit = None
    sizes = []
    for code in (282, 283):
        numerator, denominator = page.tags.valueof(code, default=(0, 1))
        sizes.append(_positive(denominator / numerator if numerator else None, unit))
    return sizes


def _positive(value: str | float | None, unit_um: float | None) -> float | None:
    try:
        size = float(value or 0) * (unit_um or 0)
    except ValueError:
        return None
    return size if math.isfinite(size) and size > 0 else None


def _square(path: Path, sizes: Sequence[float | None]) -> tuple[float | None, tuple[str, ...]]:
    known = [size for size in sizes if size is not None]
    if not known:
        return None, ()
    if not math.isclose(known[0], known[-1], rel_tol=SQUARE_TOLERANCE):
        raise SlideError(
            path, f"its pixels aren't square: {known[0]:g} by {known[-1]:g} µm", "export the scan with one scale"
        )
    if not is_plausible_pixel_size(known[0]):
        return None, (f"its metadata say {known[0]:g} µm a pixel, which no cell scan has: taken as unknown",)
    return known[0], ()
