"""The nuclei of a tile: those whose first pixel lies in it, each as it is in the whole slide."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ctc_imaging.outlines import find_runs, first_runs, paint_runs, relabelled
from ctc_imaging.segmentation import windows
from ctc_imaging.segmentation.background import Background, PixelSource
from ctc_imaging.segmentation.dark import stained_blocks
from ctc_imaging.segmentation.grid import Box, Grid
from ctc_imaging.segmentation.instances import MIN_DIAMETER_UM, find_instances, support_px
from ctc_imaging.segmentation.model import load_finder
from ctc_imaging.segmentation.oversized import MAX_LENGTH_UM, drop_long

STEP_UM = MAX_LENGTH_UM / 2
"""A nucleus's pixels are at most this far from its centre, in rows and in columns."""


@dataclass(frozen=True)
class TileNuclei:
    """The nuclei that one tile owns, small enough to send and to keep until the last tile is done.

    Attributes
    ----------
    core : Box
        The tile's part of the working grid.
    corner_px : tuple of int
        Where the runs' coordinates count from.
    runs : unsigned ndarray, shape (k, 4)
        Of the nuclei (see `outlines`), labelled 1..n in the reading order of their first pixels.
    left_out : unsigned ndarray, shape (m, 4)
        Of the core's pixels in what is too long for a nucleus.
    """

    core: Box
    corner_px: tuple[int, int]
    runs: np.ndarray
    left_out: np.ndarray

    @property
    def count(self) -> int:
        """Number of nuclei."""
        return int(self.runs[:, 0].max(initial=0))

    def reach(self, grid: Grid) -> Box:
        """Return a box that holds all nuclei."""
        return self.core.grown(grid.px(MAX_LENGTH_UM), *grid.shape)


def find_tile_nuclei(
    slide: PixelSource, channel: int, background: Background, grid: Grid, finder: str, core: Box
) -> TileNuclei:
    """Find the nuclei that a tile owns; depends on nothing but the slide's pixels.

    Parameters
    ----------
    slide : Slide
    channel : int
        Of the nuclear stain.
    background : Background
        Of that channel alone.
    grid : Grid
    finder : str
        A nucleus model's name, or ``classical``.
    core : Box
        The tile's part of the working grid.

    Returns
    -------
    TileNuclei
    """
    step_px, longest_px = grid.px(STEP_UM), grid.px(MAX_LENGTH_UM)
    # What an owned nucleus may consist of, and what its pixels may vote for.
    zone = core.grown(grid.halo(longest_px + support_px(step_px)), *grid.shape)
    # A region that reaches from the zone to the window's border is too long for a window of its own.
    reach_px = max(windows.LARGEST_PX, windows.SLIDE_PATCHES.side_px) + windows.SLIDE_PATCHES.margin_px
    window = zone.grown(grid.halo(reach_px), *grid.shape)
    plane = grid.read(slide, [channel], window)
    signal = background.over(plane, window.y0 * grid.factor, window.x0 * grid.factor, grid.factor)[1][0]
    regions = windows.find_regions(stained_blocks(signal, grid.working_um))
    # A small region is looked at whole; of a large one, what lies in the zone.
    wanted = windows.touching(regions, core.within(window))
    wanted |= regions.large & windows.touching(regions, zone.within(window))
    maps = windows.look(
        load_finder(finder),
        signal,
        regions,
        wanted,
        zone.within(window),
        (window.y0, window.x0),
        grid.working_um,
    )[:, *zone.within(window)]
    labels = find_instances(maps, np.pi / 4 * (MIN_DIAMETER_UM / grid.working_um) ** 2, step_px)
    kept, dropped = drop_long(labels, longest_px)
    inside = core.within(zone)
    left_out = find_runs(np.pad(dropped[inside], [(side.start, 0) for side in inside]))
    return TileNuclei(core, (zone.y0, zone.x0), _small(_owned(kept, core, zone)), _small(left_out))


def paint_nuclei(tiles: Iterable[TileNuclei], box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Paint the nuclei of some tiles that lie in a box; those cut by its border are pieces.

    Returns
    -------
    nuclei : int32 ndarray, shape (h, w)
        Labels in the order of the tiles, then of their own labels.
    left_out : bool ndarray, shape (h, w)
        What is too long for a nucleus.
    """
    shape = box.y1 - box.y0, box.x1 - box.x0
    labels, left_out = np.zeros(shape, np.uint32), np.zeros(shape, np.uint32)
    count = 0
    for tile in tiles:
        corner_px = box.y0 - tile.corner_px[0], box.x0 - tile.corner_px[1]
        values = np.arange(count, count + tile.count + 1, dtype=np.uint32)
        paint_runs(labels, tile.runs.astype(np.int32), values, corner_px, 1)
        paint_runs(left_out, tile.left_out.astype(np.int32), np.array([0, 1], np.uint32), corner_px, 1)
        count += tile.count
    return labels.view(np.int32), left_out > 0


def _owned(labels: np.ndarray, core: Box, zone: Box) -> np.ndarray:
    """Runs of the nuclei whose first pixel lies in the core."""
    runs = find_runs(labels)
    count = int(runs[:, 0].max(initial=0))
    first = runs[first_runs(runs, count)]
    y, x = first[:, 1] + zone.y0, first[:, 2] + zone.x0
    inside = (y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1)
    lookup = np.zeros(count + 1, np.int32)
    lookup[1:][inside] = np.arange(1, inside.sum() + 1)
    return relabelled(runs, lookup)


def _small(runs: np.ndarray) -> np.ndarray:
    return runs.astype(np.min_scalar_type(int(runs.max(initial=0))))
