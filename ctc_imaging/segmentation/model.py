"""Nucleus networks as files: find one by name, check that it is whole, and see with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ctc_imaging.errors import ModelError
from ctc_imaging.files import atomic_path, sha256_file, sha256_json, write_json
from ctc_imaging.model_folders import DESCRIPTION, find_models, model_folders

if TYPE_CHECKING:
    from ctc_imaging.segmentation.network import NucleusNetwork

FORMAT = "ctc-imaging-nuclei/1"
WEIGHTS = "weights.safetensors"
CLASSICAL = "classical"
"""Name of the way that needs no weights."""

NETWORK_PIXELS = 16 * 48 * 48
"""Pixels the network sees at once; a window's maps mustn't depend on its company, so every batch is filled up."""

_DECISIVE = ("format", "um_per_px", "squash", "architecture", "weights_sha256")


class NucleusFinder(Protocol):
    """What finds nuclei in windows."""

    @property
    def name(self) -> str:
        """Name as the user gave it."""

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides an outline."""

    def maps(self, signal: np.ndarray, pixel_size_um: float) -> np.ndarray:
        """Say of windows (n, s, s) in noise units: foreground, depth, step to the centre in px; (n, 4, s, s)."""


@dataclass(frozen=True)
class NucleusModel:
    """A trained nucleus network.

    Attributes
    ----------
    name : str
    network : NucleusNetwork
        In evaluation mode, fused.
    description : dict
        The whole ``model.json``, with what it was trained on and measured to do.
    """

    name: str
    network: NucleusNetwork
    description: dict[str, Any]

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides an outline: weights, architecture, scale."""
        return sha256_json({key: self.description[key] for key in _DECISIVE})

    def maps(self, signal: np.ndarray, pixel_size_um: float) -> np.ndarray:
        """Find nuclei in windows.

        Parameters
        ----------
        signal : float32 ndarray, shape (n, s, s)
            Stain in noise units; s a multiple of 16.
        pixel_size_um : float
            Not needed: the network was trained over a range of scales about its own.

        Returns
        -------
        float32 ndarray, shape (n, 4, s, s)
            Foreground and depth (0 to 1), the step to the nucleus's centre in rows and columns (px).
        """
        count, side = signal.shape[0], signal.shape[-1]
        batch = max(NETWORK_PIXELS // side**2, 1)
        result = np.empty((count, 4, side, side), np.float32)
        for start in range(0, count, batch):
            stop = min(start + batch, count)
            result[start:stop] = self._forward(signal[start:stop], batch)[: stop - start]
        return result

    def _forward(self, signal: np.ndarray, batch: int) -> np.ndarray:
        import torch

        from ctc_imaging.segmentation.network import OFFSET_UNIT_PX, squash

        stain = np.zeros((batch, 1, *signal.shape[1:]), np.float32)
        stain[: len(signal), 0] = squash(signal)
        with torch.inference_mode(), _one_thread():
            maps = self.network(torch.from_numpy(stain).contiguous(memory_format=torch.channels_last))
            maps[:, 0].sigmoid_()
            maps[:, 2:] *= OFFSET_UNIT_PX
        return maps.numpy()


def load_finder(name: str = "nuclei") -> NucleusFinder:
    """Load a nucleus network by name; ``classical`` needs no weights.

    Raises
    ------
    ModelError
        If there is no such model, or its files are missing, damaged or don't belong together.
    """
    if name == CLASSICAL:
        from ctc_imaging.segmentation.classical import ClassicalFinder

        return ClassicalFinder()
    models = find_models(FORMAT.partition("/")[0])
    if name not in models:
        raise ModelError(
            name,
            f"no such nucleus model in {', '.join(str(folder) for folder in model_folders())}",
            f"choose one of {', '.join([*models, CLASSICAL])}",
        )
    return _read(models[name], sha256_file(models[name] / DESCRIPTION))


@lru_cache(maxsize=4)
def _read(folder: Path, _description_sha256: str) -> NucleusModel:
    """Load a model once per process, and again when its description has changed."""
    return read_nucleus_model(folder)


def read_nucleus_model(folder: Path) -> NucleusModel:
    """Load the nucleus network of a folder, named after it.

    Raises
    ------
    ModelError
        If a file is missing or damaged, or the weights aren't those of the description.
    """
    path, weights = folder / DESCRIPTION, folder / WEIGHTS
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        missing = set(_DECISIVE) - description.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(path, f"the model's description is damaged ({error!r})", "install the model again") from error
    if missing or {key: description[key] for key in interface()} != interface():
        raise ModelError(path, "made for another version of ctc-imaging", "train it again or install that version")
    if not weights.is_file():
        raise ModelError(weights, "the model's weights are missing", "install the model again")
    if sha256_file(weights) != description["weights_sha256"]:
        raise ModelError(weights, "not the weights that model.json describes", "install the model again")
    return NucleusModel(folder.name, _network(weights, description["architecture"]), description)


def interface() -> dict[str, Any]:
    """Return what a network and this package must agree on."""
    return {"format": FORMAT, "um_per_px": 0.5, "squash": "arcsinh((pixel - level) / noise / 3)"}


def save_nucleus_model(
    folder: Path, network: NucleusNetwork, architecture: dict[str, Any], notes: dict[str, Any]
) -> NucleusModel:
    """Write a model folder and load it back.

    Parameters
    ----------
    folder : Path
        Made if needed; its name is the model's.
    network : NucleusNetwork
        Trained, not fused.
    architecture : dict
        Arguments of `NucleusNetwork`.
    notes : dict
        `training` and `metrics`: JSON values that are kept and shown but decide nothing.
    """
    from safetensors.torch import save_file

    with atomic_path(folder / WEIGHTS) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, temporary)
    description = {**interface(), "architecture": architecture, "weights_sha256": sha256_file(folder / WEIGHTS)}
    write_json(folder / DESCRIPTION, {**description, **notes})
    return read_nucleus_model(folder)


def _network(weights: Path, architecture: dict[str, Any]) -> NucleusNetwork:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ctc_imaging.segmentation.network import NucleusNetwork, fuse

    try:
        network = NucleusNetwork(**architecture)
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise ModelError(weights, "the weights don't fit the network", "install the model again") from error
    return fuse(network.eval()).to(memory_format=torch.channels_last)


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
