"""The RUN folder: results stand whole or not at all, whenever and wherever the machine stops."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.errors import RunError
from ctc_imaging.files import sha256_file, write_text
from ctc_imaging.store.manifest import hash_parts
from ctc_imaging.store.run_folder import SLIDE_PARTS, RunFolder, missing_parts


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    return folder


def grow(run: RunFolder, text: str, slide_id: str = "S1") -> Path:
    """Make whole results that say `text`."""
    partial = run.new_partial(slide_id)
    for part in SLIDE_PARTS:
        write_text(partial / part / "0" if part.endswith(".zarr") else partial / part, text)
    return partial


def said(run: RunFolder, slide_id: str = "S1") -> set[str]:
    """Return what a slide's results say; nothing if it has none."""
    folder = run.slide(slide_id)
    assert not folder.exists() or missing_parts(folder) == []
    return {path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_published_results_stand_whole_and_leave_nothing_behind(run):
    run.publish("S1", grow(run, "old"))
    assert said(run) == {"old"}
    run.publish("S1", grow(run, "new"))
    assert said(run) == {"new"}
    assert [path.name for path in run.slides.iterdir()] == ["S1"]


class Killed(BaseException):
    """What ends a process at once; nothing in the code may catch it."""


def publish(run: RunFolder, text: str, stop_at: int | None = None, error: BaseException | None = None) -> int:
    """Publish results while the system call at place `stop_at` raises; return how many calls there were."""
    count = 0

    def counted(call):
        def one(*arguments, **options):
            nonlocal count
            count += 1
            if count - 1 == stop_at:
                raise error
            return call(*arguments, **options)

        return one

    partial = grow(run, text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", counted(os.fsync))
        patched.setattr(Path, "replace", counted(Path.replace))
        patched.setattr(shutil, "rmtree", counted(shutil.rmtree))
        run.publish("S1", partial)
    return count


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(errno.EIO, "Input/output error"), RunError), (Killed(), Killed)]
)
def test_wherever_publishing_fails_or_is_killed_results_are_whole_or_gone(run, error, raised):
    publish(run, "old")
    calls = publish(run, "old")
    assert calls > 8
    # The last call removes what is old, and may fail unheard.
    for place in range(calls - 1 if raised is RunError else calls):
        with pytest.raises(raised):
            publish(run, "new", place, error)
        assert said(run) in ({"old"}, {"new"}, set())
        run.discard_partial()
        publish(run, "old")
        assert said(run) == {"old"}


def test_a_disk_that_fails_is_called_so(run):
    with pytest.raises(RunError, match="the disk fails to read or write; check the disk"):
        publish(run, "new", 0, OSError(errno.EIO, "Input/output error"))
    assert said(run) == set()


def test_killed_while_discarding_no_half_of_the_results_is_left(run, monkeypatch):
    def kill(*_, **__):
        raise Killed

    publish(run, "old")
    monkeypatch.setattr(shutil, "rmtree", kill)
    with pytest.raises(Killed):
        run.discard("S1")
    assert said(run) == set()


def test_discarding_takes_the_attempts_of_that_slide_alone(run):
    run.publish("S1", grow(run, "whole"))
    for slide_id in ("S1", "S1", "S1.b", "S[1]"):
        run.new_partial(slide_id)
    run.discard("S1")
    assert not run.slide("S1").exists()
    assert (run.partials("S1"), len(run.partials("S1.b")), len(run.partials("S[1]"))) == ([], 1, 1)
    run.discard_partial()
    assert list(run.slides.iterdir()) == []


@given(st.text(alphabet="ab.[]*- ", min_size=1, max_size=6))
def test_every_attempt_has_a_folder_of_its_own(tmp_path_factory, slide_id):
    run = RunFolder(tmp_path_factory.mktemp("attempts"))
    attempts = {run.new_partial(slide_id) for _ in range(3)}
    assert sorted(attempts) == run.partials(slide_id) == run.partials()


def test_every_part_of_the_results_has_a_hash_that_sees_each_byte_of_it(run):
    partial = grow(run, "a")
    write_text(partial / "quality.png", "a")
    hashes = hash_parts(partial)
    assert list(hashes) == sorted([*SLIDE_PARTS, "quality.png"])
    assert hashes["labels.ome.zarr"] == sha256_file(partial / "labels.ome.zarr")
    write_text(partial / "labels.ome.zarr" / "0", "b")
    changed = hash_parts(partial)
    assert {name for name in hashes if hashes[name] != changed[name]} == {"labels.ome.zarr"}


def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path):
    (tmp_path / "thesis.docx").touch()
    with pytest.raises(RunError, match=r"not a run, and not empty \(thesis.docx\)"):
        RunFolder(tmp_path).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_run_can_not_lie_where_a_file_is(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(RunError, match="can't be written to"):
        RunFolder(tmp_path / "run").prepare()
