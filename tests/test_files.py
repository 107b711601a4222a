"""Files: whole or not there at all; hashes that change with every byte."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.files import (
    atomic_path,
    sha256_file,
    sha256_json,
    sync_tree,
    write_csv,
    write_json,
    write_parquet,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    target = tmp_path / "counts.csv"
    write_text(target, "old")

    def half_write():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_stands_at_the_target_before_the_write_ends(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == target.suffix
    assert target.read_text() == "whole"


def opened(handle: int) -> Path:
    return Path(f"/proc/self/fd/{handle}").readlink()


@pytest.fixture
def synced(monkeypatch):
    """List what is written to disk for good, in order, instead of doing it."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc to tell what was synced")
    done = []
    monkeypatch.setattr(os, "fsync", lambda handle: done.append(opened(handle)))
    return done


def test_a_file_is_safe_on_disk_before_it_stands_and_its_name_after(tmp_path, synced):
    write_text(tmp_path / "counts.csv", "whole")
    temporary, folder = synced
    assert (temporary.parent, temporary.name[0], folder) == (tmp_path, ".", tmp_path)


def test_a_folder_is_safe_on_disk_with_all_that_is_in_it(tmp_path, synced):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    sync_tree(tmp_path)
    assert sorted(synced) == [tmp_path / name for name in ("", "a", "a/b", "a/b/file")]


@pytest.mark.skipif(os.name != "posix", reason="folders can't be synced here")
@pytest.mark.parametrize(("number", "bearable"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_disk_that_knows_no_sync_of_folders_is_used_all_the_same(tmp_path, monkeypatch, number, bearable):
    def refuse(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", refuse)
    if bearable:
        write_text(tmp_path / "counts.csv", "whole")
    else:
        with pytest.raises(OSError, match="no"):
            write_text(tmp_path / "counts.csv", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["counts.csv"]


def test_tables_come_back_as_written(tmp_path):
    table = pd.DataFrame({"name": ["a", 'ü,\n"'], "value": [1.5, None]})
    write_csv(tmp_path / "t.csv", table)
    write_parquet(tmp_path / "t.parquet", table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), table)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table)


def test_json_refuses_what_json_has_no_word_for(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    write_json(tmp_path / "x.json", {"µm": 1})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"µm": 1}


@given(st.dictionaries(st.text(max_size=5), st.integers(), min_size=1))
def test_the_hash_of_json_ignores_the_order_of_keys_only(value):
    turned = dict(reversed(value.items()))
    assert sha256_json(value) == sha256_json(turned)
    assert sha256_json(value) != sha256_json({**value, next(iter(value)): "other"})


def test_the_hash_of_a_folder_sees_names_and_bytes(tmp_path):
    hashes = set()
    for name, text in (("a", "1"), ("b", "1"), ("b", "2")):
        folder = tmp_path / f"{name}{text}"
        write_text(folder / "deep" / name, text)
        hashes.add(sha256_file(folder))
    assert len(hashes) == 3
    assert sha256_file(tmp_path / "a1" / "deep" / "a") == sha256_file(tmp_path / "b1" / "deep" / "b")
