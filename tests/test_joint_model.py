"""The joint model against known answers, brute force and its own invariants."""

import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from ctc_imaging.errors import ConfigError, StatisticsError
from ctc_imaging.recurrence.follow_up import FollowUp, follow_up_of_tables
from ctc_imaging.recurrence.joint import JointPredictor, JointSpec, MarkerSpec, fit_joint, predict_patient
from ctc_imaging.recurrence.joint.design import make_design
from ctc_imaging.recurrence.joint.people import People
from ctc_imaging.recurrence.joint.families import FAMILIES
from ctc_imaging.recurrence.joint.fit import make_layout
from ctc_imaging.recurrence.joint.likelihood import Likelihood
from ctc_imaging.recurrence.joint.prediction import updates

COUNTS = [name for name in FAMILIES if name != "gaussian"]
KNOTS = (6.22714386, 11.07857243, 12.530001, 13.930001, 15.970001, 17.800001)
AIDS = JointSpec((MarkerSpec("CD4 ~ obstime + obstime:drug"),), "drug")


@pytest.fixture
def aids(shared_data):
    """CD4 counts (square root) and death of 467 patients."""
    tables = (shared_data / "aids" / name for name in ("aids_long.csv", "aids_id.csv"))
    return follow_up_of_tables(*tables, id="patient", time="obstime", event_time="Time", event="death")


def cohort(count=60, seed=0, family="negative-binomial", association=0.5):
    """Counts and an event that depends on their log rate."""
    rng = np.random.default_rng(seed)
    level, x = rng.normal(0, 0.8, count), rng.integers(0, 2, count) * 1.0
    time = rng.exponential(np.exp(-association * level - 0.5 * x - 0.2)) * 2
    censored = rng.uniform(1, 4, count)
    end = np.minimum(time, censored).clip(0.05)
    visits = np.array([0.02, 0.3, 0.8, 1.5])
    seen = visits < end[:, None]
    volume = rng.choice([0.5, 1.0], seen.shape)
    mean = np.exp(level[:, None] + 0.4) * volume
    y = (
        rng.poisson(mean * rng.gamma(2, 0.5, seen.shape))
        if family in COUNTS
        else level[:, None] + rng.normal(0, 0.5, seen.shape)
    )
    subject = np.broadcast_to(np.arange(count)[:, None], seen.shape)[seen]
    rows = {"id": subject, "t": np.broadcast_to(visits, seen.shape)[seen], "y": y[seen] * 1.0, "ml": volume[seen]}
    events = pd.DataFrame({"id": np.arange(count), "end": end, "event": time <= censored, "x": x})
    return FollowUp(pd.DataFrame(rows), events, "id", "t", "end", "event")


def spec_of(family, effects=("intercept",), **more):
    return JointSpec((MarkerSpec("y ~ t", family, effects, "ml" if family in COUNTS else None),), "x", **more)


def likelihood_of(spec, follow_up):
    design, usable, _ = make_design(spec, follow_up)
    return Likelihood(make_layout(design), design.rows(People(usable)))


# Known answers


def test_aids_with_a_weibull_hazard(aids):
    model = fit_joint(AIDS, aids)
    assert model.converged
    assert model.log_likelihood == pytest.approx(-4327.386878, abs=1e-3)
    known = {
        "association:value": (-0.280666, 0.035653),
        "event:drug[T.ddI]": (0.341753, 0.156665),
        "long:Intercept": (7.191926, model.table.loc["long:Intercept", "se"]),
        "residual:sd": (1.738622, model.table.loc["residual:sd", "se"]),
    }
    for name, (estimate, error) in known.items():
        row = model.table.loc[name]
        assert row["estimate"] == pytest.approx(estimate, abs=0.02 * error), name
        assert row["se"] == pytest.approx(error, rel=0.02), name


def test_aids_with_a_piecewise_constant_hazard(aids):
    model = fit_joint(replace(AIDS, baseline="piecewise", knots=KNOTS), aids)
    assert model.log_likelihood == pytest.approx(-4328.257341, abs=1e-3)
    known = {
        "association:value": (-0.287847, 0.035909),
        "event:drug[T.ddI]": (0.334131, 0.156493),
        "long:Intercept": (7.203448, 0.2218),
    }
    for name, (estimate, error) in known.items():
        row = model.table.loc[name]
        assert row["estimate"] == pytest.approx(estimate, abs=0.02 * error), name
        assert row["se"] == pytest.approx(error, rel=0.02), name


def test_aids_integrated_over_time_without_error_is_a_hundredth_above_the_usual_rule(aids):
    assert fit_joint(replace(AIDS, time_points=40), aids).log_likelihood == pytest.approx(-4327.3778, abs=1e-3)


# Brute force: the integral over the random effects on a dense grid, from the densities as they are written down


