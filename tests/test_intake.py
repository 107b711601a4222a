"""Intake: every chunk decoded once, every byte hashed, and the working copy is the scan to the last bit."""

from __future__ import annotations

import collections

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import SlideError
from ctc_imaging.files import sha256_file
from ctc_imaging.intake import fingerprint, scan_sha256, take_in
from ctc_imaging.slide import open_slide
from ctc_imaging.working_copy import open_copy

NAMES = ["DAPI", "CK", "VIM", "CD45"]


def write_scan(path, pixels, **options):
    metadata = {"axes": "CYX", "Channel": {"Name": NAMES[: len(pixels)]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, pixels, ome=True, metadata=metadata, photometric="minisblack", **options)
    return path


def noise(shape, dtype="uint16", seed=0):
    random = np.random.default_rng(seed)
    return (random.random(shape) * 1000).astype(dtype)


@settings(max_examples=25, deadline=None)
@given(
    high=st.integers(1, 150) | st.integers(505, 530),
    wide=st.integers(1, 150) | st.integers(505, 530),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    storage=st.sampled_from([{}, {"tile": (32, 48), "compression": "zlib"}, {"rowsperstrip": 7, "compression": "lzw"}]),
)
def test_the_working_copy_is_the_scan(tmp_path_factory, high, wide, dtype, storage):
    folder = tmp_path_factory.mktemp("copy")
    pixels = noise((3, high, wide), dtype)
    with open_slide(write_scan(folder / "a.ome.tif", pixels, **storage)) as scan:
        exposures = take_in(scan, {"dapi": 0, "cd45": 2}, folder / "copy")
        grid = [-(-size // step) for size, step in zip(scan.shape[1:], scan.chunk_shape_px, strict=True)]
        assert scan.chunks_read == 3 * grid[0] * grid[1]
    with open_copy(folder / "copy", folder / "a.ome.tif") as copy:
        assert (copy.shape, copy.dtype, copy.pixel_size_um) == ((2, high, wide), np.dtype(dtype), 0.5)
        assert copy.channel_names == ("dapi", "cd45")
        assert np.array_equal(copy.read([0, 1], 0, high, 0, wide), pixels[[0, 2]])
    for exposure, plane in zip(exposures.values(), pixels[[0, 2]], strict=True):
        assert (exposure.minimum, exposure.maximum) == (plane.min(), plane.max())
        assert (exposure.at_maximum, exposure.pixels) == (np.sum(plane == plane.max()), plane.size)


def test_each_chunk_of_the_scan_is_decoded_once_in_a_whole_slide(tmp_path, monkeypatch):
    from ctc_imaging.cohort import load_cohort
    from ctc_imaging.config import Settings
    from ctc_imaging.pipeline import process_slide
    from ctc_imaging.readers.tiff_planes import EncodedPlane
    from ctc_imaging.simulation import simulate_slide

    decoded = collections.Counter()
    read_chunk = EncodedPlane.read_chunk

    def counting(plane, row, column):
        decoded[plane.page.index, row, column] += 1
        return read_chunk(plane, row, column)

    monkeypatch.setattr(EncodedPlane, "read_chunk", counting)
    pixels = simulate_slide((600, 700), ctc=5, leukocytes=120, seed=3).image
    write_scan(tmp_path / "scan.ome.tif", pixels, tile=(128, 128), compression="zlib")
    (tmp_path / "out").mkdir()
    (tmp_path / "cohort.csv").write_text("slide,patient_id,sample_date,blood_volume_ml\nscan.ome.tif,P1,2026-01-01,5\n")
    (entry,) = load_cohort(tmp_path / "cohort.csv")
    process_slide(entry, tmp_path / "out", Settings(tile_px=256))
    assert len(decoded) == 4 * 5 * 6
    assert set(decoded.values()) == {1}
    assert not (tmp_path / "out" / ".pixels").exists()


def test_a_damaged_channel_that_nobody_wants_refuses_the_scan_too(tmp_path):
    scan = write_scan(tmp_path / "a.ome.tif", noise((2, 64, 64)), tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(scan) as tif:
        offset = tif.pages[1].dataoffsets[2]
    data = bytearray(scan.read_bytes())
    data[offset + 20 : offset + 40] = bytes(20)
    scan.write_bytes(data)
    with open_slide(scan) as slide, pytest.raises(SlideError, match="chunk 1, 0 can't be decoded"):
        take_in(slide, {"dapi": 0}, tmp_path / "copy")


def test_values_that_are_no_numbers_refuse_the_scan(tmp_path):
    pixels = noise((1, 40, 40), "float32")
    pixels[0, 30, 30] = np.nan
    with open_slide(write_scan(tmp_path / "a.ome.tif", pixels)) as slide, pytest.raises(SlideError, match="finite"):
        take_in(slide, {"dapi": 0}, tmp_path / "copy")


def test_the_hash_covers_what_is_read_and_nothing_else(tmp_path):
    folder = tmp_path / "scan"
    folder.mkdir()
    for name in NAMES[:2]:
        tifffile.imwrite(folder / f"s_{name}.tif", noise((20, 20)))
    before, stamp = scan_sha256(folder), fingerprint(folder)
    (folder / "Thumbs.db").write_bytes(b"a viewer was here")
    assert (scan_sha256(folder), fingerprint(folder)) == (before, stamp)
    moved = folder.rename(tmp_path / "moved")
    assert (scan_sha256(moved), fingerprint(moved)) == (before, stamp)
    data = bytearray((moved / "s_CK.tif").read_bytes())
    data[-1] ^= 1
    (moved / "s_CK.tif").write_bytes(data)
    assert scan_sha256(moved) != before
    assert fingerprint(moved) != stamp


def test_the_hash_of_a_single_file_is_that_of_any_other_tool(tmp_path):
    scan = write_scan(tmp_path / "a.ome.tif", noise((2, 64, 64)))
    assert scan_sha256(scan) == sha256_file(scan)


def test_what_is_no_slide_is_hashed_all_the_same(tmp_path):
    (tmp_path / "broken.tif").write_text("no slide")
    assert scan_sha256(tmp_path / "broken.tif") == sha256_file(tmp_path / "broken.tif")


def test_a_remote_scan_that_was_replaced_is_seen(tmp_path):
    from upath import UPath

    scan = UPath("memory://replaced/a.ome.tif")
    scan.write_bytes(write_scan(tmp_path / "a.ome.tif", noise((2, 64, 64))).read_bytes())
    before = fingerprint(scan)
    assert fingerprint(scan) == before
    scan.write_bytes(write_scan(tmp_path / "b.ome.tif", noise((2, 64, 64), seed=1)).read_bytes())
    assert fingerprint(scan) != before


def test_a_server_that_tells_nothing_vouches_for_nothing(tmp_path, monkeypatch):
    from upath import UPath

    scan = UPath("memory://silent/a.ome.tif")
    scan.write_bytes(write_scan(tmp_path / "a.ome.tif", noise((2, 64, 64))).read_bytes())
    monkeypatch.setattr("ctc_imaging.readers.remote._VALIDATORS", ())
    assert fingerprint(scan) == ""


def test_a_scan_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(SlideError, match=r"none\.tif: no such file or folder"):
        scan_sha256(tmp_path / "none.tif")


def test_a_working_copy_that_lost_its_end_is_told_and_not_read_as_dark(tmp_path):
    pixels = noise((1, 700, 600))
    with open_slide(write_scan(tmp_path / "a.ome.tif", pixels)) as scan:
        take_in(scan, {"dapi": 0}, tmp_path / "copy")
    with (tmp_path / "copy" / "dapi").open("r+b") as file:
        file.truncate(512 * 512 * 2 * 3)
    with open_copy(tmp_path / "copy", tmp_path / "a.ome.tif") as copy:
        assert np.array_equal(copy.read([0], 0, 512, 100, 600), pixels[:, :512, 100:600])
        with pytest.raises(SlideError, match="working copy is damaged"):
            copy.read([0], 600, 700, 500, 600)
