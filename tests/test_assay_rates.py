"""Error rates from controls: known answers where controls agree, wider where tubes differ or controls are few."""

from __future__ import annotations

import json
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nbinom, poisson

from ctc_imaging.assay import (
    FalseCalls,
    Recovery,
    estimate_false_calls,
    estimate_recovery,
    model_error_rates,
    pool_recovery,
)
from ctc_imaging.batch_quality.controls import recovery_limits

SOURCE = {"ctc": 200, "leukocytes": 36_000, "sensitivity": {"value": 0.985}, "false_ctc": 2}


def describe(**metrics):
    return {"training": {"data": "simulated slides only"}, "metrics": metrics}


# --- false calls


def test_false_calls_are_negative_binomial_and_poisson_where_the_rate_is_known():
    count = np.arange(-1, 30)
    known, unsure = FalseCalls(5e-5), FalseCalls(5e-5, 2.5)
    np.testing.assert_allclose(known.at_most(count, 75_000), poisson.cdf(count, 3.75), atol=1e-12)
    expected = nbinom.cdf(count, 2.5, 2.5 / (2.5 + 3.75))
    np.testing.assert_allclose(unsure.at_most(count, 75_000), expected, atol=1e-12)
    assert FalseCalls(0.0, 2.5).at_most(0, 75_000) == 1


def test_the_rate_is_that_of_all_blanks_together():
    rate = estimate_false_calls([0, 3, 1], [200_000, 500_000, 300_000], "here")
    assert rate is not None
    assert rate.per_leukocyte == pytest.approx(4.5e-6)
    assert rate.source == "here"
    assert 1 < rate.shape < 4.5


def test_blanks_without_a_leukocyte_say_nothing():
    assert estimate_false_calls([5, 0], [0, 0]) is None
    assert estimate_false_calls([], []) is None
    with_empty = estimate_false_calls([5, 1], [0, 100_000])
    assert with_empty == estimate_false_calls([1], [100_000])


def test_blanks_that_differ_more_than_chance_leave_the_next_one_less_certain():
    alike = estimate_false_calls([20] * 10, [200_000] * 10)
    unlike = estimate_false_calls([40, 0] * 5, [200_000] * 10)
    assert alike is not None
    assert unlike is not None
    assert alike.per_leukocyte == unlike.per_leukocyte
    assert unlike.shape < 1 < 40 < alike.shape


@given(false=st.lists(st.integers(0, 40), min_size=1, max_size=8), times=st.integers(2, 5))
def test_more_of_the_same_blanks_are_never_less_certain(false, times):
    once = estimate_false_calls(false, [50_000] * len(false))
    often = estimate_false_calls(false * times, [50_000] * len(false) * times)
    assert once is not None
    assert often is not None
    assert 0 < once.shape < inf
    assert often.per_leukocyte <= once.per_leukocyte


# --- recovery


def test_points_of_the_recovery_have_its_moments():
    for share, precision in ((0.81, 400.0), (0.8, 6.0), (0.5, 2.0), (0.99, 30.0), (0.3, 1.0)):
        points, weights = Recovery(share, precision).points()
        assert ((points > 0) & (points < 1)).all()
        assert weights.sum() == pytest.approx(1)
        assert (weights * points).sum() == pytest.approx(share)
        variance = share * (1 - share) / (precision + 1)
        assert (weights * (points - share) ** 2).sum() == pytest.approx(variance)
    assert Recovery(0.81).points() == (np.array([0.81]), np.ones(1))


def test_tubes_that_agree_have_clopper_and_pearsons_limits():
    # Clopper and Pearson 1934: 81 of 100.
    pooled = pool_recovery([40, 41], [50, 50])
    assert pooled is not None
    assert (pooled.tubes, pooled.share, pooled.uneven, pooled.passed) == (2, 0.81, False, True)
    assert (pooled.low, pooled.high) == pytest.approx((0.7193, 0.8816), abs=1e-4)


@given(found=st.integers(0, 60), more=st.integers(0, 60), share=st.floats(0.3, 1))
def test_one_tube_has_the_limits_of_the_controls_table(found, more, share):
    if found + more == 0 or found > (found + more) * share:
        return
    pooled = pool_recovery([found], [found + more], [share])
    assert pooled is not None
    assert (pooled.low, pooled.high) == pytest.approx(recovery_limits(found, found + more, share), abs=1e-9)


def test_tubes_that_differ_more_than_chance_have_wider_limits():
    alike, unlike = pool_recovery([79] * 5, [100] * 5), pool_recovery([95, 60, 80, 70, 90], [100] * 5)
    assert alike is not None
    assert unlike is not None
    assert not alike.uneven
    assert unlike.uneven
    assert unlike.share == alike.share
    assert unlike.low < alike.low < alike.high < unlike.high


def test_a_batch_that_loses_more_than_it_finds_fails():
    pooled = pool_recovery([8] * 5, [20] * 5)
    assert pooled is not None
    assert pooled.high == pytest.approx(0.5028, abs=1e-4)
    assert pooled.passed
    worse = pool_recovery([7] * 5, [20] * 5)
    assert worse is not None
    assert not worse.passed


def test_without_spiked_cells_recovery_is_not_known():
    assert pool_recovery([], []) is None
    assert pool_recovery([3], [0]) is None
    assert estimate_recovery([3], [0]) is None


def test_the_next_tube_is_less_certain_than_the_mean_and_surer_with_more_tubes():
    one, ten = estimate_recovery([81], [100]), estimate_recovery([81] * 10, [100] * 10)
    assert one is not None
    assert ten is not None
    assert one.share == pytest.approx(ten.share, abs=0.005)
    assert one.precision < 100 < ten.precision < 1000
    assert estimate_recovery([25], [20]) == estimate_recovery([20], [20])


@given(found=st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_any_tubes_give_a_share_between_none_and_all(found):
    recovery = estimate_recovery(found, [20] * len(found))
    assert recovery is not None
    assert 0 < recovery.share < 1
    assert recovery.precision > 0
    points, weights = recovery.points()
    assert np.isfinite(points).all()
    assert np.isfinite(weights).all()


# --- the model's own figures


def test_a_models_figures_are_kept_by_source_without_names():
    rates = model_error_rates(describe(**SOURCE, by_source={"standard": SOURCE, "St Mary's": {**SOURCE, "ctc": 100}}))
    assert rates is not None
    assert rates["simulated"] is True
    first = {"ctc": 200, "found": 197, "leukocytes": 36_000, "false_ctc": 2}
    assert rates["sources"] == [first, {**first, "ctc": 100, "found": 98}]
    assert "Mary" not in json.dumps(rates)
    assert model_error_rates(describe(**SOURCE))["sources"] == [first]


@pytest.mark.parametrize(
    "description", [{}, {"training": {}}, describe(), describe(ctc=3), {"metrics": SOURCE}, describe(by_source=[1])]
)
def test_a_model_that_tells_nothing_gives_no_rates(description):
    assert model_error_rates(description) is None


def test_a_model_of_real_slides_isnt_said_to_be_of_simulated_ones():
    described = {"training": {"data": "reviewed runs of two sites"}, "metrics": SOURCE}
    assert model_error_rates(described)["simulated"] is False
