"""The review queue: which cells in what order, the reader's calls, undo and redo, progress and pace; no Qt."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ctc_imaging.classification.classes import CANDIDATES, CLASSES
from ctc_imaging.classification.next_cells import is_feature, learning_order, log_odds
from ctc_imaging.errors import ConfigError, RunError
from ctc_imaging.store.ledger import Review
from ctc_imaging.store.run_folder import RunFolder
from napari_ctc.record import Call, CellKey, Record, key_of

_COLUMNS = ["cell_id", "y_um", "x_um", "call", "phenotype", "p_ctc", "p_leukocyte", "p_artefact"]
# The pace is taken over this many calls, so that it follows the reader.
_PACE_CALLS = 20
DOUBT, LEARNING = "doubt", "learning"
"""Orders of reading: for the count, and for labels to train with."""
# Cells of the order for learning that are read before the next slide's turn comes again: whoever stops after a round
# has read those that teach most, and turns to each slide once.
_ROUND = 100


class Cell(NamedTuple):
    """A cell of the queue with what the model says of it."""

    slide_id: str
    cell_id: int
    y_um: float
    x_um: float
    call: str
    phenotype: str
    p_ctc: float
    p_leukocyte: float
    p_artefact: float

    @property
    def key(self) -> CellKey:
        """Slide and cell."""
        return self.slide_id, self.cell_id

    @property
    def machine(self) -> Call:
        """The model's call."""
        return Call(self.call, self.phenotype)

    @property
    def probabilities(self) -> dict[str, float]:
        """The model's probability of each class."""
        return dict(zip(CLASSES, (self.p_ctc, self.p_leukocyte, self.p_artefact), strict=True))


class Progress(NamedTuple):
    """How far the reader has come; `per_minute` is None before the second call."""

    candidates_read: int
    candidates: int
    read: int
    total: int
    per_minute: float | None


class ReviewQueue:
    """A reader's way through the cells of a run.

    Candidates come before all other cells. Within each of the two the order goes slide by slide, as
    changing the slide costs a reader more than a cell out of order; and on a slide from the cell the
    model doubts most. A blinded reader gets slides and cells in an order of chance, the same each time.
    In the order for learning candidates, and then the rest, come in rounds of a hundred, those first that a model
    would learn most from (see `learning_order`).

    Parameters
    ----------
    run : RunFolder
    reader : str
    blinded : bool
    order : {"doubt", "learning"}

    Raises
    ------
    ConfigError
        If there is no such order.
    RunError
        If the folder is no run, there is no cell to read, or the reader has no name.
    """

    def __init__(self, run: RunFolder, reader: str, blinded: bool = False, order: str = DOUBT) -> None:
        if order not in (DOUBT, LEARNING):
            raise ConfigError("--order", f"no order is called {order!r}", f"use {DOUBT} or {LEARNING}")
        self.run = run
        self.blinded = blinded
        self.record = Record(run, reader)
        slides = self.record.slides
        seed = _seed(run.read()["hash"], self.record.reader) if blinded else None
        table = order_cells(_read_cells(run, slides, order), slides, seed, order)
        if table.empty:
            raise RunError(run.path, "there is no cell to review", "finish the run, and look at its report")
        self._cells = [Cell(*row) for row in table[list(Cell._fields)].itertuples(index=False, name=None)]
        self._place = {cell.key: place for place, cell in enumerate(self._cells)}
        self._candidates = {cell.key for cell in self._cells if cell.call in CANDIDATES}
        self._slide_numbers = {slide_id: n for n, slide_id in enumerate(dict.fromkeys(table["slide_id"]), start=1)}
        self._moments: deque[float] = deque(maxlen=_PACE_CALLS)
        self.position = self._first_unread(0)

    def __len__(self) -> int:
        """How many cells there are."""
        return len(self._cells)

    @property
    def current(self) -> Cell:
        """The cell to be called."""
        return self._cells[self.position]

    @property
    def current_call(self) -> Call | None:
        """What the reader has said of it, or None."""
        return self.record.history.call(self.current.key)

    @property
    def slide_name(self) -> str:
        """The current slide's id; for a blinded reader a number, as an id may tell patient and visit."""
        if not self.blinded:
            return self.current.slide_id
        return f"slide {self._slide_numbers[self.current.slide_id]} of {len(self._slide_numbers)}"

    @property
    def progress(self) -> Progress:
        """How far the reader has come."""
        called = self.record.history.called()
        read = len(called & self._candidates)
        return Progress(read, len(self._candidates), len(called), len(self), self._pace())

    def step(self, by: int) -> None:
        """Go forward, or back where `by` is negative, as far as there are cells."""
        self.position = min(max(self.position + by, 0), len(self) - 1)

    def call(self, call: str, phenotype: str = "") -> Review:
        """Record a call of the current cell and go to the next one not called yet.

        Parameters
        ----------
        call : str
        phenotype : str
            Of a ctc; "" leaves it to the model.

        Returns
        -------
        Review
            The row as it stands in the ledger.

        Raises
        ------
        RunError
            If it couldn't be written; the queue then stays where it is.
        """
        cell = self.current
        row = self.record.say(cell.key, Call(call, phenotype), cell.machine)
        self._moments.append(time.monotonic())
        self.position = self._first_unread(self.position)
        return row

    def undo(self) -> Review | None:
        """Take the reader's latest call back and go to its cell; None where there is none."""
        return self._back_to(self.record.history.last, self.record.undo)

    def redo(self) -> Review | None:
        """Give the call again that was taken back last and go to its cell; None where there is none."""
        return self._back_to(self.record.history.last_undone, self.record.redo)

    def _back_to(self, row: Review | None, act: Callable[[Call], Review | None]) -> Review | None:
        if row is None:
            return None
        place = self._place[key_of(row)]
        added = act(self._cells[place].machine)
        self.position = place
        return added

    def _first_unread(self, start: int) -> int:
        """The first cell not called yet from `start` on, else from the beginning, else `start` itself."""
        order = chain(range(start, len(self)), range(start))
        return next((place for place in order if self.record.history.call(self._cells[place].key) is None), start)

    def _pace(self) -> float | None:
        if len(self._moments) < 2:
            return None
        return 60 * (len(self._moments) - 1) / max(self._moments[-1] - self._moments[0], 1e-3)


