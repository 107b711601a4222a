"""The ledger: states of slides, and reviews and audit that only ever grow."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.errors import RunError
from ctc_imaging.store.ledger import Ledger, copy_ledger, utc_now, utc_text
from ctc_imaging.store.record import Review
from ctc_imaging.store.schema import SCHEMA_VERSION

REVIEW = Review("S1", 7, "artefact", "", "A. Reader", utc_now(), "dust", "ctc", "m" * 64, "r" * 64, "s" * 64)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as opened:
        yield opened


def test_a_slide_goes_from_pending_to_done(ledger):
    ledger.set_slides(["S1", "S2"])
    ledger.start("S1")
    assert ledger.slides()["S1"].state == "running"
    ledger.finish("S1", 2.5, "abc", "print")
    state = ledger.slides()["S1"]
    assert (state.state, state.seconds, state.sha256, state.fingerprint) == ("done", 2.5, "abc", "print")
    assert state.started <= state.finished
    assert ledger.slides()["S2"].state == "pending"


def test_a_failed_slide_keeps_its_reason_until_it_starts_again(ledger):
    ledger.set_slides(["S1"])
    ledger.fail("S1", "no such file", 0.1)
    assert ledger.slides()["S1"].reason == "no such file"
    ledger.start("S1")
    assert ledger.slides()["S1"].reason == ""


def test_reset_forgets_everything_about_a_slide(ledger):
    ledger.set_slides(["S1"])
    fresh = ledger.slides()["S1"]
    ledger.start("S1")
    ledger.finish("S1", 1.0, "abc", "print")
    ledger.reset("S1")
    assert ledger.slides()["S1"] == fresh


HASHES = {"cells.parquet": "1" * 64, "labels.ome.zarr": "2" * 64}


@pytest.mark.parametrize("leave", ["reset", "start", "fail"])
def test_a_slide_that_is_no_longer_done_has_no_hashes_of_results(ledger, leave):
    ledger.set_slides(["S1", "S2"])
    for slide_id in ("S1", "S2"):
        ledger.finish(slide_id, 1.0, "abc", "print", HASHES)
    assert ledger.results() == {"S1": HASHES, "S2": HASHES}
    getattr(ledger, leave)("S1", *(["bad"] if leave == "fail" else []))
    assert ledger.results() == {"S2": HASHES}


def test_a_slide_done_again_has_the_hashes_of_the_last_time_alone(ledger):
    ledger.set_slides(["S1"])
    ledger.finish("S1", 1.0, "abc", "print", HASHES)
    ledger.finish("S1", 1.0, "abc", "print", {"cells.parquet": "3" * 64})
    assert ledger.results() == {"S1": {"cells.parquet": "3" * 64}}
    ledger.set_slides(["S2"])
    assert ledger.results() == {}


def test_a_slide_is_not_done_if_its_hashes_can_not_be_recorded(ledger):
    ledger.set_slides(["S1"])
    ledger.start("S1")
    with pytest.raises(RunError, match="can't be used"):
        ledger.finish("S1", 1.0, "abc", "print", {"cells.parquet": None})
    assert ledger.slides()["S1"].state == "running"
    assert ledger.results() == {}


def test_setting_slides_again_keeps_states_and_drops_strangers(ledger):
    ledger.set_slides(["S1", "S2"])
    ledger.fail("S2", "bad")
    ledger.set_slides(["S2", "S3"])
    assert {name: state.state for name, state in ledger.slides().items()} == {"S2": "failed", "S3": "pending"}


def test_everything_is_there_after_closing(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        ledger.set_slides(["S1"])
        ledger.add_reviews([REVIEW])
        ledger.record("a person", "signed", "S1")
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        assert list(ledger.slides()) == ["S1"]
        assert ledger.reviews() == [REVIEW]
        assert [(event.actor, event.event, event.detail) for event in ledger.events()] == [("a person", "signed", "S1")]


def test_reviews_of_one_slide(ledger):
    ledger.add_reviews([REVIEW, replace(REVIEW, slide_id="S2")])
    assert [review.slide_id for review in ledger.reviews("S2")] == ["S2"]


def test_several_reviews_are_added_together_or_not_at_all(ledger):
    with pytest.raises(RunError, match="can't be used"):
        ledger.add_reviews([REVIEW, replace(REVIEW, reader=None)])
    assert ledger.reviews() == []


ATTACKS = [
    "UPDATE reviews SET call = 'ctc'",
    "DELETE FROM reviews",
    "REPLACE INTO reviews SELECT 1, slide_id, cell_id, 'ctc', phenotype, reader, time, reason, earlier_call,"
    " model_hash, run_hash, slide_sha256, reading, action, detail, seal FROM reviews WHERE id = 1",
    "UPDATE OR REPLACE reviews SET id = 1",
    "UPDATE audit SET actor = 'nobody'",
    "DELETE FROM audit",
    "REPLACE INTO audit VALUES (1, '', '', '', '')",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_sql_that_would_change_a_record_is_refused(tmp_path, attack):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        ledger.add_reviews([REVIEW])
        ledger.record("a person", "signed")
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as connection:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(attack)
        assert connection.execute("SELECT call FROM reviews").fetchall() == [("artefact",)]
        assert connection.execute("SELECT actor FROM audit").fetchall() == [("a person",)]


ADDED = st.builds(
    replace,
    st.just(REVIEW),
    cell_id=st.integers(1, 3),
    call=st.sampled_from(["ctc", "leukocyte", "artefact"]),
    reader=st.sampled_from(["A", "B"]),
)


@given(st.lists(st.one_of(ADDED, st.sampled_from(ATTACKS[:4])), max_size=12))
def test_old_reviews_never_change_whatever_is_tried(steps):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        with Ledger(path, create=True) as ledger:
            seen: list[Review] = []
            for step in steps:
                if isinstance(step, Review):
                    ledger.add_reviews([step])
                else:
                    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.IntegrityError), connection:
                        connection.execute(step)
                now = ledger.reviews()
                assert now[: len(seen)] == seen
                assert len(now) == len(seen) + isinstance(step, Review)
                seen = now


READ_MANY = """
import sys
from pathlib import Path
from ctc_imaging.store.ledger import Ledger, utc_now
from ctc_imaging.store.record import Review
with Ledger(Path(sys.argv[1]), create=True) as ledger:
    for cell_id in range(25):
        ledger.add_reviews([Review("S1", cell_id, "ctc", "", sys.argv[2], utc_now(), "", "", "", "", "")])
