"""The same pixels in any format give the same cells, to the byte."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from ctc_imaging.cohort import load_cohort
from ctc_imaging.config import Settings
from ctc_imaging.errors import SlideError
from ctc_imaging.files import sha256_file
from ctc_imaging.pipeline import process_slide
from ctc_imaging.simulation import simulate_slide
from ctc_imaging.slide import open_slide

# Not a number that a TIFF's ratio of integers or a sum of floats hits by itself.
PIXEL_SIZE_UM = 0.325
NAMES = ("DAPI", "CK", "VIM", "CD45")
FIELD_PX, OVERLAP_PX = 260, 20


@pytest.fixture(scope="module")
def pixels():
    return simulate_slide((500, 740), ctc=12, leukocytes=130, seed=5, pixel_size_um=PIXEL_SIZE_UM).image


def ome_metadata(**more) -> dict:
    scale = {f"PhysicalSize{axis}": PIXEL_SIZE_UM for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    return {"axes": "CYX", "Channel": {"Name": list(NAMES)}, **scale, **units, **more}


def write_ome_tiff(folder: Path, pixels: np.ndarray) -> Path:
    path = folder / "tiled.ome.tif"
    options = {"tile": (128, 128), "compression": "zlib", "photometric": "minisblack", "ome": True}
    tifffile.imwrite(path, pixels, metadata=ome_metadata(), **options)
    return path


def write_strips(folder: Path, pixels: np.ndarray) -> Path:
    path = folder / "big_endian.ome.tif"
    options = {"rowsperstrip": 50, "byteorder": ">", "bigtiff": True, "photometric": "minisblack", "ome": True}
    tifffile.imwrite(path, pixels, metadata=ome_metadata(), **options)
    return path


def write_channel_folder(folder: Path, pixels: np.ndarray) -> Path:
    path = folder / "channels"
    path.mkdir()
    per_cm = 1e4 / PIXEL_SIZE_UM
    for name, plane in zip(NAMES, pixels, strict=True):
        options = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER", "compression": "lzw"}
        tifffile.imwrite(path / f"slide_{name}.tif", plane, **options)
    return path


def write_frames(folder: Path, pixels: np.ndarray) -> Path:
    path = folder / "frames"
    path.mkdir()
    step = FIELD_PX - OVERLAP_PX
    grid = [
        (y, x)
        for y in range(0, pixels.shape[1] - OVERLAP_PX, step)
        for x in range(0, pixels.shape[2] - OVERLAP_PX, step)
    ]
    for index, (y, x) in enumerate(grid, start=1):
        tifffile.imwrite(
            path / f"scan_{index:03}.tif", pixels[:, y : y + FIELD_PX, x : x + FIELD_PX], photometric="minisblack"
        )
    path.joinpath("frames.yaml").write_text(
        f"files: 'scan_{{index}}.tif'\n"
        f"channels: [{', '.join(NAMES)}]\n"
        f"pixel_size_um: {PIXEL_SIZE_UM}\n"
        f"grid: {{rows: 2, columns: 3, overlap_px: {OVERLAP_PX}}}\n"
    )
    return path


def write_stage_frames(folder: Path, pixels: np.ndarray) -> Path:
    path = folder / "stage"
    path.mkdir()
    step = FIELD_PX - OVERLAP_PX
    for y, x in product(*(range(0, size - OVERLAP_PX, step) for size in pixels.shape[1:])):
        # A stage that rests 1 mm off its origin, and is told in micrometres.
        places = {f"Position{axis}": [1000 + at * PIXEL_SIZE_UM] * 4 for axis, at in (("Y", y), ("X", x))}
        units = {f"Position{axis}Unit": ["µm"] * 4 for axis in "YX"}
        field = pixels[:, y : y + FIELD_PX, x : x + FIELD_PX]
        metadata = ome_metadata(Plane={**places, **units})
        tifffile.imwrite(path / f"{y}_{x}.ome.tif", field, metadata=metadata, ome=True, photometric="minisblack")
    return path


def write_zarr(folder: Path, pixels: np.ndarray, version: str) -> Path:
    path = folder / f"slide{version}.ome.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    array = group.create_array("0", shape=pixels.shape, chunks=(1, 200, 300), dtype=pixels.dtype)
    array[:] = pixels
    scale = {"type": "scale", "scale": [1.0, PIXEL_SIZE_UM, PIXEL_SIZE_UM]}
    space = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    multiscales = {
        "axes": [{"name": "c", "type": "channel"}, *space],
        "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
    }
    omero = {"channels": [{"label": name} for name in NAMES]}
    if version == "0.4":
        group.attrs.update({"multiscales": [{"version": version, **multiscales}], "omero": omero})
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscales], "omero": omero}
    return path


FORMATS = {
    "OME-TIFF": write_ome_tiff,
    "BigTIFF in strips": write_strips,
    "folder of channels": write_channel_folder,
    "frames by index": write_frames,
    "frames by stage": write_stage_frames,
    "OME-Zarr 0.4": lambda folder, pixels: write_zarr(folder, pixels, "0.4"),
    "OME-Zarr 0.5": lambda folder, pixels: write_zarr(folder, pixels, "0.5"),
}


def cells_of(slide: Path, folder: Path) -> str:
    folder.mkdir()
    (folder / "cohort.csv").write_text(f"slide,patient_id,sample_date,blood_volume_ml\n{slide},P1,2026-01-01,5\n")
    (entry,) = load_cohort(folder / "cohort.csv")
    (folder / "out").mkdir()
    summary = process_slide(entry, folder / "out", Settings())
    assert summary["cells"] > 100
    return sha256_file(folder / "out" / "cells.parquet")


@pytest.fixture(scope="module")
def expected(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    return cells_of(write_ome_tiff(folder, pixels), folder / "run")


@pytest.mark.parametrize("kind", [name for name in FORMATS if name != "OME-TIFF"])
def test_the_same_pixels_give_the_same_cells(kind, pixels, expected, tmp_path):
    slide = FORMATS[kind](tmp_path, pixels)
    with open_slide(slide) as opened:
        assert opened.pixel_size_um == PIXEL_SIZE_UM
        assert opened.warnings == ()
        # A folder's channels come in the order of their names.
        order = [opened.channel_names.index(name) for name in NAMES]
        assert np.array_equal(opened.read(order, 0, pixels.shape[1], 0, pixels.shape[2]), pixels)
    assert cells_of(slide, tmp_path / "run") == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_every_chunk_of_every_format_is_decoded_once(kind, pixels, tmp_path):
    from ctc_imaging.intake import take_in

    with open_slide(FORMATS[kind](tmp_path, pixels)) as slide:
        take_in(slide, {"dapi": 0}, tmp_path / "copy")
        chunks = sum(-(-pixels.shape[1] // high) * -(-pixels.shape[2] // wide) for high, wide in slide.chunk_shapes_px)
        assert slide.chunks_read == chunks


@pytest.fixture
def in_memory():
    """Return a function that puts a file or folder into fsspec's memory, and its URL."""
    import fsspec

    storage = fsspec.filesystem("memory")

    def put(path: Path) -> str:
        storage.put(str(path), f"/scans/{path.name}", recursive=True)
        return f"memory://scans/{path.name}"

    yield put
    storage.rm("/scans", recursive=True)


