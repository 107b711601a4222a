"""Strict check of a TIFF file's chain of directories, on which tifffile only warns."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO

from ctc_imaging.errors import SlideError

if TYPE_CHECKING:
    from pathlib import Path

# A scan has a page per channel, plus thumbnails; a stack of a million planes is no slide of ours.
MAX_PAGES = 65_536

_CLASSIC, _BIG = 42, 43


def is_tiff(path: Path) -> bool:
    """Tell by its first bytes whether a file is a TIFF, whatever its name."""
    with path.open("rb") as file:
        return _layout(file.read(4)) is not None


def check_structure(path: Path) -> int:
    """Walk the chain of image file directories from the first to the last.

    Parameters
    ----------
    path : Path
        An existing file.

    Returns
    -------
    int
        The number of directories (pages).

    Raises
    ------
    SlideError
        If the file isn't a TIFF, or its chain is circular, endless, or leaves the file.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        layout = _layout(file.read(4))
        if size == 0:
            raise SlideError(path, "the file is empty", "copy it from the scanner again")
        if layout is None:
            raise SlideError(path, "not a TIFF file, in spite of its name", "export the scan as OME-TIFF")
        return _walk(path, file, size, *layout)


def _layout(head: bytes) -> tuple[str, int] | None:
    """Byte order and version, or None."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 4:
        return None
    version: int = struct.unpack(order + "H", head[2:])[0]
    return (order, version) if version in (_CLASSIC, _BIG) else None


def _walk(path: Path, file: BinaryIO, size: int, order: str, version: int) -> int:
    count_format, link_format, tag_bytes = ("H", "I", 12) if version == _CLASSIC else ("Q", "Q", 20)
    offset = _number(path, file, size, 4 if version == _CLASSIC else 8, order + link_format)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise SlideError(path, f"its directories run in a circle (at byte {offset})", "export the scan again")
        if offset >= size:
            raise _incomplete(path, f"directory {len(seen)} lies at byte {offset} of {size}")
        if len(seen) == MAX_PAGES:
            raise SlideError(path, f"more than {MAX_PAGES} directories", "export the scan as one image a slide")
        seen.add(offset)
        tags = _number(path, file, size, offset, order + count_format)
        link = offset + struct.calcsize(order + count_format) + tags * tag_bytes
        offset = _number(path, file, size, link, order + link_format)
    if not seen:
        raise _incomplete(path, "it has no image")
    return len(seen)


def _number(path: Path, file: BinaryIO, size: int, offset: int, form: str) -> int:
    if offset + struct.calcsize(form) > size:
        raise _incomplete(path, f"it ends within a directory (byte {size})")
    file.seek(offset)
    number: int = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return number


def _incomplete(path: Path, detail: str) -> SlideError:
    return SlideError(path, f"the TIFF is incomplete: {detail}", "copy it from the scanner again")
