"""The record of what readers said: rows that are only ever added, each sealed with the one before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

CALL, ADD, MERGE, OUTLINE, SIGN = "call", "add", "merge", "outline", "sign"
"""What a row does: calls a cell, adds a missed one, merges a doubled one, corrects an outline, signs a sample."""

Cell = tuple[str, int]
Run = Callable[..., list[tuple[object, ...]]]
"""Runs one statement with its values, and returns its rows."""


@dataclass(frozen=True)
class Review:
    """One row of the record; text that isn't known is empty, `time` is ISO 8601 in UTC.

    `reading` is empty for an open review, else names the reading it belongs to (blinded, adjudication, ...);
    `detail` is a JSON object, of what `action` needs.
    """

    slide_id: str
    cell_id: int
    call: str
    phenotype: str
    reader: str
    time: str
    reason: str
    earlier_call: str
    model_hash: str
    run_hash: str
    slide_sha256: str
    reading: str = ""
    action: str = CALL
    detail: str = ""

    @property
    def cell(self) -> Cell:
        """Slide and cell."""
        return self.slide_id, self.cell_id

    @property
    def details(self) -> dict[str, object]:
        """What `detail` says."""
        return dict(json.loads(self.detail)) if self.detail else {}


@dataclass(frozen=True)
class SealedRow:
    """A row as it stands in the record: its number, counted from 1, its seal and what it says."""

    number: int
    seal: str
    review: Review


COLUMNS = tuple(field.name for field in fields(Review))
_NAMES = ", ".join(COLUMNS)


def values_of(review: Review) -> tuple[object, ...]:
    """Return a row's values in the order of `COLUMNS`."""
    return tuple(getattr(review, name) for name in COLUMNS)


def seal(before: str, number: int, review: Review) -> str:
    """Seal a row with the one before it: whoever changes, removes or moves a row breaks the seal of the next.

    Parameters
    ----------
    before : str
        Seal of the row before, empty for the first one.
    number : int
        The row's number.
    review : Review

    Returns
    -------
    str
        SHA-256 in hexadecimal, of the JSON of all three.
    """
    text = json.dumps([before, number, *values_of(review)], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def broken_seals(rows: Iterable[SealedRow]) -> Iterator[str]:
    """Say which rows are not as they were added.

    Parameters
    ----------
    rows : iterable of SealedRow
        In the order of their numbers.

    Yields
    ------
    str
        A fault a row, naming it. After a faulty row the chain goes on from the seal that stands there, so that each
        change is told once.
    """
    before, expected = "", 1
    for row in rows:
        if row.number != expected:
            missing = f"row {expected} is" if row.number == expected + 1 else f"rows {expected} to {row.number - 1} are"
            yield f"{missing} missing"
        elif seal(before, row.number, row.review) != row.seal:
            yield f"row {row.number} ({_words(row.review)}) isn't as it was added"
        before, expected = row.seal, row.number + 1


@dataclass(frozen=True)
class Record:
    """The record in a database, whichever it is.

    Attributes
    ----------
    read, write : callable
        Give, for the length of a block, what runs a statement; `write` in a transaction that nobody else can write in.
    check : callable
        Raises where a row may not be added, given the rows so far.
    table : str
    """

    read: Callable[[], AbstractContextManager[Run]]
    write: Callable[[], AbstractContextManager[Run]]
    check: Callable[[Review, Sequence[SealedRow]], None]
    table: str = "reviews"

    def append(
        self, choose: Callable[[Sequence[SealedRow]], Iterable[Review]], cell: Cell | None = None, reader: str = ""
    ) -> list[SealedRow]:
        """Append what `choose` makes of the rows so far; nobody else can add any meanwhile.

        Parameters
        ----------
        choose : callable
            Gets the rows so far: all of them or, where a cell is given, those of the cell, the reader's latest, and
            every signature.
        cell : tuple, optional
        reader : str

        Returns
        -------
        list of SealedRow
            The new rows.
        """
        with self.write() as run:
            known = self._about(run, cell, reader) if cell else self._select(run)
            number, before = self._head(run)
            added: list[SealedRow] = []
            for review in choose(known):
                self.check(review, known)
                number += 1
                before = seal(before, number, review)
                self._insert(run, SealedRow(number, before, review))
                added.append(SealedRow(number, before, review))
        return added

    def copy(self, rows: Iterable[SealedRow], run: Run) -> None:
        """Take over rows as they are, within a transaction."""
        for row in rows:
            self._insert(run, row)

    def rows(self, slide_id: str | None = None) -> list[SealedRow]:
        """Return the rows in the order they were added, of one slide or all."""
        with self.read() as run:
            return self._select(run) if slide_id is None else self._select(run, "WHERE slide_id = ?", slide_id)

    def head(self) -> tuple[int, str]:
        """Return number and seal of the last row; 0 and empty where there is none."""
        with self.read() as run:
            return self._head(run)

    def _about(self, run: Run, cell: Cell, reader: str) -> list[SealedRow]:
        where = (
            "WHERE (slide_id = ? AND cell_id = ?) OR action = ?"
            f" OR id = (SELECT max(id) FROM {self.table} WHERE reader = ?)"
        )
        return self._select(run, where, *cell, SIGN, reader)

    def _select(self, run: Run, where: str = "", *values: object) -> list[SealedRow]:
        found = run(f"SELECT id, seal, {_NAMES} FROM {self.table} {where} ORDER BY id", values)
        return [SealedRow(number, mark, Review(*row)) for number, mark, *row in found]  # type: ignore[arg-type]

    def _head(self, run: Run) -> tuple[int, str]:
        found = run(f"SELECT id, seal FROM {self.table} ORDER BY id DESC LIMIT 1")
        return (int(str(found[0][0])), str(found[0][1])) if found else (0, "")

    def _insert(self, run: Run, row: SealedRow) -> None:
        marks = ", ".join("?" for _ in range(len(COLUMNS) + 2))
        values = (row.number, row.seal, *values_of(row.review))
        run(f"INSERT INTO {self.table} (id, seal, {_NAMES}) VALUES ({marks})", values)


def _words(review: Review) -> str:
    what = f"cell {review.cell_id} of {review.slide_id}" if review.action != SIGN else "a signature"
    return f"{what}, {review.reader}, {review.time[:19]}"