def brute_force(spec, follow_up, theta):
    """Log-likelihood of each subject by the trapezium rule over a wide grid of random effects."""
    design, usable, _ = make_design(spec, follow_up)
    layout, rows = make_layout(design), design.rows(People(usable))
    parts = layout.unpack(theta)
    size = sum(layout.effects)
    axis = np.linspace(-9, 9, 2401 if size == 1 else 181)
    grid = np.array(list(product(axis, repeat=size))) @ np.linalg.cholesky(parts.covariance).T
    step = (axis[1] - axis[0]) ** size * np.prod(np.diag(np.linalg.cholesky(parts.covariance)))
    log = np.tile(multivariate_normal(np.zeros(size), parts.covariance).logpdf(grid), (rows.count, 1))
    marker = rows.markers[0]
    for row, subject in enumerate(marker.subject):
        eta = marker.offset[row] + marker.terms[row] @ parts.terms[0] + grid @ marker.random[row]
        log[subject] += FAMILIES[spec.markers[0].family].density(marker.y[row, None], eta, parts.extra[0]).log
    for hazard, sign in ((rows.cumulative, -1), (rows.event, 1)):
        for row, subject in enumerate(hazard.subject):
            rate = hazard.fixed[row] @ parts.fixed
            for strength, (_, terms, functions) in zip(parts.association, hazard.associated, strict=True):
                rate = rate + strength * (terms[row] @ parts.terms[0] + grid @ functions[row])
            log[subject] += rate if sign > 0 else -np.exp(rate + hazard.log_weight[row])
    return np.log(np.exp(log).sum(axis=1) * step)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"association": ("area",), "baseline": "spline"},
        {"association": ("slope", "value"), "baseline": "piecewise"},
    ],
)
def test_the_likelihood_equals_brute_force(family, more):
    effects = ("intercept", "slope") if "slope" in more.get("association", ()) else ("intercept",)
    spec, follow_up = spec_of(family, effects, **more), cohort(8, 3, family)
    likelihood = likelihood_of(spec, follow_up)
    rng = np.random.default_rng(1)
    theta = rng.normal(0, 0.3, likelihood.layout.size)
    found, _ = likelihood(theta, 31)
    assert found == pytest.approx(brute_force(spec, follow_up, theta), abs=2e-5)


@pytest.mark.parametrize("family", list(FAMILIES))
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_gradient_is_the_likelihoods(family, seed):
    spec = spec_of(family, ("intercept", "slope"), association=("value", "random"))
    likelihood = likelihood_of(spec, cohort(10, 3, family))
    theta = np.random.default_rng(seed).normal(0, 0.3, likelihood.layout.size)
    _, scores = likelihood(theta, 21)
    for place in range(len(theta)):
        shift = 1e-5 * np.eye(len(theta))[place]
        numeric = (likelihood(theta + shift, 21)[0] - likelihood(theta - shift, 21)[0]) / 2e-5
        assert scores[:, place] == pytest.approx(numeric, abs=2e-3)


@pytest.mark.parametrize("family", list(FAMILIES))
@settings(max_examples=20, deadline=None)
@given(eta=st.floats(-4, 3), one=st.floats(-1.5, 1.5), two=st.floats(-2, 2), y=st.integers(0, 9))
def test_densities_sum_to_one_and_know_their_slopes(family, eta, one, two, y):
    kind, extra = FAMILIES[family], np.array([one, two])[: len(FAMILIES[family].extra)]
    values = np.array([[float(y)]])
    at = np.array([[eta]])
    found = kind.density(values, at, extra)
    step = 1e-6
    before, after = (kind.density(values, at + sign * step, extra) for sign in (-1, 1))
    assert (after.log - before.log) / (2 * step) == pytest.approx(found.d_eta, abs=1e-4, rel=1e-4)
    assert (after.d_eta - before.d_eta) / (2 * step) == pytest.approx(found.d2_eta, abs=1e-4, rel=1e-4)
    if kind.counts:
        every = kind.density(np.arange(20_000.0)[:, None], np.full((20_000, 1), eta), extra)
        assert np.exp(every.log).sum() == pytest.approx(1, abs=2e-3)


# Invariants


def test_the_unit_of_time_changes_nothing_but_the_units():
    follow_up = cohort(150, 5)
    long, events = (
        follow_up.long.assign(t=follow_up.long["t"] * 365),
        follow_up.events.assign(end=follow_up.events["end"] * 365),
    )
    days = replace(follow_up, long=long, events=events)
    first, second = (fit_joint(spec_of("negative-binomial", ("intercept",)), one) for one in (follow_up, days))
    assert second.log_likelihood == pytest.approx(first.log_likelihood - first.events * np.log(365), abs=1e-4)
    for name in ("association:value", "event:x", "residual:k", "baseline:shape", "random:sd(intercept)"):
        assert second.table.loc[name, "estimate"] == pytest.approx(first.table.loc[name, "estimate"], rel=1e-3)
    assert 365 * second.table.loc["long:t", "estimate"] == pytest.approx(
        first.table.loc["long:t", "estimate"], rel=1e-2
    )


