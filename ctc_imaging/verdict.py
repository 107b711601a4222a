"""The verdict on a slide: which of its blocks can be assessed, why others can't, and the figures behind it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ctc_imaging.staining import StainOverlap

# Below half, the counts rest on less blood than was lost: the scan should be repeated.
MIN_ASSESSED_FRACTION = 0.5

# Blur beyond which nuclei of leukocytes (9 µm) lose their outline and neighbours merge. On simulated slides (NA 0.5)
# a focus error of 4, 6, 8, 10 µm reads 0.0, 1.0, 1.6, 2.0 µm. Twelve real bone-marrow cytospins at about 0.5 µm a
# pixel read 0.5 to 1.4 µm as they are, and 2.5 to 3.5 µm when blurred by 2 µm more.
MAX_BLUR_UM = 1.4

# A twentieth of a block is nine leukocytes whose brightness is lost.
MAX_SATURATED_FRACTION = 0.05

# Discs thrown at random that cover a third of an area touch another three times in four.
MAX_NUCLEI_FRACTION = 1 / 3

# A fibre or two on a slide take less.
WORTH_TELLING = 0.005


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
class BlockMaps:
    """What was measured block by block, each an array of shape (gy, gx), NaN where it is unknown.

    `light` is the background over its median, on patches (a whole number of them a block); `saturated_fraction` the
    share of pixels at the top of the camera's range, both by short name; `nuclei_fraction` is the share of the area
    covered by nuclei.
    """

    light: Mapping[str, NDArray[np.float64]]
    saturated_fraction: Mapping[str, NDArray[np.float64]]
    nuclei_fraction: NDArray[np.float64]

    @property
    def worst_saturation(self) -> NDArray[np.float64]:
        """Share of pixels at the top in each block's most saturated channel."""
        return np.max(list(self.saturated_fraction.values()), axis=0)

    def block_light(self, short: str) -> NDArray[np.float64]:
        """A channel's light by block: the median of its patches; NaN where none is known."""
        rows, columns = self.nuclei_fraction.shape
        light = self.light[short]
        side = light.shape[0] // rows
        patches = light.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows, columns, -1)
        known = np.isfinite(patches).any(axis=2)
        of_block = np.full((rows, columns), np.nan)
        of_block[known] = np.nanmedian(patches[known], axis=1)
        return of_block


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
    assessed_fraction : float
        Share of the slide's area in those blocks.
    assessable : bool
        Whether the slide may be counted at all.
    reasons : tuple of str
        Plain sentences: why not, or what to keep in mind.
    faults : mapping of str to ndarray of bool, shape (gy, gx)
        What is wrong (``is out of focus``) and where.
    maps : BlockMaps, optional
    overlap : StainOverlap, optional
        How the stains lie to each other, for `ctc_imaging.staining.check_stains`.
    """

    shape_px: tuple[int, int]
    block_px: int
    blocks_ok: NDArray[np.bool_]
    blur_um: NDArray[np.float64]
    channels: Mapping[str, ChannelQuality]
    assessed_fraction: float
    assessable: bool
    reasons: tuple[str, ...]
    faults: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    maps: BlockMaps | None = None
    overlap: StainOverlap | None = None

    def contains(self, y_px: NDArray, x_px: NDArray) -> NDArray[np.bool_]:
        """Tell which points, in px from the centre of the first pixel, lie in assessed blocks."""
        rows, columns = (np.floor((np.asarray(at) + 0.5) / self.block_px).astype(int) for at in (y_px, x_px))
        high, wide = self.blocks_ok.shape
        inside = (rows >= 0) & (rows < high) & (columns >= 0) & (columns < wide)
        return inside & self.blocks_ok[rows.clip(0, high - 1), columns.clip(0, wide - 1)]

    def noting(self, remarks: tuple[str, ...]) -> Quality:
        """Add remarks that change nothing of the verdict."""
        return replace(self, reasons=(*self.reasons, *remarks))

    def without(self, unresolved_fraction: float) -> Quality:
        """Take off the share of the slide in which cells can't be told apart.

        Parameters
        ----------
        unresolved_fraction : float
            Share of the slide's area in which stain without a gap over 40 µm or more hides any cells.

        Returns
        -------
        Quality
            With a reason, and not assessable where too little is left.
        """
        if unresolved_fraction < WORTH_TELLING:
            return self
        fraction = max(0.0, self.assessed_fraction - unresolved_fraction)
        reasons = (*self.reasons, f"on {unresolved_fraction:.1%} of the slide cells can't be told apart")
        if self.assessable and fraction < MIN_ASSESSED_FRACTION:
            reasons = (f"only {fraction:.0%} of the slide can be assessed", *reasons)
        assessable = self.assessable and fraction >= MIN_ASSESSED_FRACTION
        return replace(self, assessed_fraction=fraction, assessable=assessable, reasons=reasons)

    def share(self, where: NDArray[np.bool_]) -> float:
        """Share of the slide's area in some of its blocks."""
        sides = [np.diff(np.append(np.arange(0, size, self.block_px), size)) for size in self.shape_px]
        return float(np.outer(*sides)[where].sum() / np.prod(self.shape_px))

    def to_json(self, maps: bool = True) -> dict[str, Any]:
        """Return the verdict as a JSON object.

        Parameters
        ----------
        maps : bool, default True
            With ``maps``, each a list of rows: numbers apart by a space, ``nan`` where unknown.

        Returns
        -------
        dict
            `blocks_ok` is one string of 0 and 1 a row.
        """
        middle, high = _spread(self.blur_um)
        return {
            "assessable": self.assessable,
            "assessed_fraction": self.assessed_fraction,
            "reasons": list(self.reasons),
            "shape_px": list(self.shape_px),
            "block_px": self.block_px,
            "blocks_ok": ["".join("01"[int(ok)] for ok in row) for row in self.blocks_ok],
            "focus": {"blur_median_um": middle, "blur_p95_um": high, "blur_limit_um": MAX_BLUR_UM},
            "channels": {
                short: {name: _figure(value) for name, value in asdict(channel).items()}
                for short, channel in self.channels.items()
            },
            "left_out": {what: _figure(self.share(where)) for what, where in self.faults.items()},
            "density": self._density(),
            **({"maps": self._maps()} if maps else {}),
        }

    def _density(self) -> dict[str, float | None] | None:
        if self.maps is None:
            return None
        middle, high = _spread(self.maps.nuclei_fraction)
        limit = _figure(MAX_NUCLEI_FRACTION)
        return {"nuclei_fraction_median": middle, "nuclei_fraction_p95": high, "nuclei_fraction_limit": limit}

    def _maps(self) -> dict[str, Any] | None:
        if self.maps is None:
            return None
        return {
            "blur_um": _rows(self.blur_um, 2),
            "nuclei_fraction": _rows(self.maps.nuclei_fraction, 3),
            "light": {short: _rows(self.maps.block_light(short), 2) for short in self.maps.light},
            "saturated_fraction": {short: _rows(share, 4) for short, share in self.maps.saturated_fraction.items()},
        }


def _rows(values: NDArray[np.float64], digits: int) -> list[str]:
    """Write a map as one string of numbers a row: short in a file, and readable in one."""
    return [" ".join(f"{value:.{digits}f}".rstrip("0").rstrip(".") for value in row) for row in values.tolist()]


def _spread(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Median and 95th centile of what is known."""
    known = values[np.isfinite(values)]
    if not known.size:
        return None, None
    middle, high = np.percentile(known, [50, 95])
    return _figure(middle), _figure(high)


def _figure(value: float | None) -> float | None:
    """Round to six significant figures for JSON."""
    return value if value is None or isinstance(value, bool) else float(f"{value:.6g}")
