"""Fitting the joint model: known answers, what must not change a fit, what speaks against one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import logsumexp

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.follow_up import FollowUp, follow_up_of_tables
from ctc_imaging.recurrence.joint import JointSpec, MarkerSpec, fit_joint
from ctc_imaging.recurrence.joint.climb import climb
from ctc_imaging.recurrence.joint.families import FAMILIES
from ctc_imaging.recurrence.joint.likelihood import Centres, Likelihood, _integrate, gauss_hermite

KNOTS = (6.22714386, 11.07857243, 12.530001, 13.930001, 15.970001, 17.800001)
COUNT_FAMILIES = [name for name, family in FAMILIES.items() if family.counts]


def cohort(size=120, seed=0, gaussian=False) -> FollowUp:
    """SIMULATED subjects; `x` and `trt` (which starts later in some) change count and hazard."""
    rng = np.random.default_rng(seed)
    level, x = rng.normal(0.8, 0.7, size), rng.integers(0, 2, size) * 1.0
    end_event = rng.exponential(3 / np.exp(0.4 * (level - 0.8) + 0.4 * x))
    censored = rng.uniform(1, 4, size)
    end = np.minimum(end_event, censored)
    day = np.round(np.sort(rng.uniform(0, 3, (size, 6)), axis=1), 3)
    day[:, 0] = 0.0
    volume = rng.choice([0.5, 1.0, 2.0], day.shape)
    mean = level[:, None] + 0.2 * day
    if gaussian:
        y = mean + rng.normal(0, 0.5, day.shape)
    else:
        y = rng.poisson(np.exp(mean) * volume * rng.gamma(3, 1 / 3, day.shape)) * 1.0
    seen = day < end[:, None]
    who = np.broadcast_to(np.arange(size)[:, None], day.shape)[seen]
    long = pd.DataFrame({"id": who, "day": day[seen], "y": y[seen], "ml": volume[seen]})
    long["trt"] = (long["day"] > 1) * (who % 2) * 1.0
    events = pd.DataFrame({"id": np.arange(size), "end": end, "event": end_event <= censored, "x": x})
    return FollowUp(long, events, "id", "day", "end", "event", "years")


def spec(family="negative-binomial", effects=("intercept",), formula="y ~ day", exposure="ml", **more):
    exposure = exposure if FAMILIES[family].counts else None
    return JointSpec((MarkerSpec(formula, family, effects, exposure),), **{"event_formula": "x", **more})


@pytest.fixture(scope="module")
def plain():
    """A fit that others are compared with."""
    return fit_joint(spec(), cohort())


@pytest.fixture
def aids(shared_data):
    """467 patients; square root of CD4 at 0, 2, 6, 12, 18 months (Goldman 1996)."""
    tables = (shared_data / "aids" / name for name in ("aids_long.csv", "aids_id.csv"))
    return follow_up_of_tables(*tables, id="patient", time="obstime", event_time="Time", event="death")


def aids_spec(**more):
    return JointSpec((MarkerSpec("CD4 ~ obstime + obstime:drug"),), "drug", **more)


def check(model, published):
    """Each estimate within 2 % of its standard error, and that within 2 %."""
    for name, (value, error) in published.items():
        found = model.table.loc[name]
        assert found["estimate"] == pytest.approx(value, abs=0.02 * (error or found["se"])), name
        assert error is None or found["se"] == pytest.approx(error, rel=0.02), name


def test_aids_by_a_weibull_hazard(aids):
    model = fit_joint(aids_spec(), aids)
    assert model.log_likelihood == pytest.approx(-4327.386878, abs=1e-3)
    assert model.converged
    assert model.notes == ()
    drug = {"event:drug[T.ddI]": (0.341753, 0.156665), "association:value": (-0.280666, 0.035653)}
    check(model, {**drug, "long:Intercept": (7.191926, None), "residual:sd": (1.738622, None)})


def test_aids_by_a_piecewise_hazard(aids):
    model = fit_joint(aids_spec(baseline="piecewise", knots=KNOTS), aids)
    assert model.log_likelihood == pytest.approx(-4328.257341, abs=1e-3)
    assert model.converged
    drug = {"event:drug[T.ddI]": (0.334131, 0.156493), "association:value": (-0.287847, 0.035909)}
    check(model, {**drug, "long:Intercept": (7.203448, None)})


def test_more_points_in_time_tell_the_exact_likelihood_of_aids(aids):
    exact = fit_joint(aids_spec(time_points=40), aids)
    assert exact.log_likelihood == pytest.approx(-4327.3778, abs=1e-3)


def test_a_quadrature_that_does_not_adapt_is_a_trap(aids):
    """The published figure of JM's unadapted rule: 13 units too low, which adapting avoids."""
    model = fit_joint(aids_spec(), aids)
    likelihood = Likelihood(model.layout, model.design.rows(people(aids)))
    parameters = model.layout.unpack(model.top.theta)
    # One grid for everybody, at the mean and spread of all random effects.
    spread = np.broadcast_to(parameters.factors[0], (model.subjects, 2, 2))
    fixed, _ = _integrate(
        model.layout, parameters, likelihood.rows, Centres(np.zeros((model.subjects, 2)), spread), gauss_hermite(9, 2)
    )
    assert fixed.sum() < model.log_likelihood - 5