def test_the_order_of_subjects_does_not_matter():
    follow_up = cohort(80, 6)
    turned = replace(
        follow_up,
        long=follow_up.long.sample(frac=1, random_state=1),
        events=follow_up.events.sample(frac=1, random_state=2),
    )
    first, second = (fit_joint(spec_of("negative-binomial"), one).log_likelihood for one in (follow_up, turned))
    assert first == pytest.approx(second, abs=1e-6)


def test_families_nest_in_each_other():
    follow_up = cohort(40, 7)
    negative, inflated = (likelihood_of(spec_of(name), follow_up) for name in COUNTS[1:3])
    theta = np.array([0.3, 0.1, 0.5, -0.2, -1.0, 0.1, 0.4, 0.5])
    none = np.insert(theta, 3, -40.0)
    assert inflated(none, 15)[0] == pytest.approx(negative(theta, 15)[0], abs=1e-8)
    poisson = likelihood_of(spec_of("poisson"), follow_up)
    theta[2] = np.log(1e9)
    assert negative(theta, 15)[0] == pytest.approx(poisson(np.delete(theta, 2), 15)[0], abs=1e-4)


def test_without_association_marker_and_hazard_part():
    follow_up = cohort(40, 8)
    likelihood = likelihood_of(spec_of("negative-binomial"), follow_up)
    theta = np.array([0.3, 0.1, 0.5, -0.2, -1.0, 0.1, 0.4, 0.0])
    steeper = theta.copy()
    steeper[-3] += 0.7
    first, second = (likelihood(one, 15)[0] for one in (theta, steeper))
    x, end = follow_up.events["x"].to_numpy(), follow_up.events["end"].to_numpy()
    event = follow_up.events["event"].to_numpy()

    def hazard(one):
        rate, slope, effect = one[4:7]
        total = np.exp(rate + effect * x) * end ** (slope + 1) / (slope + 1)
        return event * (rate + slope * np.log(end) + effect * x) - total

    assert second - first == pytest.approx(hazard(steeper) - hazard(theta), abs=1e-3)


def test_truth_is_found_again():
    truth = {"association:value": 0.5, "event:x": 0.5, "residual:k": 2.0, "random:sd(intercept)": 0.8}
    table = fit_joint(spec_of("negative-binomial"), cohort(2000, 9)).table
    for name, value in truth.items():
        assert abs(table.loc[name, "estimate"] - value) < 3.5 * table.loc[name, "se"], name


def test_several_markers_find_what_each_finds_alone():
    follow_up = cohort(150, 10)
    noise = np.random.default_rng(0).normal(0, 1, len(follow_up.long))
    follow_up = replace(follow_up, long=follow_up.long.assign(z=noise))
    both = JointSpec((spec_of("negative-binomial").markers[0], MarkerSpec("z ~ 1", "gaussian", ("intercept",))), "x")
    model, alone = fit_joint(both, follow_up), fit_joint(spec_of("negative-binomial"), follow_up)
    assert model.converged
    assert model.table.loc["association:y:value", "estimate"] == pytest.approx(
        alone.table.loc["association:value", "estimate"], abs=0.1
    )


def test_subjects_without_a_measurement_stay_in_the_hazard():
    follow_up = cohort(60, 11)
    bare = replace(follow_up, long=follow_up.long[follow_up.long["id"] != 3])
    assert fit_joint(spec_of("negative-binomial"), bare).subjects == 60


# What stands against a fit


def changed(follow_up, **events):
    return replace(follow_up, events=follow_up.events.assign(**events))


