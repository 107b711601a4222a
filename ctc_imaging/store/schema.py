"""The tables of a ledger, the way there from every earlier version, and what is amiss in a file as it lies there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from ctc_imaging.store.record import COLUMNS, Review, seal

SCHEMA_VERSION = 3
RECORDS = ("reviews", "audit")
"""Tables that only ever grow."""

_VERSION_1 = """
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
# The SHA-256 of every part of a done slide's results, as they were when they were made.
_VERSION_2 = """
CREATE TABLE results (
    slide_id TEXT NOT NULL,
    part TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (slide_id, part)
);
"""
# What a row does and in which reading, and the seal that ties it to the row before.
_VERSION_3 = """
DROP TRIGGER reviews_no_update;
DROP TRIGGER reviews_no_delete;
DROP TRIGGER reviews_no_replace;
ALTER TABLE reviews ADD COLUMN reading TEXT NOT NULL DEFAULT '';
ALTER TABLE reviews ADD COLUMN action TEXT NOT NULL DEFAULT 'call';
ALTER TABLE reviews ADD COLUMN detail TEXT NOT NULL DEFAULT '';
ALTER TABLE reviews ADD COLUMN seal TEXT NOT NULL DEFAULT '';
CREATE INDEX reviews_of_action ON reviews (action);
CREATE INDEX reviews_of_reader ON reviews (reader);
"""
# The script at place n leads from version n to version n + 1; what stood there once is never changed.
_SCRIPTS = (_VERSION_1 + "".join(_APPEND_ONLY.format(table=table) for table in RECORDS), _VERSION_2, _VERSION_3)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of a ledger's schema, 0 of an empty file."""
    return connection.execute("PRAGMA user_version").fetchone()[0]


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a ledger to `SCHEMA_VERSION`, within the transaction that is open."""
    # executescript would end the transaction, and a second process could come between.
    for version, script in enumerate(_SCRIPTS[version_of(connection) :], start=version_of(connection) + 1):
        for statement in _statements(script):
            connection.execute(statement)
        if version == 3:
            _seal_all(connection)
            for statement in _statements(_APPEND_ONLY.format(table="reviews")):
                connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _seal_all(connection: sqlite3.Connection) -> None:
    """Seal the rows that are there; their numbers are counted from 1, as they always were."""
    before = ""
    for number, *row in connection.execute(f"SELECT id, {', '.join(COLUMNS)} FROM reviews ORDER BY id").fetchall():
        before = seal(before, number, Review(*row))
        connection.execute("UPDATE reviews SET seal = ? WHERE id = ?", (before, number))


def ledger_faults(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield what is wrong with a ledger of this version: damaged pages, other tables or triggers, lost records."""
    damage = [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    if damage:
        yield f"the file is damaged ({' '.join(damage[0].split())})"
    with closing(sqlite3.connect(":memory:")) as fresh:
        upgrade(fresh)
        expected, found = _objects(fresh), _objects(connection)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            yield f"{name} {'is missing' if name not in found else 'is not as this version makes it'}"
    for table in RECORDS:
        count, last = connection.execute(f"SELECT count(*), coalesce(max(id), 0) FROM {table}").fetchone()
        given = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        ever = max(last, given[0] if given else 0)
        if count != ever:
            yield f"of {ever} records ever added to {table} there are {count}"


def _objects(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute("SELECT type || ' ' || name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return dict(rows.fetchall())


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
