"""What the classifier calls a CTC where there is none: simulated samples of many leukocytes, slide by slide."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from classification_figures import share
from ctc_training.calibrate import PER
from ctc_training.dataset import ArraySlide, Recipe, label_cells
from ctc_training.evaluate import poisson_rate
from ctc_training.plan import STANDARD
from scipy.stats import chi2, poisson

import ctc_imaging
from ctc_imaging.classification import Classifier, call_cells, load_model
from ctc_imaging.classification.classes import INDETERMINATE
from ctc_imaging.files import sha256_json, write_json
from ctc_imaging.panel import load_panel
from ctc_imaging.segmentation import measure_background, segment_slide
from ctc_imaging.simulation import simulate_slide

FIRST_SEED = 5_000_000
"""Far from every seed used in training, calibration and tests."""

LEUKOCYTES = 9000
SHAPE_PX = (4096, 4096)
PANEL = "emt-4"
SAMPLES = (75_000, 150_000)
"""Leukocytes of a sample: what is left of 5 mL after enrichment, and twice that."""


def compare(options: argparse.Namespace, classifier: Classifier) -> None:
    """Measure the slides that aren't yet, and print what all of them say.

    Parameters
    ----------
    options : Namespace
        `slides`, `workers` and `data`, which keeps each slide's result.
    classifier : Classifier
    """
    seeds = range(FIRST_SEED, FIRST_SEED + (options.slides or 4))
    missing = [seed for seed in seeds if stored(options.data, classifier, seed) is None]
    print(f"\nSIMULATED slides without CTCs, seeds {seeds[0]:,} to {seeds[-1]:,}: {len(missing)} to be measured.")
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(partial(_measure_and_store, options.data, classifier.name), missing))
    _print([result for seed in seeds if (result := stored(options.data, classifier, seed))])


def result_path(data: Path, classifier: Classifier, seed: int) -> Path:
    """Return where the result of a slide is kept: ``DATA/false-calls/MODEL/SEED.json``, by the model's hash."""
    return data / "false-calls" / classifier.hash[:16] / f"{seed}.json"


def made_by(seed: int) -> str:
    """Hash of the slide's recipe and of all code and weights, but the model's own, from there to calls."""
    package = Path(ctc_imaging.__file__).parent
    files = [*sorted((package / "classification").glob("*.py")), package / "positivity.py"]
    return sha256_json([_recipe(seed).key(), *(file.read_text(encoding="utf-8") for file in files)])


def store(data: Path, classifier: Classifier, seed: int, counts: dict[str, Any]) -> None:
    """Keep the counts of a slide, as from `count_calls`, with what made them."""
    facts = {"seed": seed, "model": classifier.hash, "made_by": made_by(seed), **counts}
    write_json(result_path(data, classifier, seed), facts)


def stored(data: Path, classifier: Classifier, seed: int) -> dict[str, Any] | None:
    """Return the kept counts of a slide; None where there are none, or other code or another model made them."""
    path = result_path(data, classifier, seed)
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found if (found["model"], found["made_by"]) == (classifier.hash, made_by(seed)) else None


def count_calls(
    slide: ArraySlide,
    channel_names: Sequence[str | None],
    labels: np.ndarray,
    cells: pd.DataFrame,
    truth: pd.DataFrame,
    classifier: Classifier,
) -> dict[str, Any]:
    """Call the cells of a slide without CTCs and count.

    Parameters
    ----------
    slide : ArraySlide
    channel_names : sequence of str
        Of the slide.
    labels : ndarray of uint32, shape (2, Y, X)
    cells : DataFrame
        As from `segment_slide`.
    truth : DataFrame
        What was drawn.
    classifier : Classifier

    Returns
    -------
    dict
        `leukocytes` (true ones), `cells` (segmented ones), `ctc` and `indeterminate` (called so), and `ctc_kinds`, what
        the false CTCs are in the simulator's words.
    """
    panel = load_panel(PANEL)
    channels = panel.assign(channel_names, "slide")
    background = measure_background(slide, channels)
    calls = call_cells(slide, channels, panel, background, labels, cells, classifier)["call"].to_numpy()
    kinds = label_cells(cells, truth, panel)["kind"]
    return {
        "leukocytes": int((truth["class"] == "leukocyte").sum()),
        "cells": len(cells),
        "ctc": int((calls == "ctc").sum()),
        "indeterminate": int((calls == INDETERMINATE).sum()),
        "ctc_kinds": dict(sorted(Counter(kinds[calls == "ctc"].tolist()).items())),
    }


