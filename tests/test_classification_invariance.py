"""The shipped model: no single cue decides a call, least of all size; the markers' roles do."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ctc_imaging.classification import CropBatch, load_model
from ctc_imaging.classification.calling import decide

NUCLEUS, EPITHELIAL, MESENCHYMAL, LEUKOCYTE = range(4)
# Beside leukocytes of 9.4 um, CTCs of four cancers have medians of 7.5 to 12.4 um (PMC7782084).
SMALLEST, LARGEST = 7.5 / 9.4, 12.4 / 9.4


@pytest.fixture(scope="module")
def model():
    return load_model("default")


@pytest.fixture(scope="module")
def batch() -> CropBatch:
    """Single cells of a simulated slide that are what they seem: 40 CTCs, 160 leukocytes."""
    from ctc_training.dataset import Recipe, simulated_crops

    crops = simulated_crops([Recipe("standard", seed=991, ctc=40, leukocytes=160, shape_px=(900, 900))])
    clear = np.flatnonzero(np.isin(crops.kind, ["ctc", "leukocyte"]) & (np.nan_to_num(crops.snr).max(axis=1) > 6))
    return CropBatch(
        clear,
        crops.roles[clear].astype(np.float32),
        crops.present[0],
        crops.masks[clear].astype(np.float32) / 255,
    )


def called(model, batch):
    return decide(model.predict(batch)[0], model.thresholds, model.calibration.prevalence)


def resized(batch: CropBatch, factor: float) -> CropBatch:
    matrix = np.array([[factor, 0, 23.5 * (1 - factor)], [0, factor, 23.5 * (1 - factor)]])

    def scale(plane):
        return cv2.warpAffine(plane, matrix, (48, 48), flags=cv2.INTER_LINEAR)

    def apply(planes):
        return np.stack([[scale(plane) for plane in crop] for crop in planes])

    return replace(batch, roles=apply(batch.roles), masks=apply(batch.masks))


@pytest.mark.parametrize("factor", [SMALLEST, 1.0, LARGEST])
def test_size_within_the_published_overlap_flips_no_call(model, batch, factor):
    before, after = called(model, batch), called(model, resized(batch, factor))
    assert (before == "ctc").sum() >= 30
    assert not ((before == "ctc") & (after == "leukocyte")).any()
    assert not ((before == "leukocyte") & (after == "ctc")).any()
    assert (before == after).mean() > 0.97


def test_swapped_roles_flip_the_calls(model, batch):
    before = called(model, batch)
    swapped = batch.roles.copy()
    swapped[:, [EPITHELIAL, LEUKOCYTE]] = swapped[:, [LEUKOCYTE, EPITHELIAL]]
    after = called(model, replace(batch, roles=swapped))
    strong = batch.roles[:, EPITHELIAL].max((1, 2)) > 10
    assert (after[(before == "ctc") & strong] != "ctc").mean() > 0.9
    assert (after[before == "leukocyte"] != "leukocyte").mean() > 0.9


def test_a_failed_stain_is_told_and_not_read_as_negative(model, batch):
    """Without vimentin in the panel a CTC with keratin stays one, and no leukocyte becomes one."""
    roles = batch.roles.copy()
    roles[:, MESENCHYMAL] = 0
    before = called(model, batch)
    after = called(model, replace(batch, roles=roles, present=np.array([1, 1, 0, 1], np.float32)))
    keratin = batch.roles[:, EPITHELIAL].max((1, 2)) > 10
    assert (after[(before == "ctc") & keratin] == "ctc").mean() > 0.95
    assert not (after[before == "leukocyte"] == "ctc").any()
