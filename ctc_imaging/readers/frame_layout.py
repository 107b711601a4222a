"""How a folder of fields is laid out: frames.yaml, checked key by key, or a layout that comes with the package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import MAX_PIXEL_SIZE_UM, MIN_PIXEL_SIZE_UM, is_plausible_pixel_size
from ctc_imaging.readers.frame_pattern import FramePattern, check_inside, parse_pattern
from ctc_imaging.readers.frame_words import unknown
from ctc_imaging.yaml_text import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

FILE_NAME = "frames.yaml"
OME = "ome"
ORDERS = ("row-by-row", "column-by-column", "snake-by-row", "snake-by-column")
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")

_KEYS = ("layout", "files", "channels", "pixel_size_um", "grid", "positions", "flip_x", "flip_y")
_GRID_KEYS = ("rows", "columns", "order", "start", "first_index", "overlap_px", "step_um")
_TABLE_KEYS = ("table", "file", "index", "x_um", "y_um", "x_mm", "y_mm", "x_px", "y_px")
_MOST_FIELDS_A_SIDE = 10_000


@dataclass(frozen=True)
class Grid:
    """Rows and columns of fields, how they are counted, and how far they lie apart: overlap (y, x) or step (y, x)."""

    rows: int | None = None
    columns: int | None = None
    order: str = ORDERS[0]
    start: str = CORNERS[0]
    first_index: int | None = None
    overlap_px: tuple[int, int] | None = None
    step_um: tuple[float, float] | None = None

    @property
    def counts(self) -> tuple[int, int] | None:
        """Rows and columns where both are told."""
        return (self.rows, self.columns) if self.rows and self.columns else None


@dataclass(frozen=True)
class PositionTable:
    """A table of stage positions: its path relative to the folder, and the names of its columns."""

    path: str
    columns: Mapping[str, str]


@dataclass(frozen=True)
class FrameLayout:
    """How a folder of fields is laid out.

    `channels` pairs the texts that stand for a stain in file names with the stain's name; for pages the names
    count alone. `positions` is a table, ``"ome"``, or None where file names tell the place. `where` is the file
    that says so, for errors.
    """

    where: str
    pattern: FramePattern
    channels: tuple[tuple[str, str | None], ...] | None
    pixel_size_um: float | None
    grid: Grid
    positions: PositionTable | str | None
    flip_x: bool
    flip_y: bool


def load_layout(folder: Path) -> FrameLayout:
    """Read frames.yaml of a folder; without one, its fields are OME-TIFFs that tell their positions.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    FrameLayout

    Raises
    ------
    SlideError
        If the file can't be read, a key or value has no meaning, or they don't fit each other.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return parse_layout(_shipped("ome-fields", str(folder)), str(folder))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SlideError(path, "not UTF-8 text", "save it as UTF-8") from error
    return parse_layout(text, str(path))


def shipped_layouts() -> list[str]:
    """List the names of the layouts that come with the package."""
    folder = resources.files("ctc_imaging.readers") / "layouts"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def parse_layout(text: str, where: str) -> FrameLayout:
    """Parse the text of a frames.yaml; `where` names it in errors (SlideError)."""
    values = _mapping(text, where)
    if "layout" in values:
        shipped = _mapping(_shipped(values["layout"], where), where)
        grid = {**shipped.get("grid", {}), **_as_mapping(values.get("grid", {}), f"{where}, grid")}
        values = {**shipped, **values, "grid": grid}
    _check_keys(values, _KEYS, where)
    if not isinstance(values.get("files"), str):
        raise SlideError(f"{where}, files", "no pattern of file names", 'write for example files: "Tile{index}.tif"')
    channels = _channels(values.get("channels"), f"{where}, channels")
    keys = None if channels is None else [key for key, _ in channels]
    layout = FrameLayout(
        where=where,
        pattern=parse_pattern(values["files"], keys, f"{where}, files"),
        channels=channels,
        pixel_size_um=_pixel_size(values.get("pixel_size_um"), f"{where}, pixel_size_um"),
        grid=_grid(_as_mapping(values.get("grid", {}), f"{where}, grid"), f"{where}, grid"),
        positions=_positions(values.get("positions"), f"{where}, positions"),
        flip_x=_flag(values.get("flip_x", False), f"{where}, flip_x"),
        flip_y=_flag(values.get("flip_y", False), f"{where}, flip_y"),
    )
    _check_places(layout, values)
    return layout


