"""Labels and tables as one OME-Zarr store that SpatialData opens (its container format 0.1, OME-NGFF 0.4)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import zarr

from ctc_imaging.disk import disk_errors
from ctc_imaging.errors import ConfigError
from ctc_imaging.export.anndata_table import anndata_of
from ctc_imaging.export.cells import SlideCells
from ctc_imaging.files import TEMPORARY, sync_folder, sync_tree
from ctc_imaging.store.labels import CHUNK_PX

TABLE, REGION, INSTANCE = "cells", "region", "cell_id"
"""Name of the table, and of the columns that say to which label image and which label of it a row belongs."""

_PLANES = ("cells", "nuclei")
_SOFTWARE = "0.4.0"
_RASTER_FORMAT = "0.2"


def write_spatialdata(slides: Iterable[SlideCells], target: Path, facts: dict[str, Any]) -> int:
    """Write label images and the table of cells to a new folder.

    Each slide has two label images, SLIDE_cells and SLIDE_nuclei, in a coordinate system of its own named after it, in
    µm from the corner of the first pixel. The table refers to SLIDE_cells by `cell_id`.

    Parameters
    ----------
    slides : iterable of SlideCells
    target : Path
        Must not exist; stands there whole or not at all.
    facts : dict
        Of run.json.

    Returns
    -------
    int
        How many cells there are.

    Raises
    ------
    ConfigError
        If the target exists, or the package anndata isn't installed.
    RunError
        If there are no cells, or the folder can't be written.
    """
    if target.exists():
        raise ConfigError(str(target), "it exists already", "name a folder that doesn't")
    given = list(slides)
    table = anndata_of(given, facts, origin="corner")
    names = element_names([slide.slide_id for slide in given])
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        growing = target.with_name(f"{TEMPORARY}{uuid4().hex[:12]}")
        try:
            _write(growing, given, names, table)
            sync_tree(growing)
            growing.replace(target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(growing, ignore_errors=True)
    return int(table.n_obs)


def element_names(slide_ids: Sequence[str]) -> dict[str, str]:
    """Name each slide in letters, digits, points, hyphens and underscores, no two alike but for their case.

    Examples
    --------
    >>> element_names(["A 1", "a_1", "B"])
    {'A 1': 'A_1', 'a_1': 'a_1_2', 'B': 'B'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for slide_id in slide_ids:
        plain = re.sub(r"[^\w.-]", "_", slide_id).lstrip("_.") or "slide"
        name, number = plain, 1
        while name.lower() in taken:
            number += 1
            name = f"{plain}_{number}"
        taken.add(name.lower())
        names[slide_id] = name
    return names


def _write(folder: Path, slides: Sequence[SlideCells], names: dict[str, str], table: Any) -> None:
    import anndata

    root: Any = zarr.open_group(folder, mode="w", zarr_format=2)
    root.attrs["spatialdata_attrs"] = {"version": "0.1", "spatialdata_software_version": _SOFTWARE}
    labels = root.create_group("labels")
    labels.attrs["labels"] = [f"{names[slide.slide_id]}_{plane}" for slide in slides for plane in _PLANES]
    for slide in slides:
        for plane, kind in enumerate(_PLANES):
            _copy_labels(labels, slide, plane, f"{names[slide.slide_id]}_{kind}")
    regions = [f"{names[str(slide_id)]}_cells" for slide_id in table.obs["slide_id"]]
    table.obs[REGION] = pd.Categorical(regions)
    keys = {"region": list(table.obs[REGION].cat.categories), "region_key": REGION, "instance_key": INSTANCE}
    table.uns["spatialdata_attrs"] = keys
    tables = root.create_group("tables")
    with anndata.settings.override(zarr_write_format=2):
        anndata.io.write_elem(tables, TABLE, table)
    tables[TABLE].attrs.update({"spatialdata-encoding-type": "ngff:regions_table", **keys, "version": "0.1"})


def _copy_labels(labels: Any, slide: SlideCells, plane: int, name: str) -> None:
    """Copy one plane with its coarser levels, chunk row by chunk row."""
    source: Any = zarr.open_group(slide.folder / "labels.ome.zarr", mode="r")
    levels = [dataset["path"] for dataset in source.attrs["multiscales"][0]["datasets"]]
    group = labels.create_group(name)
    for level in levels:
        _, height, width = source[level].shape
        copy = group.create_array(
            level,
            shape=(height, width),
            chunks=(min(CHUNK_PX, height), min(CHUNK_PX, width)),
            dtype=np.uint32,
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        for top in range(0, height, CHUNK_PX):
            copy[top : top + CHUNK_PX] = source[level][plane, top : top + CHUNK_PX]
    group.attrs.update(_metadata(name, levels, slide))


def _metadata(name: str, levels: Sequence[str], slide: SlideCells) -> dict[str, Any]:
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    datasets = [
        {"path": path, "coordinateTransformations": [{"type": "scale", "scale": [2.0**level, 2.0**level]}]}
        for level, path in enumerate(levels)
    ]
    # An OME-NGFF scale, to which SpatialData adds from where to where it leads.
    to_um = {
        "type": "scale",
        "scale": [slide.pixel_size_um, slide.pixel_size_um],
        "input": {"name": "yx", "axes": axes},
        "output": {"name": slide.slide_id, "axes": axes},
    }
    return {
        "multiscales": [
            {"version": "0.4", "name": name, "axes": axes, "datasets": datasets, "coordinateTransformations": [to_um]}
        ],
        "image-label": {"version": "0.4"},
        "spatialdata_attrs": {"version": _RASTER_FORMAT},
    }
