"""The one interface behind which every slide format stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

# Light microscopes scan cells at 0.1 to 2.5 µm a pixel (100x to 4x); a scale outside this range is a
# placeholder (72 dpi is 353 µm) or a wrong unit, and counts as unknown.
MIN_PIXEL_SIZE_UM = 0.05
MAX_PIXEL_SIZE_UM = 5.0


class Plane(Protocol):
    """One channel of a slide, readable chunk by chunk."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""

    @property
    def dtype(self) -> np.dtype:
        """Data type of the pixels, in native byte order."""

    @property
    def chunk_shape_px(self) -> tuple[int, int]:
        """Height and width of a chunk in px; those at the lower and right border may be smaller."""

    def read_chunk(self, row: int, column: int) -> NDArray:
        """Decode one chunk of the grid, clipped at the plane's border."""


@dataclass(frozen=True)
class Source:
    """What a reader found in a file or folder: planes to read, and what is known about them.

    `pixel_size_um` and single `channel_names` are None where the file doesn't tell; `warnings` are
    sentences for the person who inspects the slide, free of what names a patient. `files` are all those
    whose bytes make up the slide, sorted: their hashes are the slide's. `look` takes some pixels for more
    warnings, when somebody asks.
    """

    reader: str
    planes: tuple[Plane, ...]
    channel_names: tuple[str | None, ...]
    pixel_size_um: float | None
    warnings: tuple[str, ...]
    close: Callable[[], None]
    files: tuple[Path, ...]
    look: Callable[[], tuple[str, ...]] = tuple


class Reader(Protocol):
    """A format that slides come in."""

    name: str

    def accepts(self, path: Path) -> bool:
        """Tell whether this reader is the one for `path`, by a glance at it."""

    def open(self, path: Path) -> Source:
        """Open a slide strictly, without reading its pixels; raise SlideError on any fault."""


def is_plausible_pixel_size(pixel_size_um: float) -> bool:
    """Tell whether a scale in µm per pixel can be that of a cell scan (NaN can't)."""
    return MIN_PIXEL_SIZE_UM <= pixel_size_um <= MAX_PIXEL_SIZE_UM