def order_cells(
    cells: pd.DataFrame, slides: Sequence[str], seed: int | None = None, order: str = DOUBT
) -> pd.DataFrame:
    """Put cells in the order of reading.

    Parameters
    ----------
    cells : DataFrame
        With `slide_id`, `cell_id`, `call` and `p_ctc`; for learning with all probabilities and features.
    slides : sequence of str
        The slides in their order.
    seed : int, optional
        With it the order of slides, and of cells within each, is one of chance; candidates still come first, and
        rounds stay what they are.
    order : {"doubt", "learning"}

    Returns
    -------
    DataFrame
    """
    slides = list(slides)
    rest = ~cells["call"].isin(CANDIDATES).to_numpy()
    rank = doubt(cells) if order == DOUBT else _learning_rank(cells, rest)
    turn = rank // _ROUND if order == LEARNING else np.zeros(len(cells))
    if seed is not None:
        random = np.random.default_rng(seed)
        random.shuffle(slides)
        rank = random.random(len(cells))
    place = cells["slide_id"].map({slide_id: place for place, slide_id in enumerate(slides)})
    keys = pd.DataFrame({"rest": rest, "turn": turn, "slide": place, "rank": rank, "cell_id": cells["cell_id"]})
    return cells.loc[keys.sort_values(list(keys.columns), kind="stable").index].reset_index(drop=True)


def _learning_rank(cells: pd.DataFrame, rest: np.ndarray) -> np.ndarray:
    """Place of each cell among the candidates, or among the rest, when ordered for learning."""
    rank = np.empty(len(cells), np.int64)
    rank[learning_order(cells, first=~rest)] = np.arange(len(cells))
    return rank - np.where(rest, np.count_nonzero(~rest), 0)


def doubt(cells: pd.DataFrame) -> np.ndarray:
    """How far each cell is from where the model tells CTCs from the rest, 0 where it can't tell at all.

    That place is the lowest `p_ctc` that was still called CTC, or 0.5 where none was; the distance is one
    of log odds, in which 0.98 and 0.999 are as far apart as they are for the model.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    called = cells.loc[cells["call"] == "ctc", "p_ctc"]
    boundary = float(called.min()) if len(called) else 0.5
    return np.abs(log_odds(cells["p_ctc"].to_numpy(np.float64)) - log_odds(np.float64(boundary)))


def _read_cells(run: RunFolder, slides: Sequence[str], order: str) -> pd.DataFrame:
    tables = [
        _read_table(run.slide(slide_id) / "cells.parquet", order).assign(slide_id=slide_id) for slide_id in slides
    ]
    tables = [table for table in tables if len(table)] or [pd.DataFrame(columns=[*_COLUMNS, "slide_id"])]
    return pd.concat(tables, ignore_index=True)


def _read_table(path: Path, order: str) -> pd.DataFrame:
    if order == DOUBT:
        return pd.read_parquet(path, columns=_COLUMNS)
    table = pd.read_parquet(path)
    return table[[*_COLUMNS, *(name for name in table if is_feature(str(name)))]]


def _seed(run_hash: str, reader: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{run_hash}/{reader}".encode()).digest()[:8], "big")
