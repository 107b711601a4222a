"""Whether a scan was exposed at all: constant, black and saturated channels are refused before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.errors import SlideError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Cameras of 8, 10, 12, 14 and 16 bits: the brightest pixel of a slide being one of these means clipping.
FULL_SCALES = (255, 1023, 4095, 16_383, 65_535)

# A slide of cells is mostly background: with half its pixels at the top, nothing in the rest can be trusted.
MAX_AT_TOP = 0.5


@dataclass(frozen=True)
class Exposure:
    """The range of a channel's pixels over a whole scan, in grey levels, and how many have the maximum."""

    minimum: float
    maximum: float
    at_maximum: int
    pixels: int


def is_full_scale(maximum: float, dtype: np.dtype) -> bool:
    """Tell whether a channel's brightest pixel stands at the top of a camera's range."""
    return dtype.kind == "u" and maximum in FULL_SCALES


def check_exposure(
    path: str | Path,
    channels: Mapping[str, int],
    exposures: Mapping[str, Exposure],
    dtype: np.dtype,
) -> None:
    """Refuse a scan of which a channel of the panel is constant, black or mostly saturated.

    Parameters
    ----------
    path : str or Path
        The scan, for the error message.
    channels : mapping of str to int
        The panel's short names to the scan's channels.
    exposures : mapping of str to Exposure
        By short name.
    dtype : numpy.dtype
        Of the pixels.

    Raises
    ------
    SlideError
        If all channels are black, or one is constant or has most of its pixels at the top of the camera's range.
    """
    if all(exposures[short].minimum == exposures[short].maximum == 0 for short in channels):
        raise SlideError(path, "every channel is black (0 throughout)", "check the scanner's lamp and export it again")
    for short, channel in channels.items():
        low, high = exposures[short].minimum, exposures[short].maximum
        at_top = exposures[short].at_maximum / exposures[short].pixels
        # A few grey levels of noise over nothing are the business of `assess`: it knows what a stain looks like.
        if is_full_scale(high, dtype) and at_top > MAX_AT_TOP:
            raise SlideError(
                path,
                f"channel {short} ({channel}) is saturated: {at_top:.0%} of its pixels are at {high:g}",
                "scan it again with a shorter exposure",
            )
        if low == high:
            raise SlideError(
                path,
                f"channel {short} ({channel}) is constant at {high:g}: it was never exposed or is missing",
                "check the channels of the scanner's export",
            )
