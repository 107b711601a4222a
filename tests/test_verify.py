"""Verify: a run as it was made passes; whatever was changed, lost or added since is named, and nothing is touched."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.cli import main
from ctc_imaging.config import Settings
from ctc_imaging.errors import RunError
from ctc_imaging.files import sha256_file, sha256_json
from ctc_imaging.recount import recount
from ctc_imaging.store.ledger import Ledger, utc_now
from ctc_imaging.store.manifest import hash_parts
from ctc_imaging.store.record import Review
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.verify import verify_run

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture(scope="module")
def fake():
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(FAKES)
        import fake_pipeline

        fake_pipeline.without_heavy_parts(patched)
        yield fake_pipeline


def whole_run(fake, folder: Path) -> RunFolder:
    """Make a run of two slides as a batch leaves it."""
    run = fake.make_run(folder, {"S1": "a", "S2": "b"})
    for slide_id in ("S1", "S2"):
        (run.slide(slide_id) / "labels.ome.zarr" / "0").write_bytes(b"labels")
    with Ledger(run.ledger) as ledger:
        for slide_id, state in ledger.slides().items():
            ledger.finish(slide_id, 1.0, state.sha256, "", hash_parts(run.slide(slide_id)))
    recount(run)
    return run


@pytest.fixture
def run(fake, tmp_path) -> RunFolder:
    return whole_run(fake, tmp_path)


def faults(run: RunFolder) -> list[str]:
    return [str(finding) for finding in verify_run(run.path).faults]


def notes(run: RunFolder) -> list[str]:
    return [str(finding) for finding in verify_run(run.path).notes]


def sql(run: RunFolder, *statements: str) -> None:
    with closing(sqlite3.connect(run.ledger)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def everything_in(folder: Path) -> dict[str, str]:
    return {str(path): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_as_it_was_made_has_no_faults_and_stays_as_it_is(run):
    run.path.joinpath(".lock").touch()
    before = everything_in(run.path)
    told = []
    checked = verify_run(run.path, told.append)
    assert (checked.slides, checked.findings) == (2, ())
    assert [(tally.total, tally.done, tally.failed) for tally in told] == [(2, 0, 0), (2, 1, 0), (2, 2, 0)]
    assert everything_in(run.path) == before


def test_what_a_batch_makes_passes(fake, tmp_path):
    from ctc_imaging.batch import run_cohort

    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a", "S2": "raise", "S3": "b"})
    run_cohort(cohort, tmp_path / "run", Settings(), workers=1, process=fake.process)
    checked = verify_run(tmp_path / "run")
    assert (checked.slides, checked.findings) == (2, ())


def test_what_a_pseudonymised_batch_makes_passes_but_for_its_scans(fake, tmp_path):
    from ctc_imaging.batch import run_cohort
    from ctc_imaging.inputs import ensure_key

    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a", "S2": "b"})
    ensure_key(tmp_path / "key", tmp_path / "run")
    options = {"workers": 1, "process": fake.process, "pseudonymise": tmp_path / "key"}
    run_cohort(cohort, tmp_path / "run", Settings(), **options)
    checked = verify_run(tmp_path / "run")
    assert (checked.slides, checked.faults) == (2, ())
    assert ["doesn't keep where its scans lie" in str(finding) for finding in checked.notes] == [True]


def flip(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where % len(data)] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def module_run(fake, tmp_path_factory) -> RunFolder:
    return whole_run(fake, tmp_path_factory.mktemp("verify"))


@settings(max_examples=15)
@given(st.data())
def test_one_flipped_bit_in_any_result_scan_or_count_is_found(module_run, data):
    run = module_run
    scans = [*run.path.parent.glob("input/slides/*.tif")]
    results = [path for path in run.slides.rglob("*") if path.is_file() and path.stat().st_size]
    watched = sorted([*scans, *results, run.slides_csv, run.counts_csv, run.timeline_csv, run.table("cohort")])
    path = data.draw(st.sampled_from(watched))
    before = path.read_bytes()
    flip(path, data.draw(st.integers(0, len(before) - 1)))
    try:
        found = verify_run(run.path).faults
    finally:
        path.write_bytes(before)
    assert any(path.is_relative_to(finding.where) for finding in found), path


def test_a_damaged_part_is_named_with_its_remedy_and_the_remedy_helps(fake, tmp_path):
    from ctc_imaging.batch import run_cohort

    cohort = fake.write_cohort(tmp_path / "input", {"S1": "a"})
    run_cohort(cohort, tmp_path / "run", Settings(), workers=1, process=fake.process)
    run = RunFolder(tmp_path / "run")
    flip(run.slide("S1") / "cells.parquet", 100)
    (line,) = faults(run)
    assert line.startswith(f"{run.slide('S1') / 'cells.parquet'}: has changed since it was made; remove the folder")
    shutil.rmtree(run.slide("S1"))
    run_cohort(cohort, tmp_path / "run", Settings(), workers=1, process=fake.process)
    assert faults(run) == []


def test_missing_and_foreign_files_are_named(run):
    (run.slide("S1") / "overview.png").unlink()
    (run.slide("S1") / "thesis.docx").touch()
    (run.slides / "S9").mkdir()
    shutil.rmtree(run.slide("S2") / "labels.ome.zarr")
    found = "\n".join(faults(run))
    assert f"{run.slide('S1') / 'overview.png'}: is missing" in found
    assert f"{run.slide('S1') / 'thesis.docx'}: isn't a result of this run; move it away" in found
    assert f"{run.slide('S2') / 'labels.ome.zarr'}: is missing" in found
    assert f"{run.slides / 'S9'}: belongs to no slide" in found


def test_a_slide_whose_folder_is_gone_is_missing_in_all_its_parts(run):
    shutil.rmtree(run.slide("S1"))
    assert [line for line in faults(run) if "quality.json: is missing" in line]


def test_a_scan_that_is_gone_is_a_note_and_a_changed_one_a_fault(run, tmp_path):
    scan = tmp_path / "input" / "slides" / "S1.tif"
    scan.write_text("another")
    assert [line.split(";")[0] for line in faults(run)] == [f"{scan}: the scan has changed since it was processed"]
    scan.unlink()
    assert faults(run) == []
    assert "isn't there any more" in notes(run)[0]


def rewritten(run: RunFolder, **changes) -> dict:
    facts = {**json.loads(run.description.read_text()), **changes}
    run.description.write_text(json.dumps(facts))
    return facts


def test_a_changed_run_json_is_found_whether_or_not_its_hash_was_changed_too(run):
    facts = run.read()
    rewritten(run, configuration={**facts["configuration"], "seed": 7})
    assert "its configuration isn't the one its identity names" in faults(run)[0]
    identity = {**facts["identity"], "cohort": {"slides": 2, "hash": "0" * 64}}
    rewritten(run, configuration=facts["configuration"], identity=identity)
    assert "its hash isn't that of its identity" in "".join(faults(run))
    rewritten(run, hash=sha256_json(identity))
    assert "its cohort isn't the one its identity names" in faults(run)[0]


def test_a_panel_that_was_touched_is_found(run):
    facts = run.read()
    clusters = {**facts["panel"]["clusters"], "max_gap_um": 99.0}
    rewritten(run, panel={**facts["panel"], "clusters": clusters})
    assert "its panel isn't the one its slides were read with" in faults(run)[0]
    panels = {called: {**panel, "clusters": clusters} for called, panel in facts["panels"].items()}
    rewritten(run, panel=facts["panel"], panels=panels)
    assert "its panel isn't the one its identity names" in faults(run)[0]


def test_a_run_of_another_version_is_checked_but_for_its_identity(run):
    identity = {**run.read()["identity"], "version": {"number": "0.0.1"}}
    rewritten(run, identity=identity, hash=sha256_json(identity))
    assert faults(run) == []
    assert "its identity wasn't computed anew; version 0.0.1" in notes(run)[0]


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2}', '{"schema": "2"}', '{"schema": 0}'])
def test_a_damaged_run_json_is_a_fault_and_the_slides_are_checked_all_the_same(run, text):
    run.description.write_text(text)
    flip(run.slide("S2") / "cells.parquet", 50)
    found = faults(run)
    assert "run.json: damaged" in found[0]
    assert any("cells.parquet: has changed" in line for line in found)


def test_tables_that_were_changed_lost_or_added_are_named(run):
    text = run.table("cohort").read_text()
    run.table("cohort").write_text(text.replace("7.5", "5.0"))
    assert "isn't the table that run.json names" in faults(run)[0]
    run.table("cohort").unlink()
    assert "cohort.csv: is missing" in faults(run)[0]
    run.table("cohort").write_text(text)
    run.table("markers").write_text("patient_id,date,marker,value\n")
    assert "markers.csv: isn't the table" in faults(run)[0]


def test_another_model_is_a_note(run, monkeypatch):
    import ctc_imaging.inputs

    monkeypatch.setattr(ctc_imaging.inputs, "model_hash", lambda name: "1" * 64)
    assert faults(run) == []
    assert "model default installed now is another" in notes(run)[0]


def test_a_model_that_is_not_installed_is_a_note(run, monkeypatch):
    import ctc_imaging.inputs
    from ctc_imaging.errors import ModelError

    def gone(name):
        raise ModelError(name, "no such model", "install it")

    monkeypatch.setattr(ctc_imaging.inputs, "model_hash", gone)
    assert (faults(run), len(notes(run))) == ([], 1)


def review_of(run: RunFolder, slide_id: str, cell_id: int) -> Review:
    with Ledger(run.ledger) as ledger:
        sha256 = ledger.slides()["S1"].sha256
    names = ("A. Reader", utc_now(), "", "ctc")
    return Review(slide_id, cell_id, "ctc", "", *names, "0" * 64, run.read()["hash"], sha256)


def test_a_review_since_the_last_count_asks_for_a_new_count(run):
    cells = pd.read_parquet(run.slide("S1") / "cells.parquet")
    cell_id = int(cells.loc[cells["call"] == "ctc", "cell_id"].iloc[0])
    with Ledger(run.ledger) as ledger:
        ledger.add_reviews([review_of(run, "S1", cell_id)])
    assert f"{run.counts_csv}: isn't what cells and reviews give now; ctc-imaging counts" in "".join(faults(run))
    recount(run)
    assert faults(run) == []


def test_reviews_of_what_the_run_does_not_have_are_named_and_those_of_another_run_are_not(run):
    review = review_of(run, "S1", 999)
    with Ledger(run.ledger) as ledger:
        ledger.add_reviews([replace(review, run_hash="another", slide_id="old")])
    assert faults(run) == []
    with Ledger(run.ledger) as ledger:
        ledger.add_reviews([review, replace(review, slide_id="S9")])
    assert ["S1, which has no cell 999" in line or "S9, which is no slide" in line for line in faults(run)] == [
        True
    ] * 2


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        (["DROP TRIGGER reviews_no_delete"], "trigger reviews_no_delete is missing"),
        (["DROP TRIGGER audit_no_update", "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT 1; END"],
         "trigger audit_no_update is not as"),
        (["DROP TRIGGER audit_no_delete", "DELETE FROM audit WHERE id = 1"], "of 2 records ever added to audit"),
        (["DELETE FROM slides WHERE slide_id = 'S1'"], "slides aren't those of tables/cohort.csv"),
        (["DELETE FROM results WHERE slide_id = 'S1'"], "the hashes of its results are missing"),
        (["UPDATE results SET sha256 = '' WHERE part = 'quality.json'"], "quality.json: has changed"),
    ],
)  # fmt: skip
def test_a_ledger_that_was_tampered_with_is_found(run, statements, said):
    with Ledger(run.ledger) as ledger:
        ledger.record("A. Reader", "signed", "S1")
        ledger.record("A. Reader", "signed", "S2")
    assert faults(run) == []
    sql(run, *statements)
    assert said in "\n".join(faults(run))


def test_a_damaged_or_missing_ledger_is_a_fault(run):
    pages = run.ledger.read_bytes()
    run.ledger.write_bytes(pages[:4096] + b"\xff" * 4096 + pages[8192:])
    assert all(str(run.ledger) in line for line in faults(run)[:1])
    run.ledger.write_bytes(b"no database at all " * 500)
    assert "can't be used" in faults(run)[0]
    run.ledger.unlink()
    assert "the ledger is missing" in faults(run)[0]


def test_what_a_stopped_run_left_is_a_note(run):
    run.new_partial("S1")
    with Ledger(run.ledger) as ledger:
        ledger.reset("S2")
        ledger.start("S2")
    assert faults(run) == []
    found = "\n".join(notes(run))
    assert "left behind by a run that was stopped" in found
    assert "results of a slide that is running" in found
    assert "1 slides are still to do" in found


def test_results_from_before_hashes_are_a_note_and_damage_to_them_no_traceback(run):
    newer = [f"ALTER TABLE reviews DROP COLUMN {name}" for name in ("reading", "action", "detail", "seal")]
    indices = ["DROP INDEX reviews_of_action", "DROP INDEX reviews_of_reader"]
    sql(run, "DROP TABLE results", *indices, *newer, "PRAGMA user_version = 1")
    assert faults(run) == []
    assert ["before they were hashed" in line for line in notes(run)] == [True, True]
    with closing(sqlite3.connect(run.ledger)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    (run.slide("S1") / "cells.parquet").write_bytes(b"PAR1")
    assert "its results are damaged (ArrowInvalid); remove the folder and run" in faults(run)[0]


def test_a_run_at_work_is_left_alone(run, capsys):
    with run.locked():
        assert main(["verify", str(run.path)]) == 2
    assert "another run is at work in this folder" in capsys.readouterr().err


def test_a_folder_that_is_no_run_or_of_a_newer_version_is_refused(run, tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "there is no run here" in capsys.readouterr().err
    rewritten(run, schema=99)
    with pytest.raises(RunError, match=r"run\.json: made by a newer version"):
        verify_run(run.path)
    rewritten(run, schema=2)
    sql(run, "PRAGMA user_version = 99")
    with pytest.raises(RunError) as caught:
        verify_run(run.path)
    assert caught.value.where == str(run.ledger)


def test_the_command_prints_a_line_a_fault_and_a_summary(run, capsys):
    assert main(["verify", str(run.path)]) == 0
    assert capsys.readouterr().out == "2 slides verified, 0 faults, 0 notes\n"
    run.counts_csv.unlink()
    assert main(["verify", str(run.path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{run.counts_csv}: is missing; ctc-imaging counts {run.path}",
        "2 slides verified, 1 faults, 0 notes",
    ]
    assert main(["verify", str(run.path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["slides"], told["notes"]) == (2, [])
    assert told["faults"][0]["where"] == str(run.counts_csv)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a disk as Linux does")
def test_a_run_on_a_disk_that_can_only_be_read_can_be_verified(run):
    bound = subprocess.run(["mount", "--bind", run.path, run.path], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("mounting a disk takes more rights than these tests have")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", run.path], check=True)
        assert not os.access(run.path, os.W_OK)
        assert verify_run(run.path).findings == ()
    finally:
        subprocess.run(["umount", run.path], check=True)
