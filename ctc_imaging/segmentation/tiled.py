"""Segmentation tile by tile, equal to untiled to the pixel.

First the nuclei of the whole slide, each found by the tile that owns it; then the cells, by tiles that know
all nuclei around them. Who owns an object at a seam: the tile whose core holds the first pixel of its nucleus
(of the object itself, where it has none) in reading order. A tile sees a halo around its core, wide enough
that whatever could matter to an object it owns lies wholly inside, given that no nucleus is longer than
`MAX_LENGTH_UM`; one that is, is left out whatever tile sees it, and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.errors import SegmentationError
from ctc_imaging.features import CellPixels, measure_cells
from ctc_imaging.outlines import find_runs, first_runs, relabelled
from ctc_imaging.panel import Panel, Role
from ctc_imaging.segmentation import cells
from ctc_imaging.segmentation.background import Background, PixelSource
from ctc_imaging.segmentation.grid import Box, Grid
from ctc_imaging.segmentation.model import load_finder
from ctc_imaging.segmentation.nuclei import TileNuclei, find_tile_nuclei, paint_nuclei
from ctc_imaging.segmentation.oversized import MAX_LENGTH_UM, unresolved
from ctc_imaging.segmentation.spool import spooled

MapTiles = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
Work = tuple[Box, tuple[TileNuclei, ...]]
"""What one tile needs: its core, and the nuclei of all tiles around."""


def segment_slide(
    slide: PixelSource,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    labels: Any,
    pixel_size_um: float,
    tile_px: int = 2048,
    map_tiles: MapTiles = map,
    finder: str = "nuclei",
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
        Side of a tile's core on the working grid; changes memory and speed, never the result.
    map_tiles : callable
        Calls a function on each tile, as the builtin `map` does, here or in other processes; then the slide,
        the panel and the background must be picklable.
    finder : str
        A nucleus model's name, or ``classical``.

    Returns
    -------
    DataFrame
        One row a cell (see `measure_cells`), sorted by ``cell_id``, which counts from 1 in the
        reading order of the nuclei's first pixels (the cells', where there is no nucleus).
        ``attrs["oversized_um2"]`` is the stained area in which no cells were told apart, too long for one.

    Raises
    ------
    SegmentationError
        If the slide has more pixels than labels can number.
    ModelError
        If there is no such finder.
    """
    _, height, width = slide.shape
    if height * width >= np.iinfo(np.uint32).max:
        raise SegmentationError("slide", f"{height} x {width} px is more than labels can number", "scan it in parts")
    load_finder(finder)
    grid = Grid.of((height, width), pixel_size_um)
    stain = _stain(panel)
    own = Background(background.level[[stain]], background.noise[[stain]])
    find = partial(find_tile_nuclei, slide, list(channels.values())[stain], own, grid, finder)
    nuclei = list(map_tiles(find, grid.cores(tile_px)))
    segment = partial(segment_tile, slide, channels, panel, background, grid)
    # Cells are numbered when all are known; until then their outlines wait on disk, not in memory.
    with spooled(grid) as spool:
        tables, anchors, oversized_px = [], [], 0
        for tile in map_tiles(segment, works(nuclei, grid)):
            spool.add(tile.outlines)
            tables.append(tile.columns)
            anchors.append(tile.anchors)
            oversized_px += tile.oversized_px
        found = np.concatenate(anchors)
        order = np.argsort(found)
        spool.paint(labels, [np.searchsorted(found[order], its_own) + 1 for its_own in anchors])
    table = _joined(tables, order)
    table.attrs["oversized_um2"] = oversized_px * grid.working_um**2
    return table


@dataclass(frozen=True)
class TileCells:
    """The cells that one tile owns, small enough to send.

    Attributes
    ----------
    columns : dict of str to ndarray, shape (n,)
        See `measure_cells`.
    anchors : int64 ndarray, shape (n,)
        Position of each cell's first pixel (its nucleus's, where it has one) in the working grid's reading order.
    outlines : tuple of two int32 ndarray, shape (k, 4)
        Runs of the cells and of their nuclei in working pixels of the slide, labelled 1..n in the order of the anchors.
    oversized_px : int
        Pixels of the core in what is too long for a nucleus.
    """

    columns: dict[str, np.ndarray]
    anchors: np.ndarray
    outlines: tuple[np.ndarray, np.ndarray]
    oversized_px: int


