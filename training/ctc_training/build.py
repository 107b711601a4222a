"""From a plan of slides to a model folder: train, calibrate, test, describe."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import ctc_imaging
from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.model import Calibration, Classifier, Thresholds, save_model
from ctc_imaging.classification.rarity import BALANCED, at_prevalence
from ctc_imaging.files import sha256_json, write_text
from ctc_imaging.positivity import MARKERS, PositivityScale
from ctc_training.calibrate import (
    COVERAGE,
    PREVALENCE,
    conformal_sets,
    ctc_threshold,
    fit_calibration,
    fit_positivity,
)
from ctc_training.card import model_card
from ctc_training.checkpoint import Epoch
from ctc_training.curves import write_curves
from ctc_training.dataset import FRAGMENT, CropSet, Recipe, concatenate, simulated_crops, take
from ctc_training.evaluate import evaluate
from ctc_training.outputs import Outputs, outputs_on
from ctc_training.plan import STANDARD, Plan
from ctc_training.reference import simulated_reference
from ctc_training.schedule import Schedule, as_notes, default_architecture
from ctc_training.start import Start
from ctc_training.textures import NucleusBank
from ctc_training.train import HELD_OUT_MOST, Learned, learn

ARCHITECTURE = default_architecture()
LEAST_MARKED = 20
"""CTCs of known markers from which their positivity can be fitted."""

Decisions = tuple[Calibration, Thresholds, dict[str, PositivityScale]]
UNDECIDED: Decisions = (
    Calibration(1.0, (0.0, 0.0, 0.0), PREVALENCE),
    Thresholds(0.5, (0.0, 0.0, 0.0), COVERAGE),
    {str(role): PositivityScale(1.0, 0.0) for role in MARKERS},
)
"""What a model is saved with before it is calibrated."""


def make_model(
    folder: Path,
    plan: Plan,
    schedule: Schedule,
    cache: Path | None = None,
    progress: Callable[[str], None] = lambda message: None,
    *,
    architecture: dict[str, int] | None = None,
    start: Start | None = None,
    bank: NucleusBank | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
    told: Callable[[Epoch], None] | None = None,
) -> Classifier:
    """Train, calibrate and test a model on simulated slides, and write its folder.

    Parameters
    ----------
    folder : Path
        Gets ``weights.safetensors``, ``model.json``, ``CARD.md``, ``curves.csv`` and ``curves.png``; its name
        is the model's.
    plan : Plan
    schedule : Schedule
    cache : Path, optional
        Folder that keeps the slides' crops for another time.
    progress : callable
        Called with a line of text now and then.
    architecture : dict, optional
        Arguments of `CellNetwork`.
    start : Start, optional
        A model to go on from.
    bank : NucleusBank, optional
        See `simulated_crops`.
    checkpoint : Path, optional
        See `learn`; removed at the end.
    device : str
    told : callable, optional
        Called after each epoch; by default `progress` is, with a line.

    Returns
    -------
    Classifier
    """
    size = start.architecture if start else architecture or ARCHITECTURE
    progress(f"simulating {len(plan.training)} slides for training")
    crops = simulated_crops(plan.training, cache, bank)
    progress(f"training on {len(crops)} crops")
    learned = learn(
        crops,
        schedule,
        size,
        told or (lambda epoch: progress(f"epoch {epoch.epoch} of {schedule.epochs}: loss {epoch.loss:.4f}")),
        start=start.weights if start else None,
        held_out=_judged(plan, schedule, cache) if schedule.patience else None,
        checkpoint=checkpoint,
        identity=sha256_json([hash_crops(crops), as_notes(schedule), size, start and start.classifier.hash, device]),
        device=device,
    )
    training = describe_training(plan, crops, schedule, bank) | _further(learned, start)
    del crops
    write_curves(folder, learned.curve)
    draft = save_model(folder, learned.network, size, *UNDECIDED, {"training": training})
    progress(f"calibrating on {len(plan.calibration)} held-out slides")
    decisions = calibrate(outputs_on(draft, plan.calibration, cache))
    tuned = save_model(folder, learned.network, size, *decisions, {"training": training})
    progress(f"testing on {len(plan.test)} further slides")
    metrics = evaluate(tuned, outputs_on(tuned, plan.test, cache))
    notes = {"training": training, "metrics": metrics}
    if plan.reference_slides:
        progress(f"measuring what {plan.reference_slides} usual slides are like, for drift")
        notes["reference"] = simulated_reference(tuned, plan.reference_slides, schedule.seed)
    classifier = save_model(folder, learned.network, size, *decisions, notes)
    write_text(folder / "CARD.md", model_card(classifier, notes))
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return classifier


def calibrate(outputs: Outputs, coverage: float = COVERAGE) -> Decisions:
    """Fit calibration, thresholds and positivity on held-out slides.

    Second pieces of a true CTC are left out: they are no measure of a classifier, and their number
    goes with the CTCs, not with the leukocytes. Prediction sets are chosen on the standard slides where there are
    any: what a model does on harder ones is to be told, not to be covered up by wider sets for all.
    """
    whole = outputs.take((outputs.kind != FRAGMENT) & outputs.nucleate)
    calibration = fit_calibration(whole.logits, whole.target)
    p = calibration.probabilities(whole.logits)
    usual = whole.setting == STANDARD
    usual = usual if usual.any() else np.ones(len(whole), bool)
    balanced = at_prevalence(p[usual], calibration.prevalence, BALANCED)
    thresholds = Thresholds(
        ctc_threshold(p[:, 0], whole.target, whole.counts()["leukocyte"]),
        conformal_sets(balanced, whole.target[usual], coverage),
        coverage,
    )
    ctc = whole.take(whole.target == CLASSES.index("ctc"))
    positivity = dict(UNDECIDED[2])
    for place, role in enumerate(MARKERS):
        # Reviewed cells don't tell which markers they carry.
        if (~np.isnan(ctc.snr[:, place])).sum() >= LEAST_MARKED:
            positivity[str(role)] = fit_positivity(ctc.markers[:, place], ctc.snr[:, place])
    return calibration, thresholds, positivity


def describe_training(
    plan: Plan, crops: CropSet, schedule: Schedule, bank: NucleusBank | None = None
) -> dict[str, Any]:
    """What a model was made from, as kept in ``model.json``."""
    return {
        "data": "simulated slides only; no cell of a patient or donor",
        "slides": {name: _summary(getattr(plan, name)) for name in ("training", "calibration", "test")},
        "crops": len(crops),
        "crops_sha256": hash_crops(crops),
        "real_nuclei": len(bank.nuclei) if bank else 0,
        "schedule": as_notes(schedule),
        "ctc_imaging": ctc_imaging.__version__,
    }


def _further(learned: Learned, start: Start | None) -> dict[str, Any]:
    """What else there is to say of a training, where there is."""
    facts: dict[str, Any] = {"epoch_kept": learned.kept, "epochs_run": len(learned.curve)}
    return facts | ({"started_from": {"name": start.classifier.name, "hash": start.classifier.hash}} if start else {})


def _judged(plan: Plan, schedule: Schedule, cache: Path | None) -> CropSet:
    """Crops of the held-out slides by which to tell when to stop, so few that they fit into memory."""
    rng, parts = np.random.default_rng(schedule.seed), []
    for recipe in plan.calibration:
        crops = simulated_crops([recipe], cache)
        rows = rng.permutation(len(crops))[: HELD_OUT_MOST // len(plan.calibration)]
        parts.append(take(crops, np.sort(rows)))
    return concatenate(parts)


def hash_crops(crops: CropSet) -> str:
    """SHA-256 of crops and their truth, as hex."""
    digest = hashlib.sha256()
    for array in (crops.roles, crops.masks, crops.present, crops.target, crops.snr):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _summary(recipes: Iterable[Recipe]) -> dict[str, Any]:
    recipes = list(recipes)
    seeds = [recipe.seed for recipe in recipes]
    return {
        "settings": dict(Counter(recipe.setting for recipe in recipes)),
        "seeds": [min(seeds), max(seeds)],
        "ctc": sum(recipe.ctc for recipe in recipes),
        "leukocytes": sum(recipe.leukocytes for recipe in recipes),
    }
