"""Room on the disk: asked for before a run starts, and a full or unwritable disk is told in one line."""

from __future__ import annotations

import errno
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.cohort import SlideEntry
from ctc_imaging.config import Settings
from ctc_imaging.disk import SlideSize, check_space, check_writable, disk_errors, needed_bytes
from ctc_imaging.errors import RunError, disk_fault
from ctc_imaging.files import write_json, write_text
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.run_folder import RunFolder

SIZES = st.builds(SlideSize, st.tuples(st.integers(1, 6), st.integers(1, 10**5), st.integers(1, 10**5)), st.just(2))


@pytest.fixture
def small_disk(tmp_path):
    """Give a disk of 2 MB, or skip, saying so."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder]
    if not sys.platform.startswith("linux") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk takes Linux and more rights than these tests have")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path, leave: int = 0) -> None:
    """Write until the disk is full, then give back `leave` bytes."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            file.truncate(file.tell() - leave)


def talk(ledger: Ledger) -> None:
    """Say more than a small disk can hold."""
    for number in range(1000):
        ledger.record("a reader", "said", f"{number} " + "much " * 1000)


def test_a_slide_needs_its_pixels_once_and_its_results():
    size = SlideSize((4, 20_000, 20_000), 2)
    assert size.scratch_bytes == 3_200_000_000
    assert 0.5e9 < size.result_bytes < 1e9


@given(st.lists(SIZES, max_size=8), st.integers(1, 10))
def test_a_run_needs_all_results_and_one_working_copy_a_worker(slides, workers):
    results = sum(size.result_bytes for size in slides)
    scratch = sorted((size.scratch_bytes for size in slides), reverse=True)
    assert needed_bytes(slides, workers) == results + sum(scratch[:workers])
    assert needed_bytes(slides, workers) <= needed_bytes(slides, workers + 1)


def test_the_results_of_a_dense_slide_fit_into_what_is_asked_for_them(tmp_path):
    from ctc_imaging.pipeline import process_slide
    from ctc_imaging.simulation import simulate_slide, write_slide

    write_slide(simulate_slide((700, 700), ctc=5, leukocytes=460, seed=1, setting="dense"), tmp_path)
    entry = SlideEntry(
        tmp_path / "slide.ome.tif", "P1", date(2024, 1, 1), 5.0, "S1", "P1", "patient",
        None, 5.0, None, None, None, None, None,
    )  # fmt: skip
    folder = tmp_path / "done"
    folder.mkdir()
    process_slide(entry, folder, Settings())
    taken = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    pictures = sum(size for path, size in taken.items() if path.suffix == ".png")
    size, blank = SlideSize((4, 700, 700), 2), SlideSize((4, 0, 0), 2)
    asked = size.result_bytes - blank.result_bytes
    assert pictures < blank.result_bytes
    assert asked / 4 < sum(taken.values()) - pictures < asked


def test_room_is_asked_for_before_it_is_needed(tmp_path):
    check_space(tmp_path, 1000)
    with pytest.raises(RunError, match=r"the run needs about 1000\.0 TB, .* are free; free some space or give another"):
        check_space(tmp_path / "not" / "yet" / "there", 10**15)


@pytest.mark.parametrize(("free", "said"), [(3_400_000_000, "3.4 GB"), (999_700, "1.0 MB"), (12, "12 bytes")])
def test_sizes_are_written_as_a_person_would(tmp_path, monkeypatch, free, said):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free}))
    with pytest.raises(RunError, match=f"needs about 12 GB, {said} are free"):
        check_space(tmp_path, 12_000_000_000)


def test_a_small_disk_has_no_room_for_a_large_slide(small_disk):
    with pytest.raises(RunError, match=r"needs about 11 MB, 2\.1 MB are free"):
        check_space(small_disk / "run", SlideSize((4, 300, 300), 2).result_bytes + 720_000)


@pytest.mark.parametrize("place", ["a file", "a file/run", "/proc/run", "/dev/null/run"])
def test_a_folder_that_can_not_be_made_is_named(tmp_path, place):
    (tmp_path / "a file").touch()
    with pytest.raises(RunError) as caught:
        RunFolder(tmp_path / place).prepare()
    assert str(tmp_path / place) in caught.value.where
    assert "\n" not in str(caught.value)


def test_a_folder_that_can_be_written_to_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "only be read"),
        (errno.EACCES, "perm"),
    ],
)
def test_what_the_system_says_of_a_disk_gets_a_name_and_a_remedy(number, fault):
    with pytest.raises(RunError, match=f"/data/run: .*{fault}.*; "), disk_errors(Path("/data/run")):
        raise OSError(number, "as the system says")


def test_other_faults_go_through_as_they_are():
    assert disk_fault(OSError("no number")) is None
    with pytest.raises(FileNotFoundError), disk_errors(Path("/data/run")):
        raise FileNotFoundError(errno.ENOENT, "no such file")


def test_on_a_full_disk_no_file_is_half_written(small_disk):
    write_json(small_disk / "counts.json", {"ctc": 1})
    fill(small_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(small_disk / "counts.json", "x" * 10_000)
    assert disk_fault(caught.value) == ("the disk is full", "free some space and run the same command again")
    assert (small_disk / "counts.json").read_text() == '{\n  "ctc": 1\n}\n'
    assert sorted(path.name for path in small_disk.iterdir()) == ["counts.json", "filler"]


def test_on_a_full_disk_the_ledger_says_so_and_keeps_what_it_has(small_disk):
    with Ledger(small_disk / "ledger.sqlite", create=True) as ledger:
        ledger.set_slides(["S1"])
        fill(small_disk)
        with pytest.raises(RunError, match=r"full.*free some space and run the same command again"):
            talk(ledger)
        (small_disk / "filler").unlink()
        before = len(ledger.events())
        ledger.record("a reader", "said", "again")
        assert len(ledger.events()) == before + 1
        assert ledger.faults() == []


def test_a_run_on_a_full_disk_is_refused_before_it_starts(small_disk):
    fill(small_disk)
    with pytest.raises(RunError, match="the disk is full; free some space"):
        RunFolder(small_disk / "run").prepare()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mounts a disk as Linux does")
def test_a_disk_that_can_only_be_read_is_called_so(small_disk):
    with Ledger(small_disk / "ledger.sqlite", create=True) as ledger:
        ledger.set_slides(["S1"])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(RunError, match="the disk can only be read; choose a folder that can be written to"):
        RunFolder(small_disk / "run").prepare()
    with pytest.raises(RunError, match="copy the run to a disk that can be written to"):
        Ledger(small_disk / "ledger.sqlite")


def test_results_are_not_published_from_a_full_disk(small_disk, monkeypatch):
    import ctc_imaging.store.run_folder as module

    run = RunFolder(small_disk / "run")
    run.prepare()
    partial = run.new_partial("S1")
    np.save(partial / "cells.npy", np.zeros(10))

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "sync_tree", full)
    with pytest.raises(RunError, match="the disk is full"):
        run.publish("S1", partial)
    assert not run.slide("S1").exists()
