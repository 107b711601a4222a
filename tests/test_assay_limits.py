"""Limits of a count: published answers where the rates are known, and the truth held where controls tell them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm, poisson

from ctc_imaging.assay import (
    FalseCalls,
    Recovery,
    estimate_false_calls,
    limit_of_blank,
    limit_of_detection,
    total_limits,
)
from ctc_imaging.counting import poisson_limits

NONE, ALL = FalseCalls(0.0), Recovery(1.0)
RATES = st.tuples(
    st.builds(FalseCalls, st.floats(0, 5e-4), st.floats(0.3, 100)),
    st.builds(Recovery, st.floats(0.2, 0.98), st.floats(1, 500)),
)


# --- total limits


def test_a_perfect_assay_has_garwoods_limits():
    counts = np.arange(400)
    low, high = total_limits(counts, 5.0, 75_000, NONE, ALL)
    exact = poisson_limits(counts)
    np.testing.assert_allclose(low, exact[0] / 5, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(high, exact[1] / 5, rtol=1e-7)


def test_a_known_recovery_divides_and_known_false_calls_take_away():
    low, high = total_limits([3, 8, 30], [5.0, 7.5, 5.0], 75_000, FalseCalls(2 / 75_000), Recovery(0.8))
    exact = poisson_limits([3, 8, 30])[0]
    volumes = np.array([5.0, 7.5, 5.0])
    np.testing.assert_allclose(low, np.maximum(exact - 2, 0) / 0.8 / volumes, atol=1e-9)
    # Read 2002: the chance of so few calls, of that without a CTC.
    mean = high * volumes * 0.8 + 2
    np.testing.assert_allclose(poisson.cdf([3, 8, 30], mean) / poisson.cdf([3, 8, 30], 2), 0.025, rtol=1e-6)


def test_no_call_has_the_same_upper_limit_whatever_false_calls_were_to_be_expected():
    for false_calls in (NONE, FalseCalls(1e-4), FalseCalls(1e-4, 0.5), FalseCalls(0.05)):
        low, high = total_limits(0, 5.0, 75_000, false_calls, ALL)
        assert (float(low), float(high)) == pytest.approx((0, 3.6889 / 5), abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(rates=RATES, leukocytes=st.integers(0, 200_000))
def test_limits_rise_with_the_count_and_hold_sensible_values(rates, leukocytes):
    low, high = total_limits(np.arange(60), 5.0, leukocytes, *rates)
    assert (low >= 0).all()
    assert low[0] == 0
    assert (np.diff(low) >= -1e-7).all()
    assert (np.diff(high) > -1e-7).all()
    assert (low < high).all()


@settings(max_examples=25, deadline=None)
@given(rates=RATES)
def test_each_sample_is_worked_out_by_itself(rates):
    counts, volumes, cells = np.array([7, 0, 40, 1]), np.array([5.0, 2.0, 7.5, 1.0]), np.array([9e4, 0, 4e5, 100])
    together = np.array(total_limits(counts, volumes, cells, *rates))
    alone = np.column_stack([total_limits(*one, *rates) for one in zip(counts, volumes, cells, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-9)


def test_less_certain_rates_make_wider_limits():
    known = total_limits(10, 5.0, 75_000, FalseCalls(4e-5), Recovery(0.8))
    unsure = total_limits(10, 5.0, 75_000, FalseCalls(4e-5, 1.0), Recovery(0.8, 10))
    assert unsure[0] < known[0] < known[1] < unsure[1]


def test_missing_counts_and_volumes_have_no_limits():
    low, high = total_limits([np.nan, 3, 3], [5.0, 0.0, 5.0], 1000, NONE, ALL)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("on", "off", "ratio", "z"),
    [(4, 5, 5.0, 1.66), (9, 17.83, 4.69, 1.82), (50, 55, 2.0, 2.93), (67, 15, 0.5, 2.89), (200, 10, 0.1, 2.20)],
)
def test_whether_a_count_is_more_than_false_calls_agrees_with_published_tests(on, off, ratio, z):
    """Table 1 of Cousins, Linnemann and Tucker, Nucl Instrum Methods A 2008;595:480: `off` calls in `ratio` blanks."""
    chance = 1 - FalseCalls((off + 1) / ratio, off + 1).at_most(on - 1, 1)
    assert norm.isf(chance) == pytest.approx(z, abs=0.006)
    low, _ = total_limits(on, 1.0, 1, FalseCalls((off + 1) / ratio, off + 1), ALL)
    assert (low > 0) == (chance < 0.025)


@pytest.mark.parametrize("burden", [0, 1, 3, 10, 50])
def test_limits_from_controls_hold_the_truth(burden):
    """Exact over the samples' counts, for controls drawn anew (simulated): ten spiked tubes of 100, 20 blanks."""
    from ctc_imaging.assay import estimate_recovery

    rng, held, width, widest = np.random.default_rng(5), [], [], []
    counts = np.arange(max(12, 2 * burden + 20))
    chance = poisson.pmf(counts, 0.81 * burden + 0.075)
    for _ in range(40):
        false = estimate_false_calls(rng.poisson(0.1, 20), [100_000] * 20)
        recovery = estimate_recovery(rng.binomial(100, 0.81, 10), [100] * 10)
        low, high = total_limits(counts, 1.0, 75_000, false, recovery)
        oracle = total_limits(counts, 1.0, 75_000, FalseCalls(1e-6), Recovery(0.81))
        held.append(chance[(low <= burden) & (burden <= high)].sum())
        width.append((chance * (high - low)).sum())
        widest.append((chance * (oracle[1] - oracle[0])).sum())
    assert np.mean(held) >= 0.94
    assert np.mean(width) <= 1.15 * np.mean(widest)


