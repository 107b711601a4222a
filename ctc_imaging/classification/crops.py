"""Crops around cells at one physical scale and in one unit, so that one network serves every scanner."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ctc_imaging.errors import SlideError
from ctc_imaging.panel import Role

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.panel import Panel
    from ctc_imaging.segmentation import Background

CROP_PX = 48
UM_PER_PX = 0.5
ROLES = (Role.NUCLEUS, Role.EPITHELIAL, Role.MESENCHYMAL, Role.LEUKOCYTE)
# Blocks are absolute, so which cells share a batch never depends on a slide's tiles.
BLOCK_PX = 1024
# A scale this close to ours is used as it is: resampling would smooth the noise for nothing.
SCALE_TOLERANCE = 0.02


class ScaledPixels(Protocol):
    """What this package needs of a slide."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""

    @property
    def pixel_size_um(self) -> float | None:
        """Side of a pixel, or None where nobody told."""

    def read(self, channels: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Return the pixels of a window, (channels, rows, columns)."""


@dataclass(frozen=True)
class CropBatch:
    """Crops of some cells, as the network takes them.

    Attributes
    ----------
    cell_ids : ndarray of int64, shape (n,)
    roles : ndarray of float32, shape (n, 4, 48, 48)
        Signal over local background in units of its noise, planes in the order of `ROLES`;
        zero where the panel has no such marker or the crop leaves the slide.
    present : ndarray of float32, shape (4,)
        1 where the panel has a marker of that role, else 0.
    masks : ndarray of float32, shape (n, 2, 48, 48)
        The cell's own outline and its own nucleus, 0 to 1.
    """

    cell_ids: np.ndarray
    roles: np.ndarray
    present: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class _Window:
    """Pixels and labels of one block with its margin; `y0`, `x0` is its corner on the slide."""

    y0: int
    x0: int
    pixels: np.ndarray
    labels: np.ndarray


def iterate_crops(
    slide: ScaledPixels,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    labels: Any,
    cells: pd.DataFrame,
    batch: int = 256,
) -> Iterator[CropBatch]:
    """Yield crops of all cells, block by block, in the order of their ids within a block.

    Parameters
    ----------
    slide : Slide
        With a known pixel size.
    channels : mapping of str to int
        Short names of the panel to the slide's channels.
    panel : Panel
    background : Background
        Level and noise of the slide.
    labels : array of uint32, shape (2, Y, X)
        Cell and nucleus labels; values are cell ids.
    cells : DataFrame
        With `cell_id`, `y_px`, `x_px`.
    batch : int
        Most cells in one batch; only the last one is shorter.

    Yields
    ------
    CropBatch

    Raises
    ------
    SlideError
        If the slide's pixel size isn't known.
    """
    present = np.array([panel.channel(role) is not None for role in ROLES], np.float32)
    pixel_size_um = known_pixel_size(slide)
    side = crop_side(pixel_size_um)
    # Noise of the mean over one 0.5 um pixel: the same stain then reads the same at every sampling.
    noise_scale = 1.0 if side == CROP_PX else pixel_size_um / UM_PER_PX
    pending: list[tuple[int, np.ndarray, np.ndarray]] = []
    for block in _blocks(cells):
        y0, y1, x0, x1 = _bounds(block, side, slide.shape)
        snr = _role_snr(slide, channels, panel, background, (y0, y1, x0, x1)) / np.float32(noise_scale)
        window = _Window(y0, x0, snr, np.asarray(labels[:, y0:y1, x0:x1]))
        for cell_id, y, x in zip(block["cell_id"], block["y_px"], block["x_px"], strict=True):
            own = cut(window.labels, y - y0, x - x0, side) == cell_id
            pending.append((int(cell_id), cut(window.pixels, y - y0, x - x0, side), own))
            if len(pending) == batch:
                yield _stack(pending, present)
                pending = []
    if pending:
        yield _stack(pending, present)


def iterate_raw_crops(
    slide: ScaledPixels, channels: Mapping[str, int], cells: pd.DataFrame, batch: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (cell ids, raw pixels at 0.5 um) of all cells, in the order of `iterate_crops`.

    Yields
    ------
    cell_ids : ndarray of int64, shape (n,)
    pixels : ndarray of float32, shape (n, C, 48, 48)
        Channels in panel order; zero outside the slide.
    """
    side = crop_side(known_pixel_size(slide))
    pending: list[tuple[int, np.ndarray]] = []
    for block in _blocks(cells):
        y0, y1, x0, x1 = _bounds(block, side, slide.shape)
        pixels = slide.read(list(channels.values()), y0, y1, x0, x1).astype(np.float32)
        for cell_id, y, x in zip(block["cell_id"], block["y_px"], block["x_px"], strict=True):
            pending.append((int(cell_id), cut(pixels, y - y0, x - x0, side)))
            if len(pending) == batch:
                yield _ids(pending), to_crop_scale(np.stack([crop for _, crop in pending]))
                pending = []
    if pending:
        yield _ids(pending), to_crop_scale(np.stack([crop for _, crop in pending]))


def read_crop(slide: ScaledPixels, channels: Mapping[str, int], y_px: float, x_px: float) -> np.ndarray:
    """Read the raw pixels at 0.5 um about one place, as `iterate_raw_crops` does for many.

    Returns
    -------
    ndarray of float32, shape (C, 48, 48)
    """
    side = crop_side(known_pixel_size(slide))
    height, width = slide.shape[-2:]
    reach = side // 2 + 2
    y0, x0 = max(math.floor(y_px) - reach, 0), max(math.floor(x_px) - reach, 0)
    y1, x1 = min(math.ceil(y_px) + reach, height), min(math.ceil(x_px) + reach, width)
    pixels = slide.read(list(channels.values()), y0, y1, x0, x1).astype(np.float32)
    crop: np.ndarray = to_crop_scale(cut(pixels, y_px - y0, x_px - x0, side)[None])[0]
    return crop


def known_pixel_size(slide: ScaledPixels) -> float:
    """Return the slide's pixel size in um, or raise SlideError: no scale, no crops of a fixed scale."""
    if slide.pixel_size_um is None:
        raise SlideError(
            str(getattr(slide, "path", "slide")), "its pixel size isn't known", "give pixel_size_um in the cohort table"
        )
    return slide.pixel_size_um


def crop_side(pixel_size_um: float) -> int:
    """Side in the slide's own pixels of a crop that is 48 pixels of 0.5 um wide."""
    if abs(pixel_size_um / UM_PER_PX - 1) <= SCALE_TOLERANCE:
        return CROP_PX
    return max(round(CROP_PX * UM_PER_PX / pixel_size_um), 1)


def cut(image: np.ndarray, y: float, x: float, side: int) -> np.ndarray:
    """Cut a square of `side` pixels about a place (y, x) on an image (C, Y, X), zero outside it."""
    top, left = math.floor(y + 0.5) - side // 2, math.floor(x + 0.5) - side // 2
    height, width = image.shape[1:]
    y0, y1 = max(top, 0), min(top + side, height)
    x0, x1 = max(left, 0), min(left + side, width)
    crop = np.zeros((image.shape[0], side, side), image.dtype)
    crop[:, y0 - top : y1 - top, x0 - left : x1 - left] = image[:, y0:y1, x0:x1]
    return crop


def to_crop_scale(crops: np.ndarray) -> np.ndarray:
    """Resample crops (n, C, side, side) to (n, C, 48, 48), averaging where pixels get larger."""
    if crops.shape[-1] == CROP_PX:
        return crops.astype(np.float32, copy=False)
    import torch

    tensor = torch.from_numpy(crops.astype(np.float32))
    return torch.nn.functional.interpolate(tensor, size=(CROP_PX, CROP_PX), mode="bilinear", antialias=True).numpy()


def crop_order(cells: pd.DataFrame) -> np.ndarray:
    """Rows of a table of cells by absolute block (row, column), each in the order of cell ids.

    Parameters
    ----------
    cells : DataFrame
        With `cell_id`, `y_px`, `x_px`.

    Returns
    -------
    intp ndarray, shape (n,)
        Positions of rows; the order in which `iterate_crops` yields them.
    """
    row, column = (cells[name].to_numpy() // BLOCK_PX for name in ("y_px", "x_px"))
    return np.lexsort((cells["cell_id"].to_numpy(), column, row))


def _blocks(cells: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Cells by absolute block, in the order of `crop_order`."""
    table = cells[["cell_id", "y_px", "x_px"]].iloc[crop_order(cells)]
    for _, block in table.groupby([table["y_px"] // BLOCK_PX, table["x_px"] // BLOCK_PX], sort=False):
        yield block


def _bounds(block: pd.DataFrame, side: int, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the smallest window (y0, y1, x0, x1) inside the slide that holds every crop of a block."""
    height, width = shape[-2:]
    margin = side // 2 + 2
    return (
        max(math.floor(block["y_px"].min()) - margin, 0),
        min(math.ceil(block["y_px"].max()) + margin, height),
        max(math.floor(block["x_px"].min()) - margin, 0),
        min(math.ceil(block["x_px"].max()) + margin, width),
    )


def _role_snr(
    slide: ScaledPixels,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    bounds: tuple[int, int, int, int],
) -> np.ndarray:
    level, noise = background.window(*bounds)
    snr = np.zeros((len(ROLES), *level.shape[1:]), np.float32)
    for plane, role in enumerate(ROLES):
        channel = panel.channel(role)
        if channel is not None:
            index = panel.shorts.index(channel.short)
            pixels = slide.read([channels[channel.short]], *bounds)[0]
            snr[plane] = (pixels.astype(np.float32) - level[index]) / noise[index]
    return snr


def _stack(pending: list[tuple[int, np.ndarray, np.ndarray]], present: np.ndarray) -> CropBatch:
    return CropBatch(
        cell_ids=np.array([cell_id for cell_id, _, _ in pending], np.int64),
        roles=to_crop_scale(np.stack([roles for _, roles, _ in pending])),
        present=present,
        masks=to_crop_scale(np.stack([masks for _, _, masks in pending])),
    )


def _ids(pending: list[tuple[int, np.ndarray]]) -> np.ndarray:
    return np.array([cell_id for cell_id, _ in pending], np.int64)
