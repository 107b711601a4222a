"""Distributions of measurements: densities as scipy has them, derivatives, limits where one becomes another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ctc_imaging.recurrence.joint.families import FAMILIES

COUNTS = [name for name, family in FAMILIES.items() if family.counts]
LOG_K, LOGIT = st.floats(-3, 5), st.floats(-6, 4)


def density(name, y, eta, extra):
    """One value at one linear predictor."""
    return FAMILIES[name].density(np.array([[float(y)]]), np.array([[float(eta)]]), np.array(extra, dtype=float))


def extra_of(name, log_k, logit):
    return {"gaussian": [log_k / 3], "poisson": [], "negative-binomial": [log_k]}.get(name, [log_k, logit])


def by_scipy(name, y, eta, extra):
    """The same log density, put together from scipy's."""
    if name == "gaussian":
        return stats.norm.logpdf(y, eta, np.exp(extra[0]))
    if name == "poisson":
        return stats.poisson.logpmf(y, np.exp(eta))
    k = np.exp(extra[0])
    plain = stats.nbinom(k, k / (k + np.exp(eta)))
    if name == "negative-binomial":
        return plain.logpmf(y)
    share = 1 / (1 + np.exp(-extra[1]))
    if name == "hurdle-negative-binomial":
        return np.log(share) if y == 0 else np.log(1 - share) + plain.logpmf(y) - np.log(plain.sf(0))
    return np.log(share * (y == 0) + (1 - share) * plain.pmf(y))


@pytest.mark.parametrize("name", FAMILIES)
@given(y=st.integers(0, 60), eta=st.floats(-3, 4), log_k=LOG_K, logit=LOGIT)
def test_a_density_is_scipys(name, y, eta, log_k, logit):
    extra = extra_of(name, log_k, logit)
    assert density(name, y, eta, extra).log[0, 0] == pytest.approx(by_scipy(name, y, eta, extra), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("name", FAMILIES)
@given(y=st.integers(0, 60), eta=st.floats(-3, 4), log_k=LOG_K, logit=LOGIT)
def test_derivatives_are_those_of_the_density(name, y, eta, log_k, logit):
    extra, step = np.array(extra_of(name, log_k, logit)), 1e-5
    found = density(name, y, eta, extra)
    above, below = density(name, y, eta + step, extra), density(name, y, eta - step, extra)
    scale = {"rel": 1e-5, "abs": 1e-5}
    assert found.d_eta[0, 0] == pytest.approx((above.log - below.log)[0, 0] / (2 * step), **scale)
    assert found.d2_eta[0, 0] == pytest.approx((above.d_eta - below.d_eta)[0, 0] / (2 * step), **scale)
    for place, shift in enumerate(step * np.eye(len(extra))):
        change = (density(name, y, eta, extra + shift).log - density(name, y, eta, extra - shift).log)[0, 0]
        assert found.d_extra[place][0, 0] == pytest.approx(change / (2 * step), **scale)


@pytest.mark.parametrize("name", COUNTS)
@given(eta=st.floats(-4, 2), log_k=st.floats(-1, 5), logit=LOGIT)
def test_chances_of_all_counts_add_up_to_one(name, eta, log_k, logit):
    y = np.arange(4_000.0)[:, None]
    log = FAMILIES[name].density(y, np.full_like(y, eta), np.array(extra_of(name, log_k, logit))).log
    assert np.exp(log).sum() == pytest.approx(1, abs=1e-9)


@given(y=st.integers(0, 40), eta=st.floats(-3, 3), log_k=LOG_K)
def test_without_extra_zeros_it_is_the_negative_binomial(y, eta, log_k):
    none = density("zero-inflated-negative-binomial", y, eta, [log_k, -40.0])
    plain = density("negative-binomial", y, eta, [log_k])
    assert none.log == pytest.approx(plain.log, abs=1e-12)
    assert none.d_eta == pytest.approx(plain.d_eta, abs=1e-12)
    assert none.d_extra[0] == pytest.approx(plain.d_extra[0], abs=1e-12)


@given(y=st.integers(0, 40), eta=st.floats(-3, 3))
def test_without_dispersion_it_is_the_poisson(y, eta):
    bound = FAMILIES["negative-binomial"].bounds[0][1]
    wide, plain = density("negative-binomial", y, eta, [bound]), density("poisson", y, eta, [])
    assert wide.log == pytest.approx(plain.log, abs=0.2)
    closer = density("negative-binomial", y, eta, [np.log(1e7)])
    assert closer.log == pytest.approx(plain.log, abs=2e-4)


@pytest.mark.parametrize("name", COUNTS)
@given(y=st.integers(0, 30), eta=st.floats(-900, 900), log_k=st.floats(-7, 9))
def test_no_chance_is_above_one_however_far_out(name, y, eta, log_k):
    found = density(name, y, eta, extra_of(name, log_k, 0.0))
    everything = [found.log, found.d_eta, found.d2_eta, *found.d_extra]
    assert all(np.isfinite(one).all() for one in everything)
    assert found.log[0, 0] <= 1e-9


@pytest.mark.parametrize("name", FAMILIES)
def test_further_parameters_may_differ_by_node(name):
    rng = np.random.default_rng(1)
    y, eta = np.array([[0.0], [3.0]]), rng.normal(size=(2, 5))
    extra = rng.normal(size=(len(FAMILIES[name].extra), 5))
    together = FAMILIES[name].density(y, eta, extra).log
    for node in range(5):
        one = FAMILIES[name].density(y, eta[:, [node]], extra[:, node]).log
        assert together[:, node] == pytest.approx(one[:, 0], abs=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
@given(seed=st.integers(0, 50), level=st.floats(0.05, 30))
def test_the_first_guess_lies_within_the_bounds(name, seed, level):
    rng = np.random.default_rng(seed)
    y = rng.poisson(level * rng.gamma(1, 1, 40)) * 1.0
    guess = FAMILIES[name].start(y, np.full(40, max(y.mean(), 0.02)))
    assert len(guess) == len(FAMILIES[name].extra)
    for value, (low, high) in zip(guess, FAMILIES[name].bounds, strict=True):
        assert low <= value <= high
