"""The review queue without a window: order, calls, undo and redo, and what the ledger then holds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import ConfigError, RunError
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.record import Review
from ctc_imaging.store.reviews import current_reviews
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.store.standing import apply_reviews

from .napari_fixture import MODEL_HASH, write_run

pytest.importorskip("dask")
from napari_ctc.queue import ReviewQueue
from napari_ctc.queue_cells import Cell, doubt, order_cells, shuffle_cells
from napari_ctc.record import Record

from ctc_imaging.store.history import REDO, UNDO, Call, History


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("made")).path


@pytest.fixture
def run(made, tmp_path) -> RunFolder:
    shutil.copytree(made, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def rows_of(run: RunFolder) -> list[Review]:
    with Ledger(run.ledger) as ledger:
        return ledger.reviews()


def final_calls(run: RunFolder, slide_id: str) -> dict[int, str]:
    with Ledger(run.ledger) as ledger:
        reviews = current_reviews(run, ledger).get(slide_id, [])
    cells = apply_reviews(pd.read_parquet(run.slide(slide_id) / "cells.parquet"), reviews)
    return dict(zip(cells["cell_id"], cells["call"], strict=True))


def row(cell_id: int, call: str = "ctc", reason: str = "") -> Review:
    return Review("S", cell_id, call, "", "A", "2024-01-01", reason, "", "", "", "")


def test_a_call_is_in_the_ledger_at_once_with_all_that_the_record_needs(run):
    queue = ReviewQueue(run, " Dr A ")
    cell = queue.current
    queue.call("ctc", "hybrid")
    (review,) = rows_of(run)
    assert (review.slide_id, review.cell_id, review.call, review.phenotype) == (*cell.key, "ctc", "hybrid")
    assert (review.reader, review.reason, review.earlier_call) == ("Dr A", "", cell.call)
    assert review.model_hash == MODEL_HASH
    assert review.run_hash == run.read()["hash"]
    assert queue.current.key != cell.key


def test_candidates_come_first_then_the_rest_slide_by_slide_the_most_doubtful_first(run):
    queue = ReviewQueue(run, "A")
    seen = []
    for _ in range(len(queue)):
        seen.append(queue.current)
        queue.step(1)
    is_rest = [cell.call not in ("ctc", "indeterminate") for cell in seen]
    assert is_rest == sorted(is_rest)
    slides = [cell.slide_id for cell in seen if cell.call in ("ctc", "indeterminate")]
    assert slides == sorted(slides)
    table = pd.DataFrame(seen, columns=list(Cell._fields)).assign(doubt=lambda cells: doubt(cells), rest=is_rest)
    assert (
        table.groupby(["rest", "slide_id"], sort=False)["doubt"].apply(lambda part: part.is_monotonic_increasing).all()
    )


def test_doubt_is_measured_from_the_lowest_probability_that_was_still_called_ctc():
    cells = pd.DataFrame({"call": ["ctc", "ctc", "indeterminate"], "p_ctc": [0.99, 0.999, 0.97]})
    assert doubt(cells)[0] == 0
    assert doubt(cells)[2] < doubt(cells)[1]
    nobody = pd.DataFrame({"call": ["leukocyte"] * 2, "p_ctc": [0.5, 0.0]})
    assert doubt(nobody)[0] == 0
    assert np.isfinite(doubt(nobody)).all()


def test_a_blinded_reader_gets_an_order_of_chance_the_same_each_time_and_no_slide_id(run):
    plain, blinded = ReviewQueue(run, "A"), ReviewQueue(run, "A", blinded=True)
    again, other = ReviewQueue(run, "A", blinded=True), ReviewQueue(run, "B", blinded=True)
    orders = [[cell.key for cell in queue._cells] for queue in (blinded, again, other)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert set(orders[0]) == set(orders[2]) <= {cell.key for cell in plain._cells}
    assert blinded.slide_name == "slide 1 of 2"
    assert blinded.cell_name == "cell 1"
    assert plain.slide_name == plain.current.slide_id
    is_candidate = [cell.call in ("ctc", "indeterminate") for cell in blinded._cells]
    assert sum(is_candidate) == plain.progress.candidates
    assert is_candidate != sorted(is_candidate, reverse=True), "rejected cells lie among the candidates"
    assert blinded.progress.candidates == len(blinded)


def test_the_order_of_chance_does_not_tell_the_probability():
    cells = pd.DataFrame({"slide_id": "S", "cell_id": range(400), "call": "ctc", "p_ctc": np.linspace(0, 1, 400)})
    shuffled = shuffle_cells(cells, ["S"], seed=1)["p_ctc"].to_numpy()
    assert abs(np.corrcoef(shuffled, np.arange(400))[0, 1]) < 0.15


def test_the_order_for_learning_has_the_same_cells_candidates_first(run):
    plain, learning = ReviewQueue(run, "A"), ReviewQueue(run, "A", order="learning")
    assert [cell.key for cell in learning._cells] == [
        cell.key for cell in ReviewQueue(run, "A", order="learning")._cells
    ]
    assert {cell.key for cell in learning._cells} == {cell.key for cell in plain._cells}
    assert [cell.key for cell in learning._cells] != [cell.key for cell in plain._cells]
    candidates = learning.progress.candidates
    assert {cell.key for cell in learning._cells[:candidates]} == {cell.key for cell in plain._cells[:candidates]}


def test_the_order_for_learning_turns_to_each_slide_once_a_round():
    rng = np.random.default_rng(0)
    p_ctc = rng.uniform(0, 0.4, 450)
    cells = pd.DataFrame({
        "slide_id": rng.choice(["S1", "S2", "S3"], 450), "cell_id": range(450), "call": "leukocyte", "p_ctc": p_ctc,
        "p_leukocyte": 1 - p_ctc, "p_artefact": 0.0, "ck_snr": rng.lognormal(0, 1, 450),
    })  # fmt: skip
    ordered = order_cells(cells, ["S1", "S2", "S3"], order="learning")
    assert ordered["slide_id"][:100].is_monotonic_increasing
    assert set(ordered["slide_id"][100:200]) == {"S1", "S2", "S3"}


def test_an_order_that_is_not_known_is_refused(run):
    with pytest.raises(ConfigError, match="no order is called 'random'; use doubt or learning"):
        ReviewQueue(run, "A", order="random")


def test_undo_appends_and_gives_back_what_stood_before(run):
    queue = ReviewQueue(run, "A")
    cell = queue.current
    machine = final_calls(run, cell.slide_id)
    queue.call("artefact")
    queue.step(-1)
    queue.call("leukocyte")
    assert final_calls(run, cell.slide_id)[cell.cell_id] == "leukocyte"
    queue.undo()
    assert queue.current.key == cell.key
    assert queue.current_call == Call("artefact")
    assert final_calls(run, cell.slide_id)[cell.cell_id] == "artefact"
    queue.undo()
    assert queue.current_call is None
    assert final_calls(run, cell.slide_id) == machine
    assert queue.undo() is None
    assert [review.reason for review in rows_of(run)] == ["", "", UNDO, UNDO]
    queue.redo()
    queue.redo()
    assert queue.redo() is None
    assert final_calls(run, cell.slide_id)[cell.cell_id] == "leukocyte"
    assert [review.reason for review in rows_of(run)][4:] == [REDO, REDO]


def test_undo_gives_back_another_readers_call_not_the_models(run):
    first = ReviewQueue(run, "A")
    cell = first.current
    first.call("ctc", "mesenchymal")
    second = ReviewQueue(run, "B")
    assert second.current.key == cell.key
    second.call("artefact")
    second.undo()
    last = rows_of(run)[-1]
    assert (last.reader, last.call, last.phenotype, last.earlier_call) == ("B", "ctc", "mesenchymal", "artefact")
    assert second.current_call is None


def test_undo_reaches_back_over_sessions_and_redo_too(run):
    queue = ReviewQueue(run, "A")
    cells = []
    for call in ("ctc", "leukocyte", "artefact"):
        cells.append(queue.current)
        queue.call(call)
    queue.undo()
    again = ReviewQueue(run, "A")
    assert again.progress.read == 2
    assert again.current.key == cells[2].key
    again.redo()
    again.undo()
    again.undo()
    assert again.current.key == cells[1].key
    assert ReviewQueue(run, "B").progress.read == 0


def test_a_clock_set_back_does_not_make_the_newest_call_the_older_one(run, monkeypatch):
    queue = ReviewQueue(run, "A")
    cell = queue.current
    queue.call("artefact")
    monkeypatch.setattr("napari_ctc.record.utc_now", lambda: "2001-01-01T00:00:00.000000+00:00")
    queue.step(-1)
    queue.call("leukocyte")
    assert final_calls(run, cell.slide_id)[cell.cell_id] == "leukocyte"


def test_calls_of_another_scan_or_run_are_not_this_readers(run):
    queue = ReviewQueue(run, "A")
    queue.call("artefact")
    stale = rows_of(run)[0]
    with Ledger(run.ledger) as ledger:
        ledger.add_reviews([replace(stale, cell_id=2, slide_sha256="other"), replace(stale, cell_id=3, run_hash="x")])
    assert ReviewQueue(run, "A").progress.read == 1


def test_after_a_call_comes_the_next_cell_not_called_yet(run):
    queue = ReviewQueue(run, "A")
    first = queue.current.key
    queue.step(1)
    second = queue.current.key
    queue.call("artefact")
    third = queue.current.key
    queue.step(-2)
    assert queue.current.key == first
    queue.call("artefact")
    assert queue.current.key == third
    assert third not in (first, second)


def test_the_queue_ends_at_both_ends_and_when_all_is_read(run):
    queue = ReviewQueue(run, "A")
    queue.step(-5)
    assert queue.position == 0
    queue.step(10**6)
    assert queue.position == len(queue) - 1
    queue.record.history = History()
    for cell in queue._cells:
        queue.record.history.add(replace(row(cell.cell_id), slide_id=cell.slide_id))
    queue.call("artefact")
    assert queue.position == len(queue) - 1
    progress = queue.progress
    assert progress.read == progress.total == len(queue)
    assert progress.candidates_read == progress.candidates


def test_the_pace_is_of_the_latest_calls(run, monkeypatch):
    queue = ReviewQueue(run, "A")
    moments = iter([0.0, 4.0, 6.0])
    monkeypatch.setattr("napari_ctc.queue.time", SimpleNamespace(monotonic=lambda: next(moments)))
    queue.call("artefact")
    assert queue.progress.per_minute is None
    queue.call("artefact")
    queue.call("artefact")
    assert queue.progress.per_minute == pytest.approx(20)


def test_what_cannot_be_reviewed_says_so(run, tmp_path):
    with pytest.raises(RunError, match="no run here"):
        ReviewQueue(RunFolder(tmp_path / "nothing"), "A")
    with pytest.raises(RunError, match="no name"):
        Record(run, "  ")
    with Ledger(run.ledger) as ledger:
        for slide_id in ledger.slides():
            ledger.fail(slide_id, "broken")
    with pytest.raises(RunError, match="no cell to review"):
        ReviewQueue(run, "A")


@settings(max_examples=60)
@given(st.lists(st.one_of(st.tuples(st.integers(1, 3), st.sampled_from(["ctc", "artefact"])), st.sampled_from("uuur"))))
def test_rows_alone_tell_calls_undo_and_redo(steps):
    """Against the plainest model there is: a list of calls and a list of calls taken back."""
    history, done, undone = History(), [], []
    rows = []
    for step in steps:
        if isinstance(step, tuple):
            done.append(step)
            undone.clear()
            rows.append(row(*step))
        elif step == "u" and done:
            undone.append(done.pop())
            rows.append(row(undone[-1][0], reason=UNDO))
        elif step == "r" and undone:
            done.append(undone.pop())
            rows.append(row(*done[-1], reason=REDO))
        else:
            continue
        history.add(rows[-1])
    for told in (history, History(rows)):
        said = dict(done)
        assert told.called() == {("S", cell_id) for cell_id in said}
        for cell_id in (1, 2, 3):
            call = said.get(cell_id)
            assert told.call(("S", cell_id)) == (call and Call(call))
        assert (told.last and told.last.cell_id) == (done[-1][0] if done else None)
        assert (told.last_undone and told.last_undone.cell_id) == (undone[-1][0] if undone else None)
