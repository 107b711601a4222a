"""Small whole inputs of every kind the readers and table loaders take, for the fuzzer to damage."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import numpy as np
import tifffile
import zarr

_NAMES = ("DAPI", "CK", "Vimentin", "CD45")
_COHORT = """slide,patient_id,sample_date,blood_volume_ml,slide_id,sample_id,sample_kind,\
spiked_cells,volume_on_slide_ml,rescan_of,batch,site,panel,pixel_size_um
slides/a.ome.tif,P1,2024-01-01,7.5,A,T1,patient,,3.75,,B1,Berne,emt-4,0.5
slides/b.ome.tif,P1,2024-01-01,7.5,B,T1,patient,,3.75,,B1,Berne,emt-4,0.5
slides/c.ome.tif,P1,2024-01-01,7.5,C,T1,patient,,3.75,B,B1,Berne,emt-4,0.5
slides/d.ome.tif,,2024-01-02,5,D,,blank,,,,B1,,,
slides/e.ome.tif,,2024-01-02,5,E,,spiked,20,,,B1,,,
"""
_CLINICAL = """patient_id;surgery_date;last_contact_date;recurrence_date;death_date;\
recurrence_site;adjuvant_kind;MVI;AFP
P1;2024-01-11;2026-01-01;2025-02-01;;liver;TACE;1;12,5
P2;2024-01-12;2026-01-01;;2026-01-01;;;0;NA
"""
_IMAGING = """patient_id,imaging_date,modality,result
P1,2024-03-01,MRI,negative
P1,2024-09-01,MRI,positive
P2,2024-09-01,,equivocal
"""
_MARKERS = """patient_id\tdate\tmarker\tvalue
P1\t2024-03-01\tAFP\t12.5
P1\t2024-09-01\tAFP\t250
P2\t2024-09-01\tPIVKA-II\t1e3
"""
_SCHEDULE = """visits:
  - {name: before, day: -1, window_days: [30, 0]}
  - {name: 1 month, day: 30, window_days: [7, 14]}
  - name: 3 months
    day: 90
    window_days: [-14, 14]
