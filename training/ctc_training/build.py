"""From a plan of slides to a model folder: train, calibrate, test, describe."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import ctc_imaging
from ctc_imaging.classification.model import Calibration, Classifier, Thresholds, save_model
from ctc_imaging.files import write_text
from ctc_training.calibrate import PREVALENCE, choose_thresholds, fit_calibration
from ctc_training.card import model_card
from ctc_training.dataset import FRAGMENT, CropSet, Recipe, simulated_crops
from ctc_training.evaluate import Outputs, evaluate, outputs_on
from ctc_training.plan import Plan
from ctc_training.train import Schedule, train_network

ARCHITECTURE = {"width": 24, "hidden": 96}
_UNCALIBRATED = Calibration(1.0, (0.0, 0.0, 0.0))
_UNDECIDED = Thresholds(0.5, 0.5, 0.5)


def make_model(
    folder: Path,
    plan: Plan,
    schedule: Schedule,
    cache: Path | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Classifier:
    """Train, calibrate and test a model on simulated slides, and write its folder.

    Parameters
    ----------
    folder : Path
        Gets ``weights.safetensors``, ``model.json`` and ``CARD.md``; its name is the model's.
    plan : Plan
    schedule : Schedule
    cache : Path, optional
        Folder that keeps the slides' crops for another time.
    progress : callable
        Called with a line of text now and then.

    Returns
    -------
    Classifier
    """
    progress(f"simulating {len(plan.training)} slides for training")
    crops = simulated_crops(plan.training, cache)
    progress(f"training on {len(crops)} crops")
    network = train_network(
        crops,
        schedule,
        ARCHITECTURE,
        lambda epoch, loss: progress(f"epoch {epoch} of {schedule.epochs}: loss {loss:.4f}"),
    )
    training = describe_training(plan, crops, schedule)
    del crops
    draft = save_model(folder, network, ARCHITECTURE, _UNCALIBRATED, _UNDECIDED, {"training": training})
    progress(f"calibrating on {len(plan.calibration)} held-out slides")
    calibration, thresholds = calibrate(outputs_on(draft, plan.calibration, cache))
    tuned = save_model(folder, network, ARCHITECTURE, calibration, thresholds, {"training": training})
    progress(f"testing on {len(plan.test)} further slides")
    metrics = evaluate(tuned, outputs_on(tuned, plan.test, cache))
    notes = {"training": training, "metrics": metrics}
    classifier = save_model(folder, network, ARCHITECTURE, calibration, thresholds, notes)
    write_text(folder / "CARD.md", model_card(classifier, notes, PREVALENCE))
    return classifier


def calibrate(outputs: Outputs) -> tuple[Calibration, Thresholds]:
    """Fit calibration and thresholds on held-out slides.

    Second pieces of a true CTC are left out: they are no measure of a classifier, and their number
    goes with the CTCs, not with the leukocytes.
    """
    whole = outputs.kind != FRAGMENT
    logits, target = outputs.logits[whole], outputs.target[whole]
    calibration = fit_calibration(logits, target)
    p_ctc = calibration.probabilities(logits)[:, 0]
    return calibration, choose_thresholds(p_ctc, target, outputs.counts()["leukocyte"])


def describe_training(plan: Plan, crops: CropSet, schedule: Schedule) -> dict[str, Any]:
    """What a model was made from, as kept in ``model.json``."""
    return {
        "data": "simulated slides only; no cell of a patient or donor",
        "slides": {name: _summary(recipes) for name, recipes in vars(plan).items()},
        "crops": len(crops),
        "crops_sha256": hash_crops(crops),
        "schedule": asdict(schedule),
        "ctc_imaging": ctc_imaging.__version__,
    }


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
