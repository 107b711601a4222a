"""Channel names and pixel size as metadata of any format tell them: trimmed, in µm, and plausible."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import is_plausible_pixel_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Pixels of a scan are square; X and Y further apart than this are a wrong or anisotropic scale.
SQUARE_TOLERANCE = 0.01

_UM = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "pm": 1e-6, "å": 1e-4,
    "um": 1.0, "micron": 1.0, "microns": 1.0, "in": 25_400.0, "inch": 25_400.0, "angstrom": 1e-4,
    **{
        f"{prefix}met{ending}": factor
        for prefix, factor in (
            ("", 1e6), ("deci", 1e5), ("centi", 1e4), ("milli", 1e3), ("micro", 1.0), ("nano", 1e-3), ("pico", 1e-6)
        )
        for ending in ("er", "re")
    },
}  # fmt: skip

# Names that software makes up ("Channel:0:1", "c:1/4 - scan.tif", "3") say nothing about the stain.
_PLACEHOLDER = re.compile(r"(channel|ch|c|image|page|slice)?[\s:_=#-]*\d+([:/]\d+)*(\s+-\s.*)?", re.IGNORECASE)


def um_per(unit: str) -> float | None:
    """Return the µm in a unit of length by its name or symbol, or None if it isn't known.

    Examples
    --------
    >>> um_per("nm"), um_per("micrometer"), um_per("pixel")
    (0.001, 1.0, None)
    """
    return _UM.get(unit.strip().replace("\\u00B5", "µ").replace("\u03bc", "µ").lower())


def length_um(value: str | float | None, unit_um: float | None) -> float | None:
    """Convert a length to µm; None unless it is a positive number in a known unit."""
    try:
        size = float(value or 0) * (unit_um or 0)
    except ValueError:
        return None
    return size if math.isfinite(size) and size > 0 else None


def square_pixel_size_um(path: Path, sizes: Sequence[float | None]) -> tuple[float | None, tuple[str, ...]]:
    """Return the side of a pixel on which X and Y agree.

    Parameters
    ----------
    path : Path
        The slide, for the error message.
    sizes : sequence of (float or None)
        In X and in Y, in µm.

    Returns
    -------
    size : float or None
        None if neither is known, or they can't be those of a cell scan.
    warnings : tuple of str

    Raises
    ------
    SlideError
        If pixels aren't square.
    """
    known = [size for size in sizes if size is not None]
    if not known:
        return None, ()
    if not math.isclose(known[0], known[-1], rel_tol=SQUARE_TOLERANCE):
        raise SlideError(
            path, f"its pixels aren't square: {known[0]:g} by {known[-1]:g} µm", "export the scan with one scale"
        )
    if not is_plausible_pixel_size(known[0]):
        return None, (f"its metadata say {known[0]:g} µm a pixel, which no cell scan has: taken as unknown",)
    return known[0], ()


def clean_names(names: Sequence[str | None], channels: int) -> tuple[str | None, ...]:
    """Trim channel names; None for those that only number the channel, or if there aren't as many as channels."""
    if len(names) != channels:
        return (None,) * channels
    trimmed = [(name or "").replace("\ufeff", "").replace("\0", "").strip() for name in names]
    return tuple(None if not name or _PLACEHOLDER.fullmatch(name) else name for name in trimmed)
