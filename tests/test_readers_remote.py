"""Slides in object storage: read by URL as from a disk, chunk by chunk, and copied with each byte read once."""

import hashlib
import pickle
import shutil
import sys
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile
import zarr
from fsspec.implementations.memory import MemoryFileSystem

from ctc_imaging.errors import SlideError
from ctc_imaging.files import sha256_file
from ctc_imaging.readers import remote
from ctc_imaging.slide import open_slide

IMAGE = np.random.default_rng(4).integers(1, 4000, (2, 300, 260)).astype(np.uint16)


@pytest.fixture
def bucket():
    """An empty store in memory."""
    storage = fsspec.filesystem("memory")
    yield storage
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]


def upload(storage, local, name):
    for file in local.rglob("*") if local.is_dir() else [local]:
        if file.is_file():
            storage.pipe_file(f"/{name}/{file.relative_to(local).as_posix()}".removesuffix("/."), file.read_bytes())
    return f"memory://{name}"


def write_tiff(path):
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Channel": {"Name": ["DAPI", "CK"]}}
    tifffile.imwrite(path, IMAGE, ome=True, tile=(64, 64), compression="zlib", metadata=metadata)
    return path


def write_folder(path):
    path.mkdir()
    for name, plane in zip(("CK", "DAPI"), IMAGE, strict=True):
        tifffile.imwrite(path / f"{name}.tif", plane)
    (path / "notes.txt").write_text("not part of the scan")
    return path


def write_zarr(path):
    scale = [{"type": "scale", "scale": [1, 0.5, 0.5]}]
    axes = [{"name": name, "type": kind} for name, kind in (("c", "channel"), ("y", "space"), ("x", "space"))]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
    group = zarr.open_group(path, mode="w", zarr_format=3, attributes=attributes)
    options = {"chunks": (1, 64, 64), "shards": (1, 128, 128), "config": {"write_empty_chunks": True}}
    group.create_array("0", shape=IMAGE.shape, dtype=IMAGE.dtype, **options)[...] = IMAGE
    group.create_array("1", shape=(2, 9, 9), dtype=IMAGE.dtype)[...] = 7
    return path


WRITERS = {"scan.ome.tif": write_tiff, "scan folder": write_folder, "scan.ome.zarr": write_zarr}


@pytest.mark.parametrize("name", WRITERS)
def test_a_url_reads_as_the_local_slide(tmp_path, bucket, name):
    local = WRITERS[name](tmp_path / name)
    with open_slide(local) as here, open_slide(upload(bucket, local, f"scans/{name}")) as there:
        for what in ("reader", "shape", "dtype", "pixel_size_um", "channel_names", "chunk_shapes_px"):
            assert getattr(here, what) == getattr(there, what)
        region = (range(2), 50, 290, 60, 200)
        np.testing.assert_array_equal(here.read(*region), there.read(*region))
        assert here.chunks_read == there.chunks_read
        names = [path.relative_to(local.parent).as_posix() for path in here.files]
        assert [path.path.removeprefix("/scans/") for path in there.files] == names
        assert str(there.path) == f"memory://scans/{name}"


def test_only_the_chunks_beneath_a_region_are_fetched(tmp_path, bucket, monkeypatch):
    url = upload(bucket, write_zarr(tmp_path / "scan.ome.zarr"), "scan.ome.zarr")
    fetched = []
    whole = MemoryFileSystem.cat_file

    def counted(self, path, start=None, end=None, **options):
        data = whole(self, path, start=start, end=end, **options)
        fetched.append((path, len(data)))
        return data

    with open_slide(url) as slide:
        monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
        slide.read([1], 10, 20, 10, 20)
    assert [path for path, _ in fetched] == ["/scan.ome.zarr/0/c/1/0/0"] * 2
    assert sum(size for _, size in fetched) < bucket.size("/scan.ome.zarr/0/c/1/0/0") / 2


def test_a_missing_chunk_in_storage_is_refused(tmp_path, bucket):
    url = upload(bucket, write_zarr(tmp_path / "scan.ome.zarr"), "scan.ome.zarr")
    bucket.rm("/scan.ome.zarr/0/c/1/2/1")
    with pytest.raises(SlideError, match="0/c/1/2/1 was never written"):
        open_slide(url)


def no_lists(*_, **__):
    raise PermissionError("listing")


@pytest.mark.parametrize("find", [lambda *_, **__: {}, no_lists])
def test_where_a_server_gives_no_lists_a_missing_chunk_is_refused_when_read(tmp_path, bucket, monkeypatch, find):
    url = upload(bucket, write_zarr(tmp_path / "scan.ome.zarr"), "scan.ome.zarr")
    bucket.rm("/scan.ome.zarr/0/c/1/2/1")
    monkeypatch.setattr(MemoryFileSystem, "find", find)
    with open_slide(url) as slide, pytest.raises(SlideError, match="0/c/1/2/1 was never written"):
        slide.read([1], 260, 300, 130, 140)


def test_what_is_not_there_is_refused(bucket):
    with pytest.raises(SlideError, match=r"memory://scans/none\.tif: no such file"):
        open_slide("memory://scans/none.tif")


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/scan.tif", "s3fs"), ("gs://bucket/scan.ome.zarr", "gcsfs")])
def test_a_protocol_without_its_driver_names_the_package(url, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url[:2], raising=False)
    with pytest.raises(SlideError, match=f'pip install "{package}"') as caught:
        open_slide(url)
    assert str(caught.value).startswith(url)


