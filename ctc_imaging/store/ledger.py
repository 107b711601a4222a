"""The ledger: every slide's state, every review and every event of a run, in one SQLite file.

The reviews may lie in a PostgreSQL database instead, for several readers at once; a file beside the ledger says where.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ctc_imaging.errors import RunError, VersionError
from ctc_imaging.store.address import Address, read_address, write_address
from ctc_imaging.store.record import SIGN, Cell, Record, Review, Run, SealedRow, broken_seals
from ctc_imaging.store.schema import SCHEMA_VERSION, ledger_faults, upgrade, version_of
from ctc_imaging.store.signatures import refuse_unmarked

if TYPE_CHECKING:
    from ctc_imaging.store.postgres import SharedRecord

MIGRATED = "ledger migrated"
"""The event that says when a ledger came to the schema it has."""
COUNTED = "counted"
"""The event that says number and seal of the record's last row when it was counted."""
_BUSY_SECONDS = 30.0
_UNWRITABLE = "check its permissions, or copy the run to a disk that can be written to"
_REMEDIES = {
    sqlite3.SQLITE_FULL: "free some space and run the same command again",
    sqlite3.SQLITE_READONLY: _UNWRITABLE,
    sqlite3.SQLITE_CANTOPEN: _UNWRITABLE,
}


@dataclass(frozen=True)
class SlideState:
    """How far a slide has come: `pending`, `running`, `done`, or `failed` for a reason.

    `sha256` is of the scan that was read; `fingerprint` tells cheaply whether it may have changed since.
    """

    slide_id: str
    state: str
    reason: str
    started: str
    finished: str
    seconds: float | None
    sha256: str
    fingerprint: str


@dataclass(frozen=True)
class Event:
    """One line of the audit trail."""

    time: str
    actor: str
    event: str
    detail: str


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the microsecond, so that text sorts as time does."""
    return utc_text(datetime.now(UTC))


def utc_text(moment: datetime) -> str:
    """Write a moment as the ledger does; one without time zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds")


