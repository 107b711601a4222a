"""How much memory a worker holds on slides of growing size, and how the time grows, side by side in one run.

    python benchmarks/memory.py --sides 20000 40000

One simulated field of 4096 x 4096 px in four channels is repeated until a slide of each side is full, written as
a tiled, deflate-compressed OME-TIFF, and run by `ctc-imaging run --workers 1`. The figure is the high-water mark of
resident memory (VmHWM, Linux) of the worker process. SIMULATED pixels, with 8,000 leukocytes a field: as dense as
the standard slide.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from ctc_imaging.simulation import simulate_slide

FIELD_PX = 4096
TILE_PX = 512


def main() -> None:
    """Run every side asked for and print the ratios to the first."""
    options = _options()
    print("Simulated slides; memory is the worker's resident high-water mark.\n")
    print(f"{'side px':>8} {'file GB':>8} {'cells':>9} {'seconds':>8} {'peak MB':>8} {'memory':>7} {'time / px':>9}")
    first: tuple[float, float] | None = None
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        field = _field(options.leukocytes)
        for side in options.sides:
            slide = Path(name) / f"{side}.ome.tif"
            _write(slide, field, side)
            peak_mb, seconds, cells = _run(slide, Path(name) / f"run{side}")
            per_px = seconds / side**2
            first = first or (peak_mb, per_px)
            ratios = f"{peak_mb / first[0]:7.2f} {per_px / first[1]:9.2f}"
            size_gb = slide.stat().st_size / 1e9
            print(f"{side:8} {size_gb:8.1f} {cells:9} {seconds:8.0f} {peak_mb:8.0f} {ratios}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", nargs="+", type=int, default=[20_000, 40_000])
    parser.add_argument("--leukocytes", type=int, default=8000, help="per field")
    parser.add_argument("--scratch", type=Path, help="where the slides go: 40,000 px need 12 GB here for a while")
    return parser.parse_args()


def _field(leukocytes: int) -> list[list[list[bytes]]]:
    """Return the compressed tiles of one simulated field by channel, row and column."""
    pixels = simulate_slide((FIELD_PX, FIELD_PX), ctc=20, leukocytes=leukocytes, seed=910_000).image
    return [[[_tile(plane, y, x) for x in _steps()] for y in _steps()] for plane in pixels]


def _steps() -> range:
    return range(0, FIELD_PX, TILE_PX)


def _tile(plane: np.ndarray, y: int, x: int) -> bytes:
    import imagecodecs

    pixels = np.ascontiguousarray(plane[y : y + TILE_PX, x : x + TILE_PX])
    return bytes(imagecodecs.zlib_encode(pixels.astype("<u2"), level=1))


def _write(path: Path, field: list[list[list[bytes]]], side: int) -> None:
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": ["DAPI", "CK", "VIM", "CD45"]},
        "PhysicalSizeX": 0.5,
        "PhysicalSizeY": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tif:
        tif.write(
            _tiles(field, side),
            shape=(len(field), side, side),
            dtype="uint16",
            tile=(TILE_PX, TILE_PX),
            compression="zlib",
            photometric="minisblack",
            metadata=metadata,
        )


def _tiles(field: list[list[list[bytes]]], side: int) -> Iterator[bytes]:
    count, period = -(-side // TILE_PX), FIELD_PX // TILE_PX
    for plane in field:
        for row in range(count):
            for column in range(count):
                yield plane[row % period][column % period]


def _run(slide: Path, out: Path) -> tuple[float, float, int]:
    """Return the worker's peak in MB, the seconds of the whole command, and the cells found."""
    cohort = slide.with_suffix(".csv")
    cohort.write_text(f"slide,slide_id,patient_id,sample_date,blood_volume_ml\n{slide.name},S,P,2026-01-01,5\n")
    command = [Path(sys.executable).parent / "ctc-imaging", "run", cohort, "--out", out, "--workers", "1"]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak_kb = 0
    while process.poll() is None:
        peak_kb = max([peak_kb, *(_peak_kb(pid) for pid in _children(process.pid))])
        time.sleep(0.1)
    seconds = time.monotonic() - start
    if process.returncode:
        raise SystemExit(f"the run of {slide} failed")
    cells = pd.read_parquet(out / "slides" / "S" / "cells.parquet", columns=["cell_id"])
    return peak_kb * 1.024e-3, seconds, len(cells)


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _peak_kb(pid: int) -> int:
    """VmHWM in kB (1024 bytes as Linux means it); 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    main()
