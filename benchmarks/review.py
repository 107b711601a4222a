"""How long the review window takes to open a large run, to page its gallery, and to take a call.

A run of simulated pixels is made under --folder: one slide of --side px a side with four channels, --cells cells of
which --candidates are candidates, and --reviews calls already in the ledger. Opening and paging are then timed in a
real napari window (run under xvfb-run without a screen), each page until every crop on it is drawn.

    xvfb-run -a python benchmarks/review.py --side 20000 --cells 50000
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from ctc_imaging.cohort import load_cohort
from ctc_imaging.config import Settings
from ctc_imaging.files import write_csv, write_parquet
from ctc_imaging.inputs import Inputs, save_tables
from ctc_imaging.panel import load_panel
from ctc_imaging.store.labels import create_labels, finish_labels
from ctc_imaging.store.ledger import Ledger, utc_now
from ctc_imaging.store.record import Review
from ctc_imaging.store.run_folder import RunFolder

_TILE_PX, _UM_PER_PX = 512, 0.5


def main() -> None:
    """Make the run where it isn't there yet, time, and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--folder", type=Path, default=Path("/tmp/ctc-review-benchmark"))
    arguments.add_argument("--side", type=int, default=20_000)
    arguments.add_argument("--cells", type=int, default=50_000)
    arguments.add_argument("--candidates", type=int, default=2_000)
    arguments.add_argument("--reviews", type=int, default=20_000)
    arguments.add_argument("--pages", type=int, default=40)
    asked = arguments.parse_args()
    folder = asked.folder / f"{asked.side}-{asked.cells}-{asked.candidates}-{asked.reviews}"
    run = RunFolder(folder / "run")
    if not (folder / "done").exists():
        make_run(folder, asked.side, asked.cells, asked.candidates, asked.reviews)
        (folder / "done").touch()
    print(f"SIMULATED slide of {asked.side} x {asked.side} x 4 px, {asked.cells} cells, {asked.reviews} calls so far")
    time_window(run, asked.pages)


def time_window(run: RunFolder, pages: int) -> None:
    """Open the window, then time what a reader does in it."""
    import napari
    from napari_ctc.queue import ReviewQueue
    from napari_ctc.widget import ReviewWidget
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    widget = ReviewWidget(viewer)
    viewer.window.add_dock_widget(widget, name="CTC review")
    viewer.window.resize(1800, 1100)
    settle = QApplication.processEvents
    settle()

    def tell(what: str, seconds: list[float]) -> None:
        ms = np.array(seconds) * 1000
        print(f"{what:<44} median {np.median(ms):8.1f} ms   95th centile {np.percentile(ms, 95):8.1f}   of {len(ms)}")

    def timed(act: Callable[[], object]) -> float:
        start = time.perf_counter()
        act()
        settle()
        return time.perf_counter() - start

    tell("open the scan alone, by File > Open", [timed(lambda: viewer.open(_scan_of(run), plugin="ctc-imaging"))])
    viewer.layers.clear()
    slide = str(run.slide("S1"))
    tell("open the slide of the run, by File > Open", [timed(lambda: viewer.open(slide, plugin="ctc-imaging"))])
    viewer.layers.clear()
    queues = []
    tell("open the queue (tables, ledger, order)", [timed(lambda: queues.append(ReviewQueue(run, "A")))])
    tell("open the slide in the window", [timed(lambda: widget.start(queues[0]))])
    tell("all of the slide in the view", [timed(viewer.reset_view)])
    session = widget.session
    session._show()
    camera = viewer.scene.camera
    camera.zoom = 2.0
    moves = np.random.default_rng(0).uniform(0.1, 0.9, (pages, 2)) * 20_000 * _UM_PER_PX
    tell("pan to another place", [timed(lambda to=to: setattr(camera, "center", tuple(to))) for to in moves])
    tell("call a cell, until the next is drawn", [timed(lambda: session._call("leukocyte", "")) for _ in range(pages)])
    tell("open the gallery", [timed(session.toggle_gallery)])
    gallery = session.gallery
    gallery.setMinimumHeight(480)
    settle()
    for sort in ("CTC probability", "place on the slide"):
        gallery.sort.setCurrentText(sort)
        gallery.grid.verticalScrollBar().setValue(0)
        settle()
        tiles = gallery.grid.columns * gallery.grid.page_rows

        def page() -> None:
            gallery.grid.page(1)
            settle()
            gallery.grid.wait()

        tell(f"a page of {tiles} crops, by {sort}", [timed(page) for _ in range(pages)])
    tell("sort and filter anew", [timed(gallery.refresh) for _ in range(5)])
    viewer.close()


def _scan_of(run: RunFolder) -> str:
    return str(load_cohort(run.table("cohort"))[0].slide)


