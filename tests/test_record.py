"""The sealed record, what undone rows leave, how several readers' words are settled, and corrected outlines."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.errors import SignedError
from ctc_imaging.store.history import REDO, UNDO, History
from ctc_imaging.store.ledger import COUNTED, Ledger
from ctc_imaging.store.outline_marks import (
    ADDED_FROM,
    INTO,
    POINT,
    POLYGON,
    apply_marks,
    detail_of,
    polygon_area_um2,
)
from ctc_imaging.store.record import ADD, MERGE, OUTLINE, SIGN, Review, SealedRow, broken_seals, seal
from ctc_imaging.store.signatures import AMENDS, as_amendment, signatures_of
from ctc_imaging.store.standing import ADJUDICATION, UNSETTLED, apply_reviews, disputed_cells, settle, words_of

ROW = Review("S1", 7, "artefact", "", "A", "2026-01-01T00:00:00.000000+00:00", "", "ctc", "m", "r", "a" * 64)


def at(minute: int, **changes) -> Review:
    return replace(ROW, time=f"2026-01-01T00:{minute:02d}:00.000000+00:00", **changes)


def sealed(rows: list[Review]) -> list[SealedRow]:
    chain, before = [], ""
    for number, row in enumerate(rows, start=1):
        before = seal(before, number, row)
        chain.append(SealedRow(number, before, row))
    return chain


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
ROWS = st.lists(st.builds(replace, st.just(ROW), cell_id=st.integers(1, 5), reason=TEXTS, reader=TEXTS), max_size=8)


@given(ROWS)
def test_a_record_as_it_was_added_has_no_broken_seal(rows):
    assert list(broken_seals(sealed(rows))) == []


@given(ROWS.filter(len), st.data())
def test_any_change_of_any_row_is_found_and_the_row_named(rows, data):
    chain = sealed(rows)
    place = data.draw(st.integers(0, len(chain) - 1))
    name, value = data.draw(
        st.sampled_from([("call", "other"), ("reader", "\x00x"), ("cell_id", 99), ("time", ""), ("detail", "{}")])
    )
    chain[place] = replace(chain[place], review=replace(chain[place].review, **{name: value}))
    assert [fault.split(" (")[0] for fault in broken_seals(chain)] == [f"row {place + 1}"]


@given(ROWS.filter(lambda rows: len(rows) > 1), st.data())
def test_a_row_taken_out_is_found_and_the_rows_after_it_are_not_blamed(rows, data):
    chain = sealed(rows)
    place = data.draw(st.integers(0, len(chain) - 2))
    del chain[place]
    assert list(broken_seals(chain)) == [f"row {place + 1} is missing"]


def test_rows_that_changed_places_are_found():
    chain = sealed([replace(ROW, cell_id=cell) for cell in (1, 2, 3)])
    swapped = [chain[0], replace(chain[1], review=chain[2].review), replace(chain[2], review=chain[1].review)]
    assert len(list(broken_seals(swapped))) == 2


def altered(path, *statements: str) -> None:
    triggers = ("reviews_no_update", "reviews_no_delete", "reviews_no_replace")
    with closing(sqlite3.connect(path)) as connection, connection:
        made = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall())
        for name in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        for name in triggers:
            connection.execute(made[name])


def test_a_row_altered_by_hand_is_found_and_named(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, create=True) as ledger:
        ledger.add_reviews([replace(ROW, cell_id=cell) for cell in range(1, 5)])
    altered(path, "UPDATE reviews SET call = 'ctc' WHERE id = 3")
    with Ledger(path) as ledger:
        assert ledger.faults() == ["row 3 (cell 3 of S1, A, 2026-01-01T00:00:00) isn't as it was added"]


def test_who_seals_everything_anew_is_found_by_what_was_counted(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, create=True) as ledger:
        ledger.add_reviews([replace(ROW, cell_id=cell) for cell in (1, 2)])
        ledger.record("ctc-imaging counts", COUNTED, "{} {}".format(*ledger.head()))
    forged = sealed([replace(ROW, cell_id=1, call="ctc"), replace(ROW, cell_id=2)])
    changes = [
        f"UPDATE reviews SET call = '{row.review.call}', seal = '{row.seal}' WHERE id = {row.number}" for row in forged
    ]
    altered(path, *changes)
    with Ledger(path) as ledger:
        assert [fault[:54] for fault in ledger.faults()] == ["row 2 of the reviews isn't the one that was counted on"]


def test_one_row_costs_the_same_however_many_there_are(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        ledger.add_reviews([replace(ROW, cell_id=cell) for cell in range(1, 200)])
        seen: list[SealedRow] = []
        ledger.append_review(lambda rows: seen.extend(rows) or [replace(ROW, call="ctc")], ROW.cell, "A")
        assert [row.review.cell_id for row in seen] == [7, 199], "the cell's own, and the reader's latest"
        assert ledger.sealed_rows()[-1].number == 200
        assert ledger.faults() == []


# What undone rows leave


def undone(row: Review, reason: str = UNDO) -> Review:
    return replace(row, reason=reason)


def test_undone_rows_leave_nothing_and_redone_ones_come_back():
    first, second = at(1, cell_id=1), at(2, cell_id=2)
    history = History([first, second, undone(second), undone(first)])
    assert history.called() == set()
    history.add(undone(first, REDO))
    assert history.standing == (first,)


def test_a_reason_given_afterwards_takes_the_place_of_the_bare_call_and_is_undone_with_it():
    bare, with_reason = at(1), at(1, reason="dye")
    history = History([bare, with_reason])
    assert history.standing == (with_reason,)
    history.add(undone(with_reason))
    assert history.standing == ()


STEPS = st.lists(st.sampled_from(["a", "b", "undo", "redo"]), max_size=14)


@given(STEPS)
def test_history_is_what_a_list_with_a_pointer_would_be(steps):
    history, done, gone = History(), [], []
    for place, step in enumerate(steps):
        row = at(place % 60, cell_id=1 if step == "a" else 2)
        if step in ("a", "b"):
            done, gone = [*done, row], []
        elif step == "undo" and done:
            gone.append(done.pop())
        elif step == "redo" and gone:
            done.append(gone.pop())
        history.add(row if step in ("a", "b") else replace(row, reason=step))
        assert history.standing == tuple(done)


# How several readers' words are settled


def word(reader: str, call: str, minute: int = 0, reading: str = "", **more) -> Review:
    return at(minute, reader=reader, call=call, reading=reading, **more)


BLIND = "blinded"


@pytest.mark.parametrize(
    ("words", "call", "deciders", "disputed"),
    [
        ([word("A", "ctc"), word("B", "leukocyte", 1)], "leukocyte", ("B",), False),
        ([word("A", "ctc", 0, BLIND), word("B", "ctc", 1, BLIND)], "ctc", ("A", "B"), False),
        ([word("A", "ctc", 0, BLIND), word("B", "leukocyte", 1, BLIND)], UNSETTLED, ("A", "B"), True),
        (
            [word("A", "ctc", 0, BLIND), word("B", "leukocyte", 1, BLIND), word("C", "ctc", 2, BLIND)],
            *("ctc", ("A", "C"), True),
        ),
        (
            [word("A", "ctc", 0, BLIND), word("B", "leukocyte", 1, BLIND), word("C", "leukocyte", 2, ADJUDICATION)],
            *("leukocyte", ("C",), False),
        ),
        (
            [word("A", "ctc", 0, BLIND), word("C", "leukocyte", 1, ADJUDICATION), word("B", "artefact", 2, BLIND)],
            *("leukocyte", ("C",), True),
        ),
        ([word("A", "ctc"), word("B", "leukocyte", 1, BLIND)], "ctc", ("A",), True),
        ([word("A", "ctc", 0, BLIND), word("A", "leukocyte", 1, "blinded, round 2")], "leukocyte", ("A",), False),
    ],
    ids=["later open", "agree", "disagree", "majority", "settled", "after settling", "open and blinded", "repeat"],
)
def test_words_are_settled(words, call, deciders, disputed):
    standing = settle(words)
    assert (standing.call, standing.deciders, standing.disputed) == (call, deciders, disputed)


def test_exercises_count_for_nothing():
    assert words_of([word("A", "ctc", reading="test"), word("B", "ctc", reading="test 2026, round 2")]) == {}
    assert len(words_of([word("A", "ctc", reading="testing ground")])) == 1


def test_disputed_cells_come_with_every_readers_word():
    rows = [word("A", "ctc", 0, BLIND), word("B", "artefact", 1, BLIND), word("A", "ctc", 2, BLIND, cell_id=8)]
    assert {cell: [row.reader for row in words] for cell, words in disputed_cells(rows).items()} == {7: ["A", "B"]}
    assert disputed_cells([*rows, word("C", "ctc", 5, ADJUDICATION)]) == {}


CELLS = pd.DataFrame(
    {
        "cell_id": [7, 8, 9],
        "y_um": [10.0, 20.0, 30.0],
        "x_um": [10.0, 20.0, 30.0],
        "y_px": [20.0, 40.0, 60.0],
        "x_px": [20.0, 40.0, 60.0],
        "area_um2": [50.0, 60.0, 70.0],
        "diameter_um": [8.0, 9.0, 10.0],
        "call": ["ctc", "leukocyte", "artefact"],
        "phenotype": ["hybrid", "", ""],
        "cluster_id": [1, 1, 0],
        "at_edge": [False, False, True],
        "edges": ["", "", "top"],
        "assessed": [True, True, False],
    }
)


def test_a_first_call_that_is_undone_leaves_the_cell_unreviewed():
    rows = [word("A", "leukocyte"), replace(word("A", "ctc", 1), reason=UNDO)]
    final = apply_reviews(CELLS, rows)
    assert not final["reviewed"].any()
    assert final["call"].tolist() == CELLS["call"].tolist()


# Corrected outlines


def test_a_missed_cell_is_added_with_a_place_and_nothing_measured_and_can_be_called():
    added = at(1, cell_id=ADDED_FROM, call="", action=ADD, detail=detail_of(**{POINT: [5.0, 6.0]}))
    final = apply_reviews(CELLS, [added, at(2, cell_id=ADDED_FROM, call="ctc", phenotype="hybrid")])
    assert final.dtypes[CELLS.columns].astype(str).tolist() == CELLS.dtypes.astype(str).tolist()
    cell = final.iloc[-1]
    assert (cell["y_um"], cell["x_px"], cell["call"], cell["machine_call"]) == (5.0, 12.0, "ctc", "")
    assert (cell["at_edge"], cell["edges"], cell["assessed"], cell["cluster_id"]) == (False, "", True, 0)
    assert pd.isna(cell["area_um2"])
    assert len(apply_reviews(CELLS, [added, replace(added, reason=UNDO)])) == 3


def test_a_doubled_cell_goes_into_the_other():
    merged = at(1, cell_id=8, call="", action=MERGE, detail=detail_of(**{INTO: 7}))
    assert apply_marks(CELLS, [merged])["cell_id"].tolist() == [7, 9]


def test_a_new_outline_gives_area_and_diameter():
    square = [[0.0, 0.0], [0.0, 10.0], [10.0, 10.0], [10.0, 0.0]]
    drawn = at(1, cell_id=8, call="", action=OUTLINE, detail=detail_of(**{POLYGON: square}))
    final = apply_marks(CELLS, [drawn, at(2, cell_id=7, call="", action=OUTLINE, detail=detail_of(wrong=True))])
    assert final["area_um2"].tolist() == [50.0, 100.0, 70.0]
    assert final["diameter_um"].round(3).tolist() == [8.0, 11.284, 10.0]


def test_polygon_area_does_not_depend_on_where_it_lies_or_which_way_it_was_drawn():
    triangle = pd.DataFrame({"y": [0, 0, 6], "x": [0, 8, 0]}).to_numpy(float)
    assert polygon_area_um2(triangle) == polygon_area_um2(triangle[::-1] + 1000) == 24


# Signatures


def signature(minute: int = 3) -> Review:
    detail = {"sample_id": "T1", "slides": {"S1": "a" * 64}, "counts": {"ctc": 2}}
    return at(minute, slide_id="", cell_id=0, call="", slide_sha256="", action=SIGN, detail=json.dumps(detail))


@pytest.fixture
def signed(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", create=True) as ledger:
        ledger.add_reviews([at(1), signature()])
        yield ledger


def test_a_signed_sample_is_locked(signed):
    for row in (at(5), at(5, reason="dye"), at(5, detail=json.dumps({AMENDS: 2}))):
        with pytest.raises(SignedError, match="sample T1: the sample was signed by A on 2026-01-01; give a reason"):
            signed.add_reviews([row])
        with pytest.raises(SignedError):
            signed.append_review(lambda _, row=row: [row], row.cell, row.reader)
    assert len(signed.sealed_rows()) == 2


def test_an_amendment_says_what_it_amends(signed):
    (made,) = signatures_of(signed.sealed_rows())
    signed.add_reviews([as_amendment(at(5, reason="seen again"), [made])])
    assert signed.reviews()[-1].details == {AMENDS: made.number}


def test_other_slides_other_scans_and_exercises_are_not_locked(signed):
    free = [at(5, slide_id="S2"), at(5, slide_sha256="b" * 64), at(5, run_hash="x"), at(5, reading="test 1")]
    signed.add_reviews(free)
    assert len(signed.reviews()) == 1 + len(free)


def test_a_signature_is_no_review(signed):
    assert [row.action for row in signed.reviews()] == ["call"]
