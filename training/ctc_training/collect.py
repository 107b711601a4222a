"""From reviewed runs, folders of labelled crops and simulated slides to one training set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ctc_imaging
from ctc_imaging.classification.classes import CALLS, CLASSES
from ctc_training.crop_arrays import CropArrays, image_hashes
from ctc_training.dataset import CropSet, Recipe, simulated_crops
from ctc_training.dataset_folder import Dataset, DatasetWriter, open_dataset, write_dataset
from ctc_training.errors import DatasetError
from ctc_training.labelled import LabelledFolder, labelled_folder
from ctc_training.plan import Plan
from ctc_training.reviewed import ReviewedRun, ReviewedSlide, reviewed_run
from ctc_training.split import PARTS, assign_parts, check_images, check_scans, groups_of

Note = Callable[[str], None]


@dataclass(frozen=True)
class Choice:
    """What a training set shall hold.

    Attributes
    ----------
    runs, crops : tuple of Path
        RUN folders with reviews, and folders of labelled crops.
    plan : Plan, optional
        Simulated slides for the three parts.
    by : {'batch', 'patient'}
        What may not be in two parts, see `split.groups_of`.
    frozen : bool
        All cells into the part `test`: a set to compare models on, which nothing is trained on.
    unreviewed : int
        See `reviewed_run`.
    without : Path, optional
        A training set whose patients, batches (by batch) and scans are left out.
    seed : int
    cache : Path, optional
        Keeps simulated crops for another time.
    """

    runs: tuple[Path, ...] = ()
    crops: tuple[Path, ...] = ()
    plan: Plan | None = None
    by: str = "batch"
    frozen: bool = False
    unreviewed: int = 0
    without: Path | None = None
    seed: int = 0
    cache: Path | None = None


def make_dataset(out: Path, choice: Choice, note: Note = lambda line: None) -> Dataset:
    """Make a training set.

    Parameters
    ----------
    out : Path
        A new folder.
    choice : Choice
    note : callable
        Told of what was left out.

    Raises
    ------
    DatasetError
        If there is nothing to learn from, too little for three parts, or a part would see cells of another.
    """
    runs = [reviewed_run(run, choice.unreviewed, choice.seed) for run in choice.runs]
    folders = [labelled_folder(folder) for folder in choice.crops]
    for run in runs:
        _tell(run, note)
    sources, dropped = _without([*(slide for run in runs for slide in run.slides), *folders], choice)
    if dropped:
        note(f"{dropped} cells left out, for they share a patient, batch or scan with {choice.without}")
    tables = [source.table for source in sources]
    if not tables and choice.plan is None:
        raise DatasetError(
            "--run", "nothing to learn from", "name runs with reviews, labelled crops or simulated slides"
        )
    parts = _parts(tables, choice)
    with write_dataset(out) as writer:
        unfound = _add_reviewed(writer, sources, parts)
        for line in unfound:
            note(line)
        truth = _add_simulated(writer, choice, note)
        table = writer.table()
        check_images(table[table["origin"] != "simulated"])
        writer.finish(_facts(choice, runs, folders, table, truth, unfound))
    return open_dataset(out)


def _tell(run: ReviewedRun, note: Note) -> None:
    for slide_id, reason in run.left_out.items():
        note(f"slide {slide_id} of {run.run.path.name} left out: {reason}")
    if run.undecided:
        note(f"{run.undecided} cells of {run.run.path.name} left out: no reader named a class")


def _without(
    sources: Sequence[ReviewedSlide | LabelledFolder], choice: Choice
) -> tuple[list[ReviewedSlide | LabelledFolder], int]:
    """Leave out what another training set must keep to itself."""
    if choice.without is None:
        return list(sources), 0
    kept_back = open_dataset(choice.without).cells
    left, dropped = [], 0
    for source in sources:
        shared = pd.Series(False, index=source.table.index)
        for column in ("patient_id", "scan_sha256", *(("batch",) if choice.by == "batch" else ())):
            names = set(kept_back[column]) - {""}
            shared |= source.table[column].isin(names)
        dropped += int(shared.sum())
        if not shared.all():
            left.append(replace(source, table=source.table[~shared].reset_index(drop=True)))
    return left, dropped


def _parts(tables: Sequence[pd.DataFrame], choice: Choice) -> list[np.ndarray]:
    """Part of each row of each source."""
    if not tables:
        return []
    table = pd.concat(tables, ignore_index=True)
    check_scans(table)
    parts = np.full(len(table), "test") if choice.frozen else assign_parts(table, choice.seed, choice.by)
    return np.split(parts, np.cumsum([len(one) for one in tables])[:-1])


def _add_reviewed(
    writer: DatasetWriter, sources: Sequence[ReviewedSlide | LabelledFolder], parts: Sequence[np.ndarray]
) -> list[str]:
    """Cut and add the crops of all sources; return what wasn't found."""
    notes = []
    for source, own in zip(sources, parts, strict=True):
        if isinstance(source, ReviewedSlide):
            _add(writer, source.cut(), source.table, own)
            continue
        lost = 0
        for row, path in enumerate(source.table["path"]):
            crops = source.cut(path)
            lost += crops is None
            if crops is not None:
                _add(writer, crops, source.table.iloc[[row]], own[[row]])
        if lost:
            notes.append(f"{lost} of {len(own)} crops of {source.folder.name} left out: no cell in their middle")
    return notes


