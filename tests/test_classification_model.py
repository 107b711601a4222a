"""The classifier: loads by name, refuses what is damaged, and gives a cell the same answer in any company."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.classification import CLASSES, CropBatch, list_models, load_model, read_model
from ctc_imaging.classification.model import Calibration, Thresholds, interface, save_model
from ctc_imaging.classification.network import CellNetwork, fuse, squash
from ctc_imaging.errors import ModelError
from ctc_imaging.positivity import PositivityScale

PREVALENCE = (0.01, 0.9, 0.09)
THRESHOLDS = Thresholds(ctc=0.9, sets=(0.6, 0.2, 0.1), coverage=0.95)
CALIBRATION = Calibration(1.5, (-1.0, 0.5, 0.0), PREVALENCE)
POSITIVITY = {"epithelial": PositivityScale(1.0, 0.5), "mesenchymal": PositivityScale(0.5, 0.0)}
SMALL = {"width": 8, "hidden": 32}


def save(folder, seed=0, thresholds=THRESHOLDS, notes=None):
    torch.manual_seed(seed)
    return save_model(
        folder, CellNetwork(**SMALL), SMALL, CALIBRATION, thresholds, POSITIVITY, notes or {"training": {}}
    )


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty user: no models but those a test puts into its own folder."""
    monkeypatch.setenv("CTC_IMAGING_MODELS", str(tmp_path / "chosen"))
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(tmp_path / "user" / name))
    return tmp_path


def random_batch(count, seed=0, present=(1, 1, 1, 1)):
    rng = np.random.default_rng(seed)
    present = np.array(present, np.float32)
    roles = rng.normal(2, 4, (count, 4, 48, 48)).astype(np.float32) * present[:, None, None]
    masks = (rng.random((count, 2, 48, 48)) < 0.3).astype(np.float32)
    return CropBatch(np.arange(count), roles, present, masks)


def part(batch, rows):
    return CropBatch(batch.cell_ids[rows], batch.roles[rows], batch.present, batch.masks[rows])


def test_probabilities_are_three_that_sum_to_one(classifier):
    p, positivity = classifier.predict(random_batch(10))
    assert p.shape == positivity.shape == (10, 3)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=2e-6)
    np.testing.assert_array_equal(p, p.round(6))


def test_no_cells_are_no_trouble(classifier):
    p, positivity = classifier.predict(random_batch(0))
    assert p.shape == positivity.shape == (0, 3)


@settings(deadline=None, max_examples=5)
@given(st.integers(1, 300), st.integers(0, 5))
def test_company_does_not_change_a_cell(classifier, count, seed):
    batch = random_batch(count, seed)
    p, positivity = classifier.predict(batch)
    row = seed % count
    p_alone, positivity_alone = classifier.predict(part(batch, np.array([row])))
    np.testing.assert_array_equal(p_alone[0], p[row])
    np.testing.assert_array_equal(positivity_alone[0], positivity[row])


def test_prediction_leaves_torch_as_it_was(classifier):
    threads = torch.get_num_threads()
    classifier.predict(random_batch(2))
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


def test_squash_is_linear_about_the_noise_and_logarithmic_above():
    values = squash(np.array([0.0, 0.01, -0.01, 1e4], np.float32))
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [0, 0.01, -0.01, np.log(2e4)], rtol=1e-4)


def test_fusing_changes_nothing():
    torch.manual_seed(0)
    network = CellNetwork(**SMALL)
    inputs = torch.randn(8, 4, 48, 48), torch.ones(8, 4), (torch.rand(8, 2, 48, 48) < 0.2).float()
    network(*inputs)  # moves the running statistics away from their start
    network.eval()
    with torch.inference_mode():
        before = [output.clone() for output in network(*inputs)]
        after = fuse(network)(*inputs)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_an_empty_mask_gives_finite_logits(classifier):
    batch = random_batch(1)
    p, _ = classifier.predict(CropBatch(batch.cell_ids, batch.roles, batch.present, np.zeros_like(batch.masks)))
    assert np.isfinite(p).all()