def works(nuclei: Sequence[TileNuclei], grid: Grid) -> list[Work]:
    """List what each tile needs to segment its cells."""
    reaches = [tile.reach(grid) for tile in nuclei]
    return [
        (tile.core, tuple(other for other, reach in zip(nuclei, reaches, strict=True) if reach.meets(seen)))
        for tile, seen in ((tile, _seen(tile.core, grid)) for tile in nuclei)
    ]


def segment_tile(
    slide: PixelSource,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    grid: Grid,
    work: Work,
) -> TileCells:
    """Segment and measure the cells that one tile owns; depends on nothing but the slide's pixels.

    Parameters
    ----------
    slide, channels, panel, background
        As for `segment_slide`.
    grid : Grid
    work : tuple
        See `works`.

    Returns
    -------
    TileCells
    """
    core, around = work
    seen, stain = _seen(core, grid), _stain(panel)
    nuclei, left_out = paint_nuclei(around, seen)
    pixels = grid.read(slide, list(channels.values()), seen)
    above, signal = background.over(pixels, seen.y0 * grid.factor, seen.x0 * grid.factor, grid.factor)
    found = cells.find_cells(nuclei, _without(signal, stain), grid.working_um)
    runs = find_runs(found.labels), find_runs(nuclei)
    owned, anchors = _owned(*runs, core, seen, grid.shape[1])
    lookup = np.zeros(int(found.labels.max(initial=0)) + 1, np.int32)
    lookup[owned] = np.arange(1, len(owned) + 1)
    its_cells, its_nuclei = (relabelled(part, lookup) for part in runs)
    view = CellPixels(
        cells=its_cells,
        nuclei=its_nuclei,
        above=above,
        signal=signal,
        origin_px=(seen.y0, seen.x0),
        slide_px=grid.slide_px,
        factor=grid.factor,
    )
    table = measure_cells(view, panel, grid.pixel_size_um)
    # Copies, lest one column hold all others in memory.
    columns = {str(name): table[name].to_numpy(copy=True) for name in table}
    lost = unresolved(signal[stain], nuclei, grid.working_um) | left_out
    shift = np.array([0, seen.y0, seen.x0, seen.x0], np.int32)
    return TileCells(columns, anchors, (its_cells + shift, its_nuclei + shift), int(lost[core.within(seen)].sum()))


def _seen(core: Box, grid: Grid) -> Box:
    """Return the box that holds all that matters to the cells of a core."""
    return core.grown(grid.halo(grid.px(MAX_LENGTH_UM) + cells.support_px(grid.working_um)), *grid.shape)


def _stain(panel: Panel) -> int:
    """Index of the nuclear stain in the panel's order."""
    return next(index for index, channel in enumerate(panel.channels) if channel.role == Role.NUCLEUS)


def _without(planes: np.ndarray, index: int) -> np.ndarray:
    """Leave out a plane; the first one, as it mostly is, without copying the others."""
    return planes[1:] if index == 0 else np.delete(planes, index, axis=0)


def _owned(
    cell_runs: np.ndarray, nucleus_runs: np.ndarray, core: Box, seen: Box, slide_width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels whose anchor lies in the core, in the order of their anchors, and these."""
    count = int(cell_runs[:, 0].max(initial=0))
    in_cells, in_nuclei = first_runs(cell_runs, count), first_runs(nucleus_runs, count)
    present = np.flatnonzero(in_cells >= 0)
    in_cells, in_nuclei = in_cells[present], in_nuclei[present]
    first = cell_runs[in_cells]
    first[in_nuclei >= 0] = nucleus_runs[in_nuclei[in_nuclei >= 0]]
    y, x = first[:, 1].astype(np.int64) + seen.y0, first[:, 2] + seen.x0
    inside = (y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1)
    anchors = y[inside] * slide_width + x[inside]
    order = np.argsort(anchors)
    return present[inside][order] + 1, anchors[order]


def _joined(tables: list[dict[str, np.ndarray]], order: np.ndarray) -> pd.DataFrame:
    """Join the columns of all tiles, taking them out of `tables` one by one: a slide may have a million cells."""
    columns = {"cell_id": np.arange(1, len(order) + 1, dtype=np.int64)}
    for name in list(tables[0]):
        columns[name] = np.concatenate([table.pop(name) for table in tables])[order]
    return pd.DataFrame(columns, copy=False)
