"""Discrimination, error and calibration at a horizon, with censoring weighed out."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.recurrence.fitting import fit_cox
from ctc_imaging.recurrence.net_benefit import EVERYBODY, NOBODY, decision_curve, net_benefit
from ctc_imaging.recurrence.validation import auc, brier, calibration, integrated_brier
from ctc_imaging.recurrence.validation.scores import resampled
from ctc_imaging.recurrence.validation.weights import weigh

TERMS = ["AFP", "Tumorsize", "Vascularinvasion", "Tumormultiplicity", "CXCL17T"]


@pytest.fixture
def resection(shared_data):
    """Time, event and the five covariates' linear predictor of 227 real patients after resection."""
    table = pd.read_csv(shared_data / "hcc_resection/hepatoCellular.csv").dropna(subset=TERMS)
    fit = fit_cox(table, TERMS, stop="RFS", event="Recurrence")
    score = table[TERMS].to_numpy() @ np.asarray(fit.coefficients)
    return score, table["RFS"].to_numpy(float), table["Recurrence"].to_numpy() == 1


def simulated(seed, count=400):
    """Times with a known risk by 1, and independent censoring."""
    rng = np.random.default_rng(seed)
    rate = np.exp(rng.normal(-0.5, 1.0, count))
    event, censored = rng.exponential(1 / rate), rng.exponential(2.0, count)
    return 1 - np.exp(-rate), np.minimum(event, censored), event <= censored, event


def test_events_at_the_horizon_count_as_in_risk_regression_and_scikit_survival(resection):
    assert auc(*resection, horizon=12.0) == pytest.approx(0.7380, abs=5e-5)


def test_events_at_the_horizon_can_be_left_out_as_in_time_roc(resection):
    assert auc(*resection, horizon=12.0, at_horizon=False) == pytest.approx(0.7611, abs=5e-5)


def test_without_censoring_the_scores_are_the_plain_ones():
    risk, _, _, time = simulated(0)
    happened = np.ones(len(time), bool)
    case = time <= 1
    pairs = (risk[case][:, None] > risk[~case]) + 0.5 * (risk[case][:, None] == risk[~case])
    assert auc(risk, time, happened, 1.0) == pytest.approx(pairs.mean())
    assert brier(risk, time, happened, 1.0) == pytest.approx(((case - risk) ** 2).mean())
    expected = case.mean() - (~case).mean() * 0.2 / 0.8
    assert net_benefit(np.ones(len(time), bool), time, happened, 0.2, 1.0) == pytest.approx(expected)


def test_weights_make_up_for_the_censored():
    figures = []
    for seed in range(60):
        risk, time, event, true_time = simulated(seed)
        whole = np.ones(len(time), bool)
        figures.append(
            [figure(risk, time, event, 1.0) - figure(risk, true_time, whole, 1.0) for figure in (auc, brier)]
        )
    error = np.array(figures).mean(axis=0) / (np.array(figures).std(axis=0) / np.sqrt(len(figures)))
    assert np.abs(error).max() < 3


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_auc_knows_only_the_order_and_turns_round_with_it(seed):
    risk, time, event, _ = simulated(seed, 60)
    risk = risk.round(1)
    found = auc(risk, time, event, 0.7)
    assert auc(risk**3 + 1, time, event, 0.7) == pytest.approx(found)
    assert auc(-risk, time, event, 0.7) == pytest.approx(1 - found)
    assert auc(np.full(60, 0.3), time, event, 0.7) == pytest.approx(0.5)


@given(st.integers(0, 10_000), st.floats(0.2, 2.0))
@settings(max_examples=25, deadline=None)
def test_order_of_subjects_and_unit_of_time_do_not_matter(seed, horizon):
    risk, time, event, _ = simulated(seed, 60)
    turned = np.random.default_rng(seed).permutation(60)
    for figure in (auc, brier):
        found = figure(risk, time, event, horizon)
        assert figure(risk[turned], time[turned], event[turned], horizon) == pytest.approx(found, nan_ok=True)
        assert figure(risk, time * 365, event, horizon * 365) == pytest.approx(found, nan_ok=True)


def test_weights_sum_to_about_the_number_of_subjects():
    _, time, event, _ = simulated(3, 5000)
    assert weigh(time, event, 1.0).weight.sum() == pytest.approx(5000, rel=0.02)


def test_the_censored_before_the_horizon_weigh_nothing():
    time, event = np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, False])
    status = weigh(time, event, 2.5)
    assert status.weight.tolist() == pytest.approx([1.0, 0.0, 1.5, 1.5])
    assert status.case.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_the_integrated_score_is_the_mean_over_horizons():
    risk, time, event, _ = simulated(1)
    risks, horizons = np.column_stack([risk, risk]), np.array([0.5, 1.0])
    ends = [brier(risk, time, event, horizon) for horizon in horizons]
    assert integrated_brier(risks, time, event, horizons) == pytest.approx(np.mean(ends))


def test_true_risks_are_calibrated_and_exaggerated_ones_are_not():
    risk, time, event, _ = simulated(5, 3000)
    right = calibration(risk, time, event, 1.0)
    assert right.ratio.low < 1 < right.ratio.high
    assert right.slope.low < 1 < right.slope.high
    assert (
        (right.groups["low"] <= right.groups["predicted"]) & (right.groups["predicted"] <= right.groups["high"])
    ).sum() >= 4
    odds = (risk / (1 - risk)) ** 2
    assert calibration(odds / (1 + odds), time, event, 1.0).slope.high < 0.7
    assert calibration(risk / 2, time, event, 1.0).ratio.value == pytest.approx(2 * right.ratio.value)


def test_groups_keep_equal_risks_together():
    _, time, event, _ = simulated(6, 100)
    assert calibration(np.full(100, 0.4), time, event, 1.0).groups["n"].tolist() == [100]


def test_limits_hold_the_figure_and_repeat_themselves():
    risk, time, event, _ = simulated(7)
    first, second = (resampled(lambda i: auc(risk[i], time[i], event[i], 1.0), len(risk)) for _ in range(2))
    assert first == second
    assert first.low < first.value < first.high


def test_nobody_is_treated_at_no_benefit_and_a_good_model_beats_both():
    risk, time, event, _ = simulated(8, 2000)
    curve = decision_curve({"model": risk}, time, event, [0.2, 0.5], 1.0).set_index(["model", "threshold"])["value"]
    assert curve[NOBODY].tolist() == [0.0, 0.0]
    assert curve["model", 0.5] > max(curve[EVERYBODY, 0.5], 0.0)
    assert curve["model", 0.2] > curve[EVERYBODY, 0.2]


def test_one_who_cannot_be_parted_has_no_auc():
    assert np.isnan(auc(np.array([0.1, 0.2]), np.array([1.0, 1.0]), np.array([True, True]), 2.0))