def measure(seed: int, classifier: Classifier) -> dict[str, Any]:
    """Simulate and segment the slide of a seed, and count its calls."""
    drawn = simulate_slide(SHAPE_PX, ctc=0, leukocytes=LEUKOCYTES, setting=STANDARD, seed=seed, panel=PANEL)
    slide, panel = ArraySlide(drawn.image, drawn.pixel_size_um), load_panel(PANEL)
    channels = panel.assign(drawn.channel_names, "slide")
    labels = np.zeros((2, *SHAPE_PX), np.uint32)
    background = measure_background(slide, channels)
    cells = segment_slide(slide, channels, panel, background, labels, drawn.pixel_size_um)
    return count_calls(slide, drawn.channel_names, labels, cells, drawn.truth, classifier)


def _recipe(seed: int) -> Recipe:
    return Recipe(STANDARD, seed, ctc=0, leukocytes=LEUKOCYTES, shape_px=SHAPE_PX, panel=PANEL)


def _measure_and_store(data: Path, model: str, seed: int) -> None:
    classifier = load_model(model)
    store(data, classifier, seed, measure(seed, classifier))


def samples(results: Sequence[dict[str, Any]], leukocytes: int) -> Iterator[list[dict[str, Any]]]:
    """Yield samples of at least so many leukocytes, of slides that follow one another; what is left makes none."""
    sample: list[dict[str, Any]] = []
    for result in results:
        sample.append(result)
        if sum(slide["leukocytes"] for slide in sample) >= leukocytes:
            yield sample
            sample = []


def _print(results: list[dict[str, Any]]) -> None:
    ctc, leukocytes, cells = (sum(result[key] for result in results) for key in ("ctc", "leukocytes", "cells"))
    kinds = sum((Counter(result["ctc_kinds"]) for result in results), Counter())
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"
    print(f"{len(results)} slides, {leukocytes:,} leukocytes, {cells:,} cells; called CTC: {ctc} ({named})")
    found, most = poisson_rate(ctc, leukocytes), one_sided(ctc, leukocytes)
    limits = f"two-sided {found['low']:.2f} to {found['high']:.2f}, one-sided at most {most:.2f}"
    print(f"False CTCs per 100,000 leukocytes: {found['value']:.2f}; exact 95 % limits: {limits}")
    doubtful = sum(result["indeterminate"] for result in results)
    print(f"Indeterminate cells per {SAMPLES[0]:,} leukocytes: {doubtful * SAMPLES[0] / leukocytes:.1f} ({doubtful})")
    for size in SAMPLES:
        _print_samples(
            [sum(r["ctc"] for r in sample) for sample in samples(results, size)], size, (found["value"] or 0.0, most)
        )


def one_sided(count: int, leukocytes: int) -> float:
    """Exact one-sided upper 95 % limit of false calls per 100,000 leukocytes (Garwood 1936)."""
    return PER / leukocytes * float(chi2.ppf(0.95, 2 * count + 2)) / 2


def _print_samples(counts: list[int], size: int, rates: tuple[float, float]) -> None:
    cutoff = load_panel(PANEL).cutoff
    if cutoff is None:
        raise ValueError(f"panel {PANEL} has no cut-off")
    if not counts:
        print(f"Samples of {size:,} leukocytes: none, for these slides are too few.")
        return
    reaching = sum(count >= cutoff.ctc for count in counts)
    at_rate, at_limit = (100 * poisson.sf(cutoff.ctc - 1, size * per_100k / PER) for per_100k in rates)
    told = f"{reaching} of {len(counts)} have {cutoff.ctc} CTCs or more, the cut-off of {PANEL}"
    print(f"Samples of {size:,} leukocytes and a little more: {told}: {share(reaching, len(counts))} %.")
    print(
        f"    If false calls are Poisson, {at_rate:.2f} % of samples of {size:,} at this rate, {at_limit:.2f} % at its"
    )
    print("    one-sided upper limit.")
