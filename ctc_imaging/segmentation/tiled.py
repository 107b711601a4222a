"""Segmentation tile by tile, equal to untiled to the pixel.

Who owns an object at a seam: the tile whose core holds the first pixel of its nucleus in reading
order (top row, then left). A tile sees a halo around its core, widened until every clump that
could matter to an object it owns lies wholly inside; so the outcome depends on the pixels only,
never on the tile size. What stays longer than any clump of cells is left out everywhere, and reported.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.errors import SegmentationError
from ctc_imaging.features import CellPixels, measure_cells
from ctc_imaging.panel import Panel, Role
from ctc_imaging.segmentation import cells, nuclei
from ctc_imaging.segmentation.background import Background, PixelSource

HALO_UM = 40.0

MapTiles = Callable[[Callable[["Box"], "TileCells"], Sequence["Box"]], Iterable["TileCells"]]


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels, ends excluded."""

    y0: int
    y1: int
    x0: int
    x1: int

    def grown(self, by_px: int, height: int, width: int) -> Box:
        """Return the box widened on all sides, clipped to the slide."""
        return Box(
            max(self.y0 - by_px, 0), min(self.y1 + by_px, height), max(self.x0 - by_px, 0), min(self.x1 + by_px, width)
        )

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Return the slices that cut this box out of an array covering `outer`."""
        return slice(self.y0 - outer.y0, self.y1 - outer.y0), slice(self.x0 - outer.x0, self.x1 - outer.x0)


def tile_cores(height: int, width: int, tile_px: int) -> Iterator[Box]:
    """Yield the cores that part a slide without gap or overlap, in reading order."""
    for y0 in range(0, height, tile_px):
        for x0 in range(0, width, tile_px):
            yield Box(y0, min(y0 + tile_px, height), x0, min(x0 + tile_px, width))


def segment_slide(
    slide: PixelSource,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    labels: Any,
    pixel_size_um: float,
    tile_px: int = 2048,
    map_tiles: MapTiles = map,
) -> pd.DataFrame:
    """Segment and measure all cells of a slide.

    Parameters
    ----------
    slide : Slide
    channels : mapping of str to int
        Short name to channel index, in panel order.
    panel : Panel
    background : Background
    labels : array-like of uint32, shape (2, Y, X)
        Zeros, of numpy or zarr; filled with cells (first plane) and nuclei (second), labelled by ``cell_id``.
    pixel_size_um : float
    tile_px : int
        Side of a tile's core; changes memory and speed, never the result.
    map_tiles : callable
        Calls a function on each tile, as the builtin `map` does, here or in other processes; then the slide,
        the panel and the background must be picklable.

    Returns
    -------
    DataFrame
        One row a cell (see `measure_cells`), sorted by ``cell_id``, which counts from 1 in the
        reading order of the nuclei's first pixels. ``attrs["oversized_um2"]`` is the stained area left out.
    """
    _, height, width = slide.shape
    if height * width >= np.iinfo(np.uint32).max:
        raise SegmentationError("slide", f"{height} x {width} px is more than labels can number", "scan it in parts")
    segment = partial(segment_tile, slide, channels, panel, background, pixel_size_um)
    tables, anchors, oversized_px = [], [], 0
    for tile in map_tiles(segment, list(tile_cores(height, width, tile_px))):
        _paint(labels, tile)
        tables.append(tile.columns)
        anchors.append(tile.anchors)
        oversized_px += tile.oversized_px
    found = np.concatenate(anchors)
    order = np.argsort(found)
    _number(labels, found[order], tile_px)
    table = _joined(tables, order)
    table.attrs["oversized_um2"] = oversized_px * pixel_size_um**2
    return table


@dataclass(frozen=True)
class TileCells:
    """The cells that one tile owns, small enough to send; the labels are compressed when pickled.

    Attributes
    ----------
    columns : dict of str to ndarray, shape (n,)
        See `measure_cells`.
    anchors : int64 ndarray, shape (n,)
        1 + the position of each nucleus's first pixel in the slide's reading order, ascending.
    corner_px : tuple of int
        Slide coordinates (y, x) of the labels' first pixel.
    labels : unsigned ndarray, shape (2, h, w)
        Cells and nuclei, 1..n in the order of the anchors, in the smallest box that holds them.
    oversized_px : int
        Pixels of oversized clumps in the tile's core.
    """

    columns: dict[str, np.ndarray]
    anchors: np.ndarray
    corner_px: tuple[int, int]
    labels: np.ndarray
    oversized_px: int

    def __getstate__(self) -> dict[str, Any]:
        packed = zlib.compress(self.labels.tobytes(), 1), self.labels.dtype, self.labels.shape
        return {**self.__dict__, "labels": packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        packed, dtype, shape = state["labels"]
        labels = np.frombuffer(zlib.decompress(packed), dtype).reshape(shape)
        self.__dict__.update(state, labels=labels)


def segment_tile(
    slide: PixelSource,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    pixel_size_um: float,
    core: Box,
) -> TileCells:
    """Segment and measure the cells that one tile owns; depends on nothing but the slide's pixels.

    Parameters
    ----------
    slide, channels, panel, background, pixel_size_um
        As for `segment_slide`.
    core : Box
        The tile's part of the slide.

    Returns
    -------
    TileCells
    """
    tile = _see(slide, channels, panel, background, core, pixel_size_um)
    view = tile.own(slide.shape[1:])
    table = measure_cells(view, panel, pixel_size_um)
    # Copies, lest one column hold all others in memory.
    columns = {str(name): table[name].to_numpy(copy=True) for name in table}
    return TileCells(columns, tile.anchors, *_cut_out(view, len(tile.anchors)), tile.oversized_px)


@dataclass(frozen=True)
class Tile:
    """What a tile sees, and which of it it owns.

    Attributes
    ----------
    window : Box
        The core with its halo.
    above, signal : float32 ndarray, shape (C, h, w)
        The window over background in the slide's units, and in units of its noise.
    nuclei, cells : int32 ndarray, shape (h, w)
    owned : int ndarray
        Labels of the nuclei whose first pixel lies in the core, in reading order.
    anchors : int64 ndarray
        1 + the position of each owned nucleus's first pixel in the slide's reading order.
    oversized_px : int
        Pixels of oversized clumps in the core.
    """

    window: Box
    above: np.ndarray
    signal: np.ndarray
    nuclei: np.ndarray
    cells: np.ndarray
    owned: np.ndarray
    anchors: np.ndarray
    oversized_px: int

    def own(self, slide_px: tuple[int, int]) -> CellPixels:
        """Return the owned cells alone, renumbered 1..n in the order of `owned`."""
        lookup = np.zeros(int(self.nuclei.max(initial=0)) + 1, np.int32)
        lookup[self.owned] = np.arange(1, len(self.owned) + 1)
        return CellPixels(
            cells=lookup[self.cells],
            nuclei=lookup[self.nuclei],
            above=self.above,
            signal=self.signal,
            origin_px=(self.window.y0, self.window.x0),
            slide_px=slide_px,
        )


def _see(
    slide: PixelSource,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    core: Box,
    pixel_size_um: float,
) -> Tile:
    """Segment a tile, its halo widened until no clump that matters is cut."""
    _, height, width = slide.shape
    nucleus = next(index for index, channel in enumerate(panel.channels) if channel.role == Role.NUCLEUS)
    reach_px = cells.support_px(pixel_size_um)
    halo_px = int(np.ceil(HALO_UM / pixel_size_um))
    while True:
        trusted = core.grown(halo_px, height, width)
        window = trusted.grown(nuclei.support_px(pixel_size_um), height, width)
        pixels = slide.read(list(channels.values()), window.y0, window.y1, window.x0, window.x1)
        level, noise = background.window(window.y0, window.y1, window.x0, window.x1)
        above = pixels.astype(np.float32) - level
        signal = above / noise
        found = nuclei.find_nuclei(signal[nucleus], pixel_size_um, trusted=trusted.within(window))
        owned, anchors = _owned(found.labels, core, window, width)
        zone = _zone(np.isin(found.labels, owned), core, window).grown(reach_px, height, width)
        cut = _cut(found.clumps, trusted, window, height, width)
        if not np.isin(found.clumps[zone.within(window)], cut).any():
            break
        halo_px *= 2
    outlines = cells.find_cells(found.labels, np.delete(signal, nucleus, axis=0), pixel_size_um)
    lost_px = int(found.oversized[core.within(window)].sum())
    return Tile(window, above, signal, found.labels, outlines, owned, anchors, lost_px)


def _owned(labels: np.ndarray, core: Box, window: Box, slide_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels whose first pixel lies in the core, and 1 + that pixel's position in the slide."""
    pixels = np.flatnonzero(labels)
    first = np.zeros(int(labels.max(initial=0)) + 1, np.intp)
    # Backwards, so that the first pixel of each label is what stays.
    first[labels.ravel()[pixels[::-1]]] = pixels[::-1]
    values = np.flatnonzero(np.bincount(labels.ravel()[pixels], minlength=len(first)))
    rows, columns = np.divmod(first[values], labels.shape[1])
    y, x = rows + window.y0, columns + window.x0
    inside = (values > 0) & (y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1)
    anchors = y[inside].astype(np.int64) * slide_width + x[inside] + 1
    order = np.argsort(anchors)
    return values[inside][order], anchors[order]