def people(follow_up):
    from ctc_imaging.recurrence.joint.people import People

    return People(follow_up)


def test_counts_of_epil_are_those_of_a_mixed_poisson_model(shared_data):
    """Counts of MASS's epil beside a mixed Poisson model written out in full; follow-up that says nothing."""
    visits = pd.read_csv(shared_data / "epil_counts" / "epil.csv").rename(columns={"period": "week"})
    events = pd.DataFrame({"subject": range(1, 60), "end": 5.0 + np.arange(59) / 59, "event": np.arange(59) < 30})
    follow_up = FollowUp(visits, events, "subject", "week", "end", "event")
    marker = MarkerSpec("y ~ lbase * trt + lage + V4", "poisson", ("intercept",))
    model = fit_joint(JointSpec((marker,), association=(), nodes=25), follow_up)
    assert model.converged
    progabide = visits["trt"] == "progabide"
    terms = np.column_stack(
        [np.ones(236), visits["lbase"], progabide, visits["lage"], visits["V4"], visits["lbase"] * progabide]
    )
    names = ["Intercept", "lbase", "trt[T.progabide]", "lage", "V4", "lbase:trt[T.progabide]"]
    estimates = model.table["estimate"]
    theta = np.array([*estimates[[f"long:{name}" for name in names]], estimates["random:sd(intercept)"]])

    def mixed_poisson(theta):
        grid = np.arange(-8, 8.001, 0.02)
        eta = (terms @ theta[:-1])[:, None] + theta[-1] * grid
        log = stats.poisson.logpmf(visits["y"].to_numpy()[:, None], np.exp(eta))
        by_subject = np.add.reduceat(log, np.arange(0, 236, 4), axis=0)
        return logsumexp(by_subject + stats.norm.logpdf(grid) + np.log(0.02), axis=1).sum()

    rate, shape = np.exp(estimates["baseline:log_rate"]), estimates["baseline:shape"]
    end, event = events["end"].to_numpy(), events["event"].to_numpy()
    survival = (np.log(rate) + (shape - 1) * np.log(end))[event].sum() - (rate * end**shape / shape).sum()
    assert model.log_likelihood == pytest.approx(mixed_poisson(theta) + survival, abs=0.02)
    slopes = [(mixed_poisson(theta + h) - mixed_poisson(theta - h)) / 2e-4 for h in 1e-4 * np.eye(7)]
    assert slopes == pytest.approx(np.zeros(7), abs=0.02)


def test_simulated_truth_is_found():
    model = fit_joint(spec(), cohort(600, 5))
    truth = {"long:Intercept": 0.8, "long:day": 0.2, "residual:k": 3.0, "random:sd(intercept)": 0.7}
    truth |= {"association:value": 0.4, "event:x": 0.4}
    for name, value in truth.items():
        row = model.table.loc[name]
        assert abs(row["estimate"] - value) < 3.5 * row["se"], name


@pytest.mark.parametrize(
    ("baseline", "effects"),
    [("weibull", ("intercept", "slope")), ("piecewise", ("slope",)), ("spline", ("intercept",))],
)
def test_days_instead_of_years_change_only_what_has_a_unit(baseline, effects):
    years = cohort()
    days = replace(
        years,
        long=years.long.assign(day=years.long["day"] * 365.0),
        events=years.events.assign(end=years.events["end"] * 365.0),
        time_unit="days",
    )
    one, other = (fit_joint(spec(baseline=baseline, effects=effects), data) for data in (years, days))
    assert one.converged
    assert other.converged
    assert other.log_likelihood == pytest.approx(one.log_likelihood - one.events * np.log(365.0), abs=1e-4)
    same = ["long:Intercept", "residual:k", "event:x", "association:value"]
    same += ["random:sd(intercept)"] if "intercept" in effects else []
    for name in same:
        error = one.table.loc[name, "se"]
        assert other.table.loc[name, "estimate"] == pytest.approx(one.table.loc[name, "estimate"], abs=1e-3 * error)
        assert other.table.loc[name, "se"] == pytest.approx(error, rel=2e-3)
    slope, error = one.table.loc["long:day", ["estimate", "se"]]
    assert other.table.loc["long:day", "estimate"] * 365 == pytest.approx(slope, abs=1e-3 * error)


