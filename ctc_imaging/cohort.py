"""The tables a laboratory hands in (cohort, clinical, imaging, markers, schedule), checked before any slide starts."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctc_imaging.clinical import Schedule, Visit, load_clinical, load_imaging, load_markers, load_schedule
from ctc_imaging.errors import SlideError, TableError
from ctc_imaging.readers.base import MAX_PIXEL_SIZE_UM, MIN_PIXEL_SIZE_UM, is_plausible_pixel_size
from ctc_imaging.readers.remote import base_name, is_remote, is_url, to_path
from ctc_imaging.tables import Row, Table, check_unique, nearest, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

__all__ = [
    "SAMPLE_KINDS",
    "Schedule",
    "SlideEntry",
    "Visit",
    "load_clinical",
    "load_cohort",
    "load_imaging",
    "load_markers",
    "load_schedule",
]

SAMPLE_KINDS = ("patient", "blank", "donor", "spiked", "stain_control")
_COHORT_REQUIRED = ("slide", "patient_id", "sample_date", "blood_volume_ml")
_COHORT_OPTIONAL = (
    "slide_id",
    "sample_id",
    "sample_kind",
    "spiked_cells",
    "volume_on_slide_ml",
    "rescan_of",
    "batch",
    "site",
    "panel",
    "pixel_size_um",
)
_IMAGE_SUFFIX = re.compile(r"(\.ome)?\.(tiff?|btf|tf[28]|zarr|czi|nd2|lif|svs|ndpi|qptiff|mrxs|scn)$", re.IGNORECASE)
# Characters that Windows refuses in a folder's name; Linux refuses the slash only.
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_LONGEST_ID_BYTES = 120


@dataclass(frozen=True)
class SlideEntry:
    """One slide of the cohort table, with every default filled in.

    `slide` is a local path, or a remote one (a UPath, which has the same methods and can be pickled).
    `patient_id` is empty for a control that belongs to no patient; `volume_on_slide_ml` is the
    blood on the glass, the same for a slide and its rescans.
    """

    slide: Path
    patient_id: str
    sample_date: date
    blood_volume_ml: float
    slide_id: str
    sample_id: str
    sample_kind: str
    spiked_cells: int | None
    volume_on_slide_ml: float
    rescan_of: str | None
    batch: str | None
    site: str | None
    panel: str | None
    pixel_size_um: float | None


def load_cohort(path: Path) -> tuple[SlideEntry, ...]:
    """Read cohort.csv and check all that can be checked without opening a slide.

    Parameters
    ----------
    path : Path
        The table; paths of slides in it are relative to its folder, or URLs.

    Returns
    -------
    tuple of SlideEntry
        In the order of the table.

    Raises
    ------
    TableError
        At the first row that is wrong in itself or doesn't fit the others. A slide that doesn't exist
        is no error here: it fails alone later.
    """
    table = read_table(Path(path), _COHORT_REQUIRED, _COHORT_OPTIONAL)
    _require_rows(table)
    entries = [_slide_entry(row) for row in table.rows]
    check_unique(table, "slide", [_identity(entry.slide) for entry in entries])
    entries = [replace(entry, slide_id=name) for entry, name in zip(entries, _slide_ids(entries), strict=True)]
    check_unique(table, "slide_id", [_folded(entry.slide_id) for entry in entries])
    _check_samples(table, entries)
    _check_rescans(table, entries)
    return tuple(_with_volumes(table, entries))


def _slide_entry(row: Row) -> SlideEntry:
    """Read what a row says of itself; ids and volumes still have no defaults."""
    kind = row.choice("sample_kind", SAMPLE_KINDS) or "patient"
    patient = row.required("patient_id") if kind == "patient" else row.text("patient_id") or ""
    day = row.required_date("sample_date")
    row.required("blood_volume_ml")
    blood_volume_ml = row.positive("blood_volume_ml") or 0.0
    spiked_cells = row.count("spiked_cells")
    if spiked_cells and kind != "spiked":
        raise row.error("spiked_cells", f"a {kind} sample holds spiked cells", "set sample_kind to spiked")
    batch = row.text("batch")
    default_sample = (patient, day.isoformat()) if patient else (kind, batch or "", day.isoformat())
    return SlideEntry(
        slide=_slide_path(row),
        patient_id=patient,
        sample_date=day,
        blood_volume_ml=blood_volume_ml,
        slide_id=_safe_slide_id(row),
        sample_id=row.text("sample_id") or "_".join(filter(None, default_sample)),
        sample_kind=kind,
        spiked_cells=spiked_cells,
        volume_on_slide_ml=row.positive("volume_on_slide_ml") or 0.0,
        rescan_of=unicodedata.normalize("NFC", row.text("rescan_of") or "") or None,
        batch=batch,
        site=row.text("site"),
        panel=row.text("panel"),
        pixel_size_um=_pixel_size_um(row),
    )


def _slide_path(row: Row) -> Path:
    """Return a slide's path, relative to the table's folder, or its URL."""
    text = row.required("slide")
    if not is_url(text):
        # Tables made on Windows write backslashes, which Linux takes for part of the name.
        return row.path.parent / text.replace("\\", "/")
    try:
        return to_path(text)
    except SlideError as error:
        raise row.error("slide", error.fault, error.remedy) from error


def _identity(slide: Path) -> str:
    """Spell a path in the one way that tells whether two rows mean the same slide."""
    return str(slide) if is_remote(slide) else os.path.normcase(slide.absolute())


def _pixel_size_um(row: Row) -> float | None:
    size_um = row.positive("pixel_size_um")
    if size_um is not None and not is_plausible_pixel_size(size_um):
        remedy = f"give micrometres a pixel, between {MIN_PIXEL_SIZE_UM:g} and {MAX_PIXEL_SIZE_UM:g}"
        raise row.error("pixel_size_um", f"{size_um:g} µm isn't that of a cell scan", remedy)
    return size_um


def _safe_slide_id(row: Row) -> str:
    """Return the row's own slide_id, or an empty one, after checking that it can name a folder."""
    slide_id = unicodedata.normalize("NFC", row.text("slide_id") or "")
    if slide_id and slide_id != _as_folder_name(slide_id):
        remedy = f"{_as_folder_name(slide_id)} would do"
        raise row.error("slide_id", f"{slide_id!r} can't name a folder on every system", remedy)
    return slide_id


