"""What `evaluate` tells of a model: figures of simulated slides or of a training set's test part, and its mistakes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctc_imaging.classification.calling import decide
from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.model import DECIMALS, Classifier
from ctc_imaging.positivity import POSITIVE_SNR
from ctc_training.dataset import Recipe, simulated_crops
from ctc_training.dataset_folder import Dataset
from ctc_training.errors import DatasetError
from ctc_training.evaluate import evaluate, proportion
from ctc_training.gallery import Mistakes, find_mistakes, worst
from ctc_training.outputs import Outputs, join, outputs_of
from ctc_training.part_outputs import outputs_of_part


@dataclass(frozen=True)
class Measured:
    """Figures as `evaluate` gives them, with `by_phenotype`, and the worst mistakes."""

    figures: dict[str, Any]
    mistakes: Mistakes


def measure_on_slides(classifier: Classifier, recipes: Iterable[Recipe], cache: Path | None = None) -> Measured:
    """Measure a classifier on simulated slides, one in memory at a time."""
    parts, mistakes, phenotypes = [], [], []
    for recipe in recipes:
        crops = simulated_crops([recipe], cache)
        parts.append(outputs_of(classifier, crops, recipe.setting, recipe.panel))
        mistakes.append(find_mistakes(classifier, crops, parts[-1]))
        phenotypes.append(true_phenotypes(crops.snr))
    outputs = join(parts)
    figures = evaluate(classifier, outputs)
    return Measured(
        {**figures, "by_phenotype": by_phenotype(classifier, outputs, np.concatenate(phenotypes))}, worst(mistakes)
    )


def measure_on_dataset(classifier: Classifier, dataset: Dataset) -> Measured:
    """Measure a classifier on the part `test` of a training set.

    Raises
    ------
    DatasetError
        If that part is empty.
    """
    rows = dataset.rows("test")
    if not len(rows):
        raise DatasetError(dataset.folder, "its part test is empty", "make it with more patients, or --frozen")
    kept = np.flatnonzero(~rows["disputed"].to_numpy())
    crops = dataset.part("test")
    outputs = outputs_of_part(classifier, dataset, "test")
    told = rows["phenotype"].to_numpy().astype(str)[kept]
    phenotypes = np.where(told != "", told, true_phenotypes(crops.snr[kept]))
    figures = evaluate(classifier, outputs)
    return Measured(
        {**figures, "by_phenotype": by_phenotype(classifier, outputs, phenotypes)},
        find_mistakes(classifier, crops, outputs, kept),
    )


def true_phenotypes(snr: np.ndarray) -> np.ndarray:
    """Name the phenotype that true signal-to-noise (n, 3) makes a cell; empty where a marker isn't known."""
    epithelial, mesenchymal = snr[:, 0] >= POSITIVE_SNR, snr[:, 1] >= POSITIVE_SNR
    names = np.full(len(snr), "undetermined", "U16")
    names[epithelial] = "epithelial"
    names[mesenchymal] = "mesenchymal"
    names[epithelial & mesenchymal] = "hybrid"
    names[np.isnan(snr[:, :2]).any(axis=1)] = ""
    return names


def by_phenotype(classifier: Classifier, outputs: Outputs, phenotypes: np.ndarray) -> dict[str, Any]:
    """Tell the share of segmented CTCs of each phenotype that is found, with exact 95 % limits."""
    p = classifier.calibration.probabilities(outputs.logits).round(DECIMALS)
    called = decide(p, classifier.thresholds, classifier.calibration.prevalence) == "ctc"
    is_ctc, found = outputs.target == CLASSES.index("ctc"), called & outputs.nucleate
    return {
        str(name): {"ctc": int(own.sum()), "sensitivity": proportion(int((own & found).sum()), int(own.sum()))}
        for name in np.unique(phenotypes[is_ctc])
        if name and (own := is_ctc & (phenotypes == name)).any()
    }