def test_order_of_subjects_rows_and_columns_does_not_matter(plain):
    given, rng = cohort(), np.random.default_rng(9)
    mixed = replace(
        given,
        long=given.long.iloc[rng.permutation(len(given.long)), ::-1],
        events=given.events.iloc[rng.permutation(len(given.events)), ::-1],
    )
    model = fit_joint(spec(), mixed)
    assert model.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)
    pd.testing.assert_frame_equal(model.table, plain.table, rtol=1e-4, atol=1e-5)


def test_names_of_subjects_do_not_matter(plain):
    given = cohort()
    named = replace(
        given,
        long=given.long.assign(id="P" + given.long["id"].astype(str)),
        events=given.events.assign(id="P" + given.events["id"].astype(str)),
    )
    assert fit_joint(spec(), named).log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-7)


def test_a_richer_family_is_never_worse_and_ends_at_the_poorer_where_that_is_true(plain):
    poisson, richer = (fit_joint(spec(name), cohort()) for name in ("poisson", "zero-inflated-negative-binomial"))
    assert poisson.log_likelihood < plain.log_likelihood
    assert richer.log_likelihood > plain.log_likelihood - 0.05
    if "logit_zero" in " ".join(richer.notes):
        assert richer.log_likelihood == pytest.approx(plain.log_likelihood, abs=0.05)
        assert np.isnan(richer.table.loc["residual:zero_share", "se"])


def test_counts_that_are_poisson_put_the_dispersion_at_its_bound():
    given = cohort(80, 4)
    rng = np.random.default_rng(0)
    even = replace(given, long=given.long.assign(y=rng.binomial(6, 0.5, len(given.long)) * 1.0))
    model = fit_joint(spec(exposure=None, association=()), even)
    poisson = fit_joint(spec("poisson", exposure=None, association=()), even)
    assert any("log_k lies at the bound" in note for note in model.notes)
    assert model.log_likelihood == pytest.approx(poisson.log_likelihood, abs=0.05)


def test_volume_as_exposure_is_a_rate():
    """Where all volumes are alike, the exposure moves the intercept only, and the hazard's, which sees the rate."""
    given = cohort(80, 2)
    same = replace(given, long=given.long.assign(ml=7.5))
    rate, count = fit_joint(spec(), same), fit_joint(spec(exposure=None), same)
    assert rate.log_likelihood == pytest.approx(count.log_likelihood, abs=1e-5)
    moved = count.table["estimate"]["long:Intercept"] - rate.table["estimate"]["long:Intercept"]
    assert moved == pytest.approx(np.log(7.5), abs=1e-3)
    assert rate.table["estimate"]["association:value"] == pytest.approx(
        count.table["estimate"]["association:value"], abs=1e-3
    )


def test_without_association_the_hazard_is_that_of_its_own_model():
    given = cohort()
    model = fit_joint(spec(association=(), time_points=40), given)
    end, event, x = (given.events[name].to_numpy() for name in ("end", "event", "x"))
    log_rate, shape, effect = model.table["estimate"][["baseline:log_rate", "baseline:shape", "event:x"]]

    def weibull(log_rate, shape, effect):
        log_hazard = log_rate + (shape - 1) * np.log(end) + effect * x
        return log_hazard[event].sum() - (np.exp(log_rate + effect * x) * end**shape / shape).sum()

    theta = np.array([log_rate, shape, effect])
    slopes = [(weibull(*(theta + h)) - weibull(*(theta - h))) / 2e-5 for h in 1e-5 * np.eye(3)]
    assert slopes == pytest.approx(np.zeros(3), abs=0.01)


def test_who_was_never_measured_still_counts_in_the_hazard(plain):
    given = cohort()
    without = replace(given, long=given.long[given.long["id"] > 9])
    model = fit_joint(spec(), without)
    assert model.subjects == plain.subjects
    assert model.converged


