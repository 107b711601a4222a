"""OME-Zarr slides, 0.4 and 0.5: the full-size level of one image, its channels, scale and axes."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import Source
from ctc_imaging.readers.pixels import in_focus, type_read
from ctc_imaging.readers.remote import base_name, connect, is_remote, read_bytes
from ctc_imaging.readers.scale import clean_names, length_um, square_pixel_size_um, um_per
from ctc_imaging.readers.zarr_array import MALFORMED, ZarrArray, ZarrPlane

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
_VERSIONS = ("0.4", "0.5")
_AGAIN = "copy it from the scanner again"
_ONE_IMAGE = "convert only the scan itself (bioformats2raw: --series)"


class OmeZarrReader:
    """Reads OME-Zarr folders, also in object storage."""

    name = "ome-zarr"

    def accepts(self, path: Path) -> bool:
        """Tell whether it is a folder with Zarr metadata, or is named like one."""
        named = base_name(path).lower().endswith(".zarr")
        if is_remote(path):
            connect(path)
            return named or any((path / name).is_file() for name in _METADATA)
        return path.is_dir() and (named or any((path / name).is_file() for name in _METADATA))

    def open(self, path: Path) -> Source:
        """Open level 0 of the folder's image.

        Raises
        ------
        SlideError
            If metadata are missing or malformed, a chunk's file is missing, or it holds something else than
            one image of channels.
        """
        try:
            return _open(path)
        except MALFORMED as error:
            raise SlideError(path, f"its OME-Zarr metadata are malformed ({type(error).__name__})", _AGAIN) from None


def _open(path: Path) -> Source:
    within, attributes, files = _image(path)
    multiscale = _only(path, attributes["multiscales"], "images (multiscales)")
    _check_version(path, attributes, multiscale)
    level = multiscale["datasets"][0]
    array = ZarrArray(path, within + _inside(path, level["path"]))
    axes = _axes(path, multiscale["axes"], array.shape)
    stacks = _stacks(path, axes, array)
    planes, focus = in_focus(stacks)
    size, warnings = _pixel_size_um(path, axes, multiscale, level)
    labels = [channel.get("label") for channel in attributes.get("omero", {}).get("channels", [])]
    return Source(
        reader=OmeZarrReader.name,
        planes=planes,
        channel_names=clean_names([label if isinstance(label, str) else None for label in labels], len(planes)),
        pixel_size_um=size,
        warnings=(*focus, *warnings),
        close=lambda: None,
        files=tuple(path / name for name in sorted({*files, *array.files}, key=lambda name: name.split("/"))),
    )


def _image(path: Path) -> tuple[str, Mapping[str, Any], list[str]]:
    """Return the folder of the only image within a slide (with a slash), its attributes, and the files read."""
    attributes, files = _attributes(path, "")
    if "bioformats2raw.layout" in attributes and "multiscales" not in attributes:
        series, more = _series(path)
        within = _inside(path, _only(path, series, "images (series)")) + "/"
        attributes, own = _attributes(path, within)
        return within, _checked(path, attributes), [*files, *more, *own]
    return "", _checked(path, attributes), files


def _checked(path: Path, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    for key, what in (("plate", "a plate of wells"), ("well", "a well of a plate"), ("image-label", "a label image")):
        if key in attributes:
            raise SlideError(path, f"{what}, not a slide", "give the folder of one image of channels")
    if "multiscales" not in attributes:
        raise SlideError(path, "a Zarr folder without OME metadata (multiscales)", "export the scan as OME-Zarr 0.4")
    return attributes


def _series(path: Path) -> tuple[list[Any], list[str]]:
    """List the images that bioformats2raw wrote, and the files that tell."""
    attributes, files = _attributes(path, "OME/")
    return attributes["series"], files


def _attributes(path: Path, within: str) -> tuple[dict[str, Any], list[str]]:
    """Return a group's OME attributes, and the files that hold them relative to the slide."""
    document = _json(path, f"{within}zarr.json")
    if document is not None:
        if document["node_type"] != "group":
            raise SlideError(path, "a bare Zarr array, which tells neither its stains nor its scale", "export OME-Zarr")
        return document.get("attributes", {}).get("ome", {}), [f"{within}zarr.json"]
    names = (f"{within}.zgroup", f"{within}.zattrs")
    group, attributes = (_json(path, name) for name in names)
    if group is None or attributes is None:
        where = within.rstrip("/") or "the folder"
        raise SlideError(path, f"{where} lacks Zarr metadata (zarr.json, or .zgroup and .zattrs)", _AGAIN)
    return attributes, list(names)