@pytest.mark.parametrize(
    ("change", "spec", "said"),
    [
        (lambda f: changed(f, event=False), spec_of("negative-binomial"), "nobody had the event"),
        (lambda f: changed(f, event=f.events["x"] == 1), spec_of("negative-binomial"), "nobody with x = 0"),
        (lambda f: changed(f, x=1.0), spec_of("negative-binomial"), ""),
        (
            lambda f: replace(f, long=f.long.drop_duplicates("id")),
            spec_of("negative-binomial", ("intercept", "slope")),
            "once only",
        ),
        (lambda f: replace(f, long=f.long.assign(y=0.0)), spec_of("negative-binomial"), "all counts are zero"),
        (lambda f: replace(f, long=f.long.assign(y=0.5)), spec_of("poisson"), "isn't all counts"),
        (lambda f: replace(f, long=f.long.assign(ml=0.0)), spec_of("poisson"), "above zero"),
        (lambda f: replace(f, long=pd.concat([f.long, f.long])), spec_of("poisson"), "twice"),
    ],
)
def test_what_stands_against_a_fit_is_named_before_it(change, spec, said):
    with pytest.raises(StatisticsError, match=said):
        fit_joint(spec, change(cohort(40)))


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        (spec_of("weird"), "--family"),
        (spec_of("poisson", ("weird",)), "--random-effects"),
        (spec_of("poisson", association=("weird",)), "--association"),
        (spec_of("poisson", baseline="weird"), "--baseline"),
        (spec_of("poisson", baseline="piecewise", knots=(2.0, 1.0)), "--knots"),
        (spec_of("poisson", nodes=2), "--nodes"),
        (JointSpec((MarkerSpec("y ~ nothing"),)), "--long-formula"),
        (JointSpec((MarkerSpec("y ~~ t"),)), "--long-formula"),
        (JointSpec((MarkerSpec("t"),)), "--long-formula"),
        (JointSpec((MarkerSpec("y ~ t"),), "nothing"), "--event-formula"),
    ],
)
def test_a_wrong_specification_names_its_option(spec, option):
    with pytest.raises(ConfigError, match=option):
        fit_joint(spec, cohort(40))


def test_who_lacks_a_covariate_is_left_out_and_counted():
    follow_up = cohort(60)
    model = fit_joint(spec_of("poisson"), changed(follow_up, x=follow_up.events["x"].where(follow_up.events["id"] > 1)))
    assert model.subjects == 58
    assert any("2 subject(s)" in note for note in model.notes)


# Prediction


@pytest.fixture(scope="module")
def fitted():
    """A model of a larger cohort, and another cohort to predict in."""
    return fit_joint(spec_of("negative-binomial"), cohort(400, 12)), cohort(60, 13)


@settings(max_examples=10, deadline=None)
@given(subject=st.integers(0, 59), landmark=st.floats(0, 0.9))
def test_prediction_never_peeks(fitted, subject, landmark):
    model, others = fitted
    one = others.subset([subject])
    later = one.long["t"] > landmark
    shown = replace(one, long=one.long.assign(y=one.long["y"].where(~later, 50.0)))
    shown = replace(shown, events=shown.events.assign(end=4.0, event=False))
    hidden = replace(one, long=one.long[~later], events=one.events.assign(end=4.0, event=False))
    first, second = (predict_patient(model, each, landmark, [1.2, 2.0]) for each in (shown, hidden))
    pd.testing.assert_frame_equal(first, second)
    assert (first["low"] <= first["risk"]).all()
    assert (first["risk"] <= first["high"]).all()
    assert first["risk"].is_monotonic_increasing


def test_one_and_all_are_predicted_alike(fitted):
    model, others = fitted
    table = JointPredictor(model).risk(others.at(0.5), 0.5, [1.0, 2.0])
    for subject in table.index[:5]:
        alone = predict_patient(model, others.subset([subject]), 0.5, [1.0, 2.0])["risk"]
        assert alone.to_numpy() == pytest.approx(table.loc[subject].to_numpy(), abs=1e-6)


def test_few_draws_tell_the_limits_of_many(fitted):
    model, others = fitted
    one = others.subset([others.at(0.5).subjects[0]])
    few, many = (predict_patient(model, one, 0.5, [2.0], draws=draws, seed=3) for draws in (400, 20_000))
    assert few["low"].iloc[0] == pytest.approx(many["low"].iloc[0], abs=0.06)
    assert few["high"].iloc[0] == pytest.approx(many["high"].iloc[0], abs=0.06)


def test_risks_are_as_high_as_what_happens(fitted):
    model, _ = fitted
    many = cohort(3000, 14)
    known = many.at(0.5)
    risk = JointPredictor(model).risk(known, 0.5, [1.0])[1.0].to_numpy()
    # Nobody is censored before 1.
    happened = (known.events["event"] & (known.events["end"] <= 1.0)).to_numpy()
    for low, high in ((0, 0.3), (0.3, 0.6), (0.6, 1)):
        own = (risk >= np.quantile(risk, low)) & (risk <= np.quantile(risk, high))
        assert happened[own].mean() == pytest.approx(risk[own].mean(), abs=0.06)


def test_the_updates_end_with_what_is_known_now(fitted):
    model, others = fitted
    one = others.subset([others.at(0.9).subjects[0]])
    course = updates(model, one, 2.0, None, 0.9)
    assert course["time"].is_monotonic_increasing
    assert course["risk"].iloc[-1] == predict_patient(model, one, 0.9, [2.0])["risk"].iloc[0]


def test_horizons_nobody_was_followed_to_are_refused(fitted):
    model, others = fitted
    with pytest.raises(StatisticsError, match="nobody was followed"):
        predict_patient(model, others.subset([0]), 0.01, [99.0])


def test_no_warning_escapes(fitted):
    model, others = fitted
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict_patient(model, others.subset([0]), 0.0, [1.0])