@pytest.mark.parametrize("effects", [("intercept",), ("slope",), ("intercept", "slope"), ("spline",)])
def test_random_effects_of_every_kind_are_fitted(effects):
    model = fit_joint(spec("gaussian", effects), cohort(150, 7, gaussian=True))
    assert model.converged, model.notes
    names = [name for name in model.table.index if name.startswith("random:sd")]
    assert len(names) == sum(3 if effect == "spline" else 1 for effect in effects)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_fitted(family):
    model = fit_joint(spec(family), cohort(150, 3, gaussian=family == "gaussian"))
    assert model.converged, model.notes
    assert np.isfinite(model.table[["estimate", "low", "high"]].dropna().to_numpy()).all()


def test_a_covariate_that_changes_is_carried_forward():
    given = cohort(300, 6)
    holes = given.long["trt"].where((given.long["id"] % 7 > 0) | (given.long["day"] > 0))
    full = fit_joint(spec(formula="y ~ day + trt"), given)
    holed = fit_joint(spec(formula="y ~ day + trt"), replace(given, long=given.long.assign(trt=holes)))
    assert full.converged
    assert holed.converged
    assert (
        full.subjects
        == holed.subjects + (given.long.groupby("id")["day"].max().eq(0) & (np.arange(300) % 7 == 0)).sum()
    )
    assert any("left out where it is needed" in note for note in holed.notes)


def test_two_markers_are_fitted_together_by_a_stated_approximation():
    given = cohort(120, 8)
    rng = np.random.default_rng(1)
    level = rng.normal(0, 1, 120)
    z = level[given.long["id"]] + rng.normal(0, 0.5, len(given.long))
    both = replace(given, long=given.long.assign(z=z))
    first, second = spec().markers[0], MarkerSpec("z ~ day", "gaussian", ("intercept",))
    model = fit_joint(JointSpec((first, second), "x"), both)
    assert model.converged, model.notes
    alone = fit_joint(spec(), given)
    for name in ("Intercept", "day"):
        assert model.table.loc[f"long:y:{name}", "estimate"] == pytest.approx(
            alone.table.loc[f"long:{name}", "estimate"], abs=0.05
        )
    assert abs(model.table.loc["association:z:value", "estimate"]) < 3 * model.table.loc["association:z:value", "se"]
    many = replace(second, random_effects=("intercept", "slope"))
    wide = replace(first, random_effects=("intercept", "spline"))
    approximate = fit_joint(JointSpec((wide, many), "x"), both.subset(range(25)))
    assert any("approximate" in note for note in approximate.notes)


def test_a_spread_that_vanishes_takes_its_association_along():
    """A marker of nothing but noise: its level is the same for all, so its association has no estimate."""
    given = cohort(150, 10)
    noise = np.random.default_rng(0).normal(0, 1, len(given.long))
    marker = MarkerSpec("z ~ 1", "gaussian", ("intercept",))
    model = fit_joint(JointSpec((marker,), "x"), replace(given, long=given.long.assign(z=noise)))
    if model.top.at_bound.any():
        assert not model.converged
        assert "association:value" in " ".join(model.notes)


def test_effects_that_cannot_be_told_apart_are_named():
    model = fit_joint(spec(association=("value", "slope")), cohort(60))
    assert not model.converged
    assert "the data can't tell baseline:log_rate and association:slope apart" in " ".join(model.notes)


def test_a_climb_that_does_not_end_says_so():
    def slope(theta):
        return theta.copy(), np.ones((1, 1))

    top = climb(slope, np.zeros(1), np.array([-np.inf]), np.array([np.inf]))
    assert top.fault

    def nothing(theta):
        return np.array([np.nan]), np.full((1, 1), np.nan)

    assert climb(nothing, np.zeros(1), np.array([-np.inf]), np.array([np.inf])).fault


def test_too_few_nodes_are_said():
    given = cohort(100, 1)
    few = fit_joint(spec("poisson", ("intercept", "slope"), nodes=3), given)
    assert any("3 quadrature points a random effect are too few" in note for note in few.notes)


