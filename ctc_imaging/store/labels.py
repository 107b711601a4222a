"""Label images of a slide as OME-Zarr 0.4: plane 0 the cells, plane 1 their nuclei, both by ``cell_id``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

CHUNK_PX = 1024
SMALLEST_PX = 1024
"""The pyramid ends when its longer side is at most this."""


def create_labels(path: Path, height: int, width: int) -> zarr.Array:
    """Create an empty full-resolution label image.

    Returns
    -------
    zarr.Array
        uint32, shape (2, height, width), chunked, zeros.
    """
    group = zarr.open_group(path, mode="w", zarr_format=2)
    return _level(group, 0, height, width)


def finish_labels(path: Path, pixel_size_um: float) -> None:
    """Add the coarser levels and the metadata that viewers need.

    Parameters
    ----------
    path : Path
        A folder made by `create_labels`, its first level filled.
    pixel_size_um : float
    """
    group = zarr.open_group(path, mode="r+", zarr_format=2)
    level = 0
    while max(group[str(level)].shape) > SMALLEST_PX:
        _halve(group, level)
        level += 1
    group.attrs.update(_metadata(level + 1, pixel_size_um))


def open_labels(path: Path) -> zarr.Array:
    """Open the full-resolution label image of a finished slide, read-only."""
    return zarr.open_group(path, mode="r")["0"]


def _level(group: zarr.Group, level: int, height: int, width: int) -> zarr.Array:
    return group.create_array(
        str(level),
        shape=(2, height, width),
        chunks=(1, min(CHUNK_PX, height), min(CHUNK_PX, width)),
        dtype=np.uint32,
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _halve(group: zarr.Group, level: int) -> None:
    """Write the next level: every second pixel, so that labels stay labels."""
    fine = group[str(level)]
    _, height, width = fine.shape
    coarse = _level(group, level + 1, (height + 1) // 2, (width + 1) // 2)
    step = 2 * CHUNK_PX
    for y0 in range(0, height, step):
        for x0 in range(0, width, step):
            block = fine[:, y0 : y0 + step, x0 : x0 + step][:, ::2, ::2]
            coarse[:, y0 // 2 : y0 // 2 + block.shape[1], x0 // 2 : x0 // 2 + block.shape[2]] = block


def _metadata(levels: int, pixel_size_um: float) -> dict:
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, pixel_size_um * 2**level, pixel_size_um * 2**level]}
            ],
        }
        for level in range(levels)
    ]
    axes = [
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    return {
        "multiscales": [{"version": "0.4", "name": "cells and nuclei", "axes": axes, "datasets": datasets}],
        "image-label": {"version": "0.4"},
    }
