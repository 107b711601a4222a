"""What a classifier finds and what it invents, on slides with known truth."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from scipy.stats import beta, chi2

from ctc_imaging.classification.calling import decide, phenotypes, prediction_sets
from ctc_imaging.classification.classes import CLASSES, INDETERMINATE
from ctc_imaging.classification.model import DECIMALS, Classifier
from ctc_imaging.classification.rarity import BALANCED, at_prevalence
from ctc_imaging.positivity import MARKERS, POSITIVE_SNR, unmarked
from ctc_training.calibrate import PER, threshold_for
from ctc_training.dataset import FRAGMENT
from ctc_training.outputs import Outputs, logits_of, outputs_on

__all__ = ["Outputs", "evaluate", "expected_calibration_error", "figures", "logits_of", "outputs_on", "proportion"]

FALSE_PER = (1, 10, 100)
"""False CTCs per 100,000 leukocytes at which sensitivity is told."""

BINS = 15
"""Bins of the expected calibration error (Guo 2017, ICML 70:1321)."""

BORDER_BINS = 5
"""Fewer, for there are few cells at the border: in bins of a handful chance alone makes a gap."""

BORDER_SNR = (2.0, 4.5)
"""True SNR about the limit of positivity, 3, within a factor of 1.5: there a phenotype is a matter of chance."""


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
    by_source = {
        setting: figures(classifier, outputs.take(outputs.setting == setting), outputs.counts(setting))
        for setting in outputs.truth
    }
    return {**figures(classifier, outputs, outputs.counts()), "by_source": by_source}


def figures(classifier: Classifier, outputs: Outputs, truth: Counter[str]) -> dict[str, Any]:
    """Tell sensitivity, false CTCs, calibration, coverage and phenotypes.

    Parameters
    ----------
    classifier : Classifier
    outputs : Outputs
    truth : Counter
        Numbers of true `ctc` and `leukocyte`.

    Returns
    -------
    dict
        `ctc`, `leukocytes`: how many were there. `sensitivity`: found by the model's own threshold,
        with `false_ctc` (a count), `false_kinds` (what they are) and `false_ctc_per_100k` leukocytes.
        `sensitivity_at_fp`: the same at the thresholds that let 1, 10, 100 false CTCs per 100,000
        leukocytes pass. Each is `value`, `low`, `high` (exact 95 % limits). `ece`: expected
        calibration error, classes balanced. `coverage`: the nominal one, and the share of each class's
        cells whose prediction set holds it. Both are told of whole cells, for a second piece of a cell is
        of no class. `decided`: share of cells that aren't indeterminate. `confusion`: calls by true class.
        `phenotype`: see `phenotype_figures`.
    """
    p = classifier.calibration.probabilities(outputs.logits).round(DECIMALS)
    prevalence = classifier.calibration.prevalence
    calls = decide(p, classifier.thresholds, prevalence)
    calls[~outputs.nucleate] = "artefact"
    calls[(calls == "ctc") & unmarked(marker_chances(classifier, outputs))] = INDETERMINATE
    is_ctc = outputs.target == CLASSES.index("ctc")
    falling = np.sort(p[~is_ctc & outputs.nucleate, 0])[::-1]
    at_fp = {}
    for allowed in FALSE_PER:
        threshold = threshold_for(falling, allowed, truth["leukocyte"])
        at_fp[str(allowed)] = proportion(int((p[is_ctc & outputs.nucleate, 0] >= threshold).sum()), truth["ctc"])
    false_kinds = Counter(outputs.kind[~is_ctc & (calls == "ctc")].tolist())
    false = false_kinds.total()
    whole = outputs.nucleate & (outputs.kind != FRAGMENT)
    judged, target = p[whole], outputs.target[whole]
    return {
        "ctc": truth["ctc"],
        "leukocytes": truth["leukocyte"],
        "sensitivity": proportion(int((calls[is_ctc] == "ctc").sum()), truth["ctc"]),
        "false_ctc": false,
        "false_kinds": dict(sorted(false_kinds.items())),
        "false_ctc_per_100k": poisson_rate(false, truth["leukocyte"]),
        "sensitivity_at_fp": at_fp,
        "ece": expected_calibration_error(at_prevalence(judged, prevalence, BALANCED), target),
        "coverage": {
            "nominal": classifier.thresholds.coverage,
            **coverage_of(prediction_sets(judged, classifier.thresholds, prevalence), target),
        },
        "decided": round(float((calls != INDETERMINATE).mean()), 6) if len(calls) else None,
        "confusion": _confusion(outputs.target, calls),
        "phenotype": phenotype_figures(classifier, outputs.take(is_ctc & (calls == "ctc"))),
    }


def expected_calibration_error(p: np.ndarray, target: np.ndarray) -> float | None:
    """Mean gap between confidence and accuracy of the likeliest class, over equal bins of confidence.

    Every class weighs the same, however many cells it has; `p` must be balanced too.

    Parameters
    ----------
    p : ndarray of float64, shape (n, 3)
    target : ndarray of int, shape (n,)
    """
    if not len(p):
        return None
    weights = 1 / np.bincount(target, minlength=len(CLASSES)).clip(min=1)[target]
    return binned_gap(p.max(axis=1), p.argmax(axis=1) == target, weights)


def binned_gap(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray, bins: int = BINS) -> float:
    """Mean gap between what was said and what was so, over equal bins of what was said."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=weights * (right - confidence), minlength=bins)
    return round(float(np.abs(gaps).sum() / weights.sum()), 6)