def _add(writer: DatasetWriter, crops: CropArrays, table: pd.DataFrame, parts: np.ndarray) -> None:
    table = table.assign(crop_sha256=image_hashes(crops.roles))
    for part in PARTS:
        rows = np.flatnonzero(parts == part)
        if len(rows):
            chosen = CropArrays(**{name: array[rows] for name, array in vars(crops).items()})
            writer.add(part, chosen, table.iloc[rows])


def _add_simulated(writer: DatasetWriter, choice: Choice, note: Note) -> dict[str, dict[str, dict[str, int]]]:
    """Add simulated slides, each purpose to its part; return the number of true cells by part and slide."""
    truth: dict[str, dict[str, dict[str, int]]] = {}
    for part, recipe in _recipes(choice):
        note(f"simulating {recipe.source} for {part}")
        crops = simulated_crops([recipe], choice.cache)
        truth.setdefault(part, {}).update(crops.truth)
        arrays = CropArrays(crops.roles, crops.masks, crops.present, crops.snr)
        writer.add(part, arrays, _simulated_rows(recipe, crops))
    return truth


def _simulated_rows(recipe: Recipe, crops: CropSet) -> pd.DataFrame:
    """Rows of the table of cells for the crops of one simulated slide."""
    target = np.array(CLASSES)[crops.target]
    fixed: dict[str, Any] = {
        **{"origin": "simulated", "source": recipe.source, "setting": recipe.setting, "run": "", "batch": ""},
        **{"patient_id": f"simulated {recipe.source}", "slide_id": recipe.source, "scan_sha256": ""},
        **{"readers": "", "agreement": np.nan, "disputed": False, "phenotype": "", "weight": 1.0, "stands_for": 1},
    }
    votes = {call: (target == call).astype(int) for call in CALLS}
    own = {"cell_id": np.arange(len(crops)), "target": target, "kind": crops.kind}
    return pd.DataFrame({**own, **votes, **fixed, "crop_sha256": image_hashes(crops.roles)})


def _recipes(choice: Choice) -> Iterator[tuple[str, Recipe]]:
    if choice.plan is None:
        return
    for part, recipes in zip(PARTS, (choice.plan.training, choice.plan.calibration, choice.plan.test), strict=True):
        for recipe in recipes:
            yield ("test" if choice.frozen else part), recipe


def _facts(
    choice: Choice,
    runs: Iterable[ReviewedRun],
    folders: Iterable[LabelledFolder],
    table: pd.DataFrame,
    truth: dict[str, Any],
    unfound: list[str],
) -> dict[str, Any]:
    """Tell what a training set is made from."""
    real = table[table["origin"] != "simulated"]
    reviewed = real[real["origin"] == "reviewed"]
    readers = reviewed["readers"].str.split(";").explode().value_counts().sort_index()
    return {
        "ctc_imaging": ctc_imaging.__version__,
        "seed": choice.seed,
        "split": {"by": choice.by, "frozen": choice.frozen, "groups": len(set(groups_of(real, choice.by)))},
        "runs": [run.facts() for run in runs],
        "labelled": [{"folder": folder.folder.name, "crops": len(folder.table)} for folder in folders],
        "left_out": unfound,
        "origins": {str(name): int(count) for name, count in table["origin"].value_counts().sort_index().items()},
        "readers": {str(name): int(count) for name, count in readers.items()},
        "cells_of_several_readers": int(reviewed["readers"].str.contains(";").sum()),
        "cells_disagreed_on": int((reviewed["agreement"] < 1).sum()),
        "cells_disputed": int(reviewed["disputed"].sum()),
        "patients": int(real["patient_id"].nunique()),
        "batches": int(real.loc[real["batch"] != "", "batch"].nunique()),
        "parts": {part: _part_facts(table[table["part"] == part]) for part in PARTS},
        "simulated_truth": truth,
    }


def _part_facts(rows: pd.DataFrame) -> dict[str, int]:
    real = rows[rows["origin"] != "simulated"]
    return {"cells": len(rows), **{name: int((rows["target"] == name).sum()) for name in CLASSES}} | {
        "patients": int(real["patient_id"].nunique())
    }
