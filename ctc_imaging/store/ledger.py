"""The ledger: every slide's state, every review and every event of a run, in one SQLite file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from ctc_imaging.errors import RunError

SCHEMA_VERSION = 1
_BUSY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE slides (
    slide_id TEXT PRIMARY KEY,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'failed')),
    reason TEXT NOT NULL DEFAULT '',
    started TEXT NOT NULL DEFAULT '',
    finished TEXT NOT NULL DEFAULT '',
    seconds REAL,
    sha256 TEXT NOT NULL DEFAULT '',
    fingerprint TEXT NOT NULL DEFAULT ''
);
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slide_id TEXT NOT NULL,
    cell_id INTEGER NOT NULL,
    call TEXT NOT NULL,
    phenotype TEXT NOT NULL,
    reader TEXT NOT NULL,
    time TEXT NOT NULL,
    reason TEXT NOT NULL,
    earlier_call TEXT NOT NULL,
    model_hash TEXT NOT NULL,
    run_hash TEXT NOT NULL,
    slide_sha256 TEXT NOT NULL
);
CREATE INDEX reviews_of_slide ON reviews (slide_id, cell_id);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    actor TEXT NOT NULL,
    event TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""
# The insert trigger stops INSERT OR REPLACE, which deletes a row without firing the delete trigger.
_APPEND_ONLY = """
CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;
"""


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
class Review:
    """One reader's call of one cell; text that isn't known is empty, `time` is ISO 8601 in UTC."""

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


@dataclass(frozen=True)
class Event:
    """One line of the audit trail."""

    time: str
    actor: str
    event: str
    detail: str


_REVIEW_COLUMNS = tuple(field.name for field in fields(Review))


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
        if not create and not self.path.is_file():
            raise RunError(self.path, "the ledger is missing", "run the same command as before, with --force")
        with self._own_errors():
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            with self._own_errors():
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

    def set_slides(self, slide_ids: Sequence[str]) -> None:
        """Make these the slides of the run: new ones pending, those no longer among them dropped."""
        with self._transaction() as connection:
            known = {row[0] for row in connection.execute("SELECT slide_id FROM slides")}
            dropped = [(slide_id,) for slide_id in sorted(known - set(slide_ids))]
            added = [(slide_id,) for slide_id in slide_ids if slide_id not in known]
            connection.executemany("DELETE FROM slides WHERE slide_id = ?", dropped)
            connection.executemany("INSERT INTO slides (slide_id) VALUES (?)", added)

    def slides(self) -> dict[str, SlideState]:
        """Return every slide's state by slide id, in the order they were added."""
        with self._own_errors():
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

    def finish(self, slide_id: str, seconds: float, sha256: str, fingerprint: str) -> None:
        """Set a slide to done, with the hash of the scan that was read."""
        self._set(slide_id, state="done", finished=utc_now(), seconds=seconds, sha256=sha256, fingerprint=fingerprint)

    def fail(self, slide_id: str, reason: str, seconds: float | None = None) -> None:
        """Set a slide to failed, for a reason in one line."""
        self._set(slide_id, state="failed", reason=reason, finished=utc_now(), seconds=seconds)

    def add_reviews(self, reviews: Iterable[Review]) -> None:
        """Append reviews, all or none of them."""
        self.merge_reviews(lambda _: tuple(reviews))

    def merge_reviews(self, choose: Callable[[Sequence[Review]], Iterable[Review]]) -> None:
        """Append what `choose` makes of the reviews so far; nobody else can add any meanwhile."""
        marks = ", ".join("?" for _ in _REVIEW_COLUMNS)
        with self._transaction() as connection:
            rows = [tuple(asdict(review).values()) for review in choose(self.reviews())]
            connection.executemany(f"INSERT INTO reviews ({', '.join(_REVIEW_COLUMNS)}) VALUES ({marks})", rows)

    def reviews(self, slide_id: str | None = None) -> list[Review]:
        """Return the reviews in the order they were added, of one slide or of all."""
        where, values = ("", ()) if slide_id is None else ("WHERE slide_id = ?", (slide_id,))
        statement = f"SELECT {', '.join(_REVIEW_COLUMNS)} FROM reviews {where} ORDER BY id"
        with self._own_errors():
            return [Review(*row) for row in self._connection.execute(statement, values)]

    def record(self, actor: str, event: str, detail: str = "") -> None:
        """Append an event to the audit trail."""
        with self._transaction() as connection:
            values = (utc_now(), actor, event, detail)
            connection.execute("INSERT INTO audit (time, actor, event, detail) VALUES (?, ?, ?, ?)", values)

    def events(self) -> list[Event]:
        """Return the audit trail in order."""
        with self._own_errors():
            rows = self._connection.execute("SELECT time, actor, event, detail FROM audit ORDER BY id").fetchall()
        return [Event(*row) for row in rows]

    def _set(self, slide_id: str, **values: str | float | None) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        with self._transaction() as connection:
            connection.execute(f"UPDATE slides SET {assignments} WHERE slide_id = ?", (*values.values(), slide_id))

    def _migrate(self) -> None:
        with self._transaction() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise RunError(self.path, f"made by a newer version (schema {version})", "install a newer ctc-imaging")
            if version == 0:
                script = _SCHEMA + "".join(_APPEND_ONLY.format(table=table) for table in ("reviews", "audit"))
                # executescript would end the transaction, and a second process could come between.
                for statement in _statements(script):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _use_wal(self) -> None:
        """Let readers and a writer work at once. SQLite doesn't wait here as it does elsewhere, so this does."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._own_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise RunError(self.path, f"the ledger can't be used ({error})", "check the disk and the file") from error


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