def process_url(url: str, folder: Path) -> dict:
    from ctc_imaging.batch import process_into
    from ctc_imaging.store.run_folder import RunFolder

    folder.mkdir()
    (folder / "cohort.csv").write_text(f"slide,patient_id,sample_date,blood_volume_ml\n{url},P1,2026-01-01,5\n")
    (entry,) = load_cohort(folder / "cohort.csv")
    return process_into(None, entry, RunFolder(folder / "run"), Settings())


@pytest.mark.parametrize("kind", ["OME-TIFF", "OME-Zarr 0.5"])
def test_a_scan_in_object_storage_gives_the_same_cells(kind, pixels, expected, in_memory, tmp_path):
    from ctc_imaging.intake import scan_sha256

    slide = FORMATS[kind](tmp_path, pixels)
    result = process_url(in_memory(slide), tmp_path / "remote")
    assert sha256_file(result["folder"] / "cells.parquet") == expected
    assert result["sha256"] == scan_sha256(slide)
    assert not [path for path in result["folder"].iterdir() if path.name.startswith(".")]


def test_a_broken_scan_in_object_storage_is_called_by_its_url(pixels, in_memory, tmp_path):
    slide = write_ome_tiff(tmp_path, pixels)
    slide.write_bytes(slide.read_bytes()[: slide.stat().st_size // 2])
    with pytest.raises(SlideError, match=r"^memory://scans/tiled\.ome\.tif: "):
        process_url(in_memory(slide), tmp_path / "remote")
