"""Calibration: temperature, rarity, prediction sets and thresholds keep what they promise on cells not seen before."""

from __future__ import annotations

import numpy as np
import pytest
from crepes import ConformalClassifier
from ctc_training.calibrate import (
    PREVALENCE,
    conformal_sets,
    ctc_threshold,
    fit_calibration,
    fit_positivity,
    threshold_for,
)
from ctc_training.evaluate import coverage_of, expected_calibration_error
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.classification.calling import prediction_sets
from ctc_imaging.classification.model import Thresholds
from ctc_imaging.classification.rarity import BALANCED, RARE, at_prevalence


def cells(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of three equally common classes that overlap, with the probabilities that are true of them."""
    rng = np.random.default_rng(seed)
    target = rng.integers(3, size=count)
    middle = np.array([[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.5]])
    place = middle[target] + rng.normal(size=(count, 2))
    density = np.exp(-0.5 * ((place[:, None] - middle) ** 2).sum(axis=2))
    return density / density.sum(axis=1, keepdims=True), target


def test_calibration_recovers_a_known_temperature_and_the_prevalence():
    p, target = cells(60_000, 0)
    found = fit_calibration(2.5 * np.log(p), target)
    assert found.temperature == pytest.approx(2.5, rel=0.05)
    balanced = at_prevalence(found.probabilities(2.5 * np.log(p)), found.prevalence, BALANCED)
    assert expected_calibration_error(balanced, target) < 0.01
    assert found.prevalence == PREVALENCE


@pytest.mark.parametrize("coverage", [0.9, 0.95, 0.99])
def test_sets_hold_the_class_of_as_many_new_cells_of_each_class_as_was_chosen(coverage):
    p, target = cells(30_000, 1)
    thresholds = Thresholds(0.9, conformal_sets(p, target, coverage), coverage)
    new_p, new_target = cells(30_000, 2)
    for share in coverage_of(prediction_sets(new_p, thresholds, BALANCED), new_target).values():
        assert share == pytest.approx(coverage, abs=0.01)


def test_sets_are_those_of_the_library():
    p, target = cells(2_000, 3)
    thresholds = Thresholds(0.9, conformal_sets(p, target, 0.95), 0.95)
    new_p, _ = cells(500, 4)
    theirs = []
    for index in range(3):
        peer = ConformalClassifier()
        peer.fit(1 - p[target == index, index])
        theirs.append(peer.predict_set(1 - new_p[:, [index]], confidence=0.95, smoothing=False)[:, 0] == 1)
    assert (prediction_sets(new_p, thresholds, BALANCED) == np.stack(theirs, axis=1)).mean() > 0.999


def test_of_a_handful_of_cells_no_class_can_be_denied():
    p, target = cells(30, 5)
    assert conformal_sets(p, target, 0.99) == (0.0, 0.0, 0.0)


def test_a_call_is_likelier_than_not_where_ctcs_are_rare():
    p_ctc = np.linspace(0, 0.5, 1000)
    threshold = ctc_threshold(p_ctc, np.ones(1000, int), 100_000)
    p = np.array([[threshold, 1 - threshold, 0.0]])
    assert at_prevalence(p, PREVALENCE, RARE)[0, 0] == pytest.approx(0.5, abs=1e-3)


def test_leukocytes_that_look_like_ctcs_raise_the_threshold():
    p_ctc, target = np.concatenate([np.full(5, 0.999), np.zeros(1000)]), np.ones(1005, int)
    assert ctc_threshold(p_ctc, target, 100_000) > 0.999


@given(st.lists(st.floats(0, 1), max_size=60), st.integers(1, 5))
def test_a_threshold_lets_no_more_pass_than_allowed(values, count):
    false = np.sort(np.array(values, float))[::-1]
    threshold = threshold_for(false, count, 100_000)
    assert (false >= threshold).sum() <= count or threshold == 1.0


def test_the_chance_of_being_positive_is_true_also_at_the_border():
    rng = np.random.default_rng(6)
    snr = np.exp(rng.uniform(np.log(0.5), np.log(30), 20_000))
    logit = 3 * (np.log(snr / 3) + rng.normal(0, 0.3, snr.size)) - 2
    scale = fit_positivity(logit, snr)
    p = scale.probability(logit, np.full(snr.size, 1.0))
    border = (snr > 2) & (snr < 4.5)
    for low in (0.2, 0.4, 0.6):
        told = border & (p >= low) & (p < low + 0.2)
        assert (snr[told] >= 3).mean() == pytest.approx(p[told].mean(), abs=0.1)


def test_markers_that_part_perfectly_still_give_a_finite_scale():
    snr = np.repeat([0.5, 12.0], 50)
    scale = fit_positivity(np.log(snr / 3), snr)
    assert np.isfinite([scale.network, scale.bias]).all()
    assert scale.network > 0


def test_calibration_error_weighs_the_classes_alike():
    # Nine of ten leukocytes at 0.9 are right; the one CTC, told with certainty, is too.
    p = np.array([[0.05, 0.9, 0.05]] * 10 + [[1.0, 0.0, 0.0]])
    target = np.array([1] * 9 + [2] + [0])
    # Weights a third each: leukocytes and the artefact share the bin at 0.9, where 1 of 2 parts is right.
    assert expected_calibration_error(p, target) == pytest.approx(2 / 3 * 0.4, abs=1e-6)
