"""A network's outputs on labelled crops, as in use: what its figures and its calibration are made from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.crops import ROLES, CropBatch
from ctc_imaging.classification.model import BATCH, Classifier
from ctc_imaging.panel import load_panel
from ctc_imaging.positivity import MARKERS, positive_from, relative_signal
from ctc_training.dataset import CropSet, Recipe, simulated_crops


@dataclass(frozen=True)
class Outputs:
    """Outputs on all segmented cells of some slides, with their truth.

    Attributes
    ----------
    logits : ndarray of float32, shape (n, 3)
    markers : ndarray of float32, shape (n, 2)
        Positivity logits of the epithelial and the mesenchymal marker.
    relative : ndarray of float64, shape (n, 2)
        Their measured signal against the slide's threshold, see `relative_signal`.
    nucleate : ndarray of bool, shape (n,)
        An object without a nucleus is called artefact whatever the network says.
    target : ndarray of int64, shape (n,)
    snr : ndarray of float32, shape (n, 3)
        True signal-to-noise of the markers.
    setting : ndarray of str, shape (n,)
        Of the slide each cell is from.
    kind : ndarray of str, shape (n,)
        See `CropSet`.
    truth : dict
        Per setting the number of true `ctc` and `leukocyte` cells, segmented or not.
    """

    logits: np.ndarray
    markers: np.ndarray
    relative: np.ndarray
    nucleate: np.ndarray
    target: np.ndarray
    snr: np.ndarray
    setting: np.ndarray
    kind: np.ndarray
    truth: dict[str, Counter[str]]

    def __len__(self) -> int:
        return len(self.target)

    def counts(self, setting: str | None = None) -> Counter[str]:
        """True cells on all slides, or on those of one setting."""
        return self.truth[setting] if setting else sum(self.truth.values(), Counter())

    def take(self, rows: np.ndarray) -> Outputs:
        """Return the outputs of some rows; the slides' truth stays whole."""
        return Outputs(**{name: getattr(self, name)[rows] for name in _ARRAYS}, truth=self.truth)


_ARRAYS = ("logits", "markers", "relative", "nucleate", "target", "snr", "setting", "kind")


def outputs_on(classifier: Classifier, recipes: Iterable[Recipe], cache: Path | None = None) -> Outputs:
    """Run a classifier's network over simulated slides, one in memory at a time.

    Parameters
    ----------
    classifier : Classifier
    recipes : iterable of Recipe
    cache : Path, optional
        See `simulated_crops`.
    """
    return join(
        outputs_of(classifier, simulated_crops([recipe], cache), recipe.setting, recipe.panel) for recipe in recipes
    )


def join(parts: Iterable[Outputs]) -> Outputs:
    """Put the outputs of several slides together."""
    parts = list(parts)
    truth: dict[str, Counter[str]] = {}
    for part in parts:
        for setting, counts in part.truth.items():
            truth.setdefault(setting, Counter()).update(counts)
    return Outputs(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}, truth=truth)


def outputs_of(classifier: Classifier, crops: CropSet, setting: str, panel: str = "emt-4") -> Outputs:
    """Run a classifier's network over the crops of one slide."""
    logits, markers = network_outputs(classifier, crops)
    nucleate = np.asarray(crops.masks[:, 1].any(axis=(1, 2)))
    truth: Counter[str] = Counter()
    for counts in crops.truth.values():
        truth.update(counts)
    return Outputs(
        logits,
        markers[:, : len(MARKERS)],
        _relative(mean_signal(crops), logits, nucleate, panel),
        nucleate,
        crops.target,
        crops.snr,
        np.full(len(crops), setting),
        crops.kind,
        {setting: truth},
    )


def network_outputs(classifier: Classifier, crops: CropSet) -> tuple[np.ndarray, np.ndarray]:
    """Class logits (n, 3) and positivity logits (n, 3) of the crops of one panel."""
    parts = [
        classifier.raw(
            CropBatch(
                cell_ids=np.arange(len(crops.target[rows])),
                roles=crops.roles[rows].astype(np.float32),
                present=crops.present[rows.start],
                masks=crops.masks[rows].astype(np.float32) / 255,
            )
        )
        for rows in _slices(len(crops))
    ]
    if not parts:
        return np.empty((0, 3), np.float32), np.empty((0, 3), np.float32)
    logits, markers = (np.concatenate(half) for half in zip(*parts, strict=True))
    return logits, markers


def logits_of(classifier: Classifier, crops: CropSet) -> np.ndarray:
    """Class logits (n, 3) of the crops of one panel."""
    return network_outputs(classifier, crops)[0]


def mean_signal(crops: CropSet) -> np.ndarray:
    """Mean signal of each role over the cell (n, 4), which is ``MARKER_snr`` of its row in use."""
    parts = [np.empty((0, len(ROLES)))]
    for rows in _slices(len(crops)):
        own = crops.masks[rows, :1].astype(np.float32)
        weight = np.maximum(own.sum((2, 3)), 1e-6)
        parts.append((crops.roles[rows].astype(np.float32) * own).sum((2, 3)) / weight)
    return np.concatenate(parts)


def _relative(signal: np.ndarray, logits: np.ndarray, nucleate: np.ndarray, panel_name: str) -> np.ndarray:
    panel = load_panel(panel_name)
    shorts: Sequence[str | None] = [channel.short if (channel := panel.channel(role)) else None for role in MARKERS]
    called = np.array(CLASSES, object)[logits.argmax(axis=1)]
    columns = {f"{short}_snr": signal[:, 1 + place] for place, short in enumerate(shorts) if short}
    cells = pd.DataFrame({"call": called, "nucleus_area_um2": nucleate.astype(float), **columns})
    thresholds = positive_from(cells, panel)
    return np.stack(
        [
            relative_signal(signal[:, 1 + place], thresholds[short]) if short else np.full(len(signal), np.nan)
            for place, short in enumerate(shorts)
        ],
        axis=1,
    )


def _slices(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]
