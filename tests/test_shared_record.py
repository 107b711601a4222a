"""Reviews in a real PostgreSQL database: taken along, added by several processes, never changed, and found out if."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ctc_imaging.errors import ConfigError, RunError
from ctc_imaging.store.address import parse_url, read_address
from ctc_imaging.store.ledger import Ledger, copy_ledger
from ctc_imaging.store.record import Review

from .postgres_fixture import server

pg8000 = pytest.importorskip("pg8000.dbapi")

AT = "2026-01-01T00:00:00.000000+00:00"
REVIEW = Review("S1", 7, "artefact", "", "A. Reader", AT, "dust", "ctc", "m", "r", "a" * 64)


@pytest.fixture(scope="module")
def url():
    with server() as address:
        yield address


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as made:
        yield made


def tamper(url: str, *statements: str) -> None:
    where = parse_url(url)
    socket = f"{where.host}/.s.PGSQL.{where.port}"
    with closing(pg8000.connect(where.user, database=where.database, unix_sock=socket)) as connection:
        for statement in statements:
            connection.cursor().execute(statement)
        connection.commit()


def test_moved_reviews_are_all_there_and_new_ones_join_them(url, ledger):
    ledger.add_reviews([REVIEW, replace(REVIEW, cell_id=8, reason="a 'quoted' word, 100 % of it?")])
    before = ledger.sealed_rows()
    assert ledger.share(parse_url(url)) == 2
    assert ledger.sealed_rows() == before
    ledger.add_reviews([replace(REVIEW, cell_id=9)])
    with Ledger(ledger.path) as again:
        assert [row.review.cell_id for row in again.sealed_rows()] == [7, 8, 9]
        assert again.reviews("S2") == []
        assert again.faults() == []
    assert [event.event for event in ledger.events()] == ["reviews moved"]


def test_several_reviews_are_added_together_or_not_at_all(url, ledger):
    ledger.share(parse_url(url))
    with pytest.raises(RunError, match="reviews can't be used"):
        ledger.add_reviews([REVIEW, replace(REVIEW, reader=None)])
    assert ledger.reviews() == []
    ledger.add_reviews([REVIEW])
    assert ledger.reviews() == [REVIEW]


READ_MANY = """
import sys
from pathlib import Path
from ctc_imaging.store.ledger import Ledger, utc_now
from ctc_imaging.store.record import Review
with Ledger(Path(sys.argv[1])) as ledger:
    for cell_id in range(40):
        row = Review("S1", cell_id, "ctc", "", sys.argv[2], utc_now(), "", "", "", "", "")
        ledger.append_review(lambda _: [row], row.cell, row.reader)
"""


def test_readers_in_processes_of_their_own_lose_nothing(url, ledger):
    ledger.share(parse_url(url))
    readers = [subprocess.Popen([sys.executable, "-c", READ_MANY, ledger.path, name]) for name in "ABC"]
    assert [reader.wait() for reader in readers] == [0, 0, 0]
    rows = ledger.sealed_rows()
    assert [row.number for row in rows] == list(range(1, 121))
    assert sorted((row.review.reader, row.review.cell_id) for row in rows) == [
        (name, cell_id) for name in "ABC" for cell_id in range(40)
    ]
    assert ledger.faults() == []


@pytest.mark.parametrize("statement", ["UPDATE {} SET call = 'ctc'", "DELETE FROM {}", "TRUNCATE {}"])
def test_sql_that_would_change_a_record_is_refused(url, ledger, statement):
    address = parse_url(url)
    ledger.share(address)
    ledger.add_reviews([REVIEW])
    with pytest.raises(pg8000.DatabaseError, match="append-only"):
        tamper(url, statement.format(address.table))
    assert ledger.reviews() == [REVIEW]


def test_what_was_changed_by_force_is_found_and_named(url, ledger):
    address = parse_url(url)
    ledger.share(address)
    ledger.add_reviews([replace(REVIEW, cell_id=cell_id) for cell_id in range(5)])
    table = address.table
    free = f"ALTER TABLE {table} DISABLE TRIGGER ALL"
    tamper(url, free, f"UPDATE {table} SET call = 'ctc' WHERE id = 2", f"DELETE FROM {table} WHERE id = 4")
    assert ledger.faults() == [
        "row 2 (cell 1 of S1, A. Reader, 2026-01-01T00:00:00) isn't as it was added",
        "row 4 is missing",
    ]


def test_a_copy_of_the_ledger_knows_where_the_reviews_are(url, ledger, tmp_path):
    ledger.share(parse_url(url))
    ledger.add_reviews([REVIEW])
    (tmp_path / "copy").mkdir()
    copy_ledger(ledger.path, tmp_path / "copy" / "ledger.sqlite")
    with Ledger(tmp_path / "copy" / "ledger.sqlite") as copied:
        assert copied.reviews() == [REVIEW]


def test_a_ledger_open_elsewhere_follows_the_move(url, ledger):
    with Ledger(ledger.path) as other:
        other.add_reviews([REVIEW])
        ledger.share(parse_url(url))
        other.add_reviews([replace(REVIEW, cell_id=8)])
    assert [review.cell_id for review in ledger.reviews()] == [7, 8]


def test_reviews_are_moved_once(url, ledger):
    ledger.share(parse_url(url))
    with pytest.raises(RunError, match="moved to a server"):
        ledger.share(parse_url(url))


def test_a_server_that_is_not_there_leaves_everything_as_it_was(ledger):
    ledger.add_reviews([REVIEW])
    with pytest.raises(RunError, match="can't be used") as caught:
        ledger.share(parse_url("postgresql://a@localhost/b?host=/nowhere"))
    assert "PGPASSWORD" in str(caught.value)
    assert read_address(ledger.path) is None
    assert ledger.reviews() == [REVIEW]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://a@h/b", "mysql is no kind of server"),
        ("postgresql://a:secret@h/b", "there is a password in it"),
        ("postgresql://h/b", "user or the database is missing"),
        ("postgresql://a@h", "user or the database is missing"),
        ("postgresql://a@h:x/b", "is no address"),
        ("postgresql://a@h/b?sslmode=maybe", "sslmode=maybe isn't known"),
        ("postgresql://a@h/b?color=red", "color isn't known"),
    ],
)
def test_urls_that_say_too_little_or_too_much_are_refused(url, said):
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_damaged_address_is_told(tmp_path):
    Ledger(tmp_path / "ledger.sqlite", create=True).close()
    Path(tmp_path / "reviews.json").write_text('{"host": 1}')
    with Ledger(tmp_path / "ledger.sqlite") as ledger, pytest.raises(RunError, match="where the reviews lie"):
        ledger.reviews()