# --- limits of blank and detection


def test_the_limit_of_blank_of_a_known_rate_is_the_poisson_quantile():
    # By hand: 1 - exp(-m) = 5 % at m = 0.0513, 1 - exp(-m)(1 + m) = 5 % at 0.3554, then 0.8177, 1.3663 and 1.9701.
    edges = np.array([0.0512, 0.0514, 0.3553, 0.3555, 0.8176, 0.8178, 1.3662, 1.3664, 1.9700, 1.9703])
    assert limit_of_blank(edges * 1e5, FalseCalls(1e-5)).tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_the_limit_of_detection_of_a_known_rate_is_the_exact_poisson_one():
    # Garwood 1936: one-sided upper 95 % limits of 0 to 4.
    found = limit_of_detection(np.arange(5), np.zeros(5), NONE, ALL)
    np.testing.assert_allclose(found, [2.9957, 4.7439, 6.2958, 7.7537, 9.1535], atol=1e-4)
    np.testing.assert_allclose(limit_of_detection(np.arange(5), np.zeros(5), NONE, Recovery(0.8)), found / 0.8)


def test_false_calls_of_the_sample_itself_help_to_exceed_the_limit_of_blank():
    blank = limit_of_blank([75_000], FalseCalls(2 / 75_000))
    assert blank.tolist() == [5]
    found = limit_of_detection(blank, [75_000], FalseCalls(2 / 75_000), ALL)
    assert poisson.sf(5, found + 2) == pytest.approx(0.95)


@given(rates=RATES, leukocytes=st.integers(1, 200_000))
def test_the_limits_are_what_ep17_defines(rates, leukocytes):
    false_calls, recovery = rates
    blank = limit_of_blank([leukocytes], false_calls)
    assert false_calls.at_most(blank, leukocytes)[0] >= 0.95
    assert blank[0] == 0 or false_calls.at_most(blank - 1, leukocytes)[0] < 0.95
    assert limit_of_blank([2 * leukocytes], false_calls)[0] >= blank[0]
    detection = limit_of_detection(blank, [leukocytes], false_calls, recovery)
    assert detection[0] > 0
    assert limit_of_detection(blank + 1, [leukocytes], false_calls, recovery)[0] > detection[0]


@pytest.mark.parametrize("mean", [0.01, 0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("blanks", [2, 20])
def test_further_blanks_seldom_exceed_the_limit_that_blanks_gave(mean, blanks):
    """Over all that blanks may give: the limit is one for a further sample, so few blanks don't make it too low."""
    total = np.arange(int(blanks * mean + 10 * np.sqrt(blanks * mean) + 20))
    exceeded = 0.0
    for count, chance in zip(total, poisson.pmf(total, blanks * mean), strict=True):
        # Calls spread over the blanks as evenly as they can be.
        each = count // blanks + (np.arange(blanks) < count % blanks)
        limit = limit_of_blank([1], estimate_false_calls(each, np.ones(blanks)))
        exceeded += chance * poisson.sf(limit[0], mean)
    assert exceeded <= 0.05


def test_few_blanks_have_a_higher_limit_than_many():
    few = estimate_false_calls([0, 0], [75_000] * 2)
    many = estimate_false_calls([0] * 20, [75_000] * 20)
    assert limit_of_blank([75_000], few) > limit_of_blank([75_000], many)


def test_a_binomial_recovery_of_counted_cells_is_within_the_limit_of_detection():
    """Cells counted into a tube vary less than a patient's, so as many are detected more often still."""
    detection = limit_of_detection([0], [0], NONE, Recovery(0.8))[0]
    assert binom.sf(0, int(np.ceil(detection)), 0.8) > 0.95
