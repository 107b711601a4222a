"""How fast: a slide's whole way to its table of cells, and nuclei alone, beside reading the file and other programs.

Each figure is the median of rounds in which the things compared are done in turns, so that whatever else the machine
does falls on all alike; the seconds of processor time beside it tell how much that was.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import tifffile
from ctc_training.nuclei.images import LabelledImage
from segmentation_peers import PeerError, Peers, scikit_image, scikit_image_cells

from ctc_imaging.errors import ModelError
from ctc_imaging.features import CellPixels, measure_cells
from ctc_imaging.files import atomic_path
from ctc_imaging.intake import take_in
from ctc_imaging.panel import load_panel
from ctc_imaging.segmentation import measure_background, segment_slide
from ctc_imaging.segmentation.background import Background, PixelSource
from ctc_imaging.segmentation.dark import stained_blocks
from ctc_imaging.segmentation.grid import Grid
from ctc_imaging.segmentation.instances import MIN_DIAMETER_UM, find_instances
from ctc_imaging.segmentation.model import CLASSICAL, load_finder
from ctc_imaging.segmentation.nuclei import find_tile_nuclei
from ctc_imaging.segmentation.windows import find_regions, look
from ctc_imaging.simulation import SimulatedSlide, simulate_slide
from ctc_imaging.simulation.slide import write_image
from ctc_imaging.slide import open_slide
from ctc_imaging.store.labels import create_labels
from ctc_imaging.working_copy import open_copy

WORKERS = 2
PIXEL_UM = 0.5
FIELD_PX, FIELDS = 2500, 4
CTC, LEUKOCYTES = 3, 1222
"""In a field; with two naked nuclei in a hundred leukocytes, 20,000 nuclei on the slide."""

FIRST_SEED = 930_000
PLANE_PX = 4096
"""Side of what StarDist can do in half a minute."""

NUCLEUS_PX = 18.0
"""Typical diameter on the simulated slide, which scikit-image's pipeline is told."""


@dataclass(frozen=True)
class Took:
    """How long something took, and what it found.

    Attributes
    ----------
    seconds, cpu_seconds : float
    found : int
        Nuclei or cells.
    """

    seconds: float
    cpu_seconds: float
    found: int = 0


class Pixels:
    """A slide held in memory."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels, self.shape = pixels, pixels.shape

    def read(self, channels: list[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Return the pixels of a window, (channels, rows, columns)."""
        return self.pixels[channels, y0:y1, x0:x1]


def compare(options: argparse.Namespace, peers: Peers, images: Sequence[LabelledImage]) -> None:
    """Print the tables.

    Parameters
    ----------
    options : Namespace
        `data`, where the slide is kept; `model`; `rounds`.
    peers : Peers
    images : sequence of LabelledImage
        Of which the dense mosaic is laid.
    """
    slide, truth = _slide(options.data)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"), initializer=_use_one_thread) as pool:
        _compare_slide(slide, options, pool)
        _compare_networks(slide, truth, images, options, pool, peers)
        _compare_pipelines(slide, options, pool)


def _compare_slide(slide: Path, options: argparse.Namespace, pool: ProcessPoolExecutor) -> None:
    rows = _in_turns(
        {
            "read and decode": lambda: _read(slide),
            f"to the table of cells ({options.model})": lambda: _halved(_both(pool, _cells_of, slide, options.model)),
        },
        options.rounds,
    )
    side = FIELD_PX * FIELDS
    print(f"\nOne slide of {side} x {side} px, 4 channels, uint16, deflated, {slide.stat().st_size / 1e6:.0f} MB.")
    print(f"Reading: {WORKERS} threads. Ours: two such slides in {WORKERS} processes, the time halved; background,")
    print("nuclei, cells, labels on disk, table.")
    _print(rows, side**2, "read and decode")


