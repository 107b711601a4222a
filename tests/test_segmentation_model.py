"""Nucleus models as files: whole or refused, and what one says of a window doesn't depend on its company."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ctc_imaging.classification import list_models
from ctc_imaging.errors import ModelError
from ctc_imaging.segmentation.model import NucleusModel, load_finder, read_nucleus_model, save_nucleus_model
from ctc_imaging.segmentation.network import NucleusNetwork

SMALL = {"channels": [4, 6], "down": [1, 1], "up": [1]}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CTC_IMAGING_MODELS", str(tmp_path))
    return tmp_path


def a_model(folder: Path, seed: int = 0) -> NucleusModel:
    torch.manual_seed(seed)
    return save_nucleus_model(folder, NucleusNetwork(**SMALL), SMALL, {"training": {}, "metrics": {}})


def test_a_model_is_found_by_name_and_says_the_same_as_before(models: Path) -> None:
    saved = a_model(models / "mine")
    found = load_finder("mine")
    windows = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    assert found.hash == saved.hash
    assert np.array_equal(found.maps(windows, 0.5), saved.maps(windows, 0.5))


def test_a_windows_maps_do_not_depend_on_its_company(models: Path) -> None:
    model = a_model(models / "mine")
    windows = np.random.default_rng(0).normal(0, 20, (37, 48, 48)).astype(np.float32)
    together = model.maps(windows, 0.5)
    for index in (0, 15, 16, 36):
        assert np.array_equal(model.maps(windows[index : index + 1], 0.5)[0], together[index])
    assert np.array_equal(model.maps(windows[::-1].copy(), 0.5)[::-1], together)


def test_foreground_is_a_share(models: Path) -> None:
    maps = a_model(models / "mine").maps(np.random.default_rng(0).normal(0, 100, (2, 32, 32)).astype(np.float32), 0.5)
    assert maps.shape == (2, 4, 32, 32)
    assert ((maps[:, 0] >= 0) & (maps[:, 0] <= 1)).all()


def test_the_hash_follows_the_weights(models: Path) -> None:
    assert a_model(models / "one", seed=1).hash != a_model(models / "two", seed=2).hash


def test_classifiers_and_nucleus_models_are_not_taken_for_each_other(models: Path) -> None:
    a_model(models / "mine")
    assert "mine" not in list_models()
    with pytest.raises(ModelError, match="no such nucleus model"):
        load_finder("default")


def test_an_unknown_name_lists_those_there_are(models: Path) -> None:
    a_model(models / "mine")
    with pytest.raises(ModelError, match=r"mine.*classical"):
        load_finder("nobody")


def damage_description(folder: Path) -> None:
    (folder / "model.json").write_text("{", encoding="utf-8")


def damage_weights(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])


def lose_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def other_version(folder: Path) -> None:
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps(description | {"um_per_px": 1.0}), encoding="utf-8")


def other_shape(folder: Path) -> None:
    description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    description["architecture"]["channels"] = [4, 8]
    (folder / "model.json").write_text(json.dumps(description), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_description, "damaged"),
        (damage_weights, "not the weights"),
        (lose_weights, "missing"),
        (other_version, "another version"),
        (other_shape, "don't fit"),
    ],
)
def test_a_damaged_model_is_refused_with_a_reason(models: Path, damage: object, said: str) -> None:
    a_model(models / "mine")
    damage(models / "mine")  # type: ignore[operator]
    with pytest.raises(ModelError, match=said):
        read_nucleus_model(models / "mine")