def test_points_in_time_are_added_where_the_hazard_bends_sharply():
    given = cohort(200, 1)
    early = replace(
        given,
        long=given.long.drop_duplicates("id"),
        events=given.events.assign(end=given.events["end"] ** 3 + 1e-4),
    )
    one_visit = {"family": "poisson", "formula": "y ~ 1"}
    usual, exact, few = (fit_joint(spec(**one_visit, time_points=points), early) for points in (None, 60, 15))
    assert usual.converged
    assert usual.log_likelihood == pytest.approx(exact.log_likelihood, abs=0.02)
    assert usual.notes == exact.notes == ()
    assert few.log_likelihood > usual.log_likelihood + 0.1
    assert any("15 points in time are too few" in note for note in few.notes)


def test_the_summary_holds_plain_values(plain):
    import json

    found = json.loads(json.dumps(plain.summary()))
    assert found["converged"] is True
    assert found["parameters"]["association:value"]["se"] > 0
    assert found["subjects"] == 120
    assert found["aic"] == pytest.approx(2 * len(plain.top.theta) - 2 * plain.log_likelihood)


def test_limits_hold_the_estimate_and_errors_agree_with_robust_ones(plain):
    table = plain.table
    assert (table["low"] <= table["estimate"]).all()
    assert (table["estimate"] <= table["high"]).all()
    assert (table["robust_se"] / table["se"]).between(0.5, 2).all()


@pytest.mark.parametrize(
    ("long", "events", "fault"),
    [
        ({}, {"event": False}, "nobody had the event"),
        ({"y": 0.0}, {}, "all counts are zero"),
        ({"y": -1.0}, {}, "isn't all counts"),
        ({"y": 0.5}, {}, "isn't all counts"),
        ({"y": np.nan}, {}, "nobody has a measurement"),
        ({"ml": 0.0}, {}, "ml isn't above zero"),
        ({}, {"x": lambda table: table["event"] * 1.0}, "nobody with x = 0 had the event"),
        ({}, {"x": lambda table: np.where(table["event"], 3.0, table["end"] / 2)}, "x: by it somebody never has"),
        ({}, {"x": np.inf}, "isn't finite"),
    ],
)
def test_data_that_cannot_carry_the_model_are_named_before_the_fit(long, events, fault):
    given = cohort(40)
    change = {name: value(given.events) if callable(value) else value for name, value in events.items()}
    changed = replace(given, long=given.long.assign(**long), events=given.events.assign(**change))
    with pytest.raises(StatisticsError, match=fault):
        fit_joint(spec(), changed)


def test_a_reference_level_without_events_is_separation_too():
    given = cohort(80)
    stage = np.where(given.events["event"], np.where(given.events["id"] % 2, "b", "c"), "a")
    with pytest.raises(StatisticsError, match=r"stage\[T.b\] and stage\[T.c\]"):
        fit_joint(spec(event_formula="stage"), replace(given, events=given.events.assign(stage=stage)))


def test_one_visit_each_is_named():
    given = cohort(60)
    once = replace(given, long=given.long.drop_duplicates("id"))
    with pytest.raises(StatisticsError, match="once only"):
        fit_joint(spec(effects=("intercept", "slope")), once)
    with pytest.raises(StatisticsError, match="can't be told from noise"):
        fit_joint(spec("gaussian", formula="y ~ 1"), once)


def test_every_row_twice_is_named_and_some_rows_twice_are_noted():
    given = cohort(40)
    with pytest.raises(StatisticsError, match="stands there twice"):
        fit_joint(spec(), replace(given, long=pd.concat([given.long, given.long])))
    model = fit_joint(spec(), replace(given, long=pd.concat([given.long, given.long.head(2)])))
    assert any(note.startswith("2 measurement(s) share subject and time") for note in model.notes)


def test_who_is_left_out_is_noted():
    given = cohort(60)
    events = given.events.assign(x=given.events["x"].where(given.events["id"] != 5))
    events["end"] = events["end"].where(events["id"] != 7, 0.0)
    long = given.long[(given.long["id"] != 7) | (given.long["day"] == 0)]
    long = pd.concat([long, pd.DataFrame({"id": [3], "day": [-1.0], "y": [2.0], "ml": [1.0], "trt": [0.0]})])
    notes = fit_joint(spec(), replace(given, long=long, events=events)).notes
    assert "1 subject(s) whose follow-up ends at time 0 are left out." in notes
    assert "1 subject(s) with an unknown covariate are left out." in notes
    assert "1 measurement(s) from before time 0 are left out." in notes


def test_few_events_are_said():
    given = cohort(60)
    few = given.events["event"] & (given.events["event"].cumsum() <= 6)
    model = fit_joint(spec(event_formula="1"), replace(given, events=given.events.assign(event=few)))
    assert any("there are 6 events" in note for note in model.notes)
