"""One reader's calls in the ledger of a run: each a new row, undo and redo too; no Qt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ctc_imaging.errors import RunError
from ctc_imaging.store.ledger import Ledger, Review, utc_now
from ctc_imaging.store.run_folder import RunFolder

UNDO, REDO = "undo", "redo"
"""Reasons of the rows that take a call back and give it again."""

CellKey = tuple[str, int]


class Call(NamedTuple):
    """What is said of a cell: one of the four calls, and the phenotype of a ctc ("" where nobody said)."""

    call: str
    phenotype: str = ""


class History:
    """What a reader's rows amount to, read in the order they were added.

    A row whose reason is `UNDO` takes the latest call back, one with `REDO` gives it again: so undo
    reaches back over every session, and no row is ever deleted.

    Parameters
    ----------
    rows : iterable of Review
        Of one reader.
    """

    def __init__(self, rows: Iterable[Review] = ()) -> None:
        self._done: list[Review] = []
        self._undone: list[Review] = []
        self._of_cell: dict[CellKey, list[Review]] = defaultdict(list)
        for row in rows:
            self.add(row)

    def add(self, row: Review) -> None:
        """Take in the next row."""
        if row.reason == UNDO:
            if self._done:
                self._undone.append(self._done.pop())
                self._of_cell[key_of(self._undone[-1])].pop()
        elif row.reason == REDO:
            if self._undone:
                self._push(self._undone.pop())
        else:
            self._push(row)
            self._undone.clear()

    @property
    def last(self) -> Review | None:
        """The call that undo takes back."""
        return self._done[-1] if self._done else None

    @property
    def last_undone(self) -> Review | None:
        """The call that redo gives again."""
        return self._undone[-1] if self._undone else None

    def call(self, key: CellKey) -> Call | None:
        """Return what the reader says of a cell, or None."""
        said = self._of_cell.get(key)
        return Call(said[-1].call, said[-1].phenotype) if said else None

    def before_last(self) -> Call | None:
        """Return what the reader had said of the cell of `last` before, or None."""
        said = self._of_cell[key_of(self._done[-1])] if self._done else []
        return Call(said[-2].call, said[-2].phenotype) if len(said) > 1 else None

    def called(self) -> set[CellKey]:
        """Return the cells that the reader has called."""
        return {key for key, said in self._of_cell.items() if said}

    def _push(self, row: Review) -> None:
        self._done.append(row)
        self._of_cell[key_of(row)].append(row)


class Record:
    """A reader at work on a run: every call is in the ledger before the method returns.

    Parameters
    ----------
    run : RunFolder
    reader : str

    Raises
    ------
    RunError
        If the folder is no run, its ledger can't be used, or the reader has no name.
    """

    def __init__(self, run: RunFolder, reader: str) -> None:
        self.reader = reader.strip()
        if not self.reader:
            raise RunError("reader", "the reader has no name", "say who reads")
        facts = run.read()
        self._ledger = run.ledger
        self._run_hash: str = facts["hash"]
        self._model_hash: str = facts["model"]["hash"]
        with Ledger(run.ledger) as ledger:
            states = ledger.slides()
            rows = ledger.reviews()
        self._sha256 = {slide_id: state.sha256 for slide_id, state in states.items() if state.state == "done"}
        rows = [row for row in rows if self._applies(row)]
        self.history = History(row for row in rows if row.reader == self.reader)
        others = sorted((row for row in rows if row.reader != self.reader), key=lambda row: row.time)
        self._others = {key_of(row): row for row in others}

    @property
    def slides(self) -> tuple[str, ...]:
        """The slides that can be reviewed, in the order of the run."""
        return tuple(self._sha256)

    def other(self, key: CellKey) -> Review | None:
        """Return the latest word of the other readers on a cell, as it was when this one began, or None."""
        return self._others.get(key)

    def say(self, key: CellKey, call: Call, machine: Call) -> Review:
        """Append a call.

        Parameters
        ----------
        key : tuple
            Slide and cell.
        call : Call
        machine : Call
            What the model says of the cell.

        Returns
        -------
        Review
            The new row.

        Raises
        ------
        RunError
            If the ledger can't be written; then nothing has changed.
        """
        return self._append(key, "", machine, lambda _: call)

    def undo(self, machine: Call) -> Review | None:
        """Append a row that takes the latest call back.

        It says what stood before: the reader's own earlier call, else the latest of the other readers,
        else the model's.

        Parameters
        ----------
        machine : Call
            What the model says of the cell of ``history.last``.

        Returns
        -------
        Review or None
            None where there is nothing to take back.
        """
        last = self.history.last
        if last is None:
            return None
        before = self.history.before_last()

        def standing(rows: Sequence[Review]) -> Call:
            others = _latest(row for row in rows if row.reader != self.reader)
            return before or (Call(others.call, others.phenotype) if others else machine)

        return self._append(key_of(last), UNDO, machine, standing)

    def redo(self, machine: Call) -> Review | None:
        """Append a row that gives the call again that was taken back last; None where there is none."""
        row = self.history.last_undone
        if row is None:
            return None
        return self._append(key_of(row), REDO, machine, lambda _: Call(row.call, row.phenotype))

    def _append(self, key: CellKey, reason: str, machine: Call, choose: Callable[[Sequence[Review]], Call]) -> Review:
        added: list[Review] = []

        def make(rows: Sequence[Review]) -> list[Review]:
            of_cell = [row for row in rows if key_of(row) == key and self._applies(row)]
            latest = _latest(of_cell)
            call = choose(of_cell)
            # The latest time counts: a clock that was set back mustn't make this call the older one.
            time = max(utc_now(), latest.time) if latest else utc_now()
            added.append(self._row(key, call, time, reason, latest.call if latest else machine.call))
            return added

        with Ledger(self._ledger) as ledger:
            ledger.merge_reviews(make)
        self.history.add(added[0])
        return added[0]

    def _row(self, key: CellKey, call: Call, time: str, reason: str, earlier_call: str) -> Review:
        slide_id, cell_id = key
        return Review(
            slide_id=slide_id,
            cell_id=cell_id,
            call=call.call,
            phenotype=call.phenotype,
            reader=self.reader,
            time=time,
            reason=reason,
            earlier_call=earlier_call,
            model_hash=self._model_hash,
            run_hash=self._run_hash,
            slide_sha256=self._sha256[slide_id],
        )

    def _applies(self, row: Review) -> bool:
        return row.run_hash == self._run_hash and self._sha256.get(row.slide_id) == row.slide_sha256


def key_of(row: Review) -> CellKey:
    """Return the slide and cell that a row is about."""
    return row.slide_id, row.cell_id


def _latest(rows: Iterable[Review]) -> Review | None:
    """The row in force: of two of one time the later added one."""
    return max(reversed(list(rows)), key=lambda row: row.time, default=None)
