"""Outlines that wait on disk until all cells of a slide are numbered, and are then painted square by square."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np

from ctc_imaging.outlines import paint_runs
from ctc_imaging.segmentation.grid import Box, Grid, tile_cores

Outlines = tuple[np.ndarray, np.ndarray]
"""Runs of a tile's cells and of their nuclei, in working pixels of the slide."""

SQUARE_PX = 2048
"""Side of what is painted at a time: whole chunks of the label image, so that each is encoded once."""


class Spool:
    """Outlines of tiles, on disk.

    Parameters
    ----------
    file : binary file
        Empty; read and written.
    grid : Grid
        Of the slide.
    """

    def __init__(self, file: IO[bytes], grid: Grid) -> None:
        self._file, self._grid = file, grid
        self._places: list[tuple[int, Box | None]] = []

    def add(self, outlines: Outlines) -> None:
        """Put the outlines of the next tile away."""
        self._places.append((self._file.tell(), _reach(outlines, self._grid)))
        pickle.dump(outlines, self._file, pickle.HIGHEST_PROTOCOL)

    def paint(self, labels: Any, ids: Sequence[np.ndarray]) -> None:
        """Write all cells and nuclei into the slide's label planes.

        Parameters
        ----------
        labels : array-like of uint32, shape (2, Y, X)
            Zeros, of numpy or zarr.
        ids : sequence of int ndarray
            For each tile, in the order they were added, what its labels 1, 2, ... are called on the slide.
        """
        values = [np.concatenate([[0], own]).astype(np.uint32) for own in ids]
        for square in tile_cores(*self._grid.slide_px, SQUARE_PX):
            met = [tile for tile, (_, reach) in enumerate(self._places) if reach is not None and reach.meets(square)]
            if not met:
                continue
            native = np.zeros((2, square.y1 - square.y0, square.x1 - square.x0), np.uint32)
            for tile in met:
                for plane, runs in zip(native, self._outlines(tile), strict=True):
                    paint_runs(plane, runs, values[tile], (square.y0, square.x0), self._grid.factor)
            labels[:, square.y0 : square.y1, square.x0 : square.x1] = native

    def _outlines(self, tile: int) -> Outlines:
        self._file.seek(self._places[tile][0])
        outlines: Outlines = pickle.load(self._file)
        return outlines


@contextmanager
def spooled(grid: Grid) -> Iterator[Spool]:
    """Have a spool for the length of a block."""
    with TemporaryFile() as file:
        yield Spool(file, grid)


def _reach(outlines: Outlines, grid: Grid) -> Box | None:
    """Return the box of native pixels that holds all outlines; None where there are none."""
    runs = np.concatenate(outlines)
    if not len(runs):
        return None
    f = grid.factor
    return Box(
        int(runs[:, 1].min()) * f, int(runs[:, 1].max() + 1) * f, int(runs[:, 2].min()) * f, int(runs[:, 3].max()) * f
    )