def test_what_a_driver_raises_is_a_refusal(monkeypatch):
    class StorageError(Exception):
        pass

    def fail(*_, **__):
        raise StorageError("SECRET-KEY")

    module = type(sys)("botocore.exceptions")
    module.BotoCoreError = StorageError
    monkeypatch.setitem(sys.modules, "botocore.exceptions", module)
    monkeypatch.setattr(MemoryFileSystem, "isfile", fail)
    monkeypatch.setattr(MemoryFileSystem, "info", fail)
    with pytest.raises(SlideError, match="can't be read \\(StorageError\\)"):
        open_slide("memory://scan.tif")


def test_a_connection_that_breaks_while_reading_is_a_refusal(tmp_path, bucket, monkeypatch):
    def fail(*_, **__):
        raise ConnectionResetError("SECRET-KEY")

    with open_slide(upload(bucket, write_zarr(tmp_path / "scan.ome.zarr"), "scan.ome.zarr")) as slide:
        monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
        with pytest.raises(SlideError, match="can't be read \\(ConnectionResetError\\)"):
            slide.read([0], 0, 9, 0, 9)


def test_urls_and_paths_are_told_apart(tmp_path):
    assert remote.to_path(str(tmp_path)) == tmp_path
    assert remote.to_path("file:///data/scan%201.tif") == Path("/data/scan 1.tif")
    assert remote.to_path(tmp_path) is tmp_path
    assert not remote.is_remote(remote.to_path("C:/scans/a.tif"))
    path = remote.to_path("https://server/scans/a.ome.tif?signature=x")
    assert remote.is_remote(path)
    assert remote.base_name(path) == "a.ome.tif"
    assert pickle.loads(pickle.dumps(path)) == path


def test_urls_that_cannot_be_used_are_refused():
    with pytest.raises(SlideError, match="no protocol nope:// is known"):
        remote.to_path("nope://bucket/scan.tif")
    with pytest.raises(SlideError, match="holds a password") as caught:
        remote.to_path("https://me:SECRET@server/scan.tif")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
def test_staging_reads_each_byte_once_and_hashes_it(tmp_path, bucket, monkeypatch, name):
    local = WRITERS[name](tmp_path / name)
    with open_slide(upload(bucket, local, f"scans/{name}")) as slide:
        path, files = slide.path, slide.files
    opened = []
    whole = MemoryFileSystem.open
    monkeypatch.setattr(
        MemoryFileSystem,
        "open",
        lambda self, file, *rest, **more: opened.append(file) or whole(self, file, *rest, **more),
    )
    (tmp_path / "stage").mkdir()
    copy, digest = remote.stage(path, files, tmp_path / "stage")
    assert sorted(opened) == sorted(file.path for file in files)
    assert copy == tmp_path / "stage" / name
    assert digest == sha256_file(copy)
    with open_slide(local) as here, open_slide(copy) as there:
        assert [file.relative_to(local) for file in here.files] == [file.relative_to(copy) for file in there.files]
        np.testing.assert_array_equal(here.read([0, 1], 0, 300, 0, 260), there.read([0, 1], 0, 300, 0, 260))
    assert not (copy / "notes.txt").exists()
    assert not (copy / "1").exists()


def test_files_beside_a_slide_keep_their_places_when_staged(tmp_path, bucket):
    (tmp_path / "planes").mkdir()
    (tmp_path / "planes" / "b.tif").write_bytes(b"bb")
    (tmp_path / "a.tif").write_bytes(b"a")
    upload(bucket, tmp_path, "scans")
    path = remote.to_path("memory://scans/a.tif")
    copy, digest = remote.stage(path, (path, path.parent / "planes" / "b.tif"), tmp_path / "stage")
    assert copy.read_bytes() == b"a"
    assert (tmp_path / "stage" / "planes" / "b.tif").read_bytes() == b"bb"
    assert digest == hashlib.sha256(b"a" + b"planes/b.tif" + b"bb").hexdigest()


def test_a_server_without_ranges_is_read_all_the_same(tmp_path, bucket, monkeypatch):
    url = upload(bucket, write_zarr(tmp_path / "scan.ome.zarr"), "scan.ome.zarr")
    whole = MemoryFileSystem.cat_file
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda self, path, **_: whole(self, path))
    with open_slide(url) as slide:
        np.testing.assert_array_equal(slide.read([0, 1], 0, 300, 0, 260), IMAGE)


def test_a_stamp_changes_with_the_file(tmp_path, bucket):
    (tmp_path / "a.bin").write_bytes(b"a")
    path = remote.to_path(upload(bucket, tmp_path / "a.bin", "a.bin"))
    before = [remote.stamp(path), remote.stamp(tmp_path / "a.bin")]
    assert [remote.stamp(path), remote.stamp(tmp_path / "a.bin")] == before
    (tmp_path / "a.bin").write_bytes(b"ab")
    upload(bucket, tmp_path / "a.bin", "a.bin")
    assert remote.stamp(path) != before[0]
    assert remote.stamp(tmp_path / "a.bin") != before[1]
    shutil.rmtree(tmp_path)
