"""Segmentation tile by tile, equal to untiled to the pixel.

All is done on the working grid: whole squares of pixels, counted from the slide's origin, so that a
working pixel is about 0.5 µm. Who owns an object at a seam: the tile whose core holds the first pixel
of its nucleus (of the object itself, where it has none) in reading order. A tile sees a halo around
its core, wide enough that whatever could matter to an object it owns lies wholly inside, given that no
nucleus is longer than `MAX_LENGTH_UM`; one that is, is left out whatever tile sees it, and reported.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.errors import SegmentationError
from ctc_imaging.features import CellPixels, measure_cells
from ctc_imaging.outlines import find_runs, first_runs, paint_runs, relabelled
from ctc_imaging.panel import Panel, Role
from ctc_imaging.segmentation import cells, windows
from ctc_imaging.segmentation.background import Background, PixelSource
from ctc_imaging.segmentation.dark import BLOCK_PX, stained_blocks
from ctc_imaging.segmentation.instances import MIN_DIAMETER_UM, find_instances, support_px
from ctc_imaging.segmentation.model import NucleusFinder, load_finder
from ctc_imaging.segmentation.oversized import MAX_LENGTH_UM, drop_long, unresolved

WORKING_UM = 0.5
STEP_UM = MAX_LENGTH_UM / 2
"""A nucleus's pixels are at most this far from its centre, in rows and in columns."""

ALIGNMENT_PX = 16
"""Corners of tiles and halos are multiples of this, on the working grid."""

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