def _compare_networks(
    slide: Path,
    truth: Path,
    images: Sequence[LabelledImage],
    options: argparse.Namespace,
    pool: ProcessPoolExecutor,
    peers: Peers,
) -> None:
    corner = slice(0, PLANE_PX), slice(0, PLANE_PX)
    planes = {
        "simulated slide, DAPI": (tifffile.imread(slide, key=0)[corner], tifffile.imread(truth)[corner]),
        "dense mosaic": _mosaic(images),
    }
    print(f"\nNuclei of one plane. Ours: a half of it in each of {WORKERS} processes. StarDist: {WORKERS} threads, the")
    print("network of 2D_versatile_fluo with RANDOM weights (speed only; it costs what trained ones cost), then its")
    print("polygons from what perfect weights would say of the true nuclei. Normalisation isn't counted.")
    with tempfile.TemporaryDirectory() as folder:
        for name, (plane, nuclei) in planes.items():
            path = Path(folder) / f"{name}.npy"
            np.save(path, plane)
            ways = {f"ours: {options.model}": lambda path=path: _joint(_both(pool, _nuclei_of, path, options.model))}
            if peers.versions["stardist"]:
                ways["StarDist"] = lambda name=name, pair=(plane, nuclei): _stardist(peers, name, *pair)
            else:
                print("StarDist: not there; name a Python that has it by --peer-python.")
            count = len(np.unique(nuclei)) - 1
            print(f"\n{name}: {plane.shape[0]} x {plane.shape[1]} px, {count:,} true nuclei")
            _print(_in_turns(ways, options.rounds), plane.size, "StarDist")


def _compare_pipelines(slide: Path, options: argparse.Namespace, pool: ProcessPoolExecutor) -> None:
    pixels = tifffile.imread(slide)[:, :PLANE_PX, :PLANE_PX]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.npy"
        np.save(path, pixels)
        ways: dict[str, Callable[..., int]] = {
            "scikit-image, nuclei": _scikit_image_nuclei,
            f"ours: {CLASSICAL}, nuclei": _classical_nuclei,
            "scikit-image, nuclei and table": _scikit_image_table,
            f"ours: {CLASSICAL}, nuclei and table": _classical_measured,
            f"ours: {CLASSICAL}, nuclei, cells and table": _classical_table,
        }
        rows = _in_turns({name: lambda way=way: _alone(pool, way, path) for name, way in ways.items()}, options.rounds)
    print(f"\nWithout a network, {PLANE_PX} x {PLANE_PX} px, one process. scikit-image: Otsu, distance transform,")
    print("watershed, regionprops_table on four channels. Ours: background, nuclei, table; then the cells, too.")
    _print(rows.iloc[:2], PLANE_PX**2, "scikit-image, nuclei")
    _print(rows.iloc[2:], PLANE_PX**2, "scikit-image, nuclei and table")


def _slide(folder: Path) -> tuple[Path, Path]:
    """Return the simulated slide and its true nuclei, made once: fields of other seeds, side by side."""
    slide, truth = folder / "slide.ome.tif", folder / "nuclei.tif"
    if slide.exists() and truth.exists():
        return slide, truth
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Simulating the slide, kept in {folder} ...", flush=True)
    side = FIELD_PX * FIELDS
    pixels, nuclei, names = np.empty((4, side, side), np.uint16), np.zeros((side, side), np.int32), ("",)
    for number in range(FIELDS**2):
        field = simulate_slide((FIELD_PX, FIELD_PX), ctc=CTC, leukocytes=LEUKOCYTES, seed=FIRST_SEED + number)
        y, x = (FIELD_PX * place for place in divmod(number, FIELDS))
        place, names = (slice(y, y + FIELD_PX), slice(x, x + FIELD_PX)), field.channel_names
        pixels[:, *place] = field.image
        nuclei[place] = np.where(field.nuclei > 0, field.nuclei + nuclei.max(), 0)
    write_image(SimulatedSlide(pixels, pd.DataFrame(), nuclei, PIXEL_UM, names), slide)
    with atomic_path(truth) as temporary:
        tifffile.imwrite(temporary, nuclei, compression="zlib")
    return slide, truth