def _shipped(name: Any, where: str) -> str:
    if name not in shipped_layouts():
        raise unknown(f"{where}, layout", str(name), "layout", shipped_layouts())
    return (resources.files("ctc_imaging.readers") / "layouts" / f"{name}.yaml").read_text(encoding="utf-8")


def _mapping(text: str, where: str) -> dict[str, Any]:
    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise SlideError(where, f"not YAML ({error!s:.160})", "write lines like 'pixel_size_um: 0.5'") from error
    return dict(_as_mapping(raw, where))


def _as_mapping(raw: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping) or not all(isinstance(key, str) for key in raw):
        raise SlideError(where, "no list of keys and values", "write lines like 'pixel_size_um: 0.5'")
    return raw


def _check_keys(values: Mapping[str, Any], known: Collection[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise unknown(where, key, "key", known)


def _channels(raw: Any, where: str) -> tuple[tuple[str, str | None], ...] | None:
    if raw is None:
        return None
    remedy = "write a list of names, or lines like 'w1: DAPI'"
    if isinstance(raw, Mapping):
        pairs = [(str(key), name) for key, name in raw.items()]
    elif isinstance(raw, list):
        pairs = [(str(name), name) for name in raw]
    else:
        raise SlideError(where, f"{raw!r:.80} isn't a list of stains", remedy)
    if not pairs or not all(name is None or (isinstance(name, str | int) and str(name).strip()) for _, name in pairs):
        raise SlideError(where, "a stain has no name", remedy)
    named = [str(name) for _, name in pairs if name is not None]
    if len(set(named)) < len(named):
        raise SlideError(where, "two stains have one name", "give each its own")
    return tuple((key, None if name is None else str(name)) for key, name in pairs)


def _grid(values: Mapping[str, Any], where: str) -> Grid:
    _check_keys(values, _GRID_KEYS, where)
    for key, known in (("order", ORDERS), ("start", CORNERS)):
        if key in values and values[key] not in known:
            raise unknown(f"{where}, {key}", str(values[key]), key, known)
    if "overlap_px" in values and "step_um" in values:
        raise SlideError(where, "both overlap_px and step_um are given", "keep the one that the scanner tells")
    counts = {
        key: _whole(values.get(key), least, f"{where}, {key}")
        for key, least in (("rows", 1), ("columns", 1), ("first_index", 0))
    }
    return Grid(
        **counts,
        order=values.get("order", ORDERS[0]),
        start=values.get("start", CORNERS[0]),
        overlap_px=_pair(values.get("overlap_px"), 0, f"{where}, overlap_px", whole=True),
        step_um=_pair(values.get("step_um"), MIN_PIXEL_SIZE_UM, f"{where}, step_um", whole=False),
    )


def _whole(raw: Any, least: int, where: str) -> int | None:
    if raw is None or (_is_number(raw) and isinstance(raw, int) and least <= raw <= _MOST_FIELDS_A_SIDE):
        return raw
    raise SlideError(where, f"{raw!r:.80} can't be", f"write a whole number from {least} to {_MOST_FIELDS_A_SIDE}")


def _pair(raw: Any, least: float, where: str, *, whole: bool) -> tuple[Any, Any] | None:
    """Read one number for both axes, or [down, across]."""
    if raw is None:
        return None
    pair = raw if isinstance(raw, list) else [raw, raw]
    kinds = int if whole else (int, float)
    if len(pair) != 2 or not all(_is_number(one) and isinstance(one, kinds) and one >= least for one in pair):
        kind = "whole number" if whole else "number"
        raise SlideError(where, f"{raw!r:.80} can't be", f"write a {kind} from {least:g} up, or two: [down, across]")
    return pair[0], pair[1]


def _is_number(raw: Any) -> bool:
    return isinstance(raw, int | float) and not isinstance(raw, bool) and abs(raw) <= 1e9 and math.isfinite(raw)


def _pixel_size(raw: Any, where: str) -> float | None:
    if raw is None:
        return None
    if not _is_number(raw) or not is_plausible_pixel_size(raw):
        limits = f"between {MIN_PIXEL_SIZE_UM} and {MAX_PIXEL_SIZE_UM}"
        raise SlideError(where, f"{raw!r:.80} isn't that of a cell scan", f"give micrometres a pixel, {limits}")
    return float(raw)


def _flag(raw: Any, where: str) -> bool:
    if not isinstance(raw, bool):
        raise SlideError(where, f"{raw!r:.80} is neither true nor false", "write true or false")
    return raw


def _positions(raw: Any, where: str) -> PositionTable | str | None:
    if raw is None or raw == OME:
        return raw
    values = {"table": raw} if isinstance(raw, str) else _as_mapping(raw, where)
    _check_keys(values, _TABLE_KEYS, where)
    if not all(isinstance(name, str) for name in values.values()) or "table" not in values:
        raise SlideError(where, "no table of positions", "write the name of a CSV file, or ome")
    check_inside(values["table"], where)
    return PositionTable(values["table"], {key: name for key, name in values.items() if key != "table"})


def _check_places(layout: FrameLayout, values: Mapping[str, Any]) -> None:
    """Refuse a layout that doesn't tell where fields lie, or tells it twice."""
    names, grid = layout.pattern.names, layout.grid
    by_stage = [pair for pair in stage_fields() if set(pair) & names]
    in_names = [pair for pair in (*stage_fields(), ("row", "column")) if set(pair) <= names]
    if any(not set(pair) <= names for pair in by_stage) or len({"row", "column"} & names) == 1 or len(in_names) > 1:
        raise SlideError(
            f"{layout.where}, files",
            "it tells no place, or more than one",
            "write {row} and {column}, or {x_um} and {y_um}",
        )
    if layout.positions is not None and in_names:
        raise SlideError(f"{layout.where}, positions", "the file names tell the places too", "remove one of them")
    if layout.positions is None and not in_names and "index" not in names:
        fault = "it doesn't tell where a field lies"
        raise SlideError(
            f"{layout.where}, files", fault, "add {index}, {row} and {column}, {x_um} and {y_um}, or positions"
        )
    on_grid = layout.positions is None and not by_stage
    if on_grid and "index" in names and "row" not in names and grid.counts is None:
        raise SlideError(
            f"{layout.where}, grid", "rows and columns aren't told", "add them: grid: {rows: 5, columns: 35}"
        )
    if on_grid and grid.overlap_px is None and grid.step_um is None:
        raise SlideError(
            f"{layout.where}, grid", "it doesn't tell how far fields lie apart", "add overlap_px or step_um"
        )
    if on_grid and (layout.flip_x or layout.flip_y):
        raise SlideError(layout.where, "flips are for stage positions", "use start: bottom-left or the like")
    idle = set(_as_mapping(values.get("grid", {}), layout.where)) - {"rows", "columns"}
    if not on_grid and idle:
        raise SlideError(f"{layout.where}, grid", f"stage positions leave nothing to {sorted(idle)[0]}", "remove it")


def stage_fields() -> tuple[tuple[str, str], ...]:
    """Return the pairs of names, y and x, by which a stage position is told."""
    return tuple((f"y_{unit}", f"x_{unit}") for unit in ("um", "mm", "px"))
