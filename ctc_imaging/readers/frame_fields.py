"""Which files belong to which field, and where on the slide each field lies: complete, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.frame_layout import OME, FrameLayout, PositionTable
from ctc_imaging.readers.frame_numbering import Numbering
from ctc_imaging.readers.frame_positions import Place, ome_field, read_positions, stage_place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ctc_imaging.readers.frame_pattern import FrameFile

_AGAIN = "copy it from the scanner again, or scan the slide again"

Groups = dict[Place, dict[str | None, "Path"]]


@dataclass(frozen=True)
class FrameSet:
    """All fields of a slide, in the order of their places.

    `files[field]` are one file a channel, or a single one with the channels as pages where `keys` is None;
    `keys` are the texts that stand for channels in file names, and `others` the tables read besides.
    """

    keys: tuple[str, ...] | None
    files: tuple[tuple[Path, ...], ...]
    places: tuple[Place, ...]
    others: tuple[Path, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """Places and channels of the files, one each; what else was read, and what is odd."""

    places: Sequence[Place]
    channels: Sequence[str | None]
    others: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()


def find_fields(folder: Path, layout: FrameLayout) -> FrameSet:
    """Find all files of a slide and the fields they make up.

    Parameters
    ----------
    folder : Path
    layout : FrameLayout

    Returns
    -------
    FrameSet

    Raises
    ------
    SlideError
        If a field, or a channel of one, is missing or there twice, or its place isn't told.
    """
    files, strays = layout.pattern.files(folder)
    if not files:
        raise SlideError(folder, f"no TIFF file fits {layout.pattern.text}", f"correct files in {layout.where}")
    stray = (f"{strays} TIFF files beside the fields don't fit the pattern: left out",) if strays else ()
    numbering = None
    if layout.positions == OME:
        found = _by_metadata(files)
    elif isinstance(layout.positions, PositionTable):
        found = _by_table(folder, layout, layout.positions, files)
    elif {"index", "row"} & layout.pattern.names and stage_place(_numbers(files[0])) is None:
        numbering = Numbering.of(layout, [_numbers(file) for file in files])
        found = _Found([numbering.place(_numbers(file), file.path) for file in files], _channels(files))
    else:
        found = _Found([_stage_place(file) for file in files], _channels(files))
    groups = _grouped(files, found)
    keys = _keys(layout, found.channels)
    _check_complete(folder, layout, groups, keys, numbering)
    fields = sorted(groups)
    paths = tuple(tuple(groups[place][key] for key in keys or (None,)) for place in fields)
    return FrameSet(keys, paths, tuple(fields), found.others, (*stray, *found.warnings))


def _numbers(file: FrameFile) -> dict[str, float]:
    return {name: value for name, value in file.values.items() if not isinstance(value, str)}


def _channels(files: Sequence[FrameFile]) -> list[str | None]:
    return [None if "channel" not in file.values else str(file.values["channel"]) for file in files]


def _stage_place(file: FrameFile) -> Place:
    place = stage_place(_numbers(file))
    if place is None:
        raise SlideError(file.path, "its name doesn't tell its place", "correct files in frames.yaml")
    return place


def _by_metadata(files: Sequence[FrameFile]) -> _Found:
    """Take places from OME-XML, and channels where each field has a file of its own for each."""
    fields = []
    for file in files:
        field = ome_field(file.path)
        if field is None:
            fault = "its OME-XML tells no stage position"
            raise SlideError(file.path, fault, "move it out of the folder, or describe the fields in frames.yaml")
        fields.append(field)
    # Files of one field tell one position, but for the rounding of a unit.
    places = [Place(round(field.place.y, 2), round(field.place.x, 2), field.place.unit) for field in fields]
    channels = _channels(files)
    if channels[0] is None and len(set(places)) < len(places):
        channels = [field.channels[0] if len(field.channels) == 1 else None for field in fields]
    told = all(field.unit_told for field in fields)
    return _Found(places, channels, (), () if told else ("the stage positions have no unit: taken as µm",))


def _by_table(folder: Path, layout: FrameLayout, table: PositionTable, files: Sequence[FrameFile]) -> _Found:
    places = read_positions(folder, table, f"{layout.where}, positions")
    path = folder / table.path
    by_index = all(isinstance(name, int) for name in places)
    if by_index and "index" not in layout.pattern.names:
        raise SlideError(f"{layout.where}, files", "the table of positions goes by index", "add {index} to the pattern")
    names = [int(file.values["index"]) if by_index else file.path.relative_to(folder).as_posix() for file in files]
    unplaced = [file.path for file, name in zip(files, names, strict=True) if name not in places]
    if unplaced:
        raise SlideError(unplaced[0], f"{table.path} doesn't tell its position", "complete the table")
    missing = [name for name in places if name not in set(names)]
    if missing:
        what = f"field {missing[0]}" if by_index else f"{missing[0]}"
        raise SlideError(path, f"{what} of {len(places)} in the table isn't there", _AGAIN)
    return _Found([places[name] for name in names], _channels(files), (path,))


def _grouped(files: Sequence[FrameFile], found: _Found) -> Groups:
    groups: Groups = {}
    for file, place, channel in zip(files, found.places, found.channels, strict=True):
        group = groups.setdefault(place, {})
        if channel in group:
            raise SlideError(file.path, f"it is the same field as {group[channel].name}", "keep one of them")
        group[channel] = file.path
    return groups


def _keys(layout: FrameLayout, channels: Sequence[str | None]) -> tuple[str, ...] | None:
    """Return the texts of all channels in their order, None where channels are pages."""
    found = {channel for channel in channels if channel is not None}
    if not found:
        return None
    if layout.channels is None:
        return tuple(sorted(found))
    return tuple(key for key, _ in layout.channels)


def _check_complete(
    folder: Path, layout: FrameLayout, groups: Groups, keys: tuple[str, ...] | None, numbering: Numbering | None
) -> None:
    """Refuse a field that isn't there, or lacks a channel, by its name and that of the file awaited."""
    if numbering is None:
        names: Mapping[Place, tuple[str, Mapping[str, float]]] = {
            place: (f"field at x {place.x:g}, y {place.y:g} {place.unit}", {}) for place in sorted(groups)
        }
    else:
        names = {numbering.place(values, folder): (name, values) for name, values in numbering.all()}
    for place, (name, values) in names.items():
        absent = [key for key in keys or (None,) if key not in groups.get(place, {})]
        if absent:
            awaited = layout.pattern.example({**values, **({} if absent[0] is None else {"channel": absent[0]})})
            where = folder if set("*{") & set(awaited) else folder / awaited
            whole = place not in groups or absent[0] is None
            raise SlideError(
                where, f"{name} isn't there" if whole else f"channel {absent[0]} of {name} isn't there", _AGAIN
            )
