"""Older runs: brought to this version in one step, losing nothing; newer ones are refused."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

import ctc_imaging.store.schema as schema
from ctc_imaging.errors import RunError, VersionError
from ctc_imaging.files import sha256_json
from ctc_imaging.store.ledger import MIGRATED, Ledger
from ctc_imaging.store.record import Review
from ctc_imaging.store.run_folder import SCHEMA_VERSION, RunFolder

# As version 1 wrote it, to the letter.
VERSION_1 = """
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
CREATE TRIGGER reviews_no_update BEFORE UPDATE ON reviews
BEGIN SELECT RAISE(ABORT, 'reviews is append-only'); END;
CREATE TRIGGER reviews_no_delete BEFORE DELETE ON reviews
BEGIN SELECT RAISE(ABORT, 'reviews is append-only'); END;
CREATE TRIGGER reviews_no_replace BEFORE INSERT ON reviews
WHEN EXISTS (SELECT 1 FROM reviews WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'reviews is append-only'); END;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
"""
AT, LATER = "2026-01-01T00:00:00.000000+00:00", "2026-01-01T00:01:00.000000+00:00"
SLIDES = [
    ("S1", "done", "", AT, LATER, 60.0, "a" * 64, "f" * 64),
    ("S2", "failed", "an empty file", AT, LATER, 1.0, "", ""),
    ("S3", "pending", "", "", "", None, "", ""),
]
REVIEW = Review("S1", 7, "artefact", "", "A. Reader", LATER, "dust", "ctc", "m", "r", "a" * 64)
EVENT = (AT, "ctc-imaging run", "started", "ctc-imaging run cohort.csv")


@pytest.fixture
def old(tmp_path):
    """Give the path of a ledger of version 1 with slides, a review and an event."""
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
        connection.execute("PRAGMA user_version = 1")
        connection.executemany("INSERT INTO slides VALUES (?, ?, ?, ?, ?, ?, ?, ?)", SLIDES)
        values = tuple(REVIEW.__dict__.values())[:11]
        connection.execute("INSERT INTO reviews VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        connection.execute("INSERT INTO audit VALUES (NULL, ?, ?, ?, ?)", EVENT)
    return path


def dump(path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [*connection.iterdump(), *map(str, connection.execute("PRAGMA user_version"))]


def test_a_ledger_of_version_1_loses_nothing(old):
    before = set(dump(old))
    with Ledger(old) as ledger:
        assert [(*state.__dict__.values(),) for state in ledger.slides().values()] == SLIDES
        assert ledger.reviews() == [REVIEW]
        first, migrated = ledger.events()
        assert (*first.__dict__.values(),) == EVENT
        assert (migrated.event, migrated.detail) == (MIGRATED, "schema 1 to 3")
        assert ledger.results() == {}
        assert ledger.faults() == []
    gone = before - set(dump(old))
    # The table of reviews got columns; its rows were looked at above.
    assert {line for line in gone if "sqlite_sequence" not in line and "reviews" not in line} == {"(1,)"}


def test_a_migrated_ledger_is_as_a_new_one(old, tmp_path):
    Ledger(old).close()
    Ledger(tmp_path / "new.sqlite", create=True).close()
    made = []
    for path in (old, tmp_path / "new.sqlite"):
        with closing(sqlite3.connect(path)) as connection:
            made.append(sorted(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")))
    assert made[0] == made[1]


def test_a_migrated_ledger_takes_hashes_and_is_migrated_once(old):
    with Ledger(old) as ledger:
        ledger.finish("S3", 1.0, "b", "f", {"cells.parquet": "c"})
    with Ledger(old) as ledger:
        assert ledger.results() == {"S3": {"cells.parquet": "c"}}
        assert len(ledger.events()) == 2


def test_a_migration_that_fails_leaves_version_1_as_it_was(old, monkeypatch):
    before = dump(old)
    broken = (schema._SCRIPTS[0], schema._SCRIPTS[1] + "CREATE TABLE slides (again TEXT);\n")
    monkeypatch.setattr(schema, "_SCRIPTS", broken)
    with pytest.raises(RunError, match="already exists"):
        Ledger(old)
    assert dump(old) == before
    monkeypatch.undo()
    with Ledger(old) as ledger:
        assert ledger.reviews() == [REVIEW]


def test_records_of_version_1_can_not_be_changed_after_it_either(old):
    Ledger(old).close()
    with closing(sqlite3.connect(old)) as connection:
        for attack in ("UPDATE reviews SET call = 'ctc'", "DELETE FROM audit"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(attack)


@pytest.fixture
def run(tmp_path):
    """Give a run that schema 1 described."""
    identity = {"version": {"number": "0.1.0"}}
    facts = {
        "schema": 1,
        "version": "0.1.0",
        "command": ["ctc-imaging", "run"],
        "created": "2026-01-01T00:00:00+00:00",
        "simulated": False,
        "configuration": {"seed": 3},
        "panel": {},
        "panels": {},
        "model": {"name": "default", "hash": "0" * 64},
        "identity": identity,
        "hash": sha256_json(identity),
    }
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    folder.description.write_text(json.dumps(facts))
    return folder


def test_facts_of_schema_1_get_what_came_later_by_default(run):
    before = json.loads(run.description.read_text())
    later = {"pseudonymised": False, "pseudonym_key": None, "nuclei": None}
    assert run.read() == {**before, "schema": SCHEMA_VERSION, **later}
    assert json.loads(run.description.read_text()) == before


def test_describing_a_run_of_schema_1_anew_keeps_when_it_was_made(run):
    before = run.read()
    facts = {name: before[name] for name in ("configuration", "panel", "panels", "model")}
    run.describe(before["identity"], {**facts, "created": "now", "command": ["another"], "pseudonymised": True})
    after = json.loads(run.description.read_text())
    assert (after["schema"], after["pseudonymised"]) == (SCHEMA_VERSION, True)
    assert (after["created"], after["command"]) == (before["created"], before["command"])


@pytest.mark.parametrize("later", [SCHEMA_VERSION + 1, 99])
def test_a_newer_schema_is_refused(run, later):
    run.description.write_text(run.description.read_text().replace('"schema": 1', f'"schema": {later}'))
    with pytest.raises(VersionError, match=f"made by a newer version \\(schema {later}\\); install a newer"):
        run.read()


@pytest.mark.parametrize("schema", ['"1"', "0", "-1", "null", "1.5"])
def test_a_schema_that_never_was_is_damage(run, schema):
    run.description.write_text(run.description.read_text().replace('"schema": 1', f'"schema": {schema}'))
    with pytest.raises(RunError, match=r"run\.json: damaged"):
        run.read()
