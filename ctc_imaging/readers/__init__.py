"""Slide formats, each behind the same interface; the first reader that accepts a path opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import Plane, Reader, Source
from ctc_imaging.readers.bioio_files import PICTURES, BioioReader
from ctc_imaging.readers.folder import FolderReader
from ctc_imaging.readers.frames import FramesReader
from ctc_imaging.readers.ome_zarr import OmeZarrReader
from ctc_imaging.readers.remote import connect, faults
from ctc_imaging.readers.tiff import TiffReader

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["READERS", "Plane", "Reader", "Source", "open_source"]

READERS: tuple[Reader, ...] = (
    TiffReader(),
    OmeZarrReader(),
    FramesReader(),
    FolderReader(),
    BioioReader(),
)


def open_source(path: Path) -> Source:
    """Open a slide with the first reader that accepts it.

    Parameters
    ----------
    path : Path
        A file or folder, or a remote one as `remote.to_path` makes it.

    Returns
    -------
    Source
        To be closed by the caller.

    Raises
    ------
    SlideError
        If there is no such slide, no reader accepts it, or it is damaged.
    """
    connect(path)
    try:
        reader = next((reader for reader in READERS if reader.accepts(path)), None)
        if reader is None:
            raise _refusal(path)
        return reader.open(path)
    except faults() as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SlideError(path, f"can't be read ({reason})", "check that it is there, and its permissions") from error


def _refusal(path: Path) -> SlideError:
    if not path.exists():
        return SlideError(path, "no such file or folder", "check the path; it is taken relative to the cohort table")
    if path.suffix.lower() in PICTURES:
        return SlideError(
            path,
            "a picture, not a slide: it tells neither its stains nor its scale",
            "export the scan as OME-TIFF with one channel a stain, or use 'ctc-imaging segment' on a single image",
        )
    if path.is_file() and path.stat().st_size == 0:
        return SlideError(path, "the file is empty", "copy it from the scanner again")
    return SlideError(path, "not a slide format that can be read", "export the scan as OME-TIFF")
