"""A model as ONNX gives what torch gives, or isn't written."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ctc_training import export_onnx as module
from ctc_training.build import UNDECIDED
from ctc_training.export_onnx import difference_on, export_onnx

from ctc_imaging.classification.model import save_model
from ctc_imaging.classification.network import CellNetwork, squash
from ctc_imaging.cli import main
from ctc_imaging.errors import ModelError

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
TINY = {"width": 8, "hidden": 16}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    classifier = save_model(folder, CellNetwork(**TINY), TINY, *UNDECIDED, {"training": {}})
    path = folder.parent / "tiny.onnx"
    return classifier, path, export_onnx(classifier, path)


def test_it_gives_what_the_classifier_gives(exported):
    classifier, path, difference = exported
    assert difference < 1e-4
    rng = np.random.default_rng(5)
    snr = rng.normal(2, 8, (7, 4, 48, 48)).astype(np.float32)
    present = np.ones((7, 4), np.float32)
    masks = (rng.random((7, 2, 48, 48)) < 0.3).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits, markers = session.run(None, {"snr": snr, "present": present, "masks": masks})
    with torch.inference_mode():
        expected = classifier.network(*(torch.from_numpy(array) for array in (squash(snr), present, masks)))
    np.testing.assert_allclose(logits, expected[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(markers, expected[1].numpy(), atol=1e-4)


def test_it_says_what_it_is_and_how_to_calibrate(exported):
    classifier, path, _ = exported
    told = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_modelmeta()
    assert told.custom_metadata_map["ctc_imaging_hash"] == classifier.hash
    description = json.loads(told.custom_metadata_map["description"])
    assert {"temperature", "bias", "thresholds", "roles"} <= description.keys()


def test_one_that_differs_is_not_written(exported, tmp_path, monkeypatch):
    path = exported[1]
    monkeypatch.setattr(module, "_export", lambda _, target: target.write_bytes(path.read_bytes()))
    torch.manual_seed(1)
    other = save_model(tmp_path / "other", CellNetwork(**TINY), TINY, *UNDECIDED, {"training": {}})
    with pytest.raises(ModelError, match="differs from torch by"):
        export_onnx(other, tmp_path / "other.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]
    assert difference_on(other, path, *next(module._random(0))) > 1e-4


def test_what_is_missing_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["export-onnx", "default", str(tmp_path / "m.onnx")]) == 2
    assert "pip install 'ctc-imaging[onnx]'" in capsys.readouterr().err
