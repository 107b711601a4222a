"""The review queue: which cells are read and where the reader stands, calls, undo and redo, pace; no Qt."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import pandas as pd

from ctc_imaging.classification.classes import CANDIDATES
from ctc_imaging.errors import ConfigError, RunError
from ctc_imaging.readings import BLINDED, REJECTED_CELLS, ReadingSet, make_set, reading_set, set_path
from ctc_imaging.store.history import Call
from ctc_imaging.store.outline_marks import INTO, POINT, POLYGON, WRONG, detail_of
from ctc_imaging.store.record import ADD, CALL, MERGE, OUTLINE, Review
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.store.signatures import Signature
from ctc_imaging.store.standing import ADJUDICATION, OPEN, disputed_cells
from napari_ctc.queue_cells import DOUBT, LEARNING, Cell, order_cells, read_cells, shuffle_cells
from napari_ctc.record import Record

# The pace is taken over this many calls, so that it follows the reader.
_PACE_CALLS = 20


class Progress(NamedTuple):
    """How far the reader has come; `per_minute` is None before the second call."""

    candidates_read: int
    candidates: int
    read: int
    total: int
    per_minute: float | None


class ReviewQueue:
    """A reader's way through the cells of a run.

    In the open review candidates come before all other cells. Within each of the two the order goes slide by slide,
    as changing the slide costs a reader more than a cell out of order; and on a slide from the cell the
    model doubts most. In the order for learning candidates, and then the rest, come in rounds of a hundred, those
    first that a model would learn most from (see `learning_order`).

    A blinded reader gets the cells of a set (see `readings.make_set`) in an order of chance, the same each time; an
    adjudicator those on which readers disagree.

    Parameters
    ----------
    run : RunFolder
    reader : str
    blinded : bool
    order : {"doubt", "learning"}
    set_name : str
        Set of cells for blinded reading; empty for the usual one, which is made where there is none yet.
    round_number : int
        From 2 on a repeat of the same set, as if for the first time.
    adjudicate : bool

    Raises
    ------
    ConfigError
        If there is no such order, or a reading is asked to be two things at once.
    RunError
        If the folder is no run, there is no cell to read, no such set, or the reader has no name.
    """

    def __init__(
        self,
        run: RunFolder,
        reader: str,
        blinded: bool = False,
        order: str = DOUBT,
        set_name: str = "",
        round_number: int = 1,
        adjudicate: bool = False,
    ) -> None:
        if order not in (DOUBT, LEARNING):
            raise ConfigError("--order", f"no order is called {order!r}", f"use {DOUBT} or {LEARNING}")
        self.blinded = blinded or bool(set_name)
        self.adjudicates = adjudicate
        if self.blinded and adjudicate:
            raise ConfigError("--adjudicate", "adjudication isn't blinded", "leave one of the two out")
        if round_number < 1 or (round_number > 1 and not self.blinded):
            raise ConfigError("--round", "only a blinded reading is repeated", "give it with --blinded or --set")
        self.run = run
        chosen = _set_of(run, set_name) if self.blinded else None
        reading = chosen.reading(round_number) if chosen else (ADJUDICATION if adjudicate else OPEN)
        self.record = Record(run, reader, reading)
        self.words = _disputes(self.record) if adjudicate else {}
        self.table = self._ordered(order, chosen, round_number)
        self._cells = [Cell(*row) for row in self.table[list(Cell._fields)].itertuples(index=False, name=None)]
        self._cells[:0] = [] if self.blinded else [_added(row) for row in self.record.marks if row.action == ADD]
        if not self._cells:
            raise self._nothing()
        self._index()
        self._candidates = {cell.key for cell in self._cells if cell.call in CANDIDATES}
        self._slide_numbers = {name: n for n, name in enumerate(dict.fromkeys(c.slide_id for c in self._cells), 1)}
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
    def following(self) -> Cell:
        """The cell that comes after a call of the current one."""
        return self._cells[self._first_unread(min(self.position + 1, len(self) - 1))]

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
    def cell_name(self) -> str:
        """The current cell's number; for a blinded reader its place in the queue."""
        return f"cell {self.position + 1}" if self.blinded else f"cell {self.current.cell_id}"

    @property
    def progress(self) -> Progress:
        """How far the reader has come; to a blinded one all cells are alike."""
        called = self.record.history.called()
        goal = set(self._place) if self.blinded or self.adjudicates else self._candidates
        return Progress(len(called & goal), len(goal), len(called & set(self._place)), len(self), self._pace())

    @property
    def locked(self) -> Signature | None:
        """The signature of the current cell's sample, so that a call is an amendment and needs a reason."""
        return self.record.signature(self.current.slide_id)

    @property
    def wants_reason(self) -> Review | None:
        """The latest call, where it overrules a CTC of the model and nobody has said why."""
        last = self.record.history.last
        if last is None or self.blinded or last.action != CALL or last.reason or last.call == "ctc":
            return None
        place = self._place.get(last.cell)
        return last if place is not None and self._cells[place].call == "ctc" else None

    def step(self, by: int) -> None:
        """Go forward, or back where `by` is negative, as far as there are cells."""
        self.position = min(max(self.position + by, 0), len(self) - 1)

    def go_to(self, slide_id: str, cell_id: int) -> bool:
        """Go to a cell; False where it isn't among those to be read."""
        place = self._place.get((slide_id, cell_id))
        if place is not None:
            self.position = place
        return place is not None

    def call(self, call: str, phenotype: str = "", reason: str = "") -> Review:
        """Record a call of the current cell and go to the next one not called yet.

        Parameters
        ----------
        call : str
        phenotype : str
            Of a ctc; "" leaves it to the model.
        reason : str
            Needed where the sample is signed.

        Returns
        -------
        Review
            The row as it stands in the ledger.

        Raises
        ------
        SignedError
            If the sample is signed and there is no reason.
        RunError
            If it couldn't be written; the queue then stays where it is.
        """
        cell = self.current
        row = self.record.say(cell.key, Call(call, phenotype), cell.machine, reason)
        self._moments.append(time.monotonic())
        self.position = self._first_unread(self.position)
        return row

    def give_reason(self, reason: str) -> Review | None:
        """Say why the latest call overrules the model's CTC; None where it doesn't, or somebody has said so."""
        row = self.wants_reason
        if row is None:
            return None
        machine = self._cells[self._place[row.cell]].machine
        return self.record.say(row.cell, Call(row.call, row.phenotype), machine, reason)

    def add_missed(self, y_um: float, x_um: float, reason: str = "") -> Review:
        """Add a cell that was missed on the current slide, and go to it, to be called."""
        row = self.record.add_cell(self.current.slide_id, y_um, x_um, reason)
        self._cells.insert(self.position, _added(row))
        self._index()
        return row

    def merge_into_current(self, cell_id: int, reason: str = "") -> Review:
        """Say that another cell of the slide is part of the current one.

        Raises
        ------
        RunError
            If it is the current one, or no cell of this slide.
        """
        slide_id, current = self.current.key
        if cell_id == current or (slide_id, cell_id) not in self._place:
            raise RunError(f"cell {cell_id}", "it can't be merged into the current one", "choose another cell")
        return self.record.mark(MERGE, (slide_id, cell_id), detail_of(**{INTO: current}), reason)

    def mark_outline(self, polygon_um: Sequence[Sequence[float]] | None = None, reason: str = "") -> Review:
        """Give the current cell a new outline, corners (y, x), or mark the one it has as wrong."""
        detail = detail_of(
            **({WRONG: True} if polygon_um is None else {POLYGON: [list(corner) for corner in polygon_um]})
        )
        return self.record.mark(OUTLINE, self.current.key, detail, reason)

    def undo(self) -> Review | None:
        """Take the reader's latest row back and go to its cell; None where there is none."""
        return self._back_to(self.record.history.last, self.record.undo)

    def redo(self) -> Review | None:
        """Give the row again that was taken back last and go to its cell; None where there is none."""
        return self._back_to(self.record.history.last_undone, self.record.redo)

    def gone(self) -> set[tuple[str, int]]:
        """Return the cells that are no cells any more: merged into another, or added and taken back."""
        marks = self.record.marks
        added = {row.cell for row in marks if row.action == ADD}
        merged = {row.cell for row in marks if row.action == MERGE}
        return merged | {cell.key for cell in self._cells if cell.is_added and cell.key not in added}

    def _back_to(self, row: Review | None, act: Callable[[Call], Review | None]) -> Review | None:
        if row is None:
            return None
        place = self._place.get(row.cell)
        added = act(self._cells[place].machine if place is not None else Call(""))
        if place is not None:
            self.position = place
        return added

    def _first_unread(self, start: int) -> int:
        """The first cell not called yet from `start` on, else from the beginning, else `start` itself."""
        order = chain(range(start, len(self)), range(start))
        gone = self.gone() if any(row.action in (ADD, MERGE) for row in self.record.marks) else set()
        read = self.record.history.call
        unread = (place for place in order if read(self._cells[place].key) is None)
        return next((place for place in unread if self._cells[place].key not in gone), start)

    def _index(self) -> None:
        self._place = {cell.key: place for place, cell in enumerate(self._cells)}

    def _ordered(self, order: str, chosen: ReadingSet | None, round_number: int) -> pd.DataFrame:
        slides = self.record.slides
        table = read_cells(self.run, slides, order)
        if self.adjudicates:
            keys = pd.MultiIndex.from_frame(table[["slide_id", "cell_id"]])
            return order_cells(table[keys.isin(list(self.words))].reset_index(drop=True), slides)
        if chosen is None:
            return order_cells(table, slides, order)
        cells = table.merge(chosen.cells[["slide_id", "cell_id"]], on=["slide_id", "cell_id"], how="inner")
        seed = _seed(self.run.read()["hash"], self.record.reader, chosen.reading(round_number))
        return shuffle_cells(cells.sort_values(["slide_id", "cell_id"], ignore_index=True), slides, seed)

    def _nothing(self) -> RunError:
        if self.adjudicates:
            return RunError(self.run.path, "readers disagree on no cell", "there is nothing to settle")
        return RunError(self.run.path, "there is no cell to review", "finish the run, and look at its report")

    def _pace(self) -> float | None:
        if len(self._moments) < 2:
            return None
        return 60 * (len(self._moments) - 1) / max(self._moments[-1] - self._moments[0], 1e-3)


def _set_of(run: RunFolder, name: str) -> ReadingSet:
    """The set that is named, or the usual one, which is made at its first use."""
    name = name or BLINDED
    if name == BLINDED and not set_path(run, name).is_file():
        # A pseudonymised run shows the crops of candidates only: any other cell would be known by having none.
        return make_set(run, name, 0 if run.read().get("pseudonymised") else REJECTED_CELLS)
    return reading_set(run, name)


def _disputes(record: Record) -> dict[tuple[str, int], list[Review]]:
    """The words on each cell that waits for adjudication."""
    return {
        (slide_id, cell_id): words
        for slide_id, rows in record.rows.items()
        for cell_id, words in disputed_cells(rows).items()
    }


def _added(row: Review) -> Cell:
    """A cell that a reader added: a place, and nothing the model says."""
    y_um, x_um = (float(value) for value in row.details[POINT])  # type: ignore[attr-defined]
    nothing = float("nan")
    return Cell(row.slide_id, row.cell_id, y_um, x_um, "", "", nothing, nothing, nothing)


def _seed(run_hash: str, reader: str, reading: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{run_hash}/{reader}/{reading}".encode()).digest()[:8], "big")
