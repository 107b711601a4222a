"""What all readers hold pixels to: their type, the size of a chunk, one focal plane a channel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ctc_imaging.readers.base import Plane

# A chunk is decoded whole: beyond this, memory would grow with the slide.
MAX_CHUNK_BYTES = 256 * 2**20

# Stored type to the type read. Cameras of 10, 12 and 14 bits store uint16.
_READ_AS = {
    "uint8": "uint8",
    "uint16": "uint16",
    "float16": "float32",
    "float32": "float32",
    "float64": "float32",
}
_REMEDIES = {
    "int8": "export it as uint8",
    "int16": "export it as uint16, which cameras count in",
    "int32": "export it as uint16 or float32",
    "uint32": "export it as uint16 or float32",
    "bool": "a mask is no scan: give the image it was made of",
}


def type_read(path: Path, stored: np.dtype | None) -> np.dtype:
    """Return the type, in native byte order, that stored pixels are read as.

    Parameters
    ----------
    path : Path
        The slide, for the error message.
    stored : numpy.dtype or None
        None if unknown.

    Returns
    -------
    numpy.dtype
        uint8, uint16 or float32.

    Raises
    ------
    SlideError
        If the type isn't that of a scan.
    """
    name = "unknown" if stored is None else stored.name
    if name not in _READ_AS:
        remedy = _REMEDIES.get(name, "export it as uint8, uint16 or float32")
        raise SlideError(path, f"pixels of type {name}", remedy)
    return np.dtype(_READ_AS[name])


def as_read(pixels: NDArray, dtype: np.dtype) -> NDArray:
    """Copy pixels into the type they are read as; what float32 can't hold becomes infinite, which slides refuse."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(pixels, dtype)


def check_chunk_size(path: Path, shape: Sequence[int], dtype: np.dtype) -> None:
    """Refuse chunks too large to decode.

    Raises
    ------
    SlideError
        If one has more than `MAX_CHUNK_BYTES`.
    """
    if math.prod(shape) * dtype.itemsize > MAX_CHUNK_BYTES:
        raise SlideError(path, "each channel is one huge compressed block", "export the scan as tiled OME-TIFF")


def in_focus(stacks: Sequence[Sequence[Plane]]) -> tuple[tuple[Plane, ...], tuple[str, ...]]:
    """Reduce each channel's focal planes to one, and say so in a warning.

    Parameters
    ----------
    stacks : sequence of sequence of Plane
        By channel, then by focal plane; all of one length, shape and type.

    Returns
    -------
    planes : tuple of Plane
        One a channel.
    warnings : tuple of str
    """
    depth = len(stacks[0])
    if depth == 1:
        return tuple(stack[0] for stack in stacks), ()
    from ctc_imaging.readers.focus import best_focus

    return best_focus(stacks), (f"it has {depth} focal planes (Z): of each block the sharpest is read",)
