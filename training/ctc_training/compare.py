"""Two models on the same cells: is the new one worse than chance explains?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ctc_imaging.classification.calling import decide
from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.model import DECIMALS, Classifier
from ctc_imaging.classification.rarity import BALANCED, at_prevalence
from ctc_training.evaluate import expected_calibration_error
from ctc_training.outputs import Outputs

ALPHA = 0.05
"""Chance that a model which is as good as the current one is refused by one of the exact tests."""

MOST_LOST = 0.05
"""Share of the CTCs that a new model may find less, where the set is too small for a test to tell."""

MOST_CALIBRATION = 0.05
"""How much larger the calibration error of a new model may be."""

MORE_FALSE = 3
"""Further false CTCs that say nothing: of none expected to be more, so many still come by chance (rule of three)."""

LEAST = {"ctc": 20, "other": 50}
"""Cells without which nothing can be told: of 20 CTCs, five lost and none won is the least that is beyond chance."""

RULE = (
    "refused if it misses more CTCs than the current model, or makes more false CTCs, beyond chance (exact one-sided "
    f"McNemar test, {ALPHA:g}), at its own threshold or at one that gives {MORE_FALSE} false CTCs more than the "
    f"current model; if it finds more than {MOST_LOST:.0%} of the CTCs less; or if its class-balanced calibration "
    f"error is larger by more than {MOST_CALIBRATION:g}"
)


@dataclass(frozen=True)
class Comparison:
    """What two models make of the same cells.

    Attributes
    ----------
    figures : dict
        Counts of both, discordant cells and p of each test.
    faults : tuple of str
        Why the new one is worse; empty if it isn't.
    """

    figures: dict[str, Any]
    faults: tuple[str, ...]


def compare(current: Classifier, new: Classifier, before: Outputs, after: Outputs) -> Comparison:
    """Compare two models on the same cells.

    Parameters
    ----------
    current, new : Classifier
    before, after : Outputs
        Of the current and the new model, cell by cell.
    """
    is_ctc = before.target == CLASSES.index("ctc")
    called = _calls(current, before), _calls(new, after)
    as_many = _as_false(called[0], _p_ctc(new, after), is_ctc)
    tests = {
        "ctc_missed": mcnemar(called[0][is_ctc], called[1][is_ctc]),
        "false_ctc": mcnemar(~called[0][~is_ctc], ~called[1][~is_ctc]),
        "ctc_missed_at_few_more_false": mcnemar(called[0][is_ctc], as_many[is_ctc]),
    }
    errors = [_calibration_error(model, outputs) for model, outputs in ((current, before), (new, after))]
    found = [int(one[is_ctc].sum()) for one in called]
    figures = {
        "ctc": int(is_ctc.sum()),
        "other": int((~is_ctc).sum()),
        "found": {"current": found[0], "new": found[1], "new_at_few_more_false": int(as_many[is_ctc].sum())},
        "false_ctc": {"current": int(called[0][~is_ctc].sum()), "new": int(called[1][~is_ctc].sum())},
        "ece": {"current": errors[0], "new": errors[1]},
        "tests": tests,
    }
    return Comparison(figures, tuple(_faults(figures)))


def mcnemar(right_before: np.ndarray, right_after: np.ndarray) -> dict[str, Any]:
    """Exact one-sided McNemar test (1947, Psychometrika 12:153) of whether the second is worse than the first.

    Parameters
    ----------
    right_before, right_after : ndarray of bool, shape (n,)
        Whether each cell was judged rightly.

    Returns
    -------
    dict
        `lost` and `won` cells, and `p`, the chance of losing so many of those that changed if both were as good.
    """
    lost, won = int((right_before & ~right_after).sum()), int((~right_before & right_after).sum())
    p = binomtest(lost, lost + won, 0.5, alternative="greater").pvalue if lost + won else 1.0
    return {"lost": lost, "won": won, "p": float(f"{p:.4g}")}


def _faults(figures: dict[str, Any]) -> list[str]:
    tests, found, false = figures["tests"], figures["found"], figures["false_ctc"]
    faults = []
    lost = found["current"] - found["new"]
    if tests["ctc_missed"]["p"] < ALPHA or lost > MOST_LOST * figures["ctc"]:
        faults.append(f"finds {found['new']} of {figures['ctc']} CTCs, the current model {found['current']}")
    if tests["false_ctc"]["p"] < ALPHA:
        others = f"among {figures['other']} other cells"
        faults.append(f"makes {false['new']} false CTCs {others}, the current model {false['current']}")
    if tests["ctc_missed_at_few_more_false"]["p"] < ALPHA:
        at_more = f"even at {false['current'] + MORE_FALSE} false CTCs finds {found['new_at_few_more_false']}"
        faults.append(f"{at_more} of {figures['ctc']} CTCs, the current model {found['current']}")
    errors = figures["ece"]
    if errors["new"] > errors["current"] + MOST_CALIBRATION:
        faults.append(f"calibration error {errors['new']:.3f}, the current model's {errors['current']:.3f}")
    return faults


def _calls(model: Classifier, outputs: Outputs) -> np.ndarray:
    """Which cells a model calls CTC."""
    p = model.calibration.probabilities(outputs.logits).round(DECIMALS)
    return (decide(p, model.thresholds, model.calibration.prevalence) == "ctc") & outputs.nucleate


def _p_ctc(model: Classifier, outputs: Outputs) -> np.ndarray:
    return np.where(outputs.nucleate, model.calibration.probabilities(outputs.logits)[:, 0], 0.0)


def _as_false(called: np.ndarray, p_ctc: np.ndarray, is_ctc: np.ndarray) -> np.ndarray:
    """Which cells would be called CTC at the threshold that gives `MORE_FALSE` false CTCs more than were `called`."""
    falling = np.sort(p_ctc[~is_ctc])[::-1]
    allowed = int(called[~is_ctc].sum()) + MORE_FALSE
    return p_ctc > (falling[allowed] if allowed < len(falling) else -1.0)


def _calibration_error(model: Classifier, outputs: Outputs) -> float:
    judged = outputs.take(outputs.nucleate)
    p = model.calibration.probabilities(judged.logits)
    return expected_calibration_error(at_prevalence(p, model.calibration.prevalence, BALANCED), judged.target) or 0.0
