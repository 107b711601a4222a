"""Crops with known truth: simulate a slide, segment it as in use, and match its cells to what was drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

import ctc_imaging
from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.crops import ROLES, iterate_crops
from ctc_imaging.files import atomic_path, sha256_json
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.segmentation import measure_background, segment_slide
from ctc_imaging.segmentation.model import load_finder
from ctc_imaging.simulation import SimulatedSlide
from ctc_imaging.simulation.slide import simulate_with
from ctc_training.hard_settings import TRAINING_SETTINGS
from ctc_training.textures import NucleusBank

if TYPE_CHECKING:
    import pandas as pd

UNMATCHED = "unmatched"
FRAGMENT = "fragment"
"""Kind of a segmented piece of a true cell that another piece already stands for."""

_ARRAYS = ("roles", "masks", "present", "target", "snr", "kind", "source")


@dataclass(frozen=True)
class Recipe:
    """One simulated slide of a dataset.

    `setting` is one of `TRAINING_SETTINGS`; of a `textured` slide most nuclei are real ones, cut from labelled images.
    """

    setting: str
    seed: int
    ctc: int
    leukocytes: int
    shape_px: tuple[int, int] = (2048, 2048)
    pixel_size_um: float = 0.5
    panel: str = "emt-4"
    textured: bool = False

    @property
    def source(self) -> str:
        """Name of the slide in tables: setting and seed."""
        return f"{self.setting}/{self.seed}"

    def key(self, bank: NucleusBank | None = None) -> str:
        """Hash of the recipe and of all code, images and weights that turn it into crops."""
        images = bank.images_sha256 if bank and self.textured else None
        return sha256_json({**asdict(self), "code": _code(), "nuclei": load_finder().hash, "images": images})


@dataclass(frozen=True)
class CropSet:
    """Crops of one or more slides with their truth.

    Attributes
    ----------
    roles : ndarray of float16, shape (n, 4, 48, 48)
    masks : ndarray of uint8, shape (n, 2, 48, 48)
        In 255ths.
    present : ndarray of float32, shape (n, 4)
    target : ndarray of int64, shape (n,)
        Index in `CLASSES`; what matches no true cell is an artefact.
    snr : ndarray of float32, shape (n, 3)
        True signal-to-noise of the epithelial, mesenchymal and leukocyte marker; NaN where unknown.
    kind : ndarray of str, shape (n,)
        The simulator's word for the object, `FRAGMENT` or `UNMATCHED`.
    source : ndarray of str, shape (n,)
        Slide of each crop, as `Recipe.source`.
    truth : dict
        Per source the number of true `ctc` and `leukocyte` cells, found by the segmentation or not.
    soft : ndarray of float32, shape (n, 3), optional
        Share of the readers for each class, where readers gave the labels.
    weight : ndarray of float32, shape (n,), optional
        How much oftener than others of its class a crop is to be drawn.
    """

    roles: np.ndarray
    masks: np.ndarray
    present: np.ndarray
    target: np.ndarray
    snr: np.ndarray
    kind: np.ndarray
    source: np.ndarray
    truth: dict[str, dict[str, int]]
    soft: np.ndarray | None = None
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class ArraySlide:
    """A slide in memory, for pixels that never were a file."""

    image: np.ndarray
    pixel_size_um: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return self.image.shape

    def read(self, channels: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Return the pixels of a window, (channels, rows, columns)."""
        return self.image[list(channels), y0:y1, x0:x1]


def simulated_crops(recipes: Iterable[Recipe], cache: Path | None = None, bank: NucleusBank | None = None) -> CropSet:
    """Make the crops of simulated slides, or take them from the cache.

    Parameters
    ----------
    recipes : iterable of Recipe
    cache : Path, optional
        Folder that keeps each slide's crops. A change of the recipe or of the code that simulates,
        segments or crops makes them anew.
    bank : NucleusBank, optional
        Real nuclei for the textured slides, which otherwise have the simulator's own.

    Returns
    -------
    CropSet
    """
    return concatenate([_cached(recipe, cache, bank) for recipe in recipes])


def concatenate(parts: Sequence[CropSet]) -> CropSet:
    """Join simulated crop sets, which need not come from the same panel."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    truth = {source: counts for part in parts for source, counts in part.truth.items()}
    return CropSet(**joined, truth=truth)


def take(crops: CropSet, rows: np.ndarray) -> CropSet:
    """Return the crops of some rows; the slides' truth stays whole."""
    chosen = {name: getattr(crops, name)[rows] for name in _ARRAYS}
    of_readers = {name: getattr(crops, name) for name in ("soft", "weight") if getattr(crops, name) is not None}
    return replace(crops, **chosen, **{name: value[rows] for name, value in of_readers.items()})


