"""A classifier as ONNX, for other programs: written only if it gives what torch gives."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ctc_imaging.classification.crops import CROP_PX, ROLES
from ctc_imaging.classification.model import BATCH, Classifier
from ctc_imaging.errors import ModelError
from ctc_imaging.files import atomic_path
from ctc_training.dataset import CropSet

TOLERANCE = 1e-4
"""Largest difference of a logit that is let pass."""

OPSET = 18
INPUTS, OUTPUTS = ("snr", "present", "masks"), ("class_logits", "marker_logits")
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_ROUNDS = 4


class Exported(nn.Module):
    """The network with what stands before it: crops in signal-to-noise go in, logits come out."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network = classifier.network

    def forward(self, snr: Tensor, present: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return class and marker logits (n, 3) of crops (n, 4, 48, 48), flags (n, 4) and masks (n, 2, 48, 48)."""
        return self.network(torch.asinh(snr), present, masks)


def export_onnx(classifier: Classifier, path: Path, crops: CropSet | None = None, seed: int = 0) -> float:
    """Write a classifier as an ONNX model, after it has been checked against torch.

    Inputs are `snr`, float32 (n, 4, 48, 48), `present`, float32 (n, 4), and `masks`, float32 (n, 2, 48, 48), as in
    `CropBatch`; outputs `class_logits` and `marker_logits`, (n, 3). Calibration and thresholds stand in the model's
    metadata, as JSON, for they are arithmetic on three numbers.

    Parameters
    ----------
    classifier : Classifier
    path : Path
    crops : CropSet, optional
        Crops to check on, beside random ones.
    seed : int
        Of those.

    Returns
    -------
    float
        The largest difference of a logit that was found.

    Raises
    ------
    ModelError
        If what it takes isn't installed, or the difference is larger than `TOLERANCE`; then nothing is written.
    """
    check_installed()
    with atomic_path(path) as temporary:
        _export(classifier, temporary)
        difference = max(difference_on(classifier, temporary, *inputs) for inputs in _inputs(crops, seed))
        if not difference <= TOLERANCE:
            fault = f"its ONNX form differs from torch by {difference:.2g}"
            raise ModelError(path, fault, "report this as a fault; nothing was written")
    return difference


def check_installed() -> None:
    """Check that what an export takes is installed.

    Raises
    ------
    ModelError
        If it isn't.
    """
    from importlib.util import find_spec

    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ModelError("export-onnx", f"{missing[0]} isn't installed", "pip install 'ctc-imaging[onnx]'")


def difference_on(classifier: Classifier, path: Path, snr: np.ndarray, present: np.ndarray, masks: np.ndarray) -> float:
    """Largest difference between the logits of torch and those of an ONNX model; infinite where one isn't finite."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(list(OUTPUTS), dict(zip(INPUTS, (snr, present, masks), strict=True)))
    with torch.inference_mode():
        expected = Exported(classifier)(*(torch.from_numpy(array) for array in (snr, present, masks)))
    differences = [float(np.abs(one - other.numpy()).max()) for one, other in zip(found, expected, strict=True)]
    return max(differences) if np.isfinite(differences).all() else float("inf")


def _export(classifier: Classifier, path: Path) -> None:
    import onnx

    example = tuple(torch.from_numpy(array) for array in next(_random(0)))
    batch = torch.export.Dim("n", min=1, max=1 << 20)
    with _quiet():
        program = torch.onnx.export(
            Exported(classifier).eval(),
            example,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=tuple({0: batch} for _ in INPUTS),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError(path, "torch exported nothing", "report this as a fault")
    model: Any = program.model_proto
    onnx.helper.set_model_props(model, _metadata(classifier))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _metadata(classifier: Classifier) -> dict[str, str]:
    import json

    left_out = {"training", "metrics", "reference"}
    kept = {name: value for name, value in classifier.description.items() if name not in left_out}
    return {"ctc_imaging_model": classifier.name, "ctc_imaging_hash": classifier.hash, "description": json.dumps(kept)}


def _inputs(crops: CropSet | None, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches to check on: random ones of all panels and sizes, and crops of cells."""
    yield from _random(seed)
    for start in range(0, 0 if crops is None else len(crops), BATCH):
        rows = slice(start, start + BATCH)
        if crops is not None:
            masks = crops.masks[rows].astype(np.float32) / 255
            yield crops.roles[rows].astype(np.float32), crops.present[rows].astype(np.float32), masks


def _random(seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for count in (2, 1, *([64] * _ROUNDS)):
        present = (rng.random((count, len(ROLES))) < 0.8).astype(np.float32)
        snr = rng.normal(2, 8, (count, len(ROLES), CROP_PX, CROP_PX)).astype(np.float32) * present[:, :, None, None]
        yield snr, present, (rng.random((count, 2, CROP_PX, CROP_PX)) < 0.3).astype(np.float32)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter says of itself from the user, who can't do anything about it."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