def _as_folder_name(text: str) -> str:
    """Make the nearest name that Linux and Windows both take for a folder."""
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", text)).lstrip(".").rstrip(". ") or "slide"
    name = f"_{name}" if _RESERVED.fullmatch(name) else name
    return name.encode()[:_LONGEST_ID_BYTES].decode(errors="ignore").rstrip(". ")


def _slide_ids(entries: Sequence[SlideEntry]) -> list[str]:
    """Fill in missing ids from the file names, with as many parent folders as make them unique."""
    ids = [entry.slide_id or _default_id(entry.slide, 0) for entry in entries]
    deepest = max(len(entry.slide.parts) for entry in entries)
    for depth in range(1, deepest):
        taken = Counter(_folded(name) for name in ids)
        clashing = [taken[_folded(name)] > 1 and not entry.slide_id for entry, name in zip(entries, ids, strict=True)]
        if not any(clashing):
            break
        ids = [
            _default_id(entry.slide, depth) if clash else name
            for entry, name, clash in zip(entries, ids, clashing, strict=True)
        ]
    return ids


def _default_id(slide: Path, depth: int) -> str:
    parents = [parent.name for parent in list(slide.parents)[:depth] if parent.name not in ("", "..")]
    return _as_folder_name("_".join([*reversed(parents), _IMAGE_SUFFIX.sub("", base_name(slide))]))


def _folded(text: str) -> str:
    """Fold what a file system that ignores case takes for the same name."""
    return unicodedata.normalize("NFC", text).casefold()