@dataclass(frozen=True)
class Grid:
    """The working grid of a slide.

    Attributes
    ----------
    factor : int
        Native pixels along a side of a working pixel.
    pixel_size_um : float
        Of a native pixel.
    slide_px : tuple of int
        Native height and width.
    """

    factor: int
    pixel_size_um: float
    slide_px: tuple[int, int]

    @classmethod
    def of(cls, slide_px: tuple[int, int], pixel_size_um: float) -> Grid:
        """Choose the working grid of a slide."""
        return cls(max(1, round(WORKING_UM / pixel_size_um)), pixel_size_um, slide_px)

    @property
    def working_um(self) -> float:
        """Side of a working pixel."""
        return self.factor * self.pixel_size_um

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in working pixels; the last ones may be cut by the slide's edge."""
        return -(-self.slide_px[0] // self.factor), -(-self.slide_px[1] // self.factor)

    def px(self, length_um: float) -> int:
        """Turn a length into working pixels, rounded up."""
        return int(np.ceil(length_um / self.working_um))

    def halo(self, length_px: int) -> int:
        """Round a halo up to the alignment of tiles."""
        return -(-length_px // ALIGNMENT_PX) * ALIGNMENT_PX

    def cores(self, tile_px: int) -> list[Box]:
        """Part the slide without gap or overlap, in reading order; sides about `tile_px` working pixels."""
        side = self.halo(tile_px)
        return list(tile_cores(*self.shape, side))

    def read(self, slide: PixelSource, channels: list[int], box: Box) -> np.ndarray:
        """Read the native pixels of a box of working pixels."""
        f, (height, width) = self.factor, self.slide_px
        return slide.read(channels, box.y0 * f, min(box.y1 * f, height), box.x0 * f, min(box.x1 * f, width))


def tile_cores(height: int, width: int, tile_px: int) -> Iterator[Box]:
    """Yield the boxes that part an image without gap or overlap, in reading order."""
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
    segment = partial(segment_tile, slide, channels, panel, background, grid, finder)
    # Cells are numbered when all are known; until then their outlines wait on disk, not in memory.
    with TemporaryFile() as spool:
        tables, anchors, oversized_px = [], [], 0
        for tile in map_tiles(segment, grid.cores(tile_px)):
            pickle.dump((tile.anchors, tile.outlines), spool, pickle.HIGHEST_PROTOCOL)
            tables.append(tile.columns)
            anchors.append(tile.anchors)
            oversized_px += tile.oversized_px
        found = np.concatenate(anchors)
        order = np.argsort(found)
        spool.seek(0)
        for _ in tables:
            its_anchors, outlines = pickle.load(spool)
            _paint(labels, outlines, np.searchsorted(found[order], its_anchors) + 1, grid)
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


def segment_tile(
    slide: PixelSource,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    grid: Grid,
    finder: str,
    core: Box,
) -> TileCells:
    """Segment and measure the cells that one tile owns; depends on nothing but the slide's pixels.

    Parameters
    ----------
    slide, channels, panel, background, finder
        As for `segment_slide`.
    grid : Grid
    core : Box
        The tile's part of the working grid.

    Returns
    -------
    TileCells
    """
    stain = next(index for index, channel in enumerate(panel.channels) if channel.role == Role.NUCLEUS)
    indices = list(channels.values())
    seen = core.grown(grid.halo(grid.px(MAX_LENGTH_UM) + cells.support_px(grid.working_um)), *grid.shape)
    nuclei, oversized = _nuclei(slide, indices[stain], stain, background, grid, load_finder(finder), core, seen)
    above, signal = background.over(
        grid.read(slide, indices, seen), seen.y0 * grid.factor, seen.x0 * grid.factor, grid.factor
    )
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
    lost = unresolved(signal[stain], nuclei, grid.working_um) | oversized
    shift = np.array([0, seen.y0, seen.x0, seen.x0], np.int32)
    return TileCells(columns, anchors, (its_cells + shift, its_nuclei + shift), int(lost[core.within(seen)].sum()))


def _without(planes: np.ndarray, index: int) -> np.ndarray:
    """Leave out a plane; the first one, as it mostly is, without copying the others."""
    return planes[1:] if index == 0 else np.delete(planes, index, axis=0)


def _nuclei(
    slide: PixelSource,
    channel: int,
    stain: int,
    background: Background,
    grid: Grid,
    finder: NucleusFinder,
    core: Box,
    seen: Box,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nuclei that matter to a core within a box, each as it is in the whole slide.

    Those are the nuclei that touch the core, and all within reach of their cells. In small regions they are found
    with their whole region, which reaches no farther than `windows.LARGEST_PX`; large regions are looked at
    all over the box.

    Returns labels (int32) and a mask of what was left out for its length.
    """
    step_px, longest_px = grid.px(STEP_UM), grid.px(MAX_LENGTH_UM)
    far_px = max(windows.LARGEST_PX, longest_px) + grid.px(2 * cells.REACH_UM) + BLOCK_PX
    near = core.grown(grid.halo(far_px), *grid.shape)
    zone = seen.grown(grid.halo(longest_px + support_px(step_px)), *grid.shape)
    # A region that reaches from the zone to the window's border is too long for a window of its own.
    reach_px = max(windows.LARGEST_PX, windows.SLIDE_PATCHES.side_px) + windows.SLIDE_PATCHES.margin_px
    window = zone.grown(grid.halo(reach_px), *grid.shape)
    plane = grid.read(slide, [channel], window)
    corner = window.y0 * grid.factor, window.x0 * grid.factor
    signal = Background(background.level[[stain]], background.noise[[stain]]).over(plane, *corner, grid.factor)[1][0]
    regions = windows.find_regions(stained_blocks(signal, grid.working_um))
    wanted = windows.touching(regions, near.within(window))
    wanted |= regions.large & windows.touching(regions, zone.within(window))
    maps = windows.look(finder, signal, regions, wanted, zone.within(window), (window.y0, window.x0), grid.working_um)
    labels = find_instances(maps, np.pi / 4 * (MIN_DIAMETER_UM / grid.working_um) ** 2, step_px)
    kept, oversized = drop_long(labels, longest_px)
    return kept[seen.within(window)], oversized[seen.within(window)]


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


def _paint(labels: Any, outlines: tuple[np.ndarray, np.ndarray], ids: np.ndarray, grid: Grid) -> None:
    """Write a tile's cells and nuclei into the slide's label planes, as their ids."""
    values = np.concatenate([[0], ids]).astype(np.uint32)
    f, (height, width) = grid.factor, grid.slide_px
    for plane, runs in enumerate(outlines):
        if not len(runs):
            continue
        top, left = int(runs[0, 1]) * f, int(runs[:, 2].min()) * f
        bottom, right = min(int(runs[-1, 1] + 1) * f, height), min(int(runs[:, 3].max()) * f, width)
        place = (plane, slice(top, bottom), slice(left, right))
        native = np.array(labels[place], np.uint32)
        paint_runs(native, runs, values, (top, left), f)
        labels[place] = native


def _joined(tables: list[dict[str, np.ndarray]], order: np.ndarray) -> pd.DataFrame:
    """Join the columns of all tiles, taking them out of `tables` one by one: a slide may have a million cells."""
    columns = {"cell_id": np.arange(1, len(order) + 1, dtype=np.int64)}
    for name in list(tables[0]):
        columns[name] = np.concatenate([table.pop(name) for table in tables])[order]
    return pd.DataFrame(columns, copy=False)
