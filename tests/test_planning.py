"""Plans: tests as lifelines gives them, Schoenfeld as the limit, error rates as promised, figures with sources."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.statistics import logrank_test
from typer.testing import CliRunner

from ctc_imaging.cli.recurrence.plan import plan
from ctc_imaging.errors import ConfigError
from ctc_imaging.recurrence import planning
from ctc_imaging.recurrence.decision_words import plan_facts, plan_lines
from ctc_imaging.recurrence.planning import Power, power_of, sample_size, schoenfeld_events
from ctc_imaging.recurrence.trial_plan import ASSUMED, Plan
from ctc_imaging.recurrence.trial_tests import Trials, interaction_test, log_rank, survival_at_horizon

# Everybody enters at once and is followed to the event: then only events count, and Schoenfeld's formula holds.
TO_THE_END = {"accrual_months": 1e-6, "follow_up_months": 1e9, "dropout_per_year": 0.0}


def trials(seed=0, count=3, patients=120, ratio=0.6):
    rng = np.random.default_rng(seed)
    treated = rng.random((count, patients)) < 0.5
    time = rng.exponential(20, (count, patients)) / np.where(treated, ratio, 1)
    censored = rng.uniform(10, 60, (count, patients))
    return Trials(np.minimum(time, censored), time <= censored, treated)


def everybody(trial):
    return [np.ones(trial.time.shape, dtype=bool)]


def rows_of(trial, number, **columns):
    return pd.DataFrame(
        {
            "time": trial.time[number],
            "event": trial.event[number],
            "treated": trial.treated[number].astype(float),
            **columns,
        }
    )


def test_the_log_rank_test_is_lifelines():
    trial = trials()
    for number, statistic in enumerate(log_rank(trial, everybody(trial), 24)):
        rows = rows_of(trial, number)
        arms = [rows[rows["treated"] == arm] for arm in (1, 0)]
        expected = logrank_test(arms[0]["time"], arms[1]["time"], arms[0]["event"], arms[1]["event"])
        assert statistic**2 == pytest.approx(expected.test_statistic, rel=1e-6)
        assert statistic < 0  # the treated do better


def test_the_test_of_survival_at_a_horizon_is_kleins():
    trial = trials(count=1)
    rows, parts = rows_of(trial, 0).sort_values("time"), []
    for arm in (1, 0):
        own = rows[rows["treated"] == arm].reset_index(drop=True)
        at_risk = len(own) - own.index
        died = own["event"] & (own["time"] <= 24)
        survival = np.prod(np.where(died, 1 - 1 / at_risk, 1))
        greenwood = np.sum(np.where(died, 1 / (at_risk * (at_risk - 1.0)), 0))
        parts.append((np.log(-np.log(survival)), greenwood / np.log(survival) ** 2))
    expected = (parts[0][0] - parts[1][0]) / np.sqrt(parts[0][1] + parts[1][1])
    assert survival_at_horizon(trial, everybody(trial), 24).item() == pytest.approx(expected)


def test_the_test_of_an_interaction_compares_coxs_estimates():
    trial = trials(count=2, patients=300)
    positive = np.random.default_rng(1).random(trial.time.shape) < 0.5
    for number, statistic in enumerate(interaction_test(trial, positive)):
        fits = [
            CoxPHFitter().fit(rows_of(trial, number)[rows], "time", "event")
            for rows in (positive[number], ~positive[number])
        ]
        values = [fit.params_["treated"] for fit in fits]
        spread = np.sqrt(sum(fit.standard_errors_["treated"] ** 2 for fit in fits))
        assert statistic == pytest.approx((values[0] - values[1]) / spread, abs=1e-3)


def test_tests_without_events_say_nothing():
    trial = replace(trials(), event=np.zeros((3, 120), dtype=bool))
    assert not log_rank(trial, everybody(trial), 24).any()
    assert not survival_at_horizon(trial, everybody(trial), 24).any()
    assert not interaction_test(trial, trial.treated).any()


def test_schoenfelds_formula_is_the_limit():
    assert schoenfeld_events(0.7, 0.8) == pytest.approx(246.8, abs=0.1)
    for ratio, wanted in ((0.7, 0.8), (0.75, 0.9)):
        events = round(schoenfeld_events(ratio, wanted))
        found = power_of(Plan(hazard_ratio=ratio, **TO_THE_END), events, 3000)
        assert found.events == events
        assert found.power == pytest.approx(wanted, abs=3 * found.error + 0.005)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"test": "rfs"},
        {"treated_share": 0.67},
        {"design": "marker-stratified"},
        {"design": "marker-stratified", "question": "overall"},
        {"design": "marker-stratified", "question": "interaction"},
        {"design": "marker-stratified", "question": "overall", "test": "rfs"},
        {"design": "cohort", "rfs_negative": 0.425},
    ],
)
def test_a_treatment_that_does_nothing_is_found_as_often_as_promised(options):
    found = power_of(Plan(hazard_ratio=1.0, **options), 160, 4000)
    assert found.power == pytest.approx(0.025, abs=0.0085)  # one of the two sides; 3.4 standard errors


def test_power_grows_with_patients_and_with_the_effect():
    powers = [power_of(Plan(), size, 600).power for size in (80, 160, 320)]
    assert powers == sorted(powers)
    effects = [power_of(Plan(hazard_ratio=ratio), 160, 600).power for ratio in (0.8, 0.65, 0.5)]
    assert effects == sorted(effects)


def test_a_test_that_errs_costs_patients():
    exact, erring = (power_of(Plan(sensitivity=value, specificity=value), 200, 800) for value in (1.0, 0.8))
    assert erring.power < exact.power - 0.05
    assert erring.screened == np.ceil(200 / (0.43 * 0.8 + 0.57 * 0.2))
    assert exact.screened == np.ceil(200 / 0.43)


@given(cells=st.integers(200, 20_000))
@settings(max_examples=8)
def test_trials_are_the_same_however_many_are_simulated_at_once(cells):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_CELLS", cells)
        found = power_of(Plan(), 60, 50)
    assert found == power_of(Plan(), 60, 50)


def test_the_search_finds_the_smallest_size_tried_that_has_the_power():
    told = []
    size = sample_size(Plan(), 0.8, 1000, progress=lambda done, total: told.append((done, total)))
    assert size.found.power >= 0.8
    assert all(one.power < 0.8 for one in size.tried if one.patients < size.found.patients)
    assert size.formula is not None
    assert size.found.events == pytest.approx(size.formula[0], rel=0.06)
    assert told[-1][0] == told[-1][1] == len(size.tried)
    assert sample_size(Plan(), 0.8, 1000).found == size.found


def test_simulated_patients_have_the_survival_that_is_assumed():
    # The cohort design of a marker without meaning: power of 'rfs' is its size, and events are what the Weibull says.
    found = power_of(Plan(rfs_negative=0.425, design="cohort", dropout_per_year=0.0, accrual_months=1e-6), 100, 400)
    assert found.events == pytest.approx(57.5, abs=1)


def test_a_difference_that_no_trial_can_show_is_named(monkeypatch):
    monkeypatch.setattr(planning, "LARGEST_TRIAL", 300)
    with pytest.raises(ConfigError, match="even 300 patients"):
        sample_size(Plan(hazard_ratio=0.99), replicates=50)
    with pytest.raises(ConfigError, match=r"1\.2 isn't between"):
        sample_size(Plan(), 1.2)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"prevalence": 0.0}, "prevalence"),
        ({"rfs_positive": 42.5}, "rfs_positive"),
        ({"sensitivity": 1.1}, "sensitivity"),
        ({"hazard_ratio": -1.0}, "hazard_ratio"),
        ({"hazard_ratio": float("nan")}, "hazard_ratio"),
        ({"dropout_per_year": 1.0}, "dropout_per_year"),
        ({"design": "crossover"}, "design"),
        ({"question": "why"}, "question"),
        ({"test": "t"}, "test"),
        ({"test": "rfs", "follow_up_months": 12.0}, "follow_up_months"),
        ({"design": "marker-stratified", "question": "interaction", "test": "rfs"}, "test"),
    ],
)
def test_plans_without_a_meaning_are_refused(options, where):
    with pytest.raises(ConfigError) as caught:
        Plan(**options)
    assert caught.value.where == where


def test_every_assumption_has_a_source():
    assert set(Plan().sources) == set(ASSUMED)
    assert "Yu 2018" in Plan().sources["prevalence"]
    given_figure = Plan(prevalence=0.3)
    assert given_figure.sources["prevalence"] == "given"
    found = Power(100, 200, 0.8, 0.01, 50.0, 1000)
    lines = "\n".join(plan_lines(given_figure, found, None))
    assert all(name in lines for name in ASSUMED)
    assert "SIMULATED" in lines
    assert "+- 1.0" in lines
    assert "SIMULATED" in plan_facts(given_figure, found, None)["statement"]


def test_the_command_gives_json_and_words():
    app = typer.Typer()
    app.command()(plan)
    few = ["--replicates", "50"]
    facts = json.loads(CliRunner().invoke(app, ["--patients", "120", "--hazard-ratio", "0.5", "--json", *few]).stdout)
    assert facts["found"]["patients"] == 120
    assert facts["sources"]["hazard_ratio"] == "given"
    words = CliRunner().invoke(
        app, ["--design", "marker-stratified", "--question", "interaction", *few, "--patients", "90"]
    )
    assert "more than CTC-negative ones" in words.stdout
    assert "50 of 50 trials simulated" in words.stderr
    assert "Schoenfeld" in CliRunner().invoke(app, [*few, "--hazard-ratio", "0.4"]).stdout
    assert isinstance(CliRunner().invoke(app, ["--prevalence", "2"]).exception, ConfigError)
