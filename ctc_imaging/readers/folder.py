"""A folder of one TIFF per channel, named by its files."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import takewhile
from typing import TYPE_CHECKING

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import Source
from ctc_imaging.readers.scale import SQUARE_TOLERANCE
from ctc_imaging.readers.tiff import TiffReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


# The most stains that anybody images on one slide is about 60; more files are fields.
MAX_CHANNELS = 64


class FolderReader:
    """Reads folders that hold one single-channel TIFF per channel."""

    name = "folder"

    def accepts(self, path: Path) -> bool:
        """Tell whether it is a folder."""
        return path.is_dir()

    def open(self, path: Path) -> Source:
        """Open every TIFF of the folder as one channel, in the order of their names.

        Raises
        ------
        SlideError
            If there are none, one is damaged, or they differ in size, type or scale.
        """
        files = _tiffs(path)
        if not files:
            raise SlideError(path, "the folder holds no TIFF files", "give it one TIFF per channel")
        if len(files) > MAX_CHANNELS:
            fault = f"{len(files)} TIFF files are more than a scan has channels"
            raise SlideError(path, fault, "if they are its fields, describe them in a frames.yaml (docs/frames.md)")
        sources: list[Source] = []

        def close() -> None:
            for source in sources:
                source.close()

        try:
            for file in files:
                sources.append(TiffReader().open(file))
                _check(file, sources)
        except SlideError:
            close()
            raise
        sizes = [source.pixel_size_um for source in sources if source.pixel_size_um is not None]
        return Source(
            reader=self.name,
            planes=tuple(source.planes[0] for source in sources),
            channel_names=tuple(channel_names([file.name for file in files])),
            pixel_size_um=sizes[0] if sizes else None,
            warnings=_warnings(sources),
            close=close,
            files=tuple(sorted({file for source in sources for file in source.files})),
        )


def _warnings(sources: Sequence[Source]) -> tuple[str, ...]:
    """Tell each warning once, without the files' names: they may name a patient."""
    found = Counter(text for source in sources for text in source.warnings)
    return tuple(f"{count} of {len(sources)} channels: {text}" for text, count in found.items())


def channel_names(files: Sequence[str]) -> list[str]:
    """Name channels by their files, without what all file names begin and end with.

    Parameters
    ----------
    files : sequence of str
        File names with their suffix.

    Returns
    -------
    list of str

    Examples
    --------
    >>> channel_names(["slide1_DAPI.tif", "slide1_CD-45.tif"])
    ['DAPI', 'CD-45']
    """
    stems = [re.sub(r"(\.ome)?\.tiff?$", "", unicodedata.normalize("NFC", file), flags=re.IGNORECASE) for file in files]
    # Whole words only: CD45 and CK share their C, but it belongs to the names.
    words = [re.split(r"([\s_.-]+)", stem) for stem in stems]
    start = _shared(words)
    end = _shared([word[start:][::-1] for word in words])
    return ["".join(word[start : len(word) - end]) or stem for word, stem in zip(words, stems, strict=True)]


def _shared(words: Sequence[Sequence[str]]) -> int:
    """Count how many leading words all names share, leaving a lone file its name."""
    if len(words) == 1:
        return 0
    return len(list(takewhile(lambda together: len(set(together)) == 1, zip(*words, strict=False))))


def _tiffs(path: Path) -> list[Path]:
    suffixes = (".tif", ".tiff")
    return sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    )


def _check(file: Path, sources: Sequence[Source]) -> None:
    """Check the source opened last against the first."""
    first, last = sources[0], sources[-1]
    if len(last.planes) != 1:
        raise SlideError(
            file,
            f"it holds {len(last.planes)} channels",
            "give the file itself as slide; a scan in fields needs a frames.yaml (docs/frames.md)",
        )
    for what in ("shape", "dtype"):
        expected, found = getattr(first.planes[0], what), getattr(last.planes[0], what)
        if expected != found:
            raise SlideError(
                file, f"its {what} is {found}, the folder's first channel has {expected}", "export all channels alike"
            )
    sizes = [source.pixel_size_um for source in sources if source.pixel_size_um is not None]
    if sizes and max(sizes) > min(sizes) * (1 + SQUARE_TOLERANCE):
        raise SlideError(file, f"channels of {min(sizes):g} and {max(sizes):g} µm a pixel", "export all channels alike")