"""


def test_two_readers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "ledger.sqlite"
    readers = [subprocess.Popen([sys.executable, "-c", READ_MANY, path, name]) for name in "AB"]
    assert [reader.wait() for reader in readers] == [0, 0]
    with Ledger(path) as ledger:
        assert sorted((review.reader, review.cell_id) for review in ledger.reviews()) == [
            (name, cell_id) for name in "AB" for cell_id in range(25)
        ]


def test_the_schema_has_a_version(tmp_path):
    path = tmp_path / "ledger.sqlite"
    Ledger(path, create=True).close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        connection.commit()
    with pytest.raises(RunError, match="newer version"):
        Ledger(path)


def test_a_copy_has_what_was_written_last_and_leaves_the_ledger_alone(ledger, tmp_path):
    (tmp_path / "copy").mkdir()
    ledger.record("a person", "signed", "S1")
    before = sorted(tmp_path.iterdir())
    copy_ledger(ledger.path, tmp_path / "copy" / "ledger.sqlite")
    assert sorted(tmp_path.iterdir()) == before
    with Ledger(tmp_path / "copy" / "ledger.sqlite") as copied:
        assert copied.events() == ledger.events()
        copied.record("a person", "signed", "S2")
    assert len(ledger.events()) == 1


def test_a_ledger_as_it_was_made_has_no_faults(ledger):
    ledger.set_slides(["S1"])
    ledger.add_reviews([REVIEW, REVIEW])
    with pytest.raises(RunError):
        ledger.add_reviews([REVIEW, replace(REVIEW, reader=None)])
    ledger.record("a person", "signed")
    assert ledger.faults() == []


def test_a_missing_ledger_is_not_made_by_looking(tmp_path):
    with pytest.raises(RunError, match="ledger is missing"):
        Ledger(tmp_path / "ledger.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("this is no database, however long it may be " * 40)
    with pytest.raises(RunError, match="ledger can't be used"):
        Ledger(path)


def test_times_are_utc_and_sort_as_text():
    winter = datetime(2026, 1, 1, 12, 0, tzinfo=timezone(timedelta(hours=8)))
    assert utc_text(winter) == "2026-01-01T04:00:00.000000+00:00"
    assert utc_text(winter.replace(tzinfo=None)) == "2026-01-01T12:00:00.000000+00:00"
    moments = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=step) for step in (0, 1, 10, 1_000_000)]
    assert sorted(map(utc_text, moments)) == list(map(utc_text, moments))