class Ledger:
    """The ledger of a run; reviews and audit only ever grow. Use it as a context manager.

    Parameters
    ----------
    path : Path
        The SQLite file.
    create : bool
        Make the file if it doesn't exist.

    Raises
    ------
    RunError
        If the file is missing, is no ledger, is damaged, or was made by a newer version.
    """

    def __init__(self, path: Path, create: bool = False) -> None:
        self.path = Path(path)
        self._shared: SharedRecord | None = None
        if not create and not self.path.is_file():
            raise _missing(self.path)
        with _own_errors(self.path):
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            with _own_errors(self.path):
                self._use_wal()
                self._connection.execute("PRAGMA synchronous = FULL")
            self._migrate()
        except RunError:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        if self._shared is not None:
            self._shared.close()

    def set_slides(self, slide_ids: Sequence[str]) -> None:
        """Make these the slides of the run: new ones pending, those no longer among them dropped."""
        with self._transaction() as connection:
            known = {row[0] for row in connection.execute("SELECT slide_id FROM slides")}
            dropped = [(slide_id,) for slide_id in sorted(known - set(slide_ids))]
            added = [(slide_id,) for slide_id in slide_ids if slide_id not in known]
            connection.executemany("DELETE FROM slides WHERE slide_id = ?", dropped)
            connection.executemany("DELETE FROM results WHERE slide_id = ?", dropped)
            connection.executemany("INSERT INTO slides (slide_id) VALUES (?)", added)

    def slides(self) -> dict[str, SlideState]:
        """Return every slide's state by slide id, in the order they were added."""
        with _own_errors(self.path):
            rows = self._connection.execute("SELECT * FROM slides ORDER BY rowid").fetchall()
        return {row[0]: SlideState(*row) for row in rows}

    def reset(self, slide_id: str) -> None:
        """Set a slide back to pending, as if it had never started."""
        self._set(
            slide_id, state="pending", reason="", started="", finished="", seconds=None, sha256="", fingerprint=""
        )

    def start(self, slide_id: str) -> None:
        """Set a slide to running."""
        self._set(slide_id, state="running", reason="", started=utc_now(), finished="", seconds=None)

    def finish(
        self, slide_id: str, seconds: float, sha256: str, fingerprint: str, files: Mapping[str, str] | None = None
    ) -> None:
        """Set a slide to done.

        Parameters
        ----------
        slide_id : str
        seconds : float
            How long it took.
        sha256, fingerprint : str
            Of the scan that was read.
        files : mapping of str to str, optional
            The SHA-256 of each part of the results, as from `hash_parts`.
        """
        now = utc_now()
        self._set(slide_id, files, state="done", finished=now, seconds=seconds, sha256=sha256, fingerprint=fingerprint)

    def fail(self, slide_id: str, reason: str, seconds: float | None = None) -> None:
        """Set a slide to failed, for a reason in one line."""
        self._set(slide_id, state="failed", reason=reason, finished=utc_now(), seconds=seconds)

    def results(self) -> dict[str, dict[str, str]]:
        """Return the SHA-256 of each part of the results, by slide; slides without hashes are left out."""
        found: dict[str, dict[str, str]] = {}
        with _own_errors(self.path):
            for slide_id, part, sha256 in self._connection.execute("SELECT * FROM results ORDER BY slide_id, part"):
                found.setdefault(slide_id, {})[part] = sha256
        return found

    def faults(self) -> list[str]:
        """List what is wrong: damaged pages, other tables or triggers than ours, lost records, broken seals."""
        with _own_errors(self.path):
            found = list(ledger_faults(self._connection))
        rows = self.sealed_rows()
        return [*found, *broken_seals(rows), *self._lost_anchors(rows)]

    def _lost_anchors(self, rows: Sequence[SealedRow]) -> Iterator[str]:
        """Look whether the record still has the rows that were counted: who writes all of it anew seals it anew."""
        seals = {row.number: row.seal for row in rows}
        for event in self.events():
            if event.event == COUNTED:
                number, _, seal = event.detail.partition(" ")
                if seals.get(int(number)) != seal:
                    yield f"row {number} of the reviews isn't the one that was counted on {event.time[:19]}"
                    return

    def add_reviews(self, reviews: Iterable[Review]) -> None:
        """Append reviews, all or none of them."""
        self.merge_reviews(lambda _: tuple(reviews))

    def merge_reviews(self, choose: Callable[[Sequence[Review]], Iterable[Review]]) -> None:
        """Append what `choose` makes of the reviews so far; nobody else can add any meanwhile.

        Raises
        ------
        SignedError
            If one is about a signed sample and doesn't say why.
        """
        self._reviews().append(lambda rows: choose([row.review for row in rows]))

    def append_review(
        self, choose: Callable[[Sequence[SealedRow]], Iterable[Review]], cell: Cell, reader: str
    ) -> list[SealedRow]:
        """Append what `choose` makes of the reviews of one cell, the reader's latest, and the signatures.

        However many reviews there are, it costs the same.

        Raises
        ------
        SignedError
            If one is about a signed sample and doesn't say why.
        """
        return self._reviews().append(choose, cell, reader)

    def reviews(self, slide_id: str | None = None) -> list[Review]:
        """Return the reviews in the order they were added, of one slide or of all; signatures aren't among them."""
        return [row.review for row in self.sealed_rows(slide_id) if row.review.action != SIGN]

    def sealed_rows(self, slide_id: str | None = None) -> list[SealedRow]:
        """Return the record as it stands, signatures too, of one slide or whole."""
        return self._reviews().rows(slide_id)

    def head(self) -> tuple[int, str]:
        """Return number and seal of the record's last row, which vouches for all before it."""
        return self._reviews().head()

    def record(self, actor: str, event: str, detail: str = "") -> None:
        """Append an event to the audit trail."""
        with self._transaction() as connection:
            _add_event(connection, actor, event, detail)

    def events(self) -> list[Event]:
        """Return the audit trail in order."""
        with _own_errors(self.path):
            rows = self._connection.execute("SELECT time, actor, event, detail FROM audit ORDER BY id").fetchall()
        return [Event(*row) for row in rows]

    def _set(self, slide_id: str, files: Mapping[str, str] | None = None, **values: str | float | None) -> None:
        """Change a slide's state; the hashes of its results are those of this state or gone, never of another."""
        assignments = ", ".join(f"{name} = ?" for name in values)
        parts = [(slide_id, part, sha256) for part, sha256 in (files or {}).items()]
        with self._transaction() as connection:
            connection.execute(f"UPDATE slides SET {assignments} WHERE slide_id = ?", (*values.values(), slide_id))
            connection.execute("DELETE FROM results WHERE slide_id = ?", (slide_id,))
            connection.executemany("INSERT INTO results (slide_id, part, sha256) VALUES (?, ?, ?)", parts)

    def _migrate(self) -> None:
        with self._transaction() as connection:
            version = version_of(connection)
            if version > SCHEMA_VERSION:
                fault = f"made by a newer version (schema {version})"
                raise VersionError(self.path, fault, "install a newer ctc-imaging")
            if version < SCHEMA_VERSION:
                upgrade(connection)
            if 0 < version < SCHEMA_VERSION:
                _add_event(connection, "ctc-imaging", MIGRATED, f"schema {version} to {SCHEMA_VERSION}")

    def _use_wal(self) -> None:
        """Let readers and a writer work at once. SQLite doesn't wait here as it does elsewhere, so this does."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if _kind(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _reviews(self) -> Record:
        """Return the record, where it lies now: another process may have moved it since."""
        address = read_address(self.path)
        if address is None:
            return Record(self._read, self._write, refuse_unmarked)
        if self._shared is None or self._shared.address != address:
            from ctc_imaging.store.postgres import SharedRecord

            self._shared = SharedRecord(address)
        return self._shared.record

    @contextmanager
    def _read(self) -> Iterator[Run]:
        with _own_errors(self.path):
            yield lambda statement, values=(): self._connection.execute(statement, values).fetchall()

    @contextmanager
    def _write(self) -> Iterator[Run]:
        with self._transaction() as connection:
            if read_address(self.path) is not None:
                raise RunError(self.path, "the reviews were moved to a server just now", "give the call again")
            yield lambda statement, values=(): connection.execute(statement, values).fetchall()

    def share(self, address: Address) -> int:
        """Move the reviews to a PostgreSQL database; from then on everybody's go there.

        Parameters
        ----------
        address : Address

        Returns
        -------
        int
            How many rows were taken along; those here stay as they are, and count no more.

        Raises
        ------
        RunError
            If the reviews lie on a server already, or the database can't be used.
        """
        from ctc_imaging.store.postgres import SharedRecord

        here = Record(self._read, self._write, refuse_unmarked)
        with self._write(), closing(SharedRecord(address)) as there:
            rows = here.rows()
            there.take_over(rows)
            write_address(self.path, address)
        self.record("ctc-imaging review share", "reviews moved", f"{len(rows)} rows to {address.shown}")
        return len(rows)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _own_errors(self.path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself has rolled back where the disk was full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _add_event(connection: sqlite3.Connection, actor: str, event: str, detail: str) -> None:
    values = (utc_now(), actor, event, detail)
    connection.execute("INSERT INTO audit (time, actor, event, detail) VALUES (?, ?, ?, ?)", values)


def copy_ledger(path: Path, target: Path) -> None:
    """Copy a ledger as it is at one moment, whoever else is writing to it, and leave it as it is.

    Raises
    ------
    RunError
        If the file is missing, is no ledger or is damaged.
    """
    if not path.is_file():
        raise _missing(path)
    if (address := read_address(path)) is not None:
        write_address(target, address)
    if not os.access(path.parent, os.W_OK):
        # SQLite can't share a file in such a folder; but then nobody writes there either.
        for name in (path.name, f"{path.name}-wal"):
            if (path.parent / name).is_file():
                shutil.copyfile(path.parent / name, target.parent / name.replace(path.name, target.name))
        return
    # Opened for reading only, SQLite would leave two files of its own behind.
    with (
        _own_errors(path),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as source,
        closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)


def _missing(path: Path) -> RunError:
    return RunError(path, "the ledger is missing", "run the same command as before, with --force")


@contextmanager
def _own_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        remedy = _REMEDIES.get(_kind(error), "check the disk and the file")
        raise RunError(path, f"the ledger can't be used ({error})", remedy) from error


def _kind(error: sqlite3.Error) -> int:
    """Return SQLite's code of an error without what it says beyond its kind; 0 where Python itself complains."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
