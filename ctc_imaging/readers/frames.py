"""Folders of fields: a scan saved field by field, put together where each pixel comes from one field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import Source
from ctc_imaging.readers.frame_fields import FrameSet, find_fields
from ctc_imaging.readers.frame_files import FieldFiles, FieldKind
from ctc_imaging.readers.frame_layout import FILE_NAME, FrameLayout, load_layout
from ctc_imaging.readers.frame_overlaps import overlap_warnings
from ctc_imaging.readers.frame_placement import corners_px
from ctc_imaging.readers.frame_positions import OmeField, ome_field
from ctc_imaging.readers.mosaic import Mosaic, MosaicPlane, covered_px

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIXES = (".tif", ".tiff")

# Two files this share of a field apart are two fields; stages settle much closer than that for a field's stains.
_APART = 0.25

# Scales further apart than this are those of two objectives.
_PIXEL_SIZE_TOLERANCE = 0.02

_WORTH_TELLING = 0.0005


class FramesReader:
    """Reads folders of fields, described by a frames.yaml or by the stage positions in their own OME-XML."""

    name = "frames"

    def accepts(self, path: Path) -> bool:
        """Tell whether a folder has a frames.yaml, or its first and its last TIFF tell different stage positions."""
        if not path.is_dir():
            return False
        if (path / FILE_NAME).exists():
            return True
        files = sorted(one for one in path.iterdir() if one.suffix.lower() in _SUFFIXES and one.name[0] != ".")
        if len(files) < 2 or not (files[0].is_file() and files[-1].is_file()):
            return False
        first, last = ome_field(files[0]), ome_field(files[-1])
        return first is not None and last is not None and _are_apart(first, last)

    def open(self, path: Path) -> Source:
        """Open a folder of fields as one slide, looking into every file but not at the pixels.

        Raises
        ------
        SlideError
            If its description has no meaning, a field is missing, there twice or damaged, or fields differ.
        """
        layout = load_layout(path)
        found = find_fields(path, layout)
        files = FieldFiles(found.files)
        pixel_size_um = _pixel_size_um(layout, files.kind)
        corners = corners_px(path, layout, found, files.kind.shape, pixel_size_um)
        mosaic = Mosaic(corners, files.kind.shape, files, files.kind.dtype)

        def close() -> None:
            mosaic.forget()
            files.close()

        described = (path / FILE_NAME,) if (path / FILE_NAME).exists() else ()
        return Source(
            reader=self.name,
            planes=tuple(MosaicPlane(mosaic, channel) for channel in range(files.kind.channels)),
            channel_names=_channel_names(layout, found, files.kind),
            pixel_size_um=pixel_size_um,
            warnings=(*files.kind.warnings, *found.warnings, *_gap_warnings(mosaic)),
            close=close,
            files=tuple(sorted({*described, *found.others, *(file for field in found.files for file in field)})),
            look=lambda: overlap_warnings(mosaic, files.kind.channels),
        )


def _are_apart(first: OmeField, last: OmeField) -> bool:
    limits = [_APART * side for side in first.size_um or (0.0, 0.0)]
    return abs(first.place.y - last.place.y) > limits[0] or abs(first.place.x - last.place.x) > limits[1]


def _pixel_size_um(layout: FrameLayout, kind: FieldKind) -> float | None:
    """Return the scale that frames.yaml tells, which must be that of the files."""
    told, found = layout.pixel_size_um, kind.pixel_size_um
    if told is not None and found is not None and abs(told - found) > _PIXEL_SIZE_TOLERANCE * found:
        fault = f"it says {told:g} µm a pixel, the fields' own metadata say {found:g}"
        raise SlideError(f"{layout.where}, pixel_size_um", fault, "correct the one that is wrong")
    return found if told is None else told


def _channel_names(layout: FrameLayout, found: FrameSet, kind: FieldKind) -> tuple[str | None, ...]:
    if layout.channels is None:
        return found.keys or kind.channel_names
    names = tuple(name for _, name in layout.channels)
    if found.keys is None and len(names) != kind.channels:
        fault = f"{len(names)} stains are named, the fields have {kind.channels} pages"
        raise SlideError(f"{layout.where}, channels", fault, "name every page, or write null for one without a stain")
    return names


def _gap_warnings(mosaic: Mosaic) -> tuple[str, ...]:
    share = 1 - covered_px(mosaic.boxes) / (mosaic.shape[0] * mosaic.shape[1])
    if share == 0:
        return ()
    return (f"{max(share, 1e-5):.3%} of the slide's rectangle lies between or beside the fields: 0, as never scanned",)
