"""What of a slide can be assessed, and why not: focus, saturation, missing stains, uneven light, bubbles, density."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from ctc_imaging.blocks import BLOCK_PX, MIN_NUCLEUS_SNR, MIN_SIDE_PX, PATCH_PX, Blocks, floored_noise, measure_blocks
from ctc_imaging.bubbles import find_bubbles, level_map
from ctc_imaging.exposure import is_full_scale
from ctc_imaging.overview import overview, write_png
from ctc_imaging.panel import Panel, Role
from ctc_imaging.staining import StainOverlap
from ctc_imaging.verdict import (
    MAX_BLUR_UM,
    MAX_NUCLEI_FRACTION,
    MAX_SATURATED_FRACTION,
    MIN_ASSESSED_FRACTION,
    WORTH_TELLING,
    BlockMaps,
    ChannelQuality,
    Quality,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ctc_imaging.slide import Slide

__all__ = ["MAX_BLUR_UM", "MIN_ASSESSED_FRACTION", "ChannelQuality", "Quality", "assess", "overview", "write_png"]

# Means of 4 x 4 px spread by a quarter of the noise, so the brightest per mille of an unstained channel lies about
# 1.5 noise over its background. A weak CD45 (median SNR 4) lies at 4 to 19 on simulated slides; with 15 %
# bleed-through an unstained channel reaches 2.5 to 4.6, so behind that much a failed stain may go unnoticed.
MIN_STAIN_SNR = 3.0

# Beyond a quarter of zeros, the background (the 25th centile) is no background any more.
MAX_VOID_FRACTION = 0.25

# A vignetting of 20 % over a camera offset changes the background by about 1.1.
MAX_BACKGROUND_RATIO = 1.5

# Stains without which no cell can be counted. In a blank there need be none, and the cells of a control may all be of
# a cell line.
_NEEDED = {
    "blank": {},
    "spiked": {Role.NUCLEUS: MIN_NUCLEUS_SNR},
    "stain_control": {Role.NUCLEUS: MIN_NUCLEUS_SNR},
}
_NEEDED_OF_PATIENTS = {Role.NUCLEUS: MIN_NUCLEUS_SNR, Role.LEUKOCYTE: MIN_STAIN_SNR}


def assess(slide: Slide, channels: Mapping[str, int], panel: Panel, sample_kind: str = "patient") -> Quality:
    """Judge a slide in one pass over fixed blocks of 256 px.

    A constant or missing channel, or a nuclear or leukocyte stain without signal, makes the whole slide not
    assessable. Blocks that are blurred, saturated, unscanned or under a bubble or fold are left out; a slide of
    which less than half remains isn't assessable either.

    Parameters
    ----------
    slide : Slide
    channels : mapping of str to int
        The panel's short names to the slide's channels, as `Panel.assign` gives it.
    panel : Panel
    sample_kind : str, default "patient"
        As in cohort.csv: a ``blank`` needs no signal, ``spiked`` and ``stain_control`` no leukocytes.

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
    typical = _typical(blocks, void)
    saturation = {short: _saturation(stats, blocks, slide.dtype) for short, stats in blocks.stains.items()}
    stains = {
        short: _summarise(stats, saturation[short], blocks, typical, slide.dtype)
        for short, stats in blocks.stains.items()
    }
    blur = np.where(void, np.nan, _from_nearest(blocks.blur_um, ~np.isnan(blocks.blur_um) & ~void))
    noise = {short: stain.noise for short, stain in stains.items()}
    faults = {
        "is out of focus": blur > MAX_BLUR_UM,
        "is saturated": np.any([share > MAX_SATURATED_FRACTION for share in saturation.values()], axis=0),
        "was never scanned": void,
        "lies under a bubble or fold": find_bubbles(blocks, noise, void, slide.shape[1:], slide.pixel_size_um),
    }
    needed = _NEEDED.get(sample_kind, _NEEDED_OF_PATIENTS)
    failures = _failures(panel, stains, needed)
    bad = np.any(list(faults.values()), axis=0)
    ok = ~bad & (not failures)
    fraction = blocks.share(ok)
    if not failures and fraction < MIN_ASSESSED_FRACTION:
        failures = [f"only {fraction:.0%} of the slide can be assessed"]
    maps = _maps(blocks, faults, saturation, stains)
    remarks = [f"{blocks.share(where):.1%} of the slide {what}" for what, where in faults.items() if where.any()]
    remarks += _remarks(panel, stains, needed) + _density_remarks(blocks, maps)
    if slide.pixel_size_um is None:
        remarks.append("the pixel size is unknown, so focus wasn't judged")
    return Quality(
        shape_px=slide.shape[1:],
        block_px=BLOCK_PX,
        blocks_ok=ok,
        blur_um=blur,
        channels=stains,
        assessed_fraction=fraction,
        assessable=not failures,
        reasons=(*failures, *remarks),
        faults=faults,
        maps=maps,
        overlap=StainOverlap.of(list(channels), blocks.overlaps[typical & ~bad]),
    )


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
    if not is_full_scale(float(top), dtype) or stats["minimum"].min() == top:
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


def _maps(
    blocks: Blocks,
    faults: Mapping[str, NDArray[np.bool_]],
    saturation: Mapping[str, NDArray],
    stains: Mapping[str, ChannelQuality],
) -> BlockMaps:
    """Put together what was measured, leaving out what has no meaning there."""
    void, bubble = faults["was never scanned"], faults["lies under a bubble or fold"]
    side = BLOCK_PX // PATCH_PX
    void_patches = void.repeat(side, axis=0).repeat(side, axis=1)
    light = {
        short: np.where(
            void_patches, np.nan, (level_map(blocks, short) + stain.noise) / (stain.background + stain.noise)
        )
        for short, stain in stains.items()
    }
    saturated = {short: np.where(void, np.nan, share) for short, share in saturation.items()}
    return BlockMaps(light, saturated, np.where(void | bubble, np.nan, blocks.nuclei_fraction))


def _failures(panel: Panel, stains: Mapping[str, ChannelQuality], needed: Mapping[Role, float]) -> list[str]:
    """Say which stains make the whole slide impossible to assess."""
    failures = []
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


def _remarks(panel: Panel, stains: Mapping[str, ChannelQuality], needed: Mapping[Role, float]) -> list[str]:
    """Say what of the stains the reader of the counts should keep in mind."""
    remarks = []
    for channel in panel.channels:
        stain = stains.get(channel.short)
        if stain is None or stain.constant:
            continue
        optional = channel.role not in needed and channel.role != Role.AUTOFLUORESCENCE
        if optional and stain.brightest_snr < MIN_STAIN_SNR:
            remarks.append(f"no cell shows {channel.short} ({channel.role}): no such cells, or the stain failed")
        if stain.background_ratio > MAX_BACKGROUND_RATIO:
            remarks.append(f"the background of {channel.short} is uneven (ratio {stain.background_ratio:.1f})")
    return remarks


def _density_remarks(blocks: Blocks, maps: BlockMaps) -> list[str]:
    """Say where nuclei lie so close that cells overlap."""
    share = blocks.share(maps.nuclei_fraction > MAX_NUCLEI_FRACTION)
    if share < WORTH_TELLING:
        return []
    return [f"on {share:.1%} of the slide nuclei cover more than a third of the area, so cells overlap"]