def _extent(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the smallest box around a mask, empty where nothing is set."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _zone(mask: np.ndarray, core: Box, window: Box) -> Box:
    """Return the smallest box around the core and a mask of the window."""
    rows, columns = _extent(mask)
    if rows.stop == 0:
        return core
    return Box(
        min(core.y0, window.y0 + rows.start),
        max(core.y1, window.y0 + rows.stop),
        min(core.x0, window.x0 + columns.start),
        max(core.x1, window.x0 + columns.stop),
    )


def _cut(clumps: np.ndarray, trusted: Box, window: Box, height: int, width: int) -> np.ndarray:
    """Clumps on a border of the trusted box that isn't the slide's own edge: they may go on beyond it."""
    inner = clumps[trusted.within(window)]
    borders = [
        border
        for border, goes_on in (
            (inner[0], trusted.y0 > 0),
            (inner[-1], trusted.y1 < height),
            (inner[:, 0], trusted.x0 > 0),
            (inner[:, -1], trusted.x1 < width),
        )
        if goes_on
    ]
    found = np.unique(np.concatenate(borders)) if borders else np.array([], clumps.dtype)
    return found[found > 0]


def _cut_out(view: CellPixels, count: int) -> tuple[tuple[int, int], np.ndarray]:
    """Corner and labels of the smallest box that holds a window's cells 1..count."""
    box = _extent(view.cells > 0)
    planes = np.stack([view.cells[box], view.nuclei[box]]).astype(np.min_scalar_type(count))
    return (view.origin_px[0] + box[0].start, view.origin_px[1] + box[1].start), planes


def _paint(labels: Any, tile: TileCells) -> None:
    """Write a tile's cells into the slide's label planes, as their anchors."""
    lookup = np.concatenate([[0], tile.anchors]).astype(np.uint32)
    _, height, width = tile.labels.shape
    y0, x0 = tile.corner_px
    for plane, source in enumerate(tile.labels if tile.labels.size else ()):
        place = (plane, slice(y0, y0 + height), slice(x0, x0 + width))
        labels[place] = np.where(source > 0, lookup[source], np.asarray(labels[place]))


def _number(labels: Any, anchors: np.ndarray, block_px: int) -> None:
    """Replace anchors by consecutive ``cell_id``, block by block."""
    _, height, width = labels.shape
    for box in tile_cores(height, width, block_px):
        for plane in (0, 1):
            place = (plane, slice(box.y0, box.y1), slice(box.x0, box.x1))
            block = np.array(labels[place])
            filled = block > 0
            if filled.any():
                block[filled] = np.searchsorted(anchors, block[filled]) + 1
                labels[place] = block


def _joined(tables: list[dict[str, np.ndarray]], order: np.ndarray) -> pd.DataFrame:
    """Join the columns of all tiles, taking them out of `tables` one by one: a slide may have a million cells."""
    columns = {"cell_id": np.arange(1, len(order) + 1, dtype=np.int64)}
    for name in list(tables[0]):
        columns[name] = np.concatenate([table.pop(name) for table in tables])[order]
    return pd.DataFrame(columns, copy=False)
