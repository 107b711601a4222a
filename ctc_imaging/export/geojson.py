"""Cells as GeoJSON that QuPath opens: outlines in pixels of the scan, classes with colours, measurements."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import numpy as np

from ctc_imaging.disk import disk_errors
from ctc_imaging.export.cells import CALL_COLOURS, SlideCells, class_name, rgb
from ctc_imaging.export.polygons import Outline, Polygon, outlines_of
from ctc_imaging.files import atomic_path
from ctc_imaging.store.labels import open_labels

# Of the ids of cells: a cell exported twice is the same object to QuPath.
_NAMESPACE = UUID("2f0d0f5e-6c1e-4a60-9d8a-5a4c5cf7f0a1")
_NOT_MEASURED = ("cell_id", "y_um", "x_um", "y_px", "x_px", "cluster_id")
_DIGITS = 6
_NO_COLOUR = "#ffffff"


def write_geojson(slide: SlideCells, target: Path, run_hash: str) -> int:
    """Write one slide's cells as a GeoJSON FeatureCollection.

    A cell with a nucleus is QuPath's "cell", any other a "detection"; one that a reader added is a point.

    Parameters
    ----------
    slide : SlideCells
    target : Path
        Replaced in one step.
    run_hash : str
        Of the run, part of each object's id.

    Returns
    -------
    int
        How many cells there are.

    Raises
    ------
    RunError
        If the file can't be written.
    """
    count = 0
    with disk_errors(target), atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for feature in _features(slide, run_hash):
            text = json.dumps(feature, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            file.write(f"{',' if count else ''}\n{text}")
            count += 1
        file.write("\n]}\n")
    return count


def _features(slide: SlideCells, run_hash: str) -> Iterator[dict[str, Any]]:
    measured = [
        str(name) for name, kind in slide.cells.dtypes.items() if kind.kind in "fi" and str(name) not in _NOT_MEASURED
    ]
    rows: dict[int, dict[str, Any]] = {int(row["cell_id"]): row for row in slide.cells.to_dict("records")}  # type: ignore[misc]
    for outline in outlines_of(open_labels(slide.folder / "labels.ome.zarr")):
        if row := rows.pop(outline.cell_id, None):
            yield _feature(slide, row, outline, measured, run_hash)
    for cell_id, row in rows.items():
        yield _feature(slide, row, Outline(cell_id, [], []), measured, run_hash)


def _feature(
    slide: SlideCells, row: dict[str, Any], outline: Outline, measured: list[str], run_hash: str
) -> dict[str, Any]:
    nucleus = {"nucleusGeometry": _geometry(outline.nucleus)} if outline.nucleus else {}
    return {
        "type": "Feature",
        "id": str(uuid5(_NAMESPACE, f"{run_hash} {slide.slide_id} {outline.cell_id}")),
        "geometry": _cell_geometry(slide, row, outline),
        **nucleus,
        "properties": {
            "objectType": "cell" if nucleus else "detection",
            "name": str(outline.cell_id),
            "classification": {
                "name": class_name(row["call"], row["phenotype"]),
                "color": rgb(CALL_COLOURS.get(row["call"], _NO_COLOUR)),
            },
            "measurements": {name: _rounded(row[name]) for name in measured if np.isfinite(row[name])},
            "metadata": _metadata(slide, row),
        },
    }


def _cell_geometry(slide: SlideCells, row: dict[str, Any], outline: Outline) -> dict[str, Any]:
    # A run's origin is the centre of the first pixel, QuPath's its corner.
    if (drawn := slide.drawn.get(outline.cell_id)) is not None:
        ring = [[round(float(x), 2), round(float(y), 2)] for y, x in drawn / slide.pixel_size_um + 0.5]
        return _geometry([[[*ring, ring[0]]]])
    if outline.cell:
        return _geometry(outline.cell)
    return {"type": "Point", "coordinates": [round(row["x_px"] + 0.5, 2), round(row["y_px"] + 0.5, 2)]}


def _geometry(parts: list[Polygon] | list[list[list[list[float]]]]) -> dict[str, Any]:
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _metadata(slide: SlideCells, row: dict[str, Any]) -> dict[str, str]:
    """Texts that QuPath keeps with an object."""
    told = {
        "cell_id": str(row["cell_id"]),
        "slide_id": slide.slide_id,
        "machine_call": row["machine_call"],
        "reviewed": "yes" if row["reviewed"] else "no",
        "reader": row["reader"],
        "cluster": str(row["cluster_id"]) if row.get("cluster_id") else "",
        "outline": row["outline"],
    }
    return {name: text for name, text in told.items() if text}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