def coverage_of(sets: np.ndarray, target: np.ndarray) -> dict[str, float | None]:
    """Share of each class's cells whose prediction set holds it; None of a class without cells."""
    held = sets[np.arange(len(target)), target]
    return {
        name: round(float(held[target == index].mean()), 6) if (target == index).any() else None
        for index, name in enumerate(CLASSES)
    }


def phenotype_figures(classifier: Classifier, found: Outputs) -> dict[str, Any]:
    """Tell how well the phenotypes of CTCs are named.

    Parameters
    ----------
    classifier : Classifier
    found : Outputs
        Of true CTCs that were called CTC.

    Returns
    -------
    dict
        `macro_f1` over epithelial, hybrid and mesenchymal of the `ctc` whose both markers are away from the border;
        of the markers at the border `border` (how many) and `border_ece`, the mean gap between the chance told and
        the share that is positive. None where there is nothing to tell.
    """
    snr = found.snr[:, : len(MARKERS)].astype(float)
    p = marker_chances(classifier, found)
    at_border = (snr >= BORDER_SNR[0]) & (snr <= BORDER_SNR[1])
    known = ~np.isnan(snr)
    clear = known.all(axis=1) & ~at_border.any(axis=1) & (snr >= POSITIVE_SNR).any(axis=1)
    as_ctc = np.full(len(found), "ctc")
    named = phenotypes(as_ctc, p >= 0.5, has_mesenchymal=True)[clear]
    true = phenotypes(as_ctc, snr >= POSITIVE_SNR, has_mesenchymal=True)[clear]
    border = at_border & known
    ones = np.ones(int(border.sum()))
    return {
        "ctc": int(clear.sum()),
        "macro_f1": _macro_f1(true, named),
        "border": len(ones),
        "border_ece": binned_gap(p[border], snr[border] >= POSITIVE_SNR, ones, BORDER_BINS) if len(ones) else None,
    }


def marker_chances(classifier: Classifier, outputs: Outputs) -> np.ndarray:
    """Chance (n, 2) that the epithelial and the mesenchymal marker are positive, as in use."""
    columns = [
        classifier.positivity[str(role)].probability(outputs.markers[:, place], outputs.relative[:, place])
        for place, role in enumerate(MARKERS)
    ]
    return np.stack(columns, axis=1)


def _macro_f1(true: np.ndarray, named: np.ndarray) -> float | None:
    scores = []
    for name in np.unique(true):
        both = int(((true == name) & (named == name)).sum())
        scores.append(2 * both / int((true == name).sum() + (named == name).sum()))
    return round(float(np.mean(scores)), 6) if scores else None


def _confusion(target: np.ndarray, calls: np.ndarray) -> dict[str, dict[str, int]]:
    return {name: dict(sorted(Counter(calls[target == index].tolist()).items())) for index, name in enumerate(CLASSES)}


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
