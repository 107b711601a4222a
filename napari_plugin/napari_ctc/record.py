"""One reader's calls in the ledger of a run: each a new row, undo and redo too; no Qt."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

from ctc_imaging.errors import RunError
from ctc_imaging.store.history import REDO, UNDO, Call, History
from ctc_imaging.store.ledger import Ledger, utc_now
from ctc_imaging.store.outline_marks import ADDED_FROM, POINT, detail_of, marks_of
from ctc_imaging.store.record import ADD, CALL, SIGN, Cell, Review, SealedRow
from ctc_imaging.store.reviews import applying
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.store.signatures import Signature, as_amendment, is_exercise, locking, signatures_of
from ctc_imaging.store.standing import OPEN


class _TakenError(Exception):
    """Another reader has added a cell of this number."""


class Record:
    """A reader at work on a run: every call is in the ledger before the method returns.

    Parameters
    ----------
    run : RunFolder
    reader : str
    reading : str
        The reading that the calls belong to, empty for the open review.

    Raises
    ------
    RunError
        If the folder is no run, its ledger can't be used, or the reader has no name.
    """

    def __init__(self, run: RunFolder, reader: str, reading: str = OPEN) -> None:
        self.reader = reader.strip()
        if not self.reader:
            raise RunError("reader", "the reader has no name", "say who reads")
        facts = run.read()
        self.reading = reading
        self._run_hash: str = facts["hash"]
        self._model_hash: str = facts["model"]["hash"]
        self._ledger = Ledger(run.ledger)
        weakref.finalize(self, self._ledger.close)
        states = self._ledger.slides()
        sealed = self._ledger.sealed_rows()
        self._sha256 = {slide_id: state.sha256 for slide_id, state in states.items() if state.state == "done"}
        self._signatures = signatures_of(sealed, self._run_hash)
        self.rows = applying([row.review for row in sealed], self._run_hash, self._sha256)
        every = [row for of_slide in self.rows.values() for row in of_slide]
        # In the order they were added, which a sort by slide has lost.
        place = {id(row.review): row.number for row in sealed}
        every.sort(key=lambda row: (row.time, place[id(row)]))
        self.history = History(row for row in every if (row.reader, row.reading) == (self.reader, reading))
        self._others: dict[Cell, Review] = {
            row.cell: row for row in every if row.reader != self.reader and row.action == CALL
        }
        self._marks_of_others = [row for row in marks_of(every) if row.reader != self.reader]

    @property
    def slides(self) -> tuple[str, ...]:
        """The slides that can be reviewed, in the order of the run."""
        return tuple(self._sha256)

    @property
    def marks(self) -> list[Review]:
        """The corrections of outlines in force: all readers' as they were when this one began, and this one's since."""
        return [*self._marks_of_others, *(row for row in self.history.standing if row.action not in (CALL, SIGN))]

    def other(self, cell: Cell) -> Review | None:
        """Return the latest word of the other readers on a cell, as it was when this one began, or None."""
        return self._others.get(cell)

    def signature(self, slide_id: str) -> Signature | None:
        """Return the signature that locks a slide's sample, so that a call needs a reason; None where none does."""
        if is_exercise(self.reading):
            return None
        return locking(self._row((slide_id, 0), Call(""), "", "", ""), self._signatures)

    def refresh_signatures(self) -> None:
        """Look which samples are signed by now."""
        self._signatures = signatures_of(self._ledger.sealed_rows(), self._run_hash)

    def say(self, cell: Cell, call: Call, machine: Call, reason: str = "") -> Review:
        """Append a call.

        Parameters
        ----------
        cell : tuple
            Slide and cell.
        call : Call
        machine : Call
            What the model says of the cell.
        reason : str
            Why, where the model's CTC is overruled, or a signed sample amended.

        Returns
        -------
        Review
            The new row.

        Raises
        ------
        SignedError
            If the sample is signed and there is no reason.
        RunError
            If the ledger can't be written; then nothing has changed.
        """
        return self._append(cell, reason, machine, lambda _: call)

    def add_cell(self, slide_id: str, y_um: float, x_um: float, reason: str = "") -> Review:
        """Append that a cell was missed, with a number that no other cell has.

        Returns
        -------
        Review
            The new row, with the cell's number.
        """
        detail = detail_of(**{POINT: [y_um, x_um]})
        number = ADDED_FROM
        while True:
            try:
                return self._append((slide_id, number), reason, Call(""), lambda _: Call(""), ADD, detail)
            except _TakenError:
                number += 1

    def mark(self, action: str, cell: Cell, detail: str, reason: str = "") -> Review:
        """Append a correction of a cell's outline, or that it is part of another; see `store.outline_marks`."""
        return self._append(cell, reason, Call(""), lambda _: Call(""), action, detail)

    def undo(self, machine: Call, reason: str = "") -> Review | None:
        """Append a row that takes the latest one back.

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
        before = self.history.before_last() if last.action == CALL else None

        def standing(rows: Sequence[Review]) -> Call:
            others = _latest([row for row in rows if row.reader != self.reader and row.action == CALL])
            return before or (Call(others.call, others.phenotype) if others else machine)

        return self._append(last.cell, UNDO, machine, standing, last.action, last.detail)

    def redo(self, machine: Call) -> Review | None:
        """Append a row that gives the one again that was taken back last; None where there is none."""
        row = self.history.last_undone
        if row is None:
            return None
        return self._append(row.cell, REDO, machine, lambda _: Call(row.call, row.phenotype), row.action, row.detail)

    def _append(
        self,
        cell: Cell,
        reason: str,
        machine: Call,
        choose: Callable[[Sequence[Review]], Call],
        action: str = CALL,
        detail: str = "",
    ) -> Review:
        def make(known: Sequence[SealedRow]) -> list[Review]:
            self._signatures = signatures_of(known, self._run_hash)
            mine = [row.review for row in known if row.review.action != SIGN and self._applies(row.review)]
            of_cell = [row for row in mine if row.cell == cell]
            if action == ADD and reason not in (UNDO, REDO) and any(row.action == ADD for row in of_cell):
                raise _TakenError
            latest = _latest([row for row in of_cell if row.action == CALL])
            # The latest time counts: a clock that was set back mustn't make this call the older one.
            time = max([utc_now(), *(row.time for row in mine)])
            earlier = latest.call if latest else machine.call
            row = self._row(cell, choose(of_cell), time, reason, earlier, action, detail)
            return [as_amendment(row, self._signatures)]

        added = self._ledger.append_review(make, cell, self.reader)[0].review
        self.history.add(added)
        return added

    def _row(
        self, cell: Cell, call: Call, time: str, reason: str, earlier: str, action: str = CALL, detail: str = ""
    ) -> Review:
        slide_id, cell_id = cell
        return Review(
            slide_id=slide_id,
            cell_id=cell_id,
            call=call.call,
            phenotype=call.phenotype,
            reader=self.reader,
            time=time,
            reason=reason,
            earlier_call=earlier,
            model_hash=self._model_hash,
            run_hash=self._run_hash,
            slide_sha256=self._sha256[slide_id],
            reading=self.reading,
            action=action,
            detail=detail,
        )

    def _applies(self, row: Review) -> bool:
        return row.run_hash == self._run_hash and self._sha256.get(row.slide_id) == row.slide_sha256


def _latest(rows: Sequence[Review]) -> Review | None:
    """The row in force: of two of one time the later added one."""
    return max(reversed(rows), key=lambda row: row.time, default=None)