"""
_CONFIG = """seed: 3
panel: emt-4
tile_px: 512
landmark_day: 30
horizon_days: 730
"""
_GRID = """layout: tiles-by-row-and-column
pixel_size_um: 0.5
flip_y: false
grid: {rows: 2, columns: 2, overlap_px: 0}
"""
_LISTED = """files: "{channel}/Tile{index}.tif"
channels: {DAPI: DAPI, CK: CK, Vimentin: vimentin, CD45: CD45}
pixel_size_um: 0.5
positions: {table: positions.csv, index: field, x_um: x, y_um: y}
"""
TABLES = {
    "cohort.csv": _COHORT,
    "clinical.csv": _CLINICAL,
    "imaging.csv": _IMAGING,
    "markers.csv": _MARKERS,
    "schedule.yaml": _SCHEDULE,
    "config.yaml": _CONFIG,
}


def make_bases(folder: Path) -> None:
    """Write the bases: ``slides/`` with one file or folder each, and ``tables/``."""
    slides = folder / "slides"
    slides.mkdir(parents=True)
    _write_tiffs(slides)
    _write_folders(slides)
    _write_ome_files(slides / "ome-files")
    _write_frames(slides)
    for version in (2, 3):
        write_zarr(slides / f"v{version}.ome.zarr", version)
    write_zarr(slides / "sharded.ome.zarr", 3, shards=(1, 32, 32))
    (folder / "tables").mkdir()
    for name, text in TABLES.items():
        (folder / "tables" / name).write_text(text, encoding="utf-8")
    panel = (resources.files("ctc_imaging") / "panels" / "emt-4.yaml").read_text(encoding="utf-8")
    (folder / "tables" / "panel.yaml").write_text(panel.replace("emt-4", "ours"), encoding="utf-8")


def image(dtype: str = "uint16", height: int = 40, width: int = 50, channels: int = 4) -> np.ndarray:
    """Make pixels (C, Y, X) with some structure."""
    random = np.random.default_rng(7)
    return (random.normal(200, 20, (channels, height, width)).clip(0, 250)).astype(dtype)


def _write_tiffs(folder: Path) -> None:
    ome = {"axes": "CYX", "Channel": {"Name": list(_NAMES)}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    named = {"ome": True, "metadata": ome}
    plain = {"metadata": None, "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    kinds: dict[str, dict] = {
        "ome.ome.tif": {**named, "compression": "zlib", "tile": (16, 16)},
        "ome-plain.ome.tif": named,
        "ome-big.ome.tif": {**named, "bigtiff": True, "byteorder": ">"},
        "imagej.tif": {"imagej": True, "resolution": (2, 2), "metadata": {"axes": "CYX", "unit": "um"}},
        "pages.tif": plain,
        "strips.tif": {**plain, "rowsperstrip": 7},
        "deflate.tif": {**plain, "compression": "zlib", "rowsperstrip": 9, "predictor": True},
        "lzw.tif": {**plain, "compression": "lzw", "tile": (16, 32), "predictor": True},
        "zstd.tif": {**plain, "compression": "zstd", "tile": (32, 32)},
        "lzma.tif": {**plain, "compression": "lzma"},
        "packbits.tif": {**plain, "compression": "packbits"},
        "jpeg2000.tif": {**plain, "compression": "jpeg2000", "tile": (32, 32)},
        "lerc.tif": {**plain, "compression": "lerc"},
        "big.tif": {**plain, "bigtiff": True, "tile": (16, 16)},
        "big-endian.tif": {**plain, "byteorder": ">", "compression": "zlib"},
    }
    for name, options in kinds.items():
        tifffile.imwrite(folder / name, image(), photometric="minisblack", **options)
    for name, dtype, options in (
        ("float.tif", "float32", {}),
        ("float-predictor.tif", "float32", {"compression": "zlib", "predictor": True}),
        ("half.tif", "float16", {}),
        ("bytes.tif", "uint8", {"compression": "zlib"}),
        ("jpeg.tif", "uint8", {"compression": "jpeg", "tile": (16, 16)}),
        ("png.tif", "uint8", {"compression": "png"}),
    ):
        tifffile.imwrite(folder / name, image(dtype), photometric="minisblack", **{**plain, **options})
    with tifffile.TiffWriter(folder / "pyramid.ome.tif", ome=True) as writer:
        whole = image(height=64, width=64)
        writer.write(whole, photometric="minisblack", subifds=1, tile=(16, 16), metadata=ome, compression="zlib")
        writer.write(whole[:, ::2, ::2], photometric="minisblack", subfiletype=1, tile=(16, 16))
    tifffile.imwrite(folder / "focus.ome.tif", image()[:, None].repeat(3, 1), ome=True, metadata={"axes": "CZYX"})


def _write_folders(folder: Path) -> None:
    channels = folder / "channels"
    channels.mkdir()
    for name, plane in zip(_NAMES, image(), strict=True):
        tifffile.imwrite(channels / f"scan_{name}.tif", plane, compression="zlib", metadata=None)


def _write_frames(folder: Path) -> None:
    """Write fields by row and column, and fields numbered in a folder per stain with a table of stage positions."""
    grid, listed = folder / "frames-grid", folder / "frames-table"
    fields = image(height=32, width=32).reshape(4, 2, 16, 2, 16)
    for row in range(2):
        for column in range(2):
            for name, plane in zip(_NAMES, fields, strict=True):
                field = plane[row, :, column]
                index = 2 * row + column + 1
                for path in (grid / f"r{row}_c{column}_{name}.tif", listed / name / f"Tile{index}.tif"):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    tifffile.imwrite(path, field, compression="zlib", metadata=None)
    (grid / "frames.yaml").write_text(_GRID)
    (listed / "frames.yaml").write_text(_LISTED)
    rows = [f"{index + 1},{index % 2 * 7.5},{index // 2 * 7.5}" for index in range(4)]
    (listed / "positions.csv").write_text("\n".join(["field,x,y", *rows]) + "\n")


def _write_ome_files(folder: Path) -> None:
    """Write an OME-TIFF in several files."""
    folder.mkdir()
    template = folder / "template.ome.tif"
    tifffile.imwrite(template, image(), ome=True, photometric="minisblack", metadata={"axes": "CYX"})
    xml = tifffile.tiffcomment(template)
    template.unlink()
    data = ""
    for index in range(4):
        uuid = f'<UUID FileName="c{index}.ome.tif">urn:uuid:0000000{index}-aaaa-bbbb-cccc-dddddddddddd</UUID>'
        data += f'<TiffData IFD="0" PlaneCount="1" FirstC="{index}">{uuid}</TiffData>'
    xml = re.sub(r"<TiffData.*(?=</Pixels>)", data, xml, flags=re.DOTALL)
    for index, plane in enumerate(image()):
        path = folder / f"c{index}.ome.tif"
        tifffile.imwrite(path, plane, metadata=None, description=xml.encode(), photometric="minisblack")


def write_zarr(path: Path, version: int, shards: tuple[int, ...] | None = None) -> None:
    """Write an OME-Zarr 0.4 (zarr format 2) or 0.5 (3) of two levels."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    keys = {"name": "v2", "separator": "/"} if version == 2 else {"name": "default", "separator": "/"}
    pixels = image(height=64, width=48)
    for level in range(2):
        data = pixels[:, :: 2**level, :: 2**level]
        chunks = {"chunks": (1, 16, 16), "shards": shards, "chunk_key_encoding": keys}
        group.create_array(str(level), shape=data.shape, dtype=data.dtype, **chunks)[:] = data
    scales = [[{"type": "scale", "scale": [1.0, 0.5 * 2**level, 0.5 * 2**level]}] for level in range(2)]
    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    multiscales = {
        "axes": [{"name": "c", "type": "channel"}, *space],
        "datasets": [{"path": str(level), "coordinateTransformations": scales[level]} for level in range(2)],
        "name": "scan",
    }
    omero = {"channels": [{"label": name, "color": "00FF00", "active": True} for name in _NAMES]}
    if version == 2:
        group.attrs.update({"multiscales": [{**multiscales, "version": "0.4"}], "omero": omero})
    else:
        group.attrs.update({"ome": {"version": "0.5", "multiscales": [multiscales], "omero": omero}})