def test_calibration_by_hand():
    p = Calibration(2.0, (0.0, np.log(3), 0.0), PREVALENCE).probabilities(np.array([[2.0, 0.0, 0.0]], np.float32))
    odds = np.array([np.e, 3, 1])
    np.testing.assert_allclose(p[0], odds / odds.sum())


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), st.floats(0.1, 10))
def test_calibrated_probabilities_stay_probabilities(logits, temperature):
    p = Calibration(temperature, (-3.0, 1.0, 0.0), PREVALENCE).probabilities(np.array([logits], np.float32))
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1)


def test_a_saved_model_comes_back(tmp_path):
    saved = save(tmp_path / "mine", notes={"training": {"data": "simulated"}, "metrics": {"ece": 0.1}})
    loaded = read_model(tmp_path / "mine")
    assert (loaded.name, loaded.hash) == ("mine", saved.hash)
    assert (loaded.thresholds, loaded.calibration, loaded.positivity) == (THRESHOLDS, CALIBRATION, POSITIVITY)
    np.testing.assert_array_equal(loaded.predict(random_batch(4))[0], saved.predict(random_batch(4))[0])


def test_hash_follows_what_decides_and_nothing_else(tmp_path):
    first = save(tmp_path / "a", notes={"metrics": {"ece": 0.1}})
    assert save(tmp_path / "b", notes={"metrics": {"ece": 0.2}}).hash == first.hash
    assert save(tmp_path / "c", seed=1).hash != first.hash
    assert save(tmp_path / "d", thresholds=Thresholds(0.8, (0.6, 0.2, 0.1), 0.95)).hash != first.hash


def test_models_are_found_in_their_order(models):
    save(models / "user" / "ctc_imaging" / "models" / "default", seed=1)
    save(models / "user" / "ctc_imaging" / "models" / "own", seed=2)
    assert load_model("own").hash == read_model(models / "user" / "ctc_imaging" / "models" / "own").hash
    chosen = save(models / "chosen" / "default", seed=3)
    assert load_model().hash == chosen.hash
    assert list(list_models()) == sorted(list_models())
    assert list_models()["default"] == models / "chosen" / "default"


def test_an_unknown_model_names_the_known_ones(models):
    save(models / "chosen" / "known")
    with pytest.raises(ModelError, match=r"known.*CTC_IMAGING_MODELS"):
        load_model("unheard-of")


def _drop_weights(folder):
    (folder / "weights.safetensors").unlink()


def _cut_weights(folder):
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def _break_json(folder):
    (folder / "model.json").write_text('{"format":')


def _edit(folder, **changes):
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**description, **changes}))


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (_drop_weights, "weights are missing"),
        (_cut_weights, "not the weights"),
        (_break_json, "damaged"),
        (lambda folder: (folder / "model.json").unlink(), "no model here"),
        (lambda folder: (folder / "model.json").write_text("[]"), "damaged"),
        (lambda folder: _edit(folder, um_per_px=0.25), "another version"),
        (lambda folder: _edit(folder, classes=["ctc", "other"]), "another version"),
        (lambda folder: _edit(folder, architecture={"width": 4, "hidden": 32}), "don't fit"),
        (lambda folder: _edit(folder, architecture={"depth": 8}), "don't fit"),
        (lambda folder: _edit(folder, thresholds={"ctc": 0.9}), "damaged"),
        (lambda folder: _edit(folder, temperature="hot"), "damaged"),
        (lambda folder: _edit(folder, prevalence=[0.5, 0.5]), "damaged"),
        (lambda folder: _edit(folder, positivity={"epithelial": {"network": 1.0}}), "damaged"),
    ],
)
def test_a_damaged_model_is_refused_in_one_line(tmp_path, damage, fault):
    save(tmp_path / "broken")
    damage(tmp_path / "broken")
    with pytest.raises(ModelError, match=fault) as caught:
        read_model(tmp_path / "broken")
    assert "\n" not in str(caught.value)


def test_interface_is_what_the_contract_says():
    assert CLASSES == ("ctc", "leukocyte", "artefact")
    assert interface()["roles"] == ["nucleus", "epithelial", "mesenchymal", "leukocyte"]
    assert (interface()["crop_px"], interface()["um_per_px"]) == (48, 0.5)