def _json(path: Path, name: str) -> dict[str, Any] | None:
    try:
        document = json.loads(read_bytes(path / name))
    except FileNotFoundError:
        return None
    except ValueError:
        raise SlideError(path, f"{name} is malformed", _AGAIN) from None
    if not isinstance(document, dict):
        raise SlideError(path, f"{name} is malformed", _AGAIN)
    return document


def _only(path: Path, items: Sequence[Any], what: str) -> Any:
    if len(items) != 1:
        raise SlideError(path, f"it holds {len(items)} {what}, where a slide is one", _ONE_IMAGE)
    return items[0]


def _inside(path: Path, name: str) -> str:
    """Return the name of a folder within the slide, and refuse one that leads out of it."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or ":" in name:
        raise SlideError(path, "its metadata name a folder outside the slide", "export the scan anew as OME-Zarr")
    return "/".join(parts)


def _check_version(path: Path, attributes: Mapping[str, Any], multiscale: Mapping[str, Any]) -> None:
    version = str(attributes.get("version", multiscale.get("version", "0.4")))
    if version not in _VERSIONS:
        named = version if re.fullmatch(r"\d+\.\d+[\w.-]{0,12}", version) else "of an unknown version"
        raise SlideError(path, f"OME-Zarr {named}", f"convert it to {' or '.join(_VERSIONS)}")


def _axes(path: Path, described: Sequence[Mapping[str, Any]], shape: tuple[int, ...]) -> tuple[str, ...]:
    """Name each axis t, c, z, y or x, and refuse what isn't one image of channels."""
    kinds = {"time": "t", "channel": "c"}
    axes = tuple(kinds.get(axis.get("type", ""), str(axis["name"]).lower()) for axis in described)
    if len(set(axes)) != len(axes) or not set(axes) <= set("tczyx") or axes[-2:] != ("y", "x"):
        raise SlideError(path, "its axes aren't those of channels and a plane", "export it with axes (c, y, x)")
    if len(axes) != len(shape):
        raise SlideError(path, f"{len(axes)} axes for an array of {len(shape)}", "export the scan anew as OME-Zarr")
    times = dict(zip(axes, shape, strict=True)).get("t", 1)
    if times > 1:
        raise SlideError(path, f"it has {times} time points (T)", "export one time point")
    return axes


def _stacks(path: Path, axes: tuple[str, ...], array: ZarrArray) -> list[list[ZarrPlane]]:
    """Make planes by channel and depth."""
    type_read(path, array.stored_dtype)
    sizes = dict(zip(axes, array.shape, strict=True))

    def plane(channel: int, depth: int) -> ZarrPlane:
        at = {"c": channel, "z": depth}
        return ZarrPlane(path, array, tuple(at.get(axis, 0) for axis in axes[:-2]))

    return [[plane(channel, depth) for depth in range(sizes.get("z", 1))] for channel in range(sizes.get("c", 1))]


def _pixel_size_um(
    path: Path, axes: tuple[str, ...], multiscale: Mapping[str, Any], level: Mapping[str, Any]
) -> tuple[float | None, tuple[str, ...]]:
    """Multiply the scales of the level and of the whole image, in the axes' units."""
    transformations = [*level.get("coordinateTransformations", []), *multiscale.get("coordinateTransformations", [])]
    scales = [one["scale"] for one in transformations if one["type"] == "scale"]
    sizes, units = [], []
    for axis in "xy":
        place = axes.index(axis)
        unit = multiscale["axes"][place].get("unit")
        side = float(np.prod([float(scale[place]) for scale in scales])) if scales else None
        # A scale of 1 without a unit is what writers fill in when they know none.
        known = unit is not None or side != 1
        sizes.append(length_um(side, um_per(unit or "µm")) if known else None)
        units.append(unit)
    size, warnings = square_pixel_size_um(path, sizes)
    if size is not None and None in units:
        warnings = (f"its metadata give no unit of length: {size:g} is taken as µm a pixel", *warnings)
    return size, warnings
