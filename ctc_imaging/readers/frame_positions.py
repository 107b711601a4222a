"""Stage positions of fields: from a table, or from the OME-XML of the fields themselves."""

from __future__ import annotations

import csv
import io
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.frame_layout import PositionTable, stage_fields
from ctc_imaging.readers.frame_words import unknown
from ctc_imaging.readers.scale import um_per
from ctc_imaging.readers.tiff_planes import DAMAGE
from ctc_imaging.readers.tiff_xml import check_xml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# Where a file names no unit (OME's "reference frame"), microscope software means µm.
_NO_UNIT = ("", "reference frame")
_STAGE_UM = {"um": 1.0, "mm": 1000.0}
_DECIMAL_COMMA = re.compile(r"([+-]?\d+),(\d+)")
_COLUMNS = ("file", "index", *(name for pair in stage_fields() for name in pair))


class Place(NamedTuple):
    """Where a field lies: (y, x) on the grid, on the stage in µm, or in px, as `unit` says."""

    y: float
    x: float
    unit: str


def stage_place(values: Mapping[str, float]) -> Place | None:
    """Return the place that named values such as ``y_um`` and ``x_um`` tell, if any."""
    pair = next((pair for pair in stage_fields() if set(pair) <= values.keys()), None)
    return None if pair is None else _place({axis: values[axis] for axis in pair})


def _place(values: Mapping[str, float]) -> Place:
    """Make a place of a value for y and one for x, named with their unit."""
    (name, y), (_, x) = sorted(values.items(), reverse=True)
    unit = name.removeprefix("y_")
    return Place(y, x, "px") if unit == "px" else Place(y * _STAGE_UM[unit], x * _STAGE_UM[unit], "um")


def read_positions(folder: Path, table: PositionTable, where: str) -> dict[str | int, Place]:
    """Read a table of positions.

    Parameters
    ----------
    folder : Path
        The slide's.
    table : PositionTable
    where : str
        File and key that names the table.

    Returns
    -------
    dict
        File (relative path, as text) or index to place.

    Raises
    ------
    SlideError
        If the table is missing, a column or value is missing, or a field stands in it twice.
    """
    path = folder / table.path
    if not path.is_file():
        raise SlideError(where, f"{table.path} isn't there", "copy it from the scanner, or correct the name")
    rows = list(_rows(path))
    key, column, axes = _columns(path, table, list(rows[0][1]) if rows else [])
    places: dict[str | int, Place] = {}
    for line, row in rows:
        name: str | int = row[column]
        if key == "index":
            name = int(_number(path, line, column, row[column], whole=True))
        if name in places:
            raise SlideError(f"{path}, row {line}", f"field {name} is there twice", "remove one of them")
        values = {axis: _number(path, line, axes[axis], row[axes[axis]]) for axis in axes}
        places[name] = _place(values)
    return places


def _columns(path: Path, table: PositionTable, header: Sequence[str]) -> tuple[str, str, dict[str, str]]:
    """Find what a table goes by (``file`` or ``index``), in which column, and the columns of both axes."""
    columns = {name: table.columns.get(name, name) for name in _COLUMNS}
    missing = [column for name, column in columns.items() if name in table.columns and column not in header]
    if missing:
        raise unknown(str(path), missing[0], "column", header)
    key = next((name for name in ("file", "index") if columns[name] in header), None)
    axes = next((pair for pair in stage_fields() if all(columns[name] in header for name in pair)), None)
    if key is None or axes is None:
        fault = f"its columns {', '.join(header)} don't tell field and place"
        raise SlideError(path, fault, "say under positions which columns are index or file, x_um and y_um")
    return key, columns[key], {axis: columns[axis] for axis in axes}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the lines of a table with their numbers, whatever separates its columns."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        header = text.lstrip("\r\n").partition("\n")[0]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
        names: Sequence[str] | None = None
        for fields in reader:
            stripped = [field.strip() for field in fields]
            if not any(stripped):
                continue
            if names is None:
                names = stripped
            elif len(stripped) != len(names):
                fault = f"{len(stripped)} fields, the header has {len(names)}"
                raise SlideError(f"{path}, row {reader.line_num}", fault, "complete the row")
            else:
                yield reader.line_num, dict(zip(names, stripped, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise SlideError(path, f"not a table ({error})", "save it as CSV UTF-8") from error


def _number(path: Path, line: int, column: str, text: str, *, whole: bool = False) -> float:
    comma = _DECIMAL_COMMA.fullmatch(text)
    try:
        value = float(f"{comma[1]}.{comma[2]}" if comma else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise SlideError(f"{path}, row {line}, column {column}", f"{text!r:.80} isn't {kind}", "write digits, no unit")
    return value


class OmeField(NamedTuple):
    """What the OME-XML of a field says of itself."""

    place: Place
    channels: tuple[str | None, ...]
    size_um: tuple[float, float] | None
    unit_told: bool


def ome_field(path: Path) -> OmeField | None:
    """Read what a field says of itself, as of its largest image.

    Parameters
    ----------
    path : Path
        A file, local or remote.

    Returns
    -------
    OmeField or None
        None where it isn't an OME-TIFF, or tells no stage position.

    Raises
    ------
    SlideError
        If its XML is malicious.
    """
    import tifffile

    with path.open("rb") as stream:
        try:
            with tifffile.TiffFile(stream) as tif:
                check_xml(path, tif)
                if not tif.is_ome:
                    return None
                root = ElementTree.fromstring(tif.ome_metadata.lstrip("\ufeff"))
            pixels = [element for element in root.iter() if _tag(element) == "Pixels"]
            return _stage_field(max(pixels, key=lambda one: int(one.get("SizeX", 0)) * int(one.get("SizeY", 0))))
        except (*DAMAGE, ElementTree.ParseError):
            return None


def _stage_field(pixels: ElementTree.Element) -> OmeField | None:
    plane = next((one for one in pixels if _tag(one) == "Plane" and one.get("PositionX")), None)
    if plane is None:
        return None
    units = [plane.get(f"Position{axis}Unit", "") for axis in "YX"]
    factors = [_factor(unit) for unit in units]
    y, x = (float(plane.get(f"Position{axis}", "nan")) * factor for axis, factor in zip("YX", factors, strict=True))
    if not (math.isfinite(y) and math.isfinite(x)):
        return None
    sizes = [
        int(pixels.get(f"Size{axis}", 0))
        * float(pixels.get(f"PhysicalSize{axis}", "nan"))
        * _factor(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "YX"
    ]
    names = tuple(one.get("Name") for one in pixels if _tag(one) == "Channel")
    known = (sizes[0], sizes[1]) if all(map(math.isfinite, sizes)) else None
    return OmeField(Place(y, x, "um"), names, known, all(unit not in _NO_UNIT for unit in units))


def _factor(unit: str) -> float:
    """µm in a unit; NaN for one that isn't a length."""
    return 1.0 if unit in _NO_UNIT else um_per(unit) or math.nan


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]
