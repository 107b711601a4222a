"""The picture of a slide: its stains in the panel's colours, hatched where it can't be assessed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ctc_imaging.blocks import MIN_NUCLEUS_SNR
from ctc_imaging.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ctc_imaging.panel import Panel
    from ctc_imaging.slide import Slide
    from ctc_imaging.verdict import ChannelQuality, Quality

_HATCH_PX = 12
_BAR_UM = tuple(step * 10**power for power in range(1, 5) for step in (1, 2, 5))


@dataclass(frozen=True)
class FarView:
    """A slide seen from afar: each pixel is the mean of a square of `factor` px.

    Attributes
    ----------
    planes : ndarray of float32, shape (C, height, width)
        In the order of the channels.
    factor : int
    """

    planes: NDArray[np.float32]
    factor: int


def far_view(slide: Slide, channels: Mapping[str, int], max_px: int = 1200) -> FarView:
    """Shrink a slide until its longer side is at most `max_px`."""
    factor = -(-max(slide.shape[1:]) // max_px)
    return FarView(_shrunk(slide, list(channels.values()), factor), factor)


def overview(
    slide: Slide,
    channels: Mapping[str, int],
    panel: Panel,
    quality: Quality,
    max_px: int = 1200,
    view: FarView | None = None,
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
    view : FarView, optional
        Where the slide has been shrunk already.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Red, green, blue, with a scale bar where the pixel size is known.
    """
    view = view or far_view(slide, channels, max_px)
    small, factor = view.planes, view.factor
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