def make_run(folder: Path, side: int, cells: int, candidates: int, reviews: int) -> None:
    """Make a run by hand: bright discs on noise, and calls by chance."""
    random = np.random.default_rng(0)
    panel = load_panel("emt-4")
    folder.mkdir(parents=True, exist_ok=True)
    scan = folder / "slide.ome.tif"
    table = _cells(random, side, cells, candidates)
    _write_scan(scan, side, table, random, [channel.short.upper() for channel in panel.channels])
    row = {"slide": str(scan), "slide_id": "S1", "patient_id": "P1", "blood_volume_ml": 5, "sample_date": "2026-01-05"}
    write_csv(folder / "cohort.csv", pd.DataFrame([row]))
    run = RunFolder(folder / "run")
    run.prepare()
    entries = load_cohort(folder / "cohort.csv")
    text = pd.DataFrame([row]).to_csv(index=False)
    inputs = Inputs(entries, Settings(), {panel.name: panel}, "m" * 64, {"cohort": text}, simulated=True)
    save_tables(run, inputs)
    run.describe(inputs.identity, inputs.facts())
    out = run.slide("S1")
    labels = create_labels(out / "labels.ome.zarr", side, side)
    labels[0, :64, :64] = 1
    finish_labels(out / "labels.ome.zarr", _UM_PER_PX)
    write_parquet(out / "cells.parquet", table)
    _write_crops(out / "crops.zarr", scan, table, panel)
    (out / "quality.json").write_text('{"assessable": true, "assessed_fraction": 1.0, "reasons": []}')
    (out / "overview.png").write_bytes(b"")
    with Ledger(run.ledger, create=True) as ledger:
        ledger.set_slides(["S1"])
        ledger.finish("S1", 1.0, "f" * 64, "")
        said = table["cell_id"].sample(reviews, random_state=0, replace=True)
        key = ("m" * 64, run.read()["hash"], "f" * 64)
        ledger.add_reviews(
            Review("S1", int(cell), "leukocyte", "", "B", utc_now(), "", "leukocyte", *key) for cell in said
        )


def _cells(random: np.random.Generator, side: int, count: int, candidates: int) -> pd.DataFrame:
    y, x = random.uniform(30, side - 30, (2, count))
    p_ctc = np.concatenate([random.uniform(0.5, 1, candidates), random.uniform(0, 0.3, count - candidates)])
    call = np.where(np.arange(count) < candidates, "ctc", "leukocyte")
    table = {"cell_id": np.arange(1, count + 1), "y_um": y * _UM_PER_PX, "x_um": x * _UM_PER_PX, "y_px": y, "x_px": x}
    table |= {"area_um2": 80.0, "diameter_um": random.uniform(7, 14, count), "call": call, "p_ctc": p_ctc}
    table |= {"p_leukocyte": 1 - p_ctc, "p_artefact": 0.0, "cluster_id": 0, "cluster_kind": "", "assessed": True}
    table |= {"phenotype": np.where(call == "ctc", "hybrid", ""), "at_edge": False, "edges": "", "focus": 1.0}
    return pd.DataFrame(table)


def _write_scan(path: Path, side: int, table: pd.DataFrame, random: np.random.Generator, names: list[str]) -> None:
    """Write a tiled OME-TIFF plane by plane, so that memory holds one plane."""
    noise = random.normal(300, 20, (2048, 2048)).clip(0).astype(np.uint16)
    disc = (np.hypot(*np.mgrid[-10:11, -10:11]) < 9).astype(np.uint16) * 2000
    repeats = -(-side // len(noise))

    def planes():  # noqa: ANN202 (a generator of arrays)
        for channel in range(len(names)):
            plane = np.tile(noise, (repeats, repeats))[:side, :side].copy()
            shown = table[table["call"] == "ctc"] if channel in (1, 2) else table
            for y, x in shown[["y_px", "x_px"]].to_numpy().astype(int).tolist():
                plane[y - 10 : y + 11, x - 10 : x + 11] += disc
            yield plane

    metadata = {"axes": "CYX", "Channel": {"Name": names}, "PhysicalSizeX": _UM_PER_PX, "PhysicalSizeXUnit": "µm"}
    metadata |= {"PhysicalSizeY": _UM_PER_PX, "PhysicalSizeYUnit": "µm"}
    tiles = (tile for plane in planes() for tile in _tiles_of(plane))
    shape = (len(names), side, side)
    tifffile.imwrite(
        path, tiles, shape=shape, dtype=np.uint16, tile=(_TILE_PX, _TILE_PX), bigtiff=True, ome=True, metadata=metadata
    )


def _tiles_of(plane: np.ndarray):  # noqa: ANN202 (a generator of arrays)
    for y in range(0, plane.shape[0], _TILE_PX):
        for x in range(0, plane.shape[1], _TILE_PX):
            tile = np.zeros((_TILE_PX, _TILE_PX), plane.dtype)
            part = plane[y : y + _TILE_PX, x : x + _TILE_PX]
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def _write_crops(path: Path, scan: Path, table: pd.DataFrame, panel: object) -> None:
    from ctc_imaging.classification.calling import write_crops, write_far_view
    from ctc_imaging.overview import far_view
    from ctc_imaging.segmentation import measure_background
    from ctc_imaging.slide import open_slide

    with open_slide(scan) as slide:
        channels = {channel.short: place for place, channel in enumerate(panel.channels)}  # type: ignore[attr-defined]
        background = measure_background(slide, channels)
        write_crops(path, slide, channels, panel, table, background)  # type: ignore[arg-type]
        write_far_view(path, far_view(slide, channels))


if __name__ == "__main__":
    main()