def _mosaic(images: Sequence[LabelledImage], side_px: int = 256, across: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Lay the most crowded images of one size side by side; return pixels and true nuclei."""
    fitting = [item for item in images if item.image.shape == (side_px, side_px)]
    crowded = sorted(fitting, key=lambda item: (-(item.labels > 0).mean(), item.name))[: len(fitting) // 2]
    pixels = np.zeros((across * side_px, across * side_px), np.uint8)
    nuclei = np.zeros(pixels.shape, np.int32)
    for number in range(across**2):
        item = crowded[number % len(crowded)]
        y, x = (side_px * place for place in divmod(number, across))
        place = slice(y, y + side_px), slice(x, x + side_px)
        pixels[place] = item.image
        nuclei[place] = np.where(item.labels > 0, item.labels + nuclei.max(), 0)
    return pixels, nuclei


def _in_turns(ways: dict[str, Callable[[], Took | None]], rounds: int) -> pd.DataFrame:
    """Do everything once unclocked, then in turns; one row a way, medians. A way that gives None isn't offered."""
    offered = {name: way for name, way in ways.items() if way() is not None}
    taken: dict[str, list[Took]] = {name: [] for name in offered}
    for _ in range(rounds):
        for name, way in offered.items():
            took = way()
            assert took is not None
            taken[name].append(took)
    columns = ("seconds", "cpu_seconds", "found")
    return pd.DataFrame(
        [[median(getattr(took, column) for took in taken[name]) for column in columns] for name in offered],
        index=list(offered),
        columns=list(columns),
    )


def _print(rows: pd.DataFrame, px: int, than: str) -> None:
    """Print a table, with the ratios of seconds to those of one row."""
    base = rows.loc[than] if than in rows.index else None
    print(f"{'':44} {'seconds':>8} {'CPU s':>7} {'Mpx/s':>7} {'found':>7}  {'time by ' + than:>10}")
    for name, row in rows.iterrows():
        ratio = (
            ""
            if base is None
            else f"{row['seconds'] / base['seconds']:6.2f} (CPU {row['cpu_seconds'] / base['cpu_seconds']:.2f})"
        )
        speed = f"{1e-6 * px / row['seconds']:7.2f}"
        found = f"{row['found']:7.0f}" if row["found"] else " " * 7
        print(f"{name:44} {row['seconds']:8.2f} {row['cpu_seconds']:7.2f} {speed} {found}  {ratio}", flush=True)


def _use_one_thread() -> None:
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _both(pool: ProcessPoolExecutor, work: Callable[..., Took], path: Path, model: str) -> list[Took]:
    """Have each worker do its part."""
    return list(pool.map(work, [path] * WORKERS, [model] * WORKERS, range(WORKERS)))


def _halved(parts: Iterable[Took]) -> Took:
    """Return what one of the slides took that were done side by side."""
    parts = list(parts)
    seconds = max(part.seconds for part in parts) / len(parts)
    return Took(seconds, sum(part.cpu_seconds for part in parts) / len(parts), parts[0].found)


def _joint(parts: Iterable[Took]) -> Took:
    """Return what parts of one thing took that were done side by side."""
    parts = list(parts)
    return Took(
        max(part.seconds for part in parts), sum(part.cpu_seconds for part in parts), sum(part.found for part in parts)
    )


def _alone(pool: ProcessPoolExecutor, way: Callable[[np.ndarray], int], path: Path) -> Took | None:
    return pool.submit(_timed_on, way, path).result()


def _timed_on(way: Callable[[np.ndarray], int], path: Path) -> Took | None:
    pixels = np.load(path)
    try:
        return _timed(lambda: way(pixels))
    except ModelError:
        return None


def _timed(work: Callable[[], int]) -> Took:
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    return Took(time.perf_counter() - start, time.process_time() - cpu, found)


def _read(slide: Path) -> Took:
    """Decode the whole file, in threads as tifffile does."""
    return _timed(lambda: tifffile.imread(slide, maxworkers=WORKERS) is None)


def _cells_of(slide: Path, model: str, _part: int) -> Took:
    """Go from a file to its labels and table."""
    with tempfile.TemporaryDirectory(dir=slide.parent) as folder:
        return _timed(lambda: _segment_file(slide, model, Path(folder)))


def _segment_file(path: Path, model: str, folder: Path) -> int:
    panel = load_panel("emt-4")
    with open_slide(path) as scan:
        take_in(scan, panel.assign(scan.channel_names, path), folder / "pixels")
    with open_copy(folder / "pixels", path) as slide:
        labels = create_labels(folder / "labels.ome.zarr", *slide.shape[1:])
        return _segment(slide, {short: index for index, short in enumerate(panel.shorts)}, labels, model)


def _segment(slide: PixelSource, channels: dict[str, int], labels: object, model: str) -> int:
    background = measure_background(slide, channels)
    panel = load_panel("emt-4")
    return len(segment_slide(slide, channels, panel, background, labels, PIXEL_UM, finder=model))


def _nuclei_of(path: Path, model: str, part: int) -> Took:
    plane = np.load(path)
    height = len(plane) // WORKERS
    half = plane[part * height : (part + 1) * height]
    return _timed(lambda: _nuclei_as_on_slides(half, model))


def _nuclei_as_on_slides(plane: np.ndarray, model: str) -> int:
    """Find the nuclei of a plane as those of a tile are found: one look, at the stained parts only."""
    background = measure_background(Pixels(plane[None]), {"dapi": 0})
    signal = background.over(plane[None], 0, 0)[1][0]
    regions = find_regions(stained_blocks(signal, PIXEL_UM))
    everywhere = slice(0, plane.shape[0]), slice(0, plane.shape[1])
    wanted = np.ones(len(regions.boxes), bool)
    maps = look(load_finder(model), signal, regions, wanted, everywhere, (0, 0), PIXEL_UM)
    return int(find_instances(maps, np.pi / 4 * (MIN_DIAMETER_UM / PIXEL_UM) ** 2).max(initial=0))


def _classical_nuclei(pixels: np.ndarray) -> int:
    return _nuclei_as_on_slides(pixels[0], CLASSICAL)


def _classical_measured(pixels: np.ndarray) -> int:
    """Do what the pipeline of scikit-image does, tile by tile: nuclei, and the table of them on all channels."""
    panel, slide = load_panel("emt-4"), Pixels(pixels)
    background = measure_background(slide, {short: index for index, short in enumerate(panel.shorts)})
    own = Background(background.level[[0]], background.noise[[0]])
    grid = Grid.of(pixels.shape[1:], PIXEL_UM)
    found = 0
    for core in grid.cores(2048):
        nuclei = find_tile_nuclei(slide, 0, own, grid, CLASSICAL, core)
        box = nuclei.reach(grid)
        above, signal = background.over(grid.read(slide, [0, 1, 2, 3], box), box.y0, box.x0)
        y, x = nuclei.corner_px[0] - box.y0, nuclei.corner_px[1] - box.x0
        runs = nuclei.runs.astype(np.int32) + np.array([0, y, x, x], np.int32)
        view = CellPixels(runs, runs, above, signal, (box.y0, box.x0), grid.slide_px)
        found += len(measure_cells(view, panel, PIXEL_UM))
    return found


def _classical_table(pixels: np.ndarray) -> int:
    labels = np.zeros((2, *pixels.shape[1:]), np.uint32)
    return _segment(Pixels(pixels), dict(zip(load_panel("emt-4").shorts, range(4), strict=True)), labels, CLASSICAL)


def _scikit_image_nuclei(pixels: np.ndarray) -> int:
    return int(scikit_image(pixels[0], NUCLEUS_PX).max())


def _scikit_image_table(pixels: np.ndarray) -> int:
    return len(scikit_image_cells(pixels, NUCLEUS_PX))


def _stardist(peers: Peers, name: str, plane: np.ndarray, nuclei: np.ndarray) -> Took | None:
    try:
        told = peers.stardist_speed(plane, nuclei, name)
    except PeerError as error:
        print(f"StarDist: left out ({error}).")
        return None
    return Took(told["seconds"], told["cpu_seconds"], told["nuclei"])
