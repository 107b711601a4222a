"""A classifier's outputs on the parts of a training set, in the form in which simulated slides give them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from ctc_imaging.classification.model import Classifier
from ctc_training.dataset import CropSet
from ctc_training.dataset_folder import Dataset
from ctc_training.outputs import Outputs, join, outputs_of

# Panels that differ for the network: with and without a mesenchymal marker.
_PANELS = {True: "emt-4", False: "epithelial-3"}
_MESENCHYMAL = 2


def outputs_of_part(classifier: Classifier, dataset: Dataset, part: str, whole: bool = False) -> Outputs:
    """Run a classifier's network over a part of a training set, without cells that readers dispute.

    Parameters
    ----------
    classifier : Classifier
    dataset : Dataset
    part : str
    whole : bool
        Let each cell that was drawn from many count as often as it stands for, as on whole slides.
    """
    rows = dataset.rows(part)
    outputs = outputs_of_crops(classifier, dataset.part(part), rows["setting"].to_numpy().astype(str))
    kept = np.flatnonzero(~rows["disputed"].to_numpy())
    times = rows["stands_for"].to_numpy()[kept] if whole else np.ones(len(kept), int)
    for name, more in zip(outputs.setting[kept], times - 1, strict=True):
        outputs.truth[str(name)]["leukocyte"] += int(more)
    return outputs.take(np.repeat(kept, times))


def outputs_of_crops(classifier: Classifier, crops: CropSet, setting: np.ndarray) -> Outputs:
    """Run a classifier's network over crops of many slides, slide by slide, and keep their order.

    Parameters
    ----------
    classifier : Classifier
    crops : CropSet
    setting : ndarray of str, shape (n,)
        What each crop's figures are told under.
    """
    starts = np.flatnonzero(np.r_[True, (crops.source[1:] != crops.source[:-1]) | _panel_changes(crops.present)])
    parts, truth = [], {str(name): Counter[str]() for name in np.unique(setting)}
    for first, last in zip(starts, [*starts[1:], len(crops)], strict=True):
        own = slice_of(crops, int(first), int(last))
        if len(own):
            panel = _PANELS[bool(own.present[0, _MESENCHYMAL])]
            parts.append(outputs_of(classifier, own, str(setting[first]), panel))
    for source, counts in crops.truth.items():
        rows = np.flatnonzero(crops.source == source)
        # A simulated slide on which nothing was segmented still has cells that were missed.
        name = str(setting[rows[0]]) if len(rows) else source.partition("/")[0]
        truth.setdefault(name, Counter()).update(counts)
    joined = join(parts) if parts else outputs_of(classifier, crops, "")
    return replace(joined, truth=truth)


def is_real(dataset: Dataset, part: str) -> np.ndarray:
    """Which crops of a part are of scans, not simulated for training; they come first."""
    return (dataset.rows(part)["origin"] != "simulated").to_numpy()


def slice_of(crops: CropSet, first: int, last: int) -> CropSet:
    """Return neighbouring crops as views: nothing is read from disk."""
    rows = slice(first, last)
    return CropSet(
        roles=crops.roles[rows],
        masks=crops.masks[rows],
        present=crops.present[rows],
        target=crops.target[rows],
        snr=crops.snr[rows],
        kind=crops.kind[rows],
        source=crops.source[rows],
        truth=crops.truth,
        soft=None if crops.soft is None else crops.soft[rows],
        weight=None if crops.weight is None else crops.weight[rows],
    )


def _panel_changes(present: np.ndarray) -> np.ndarray:
    return (present[1:] != present[:-1]).any(axis=1)
