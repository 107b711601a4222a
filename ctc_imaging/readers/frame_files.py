"""The files of all fields: each checked when the slide is opened, and open only while it is read."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.scale import SQUARE_TOLERANCE
from ctc_imaging.readers.tiff import TiffReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from ctc_imaging.readers.base import Plane, Source

# A system allows about a thousand open files to a process; two rows of fields in eight channels are read at a time.
OPEN_FILES = 32


@dataclass(frozen=True)
class FieldKind:
    """What all fields of a slide have in common; pixel size and names are None where no file tells."""

    shape: tuple[int, int]
    dtype: np.dtype
    channels: int
    channel_names: tuple[str | None, ...]
    pixel_size_um: float | None
    warnings: tuple[str, ...]


class FieldFiles:
    """Fields of one kind, opened one after the other.

    Parameters
    ----------
    files : sequence of sequence of Path
        ``files[field]``: one file a channel, or a single one with the channels as pages.

    Raises
    ------
    SlideError
        If a file is damaged, or differs from the first in size, type, channels or scale.
    """

    def __init__(self, files: Sequence[Sequence[Path]]) -> None:
        self._files = files
        self._open: OrderedDict[Path, Source] = OrderedDict()
        self._stored: dict[Path, tuple[int, int]] = {}
        self.kind = self._check()

    def plane(self, field: int, channel: int) -> Plane:
        """Return one channel of one field."""
        path, page = self._where(field, channel)
        if path not in self._open:
            source = self._open[path] = TiffReader().open(path)
            planes = source.planes
            found = (len(planes), planes[0].shape, planes[0].dtype, planes[0].chunk_shape_px)
            if found != (self._pages, self.kind.shape, self.kind.dtype, self._stored[path]):
                raise SlideError(path, "the file changed while it was read", "wait until the copy is complete")
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        return self._open[path].planes[page]

    def stored_px(self, field: int, channel: int) -> tuple[int, int]:
        """Height and width of the chunks in which a channel of a field is stored."""
        return self._stored[self._where(field, channel)[0]]

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            self._open.popitem()[1].close()

    @property
    def _pages(self) -> int:
        return self.kind.channels if len(self._files[0]) == 1 else 1

    def _where(self, field: int, channel: int) -> tuple[Path, int]:
        files = self._files[field]
        return (files[0], channel) if len(files) == 1 else (files[channel], 0)

    def _check(self) -> FieldKind:
        """Look into every file, without reading its pixels."""
        apart = len(self._files[0]) > 1
        first = _look(self._files[0][0])
        sizes: list[float] = []
        warnings: Counter[str] = Counter()
        for path in (path for field in self._files for path in field):
            source = _look(path)
            _check_alike(path, source, first, apart)
            sizes += [] if source.pixel_size_um is None else [source.pixel_size_um]
            if sizes and max(sizes[0], sizes[-1]) > min(sizes[0], sizes[-1]) * (1 + SQUARE_TOLERANCE):
                fault = f"{sizes[-1]:g} µm a pixel, the first field has {sizes[0]:g}"
                raise SlideError(path, fault, "export all fields alike")
            self._stored[path] = source.planes[0].chunk_shape_px
            warnings.update(set(source.warnings))
        return FieldKind(
            shape=first.planes[0].shape,
            dtype=first.planes[0].dtype,
            channels=len(self._files[0]) if apart else len(first.planes),
            channel_names=first.channel_names,
            pixel_size_um=sizes[0] if sizes else None,
            warnings=tuple(f"in {count} of the files: {text}" for text, count in warnings.items()),
        )


def _look(path: Path) -> Source:
    source = TiffReader().open(path)
    source.close()
    return source


def _check_alike(path: Path, source: Source, first: Source, apart: bool) -> None:
    """Refuse a file that differs from the first in what all fields must share."""
    if apart and len(source.planes) != 1:
        fault = f"it holds {len(source.planes)} channels, and another file its field's other ones"
        raise SlideError(path, fault, "export either one file a field, or one file a field and channel")
    for what, found, expected in (
        ("number of channels", len(source.planes), len(first.planes)),
        ("shape", source.planes[0].shape, first.planes[0].shape),
        ("dtype", source.planes[0].dtype, first.planes[0].dtype),
        ("channel names", source.channel_names, source.channel_names if apart else first.channel_names),
    ):
        if found != expected:
            fault = f"its {what} ({found}) differ from the first field's ({expected})"
            raise SlideError(path, fault, "export all fields alike")
