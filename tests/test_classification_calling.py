"""Calls: thresholds fit for rare cells, phenotypes from markers, focus, and crops a person can look at."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ctc_imaging.classification.calling import (
    call_cells,
    decide,
    edge_sharpness,
    phenotypes,
    prediction_sets,
    write_crops,
)
from ctc_imaging.classification.classes import CALLS, PHENOTYPES
from ctc_imaging.classification.crops import CropBatch
from ctc_imaging.classification.model import Calibration, Thresholds
from ctc_imaging.classification.rarity import BALANCED
from ctc_imaging.panel import Channel, Role, load_panel
from ctc_imaging.positivity import MARKERS, PositivityScale
from ctc_imaging.segmentation import Background

THRESHOLDS = Thresholds(ctc=0.9, sets=(0.6, 0.2, 0.2), coverage=0.95)
# Of a model calibrated where all classes are equally common.
CALIBRATION = Calibration(1.0, (0.0, 0.0, 0.0), BALANCED)
# The network's logit is the marker's SNR less 5.
POSITIVITY = {str(role): PositivityScale(network=2.0, bias=0.0) for role in MARKERS}
LEVEL, NOISE = 100.0, 5.0
PANEL = load_panel("emt-4")
TUMOUR_PANEL = replace(
    PANEL,
    channels=(*PANEL.channels, Channel("gpc3", Role.TUMOUR, "#ffffff", (), 4)),
    mesenchymal_needs_tumour_marker=True,
)


@dataclass
class PlainSlide:
    image: np.ndarray
    pixel_size_um: float = 0.5

    @property
    def shape(self):
        return self.image.shape

    def read(self, channels, y0, y1, x0, x1):
        return self.image[list(channels), y0:y1, x0:x1]


@dataclass
class BrightnessClassifier:
    """Reads class and positivity off the middle pixel: CK makes a CTC, CD45 a leukocyte."""

    thresholds: Thresholds = THRESHOLDS
    calibration: Calibration = CALIBRATION
    positivity: dict[str, PositivityScale] = field(default_factory=lambda: POSITIVITY)

    def predict(self, batch):
        _, ck, vim, cd45 = batch.roles[:, :, 24, 24].astype(float).T
        p = np.stack([np.maximum(ck, vim), cd45, np.full_like(ck, 0.01)], axis=1).clip(0.001)
        return p / p.sum(axis=1, keepdims=True), np.stack([ck, vim, cd45], axis=1) - 5


def flat_background(channels: int) -> Background:
    return Background(np.full((channels, 2, 2), LEVEL, np.float32), np.full((channels, 2, 2), NOISE, np.float32))


def slide_with_cells(signals: list[dict[str, float]], panel=PANEL, dtype=np.uint16):
    """A slide with square cells in a row, each with the given signal-to-noise per marker."""
    image = np.full((len(panel.channels), 120, 60 * (len(signals) + 1)), LEVEL, dtype)
    labels = np.zeros((2, *image.shape[1:]), np.uint32)
    for number, signal in enumerate(signals, start=1):
        place = slice(50, 71), slice(60 * number - 10, 60 * number + 11)
        labels[(slice(None), *place)] = number
        for short, snr in {"dapi": 30, **signal}.items():
            image[(panel.shorts.index(short), *place)] = LEVEL + snr * NOISE
    cells = pd.DataFrame({"cell_id": np.arange(1, len(signals) + 1), "y_px": 60.0})
    cells["x_px"] = 60.0 * cells["cell_id"]
    cells["nucleus_area_um2"] = 110.0
    for short in panel.shorts:
        cells[f"{short}_snr"] = [signal.get(short, 0.0) for signal in signals]
    return PlainSlide(image), labels, cells


def call(signals, panel=PANEL, order=None, map_runs=map):
    slide, labels, cells = slide_with_cells(signals, panel)
    cells = cells if order is None else cells.iloc[order]
    channels = {short: index for index, short in enumerate(panel.shorts)}
    background = flat_background(len(panel.channels))
    return call_cells(slide, channels, panel, background, labels, cells, BrightnessClassifier(), map_runs)


@pytest.mark.parametrize(
    ("p", "call_expected"),
    [
        ((0.95, 0.03, 0.02), "ctc"),
        ((0.90, 0.08, 0.02), "ctc"),
        ((0.89, 0.10, 0.01), "indeterminate"),
        ((0.60, 0.39, 0.01), "indeterminate"),
        ((0.40, 0.35, 0.25), "indeterminate"),
        ((0.40, 0.59, 0.01), "leukocyte"),
        ((0.00, 0.30, 0.70), "artefact"),
        ((0.05, 0.50, 0.45), "leukocyte"),
    ],
)
def test_thresholds_by_hand(p, call_expected):
    assert decide(np.array([p]), THRESHOLDS, BALANCED).tolist() == [call_expected]


def test_where_ctcs_are_rare_the_same_doubt_begins_at_a_smaller_p():
    p = np.array([[0.02, 0.97, 0.01]])
    assert decide(p, THRESHOLDS, BALANCED).tolist() == ["leukocyte"]
    assert decide(p, THRESHOLDS, (0.005, 0.955, 0.04)).tolist() == ["indeterminate"]


def test_a_set_holds_every_class_that_cannot_be_denied():
    p = np.array([[0.7, 0.25, 0.05], [0.1, 0.5, 0.4], [0.35, 0.19, 0.19]])
    sets = prediction_sets(p / p.sum(axis=1, keepdims=True), THRESHOLDS, BALANCED)
    assert sets.tolist() == [[True, True, False], [False, True, True], [False, True, True]]


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1))
def test_more_evidence_for_a_ctc_never_takes_the_call_away(first, second):
    def p_of(p_ctc):
        return [p_ctc, (1 - p_ctc) * 0.7, (1 - p_ctc) * 0.3]

    rank = {"leukocyte": 0, "artefact": 0, "indeterminate": 1, "ctc": 2}
    low, high = decide(np.array([p_of(min(first, second)), p_of(max(first, second))]), THRESHOLDS, BALANCED)
    assert low in CALLS
    assert rank[high] >= rank[low] or rank[low] == 1


def test_phenotype_follows_the_markers():
    positive = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, 1]], bool)
    calls = np.array(["ctc", "ctc", "ctc", "ctc", "leukocyte"], object)
    expected = ["epithelial", "hybrid", "mesenchymal", "undetermined", ""]
    assert phenotypes(calls, positive, has_mesenchymal=True).tolist() == expected
    assert set(expected[:4]) == set(PHENOTYPES)


def test_without_a_mesenchymal_marker_no_phenotype_is_claimed():
    positive = np.array([[1, 0], [1, 1]], bool)
    calls = np.array(["ctc", "ctc"], object)
    assert phenotypes(calls, positive, has_mesenchymal=False).tolist() == ["undetermined", "undetermined"]


def test_a_slide_is_called_cell_by_cell():
    called = call([{"ck": 12}, {"cd45": 10, "vim": 0.5}, {"ck": 12, "vim": 8}, {"vim": 9}])
    assert called["call"].tolist() == ["ctc", "leukocyte", "ctc", "ctc"]
    assert called["phenotype"].tolist() == ["epithelial", "", "hybrid", "mesenchymal"]
    np.testing.assert_allclose(called[["p_ctc", "p_leukocyte", "p_artefact"]].sum(axis=1), 1, atol=1e-5)
    assert called["focus"].notna().all()


def test_what_has_no_nucleus_is_an_artefact_however_bright_its_markers():
    slide, labels, cells = slide_with_cells([{"ck": 12}, {"ck": 12}])
    labels[1][labels[1] == 2] = 0
    cells.loc[1, "nucleus_area_um2"] = 0.0
    channels = {short: index for index, short in enumerate(PANEL.shorts)}
    called = call_cells(slide, channels, PANEL, flat_background(4), labels, cells, BrightnessClassifier())
    assert called["call"].tolist() == ["ctc", "artefact"]
    assert called["phenotype"].tolist() == ["epithelial", ""]


def test_calls_go_to_their_own_cells_whatever_the_order_of_rows():
    signals = [{"ck": 12}, {"cd45": 10}, {"ck": 12, "vim": 8}]
    straight, turned = call(signals), call(signals, order=[2, 0, 1])
    pd.testing.assert_frame_equal(turned.sort_values("cell_id"), straight)


@pytest.mark.parametrize("most", [1, 2, 2048])
def test_calls_are_the_same_in_runs_of_any_length_and_in_other_processes(monkeypatch, most):
    signals = [{"ck": 12}, {"cd45": 10}, {"ck": 12, "vim": 8}, {"vim": 9}, {"ck": 2}]
    expected = call(signals)
    monkeypatch.setattr("ctc_imaging.classification.calling.CELLS_A_RUN", most)

    def as_elsewhere(function, items):
        sent = pickle.dumps(function)
        return [pickle.loads(sent)(item) for item in reversed(items)][::-1]

    pd.testing.assert_frame_equal(call(signals, map_runs=as_elsewhere), expected, check_exact=True)


def test_columns_that_are_there_are_neither_changed_nor_lost():
    called = call([{"ck": 12}, {"cd45": 10}])
    assert called["x_px"].tolist() == [60.0, 120.0]
    slide, labels, cells = slide_with_cells([{"ck": 12}])
    cells.attrs["oversized_um2"] = 3.0
    channels = {short: index for index, short in enumerate(PANEL.shorts)}
    called = call_cells(slide, channels, PANEL, flat_background(4), labels, cells, BrightnessClassifier())
    assert called.attrs == cells.attrs
    assert "call" not in cells


def test_no_cells_give_an_empty_table_with_all_columns():
    called = call([{"ck": 12}], order=[])
    assert len(called) == 0
    assert {"p_ctc", "p_leukocyte", "p_artefact", "call", "phenotype", "focus"} <= set(called.columns)


def test_a_cell_with_vimentin_only_needs_a_tumour_marker_where_the_panel_says_so():
    signals = [{"vim": 9}, {"vim": 9, "gpc3": 5}, {"vim": 9, "ck": 9}]
    called = call(signals, TUMOUR_PANEL)
    assert called["call"].tolist() == ["indeterminate", "ctc", "ctc"]
    assert called["phenotype"].tolist() == ["", "mesenchymal", "hybrid"]
    lenient = replace(TUMOUR_PANEL, mesenchymal_needs_tumour_marker=False)
    assert call(signals, lenient)["call"].tolist() == ["ctc"] * 3


def disc_batch(blur_px: float, strength: float) -> CropBatch:
    y, x = np.indices((48, 48)) - 24
    disc = (np.hypot(y, x) <= 9).astype(np.float32)
    roles = np.zeros((1, 4, 48, 48), np.float32)
    roles[0, 0] = strength * ndimage.gaussian_filter(disc, blur_px)
    return CropBatch(np.array([1]), roles, np.ones(4, np.float32), np.stack([disc, disc])[None])


@settings(deadline=None, max_examples=20)
@given(st.floats(0.5, 3), st.floats(0.3, 2), st.floats(5, 500))
def test_focus_falls_with_blur_and_ignores_brightness(blur_px, more_px, strength):
    sharp, blurred = (edge_sharpness(disc_batch(sigma, strength))[0] for sigma in (blur_px, blur_px + more_px))
    assert blurred < sharp
    assert edge_sharpness(disc_batch(blur_px, 10 * strength))[0] == pytest.approx(sharp, rel=1e-4)


def test_focus_is_the_inverse_width_of_the_edge():
    """A Gaussian edge of sigma s has its steepest slope at 1 / (s sqrt(2 pi))."""
    sigma_um = 1.0
    expected = 1 / (sigma_um * np.sqrt(2 * np.pi))
    assert edge_sharpness(disc_batch(sigma_um / 0.5, 30))[0] == pytest.approx(expected, rel=0.25)


def test_focus_of_nothing_is_missing():
    empty = CropBatch(np.array([1]), np.zeros((1, 4, 48, 48)), np.ones(4), np.zeros((1, 2, 48, 48)))
    assert np.isnan(edge_sharpness(empty)[0])


def written(tmp_path, dtype):
    slide, _, cells = slide_with_cells([{"ck": 12}, {"cd45": 10}, {"ck": 3}], dtype=dtype)
    cells["call"] = ["ctc", "leukocyte", "indeterminate"]
    channels = {short: index for index, short in enumerate(PANEL.shorts)}
    write_crops(tmp_path / "crops.zarr", slide, channels, PANEL, cells, flat_background(4), slide_id="S1")
    return zarr.open_group(tmp_path / "crops.zarr", mode="r"), slide


def test_candidates_are_written_as_they_are(tmp_path):
    group, slide = written(tmp_path, np.uint16)
    assert group.metadata.zarr_format == 2
    assert group["cell_id"][:].tolist() == [1, 3]
    assert (group["crops"].shape, group["crops"].dtype) == ((2, 4, 48, 48), np.uint16)
    np.testing.assert_array_equal(group["crops"][0], slide.image[:, 36:84, 36:84])
    attributes = dict(group.attrs)
    assert attributes["channels"] == ["dapi", "ck", "vim", "cd45"]
    assert (attributes["pixel_size_um"], attributes["slide_id"]) == (0.5, "S1")
    np.testing.assert_allclose(attributes["low"], LEVEL)
    np.testing.assert_allclose(attributes["high"], LEVEL + 30 * NOISE)
    assert (attributes["scale"], attributes["offset"]) == ([1.0] * 4, [0.0] * 4)


def test_crops_of_a_float_slide_come_back_by_scale_and_offset(tmp_path):
    group, slide = written(tmp_path, np.float32)
    scale, offset = (np.array(group.attrs[name])[:, None, None] for name in ("scale", "offset"))
    restored = group["crops"][0] * scale + offset
    np.testing.assert_allclose(restored, slide.image[:, 36:84, 36:84], atol=scale.max())


def test_writing_again_gives_the_same_bytes(tmp_path):
    def content(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    written(tmp_path, np.uint16)
    first = content(tmp_path)
    written(tmp_path, np.uint16)
    assert content(tmp_path) == first


def test_no_candidates_make_an_empty_group(tmp_path):
    slide, _, cells = slide_with_cells([{"cd45": 10}])
    channels = {short: index for index, short in enumerate(PANEL.shorts)}
    write_crops(tmp_path / "crops.zarr", slide, channels, PANEL, cells.assign(call="leukocyte"), flat_background(4))
    group = zarr.open_group(tmp_path / "crops.zarr", mode="r")
    assert group["crops"].shape == (0, 4, 48, 48)
    assert group["cell_id"].shape == (0,)
