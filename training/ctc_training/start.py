"""The model that training starts from, with the cells it has seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import Tensor

from ctc_imaging.classification.model import WEIGHTS, Classifier, list_models, load_model, read_model
from ctc_imaging.errors import ModelError
from ctc_imaging.files import sha256_file, write_csv
from ctc_imaging.model_folders import DESCRIPTION

SEEN = "seen.csv"
"""In a model's folder: scans and images of the cells it was trained and calibrated on."""

NONE = "none"


@dataclass(frozen=True)
class Start:
    """A model to go on from: its weights, not fused, and its classifier, as in use."""

    classifier: Classifier
    weights: dict[str, Tensor]
    seen: pd.DataFrame

    @property
    def architecture(self) -> dict[str, int]:
        """Arguments of its network."""
        return dict(self.classifier.description["architecture"])


def load_start(name: str | Path) -> Start:
    """Load a model to go on from, by name or folder.

    Raises
    ------
    ModelError
        If there is none, or it isn't whole.
    """
    from safetensors.torch import load_file

    folder = model_folder(name)
    classifier = read_model(folder)
    return Start(classifier, load_file(folder / WEIGHTS), seen_by(folder, classifier))


def model_folder(name: str | Path) -> Path:
    """Find a model's folder: the folder itself, or that of the model of this name.

    Raises
    ------
    ModelError
        If there is none.
    """
    if (Path(name) / DESCRIPTION).is_file():
        return Path(name)
    models = list_models()
    if str(name) in models:
        return models[str(name)]
    load_model(str(name))
    raise ModelError(name, "no such model", "name a folder with model.json")


def seen_by(folder: Path, classifier: Classifier) -> pd.DataFrame:
    """Read which cells a model was trained and calibrated on.

    Returns
    -------
    DataFrame
        `kind` (scan, crop), `sha256`; empty for a model that was made from simulated slides only.

    Raises
    ------
    ModelError
        If the list isn't the one that ``model.json`` goes by.
    """
    expected = classifier.description.get("training", {}).get("seen_sha256")
    path = folder / SEEN
    if expected is None:
        return pd.DataFrame({"kind": [], "sha256": []}, dtype=str)
    if not path.is_file() or sha256_file(path) != expected:
        raise ModelError(path, "not the list of cells that the model was trained on", "train the model again")
    return pd.read_csv(path, dtype=str)


def write_seen(folder: Path, rows: pd.DataFrame, earlier: Iterable[pd.DataFrame] = ()) -> str:
    """Write the list of cells a model has seen, with those of the model it started from; return its SHA-256.

    Parameters
    ----------
    folder : Path
        The model's.
    rows : DataFrame
        Of training sets, with `scan_sha256` (empty for none) and `crop_sha256`.
    earlier : iterable of DataFrame
        As from `seen_by`.
    """
    own = [pd.DataFrame({"kind": kind, "sha256": rows[f"{kind}_sha256"]}) for kind in ("scan", "crop")]
    table = pd.concat([*earlier, *own], ignore_index=True)
    table = table[table["sha256"] != ""].drop_duplicates().sort_values(["kind", "sha256"], ignore_index=True)
    write_csv(folder / SEEN, table)
    return sha256_file(folder / SEEN)
