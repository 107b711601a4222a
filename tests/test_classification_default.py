"""The model that ships: it is there, it is whole, and on simulated slides it finds CTCs and invents few."""

from __future__ import annotations

import numpy as np
import pytest
from ctc_training.dataset import ArraySlide, match_cells

from ctc_imaging.classification import PHENOTYPES, call_cells, list_models, load_model
from ctc_imaging.classification.crops import iterate_crops
from ctc_imaging.panel import load_panel
from ctc_imaging.segmentation import measure_background, segment_slide
from ctc_imaging.simulation import simulate_slide

SEED = 700_001
"""Of no slide in training, calibration or test."""


@pytest.fixture(scope="module", autouse=True)
def shipped_only():
    """A user's own models mustn't stand in for the one that ships."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CTC_IMAGING_MODELS", raising=False)
        patch.setattr("platformdirs.user_data_dir", lambda name: "/nonexistent")
        yield


@pytest.fixture(scope="module")
def classifier(shipped_only):
    return load_model()


def call_slide(classifier, panel_name="emt-4", pixel_size_um=0.5, tile_px=2048):
    side = round(700 * 0.5 / pixel_size_um)
    simulated = simulate_slide(
        (side, side), ctc=40, leukocytes=250, seed=SEED, pixel_size_um=pixel_size_um, panel=panel_name
    )
    panel = load_panel(panel_name)
    slide = ArraySlide(simulated.image, pixel_size_um)
    channels = panel.assign(simulated.channel_names, "simulated")
    background = measure_background(slide, channels)
    labels = np.zeros((2, side, side), np.uint32)
    cells = segment_slide(slide, channels, panel, background, labels, pixel_size_um, tile_px)
    called = call_cells(slide, channels, panel, background, labels, cells, classifier)
    match = match_cells(called, simulated.truth)
    truth = simulated.truth.reindex(match).reset_index(drop=True)
    return called, truth


def sensitivity_and_false(called, truth, of=40):
    is_called, is_true = (called["call"] == "ctc").to_numpy(), (truth["class"] == "ctc").to_numpy()
    return (is_called & is_true).sum() / of, (is_called & ~is_true & (truth["kind"].notna())).sum()


def test_the_default_model_is_shipped_and_says_that_it_was_trained_on_simulated_slides(classifier):
    assert "default" in list_models()
    assert "simulated" in classifier.description["training"]["data"]
    card = (list_models()["default"] / "CARD.md").read_text(encoding="utf-8")
    assert "simulated slides only" in card
    assert classifier.hash in card


@pytest.mark.parametrize(
    ("panel", "pixel_size_um"), [("emt-4", 0.5), ("epithelial-3", 0.5), ("emt-4", 0.325), ("emt-4", 0.65)]
)
def test_ctcs_are_found_by_any_panel_and_scale(classifier, panel, pixel_size_um):
    called, truth = call_slide(classifier, panel, pixel_size_um)
    sensitivity, false = sensitivity_and_false(called, truth)
    assert sensitivity >= 0.9
    assert false == 0


def test_phenotypes_are_mostly_right(classifier):
    called, truth = call_slide(classifier)
    both = ((called["call"] == "ctc") & (truth["class"] == "ctc")).to_numpy()
    found, true = called["phenotype"][both].to_numpy(), truth["phenotype"][both].to_numpy()
    assert set(found) <= set(PHENOTYPES)
    assert (found == true).mean() >= 0.8


def test_calls_do_not_depend_on_tiles(classifier):
    whole, _ = call_slide(classifier)
    tiled, _ = call_slide(classifier, tile_px=128)
    np.testing.assert_array_equal(whole["p_ctc"], tiled["p_ctc"])
    assert (whole["call"] == tiled["call"]).all()


def test_batches_do_not_change_calls(classifier):
    """The network's own sizes give the same bits wherever a cell stands in a batch."""
    simulated = simulate_slide((400, 400), ctc=10, leukocytes=60, seed=SEED)
    panel, slide = load_panel("emt-4"), ArraySlide(simulated.image, 0.5)
    channels = panel.assign(simulated.channel_names, "simulated")
    background = measure_background(slide, channels)
    labels = np.zeros((2, 400, 400), np.uint32)
    cells = segment_slide(slide, channels, panel, background, labels, 0.5)
    found = [
        np.concatenate(
            [
                classifier.predict(batch)[0]
                for batch in iterate_crops(slide, channels, panel, background, labels, cells, size)
            ]
        )
        for size in (256, 7)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=2e-6)
