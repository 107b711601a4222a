"""What a classifier finds and what it invents, on slides with known truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta, chi2

from ctc_imaging.classification.calling import decide
from ctc_imaging.classification.classes import CLASSES, INDETERMINATE
from ctc_imaging.classification.crops import CropBatch
from ctc_imaging.classification.model import BATCH, DECIMALS, Classifier
from ctc_training.calibrate import PER, threshold_for
from ctc_training.dataset import CropSet, Recipe, simulated_crops

FALSE_PER = (1, 10, 100)
"""False CTCs per 100,000 leukocytes at which sensitivity is told."""

BINS = 15
"""Bins of the expected calibration error (Guo 2017, ICML 70:1321)."""


@dataclass(frozen=True)
class Outputs:
    """A network's outputs on all segmented cells of some slides, with their truth.

    Attributes
    ----------
    logits : ndarray of float32, shape (n, 3)
    target : ndarray of int64, shape (n,)
    setting : ndarray of str, shape (n,)
        Of the slide each cell is from.
    kind : ndarray of str, shape (n,)
        See `CropSet`.
    truth : dict
        Per setting the number of true `ctc` and `leukocyte` cells, segmented or not.
    """

    logits: np.ndarray
    target: np.ndarray
    setting: np.ndarray
    kind: np.ndarray
    truth: dict[str, Counter[str]]

    def counts(self, setting: str | None = None) -> Counter[str]:
        """True cells on all slides, or on those of one setting."""
        return self.truth[setting] if setting else sum(self.truth.values(), Counter())


def outputs_on(classifier: Classifier, recipes: Iterable[Recipe], cache: Path | None = None) -> Outputs:
    """Run a classifier's network over simulated slides, one in memory at a time.

    Parameters
    ----------
    classifier : Classifier
    recipes : iterable of Recipe
    cache : Path, optional
        See `simulated_crops`.
    """
    logits, target, setting, kind = [np.empty((0, 3), np.float32)], [np.empty(0, np.int64)], [], []
    truth: dict[str, Counter[str]] = {}
    for recipe in recipes:
        crops = simulated_crops([recipe], cache)
        logits.append(logits_of(classifier, crops))
        target.append(crops.target)
        kind.append(crops.kind)
        setting.append(np.full(len(crops), recipe.setting))
        truth.setdefault(recipe.setting, Counter()).update(crops.truth[recipe.source])
    return Outputs(np.concatenate(logits), np.concatenate(target), np.concatenate(setting), np.concatenate(kind), truth)


def logits_of(classifier: Classifier, crops: CropSet) -> np.ndarray:
    """Class logits (n, 3) of the crops of one panel."""
    parts = [np.empty((0, 3), np.float32)]
    for start in range(0, len(crops), BATCH):
        rows = slice(start, start + BATCH)
        batch = CropBatch(
            cell_ids=np.arange(len(crops.target[rows])),
            roles=crops.roles[rows].astype(np.float32),
            present=crops.present[start],
            masks=crops.masks[rows].astype(np.float32) / 255,
        )
        parts.append(classifier.raw(batch)[0])
    return np.concatenate(parts)


def evaluate(classifier: Classifier, outputs: Outputs) -> dict[str, Any]:
    """Measure a classifier, altogether and by source.

    Parameters
    ----------
    classifier : Classifier
    outputs : Outputs
        Of its own network; a CTC that was never segmented counts as missed.

    Returns
    -------
    dict
        The figures of `figures` over all slides, and `by_source`, the same for each setting.
    """
    p = classifier.calibration.probabilities(outputs.logits).round(DECIMALS)
    by_source = {}
    for setting in outputs.truth:
        rows = outputs.setting == setting
        part = p[rows], outputs.target[rows], outputs.kind[rows]
        by_source[setting] = figures(classifier, *part, outputs.counts(setting))
    return {**figures(classifier, p, outputs.target, outputs.kind, outputs.counts()), "by_source": by_source}


def figures(
    classifier: Classifier, p: np.ndarray, target: np.ndarray, kind: np.ndarray, truth: Mapping[str, int]
) -> dict[str, Any]:
    """Tell sensitivity, false CTCs, calibration and coverage.

    Parameters
    ----------
    classifier : Classifier
        For its thresholds.
    p : ndarray of float64, shape (n, 3)
    target : ndarray of int, shape (n,)
    kind : ndarray of str, shape (n,)
    truth : mapping
        Numbers of true `ctc` and `leukocyte`.

    Returns
    -------
    dict
        `ctc`, `leukocytes`: how many were there. `sensitivity`: found by the model's own threshold,
        with `false_ctc` (a count), `false_kinds` (what they are) and `false_ctc_per_100k` leukocytes.
        `sensitivity_at_fp`: the same at the thresholds that let 1, 10, 100 false CTCs per 100,000
        leukocytes pass. Each is `value`, `low`, `high` (exact 95 % limits). `ece`: expected
        calibration error. `coverage`: share of cells that aren't indeterminate.
    """
    calls = decide(p, classifier.thresholds)
    is_ctc = target == CLASSES.index("ctc")
    falling = np.sort(p[~is_ctc, 0])[::-1]
    at_fp = {}
    for allowed in FALSE_PER:
        threshold = threshold_for(falling, allowed, truth["leukocyte"])
        at_fp[str(allowed)] = proportion(int((p[is_ctc, 0] >= threshold).sum()), truth["ctc"])
    false_kinds = Counter(kind[~is_ctc & (calls == "ctc")].tolist())
    false = false_kinds.total()
    return {
        "ctc": truth["ctc"],
        "leukocytes": truth["leukocyte"],
        "sensitivity": proportion(int((calls[is_ctc] == "ctc").sum()), truth["ctc"]),
        "false_ctc": false,
        "false_kinds": dict(sorted(false_kinds.items())),
        "false_ctc_per_100k": poisson_rate(false, truth["leukocyte"]),
        "sensitivity_at_fp": at_fp,
        "ece": expected_calibration_error(p, target),
        "coverage": round(float((calls != INDETERMINATE).mean()), 6) if len(calls) else None,
    }


def expected_calibration_error(p: np.ndarray, target: np.ndarray) -> float | None:
    """Mean gap between confidence and accuracy of the likeliest class, over equal bins of confidence."""
    if not len(p):
        return None
    confidence, right = p.max(axis=1), p.argmax(axis=1) == target
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return round(float(np.abs(gaps).sum() / len(p)), 6)


def proportion(count: int, total: int) -> dict[str, float | None]:
    """A share with its exact 95 % limits (Clopper 1934); all None of nothing."""
    if total == 0:
        return {"value": None, "low": None, "high": None}
    low = beta.ppf(0.025, count, total - count + 1) if count > 0 else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return {"value": round(count / total, 6), "low": round(float(low), 6), "high": round(float(high), 6)}


def poisson_rate(count: int, leukocytes: int) -> dict[str, float | None]:
    """False calls per 100,000 leukocytes with exact 95 % limits (Garwood 1936); all None of nothing."""
    if leukocytes == 0:
        return {"value": None, "low": None, "high": None}
    low = chi2.ppf(0.025, 2 * count) / 2 if count > 0 else 0.0
    high = chi2.ppf(0.975, 2 * count + 2) / 2
    per = PER / leukocytes
    return {"value": round(count * per, 3), "low": round(float(low) * per, 3), "high": round(float(high) * per, 3)}
