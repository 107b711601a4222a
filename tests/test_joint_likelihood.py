"""The joint likelihood: by brute force over dense grids, its gradient, time's points, covariates that change."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.interpolate import BSpline
from scipy.special import logsumexp

from ctc_imaging.errors import ConfigError, StatisticsError
from ctc_imaging.recurrence.follow_up import FollowUp
from ctc_imaging.recurrence.joint.design import make_design
from ctc_imaging.recurrence.joint.families import FAMILIES
from ctc_imaging.recurrence.joint.fit import make_layout
from ctc_imaging.recurrence.joint.hazard import BASELINES, make_baseline
from ctc_imaging.recurrence.joint.likelihood import Likelihood, factor_of, gauss_hermite
from ctc_imaging.recurrence.joint.people import People
from ctc_imaging.recurrence.joint.separation import separated
from ctc_imaging.recurrence.joint.spec import ASSOCIATIONS, JointSpec, MarkerSpec

KNOTS = {"weibull": None, "piecewise": (0.9, 1.7), "spline": (1.1,)}
END = np.array([1.4, 2.3, 0.8, 2.6])
EVENT = np.array([True, False, True, True])
ARM, AGE = np.array([0.0, 1.0, 1.0, 0.0]), np.array([0.3, -0.2, 0.5, -0.6])
# Subject 2 was never measured.
VISITS = {0: [0.0, 0.5, 1.2], 1: [0.1, 1.0, 1.5, 2.2], 3: [0.7, 2.0]}
COUNTS = {0: [2, 0, 4], 1: [0, 1, 0, 3], 3: [6, 1]}
VOLUMES = {0: [5.0, 7.5, 5.0], 1: [7.5, 7.5, 5.0, 5.0], 3: [5.0, 7.5]}


def tiny() -> FollowUp:
    """Four subjects, one of them without a measurement."""
    rows = [(one, *row) for one in VISITS for row in zip(VISITS[one], COUNTS[one], VOLUMES[one], strict=True)]
    long = pd.DataFrame(rows, columns=["id", "day", "y", "ml"]).astype({"y": float})
    events = pd.DataFrame({"id": range(4), "end": END, "event": EVENT, "arm": ARM, "age": AGE})
    return FollowUp(long, events, "id", "day", "end", "event")


def make(family, association, baseline, effects=("intercept", "slope"), time_points=None):
    # Where a spline's pieces meet, points in time tell more slowly.
    time_points = time_points or (150 if baseline == "spline" else 60)
    marker = MarkerSpec("y ~ day + arm", family, effects, "ml" if FAMILIES[family].counts else None)
    return JointSpec((marker,), "age", association, baseline, KNOTS[baseline], time_points=time_points)


@cache
def prepared(spec):
    design, usable, _ = make_design(spec, tiny())
    return design, make_layout(design), design.rows(People(usable))


def random_theta(spec, seed):
    _, layout, _ = prepared(spec)
    theta = np.random.default_rng(seed).normal(0, 0.4, layout.size)
    if spec.baseline == "weibull":
        # A shape of .6 and more: below it sixty points in time leave more than a millionth.
        theta[layout.places[-2].start + 1] = max(theta[layout.places[-2].start + 1], -0.4)
    return theta


class BruteForce:
    """The likelihood from its definition, by dense grids over time and random effects; shares no code with ours."""

    def __init__(self, spec, theta):
        self.spec, (marker,) = spec, spec.markers
        self.family, self.size = marker.family, len(marker.random_effects)
        extras = {"gaussian": 1, "poisson": 0, "negative-binomial": 1}.get(self.family, 2)
        triangle = self.size * (self.size + 1) // 2
        pieces = {"weibull": 2, "piecewise": 3, "spline": 5}[spec.baseline]
        ends = np.cumsum([3, extras, triangle, pieces, 1])
        self.beta, self.extra, factor, self.baseline, (self.gamma,), self.alpha = np.split(theta, ends)
        step = 0.08 if self.size == 1 else 0.14
        grid = np.meshgrid(*[np.arange(-8, 8.01, step)] * self.size, indexing="ij")
        nodes = np.stack([axis.ravel() for axis in grid])
        self.log_weight = stats.norm.logpdf(nodes).sum(axis=0) + self.size * np.log(step)
        lower = np.zeros((self.size, self.size))
        lower[np.tril_indices(self.size)] = factor
        np.fill_diagonal(lower, np.exp(np.diag(lower)))
        effects = lower @ nodes
        self.level, self.slope = effects[0], effects[1] if self.size > 1 else np.zeros(effects.shape[1])

    def log_baseline(self, times):
        if self.spec.baseline == "weibull":
            return self.baseline[0] + self.baseline[1] * np.log(times)
        if self.spec.baseline == "piecewise":
            return self.baseline[np.digitize(times, KNOTS["piecewise"], right=True)]
        knots = np.array([0.0] * 4 + [*KNOTS["spline"]] + [END.max()] * 4)
        return BSpline(knots, self.baseline, 3)(times)

    def log_hazard(self, one, times):
        """Times by nodes."""
        level = self.beta[0] + self.beta[2] * ARM[one] + self.level
        trend, t = self.beta[1] + self.slope, times[:, None]
        log = self.log_baseline(times)[:, None] + self.gamma * AGE[one] + np.zeros(len(level))
        strengths = iter(self.alpha)
        for kind in self.spec.association:
            if kind == "random":
                log = log + next(strengths) * self.level
                log = log + (next(strengths) * self.slope if self.size > 1 else 0.0)
            else:
                told = {"value": level + trend * t, "slope": trend + 0 * t, "area": level * t + trend * t**2 / 2}
                log = log + next(strengths) * told[kind]
        return log

    def log_measured(self, one):
        log = np.zeros(len(self.level))
        for time, count, volume in zip(*(table.get(one, []) for table in (VISITS, COUNTS, VOLUMES)), strict=True):
            eta = self.beta[0] + self.beta[1] * time + self.beta[2] * ARM[one] + self.level + self.slope * time
            log += self.log_density(count, eta if self.family == "gaussian" else eta + np.log(volume))
        return log

    def log_density(self, y, eta):
        if self.family == "gaussian":
            return stats.norm.logpdf(y, eta, np.exp(self.extra[0]))
        if self.family == "poisson":
            return stats.poisson.logpmf(y, np.exp(eta))
        k = np.exp(self.extra[0])
        plain = stats.nbinom(k, k / (k + np.exp(eta)))
        if self.family == "negative-binomial":
            return plain.logpmf(y)
        share = 1 / (1 + np.exp(-self.extra[1]))
        if self.family == "zero-inflated-negative-binomial":
            return np.log(share * (y == 0) + (1 - share) * plain.pmf(y))
        return np.log(share) if y == 0 else np.log1p(-share) + plain.logpmf(y) - plain.logsf(0)

    def __call__(self):
        return np.array([self.log_likelihood(one) for one in range(4)])

    def log_likelihood(self, one):
        place, weight = np.polynomial.legendre.leggauss(60)
        edges = [0.0, *(knot for knot in KNOTS[self.spec.baseline] or () if knot < END[one]), END[one]]
        log = self.log_weight + self.log_measured(one)
        for low, high in pairwise(edges):
            # In the sixth root of time, where a Weibull hazard is smooth.
            bottom, top = low ** (1 / 6), high ** (1 / 6)
            root = bottom + (top - bottom) * (place + 1) / 2
            width = (top - bottom) / 2 * weight * 6 * root**5
            log = log - width @ np.exp(self.log_hazard(one, root**6))
        if EVENT[one]:
            log = log + self.log_hazard(one, END[[one]])[0]
        return logsumexp(log)


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("association", [(kind,) for kind in ASSOCIATIONS])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_subjects_likelihood_is_that_of_brute_force(family, association, baseline):
    spec = make(family, association, baseline, ("intercept",))
    theta = random_theta(spec, 3)
    _, layout, rows = prepared(spec)
    found, _ = Likelihood(layout, rows)(theta, 31)
    assert found == pytest.approx(BruteForce(spec, theta)(), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("association", "baseline"), [(("value", "slope"), "spline"), (("area", "random"), "weibull")])
def test_so_it_is_with_two_random_effects_and_two_associations(family, association, baseline):
    spec = make(family, association, baseline)
    theta = random_theta(spec, 5)
    _, layout, rows = prepared(spec)
    found, _ = Likelihood(layout, rows)(theta, 25)
    assert found == pytest.approx(BruteForce(spec, theta)(), abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6)
@given(
    seed=st.integers(0, 10_000),
    association=st.lists(st.sampled_from(ASSOCIATIONS), min_size=1, max_size=4, unique=True),
    baseline=st.sampled_from(BASELINES),
)
def test_the_gradient_is_that_of_the_likelihood(family, seed, association, baseline):
    spec = make(family, tuple(association), baseline, time_points=15)
    theta, step = random_theta(spec, seed), 1e-5
    _, layout, rows = prepared(spec)
    likelihood = Likelihood(layout, rows)
    _, scores = likelihood(theta, 17)
    for place, shift in enumerate(step * np.eye(layout.size)):
        change = (likelihood(theta + shift, 17)[0] - likelihood(theta - shift, 17)[0]) / (2 * step)
        assert scores[:, place] == pytest.approx(change, abs=2e-4, rel=2e-4)


@given(seed=st.integers(0, 10_000))
def test_without_association_it_is_the_product_of_two_models(seed):
    both = make("negative-binomial", ("value",), "weibull")
    theta = random_theta(both, seed)
    theta[-1] = 0.0
    _, layout, rows = prepared(both)
    found, _ = Likelihood(layout, rows)(theta, 25)
    log_rate, log_time, gamma = theta[-4:-1]
    shape = log_time + 1
    log_hazard = log_rate + log_time * np.log(END) + gamma * AGE
    survival = EVENT * log_hazard - np.exp(log_rate + gamma * AGE) * END**shape / shape
    measured = BruteForce(both, theta)
    counts = [logsumexp(measured.log_weight + measured.log_measured(one)) for one in range(4)]
    assert found == pytest.approx(survival + counts, abs=1e-6)


@given(seed=st.integers(0, 10_000), shift=st.floats(-300, 300), place=st.integers(0, 30))
def test_numbers_stay_numbers_however_far_out(seed, shift, place):
    spec = make("zero-inflated-negative-binomial", ("value", "slope"), "weibull", time_points=15)
    theta = random_theta(spec, seed)
    theta[place % len(theta)] += shift
    _, layout, rows = prepared(spec)
    found, scores = Likelihood(layout, rows)(theta, 5)
    assert not np.isnan(found).any()
    assert not np.isnan(scores).any()


def test_subjects_worked_through_in_parts_are_the_same():
    spec = make("negative-binomial", ("value",), "weibull")
    _, layout, rows = prepared(spec)
    theta = random_theta(spec, 1)
    whole, _ = Likelihood(layout, rows)(theta, 9)
    parts = [Likelihood(layout, part)(theta, 9)[0] for part in rows.parts(1)]
    assert np.concatenate(parts) == pytest.approx(whole, abs=1e-8)


@pytest.mark.parametrize("effects", [1, 2, 3])
def test_the_grid_integrates_a_normal_density_to_one(effects):
    places, log_weights = gauss_hermite(7, effects)
    density = stats.norm.logpdf(places).sum(axis=1)
    assert logsumexp(log_weights + density) == pytest.approx(0, abs=1e-12)
    second = np.exp(log_weights + density) @ places[:, 0] ** 2
    assert second == pytest.approx(1, abs=1e-12)


def test_a_factors_parameters_are_its_lower_triangle():
    built = factor_of(np.array([np.log(2.0), 0.5, np.log(3.0)]), 2)
    assert built == pytest.approx(np.array([[2.0, 0.0], [0.5, 3.0]]))


@pytest.mark.parametrize("time_points", [15, 40])
def test_a_cumulative_hazard_is_its_integral(time_points):
    for kind, tolerance in (("weibull", 2e-3 if time_points == 15 else 1e-7), ("piecewise", 1e-12), ("spline", 1e-6)):
        baseline = make_baseline(kind, np.linspace(0.1, 3, 30), 3.2, None, time_points)
        coefficients = np.linspace(-0.3, -0.2, len(baseline.names))
        start, stop = np.array([0.0, 0.4]), np.array([2.9, 1.3])
        stretch, times, weights = baseline.points(start, stop)
        found = np.bincount(stretch, weights * np.exp(baseline.basis(times) @ coefficients))
        if kind == "weibull":
            shape = 1 + coefficients[1]
            wanted = np.exp(coefficients[0]) * (stop**shape - start**shape) / shape
        else:
            wanted = [
                np.mean(np.exp(baseline.basis(np.linspace(a, b, 200_001)) @ coefficients)) * (b - a)
                for a, b in zip(start, stop, strict=True)
            ]
            tolerance = max(tolerance, 2e-5)
        assert found == pytest.approx(wanted, rel=tolerance)


def test_pieces_by_default_all_have_events():
    few = make_baseline("piecewise", np.array([1.0, 1.0, 1.0, 1.0, 5.0]), 9.0, None)
    pieces = np.searchsorted(few.knots, [1.0, 1.0, 1.0, 1.0, 5.0])
    assert set(pieces) == set(range(len(few.knots) + 1))
    assert len(make_baseline("piecewise", np.array([2.0]), 9.0, None).knots) == 0


@pytest.mark.parametrize(
    ("kind", "knots", "fault"),
    [
        ("wiggly", None, "isn't known"),
        ("weibull", (1.0,), "has none"),
        ("piecewise", (2.0, 1.0), "don't rise"),
        ("piecewise", (0.0, 1.0), "don't rise"),
        ("spline", (99.0,), "don't rise"),
        ("piecewise", (float("nan"),), "don't rise"),
        ("piecewise", (0.5, 0.6), "nobody had the event from 0.5 to 0.6"),
        ("piecewise", (0.01,), "nobody had the event from 0 to 0.01"),
        ("piecewise", (2.95,), "nobody had the event from 2.95 to 3"),
    ],
)
def test_bad_knots_are_named(kind, knots, fault):
    with pytest.raises(ConfigError, match=fault):
        make_baseline(kind, np.array([0.1, 0.4, 1.1, 2.9]), 3.0, knots)


def test_too_few_points_in_time_are_named():
    with pytest.raises(ConfigError, match="too few"):
        make_baseline("weibull", np.array([1.0]), 2.0, None, 0)


def changing(rows):
    """Subjects whose covariate changes, given (id, day, y, dose)."""
    long = pd.DataFrame(rows, columns=["id", "day", "y", "dose"])
    events = pd.DataFrame({"id": [0, 1, 2], "end": [2.0, 3.0, 2.5], "event": [True, False, True]})
    return FollowUp(long, events, "id", "day", "end", "event")


ROWS = [(0, 0.0, 1.0, 0.0), (0, 0.7, 2.0, 1.0), (1, 0.5, 0.0, 2.0), (1, 1.9, 1.0, 0.5), (2, 0.2, 3.0, 1.5)]


def test_a_covariate_is_carried_forward_and_cut_at_its_changes():
    people = People(changing(ROWS))
    subject = np.array([0, 0, 0, 1, 1, 1])
    carried = people.carried(["dose"], subject, np.array([0.1, 0.7, 9.0, 0.0, 1.0, 2.0]))
    assert list(carried["dose"]) == [0.0, 1.0, 1.0, 2.0, 2.0, 0.5]
    owner, start, stop = people.cut(["dose"], np.array([0, 1, 2]), np.zeros(3), np.array([2.0, 1.0, 2.5]))
    assert list(owner) == [0, 0, 1, 2]
    assert list(start) == [0.0, 0.7, 0.0, 0.0]
    assert list(stop) == [0.7, 2.0, 1.0, 2.5]


def test_gaps_of_a_covariate_are_filled_from_before_else_from_after():
    holes = [(0, 0.0, 1.0, np.nan), (0, 0.7, 2.0, 1.0), (0, 1.0, 2.0, np.nan), *ROWS[2:]]
    people = People(changing(holes))
    carried = people.carried(["dose"], np.zeros(3, np.intp), np.array([0.0, 0.8, 1.5]))
    assert list(carried["dose"]) == [1.0, 1.0, 1.0]


def test_the_hazard_of_a_changing_covariate_is_integrated_exactly():
    follow_up = changing(ROWS)
    marker = MarkerSpec("y ~ dose", "poisson", ("intercept",))
    design, usable, _ = make_design(JointSpec((marker,), time_points=40), follow_up)
    layout, rows = make_layout(design), design.rows(People(usable))
    alpha, slope, log_rate, shape = 0.8, 0.9, -0.7, 1.4
    # A random intercept of next to no spread: the hazard is known in closed form.
    theta = np.array([0.1, slope, -12.0, log_rate, shape - 1, alpha])
    found, _ = Likelihood(layout, rows)(theta, 5)

    def cumulative(t):
        return np.exp(log_rate + alpha * 0.1) * t**shape / shape

    def counts(values, doses):
        return stats.poisson.logpmf(values, np.exp(0.1 + slope * np.array(doses))).sum()

    jump = np.exp(alpha * slope)
    hazard_0 = cumulative(0.7) + jump * (cumulative(2.0) - cumulative(0.7))
    hazard_1 = jump**2 * cumulative(1.9) + jump**0.5 * (cumulative(3.0) - cumulative(1.9))
    log_0 = log_rate + (shape - 1) * np.log(2.0) + alpha * (0.1 + slope)
    assert found[0] == pytest.approx(log_0 - hazard_0 + counts([1, 2], [0, 1]), abs=1e-6)
    assert found[1] == pytest.approx(-hazard_1 + counts([0, 1], [2, 0.5]), abs=1e-6)


@given(seed=st.integers(0, 10_000))
def test_separation_is_found_where_there_is_one(seed):
    rng = np.random.default_rng(seed)
    values, event = rng.normal(size=(40, 3)), rng.random(40) < 0.3
    event[:4] = True
    assert separated(["a", "b", "c"], values, event) == ""
    stage = rng.integers(1, 4, 40)
    stage[event] = np.arange(event.sum()) % 2 + 1
    stage[~event] = 3
    dummies = np.column_stack([stage == 1, stage == 2]) * 1.0
    assert separated(["one", "two"], dummies, event).startswith("one and two")
    assert "nobody with three = 1" in separated(["three"], (stage == 3)[:, None] * 1.0, event)
    # Level at events, but on both sides of them elsewhere: the effect is bounded.
    between = np.where(event, 0.0, rng.normal(size=40))
    assert separated(["between"], between[:, None], event) == ""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"association": ("speed",)}, "'speed' isn't known"),
        ({"association": ("value", "value")}, "names a thing twice"),
        ({"baseline": "wiggly"}, "'wiggly' isn't known"),
        ({"event_formula": "agee"}, "no column agee"),
        ({"event_formula": "C(arm) - 1"}, "takes the intercept out"),
        ({"event_formula": "y ~ age"}, "has an outcome"),
        ({"event_formula": "age +* 2"}, "can't be read"),
        ({"markers": ()}, "is missing"),
    ],
)
def test_a_specification_without_meaning_is_refused(change, fault):
    spec = make("poisson", ("value",), "weibull", ("intercept",))
    with pytest.raises(ConfigError, match=fault):
        make_design(JointSpec(**{**vars(spec), **change}), tiny())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"formula": "~ day"}, "has no outcome"),
        ({"formula": "y ~ day | arm"}, "several parts"),
        ({"formula": "y ~ dayy"}, "no column dayy"),
        ({"formula": "y + ml ~ day"}, "isn't one number"),
        ({"formula": "y ~ bs(day, df=4)"}, "extrapolation='extend'"),
        ({"family": "normal"}, "'normal' isn't known"),
        ({"random_effects": ()}, "there are none"),
        ({"random_effects": ("curve",)}, "'curve' isn't known"),
        ({"exposure": "litres"}, "no column litres"),
    ],
)
def test_a_marker_without_meaning_is_refused(change, fault):
    marker = MarkerSpec("y ~ day", "poisson", ("intercept",))
    with pytest.raises(ConfigError, match=fault):
        rows_of(JointSpec((MarkerSpec(**{**vars(marker), **change}),)))


def rows_of(spec):
    design, usable, _ = make_design(spec, tiny())
    return design.rows(People(usable))


def test_a_marker_twice_is_refused():
    marker = MarkerSpec("y ~ day", "poisson", ("intercept",))
    with pytest.raises(ConfigError, match="same outcome"):
        make_design(JointSpec((marker, marker)), tiny())


def test_terms_that_tell_each_others_values_are_refused():
    marker = MarkerSpec("y ~ day + I(2 * day)", "poisson", ("intercept",))
    with pytest.raises(StatisticsError, match="tell each other's values"):
        make_design(JointSpec((marker,)), tiny())


def test_a_hazard_may_depend_on_the_slope_of_a_term_that_ends_at_zero():
    marker = MarkerSpec("y ~ np.sqrt(day)", "poisson", ("intercept",))
    design, usable, _ = make_design(JointSpec((marker,), association=("slope",)), tiny())
    rows = design.rows(People(usable))
    (_, terms, _) = rows.cumulative.associated[0]
    assert np.isfinite(terms).all()