def match_cells(cells: pd.DataFrame, truth: pd.DataFrame) -> np.ndarray:
    """Match segmented cells to true objects, one to one, nearest first.

    An object takes cells whose centre lies within its radius. CTCs choose first, then leukocytes,
    then dirt: of two cells segmented as one the CTC is what must be found, and a dye speck on a
    leukocyte doesn't make the leukocyte an artefact.

    Parameters
    ----------
    cells : DataFrame
        With `y_um`, `x_um`.
    truth : DataFrame
        With `y_um`, `x_um`, `diameter_um`, `class`.

    Returns
    -------
    ndarray of int64, shape (n,)
        Position of each cell's object in `truth`, -1 for none.
    """
    cell, thing, distance = _within_radius(cells, truth)
    order = truth["class"].map(CLASSES.index).to_numpy()[thing]
    match = np.full(len(cells), -1, np.int64)
    taken = np.zeros(len(truth), bool)
    for index in np.lexsort((distance, order)):
        if match[cell[index]] < 0 and not taken[thing[index]]:
            match[cell[index]] = thing[index]
            taken[thing[index]] = True
    return match


def label_cells(cells: pd.DataFrame, truth: pd.DataFrame, panel: Panel) -> dict[str, np.ndarray]:
    """Give each segmented cell its `target`, `snr` and `kind` (see `CropSet`)."""
    match = match_cells(cells, truth)
    known = match >= 0
    target = np.full(len(cells), CLASSES.index("artefact"), np.int64)
    target[known] = truth["class"].map(CLASSES.index).to_numpy()[match[known]]
    kind = np.full(len(cells), UNMATCHED, "U32")
    kind[known] = truth["kind"].to_numpy().astype("U32")[match[known]]
    cell, _, _ = _within_radius(cells, truth[truth["class"] != "artefact"])
    kind[np.isin(np.arange(len(cells)), cell) & ~known] = FRAGMENT
    snr = np.full((len(cells), len(ROLES) - 1), np.nan, np.float32)
    for column, role in enumerate(ROLES[1:]):
        channel = panel.channel(role)
        if channel is not None:
            snr[known, column] = truth[f"snr_{channel.short}"].to_numpy(np.float32)[match[known]]
    return {"target": target, "snr": snr, "kind": kind}


def _within_radius(cells: pd.DataFrame, truth: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs (cell, object, distance in um) with the cell's centre within the object's radius."""
    places = cells[["y_um", "x_um"]].to_numpy(float)
    centres, radius = truth[["y_um", "x_um"]].to_numpy(float), truth["diameter_um"].to_numpy(float) / 2
    if not len(places) or not len(centres):
        return np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0)
    near = cKDTree(places).query_ball_point(centres, radius, return_sorted=True)
    thing = np.repeat(np.arange(len(centres)), [len(found) for found in near])
    cell = np.concatenate([np.asarray(found, np.intp) for found in near])
    return cell, thing, np.hypot(*(places[cell] - centres[thing]).T)


def crops_of_slide(slide: SimulatedSlide, panel: Panel, source: str) -> CropSet:
    """Segment a simulated slide as in use, and label its crops."""
    pixels = ArraySlide(slide.image, slide.pixel_size_um)
    channels = panel.assign(slide.channel_names, source)
    background = measure_background(pixels, channels)
    labels = np.zeros((2, *slide.image.shape[1:]), np.uint32)
    cells = segment_slide(pixels, channels, panel, background, labels, slide.pixel_size_um)
    batches = list(iterate_crops(pixels, channels, panel, background, labels, cells))
    order = np.concatenate([batch.cell_ids for batch in batches])
    ordered = cells.set_index("cell_id").loc[order].reset_index()
    largest = np.finfo(np.float16).max
    counts = slide.truth["class"].value_counts()
    return CropSet(
        roles=np.concatenate([batch.roles.clip(-largest, largest).astype(np.float16) for batch in batches]),
        masks=np.concatenate([(batch.masks * 255).round().astype(np.uint8) for batch in batches]),
        present=np.tile(batches[0].present, (len(order), 1)),
        **label_cells(ordered, slide.truth, panel),
        source=np.full(len(order), source, "U64"),
        truth={source: {name: int(counts.get(name, 0)) for name in ("ctc", "leukocyte")}},
    )


def _make(recipe: Recipe, bank: NucleusBank | None) -> CropSet:
    slide = simulate_with(
        TRAINING_SETTINGS[recipe.setting],
        recipe.shape_px,
        ctc=recipe.ctc,
        leukocytes=recipe.leukocytes,
        seed=recipe.seed,
        pixel_size_um=recipe.pixel_size_um,
        panel=recipe.panel,
        source=bank if recipe.textured else None,
    )
    return crops_of_slide(slide, load_panel(recipe.panel), recipe.source)


def _cached(recipe: Recipe, cache: Path | None, bank: NucleusBank | None) -> CropSet:
    if cache is None:
        return _make(recipe, bank)
    path = cache / f"{recipe.setting}-{recipe.seed}-{recipe.key(bank)[:16]}.npz"
    if not path.is_file():
        crops = _make(recipe, bank)
        arrays: dict[str, Any] = {name: getattr(crops, name) for name in _ARRAYS}
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays, truth=np.array(json.dumps(crops.truth)))
    with np.load(path) as stored:
        return CropSet(**{**stored, "truth": json.loads(str(stored["truth"]))})


def _code() -> str:
    """Hash of the modules between a recipe and its crops."""
    package = Path(ctc_imaging.__file__).parent
    files = [
        package / "features.py",
        package / "classification" / "crops.py",
        Path(__file__),
        *sorted((package / "simulation").glob("*.py")),
        *sorted((package / "segmentation").glob("*.py")),
    ]
    return sha256_json([file.read_text(encoding="utf-8") for file in files])
