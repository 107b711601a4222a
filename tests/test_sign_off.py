"""Signing a sample, amending it, and what counts, status and verify then say; sets of cells for blinded reading."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.cli import main
from ctc_imaging.errors import ConfigError, RunError, SignedError, TableError
from ctc_imaging.readings import cells_of_table, inclusion_probabilities, make_set, reading_set, set_path
from ctc_imaging.recount import recount
from ctc_imaging.sign_off import sign_sample, status_lines
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.reviews import import_reviews
from ctc_imaging.store.run_folder import RunFolder

from .napari_fixture import write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("made")).path


@pytest.fixture
def run(made, tmp_path) -> RunFolder:
    import shutil

    shutil.copytree(made, tmp_path / "run")
    return RunFolder(tmp_path / "run")


FIRST, SECOND = "P1-before", "P1-month1"


def cells_of(run: RunFolder, slide_id: str = FIRST) -> pd.DataFrame:
    return pd.read_parquet(run.slide(slide_id) / "cells.parquet")


def sample_of(run: RunFolder, slide_id: str = FIRST) -> str:
    tables = recount(run)
    return str(tables.slides.set_index("slide_id").loc[slide_id, "sample_id"])


def read_all(run: RunFolder, reader: str = "A", slide_id: str = FIRST, reading: str = "", **calls: str) -> None:
    """Call every candidate of a slide CTC, with a reason, or as `calls` says by cell, c12="artefact"."""
    cells = cells_of(run, slide_id)
    candidates = cells.loc[cells["call"].isin(["ctc", "indeterminate"]), "cell_id"]
    rows = pd.DataFrame({"slide_id": slide_id, "cell_id": candidates, "reader": reader, "reading": reading})
    rows["call"] = [calls.get(f"c{cell}", "ctc") for cell in candidates]
    rows["reason"] = ["dye" if call != "ctc" else "" for call in rows["call"]]
    file = run.path.parent / f"{reader}.csv"
    rows.to_csv(file, index=False)
    import_reviews(run, file)


def test_a_sample_is_signed_when_nothing_is_left_to_do(run):
    sample = sample_of(run)
    with pytest.raises(RunError, match=rf"sample {sample}: \d+ candidates are unread; finish the review, then sign"):
        sign_sample(run, sample, "A")
    read_all(run)
    signature = sign_sample(run, sample, " A ")
    tables = recount(run)
    counts = tables.counts.set_index("sample_id")
    assert counts["signed_by"].tolist() == ["A", ""]
    assert counts.loc[sample, "ctc"] == signature.counts["ctc"]
    row = tables.sign_off.set_index("sample_id").loc[sample]
    assert (row["ready"], row["signed_by"], row["ctc_signed"], row["amendments"]) == (True, "A", row["ctc"], 0)
    assert row["candidates_read"] == row["candidates"] == row["ctc"] > 0


def test_disputes_and_missing_reasons_keep_a_sample_from_being_signed(run):
    cell = int(cells_of(run).query("call == 'ctc'")["cell_id"].iloc[0])
    sample = sample_of(run)
    read_all(run, "A", reading="blinded")
    read_all(run, "B", reading="blinded", **{f"c{cell}": "artefact"})
    with pytest.raises(RunError, match="1 cells wait for adjudication"):
        sign_sample(run, sample, "A")
    bare = pd.DataFrame([{"slide_id": FIRST, "cell_id": cell, "reader": "C", "call": "artefact"}])
    bare.assign(reading="adjudication").to_csv(run.path.parent / "bare.csv", index=False)
    import_reviews(run, run.path.parent / "bare.csv")
    with pytest.raises(RunError, match="1 CTCs of the model were overruled without a reason"):
        sign_sample(run, sample, "A")
    bare.assign(reading="adjudication", reason="dye").to_csv(run.path.parent / "why.csv", index=False)
    import_reviews(run, run.path.parent / "why.csv")
    assert sign_sample(run, sample, "C").counts["artefact"] > 0


def test_after_signing_calls_are_amendments_and_counted_as_such(run):
    sample = sample_of(run)
    read_all(run)
    before = sign_sample(run, sample, "A").counts["ctc"]
    cell = int(cells_of(run).query("call == 'ctc'")["cell_id"].iloc[0])
    late = pd.DataFrame([{"slide_id": FIRST, "cell_id": cell, "reader": "B", "call": "leukocyte"}])
    file = run.path.parent / "late.csv"
    late.to_csv(file, index=False)
    with pytest.raises(SignedError, match="give a reason"):
        import_reviews(run, file)
    late.assign(reason="CD45").to_csv(file, index=False)
    import_reviews(run, file)
    row = recount(run).sign_off.set_index("sample_id").loc[sample]
    assert (row["ctc_signed"], row["ctc"], row["amendments"], row["signed_by"]) == (before, before - 1, 1, "A")
    sign_sample(run, sample, "B")
    table = recount(run).sign_off
    row = table.set_index("sample_id").loc[sample]
    assert (row["ctc_signed"], row["amendments"], row["signed_by"]) == (before - 1, 0, "B")
    assert status_lines(table)[-1].startswith(f"{sample}: {before - 1} CTCs")


def test_a_signature_of_another_scan_signs_nothing(run):
    sample = sample_of(run)
    read_all(run)
    sign_sample(run, sample, "A")
    with Ledger(run.ledger) as ledger:
        state = ledger.slides()[FIRST]
        ledger.finish(FIRST, 1.0, "f" * 64, state.fingerprint)
    assert recount(run).counts["signed_by"].tolist() == ["", ""]


def test_the_commands_sign_and_say_so(run, capsys):
    sample = sample_of(run)
    read_all(run)
    assert main(["review", "sign", str(run.path), sample, "--reader", "A", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed_by"] == "A"
    assert main(["review", "status", str(run.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "not ready to be signed" in lines[0]
    assert "signed by A" in lines[1]
    assert main(["review", "sign", str(run.path), "nobody", "--reader", "A"]) == 2
    assert "there is no such sample with results" in capsys.readouterr().err


def test_verify_finds_a_review_altered_by_hand(run, capsys):
    from .test_record import altered

    read_all(run)
    recount(run)
    altered(run.ledger, "UPDATE reviews SET call = 'artefact' WHERE id = 2")
    assert main(["verify", str(run.path)]) != 0
    said = "".join(capsys.readouterr())
    assert "row 2 (cell" in said
    assert "isn't as it was added" in said


# Sets of cells for blinded reading


def test_a_set_has_all_candidates_and_a_sample_of_the_rest_and_stays_what_it_is(run):
    made = make_set(run, "round 1", rejected=10)
    kinds = made.cells["kind"].value_counts()
    every = pd.concat([cells_of(run, slide) for slide in (FIRST, SECOND)])
    assert kinds["candidate"] == every["call"].isin(["ctc", "indeterminate"]).sum()
    assert kinds["rejected"] == 10
    rejected = made.cells[made.cells["kind"] == "rejected"]
    assert rejected["inclusion_probability"].between(0, 1, inclusive="neither").all()
    pd.testing.assert_frame_equal(
        reading_set(run, "round 1").cells, made.cells[list(reading_set(run, "round 1").cells)]
    )
    assert make_set(run, "round 2", rejected=10).cells.equals(made.cells), "the same seed draws the same"
    with pytest.raises(RunError, match="there is a set of this name already"):
        make_set(run, "round 1")


def test_a_set_that_was_changed_afterwards_is_refused(run):
    make_set(run, "round 1", rejected=3)
    path = set_path(run, "round 1")
    path.write_text(path.read_text().replace("rejected", "candidate"))
    with pytest.raises(RunError, match="it isn't the set that was made"):
        reading_set(run, "round 1")
    with pytest.raises(RunError, match="there is no such set of cells; make it with"):
        reading_set(run, "round 2")


@pytest.mark.parametrize("name", ["", "a/b", "../up", "adjudication", "x" * 41, ".hidden"])
def test_names_that_can_not_name_a_set_are_refused(run, name):
    with pytest.raises(ConfigError, match="can't name a set"):
        make_set(run, name)


def test_a_gallery_for_proficiency_testing_has_just_the_cells_of_a_table(run, capsys):
    ids = cells_of(run)["cell_id"].iloc[:5]
    table = run.path.parent / "gallery.csv"
    pd.DataFrame({"slide_id": FIRST, "cell_id": ids}).to_csv(table, index=False)
    assert main(["review", "set", str(run.path), "test 2026", "--cells", str(table)]) == 0
    assert "5 chosen; read it with ctc-imaging review" in capsys.readouterr().out
    assert reading_set(run, "test 2026").cells["cell_id"].tolist() == ids.tolist()
    pd.DataFrame({"slide_id": FIRST, "cell_id": [ids.iloc[0]] * 2}).to_csv(table, index=False)
    with pytest.raises(TableError, match="stands twice"):
        cells_of_table(table)
    with pytest.raises(RunError, match="has no cell 999999"):
        make_set(run, "test 2", chosen=[(FIRST, 999999)])


SIZES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30)


@given(SIZES, st.integers(1, 40))
def test_inclusion_probabilities_sum_to_the_sample_and_grow_with_size(sizes, count):
    sizes = np.array(sizes)
    chances = inclusion_probabilities(sizes, count)
    assert chances.sum() == pytest.approx(min(count, len(sizes)))
    assert ((chances > 0) & (chances <= 1)).all()
    order = np.argsort(sizes)
    assert (np.diff(chances[order]) >= -1e-9).all()


def test_cells_are_drawn_as_often_as_their_inclusion_probability_says():
    from ctc_imaging.readings import _systematic

    chances = inclusion_probabilities(np.array([1.0, 1.0, 2.0, 4.0, 40.0]), 3)
    drawn = [_systematic(chances, np.random.default_rng(seed)) for seed in range(2000)]
    assert {len(sample) for sample in drawn} == {3}
    rate = np.bincount(np.concatenate(drawn), minlength=5) / 2000
    np.testing.assert_allclose(rate, chances, atol=0.035)


def test_exercises_never_reach_the_counts(run):
    before = recount(run).counts
    read_all(run, reading="test 2026")
    after = recount(run).counts
    assert after["reviewed"].sum() == 0
    pd.testing.assert_frame_equal(before, after)


def test_blinded_readers_are_compared_and_missed_ctcs_estimated(run, capsys):
    made = make_set(run, rejected=20)
    calls = made.cells.assign(call=np.where(made.cells["kind"] == "candidate", "ctc", "leukocyte"))
    found = calls.index[calls["kind"] == "rejected"][0]
    for reader, reading, changed in (("A", "blinded", found), ("B", "blinded", 0), ("A", "blinded, round 2", found)):
        table = calls.assign(reader=reader, reading=reading)[["slide_id", "cell_id", "call", "reader", "reading"]]
        table.loc[changed, "call"] = "ctc" if changed else "artefact"
        file = run.path.parent / f"{reader}-{reading}.csv"
        table.to_csv(file, index=False)
        import_reviews(run, file)
    assert main(["review", "agreement", str(run.path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (pair,) = facts["pairs"]
    assert (pair["cells"], pair["same"]) == (len(calls), len(calls) - 2)
    assert facts["missed"]["A"]["found"] == 1
    chance = made.cells.loc[found, "inclusion_probability"]
    assert facts["missed"]["A"]["value"] == pytest.approx(1 / chance, rel=1e-4)
    assert facts["missed"]["B"]["found"] == 0 < facts["missed"]["B"]["high"]
    assert facts["rounds"]["A"][0]["same"] == len(calls)
    assert main(["review", "agreement", str(run.path)]) == 0
    lines = capsys.readouterr().out
    assert "A and B: " in lines
    assert "CTCs among all that the model rejected, by A" in lines
    assert main(["review", "agreement", str(run.path), "--set", "nothing"]) == 2
    make_set(run, "unread")
    assert main(["review", "agreement", str(run.path), "--set", "unread"]) == 2
    assert "nobody has read set unread" in capsys.readouterr().err
