"""Classifiers as files: find one by name, check that it is whole, and predict with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.crops import CROP_PX, ROLES, UM_PER_PX, CropBatch
from ctc_imaging.errors import ModelError
from ctc_imaging.files import atomic_path, sha256_file, sha256_json, write_json
from ctc_imaging.model_folders import DESCRIPTION, find_models, model_folders
from ctc_imaging.positivity import MARKERS, PositivityScale

if TYPE_CHECKING:
    from ctc_imaging.classification.network import CellNetwork

FORMAT = "ctc-imaging-classifier/2"
WEIGHTS = "weights.safetensors"
# A cell's probabilities mustn't depend on its company: every batch is filled up to this many.
BATCH = 256
DECIMALS = 6
# What of model.json decides a call; the rest (training, metrics) may be told better later.
_DECISIVE = ("format", "classes", "roles", "crop_px", "um_per_px", "squash", "architecture")
_TRIPLES = ("bias", "prevalence")
_TUNED = frozenset(("weights_sha256", "temperature", "thresholds", "positivity", *_TRIPLES))


@dataclass(frozen=True)
class Thresholds:
    """From probabilities to a call.

    Attributes
    ----------
    ctc : float
        A cell is a CTC from this p_ctc on.
    sets : tuple of float
        For each of `CLASSES` the balanced probability from which it belongs to a cell's prediction set
        (class-conditional conformal prediction; Vovk 2012, ACML, PMLR 25:475).
    coverage : float
        Share of the cells of each class whose set holds it, for which `sets` was chosen.
    """

    ctc: float
    sets: tuple[float, float, float]
    coverage: float


@dataclass(frozen=True)
class Calibration:
    """Class logits become probabilities by softmax(logits / temperature + bias).

    Bias-corrected temperature scaling (Alexandari 2020, ICML 119:222): the bias moves from the
    balanced classes of training to the prevalence the model is calibrated at.
    """

    temperature: float
    bias: tuple[float, float, float]
    prevalence: tuple[float, float, float]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return probabilities (n, 3) as float64 from logits (n, 3), at the model's own prevalence."""
        scaled = logits.astype(np.float64) / self.temperature + np.array(self.bias)
        scaled -= scaled.max(axis=1, keepdims=True)
        odds = np.exp(scaled)
        return odds / odds.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Classifier:
    """A network with its calibration and thresholds.

    Attributes
    ----------
    name : str
    network : CellNetwork
        In evaluation mode.
    calibration : Calibration
    thresholds : Thresholds
    positivity : dict of str to PositivityScale
        By role of the marker.
    description : dict
        The whole ``model.json``, with what the model was trained on and measured to do.
    """

    name: str
    network: CellNetwork
    calibration: Calibration
    thresholds: Thresholds
    positivity: dict[str, PositivityScale]
    description: dict[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides a call: weights, calibration, thresholds, crops; as hex."""
        return description_hash(self.description)

    def predict(self, batch: CropBatch) -> tuple[np.ndarray, np.ndarray]:
        """Classify crops.

        Parameters
        ----------
        batch : CropBatch
            Of any length.

        Returns
        -------
        p : ndarray of float64, shape (n, 3)
            Probabilities of ctc, leukocyte, artefact, to 6 decimals.
        positivity : ndarray of float32, shape (n, 3)
            Logits of the epithelial, mesenchymal, leukocyte marker; what they mean on a slide is told by
            `ctc_imaging.positivity`.
        """
        logits, positivity = self.raw(batch)
        return self.calibration.probabilities(logits).round(DECIMALS), positivity

    def raw(self, batch: CropBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return the network's class and positivity logits, each float32 of shape (n, 3)."""
        count = len(batch.cell_ids)
        parts = [self._forward(batch, start) for start in range(0, count, BATCH)]
        if not parts:
            return np.empty((0, 3), np.float32), np.empty((0, 3), np.float32)
        logits, positivity = (np.concatenate(halves) for halves in zip(*parts, strict=True))
        return logits[:count], positivity[:count]

    def _forward(self, batch: CropBatch, start: int) -> tuple[np.ndarray, np.ndarray]:
        import torch

        from ctc_imaging.classification.network import squash

        planes = _filled(squash(batch.roles[start : start + BATCH]))
        masks = _filled(batch.masks[start : start + BATCH])
        present = np.broadcast_to(batch.present, (BATCH, len(ROLES))).copy()
        with torch.inference_mode(), _one_thread():
            outputs = self.network(*(torch.from_numpy(array) for array in (planes, present, masks)))
        return outputs[0].numpy(), outputs[1].numpy()


def load_model(name: str = "default") -> Classifier:
    """Load a classifier by name, from the first of the model folders that has it.

    Parameters
    ----------
    name : str
        Searched in ``$CTC_IMAGING_MODELS``, the user's model folder, then the packaged models.

    Returns
    -------
    Classifier

    Raises
    ------
    ModelError
        If there is no such model, or its files are missing, damaged or don't belong together.
    """
    models = list_models()
    if name not in models:
        raise ModelError(
            name,
            f"no such model in {', '.join(str(folder) for folder in model_folders())}",
            f"choose one of {', '.join(models) or '(none found)'}, or set CTC_IMAGING_MODELS to the folder that has it",
        )
    return read_model(models[name])


def list_models() -> dict[str, Path]:
    """Find all classifiers: name to folder, in the order of names; an earlier folder hides a later one."""
    return find_models(FORMAT.partition("/")[0])


def read_model(folder: Path) -> Classifier:
    """Load the classifier of a folder, named after it.

    Raises
    ------
    ModelError
        If a file is missing or damaged, or the weights aren't those of the description.
    """
    folder = Path(folder)
    description = read_description(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ModelError(weights, "the model's weights are missing", "install the model again")
    if sha256_file(weights) != description["weights_sha256"]:
        raise ModelError(weights, "not the weights that model.json describes", "install the model again")
    try:
        calibration = Calibration(float(description["temperature"]), *(_triple(description[k]) for k in _TRIPLES))
        found = description["thresholds"]
        thresholds = Thresholds(float(found["ctc"]), _triple(found["sets"]), float(found["coverage"]))
        scales = {str(role): PositivityScale(**description["positivity"][str(role)]) for role in MARKERS}
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise _damaged(folder / DESCRIPTION, error) from error
    network = _network(weights, description)
    return Classifier(folder.name, network, calibration, thresholds, scales, description)


def read_description(folder: Path) -> dict[str, Any]:
    """Read and check a model's ``model.json``.

    Raises
    ------
    ModelError
        If it is missing, malformed, or made for other crops than this version cuts.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelError(path, "no model here", "name a folder with weights.safetensors and model.json")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        found = {key: description[key] for key in _DECISIVE}
        complete = description.keys() >= _TUNED
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    if not complete or found != {**interface(), "architecture": found["architecture"]}:
        raise ModelError(path, "made for another version of ctc-imaging", "train it again or install that version")
    return description


def description_hash(description: dict[str, Any]) -> str:
    """SHA-256 of what decides a call; training notes and metrics don't count."""
    return sha256_json({key: description[key] for key in (*_DECISIVE, *sorted(_TUNED))})


def interface() -> dict[str, Any]:
    """Return what a network and this package must agree on: classes, roles, scale and squashing of crops."""
    return {
        "format": FORMAT,
        "classes": list(CLASSES),
        "roles": [str(role) for role in ROLES],
        "crop_px": CROP_PX,
        "um_per_px": UM_PER_PX,
        "squash": "arcsinh((pixel - level) / noise)",
    }


def save_model(
    folder: Path,
    network: CellNetwork,
    architecture: dict[str, int],
    calibration: Calibration,
    thresholds: Thresholds,
    positivity: Mapping[str, PositivityScale],
    notes: dict[str, Any],
) -> Classifier:
    """Write a model folder and load it back.

    Parameters
    ----------
    folder : Path
        Made if needed; its name is the model's.
    network : CellNetwork
        Trained, not fused.
    architecture : dict
        Arguments of `CellNetwork`.
    calibration : Calibration
    thresholds : Thresholds
    positivity : mapping of str to PositivityScale
    notes : dict
        `training` and `metrics`, JSON values that are kept and shown but decide nothing.
    """
    from safetensors.torch import save_file

    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)
    description = {
        **interface(),
        "architecture": architecture,
        "weights_sha256": sha256_file(folder / WEIGHTS),
        "temperature": calibration.temperature,
        "bias": list(calibration.bias),
        "prevalence": list(calibration.prevalence),
        "thresholds": {**vars(thresholds), "sets": list(thresholds.sets)},
        "positivity": {role: vars(scale) for role, scale in positivity.items()},
        **notes,
    }
    write_json(folder / DESCRIPTION, description)
    return read_model(folder)


def _network(weights: Path, description: dict[str, Any]) -> CellNetwork:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ctc_imaging.classification.network import CellNetwork, fuse

    try:
        network = CellNetwork(**description["architecture"])
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise ModelError(weights, "the weights don't fit the network", "install the model again") from error
    return fuse(network.eval()).to(memory_format=torch.channels_last)


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(path, f"the model's description is damaged ({error!r})", "install the model again")


def _triple(values: Any) -> tuple[float, float, float]:
    ctc, leukocyte, artefact = (float(value) for value in values)
    return ctc, leukocyte, artefact


def _filled(array: np.ndarray) -> np.ndarray:
    full = np.zeros((BATCH, *array.shape[1:]), np.float32)
    full[: len(array)] = array
    return full


@contextmanager
def _one_thread() -> Iterator[None]:
    """With one thread a sum has one order, hence one result."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
