"""What a classifier finds and what it invents, on slides with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import beta

from ctc_imaging.classification.calling import decide
from ctc_imaging.classification.classes import CLASSES, INDETERMINATE
from ctc_imaging.classification.crops import CropBatch
from ctc_imaging.classification.model import BATCH, Classifier
from ctc_training.calibrate import PER, threshold_for
from ctc_training.dataset import CropSet

FALSE_PER = (1, 10, 100)
"""False CTCs per 100,000 leukocytes at which sensitivity is told."""

BINS = 15
"""Bins of the expected calibration error (Guo 2017, ICML 70:1321)."""


def evaluate(classifier: Classifier, crops: CropSet) -> dict[str, Any]:
    """Measure a classifier on labelled crops, altogether and by source.

    Parameters
    ----------
    classifier : Classifier
    crops : CropSet
        All segmented cells of some slides: a CTC that was never segmented counts as missed.

    Returns
    -------
    dict
        The figures of `figures` over all slides, and `by_source`, the same for each setting.
    """
    p = predict(classifier, crops)
    by_source = {
        setting: figures(classifier, p[rows], crops.target[rows], true_counts(crops, setting))
        for setting in settings_of(crops)
        for rows in [crops.of_setting(setting)]
    }
    return {**figures(classifier, p, crops.target, true_counts(crops)), "by_source": by_source}


def predict(classifier: Classifier, crops: CropSet) -> np.ndarray:
    """Class probabilities of labelled crops, float64 of shape (n, 3)."""
    return classifier.calibration.probabilities(raw_logits(classifier, crops)).round(6)


def raw_logits(classifier: Classifier, crops: CropSet) -> np.ndarray:
    """Class logits of labelled crops, float32 of shape (n, 3)."""
    logits = np.empty((len(crops), len(CLASSES)), np.float32)
    # Slide by slide, for one batch has one panel.
    for source in crops.truth:
        rows = np.flatnonzero(crops.source == source)
        for part in np.array_split(rows, range(BATCH, len(rows), BATCH)):
            logits[part] = classifier.raw(batch_of(crops, part))[0]
    return logits


def batch_of(crops: CropSet, rows: np.ndarray) -> CropBatch:
    """Return some rows of one slide as the classifier takes them."""
    return CropBatch(
        cell_ids=rows,
        roles=crops.roles[rows].astype(np.float32),
        present=crops.present[rows].max(axis=0, initial=0),
        masks=crops.masks[rows].astype(np.float32) / 255,
    )


def figures(classifier: Classifier, p: np.ndarray, target: np.ndarray, truth: dict[str, int]) -> dict[str, Any]:
    """Tell sensitivity, false CTCs, calibration and coverage.

    Parameters
    ----------
    classifier : Classifier
        For its thresholds.
    p : ndarray of float64, shape (n, 3)
    target : ndarray of int, shape (n,)
    truth : dict
        Numbers of true `ctc` and `leukocyte`.

    Returns
    -------
    dict
        `ctc`, `leukocytes`: how many were there. `sensitivity`: found by the model's own threshold,
        with `false_ctc` (a count) and `false_ctc_per_100k` leukocytes. `sensitivity_at_fp`: the
        same at the thresholds that let 1, 10, 100 false CTCs per 100,000 leukocytes pass. Each is
        `value`, `low`, `high` (exact 95 % limits). `ece`: expected calibration error. `coverage`:
        share of cells that aren't indeterminate.
    """
    calls = decide(p, classifier.thresholds)
    is_ctc = target == CLASSES.index("ctc")
    falling = np.sort(p[~is_ctc, 0])[::-1]
    at_fp = {}
    for allowed in FALSE_PER:
        threshold = threshold_for(falling, allowed, truth["leukocyte"])
        at_fp[str(allowed)] = proportion(int((p[is_ctc, 0] >= threshold).sum()), truth["ctc"])
    false = int((calls[~is_ctc] == "ctc").sum())
    return {
        "ctc": truth["ctc"],
        "leukocytes": truth["leukocyte"],
        "sensitivity": proportion(int((calls[is_ctc] == "ctc").sum()), truth["ctc"]),
        "false_ctc": false,
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
    from scipy.stats import chi2

    if leukocytes == 0:
        return {"value": None, "low": None, "high": None}
    low = chi2.ppf(0.025, 2 * count) / 2 if count > 0 else 0.0
    high = chi2.ppf(0.975, 2 * count + 2) / 2
    per = PER / leukocytes
    return {"value": round(count * per, 3), "low": round(float(low) * per, 3), "high": round(float(high) * per, 3)}


def true_counts(crops: CropSet, setting: str | None = None) -> dict[str, int]:
    """Numbers of true CTCs and leukocytes on all slides, or on those of one setting."""
    chosen = [n for source, n in crops.truth.items() if setting is None or source.startswith(f"{setting}/")]
    return {name: sum(counts[name] for counts in chosen) for name in ("ctc", "leukocyte")}


def settings_of(crops: CropSet) -> list[str]:
    """Settings of the slides, in the order of first appearance."""
    return list(dict.fromkeys(source.split("/")[0] for source in crops.truth))
