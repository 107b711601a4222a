"""What of a slide can be assessed, and why not: focus, saturation, missing stains, uneven light."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy import ndimage

from ctc_imaging.blocks import BLOCK_PX, MIN_NUCLEUS_SNR, MIN_SIDE_PX, Blocks, floored_noise, measure_blocks
from ctc_imaging.files import atomic_path
from ctc_imaging.panel import Panel, Role

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ctc_imaging.slide import Slide

# Below half, the counts rest on less blood than was lost: the scan should be repeated.
MIN_ASSESSED_FRACTION = 0.5

# Blur beyond which nuclei of leukocytes (9 µm) lose their outline and neighbours merge. On simulated slides (NA 0.5)
# a focus error of 4, 6, 8, 10 µm reads 0.0, 1.0, 1.6, 2.0 µm. Twelve real bone-marrow cytospins at about 0.5 µm a
# pixel read 0.5 to 1.4 µm as they are, and 2.5 to 3.5 µm when blurred by 2 µm more.
MAX_BLUR_UM = 1.4

# Means of 4 x 4 px spread by a quarter of the noise, so the brightest per mille of an unstained channel lies about
# 1.5 noise over its background. A weak CD45 (median SNR 4) lies at 4 to 19 on simulated slides; with 15 %
# bleed-through an unstained channel reaches 2.5 to 4.6, so behind that much a failed stain may go unnoticed.
MIN_STAIN_SNR = 3.0

# Beyond a quarter of zeros, the background (the 25th centile) is no background any more.
MAX_VOID_FRACTION = 0.25

# A twentieth of a block is nine leukocytes whose brightness is lost.
MAX_SATURATED_FRACTION = 0.05

# A vignetting of 20 % over a camera offset changes the background by about 1.1.
MAX_BACKGROUND_RATIO = 1.5

# A fibre or two on a slide take less.
WORTH_TELLING = 0.005

# Cameras of 8, 10, 12, 14 and 16 bits: the brightest pixel of a slide being one of these means clipping.
FULL_SCALES = (255, 1023, 4095, 16_383, 65_535)

_HATCH_PX = 12
_BAR_UM = tuple(step * 10**power for power in range(1, 5) for step in (1, 2, 5))


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
    assessed_fraction : float
        Share of the slide's area in those blocks.
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
    assessed_fraction: float
    assessable: bool
    reasons: tuple[str, ...]

    def contains(self, y_px: NDArray, x_px: NDArray) -> NDArray[np.bool_]:
        """Tell which points, in px from the centre of the first pixel, lie in assessed blocks."""
        rows, columns = (np.floor((np.asarray(at) + 0.5) / self.block_px).astype(int) for at in (y_px, x_px))
        high, wide = self.blocks_ok.shape
        inside = (rows >= 0) & (rows < high) & (columns >= 0) & (columns < wide)
        return inside & self.blocks_ok[rows.clip(0, high - 1), columns.clip(0, wide - 1)]

    def without(self, unresolved_fraction: float) -> Quality:
        """Take off the share of the slide in which cells can't be told apart.

        Parameters
        ----------
        unresolved_fraction : float
            Share of the slide's area stained without a gap over a greater length than any clump of cells.

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
    blocks = measure_blocks(slide, channels, panel)
    void = _void(blocks)
    saturation = {short: _saturation(stats, blocks, slide.dtype) for short, stats in blocks.stains.items()}
    stains = {
        short: _summarise(stats, saturation[short], blocks, _typical(blocks, void), slide.dtype)
        for short, stats in blocks.stains.items()
    }
    blur = np.where(void, np.nan, _from_nearest(blocks.blur_um, ~np.isnan(blocks.blur_um) & ~void))
    bad = {
        "is out of focus": blur > MAX_BLUR_UM,
        "is saturated": np.any([share > MAX_SATURATED_FRACTION for share in saturation.values()], axis=0),
        "was never scanned": void,
    }
    failures = _failures(panel, stains)
    ok = ~np.any(list(bad.values()), axis=0) & (not failures)
    fraction = blocks.share(ok)
    if not failures and fraction < MIN_ASSESSED_FRACTION:
        failures = [f"only {fraction:.0%} of the slide can be assessed"]
    remarks = _remarks(panel, stains, {what: blocks.share(where) for what, where in bad.items()})
    if slide.pixel_size_um is None:
        remarks.append("the pixel size is unknown, so focus wasn't judged")
    return Quality(slide.shape[1:], BLOCK_PX, ok, blur, stains, fraction, not failures, (*failures, *remarks))


