"""What of a slide can be assessed, and why not: focus, saturation, missing stains, uneven light."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from ctc_imaging.files import atomic_path
from ctc_imaging.panel import Panel, Role
from ctc_imaging.sharpness import blur_um

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ctc_imaging.slide import Slide

# Blocks lie on a fixed grid from the slide's corner, so that the verdict doesn't depend on any tile size.
BLOCK_PX = 256

# A remnant at the lower or right border narrower than this holds too few nuclei to judge by itself.
MIN_SIDE_PX = 64

# Below half, the counts rest on less blood than was lost: the scan should be repeated.
MIN_ASSESSED_FRACTION = 0.5

# Standard deviation of the blur beyond which nuclei of leukocytes (9 µm) lose their outline and neighbours
# merge: 1.5 µm is a focus error of about 6 µm at NA 0.5.
MAX_BLUR_UM = 1.5

# Above five times the noise a nucleus is certain (good stains have 10 to 30) and its edge measurable.
MIN_NUCLEUS_SNR = 5.0

# Means of 4 x 4 px spread by a quarter of the noise: their brightest per mille lies 0.8 noise over the background
# of an unstained channel. A weak CD45 (SNR 4) lies far above 2.
MIN_STAIN_SNR = 2.0

# A twentieth of a block is nine leukocytes whose brightness is lost.
MAX_SATURATED_FRACTION = 0.05

# A vignetting of 20 % over a camera offset changes the background by about 1.1.
MAX_BACKGROUND_RATIO = 1.5

# Cameras of 8, 10, 12, 14 and 16 bits: the brightest pixel of a slide being one of these means clipping.
FULL_SCALES = (255, 1023, 4095, 16_383, 65_535)

# Rounding to grey levels is itself a noise of this many levels, the least an integer image can have.
QUANTISATION_NOISE = 12**-0.5

_COARSE_PX = 4
_FIGURES = ("background", "noise", "top", "minimum", "maximum", "at_maximum", "zeros")
_BLOCK = np.dtype([(name, np.float64) for name in _FIGURES])


@dataclass(frozen=True)
class ChannelQuality:
    """One stain over the whole slide, in grey levels.

    `signal_snr` is the 99.9 percentile over the background in units of its noise, in the median block with
    nuclei; `brightest_snr` in the brightest block. `background_ratio` is the 95 to 5 percentile of the blocks'
    backgrounds.
    """

    background: float
    noise: float
    saturated_fraction: float
    signal_snr: float
    brightest_snr: float
    background_ratio: float
    constant: bool


@dataclass(frozen=True, eq=False)
class Quality:
    """The verdict on a slide: which of its blocks can be assessed, and why others can't.

    Attributes
    ----------
    shape_px : tuple of int
        Height and width of the slide.
    block_px : int
        Side of a block.
    blocks_ok : ndarray of bool, shape (gy, gx)
        The blocks that can be assessed.
    blur_um : ndarray of float, shape (gy, gx)
        Standard deviation of the blur in each block, in µm; NaN where it couldn't be judged.
    channels : mapping of str to ChannelQuality
        By short name.
    assessable : bool
        Whether the slide may be counted at all.
    reasons : tuple of str
        Plain sentences: why not, or what to keep in mind.
    """

    shape_px: tuple[int, int]
    block_px: int
    blocks_ok: NDArray[np.bool_]
    blur_um: NDArray[np.float64]
    channels: Mapping[str, ChannelQuality]
    assessable: bool
    reasons: tuple[str, ...]

    @property
    def assessed_fraction(self) -> float:
        """Share of the slide's area in blocks that can be assessed."""
        return _share(self.blocks_ok, self.shape_px)

    def contains(self, y_px: NDArray, x_px: NDArray) -> NDArray[np.bool_]:
        """Tell which points, in px from the centre of the first pixel, lie in assessed blocks."""
        rows, columns = (np.floor((np.asarray(at) + 0.5) / self.block_px).astype(int) for at in (y_px, x_px))
        high, wide = self.blocks_ok.shape
        inside = (rows >= 0) & (rows < high) & (columns >= 0) & (columns < wide)
        return inside & self.blocks_ok[rows.clip(0, high - 1), columns.clip(0, wide - 1)]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object, `blocks_ok` as one string of 0 and 1 a row."""
        known = self.blur_um[np.isfinite(self.blur_um)]
        low, high = np.percentile(known, [50, 95]) if known.size else (None, None)
        return {
            "assessable": self.assessable,
            "assessed_fraction": self.assessed_fraction,
            "reasons": list(self.reasons),
            "shape_px": list(self.shape_px),
            "block_px": self.block_px,
            "blocks_ok": ["".join("01"[int(ok)] for ok in row) for row in self.blocks_ok],
            "focus": {"blur_median_um": _figure(low), "blur_p95_um": _figure(high), "blur_limit_um": MAX_BLUR_UM},
            "channels": {
                short: {name: _figure(value) for name, value in asdict(channel).items()}
                for short, channel in self.channels.items()
            },
        }


def assess(slide: Slide, channels: Mapping[str, int], panel: Panel) -> Quality:
    """Judge a slide in one pass over fixed blocks of 256 px.

    A constant or missing channel, or a nuclear or leukocyte stain without signal, makes the whole slide not
    assessable. Blocks that are blurred, saturated or unscanned are left out; a slide of which less than half
    remains isn't assessable either.

    Parameters
    ----------
    slide : Slide
    channels : mapping of str to int
        The panel's short names to the slide's channels, as `Panel.assign` gives it.
    panel : Panel

    Returns
    -------
    Quality

    Raises
    ------
    SlideError
        If a chunk of the slide is damaged.
    """
    shape_px = slide.shape[1:]
    nucleus = next((c.short for c in panel.channels if c.role == Role.NUCLEUS and c.short in channels), None)
    blocks, blur = _measure(slide, channels, nucleus)
    void = _void(blocks.get(nucleus))
    measured = np.isfinite(blur) & ~void
    saturated = {short: _saturated(stats, slide.dtype, shape_px) for short, stats in blocks.items()}
    stains = {
        short: _summarise(stats, saturated[short], measured, ~void, slide.dtype) for short, stats in blocks.items()
    }
    blur = np.where(void, np.nan, _from_nearest(blur, measured))
