"""Treatment effects: no immortal time, no peeking, weights that balance, figures as lifelines gives, plain words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import CoxPHFitter, KaplanMeierFitter
from sklearn.linear_model import LogisticRegression

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.decision_words import effect_facts, effect_lines
from ctc_imaging.recurrence.follow_up import FollowUp
from ctc_imaging.recurrence.treatment import (
    STATEMENT,
    decision_cohort,
    mark_on_treatment,
    split_at_start,
    treatment_effect,
    treatment_start,
)
from ctc_imaging.recurrence.treatment.interaction import METHODS
from ctc_imaging.recurrence.treatment.propensity import (
    balance,
    balancing_weights,
    effective_sample_size,
    logistic_probability,
    positivity_warnings,
    truncated,
)
from ctc_imaging.recurrence.treatment.weighted_survival import TREATED, UNTREATED, Arms, event_times

LANDMARK, GRACE, HORIZON = 30.0, 60.0, 730.0


def simulate(patients, seed, positive_ratio=0.5, negative_ratio=1.0):
    """Patients treated by invasion, which brings recurrence forward; the hazard changes when treatment starts."""
    rng = np.random.default_rng(seed)
    mvi = (rng.random(patients) < 0.4).astype(float)
    positive = rng.random(patients) < 0.45
    start = np.where(rng.random(patients) < 0.25 + 0.35 * mvi, rng.integers(25, 91, patients), np.inf)
    rate = 0.5 / 365.25 * np.exp(0.8 * mvi + 0.5 * positive)
    clock = rng.exponential(1, patients)
    ratio = np.where(positive, positive_ratio, negative_ratio)
    before = clock / rate
    after = np.where(
        np.isinf(start), np.inf, start + (clock - rate * np.where(np.isinf(start), 0, start)) / rate / ratio
    )
    event_day = np.where(before <= start, before, after)
    lost = rng.uniform(760, 2000, patients)
    stop = np.ceil(np.minimum(event_day, lost))
    ids = [f"P{number:05d}" for number in range(patients)]
    given = pd.Series(start).where(start < stop).replace(np.inf, np.nan)
    events = pd.DataFrame({"id": ids, "stop": stop, "event": event_day <= lost, "begun": given, "mvi": mvi})
    long = pd.DataFrame({"id": ids, "day": 20.0, "status": np.where(positive, "positive", "negative")})
    return FollowUp(long[long["day"] <= stop], events, "id", "day", "stop", "event")


def cohort_of(follow_up, **options):
    start = treatment_start(follow_up, "begun")
    return decision_cohort(follow_up, LANDMARK, start, **{"covariates": ["mvi"], **options})


def figure(effect, stratum, quantity):
    rows = effect.strata
    return rows[(rows["stratum"] == stratum) & (rows["quantity"] == quantity)]["estimate"].item()


@pytest.fixture(scope="module")
def many():
    return simulate(4000, seed=3)


@pytest.fixture(scope="module")
def few():
    return simulate(240, seed=5)


def clinical_follow_up(**columns):
    dates = {name: pd.to_datetime(values) for name, values in columns.items() if name.endswith("_date")}
    texts = {name: values for name, values in columns.items() if not name.endswith("_date")}
    events = pd.DataFrame(
        {"patient_id": ["A", "B", "C"], "days": [400.0, 500, 600], "event": [1, 0, 1], **dates, **texts}
    )
    long = pd.DataFrame({"patient_id": ["A", "A", "B"], "day": [30.0, 45, 30], "ctc": [3, 1, 0]})
    return FollowUp(long, events, "patient_id", "day", "days", "event")


def test_the_start_of_treatment_is_counted_from_surgery():
    followed = clinical_follow_up(
        surgery_date=["2024-01-01"] * 3,
        adjuvant_start_date=["2024-02-10", None, None],
        adjuvant_kind=["TACE", "", "TACE"],
    )
    start = treatment_start(followed)
    assert start["A"] == 40
    assert np.isinf(start["B"])
    assert np.isnan(start["C"])  # treated, but nobody knows since when


def test_a_table_without_treatment_is_refused_in_words():
    with pytest.raises(StatisticsError, match="no column adjuvant_start_date"):
        treatment_start(clinical_follow_up())
    with pytest.raises(StatisticsError, match="no column begun"):
        treatment_start(clinical_follow_up(), "begun")


def test_counts_after_the_start_are_marked_as_on_treatment():
    followed = clinical_follow_up()
    start = pd.Series({"A": 30.0, "B": np.inf, "C": 5.0})
    marked = mark_on_treatment(followed, start).long
    assert marked["on_treatment"].tolist() == [0, 1, 0]  # a sample of the first day was drawn before the treatment
    assert mark_on_treatment(followed, start.replace(30.0, np.nan)).long["on_treatment"].isna().tolist() == [1, 1, 0]


@given(start=st.one_of(st.floats(0, 120), st.just(np.inf)))
def test_cutting_follow_up_at_the_start_loses_no_day_and_no_event(start):
    rows = pd.DataFrame(
        {"patient_id": "A", "start": [0.0, 30.0, 60.0], "stop": [30.0, 60.0, 100.0], "event": [False, False, True]}
    )
    cut = split_at_start(rows, pd.Series({"A": start}))
    assert (cut["stop"] - cut["start"]).sum() == pytest.approx(100)
    assert (cut["stop"] > cut["start"]).all()
    assert cut["event"].sum() == 1
    assert cut.loc[cut["event"], "stop"].item() == 100
    on = cut[cut["on_treatment"] == 1]
    assert (on["stop"] - on["start"]).sum() == pytest.approx(max(0.0, 100 - start))


def test_the_propensity_model_is_logistic_regression():
    rng = np.random.default_rng(0)
    design = rng.normal(3, 2, (400, 3))
    outcome = rng.random(400) < 1 / (1 + np.exp(2 - design @ [0.5, -0.3, 0.2]))
    frequency = rng.integers(1, 4, 400).astype(float)
    expected = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(design, outcome, frequency)
    probability = logistic_probability(design, outcome, frequency)
    assert probability == pytest.approx(expected.predict_proba(design)[:, 1], abs=1e-4)


@given(seed=st.integers(0, 10_000))
def test_overlap_weights_balance_the_means(seed):
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(150, 3))
    treated = rng.random(150) < 1 / (1 + np.exp(-design[:, 0]))
    weights = balancing_weights(logistic_probability(design, treated, np.ones(150)), treated, "overlap", np.ones(150))
    table = balance(pd.DataFrame(design), treated, weights)
    assert table["after"].abs().max() < 1e-3
    assert table["before"].abs().max() > table["after"].abs().max()


def test_a_covariate_that_tells_the_treatment_completely_stays_finite_and_is_named():
    design = np.linspace(-1, 1, 60)[:, None]
    probability = logistic_probability(design, design[:, 0] > 0, np.ones(60))
    assert np.isfinite(probability).all()
    warnings = positivity_warnings(probability)
    assert len(warnings) == 2
    assert "nobody like them" in warnings[0]
    assert positivity_warnings(np.full(5, 0.5)) == []


def test_weights_for_the_whole_population_are_stabilised_and_truncated():
    rng = np.random.default_rng(1)
    probability = rng.uniform(0.1, 0.9, 5000)
    treated = rng.random(5000) < probability
    weights = balancing_weights(probability, treated, "whole", np.ones(5000))
    assert weights.mean() == pytest.approx(1, abs=0.05)
    assert truncated(np.append(np.ones(999), 1e6)).max() < 1e6


@given(weights=st.lists(st.floats(0.01, 10), min_size=1, max_size=30))
def test_the_effective_number_is_at_most_the_number(weights):
    assert effective_sample_size(np.array(weights)) <= len(weights) + 1e-9
    assert effective_sample_size(np.full(len(weights), 3.0)) == pytest.approx(len(weights))


@pytest.fixture(scope="module")
def weighted():
    rng = np.random.default_rng(4)
    treated = rng.random(200) < 0.4
    time = rng.exponential(500, 200) * np.where(treated, 1.5, 1)
    table = pd.DataFrame({"time": time, "event": rng.random(200) < 0.7, "treated": treated.astype(float)})
    return table.assign(weight=rng.uniform(0.2, 2, 200))


def counted_of(table, treated, entry=0.0):
    member = np.stack([~treated, treated])
    stop, event = np.where(member, table["time"], -np.inf), member & table["event"].to_numpy(bool)
    arms = Arms(entry, stop, event, event_times(stop, event, entry), np.where(member, table["weight"], 0.0))
    return arms.counted(np.ones(len(table), bool), np.ones(len(table)))


@pytest.mark.filterwarnings("ignore:It looks like your weights are not integers")
def test_weighted_survival_and_hazard_ratio_agree_with_lifelines(weighted):
    treated = weighted["treated"].to_numpy(bool)
    counts = counted_of(weighted, treated)
    for arm, rows in ((UNTREATED, weighted[~treated]), (TREATED, weighted[treated])):
        fitter = KaplanMeierFitter().fit(rows["time"], rows["event"], weights=rows["weight"])
        assert counts.survival_at(400)[arm] == pytest.approx(fitter.predict(400), abs=1e-9)
    cox = CoxPHFitter().fit(weighted, "time", "event", weights_col="weight", robust=True)
    assert counts.log_hazard_ratio() == pytest.approx(cox.params_["treated"], abs=1e-5)


def test_restricted_means_of_a_published_cohort(shared_data):
    table = pd.read_csv(shared_data / "hcc_resection" / "hepatoCellular.csv")
    table = table.assign(time=table["RFS"].astype(float), event=table["Recurrence"] == 1, weight=1.0)
    table = table.dropna(subset=["Vascularinvasion"])
    means = counted_of(table, table["Vascularinvasion"].to_numpy() == 1).restricted_mean(24)
    assert means == pytest.approx([16.403, 11.470], abs=5e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_treatment_that_does_nothing_shows_no_effect_though_the_living_are_treated(method):
    followed = simulate(4000, seed=8, positive_ratio=1.0)
    data = followed.events.assign(treated=followed.events["begun"].notna().astype(float))
    naive = CoxPHFitter().fit(data[["stop", "event", "treated", "mvi"]], "stop", "event").params_["treated"]
    assert np.exp(naive) < 0.85  # the trap: who recurs early never gets to be treated
    effect = treatment_effect(cohort_of(followed), GRACE, HORIZON, method, replicates=2)
    for stratum in ("negative", "positive"):
        assert figure(effect, stratum, "hazard_ratio") == pytest.approx(1, abs=0.15)
        assert figure(effect, stratum, "rfs_difference") == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("population", ["overlap", "whole"])
def test_an_effect_in_positive_patients_only_is_found(many, method, population):
    effect = treatment_effect(cohort_of(many), GRACE, HORIZON, method, population, replicates=2)
    assert figure(effect, "negative", "hazard_ratio") == pytest.approx(1, abs=0.15)
    assert figure(effect, "positive", "hazard_ratio") < 0.72
    assert figure(effect, "positive", "rfs_difference") > 0.12
    ratio = effect.interaction.set_index("quantity").loc["hazard_ratio", "estimate"]
    assert ratio == pytest.approx(
        figure(effect, "positive", "hazard_ratio") / figure(effect, "negative", "hazard_ratio")
    )
    assert effect.diagnostics.balance["after"].abs().max() < 0.1


def test_without_a_window_clones_and_landmark_are_one():
    followed = simulate(800, seed=2)
    followed = FollowUp(
        followed.long, followed.events.assign(begun=followed.events["begun"].where(followed.events["begun"] < 60)),
        "id", "day", "stop", "event",
    )  # fmt: skip
    cohort = decision_cohort(followed, 60, treatment_start(followed, "begun"), covariates=["mvi"])
    first, second = (treatment_effect(cohort, 0, HORIZON, method, replicates=2).strata for method in METHODS)
    pd.testing.assert_frame_equal(first[["estimate"]], second[["estimate"]], atol=1e-6)


def test_what_happens_after_the_landmark_never_changes_the_marker(few):
    later = few.long.assign(day=lambda rows: rows["day"] + 20, status="positive")
    stop = later["id"].map(few.events.set_index("id")["stop"])
    peeking = FollowUp(pd.concat([few.long, later[later["day"] <= stop]]), few.events, "id", "day", "stop", "event")
    assert (cohort_of(peeking).positive == cohort_of(few).positive).all()


def test_a_count_under_treatment_doesnt_tell_the_marker(few):
    under = few.long.assign(day=28.0, status="positive")
    stop = under["id"].map(few.events.set_index("id")["stop"])
    start = pd.Series(26.0, few.subjects)
    both = FollowUp(pd.concat([few.long, under[under["day"] <= stop]]), few.events, "id", "day", "stop", "event")
    cohort = decision_cohort(both, LANDMARK, start, covariates=["mvi"])
    assert not cohort.positive.all()
    assert any("treated before their last sample" in note for note in cohort.notes)


def test_everybody_is_in_the_cohort_or_counted_as_left_out(few):
    events = few.events.assign(mvi=few.events["mvi"].where(few.events.index % 9 != 0))
    long = few.long[few.long["id"].str[-1] != "7"]
    start = treatment_start(few, "begun").where(few.events["id"].str[-1].to_numpy() != "3")
    cohort = decision_cohort(FollowUp(long, events, "id", "day", "stop", "event"), LANDMARK, start, covariates=["mvi"])
    assert all(count > 0 for reason, count in cohort.excluded.items() if reason != "lost by the landmark")
    assert len(cohort) + sum(cohort.excluded.values()) == len(few.subjects)


def test_counts_are_positive_from_a_value_and_texts_become_levels(few):
    long = few.long.assign(ctc=np.where(few.long["status"] == "positive", 3.0, 1.0))
    events = few.events.assign(bclc=np.where(few.events["mvi"] == 1, "B", "A"), same=1.0)
    followed = FollowUp(long, events, "id", "day", "stop", "event")
    cohort = cohort_of(followed, marker="ctc", positive_from=2, covariates=["bclc", "same"])
    assert (cohort.positive == cohort_of(few).positive).all()
    assert list(cohort.covariates) == ["bclc: B"]
    assert any("same isn't balanced" in note for note in cohort.notes)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"marker": "nothing"}, "no column nothing"),
        ({"marker": "day"}, "isn't positive or negative"),
        ({"covariates": ["nothing"]}, "no column nothing"),
        ({"covariates": ["id"]}, "different texts"),
    ],
)
def test_misuse_is_named(few, options, fault):
    with pytest.raises(StatisticsError, match=fault):
        cohort_of(few, **options)


def test_too_few_treated_patients_or_a_horizon_inside_the_window_are_named(few):
    nobody = FollowUp(few.long, few.events.assign(begun=np.nan), "id", "day", "stop", "event")
    with pytest.raises(StatisticsError, match="too few patients to compare"):
        treatment_effect(cohort_of(nobody), GRACE, HORIZON)
    with pytest.raises(StatisticsError, match="before the window's end"):
        treatment_effect(cohort_of(few), GRACE, 60)


def test_follow_up_that_ends_too_early_gives_no_survival(few):
    effect = treatment_effect(cohort_of(few), GRACE, 3000, "landmark", replicates=10)
    assert np.isnan(figure(effect, "positive", "rfs_difference"))
    assert np.isfinite(figure(effect, "positive", "hazard_ratio"))
    assert any("isn't followed to 3000" in note for note in effect.notes)


def test_the_limits_hold_the_estimate_and_the_seed_decides(few):
    cohort = cohort_of(few)
    first, again = (treatment_effect(cohort, GRACE, HORIZON, replicates=60, seed=1) for _ in range(2))
    pd.testing.assert_frame_equal(first.strata, again.strata)
    assert (first.strata["low"] < first.strata["estimate"]).all()
    assert (first.strata["estimate"] < first.strata["high"]).all()
    assert first.interaction["p"].between(0, 1).all()


def test_every_output_says_that_it_is_a_hypothesis(few):
    effect = treatment_effect(cohort_of(few), GRACE, HORIZON, replicates=5)
    assert effect.statement == STATEMENT == "observational, a hypothesis"
    assert effect_facts(effect)["statement"] == STATEMENT
    lines = effect_lines(effect)
    assert STATEMENT in lines[0]
    figures = [line for line in lines if line.startswith("    ")]
    assert len(figures) == 13
    assert all(STATEMENT in line for line in figures)
