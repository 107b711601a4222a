"""How well a nucleus model does on images it has never seen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ctc_imaging.segmentation.image import UnknownScaleWarning, segment_with
from ctc_imaging.segmentation.model import NucleusModel
from ctc_training.nuclei.images import LabelledImage
from ctc_training.nuclei.score import THRESHOLDS, aggregated_jaccard, average_precision


def measure(model: NucleusModel, images: Sequence[LabelledImage]) -> dict[str, dict[str, Any]]:
    """Measure a model as it is used, no pixel size being told.

    Parameters
    ----------
    model : NucleusModel
    images : sequence of LabelledImage
        At their own scale.

    Returns
    -------
    dict
        For ``cultured and tissue``, ``cytospins`` and ``all`` the number of `images`, the average precision `ap` by
        intersection over union, and the aggregated Jaccard index `aji`, all averaged over images.
    """
    rows = [_scores(model, item) for item in images]
    cytospin = np.array([item.source == item.name and item.image.size > 1_000_000 for item in images])
    groups = {"cultured and tissue": ~cytospin, "cytospins": cytospin, "all": np.ones(len(images), bool)}
    return {name: _mean([rows[index] for index in np.flatnonzero(chosen)]) for name, chosen in groups.items()}


def _scores(model: NucleusModel, item: LabelledImage) -> tuple[list[float], float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownScaleWarning)
        found = segment_with(model, item.image)
    precision = average_precision(found, item.labels, item.ignore)
    return [float(value) for value in precision], aggregated_jaccard(found, item.labels, item.ignore)


def _mean(rows: list[tuple[list[float], float]]) -> dict[str, Any]:
    precision = np.mean([scores for scores, _ in rows], axis=0) if rows else np.full(len(THRESHOLDS), np.nan)
    return {
        "images": len(rows),
        "ap": {f"{limit:.2f}": round(float(value), 4) for limit, value in zip(THRESHOLDS, precision, strict=True)},
        "aji": round(float(np.mean([aji for _, aji in rows])), 4) if rows else None,
    }
