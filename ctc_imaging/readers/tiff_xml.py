"""What XML within a TIFF must not do: define entities, or name files outside the slide's folder."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from ctc_imaging.errors import SlideError

if TYPE_CHECKING:
    from pathlib import Path

# Tags that tifffile takes XML from: ImageDescription and XMP.
_XML_TAGS = (270, 700)
_DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_OUTSIDE = re.compile(r"[\\:]|^/")


def check_xml(path: Path, tif: Any) -> None:
    """Check a TIFF's XML before anything parses it.

    Parameters
    ----------
    path : Path
        The file, for error messages.
    tif : tifffile.TiffFile
        The open file, whose series weren't asked for yet.

    Raises
    ------
    SlideError
        If it has a document type or entities (which can grow without end or read other files), or its planes
        lie in files outside its folder.
    """
    for code in _XML_TAGS:
        text = tif.pages.first.tags.valueof(code, default="")
        if isinstance(text, bytes):
            text = text.replace(b"\0", b"").decode("latin-1")
        if isinstance(text, str) and _DECLARATION.search(text):
            raise SlideError(path, "its XML defines a document type or entities", "export the scan again as OME-TIFF")
    if tif.is_ome:
        _check_file_names(path, tif.ome_metadata)


def _check_file_names(path: Path, xml: str) -> None:
    try:
        names = [element.get("FileName", "") for element in ElementTree.fromstring(xml).iter()]
    except ElementTree.ParseError:
        return  # tifffile finds no series in it, and the reader refuses it for that
    if any(_OUTSIDE.search(name) or ".." in PurePosixPath(name).parts for name in names):
        raise SlideError(
            path, "its OME-XML names files outside its folder", "keep all files of a scan in one folder, or export anew"
        )