def _require_rows(table: Table) -> None:
    if not table.rows:
        raise TableError(table.path, "the table has a header but no rows", "add one row a slide")


def _check_samples(table: Table, entries: Sequence[SlideEntry]) -> None:
    """Slides of one tube agree in all that belongs to the tube."""
    first: dict[str, tuple[Row, SlideEntry]] = {}
    shared = ("patient_id", "sample_date", "sample_kind", "blood_volume_ml", "spiked_cells", "panel")
    for row, entry in zip(table.rows, entries, strict=True):
        other_row, other = first.setdefault(entry.sample_id, (row, entry))
        for column in shared:
            if getattr(entry, column) != getattr(other, column):
                fault = f"differs from row {other_row.line} of the same sample ({entry.sample_id})"
                raise row.error(column, fault, "make them agree, or give each tube its own sample_id")


def _check_rescans(table: Table, entries: Sequence[SlideEntry]) -> None:
    by_id = {entry.slide_id: entry for entry in entries}
    replaced: dict[str, Row] = {}
    for row, entry in zip(table.rows, entries, strict=True):
        if entry.rescan_of is None:
            continue
        if entry.rescan_of not in by_id:
            guess = nearest(entry.rescan_of, by_id)
            remedy = f"did you mean {guess}?" if guess else "name the slide_id of the slide scanned before"
            raise row.error("rescan_of", f"there is no slide {entry.rescan_of!r}", remedy)
        if by_id[entry.rescan_of].sample_id != entry.sample_id:
            raise row.error("rescan_of", f"{entry.rescan_of} is of another sample", "correct the one or the other")
        if entry.rescan_of in replaced:
            fault = f"{entry.rescan_of} is already rescanned in row {replaced[entry.rescan_of].line}"
            raise row.error("rescan_of", fault, "let the last rescan name the rescan before it")
        if _glass(entry, by_id) is None:
            raise row.error("rescan_of", "the rescans go round in a circle", "leave it empty for the first scan")
        replaced[entry.rescan_of] = row


def _glass(entry: SlideEntry, by_id: Mapping[str, SlideEntry]) -> str | None:
    """Return the id of the first scan of the same glass slide, or None if the rescans are circular."""
    seen = set()
    while entry.rescan_of is not None and entry.rescan_of in by_id:
        if entry.slide_id in seen:
            return None
        seen.add(entry.slide_id)
        entry = by_id[entry.rescan_of]
    return entry.slide_id


def _with_volumes(table: Table, entries: Sequence[SlideEntry]) -> list[SlideEntry]:
    """Share each sample's blood among its glass slides, where the table doesn't say how."""
    by_id = {entry.slide_id: entry for entry in entries}
    glasses = [_glass(entry, by_id) for entry in entries]
    given: dict[str | None, float] = {}
    for row, entry, glass in zip(table.rows, entries, glasses, strict=True):
        if entry.volume_on_slide_ml and given.setdefault(glass, entry.volume_on_slide_ml) != entry.volume_on_slide_ml:
            raise row.error("volume_on_slide_ml", "differs from that of the slide it rescans", "make them agree")
    slides = Counter(entry.sample_id for entry in entries if entry.rescan_of is None)
    shared = [
        replace(entry, volume_on_slide_ml=given.get(glass, entry.blood_volume_ml / slides[entry.sample_id]))
        for entry, glass in zip(entries, glasses, strict=True)
    ]
    used = dict.fromkeys(slides, 0.0)
    for row, entry in zip(table.rows, shared, strict=True):
        used[entry.sample_id] += 0 if entry.rescan_of else entry.volume_on_slide_ml
        if used[entry.sample_id] > entry.blood_volume_ml * (1 + 1e-6):
            fault = f"the slides of sample {entry.sample_id} hold more than its {entry.blood_volume_ml:g} mL of blood"
            raise row.error("volume_on_slide_ml", fault, "correct the volumes")
    return shared
