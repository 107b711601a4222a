"""The classifier beside gating by thresholds, on the same cells: false CTCs at equal sensitivity."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from classification_figures import rate, share
from classification_gates import GATES, Gate, Outcome, passing, swept, swept_apart
from ctc_training.dataset import CropSet, Recipe, simulated_crops
from ctc_training.outputs import mean_signal, network_outputs
from ctc_training.plan import STANDARD, test_slides

from ctc_imaging.classification import Classifier
from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.model import DECIMALS
from ctc_imaging.simulation import SETTINGS


@dataclass(frozen=True)
class Readings:
    """All segmented cells with a nucleus on the slides of one setting.

    Attributes
    ----------
    called, is_ctc : ndarray of bool, shape (n,)
        CTC by the model, and by the truth.
    margins : dict of Gate to ndarray
        As from `Gate.margins`, slide by slide.
    ctc, leukocytes : int
        True cells, segmented or not.
    """

    called: np.ndarray
    is_ctc: np.ndarray
    margins: dict[Gate, np.ndarray]
    ctc: int
    leukocytes: int

    @property
    def of_model(self) -> Outcome:
        """What the model calls CTC at its own threshold."""
        found, false = (int((self.called & cells).sum()) for cells in (self.is_ctc, ~self.is_ctc))
        return Outcome(found, false, (np.nan, np.nan))


def compare(options: argparse.Namespace, classifier: Classifier) -> dict[str, Readings]:
    """Print the tables, and return what they were made of, by setting.

    Parameters
    ----------
    options : Namespace
        `slides`, `standard_slides`, `settings`, `seed` and `data`.
    classifier : Classifier
    """
    slides = dict.fromkeys(SETTINGS, options.slides or 2)
    slides[STANDARD] = options.standard_slides or slides[STANDARD]
    print("All slides SIMULATED. 95 % limits: Clopper-Pearson for shares, Garwood for rates.")
    print("Gates are so strict that as many CTCs pass as the model finds; 'as set' is before one knows the outcome.")
    measured = {}
    for setting in [setting for setting in SETTINGS if setting in options.settings]:
        recipes = test_slides(options.seed, {setting: slides[setting]})
        measured[setting] = read_slides(classifier, recipes, options.data)
        _print_setting(setting, measured[setting])
    _print_summary(measured)
    return measured


def read_slides(classifier: Classifier, recipes: Iterable[Recipe], cache: Path | None) -> Readings:
    """Read model and gates off simulated slides, one in memory at a time."""
    return _join([_read(classifier, simulated_crops([recipe], cache)) for recipe in recipes])


def _read(classifier: Classifier, crops: CropSet) -> Readings:
    nucleate = np.asarray(crops.masks[:, 1].any(axis=(1, 2)))
    p = classifier.calibration.probabilities(network_outputs(classifier, crops)[0]).round(DECIMALS)
    signal = mean_signal(crops)[nucleate]
    return Readings(
        p[nucleate, 0] >= classifier.thresholds.ctc,
        crops.target[nucleate] == CLASSES.index("ctc"),
        {gate: gate.margins(signal) for gate in GATES},
        *(sum(counts[name] for counts in crops.truth.values()) for name in ("ctc", "leukocyte")),
    )


def _join(parts: Sequence[Readings]) -> Readings:
    return Readings(
        np.concatenate([part.called for part in parts]),
        np.concatenate([part.is_ctc for part in parts]),
        {gate: np.concatenate([part.margins[gate] for part in parts]) for gate in GATES},
        sum(part.ctc for part in parts),
        sum(part.leukocytes for part in parts),
    )


def best(readings: Readings, apart: bool = False) -> tuple[Gate, Outcome]:
    """Return the gate that finds as many as the model with the fewest false calls, or else the one that finds most.

    With `apart` each marker has its own strictness, chosen with the truth.
    """
    sweep = swept_apart if apart else swept
    wanted = readings.of_model.found
    outcomes = {gate: sweep(readings.margins[gate], readings.is_ctc, wanted) for gate in GATES}
    return min(outcomes.items(), key=lambda item: (-min(item[1].found, wanted), item[1].false))


def _print_setting(setting: str, readings: Readings) -> None:
    print(f"\n{setting} (simulated): {readings.ctc:,} CTCs, {readings.leukocytes:,} leukocytes\n")
    print("| Way | Strictness | Found, % | False | False per 100,000 | As set: found, % | False per 100,000 |")
    print("|---|---|---|---|---|---|---|")
    print(f"| model | its threshold | {_figures(readings.of_model, readings)} | | |")
    for gate in GATES:
        outcome = swept(readings.margins[gate], readings.is_ctc, readings.of_model.found)
        usual = passing(readings.margins[gate], readings.is_ctc, (gate.usual,) * 2)
        as_set = f"{share(usual.found, readings.ctc)} | {rate(usual.false, readings.leukocytes)}"
        print(f"| {gate} | {outcome.strictness[0]:.2f} | {_figures(outcome, readings)} | {as_set} |")
    gate, outcome = best(readings, apart=True)
    strictness = ", ".join(f"{value:.2f}" for value in outcome.strictness)
    print(f"| best with the truth known: {gate} | {strictness} | {_figures(outcome, readings)} | | |", flush=True)


def _figures(outcome: Outcome, readings: Readings) -> str:
    fewer = "" if outcome.reached else "no more than "
    found = f"{fewer}{share(outcome.found, readings.ctc)}"
    return f"{found} | {outcome.false:,} | {rate(outcome.false, readings.leukocytes)}"


def _print_summary(measured: dict[str, Readings]) -> None:
    print("\nFalse CTCs per 100,000 leukocytes at the model's sensitivity (SIMULATED). The best gate is that of each")
    print("setting; the last column's thresholds are chosen marker by marker with the truth, as nobody can.\n")
    print("| Setting | CTCs | Found, % | Leukocytes | Model | Best gate | Its false | With the truth known |")
    print("|---|---|---|---|---|---|---|---|")
    for setting, readings in measured.items():
        (gate, outcome), (_, known) = best(readings), best(readings, apart=True)
        model = readings.of_model
        columns = [
            f"{setting} | {readings.ctc:,} | {share(model.found, readings.ctc)} | {readings.leukocytes:,}",
            rate(model.false, readings.leukocytes),
            str(gate),
            *(_with_sensitivity(of_gate, readings) for of_gate in (outcome, known)),
        ]
        print(f"| {' | '.join(columns)} |")


def _with_sensitivity(outcome: Outcome, readings: Readings) -> str:
    fewer = "" if outcome.reached else f", finds only {share(outcome.found, readings.ctc)} %"
    return rate(outcome.false, readings.leukocytes) + fewer
