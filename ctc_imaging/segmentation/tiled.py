"""Segmentation tile by tile, equal to untiled to the pixel.

Who owns an object at a seam: the tile whose core holds the first pixel of its nucleus in reading
order (top row, then left). A tile sees a halo around its core, widened until every clump that
could matter to an object it owns lies wholly inside; so the outcome depends on the pixels only,
never on the tile size. What stays longer than any clump of cells is left out everywhere, and reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.errors import SegmentationError
from ctc_imaging.features import CellPixels, measure_cells
from ctc_imaging.panel import Panel, Role
from ctc_imaging.segmentation import cells, nuclei
from ctc_imaging.segmentation.background import Background, PixelSource

HALO_UM = 40.0


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

    Returns
    -------
    DataFrame
        One row a cell (see `measure_cells`), sorted by ``cell_id``, which counts from 1 in the
        reading order of the nuclei's first pixels. ``attrs["oversized_um2"]`` is the stained area left out.
    """
    _, height, width = slide.shape
    if height * width >= np.iinfo(np.uint32).max:
        raise SegmentationError("slide", f"{height} x {width} px is more than labels can number", "scan it in parts")
    tables = []
    oversized_px = 0
    for core in tile_cores(height, width, tile_px):
        tile = _see(slide, channels, panel, background, core, pixel_size_um)
        oversized_px += tile.oversized_px
        cells_here = tile.own(slide.shape[1:])
        _paint(labels, cells_here, tile.anchors)
        table = measure_cells(cells_here, panel, pixel_size_um)
        tables.append(table.assign(anchor=tile.anchors))
    table = pd.concat(tables, ignore_index=True).sort_values("anchor", ignore_index=True)
    _number(labels, table["anchor"].to_numpy(), tile_px)
    table.insert(0, "cell_id", np.arange(1, len(table) + 1, dtype=np.int64))
    table.attrs["oversized_um2"] = oversized_px * pixel_size_um**2
    return table.drop(columns="anchor")


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
        zone = _extent(np.isin(found.labels, owned), core, window).grown(reach_px, height, width)
        cut = _cut(found.clumps, trusted, window, height, width)
        if not np.isin(found.clumps[zone.within(window)], cut).any():
            break
        halo_px *= 2
    outlines = cells.find_cells(found.labels, np.delete(signal, nucleus, axis=0), pixel_size_um)
    lost_px = int(found.oversized[core.within(window)].sum())
    return Tile(window, above, signal, found.labels, outlines, owned, anchors, lost_px)


def _owned(labels: np.ndarray, core: Box, window: Box, slide_width: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels whose first pixel lies in the core, and 1 + that pixel's position in the slide."""
    values, first = np.unique(labels, return_index=True)
    rows, columns = np.divmod(first, labels.shape[1])
    y, x = rows + window.y0, columns + window.x0
    inside = (values > 0) & (y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1)
    anchors = y[inside].astype(np.int64) * slide_width + x[inside] + 1
    order = np.argsort(anchors)
    return values[inside][order], anchors[order]


def _extent(mask: np.ndarray, core: Box, window: Box) -> Box:
    """Return the smallest box around the core and a mask of the window."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return core
    return Box(
        min(core.y0, window.y0 + int(rows[0])),
        max(core.y1, window.y0 + int(rows[-1]) + 1),
        min(core.x0, window.x0 + int(columns[0])),
        max(core.x1, window.x0 + int(columns[-1]) + 1),
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


def _paint(labels: Any, view: CellPixels, anchors: np.ndarray) -> None:
    """Write the cells 1..n of a window into the slide's label planes, as their anchors."""
    lookup = np.concatenate([[0], anchors]).astype(np.uint32)
    rows, columns = np.flatnonzero(view.cells.any(axis=1)), np.flatnonzero(view.cells.any(axis=0))
    if not len(rows):
        return
    tight = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    y0, x0 = view.origin_px
    place = slice(y0 + rows[0], y0 + rows[-1] + 1), slice(x0 + columns[0], x0 + columns[-1] + 1)
    for plane, source in enumerate((view.cells, view.nuclei)):
        painted = lookup[source[tight]]
        there = np.asarray(labels[(plane, *place)])
        labels[(plane, *place)] = np.where(painted > 0, painted, there)


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
