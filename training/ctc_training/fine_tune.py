"""From a training set to a model folder: learn, calibrate, test, describe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ctc_imaging
from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.model import Classifier, save_model
from ctc_imaging.files import sha256_json, write_text
from ctc_imaging.simulation import SETTINGS
from ctc_training.build import LEAST_MARKED, UNDECIDED, Decisions, calibrate
from ctc_training.calibrate import PER
from ctc_training.card_reviewed import card_of
from ctc_training.checkpoint import Epoch
from ctc_training.curves import write_curves
from ctc_training.dataset import CropSet, concatenate, simulated_crops
from ctc_training.dataset_folder import Dataset
from ctc_training.errors import DatasetError
from ctc_training.evaluate import evaluate
from ctc_training.outputs import Outputs, join, outputs_on
from ctc_training.part_outputs import is_real, outputs_of_part, slice_of
from ctc_training.plan import STANDARD, Plan
from ctc_training.schedule import Schedule, as_notes
from ctc_training.start import Start, write_seen
from ctc_training.train import Learned, learn

LEAST_CELLS = 100
"""Held-out cells of each class from which a calibration can be told."""

KIND = "dataset"
"""How `training` in ``model.json`` says that a model was made from a training set."""


@dataclass(frozen=True)
class Lesson:
    """What a model is made from.

    Attributes
    ----------
    dataset : Dataset
    schedule : Schedule
    architecture : dict
    start : Start, optional
        The model to go on from.
    plan : Plan, optional
        Simulated slides beside those of the training set: mixed in, and calibrated on too.
    cache : Path, optional
        Keeps their crops for another time.
    """

    dataset: Dataset
    schedule: Schedule
    architecture: dict[str, int]
    start: Start | None = None
    plan: Plan | None = None
    cache: Path | None = None

    def identity(self, device: str) -> str:
        """Hash of all that the weights depend on."""
        plan = None if self.plan is None else [recipe.source for recipe in self.plan.training]
        start = self.start and self.start.classifier.hash
        return sha256_json([self.dataset.hash, as_notes(self.schedule), self.architecture, start, plan, device])


def make_model_of(
    folder: Path,
    lesson: Lesson,
    checkpoint: Path | None = None,
    device: str = "cpu",
    note: Callable[[str], None] = lambda line: None,
    told: Callable[[Epoch], None] = lambda epoch: None,
) -> Classifier:
    """Train, calibrate and test a model on a training set, and write its folder.

    Parameters
    ----------
    folder : Path
        Gets ``weights.safetensors``, ``model.json``, ``CARD.md``, ``seen.csv``, ``curves.csv`` and
        ``curves.png``; its name is the model's.
    lesson : Lesson
    checkpoint : Path, optional
        See `learn`; removed at the end.
    device : str
    note : callable
        Called with a line of text now and then.
    told : callable
        Called after each epoch.

    Raises
    ------
    DatasetError
        If the training set lacks a class where one is needed.
    """
    learned = _learn(lesson, checkpoint, device, note, told)
    training = _describe(lesson, learned)
    training["seen_sha256"] = write_seen(folder, _seen_rows(lesson), [lesson.start.seen] if lesson.start else [])
    write_curves(folder, learned.curve)
    network, size = learned.network, lesson.architecture
    draft = save_model(folder, network, size, *UNDECIDED, {"training": training})
    note("calibrating on held-out cells")
    held_out = _held_out(draft, lesson)
    decisions, kept = decide_from(held_out, lesson.start.classifier if lesson.start else None)
    leukocytes = held_out.counts()["leukocyte"]
    training["calibrated_on"] = {"leukocytes": leukocytes, "kept_from_start": list(kept)}
    tuned = save_model(folder, network, size, *decisions, {"training": training})
    tested = outputs_of_part(tuned, lesson.dataset, "test")
    metrics = evaluate(tuned, tested) if len(tested.target) else {}
    classifier = save_model(folder, network, size, *decisions, {"training": training, "metrics": metrics})
    write_text(folder / "CARD.md", card_of(classifier))
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return classifier


def decide_from(held_out: Outputs, start: Classifier | None) -> tuple[Decisions, tuple[str, ...]]:
    """Calibrate, but take from the model before what can't be told from the cells held out.

    Fewer than 100 cells of a class don't tell its calibration: where classes part perfectly there is no largest
    likelihood. Nor do they tell which probability all but 1 % of them have. Which threshold lets one false CTC in
    100,000 leukocytes pass can't be told from fewer leukocytes, and what a marker's signal means not without CTCs
    whose markers are known.

    Parameters
    ----------
    held_out : Outputs
        Reviewed cells in the setting ``standard``, where there are any.
    start : Classifier, optional
        Without one all is fitted, on however little.

    Returns
    -------
    tuple, tuple of str
        As from `calibrate`; and what was kept, in words.
    """
    if start is None:
        return calibrate(held_out), ()
    counts = np.bincount(held_out.target, minlength=len(CLASSES))
    if (counts < LEAST_CELLS).any():
        return (start.calibration, start.thresholds, dict(start.positivity)), ("calibration", "thresholds")
    calibration, thresholds, positivity = calibrate(held_out)
    own = np.bincount(held_out.target[held_out.setting == STANDARD], minlength=len(CLASSES))
    ctc, leukocyte, artefact = np.where(own >= LEAST_CELLS, thresholds.sets, start.thresholds.sets).tolist()
    rare = held_out.counts()["leukocyte"] < PER
    marked = ~np.isnan(held_out.snr[:, 0]) & (held_out.target == CLASSES.index("ctc"))
    thresholds = replace(
        thresholds, ctc=start.thresholds.ctc if rare else thresholds.ctc, sets=(ctc, leukocyte, artefact)
    )
    enough = marked.sum() >= LEAST_MARKED
    return (calibration, thresholds, positivity if enough else dict(start.positivity)), ("thresholds",) if rare else ()


def _learn(
    lesson: Lesson, checkpoint: Path | None, device: str, note: Callable[[str], None], told: Callable[[Epoch], None]
) -> Learned:
    crops, simulated = lesson_crops(lesson)
    _check_classes([crops.target, *([] if simulated is None else [simulated.target])], lesson.dataset, "train")
    held_out = _real_part(lesson.dataset, "calibration")
    more = "" if simulated is None else f" and {len(simulated):,} simulated ones"
    note(f"training on {len(crops):,} crops{more}")
    return learn(
        crops,
        lesson.schedule,
        lesson.architecture,
        told,
        start=lesson.start.weights if lesson.start else None,
        teacher=lesson.start.classifier.network if lesson.start else None,
        simulated=simulated,
        held_out=held_out if len(held_out) else None,
        checkpoint=checkpoint,
        identity=lesson.identity(device),
        device=device,
    )


def lesson_crops(lesson: Lesson) -> tuple[CropSet, CropSet | None]:
    """Return the crops of scans, and the simulated ones to mix in; only the latter where there are no others."""
    crops = lesson.dataset.part("train")
    count = int(is_real(lesson.dataset, "train").sum())
    simulated = [replace(slice_of(crops, count, len(crops)), soft=None)] if count < len(crops) else []
    if lesson.plan is not None:
        simulated.append(simulated_crops(lesson.plan.training, lesson.cache))
    mixed = simulated[0] if len(simulated) == 1 else concatenate(simulated) if simulated else None
    if count == 0 and mixed is not None:
        return mixed, None
    return slice_of(crops, 0, count), mixed


def _real_part(dataset: Dataset, part: str) -> CropSet:
    crops, real = dataset.part(part), is_real(dataset, part)
    return slice_of(crops, 0, int(real.sum())) if real.any() else crops


def _check_classes(targets: Sequence[np.ndarray], dataset: Dataset, part: str) -> None:
    there = np.unique(np.concatenate(targets))
    missing = [name for index, name in enumerate(CLASSES) if index not in there]
    if missing:
        fault = f"the part {part} holds no {missing[0]}"
        raise DatasetError(dataset.folder, fault, "review more cells, or add --simulated small")


def _held_out(draft: Classifier, lesson: Lesson) -> Outputs:
    """Outputs to calibrate on: the training set's own part, and simulated slides where there are any."""
    own = outputs_of_part(draft, lesson.dataset, "calibration", whole=True)
    real = ~np.isin(own.setting, list(SETTINGS))
    # Prediction sets are chosen on what is called standard: here on the cells that were reviewed, where there are any.
    parts = [replace(own, setting=np.where(real, STANDARD, "simulated"))] if real.any() else [own]
    if lesson.plan is not None:
        more = outputs_on(draft, lesson.plan.calibration, lesson.cache)
        parts.append(replace(more, setting=np.full(len(more), "simulated")) if real.any() else more)
    outputs = join(parts)
    _check_classes([outputs.target], lesson.dataset, "calibration")
    return outputs


def _seen_rows(lesson: Lesson) -> pd.DataFrame:
    cells = lesson.dataset.cells
    return cells.loc[cells["part"] != "test", ["scan_sha256", "crop_sha256"]]


def _describe(lesson: Lesson, learned: Learned) -> dict[str, Any]:
    """What a model was made from, as kept in ``model.json``."""
    facts = lesson.dataset.facts
    simulated = None
    if lesson.plan is not None:
        simulated = {"slides": len(lesson.plan.training), "share": lesson.schedule.simulated_share}
    start = lesson.start and {"name": lesson.start.classifier.name, "hash": lesson.start.classifier.hash}
    return {
        "kind": KIND,
        "dataset": lesson.dataset.folder.name,
        "dataset_sha256": lesson.dataset.hash,
        **{name: facts[name] for name in ("split", "runs", "labelled", "origins", "readers", "patients", "batches")},
        **{name: facts[name] for name in ("cells_of_several_readers", "cells_disagreed_on", "parts")},
        "simulated": simulated,
        "started_from": start,
        "schedule": as_notes(lesson.schedule),
        "epoch_kept": learned.kept,
        "epochs_run": len(learned.curve),
        "ctc_imaging": ctc_imaging.__version__,
    }
