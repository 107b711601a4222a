"""Channel names and pixel size, as OME-XML, ImageJ or the TIFF tags tell them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.scale import clean_names, length_um, square_pixel_size_um, um_per

if TYPE_CHECKING:
    from pathlib import Path

_RESOLUTION_UNITS_UM = {2: 25_400.0, 3: 1e4}


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
    size, warnings = square_pixel_size_um(path, sizes)
    return Metadata(clean_names(names, channels), size, warnings)


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
    return length_um(pixels.get(f"PhysicalSize{axis}"), um_per(pixels.get(f"PhysicalSize{axis}Unit", "µm")))


def _tag_sizes_um(page: Any, imagej_unit: str) -> list[float | None]:
    """µm per pixel in X and Y from the resolution tags, whose unit ImageJ writes elsewhere."""
    unit = um_per(imagej_unit) if imagej_unit else _RESOLUTION_UNITS_UM.get(int(page.tags.valueof(296, default=2)))
    sizes = []
    for code in (282, 283):
        numerator, denominator = page.tags.valueof(code, default=(0, 1))
        sizes.append(length_um(denominator / numerator if numerator else None, unit))
    return sizes
