"""What one reader's rows amount to once what was undone is taken away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from ctc_imaging.store.record import CALL, Cell, Review

UNDO, REDO = "undo", "redo"
"""Reasons of the rows that take a row back and give it again."""


class Call(NamedTuple):
    """What is said of a cell: one of the four calls, and the phenotype of a ctc ("" where nobody said)."""

    call: str
    phenotype: str = ""


class History:
    """The rows of one reader in one reading, read in the order they were added.

    A row whose reason is `UNDO` takes the latest one back, one with `REDO` gives it again: so undo
    reaches back over every session, and no row is ever deleted. A row that only adds the reason to the call
    before it takes its place.

    Parameters
    ----------
    rows : iterable of Review
    """

    def __init__(self, rows: Iterable[Review] = ()) -> None:
        self._done: list[Review] = []
        self._undone: list[Review] = []
        self._of_cell: dict[Cell, list[Review]] = defaultdict(list)
        for row in rows:
            self.add(row)

    def add(self, row: Review) -> None:
        """Take in the next row."""
        if row.reason == UNDO:
            if self._done:
                self._undone.append(self._pop())
        elif row.reason == REDO:
            if self._undone:
                self._push(self._undone.pop())
        else:
            if self.last is not None and _only_reasons(self.last, row):
                self._pop()
            self._push(row)
            self._undone.clear()

    @property
    def last(self) -> Review | None:
        """The row that undo takes back."""
        return self._done[-1] if self._done else None

    @property
    def last_undone(self) -> Review | None:
        """The row that redo gives again."""
        return self._undone[-1] if self._undone else None

    @property
    def standing(self) -> tuple[Review, ...]:
        """The rows that haven't been taken back, in their order."""
        return tuple(self._done)

    def word(self, cell: Cell) -> Review | None:
        """Return the reader's latest call of a cell, or None."""
        said = self._of_cell.get(cell)
        return said[-1] if said else None

    def call(self, cell: Cell) -> Call | None:
        """Return what the reader says of a cell, or None."""
        word = self.word(cell)
        return Call(word.call, word.phenotype) if word else None

    def before_last(self) -> Call | None:
        """Return what the reader had said of the cell of `last` before, or None."""
        said = self._of_cell[self._done[-1].cell] if self._done else []
        return Call(said[-2].call, said[-2].phenotype) if len(said) > 1 else None

    def called(self) -> set[Cell]:
        """Return the cells that the reader has called."""
        return {cell for cell, said in self._of_cell.items() if said}

    def _push(self, row: Review) -> None:
        self._done.append(row)
        if row.action == CALL:
            self._of_cell[row.cell].append(row)

    def _pop(self) -> Review:
        row = self._done.pop()
        if row.action == CALL:
            self._of_cell[row.cell].pop()
        return row


def histories(rows: Iterable[Review]) -> dict[tuple[str, str], History]:
    """Return every reader's history in each reading, by reader and reading.

    Parameters
    ----------
    rows : iterable of Review
        In the order they were added; times go before it, as a table of reviews may be added late.
    """
    found: dict[tuple[str, str], History] = defaultdict(History)
    for row in sorted(rows, key=lambda row: row.time):
        found[row.reader, row.reading].add(row)
    return dict(found)


def in_order(rows: Iterable[Review], added: Iterable[Review]) -> list[Review]:
    """Sort rows by their times; of two of one time the one that was added first, as in `added`, comes first."""
    place = {id(row): number for number, row in enumerate(added)}
    return sorted(rows, key=lambda row: (row.time, place[id(row)]))


def _only_reasons(last: Review, row: Review) -> bool:
    same = (last.cell, last.action, last.call, last.phenotype) == (row.cell, row.action, row.call, row.phenotype)
    return same and not last.reason and bool(row.reason)