def _void(blocks: Blocks) -> NDArray[np.bool_]:
    """Find blocks the scanner never filled: zero pixels, on a slide whose background isn't."""
    void = blocks.zeros_px > MAX_VOID_FRACTION * blocks.areas_px
    others = np.concatenate([stats["background"][~void] for stats in blocks.stains.values()])
    return void & bool(others.size and np.median(others) > 0)


def _typical(blocks: Blocks, void: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the scanned blocks that are more than a remnant at the border, or all of them on a tiny slide."""
    whole = ~void & (blocks.areas_px >= MIN_SIDE_PX * BLOCK_PX)
    return whole if whole.any() else ~void


def _saturation(stats: NDArray, blocks: Blocks, dtype: np.dtype) -> NDArray[np.float64]:
    """Share of each block's pixels at the top of the camera's range."""
    top = stats["maximum"].max()
    if dtype.kind != "u" or top not in FULL_SCALES or stats["minimum"].min() == top:
        return np.zeros(stats.shape)
    return np.where(stats["maximum"] == top, stats["at_maximum"], 0) / blocks.areas_px


def _summarise(
    stats: NDArray, saturation: NDArray, blocks: Blocks, typical: NDArray, dtype: np.dtype
) -> ChannelQuality:
    nuclei = blocks.has_nuclei & typical
    span = float(stats["maximum"][typical].max() - stats["minimum"][typical].min())
    noise = float(floored_noise(np.median(stats["noise"][typical]), span, dtype))
    snr = (stats["top"] - stats["background"]) / noise
    low, high = np.percentile(stats["background"][typical], [5, 95])
    return ChannelQuality(
        background=float(np.median(stats["background"][typical])),
        noise=noise,
        saturated_fraction=float(np.average(saturation, weights=blocks.areas_px)),
        signal_snr=float(np.median(snr[nuclei if nuclei.any() else typical])),
        brightest_snr=float(snr[typical].max()),
        background_ratio=float((high + noise) / (low + noise)),
        constant=span == 0,
    )


def _from_nearest(values: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give each unknown block the value of the nearest known one; unchanged if none is known."""
    if not known.any():
        return values
    nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
    return values[tuple(nearest)]


def _failures(panel: Panel, stains: Mapping[str, ChannelQuality]) -> list[str]:
    """Say which stains make the whole slide impossible to assess."""
    failures = []
    needed = {Role.NUCLEUS: MIN_NUCLEUS_SNR, Role.LEUKOCYTE: MIN_STAIN_SNR}
    for channel in panel.channels:
        stain = stains.get(channel.short)
        name = f"{channel.short} ({channel.role})"
        if stain is None:
            failures.append(f"channel {name} is missing")
        elif stain.constant:
            failures.append(f"channel {name} is constant")
        elif channel.role in needed:
            snr = stain.brightest_snr if channel.role == Role.NUCLEUS else stain.signal_snr
            if snr < needed[channel.role]:
                failures.append(f"stain {name} shows no signal")
    return failures


def _remarks(panel: Panel, stains: Mapping[str, ChannelQuality], shares: Mapping[str, float]) -> list[str]:
    """Say what the reader of the counts should keep in mind."""
    remarks = [f"{share:.1%} of the slide {what}" for what, share in shares.items() if share > 0]
    for channel in panel.channels:
        stain = stains.get(channel.short)
        if stain is None or stain.constant:
            continue
        optional = channel.role not in (Role.NUCLEUS, Role.LEUKOCYTE, Role.AUTOFLUORESCENCE)
        if optional and stain.brightest_snr < MIN_STAIN_SNR:
            remarks.append(f"no cell shows {channel.short} ({channel.role}): no such cells, or the stain failed")
        if stain.background_ratio > MAX_BACKGROUND_RATIO:
            remarks.append(f"the background of {channel.short} is uneven (ratio {stain.background_ratio:.1f})")
    return remarks


def _figure(value: float | None) -> float | None:
    """Round to six significant figures for JSON."""
    return value if value is None or isinstance(value, bool) else float(f"{value:.6g}")


def overview(
    slide: Slide, channels: Mapping[str, int], panel: Panel, quality: Quality, max_px: int = 1200
) -> NDArray[np.uint8]:
    """Draw a small composite of a slide in the panel's colours, hatched where it can't be assessed.

    Parameters
    ----------
    slide : Slide
    channels : mapping of str to int
        The panel's short names to the slide's channels.
    panel : Panel
    quality : Quality
        The slide's verdict.
    max_px : int, default 1200
        The longer side of the picture is at most this.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Red, green, blue, with a scale bar where the pixel size is known.
    """
    factor = -(-max(slide.shape[1:]) // max_px)
    small = _shrunk(slide, list(channels.values()), factor)
    colours = {channel.short: channel.colour for channel in panel.channels}
    picture = np.zeros((*small.shape[1:], 3), np.float32)
    for short, plane in zip(channels, small, strict=True):
        picture += _stretched(plane, quality.channels[short])[..., None] * _rgb(colours[short])
    picture = _hatched(np.clip(picture, 0, 1), quality, factor)
    image = np.rint(picture * 255).astype(np.uint8)
    if slide.pixel_size_um is not None:
        _draw_scale_bar(image, slide.pixel_size_um * factor)
    return image


def write_png(target: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB picture (height, width, 3) as PNG, atomically."""
    _, data = cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))
    with atomic_path(target) as temporary:
        temporary.write_bytes(data.tobytes())


def _shrunk(slide: Slide, channels: list[int], factor: int) -> NDArray:
    """Average squares of `factor` px, region by region, so that memory doesn't grow with the slide."""
    _, height, width = slide.shape
    small = np.empty((len(channels), -(-height // factor), -(-width // factor)), np.float32)
    step = max(1, 1024 // factor)
    for y, x in product(range(0, small.shape[1], step), range(0, small.shape[2], step)):
        y0, x0 = y * factor, x * factor
        region = slide.read(channels, y0, min(y0 + step * factor, height), x0, min(x0 + step * factor, width))
        mean: NDArray = region.astype(np.float32)
        for axis in (1, 2):
            starts = np.arange(0, region.shape[axis], factor)
            counts = np.diff(np.append(starts, region.shape[axis])).astype(np.float32)
            mean = np.add.reduceat(mean, starts, axis) / np.expand_dims(counts, (0, 3 - axis))
        small[:, y : y + step, x : x + step] = mean
    return small


def _stretched(plane: NDArray[np.float32], stain: ChannelQuality) -> NDArray:
    """Stretch a stain to 0 to 1; a channel of mere noise stays dark."""
    low = stain.background + stain.noise
    high = max(float(np.percentile(plane, 99.7)), stain.background + 2 * MIN_NUCLEUS_SNR * stain.noise)
    return ((plane - np.float32(low)) / np.float32(high - low)).clip(0, 1)


def _rgb(colour: str) -> NDArray[np.float32]:
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], np.float32) / np.float32(255)


def _hatched(picture: NDArray[np.float32], quality: Quality, factor: int) -> NDArray[np.float32]:
    """Grey out the blocks that can't be assessed and hatch them."""
    y, x = np.ogrid[: picture.shape[0], : picture.shape[1]]
    rows, columns = y * factor // quality.block_px, x * factor // quality.block_px
    excluded = ~quality.blocks_ok[rows, columns]
    grey = picture.mean(axis=2, keepdims=True) * 0.6 + 0.1
    lines = ((y + x) % _HATCH_PX < 2)[..., None]
    return np.where(excluded[..., None], np.where(lines, 0.55, grey), picture).astype(np.float32)


def _draw_scale_bar(image: NDArray[np.uint8], pixel_size_um: float) -> None:
    """Draw a bar of a round length near a fifth of the picture's width, with its length in µm."""
    height, width = image.shape[:2]
    length_um = max(um for um in _BAR_UM if um <= max(0.25 * width * pixel_size_um, _BAR_UM[0]))
    length, margin = round(length_um / pixel_size_um), max(4, width // 60)
    bottom, right = height - margin, width - margin
    cv2.rectangle(image, (right - length, bottom - max(2, height // 200)), (right, bottom), (255, 255, 255), -1)
    size = max(0.35, width / 1800)
    text = f"{length_um} um"
    cv2.putText(
        image, text, (right - length, bottom - margin), cv2.FONT_HERSHEY_SIMPLEX, size, (255, 255, 255), 1, cv2.LINE_AA
    )
