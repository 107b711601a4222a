"""The Cox fitter: published figures, the likelihood written out in full, what can't be fitted, nobody looks ahead."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifelines import CoxPHFitter, CoxTimeVaryingFitter

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.concordance import compared_pairs, concordance, count_greater
from ctc_imaging.recurrence.cox import intervals_of
from ctc_imaging.recurrence.cox_prediction import baseline_hazard, event_probability
from ctc_imaging.recurrence.fitting import fit_cox
from ctc_imaging.recurrence.follow_up import FollowUp
from ctc_imaging.recurrence.landmark_cox import LandmarkCox
from ctc_imaging.recurrence.landmark_terms import known_at
from ctc_imaging.recurrence.partial_likelihood import PartialLikelihood
from ctc_imaging.recurrence.proportional import disproportion_notes, proportional_hazards_test, smoothed_ratios
from ctc_imaging.recurrence.supermodel import SuperModel, stack_landmarks

TIMES = {"start": "start", "stop": "stop", "event": "event"}
ONCE = {"stop": "stop", "event": "event"}


def agrees(value, published, error):
    """Within 2 % of the standard error."""
    return value == pytest.approx(published, abs=0.02 * error)


def random_rows(seed, size=60, tied=True):
    """Intervals with late entry, ties, two covariates, weights and strata."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 2))
    start = rng.integers(0, 6, size) * 1.0
    length = np.ceil(rng.exponential(8 * np.exp(-0.5 * x[:, 0]))) if tied else rng.exponential(8, size) + 0.01
    return pd.DataFrame(
        {
            "start": start,
            "stop": start + length,
            "event": rng.random(size) < 0.7,
            "a": x[:, 0],
            "b": 5 + 100 * x[:, 1],
            "weight": rng.integers(1, 4, size) * 0.5,
            "site": rng.integers(0, 2, size),
        }
    )


def log_likelihood_in_full(rows, beta, ties):
    """Cox's partial likelihood as it stands in books, risk set by risk set."""
    predictor = rows[["a", "b"]].to_numpy() @ beta
    relative, total = rows["weight"].to_numpy() * np.exp(predictor), 0.0
    for (site, time), dead in rows[rows["event"]].groupby(["site", "stop"]):
        at_risk = (rows["site"] == site) & (rows["start"] < time) & (rows["stop"] >= time)
        weight = rows.loc[dead.index, "weight"]
        total += weight @ predictor[dead.index]
        for number in range(len(dead)):
            gone = number / len(dead) if ties == "efron" else 0.0
            left = relative[at_risk].sum() - gone * relative[dead.index].sum()
            total -= weight.mean() * np.log(left)
    return total


@pytest.fixture(scope="module")
def pbc_visits():
    """Simulated visits: a marker drives the event."""
    rng = np.random.default_rng(8)
    rows, ends = [], []
    for number in range(250):
        level, slope = rng.normal(1, 0.7), rng.normal(0.1, 0.2)
        visits = np.arange(0, 6, 0.5)
        hazard = 0.12 * np.exp(0.9 * (level + slope * visits) - 0.9)
        passed = np.cumsum(hazard * 0.5)
        place = np.searchsorted(passed, rng.exponential())
        event_time = (place + rng.random()) * 0.5 if place < len(visits) else 9.0
        end, censored = min(event_time, 9.0), rng.uniform(2, 8)
        last = min(end, censored)
        ends.append({"id": f"S{number}", "years": last, "died": event_time <= censored, "age": rng.normal(60, 9)})
        marker = level + slope * visits + rng.normal(0, 0.2, len(visits))
        rows += [{"id": f"S{number}", "year": t, "marker": m} for t, m in zip(visits, marker, strict=True) if t <= last]
    return FollowUp(pd.DataFrame(rows), pd.DataFrame(ends), "id", "year", "years", "died", "years")


# Published figures


def test_pbc_start_stop_as_in_r_by_default(shared_data):
    rows = pd.read_csv(shared_data / "pbc" / "pbc_start_stop.csv")
    fit = fit_cox(rows, "log(bili) + log(protime)", start="tstart", stop="tstop", event="death", id="id")
    assert agrees(fit.coefficients[0], 1.241214, 0.096969)
    assert agrees(fit.coefficients[1], 3.983400, 0.435886)
    assert fit.standard_errors == pytest.approx([0.096969, 0.435886], rel=0.001)
    assert fit.log_likelihood == pytest.approx(-473.937328, abs=1e-3)
    assert fit.events == 125


def sysucc_intervals(folder):
    """Visits cut follow-up; who has one on the last day of follow-up, or after it, has no interval for the event."""
    visits = pd.read_csv(folder / "hcc_sysucc_series" / "dtsdhcc_long.csv").sort_values(["id", "day"], kind="stable")
    visits = visits.drop_duplicates(["id", "day"], keep="last")
    survival = visits["os_day_from_first"].clip(lower=0.5)
    following = visits.groupby("id")["day"].shift(-1)
    visits["stop"] = np.minimum(following.fillna(survival), survival)
    visits["event"] = (visits["death"] == 1) & following.isna()
    return visits[visits["day"] < visits["stop"]].rename(columns={"day": "start"})


def test_afp_over_time_in_2360_patients(shared_data):
    rows = sysucc_intervals(shared_data)
    formula = "vascular_invasion + distant_met + child_pugh + largest_mm + np.log2(afp + 1)"
    fit = fit_cox(rows, formula, **TIMES, id="id")
    assert (len(rows), fit.events) == (11_535, 1_239)
    assert agrees(fit.coefficients[-1], 0.0687667, 0.0063518)
    assert fit.standard_errors[-1] == pytest.approx(0.0063518, rel=0.001)


def test_hcc_resection_concordance_and_proportional_hazards(shared_data):
    rows = pd.read_csv(shared_data / "hcc_resection" / "hepatoCellular.csv")
    formula = "AFP + Tumorsize + Vascularinvasion + Tumormultiplicity + CXCL17T"
    fit = fit_cox(rows, formula, stop="RFS", event="Recurrence")
    assert fit.concordance() == pytest.approx(0.685, abs=5e-4)
    table = proportional_hazards_test(fit)
    assert table.index.tolist() == [*formula.split(" + "), "global"]
    assert table.loc["global", "p"] == pytest.approx(0.0017, abs=5e-5)
    assert table.loc["global", "df"] == 5
    (note,) = disproportion_notes(fit)
    assert note.startswith("the hazard ratio changes over time: AFP (P = 0.04), Vascularinvasion (P = 0.0042)")


# The likelihood


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@given(seed=st.integers(0, 10_000), a=st.floats(-2, 2), b=st.floats(-0.02, 0.02))
def test_the_likelihood_is_the_one_in_books(ties, seed, a, b):
    rows, beta = random_rows(seed, 25), np.array([a, b])
    design = rows[["a", "b"]].to_numpy()
    likelihood = PartialLikelihood(
        design, rows["stop"], rows["event"], rows["start"], rows["weight"], rows["site"], ties
    )
    if not rows["event"].any():
        return
    at = likelihood.evaluate(beta)
    assert at.log_likelihood == pytest.approx(log_likelihood_in_full(rows, beta, ties), rel=1e-9)
    scale, step = np.array([1.0, 0.01]), 1e-5
    for column in range(2):
        nudge = step * scale[column] * np.eye(2)[column]
        after, before = likelihood.evaluate(beta + nudge), likelihood.evaluate(beta - nudge)
        slope = (after.log_likelihood - before.log_likelihood) / (2 * nudge[column])
        assert at.score[column] == pytest.approx(slope, rel=1e-4, abs=1e-4 / scale[column])
        bend = (before.score - after.score) / (2 * nudge[column])
        np.testing.assert_allclose(likelihood.information(at)[column], bend, rtol=1e-4, atol=1e-4 / scale[column] ** 2)


@given(seed=st.integers(0, 10_000))
def test_residuals_share_out_the_score(seed):
    rows = random_rows(seed)
    likelihood = PartialLikelihood(
        rows[["a"]].to_numpy(), rows["stop"], rows["event"], rows["start"], rows["weight"], rows["site"]
    )
    at = likelihood.evaluate(np.array([0.3]))
    for residuals in (likelihood.score_residuals(at), likelihood.schoenfeld_residuals(at)):
        np.testing.assert_allclose(residuals.sum(axis=0), at.score, atol=1e-9)


def test_coefficients_and_errors_equal_those_of_lifelines():
    rows = random_rows(3, 400).assign(id=np.arange(400))
    ours = fit_cox(rows, ["a", "b"], **TIMES, strata=["site"])
    columns = {"id_col": "id", "event_col": "event", "start_col": "start", "stop_col": "stop"}
    theirs = CoxTimeVaryingFitter().fit(
        rows.drop(columns="weight"), **columns, strata="site", fit_options={"step_size": 0.5, "precision": 1e-9}
    )
    assert ours.coefficients == pytest.approx(theirs.params_.to_numpy(), abs=1e-6)
    assert ours.standard_errors == pytest.approx(theirs.standard_errors_.to_numpy(), rel=1e-6)


def test_robust_errors_equal_those_of_lifelines():
    rows = random_rows(5, 300, tied=False).assign(start=0.0, id=np.arange(300) % 100)
    ours = fit_cox(rows, ["a", "b"], **ONCE, cluster="id")
    theirs = CoxPHFitter().fit(
        rows[["stop", "event", "a", "b", "id"]], "stop", "event", cluster_col="id", fit_options={"precision": 1e-9}
    )
    assert ours.standard_errors == pytest.approx(theirs.standard_errors_.to_numpy(), rel=1e-5)
    assert not np.allclose(ours.covariance, ours.naive_covariance)


@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 0.9))
def test_cutting_an_interval_in_two_changes_nothing(seed, share):
    rows = random_rows(seed).assign(id=np.arange(60))
    cut = rows["start"] + share * (rows["stop"] - rows["start"])
    halves = pd.concat([rows.assign(stop=cut, event=False), rows.assign(start=cut)])
    for options in ({"id": "id"}, {"cluster": "id"}, {"strata": ["site"]}, {"weights": "weight"}):
        whole, split = (fit_cox(table, ["a", "b"], **TIMES, **options) for table in (rows, halves))
        np.testing.assert_allclose(split.coefficients, whole.coefficients, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(split.covariance, whole.covariance, rtol=1e-6)
        assert split.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-12)


@given(seed=st.integers(0, 10_000))
def test_only_the_order_of_times_and_the_scale_of_covariates_matter(seed):
    rows = random_rows(seed)
    fit = fit_cox(rows, ["a", "b"], **TIMES, weights="weight")
    stretched = rows.assign(start=rows["start"] ** 2 / 30, stop=rows["stop"] ** 2 / 30)
    for other in (stretched, rows.sample(frac=1, random_state=seed)):
        again = fit_cox(other, ["a", "b"], **TIMES, weights="weight")
        np.testing.assert_allclose(again.coefficients, fit.coefficients, rtol=1e-7, atol=1e-10)
    scaled = fit_cox(rows.assign(a=1000 - 50 * rows["a"]), ["a", "b"], **TIMES, weights="weight")
    np.testing.assert_allclose(scaled.coefficients * [-50, 1], fit.coefficients, rtol=1e-7, atol=1e-10)
    assert scaled.concordance() == pytest.approx(fit.concordance())


def test_a_weight_of_two_is_a_subject_twice():
    rows = random_rows(6, 80, tied=False)
    twice = pd.concat([rows, rows[rows["a"] > 0]])
    fits = [
        fit_cox(rows.assign(weight=1 + (rows["a"] > 0)), ["a", "b"], **TIMES, weights="weight", ties="breslow"),
        fit_cox(twice, ["a", "b"], **TIMES, ties="breslow"),
    ]
    assert fits[0].coefficients == pytest.approx(fits[1].coefficients)
    assert fits[0].covariance == pytest.approx(fits[1].covariance)


def test_a_stratum_has_a_baseline_of_its_own():
    rows = random_rows(9, 200)
    late = rows.assign(**{name: rows[name] + 500 * rows["site"] for name in ("start", "stop")})
    fits = [fit_cox(table, ["a"], **TIMES, strata=["site"]) for table in (rows, late)]
    assert fits[0].coefficients == pytest.approx(fits[1].coefficients)
    assert fits[0].strata == (0, 1)
    assert baseline_hazard(fits[1], 1)[0].min() > 500


def test_a_formula_means_what_it_means_in_lifelines():
    rows = random_rows(2, 300).assign(stage=np.random.default_rng(2).choice(["A", "B", "C"], 300))
    formula = "a * C(stage) + np.log(weight)"
    ours = fit_cox(rows.assign(start=0.0), formula, **ONCE)
    theirs = CoxPHFitter().fit(rows, "stop", "event", formula=formula, fit_options={"precision": 1e-9})
    assert dict(zip(ours.names, ours.coefficients, strict=True)) == pytest.approx(dict(theirs.params_), abs=1e-6)
    assert ours.design.terms["C(stage)"] == (1, 2)
    assert proportional_hazards_test(ours).loc["C(stage)", "df"] == 2


# What can't be fitted


def faulty(message, rows=None, terms=("a",), **options):
    with pytest.raises(StatisticsError, match=message):
        fit_cox(random_rows(1) if rows is None else rows, list(terms), **{**TIMES, **options})


def test_what_makes_a_fit_impossible_is_named_before_it():
    rows = random_rows(1).assign(id=np.arange(60), one=1.0)
    faulty("nobody has the event; follow more patients", rows.assign(event=False))
    faulty("one is the same in all rows; leave it out", rows, ["a", "one"])
    faulty("there is no column age; the table has start, stop", rows, ["age"])
    faulty("a is missing in 1 of 60 rows", rows.assign(a=rows["a"].where(rows.index > 0)))
    faulty("3 interval\\(s\\) end before they begin", rows.assign(stop=rows["stop"].where(rows.index > 2, -1)))
    faulty("b follows exactly from the other covariates", rows.assign(b=2 * rows["a"] + 7), ["a", "b"])
    faulty("0, 1, 2 and 27 more has the same interval twice", pd.concat([rows, rows.head(30)]), id="id")
    faulty("7 has overlapping intervals", pd.concat([rows, rows[7:8].assign(start=-1.0)]), id="id")
    faulty("there are no rows", rows[:0])
    faulty("weight isn't positive in every row", rows.assign(weight=0.0), weights="weight")
    faulty("a time is missing or infinite", rows.assign(stop=np.inf))
    with pytest.raises(StatisticsError, match="the formula 'a \\+' can't be read"):
        fit_cox(rows, "a +", **TIMES)
    with pytest.raises(StatisticsError, match="isn't a finite number in every row"):
        fit_cox(rows.assign(a=0.0), "np.log(a + site)", **TIMES)


def test_a_covariate_that_tells_the_event_apart_is_named():
    rows = random_rows(1)
    rows["late"] = (rows["stop"] > rows["stop"].median()).astype(float)
    times = rows.assign(start=0.0, stop=np.arange(60.0) + 1, event=np.arange(60) < 30)
    faulty("always the highest of those at risk", times.assign(mark=times["event"] * 1.0), ["a", "mark"])
    faulty("always the lowest of those at risk", times, ["a", "stop"])
    # Neither does alone, both do together: mark is their sum.
    mark, noise = times["event"] * 1.0, np.random.default_rng(0).normal(size=60)
    faulty("together the covariates tell the event apart", times.assign(c=mark + noise, d=-noise), ["c", "d"])


@given(seed=st.integers(0, 100_000), size=st.integers(2, 12))
def test_small_data_are_fitted_or_refused_in_words(seed, size):
    rows = random_rows(seed, size)
    try:
        fit = fit_cox(rows, ["a", "b"], **TIMES)
    except StatisticsError:
        return
    assert np.isfinite(fit.table()[["hazard_ratio", "p"]].to_numpy()).all()
    assert np.abs(fit.likelihood.evaluate(fit.coefficients * fit.scale).score).max() < 1e-4


# Concordance and proportional hazards


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40))
def test_pairs_are_counted_as_by_hand(seed, size):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, size)
    prefix, floor = rng.integers(0, size + 1, 10), rng.integers(0, values.max() + 1, 10)
    by_hand = [(values[:p] > f).sum() for p, f in zip(prefix, floor, strict=True)]
    assert count_greater(values, prefix, floor).tolist() == by_hand
    start, event = rng.integers(0, 8, size), rng.random(size) < 0.5
    stop = start + rng.integers(1, 6, size)
    for begin in (None, start):
        greater, equal, less = compared_pairs(values, stop, event, begin)
        for place, i in enumerate(np.flatnonzero(event)):
            at_risk = (stop > stop[i]) | ((stop == stop[i]) & ~event)
            at_risk &= True if begin is None else start < stop[i]
            others = values[at_risk]
            counts = [(others > values[i]).sum(), (others == values[i]).sum(), (others < values[i]).sum()]
            assert [greater[place], equal[place], less[place]] == counts


def test_concordance_of_nobody_is_unknown():
    assert np.isnan(concordance([1.0, 2.0], [3, 3], [True, True]))


def test_a_ratio_that_changes_is_found_and_a_constant_one_isnt():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, 500).astype(float)
    # x doubles the hazard before time 1 and halves it afterwards.
    target = rng.exponential(size=500)
    early, late = np.exp(0.9 * x), np.exp(-0.9 * x)
    changing = np.where(target < early, target / early, 1 + (target - early) / late)
    constant = rng.exponential(np.exp(-0.9 * x))
    for stop, changes in ((changing, True), (constant, False)):
        fit = fit_cox(pd.DataFrame({"stop": stop, "event": stop < 3, "x": x}), ["x"], **ONCE)
        assert (proportional_hazards_test(fit).loc["x", "p"] < 1e-4) == changes
        assert bool(disproportion_notes(fit)) == changes
        curve = smoothed_ratios(fit, "x")
        if changes:
            assert curve["coefficient"].iloc[20] > 0.3 > -0.3 > curve["coefficient"].iloc[-20]
        assert curve["residual"].mean() == pytest.approx(fit.coefficients[0], abs=0.05)


def test_false_alarms_of_the_test_are_as_rare_as_promised():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(200):
        x = rng.normal(size=120)
        stop = rng.exponential(np.exp(-0.5 * x))
        rows = pd.DataFrame({"x": x, "stop": stop.clip(max=2), "event": stop < 2})
        found.append(proportional_hazards_test(fit_cox(rows, ["x"], **ONCE)).loc["global", "p"] < 0.05)
    assert 0.01 < np.mean(found) < 0.1


@given(seed=st.integers(0, 1000))
def test_the_test_over_time_doesnt_depend_on_units(seed):
    rows = random_rows(seed)
    p = [
        proportional_hazards_test(fit_cox(table, ["a", "b"], **TIMES, strata=["site"]), scale)["p"]
        for table in (rows, rows.assign(b=rows["b"] / 30, start=rows["start"] / 30, stop=rows["stop"] / 30))
        for scale in ("km", "rank", "identity", "log")
    ]
    for one, other in zip(p[:4], p[4:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


# Prediction


def test_limits_of_a_prediction_hold_the_truth_95_times_in_100():
    rng = np.random.default_rng(4)
    held = []
    for _ in range(60):
        x = rng.normal(size=150)
        days = rng.exponential(500 * np.exp(-0.6 * x))
        rows = pd.DataFrame({"x": x, "stop": days.clip(max=400), "event": days <= 400})
        risk = event_probability(fit_cox(rows, ["x"], **ONCE), rows, 100, 400)
        truth = 1 - np.exp(-300 / 500 * np.exp(0.6 * x))
        held.append(((risk["low"] < truth) & (truth < risk["high"])).mean())
    assert 0.91 < np.mean(held) < 0.985


def test_nobody_is_at_risk_where_nothing_happened(pbc_visits):
    rows = random_rows(0)
    found = event_probability(fit_cox(rows, ["a"], **TIMES), rows, 5000, 6000)
    assert (found["risk"] == 0).all()
    assert found[["low", "high"]].isna().all(axis=None)


def altered_future(history, landmark, seed):
    """The same history, with every later measurement and every outcome made up anew."""
    rng = np.random.default_rng(seed)
    long, events = history.long.copy(), history.events.copy()
    later = long["year"] > landmark
    long.loc[later, "marker"] = rng.normal(50, 10, later.sum())
    events["died"] = rng.random(len(events)) < 0.5
    events["years"] = events["years"].clip(lower=landmark) + rng.exponential(5, len(events))
    return FollowUp(long, events, "id", "year", "years", "died")


PREDICTORS = (
    LandmarkCox(("marker",), "marker + marker_slope + age", ("last", "slope")),
    LandmarkCox(("marker",)),
    SuperModel(("marker",), (1.0, 1.5, 2.0, 2.5, 3.0), 2.0, "marker + age", degree=1),
)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_predictions_know_nothing_after_the_landmark(predictor, pbc_visits):
    fitted = predictor(pbc_visits)
    history = pbc_visits.at(2.0)
    whole = pbc_visits.subset(history.subjects)
    risk = fitted.risk(history, 2.0, [3.0, 4.0])
    assert risk.index.tolist() == history.subjects.tolist()
    assert risk.columns.tolist() == [3.0, 4.0]
    assert ((risk >= 0) & (risk <= 1)).all(axis=None)
    assert (risk[3.0] <= risk[4.0] + 0.05).all()
    for seed in range(3):
        pd.testing.assert_frame_equal(fitted.risk(altered_future(whole, 2.0, seed), 2.0, [3.0, 4.0]), risk)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_predictions_are_calibrated_and_have_limits(predictor, pbc_visits):
    fitted, history = predictor(pbc_visits), pbc_visits.at(2.0)
    found = fitted.limits(history, 2.0, 4.0)
    assert (found["low"] < found["risk"]).all()
    assert (found["risk"] < found["high"]).all()
    after = history.events.set_index("id")
    known = (after["years"] > 4.0) | after["died"]
    observed = (after["died"] & (after["years"] <= 4.0))[known].mean()
    assert found["risk"].mean() == pytest.approx(observed, abs=0.08)


def test_the_super_model_says_where_it_cant_say(pbc_visits):
    fitted = PREDICTORS[2](pbc_visits)
    assert fitted.risk(pbc_visits.at(2.0), 2.0, [4.5]).isna().all(axis=None)
    assert fitted.risk(pbc_visits.at(3.5), 3.5, [4.0]).isna().all(axis=None)
    with pytest.raises(StatisticsError, match="2 landmark\\(s\\) can't carry a polynomial of degree 2"):
        SuperModel(("marker",), (1.0, 2.0), 2.0)(pbc_visits)


def test_a_super_model_of_one_landmark_is_the_landmark_model(pbc_visits):
    only = SuperModel(("marker",), (2.0,), 2.0, "marker + age", degree=0)(pbc_visits)
    single, history = LandmarkCox(("marker",), "marker + age")(pbc_visits), pbc_visits.at(2.0)
    assert only.cox.names == ("marker", "age")
    found, expected = (model.limits(history, 2.0, 4.0) for model in (only, single))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6)


def test_ratios_of_the_super_model_are_smooth_in_the_landmark(pbc_visits):
    smooth = PREDICTORS[2](pbc_visits)
    table = smooth.coefficients_at(2.0).set_index("term")
    assert table.loc["marker", "low"] < 0.9 < table.loc["marker", "high"]
    assert smooth.cox.names == ("marker", "marker x s", "age", "age x s", "s")
    assert smooth.subjects == len(pbc_visits.at(1.0).events)


def test_stacked_rows_stay_within_landmark_and_window(pbc_visits):
    rows = stack_landmarks(pbc_visits, PREDICTORS[2])
    assert (rows["stop"] > rows["start"]).all()
    assert (rows["stop"] <= rows["start"] + 2.0).all()
    assert not rows.duplicated(["subject", "landmark"]).any()
    ends = pbc_visits.events.set_index("id")
    reached = rows["subject"].map(ends["years"]) <= rows["start"] + 2.0
    assert (rows["event"] == (rows["subject"].map(ends["died"]) & reached)).all()


def test_summaries_at_a_landmark():
    long = pd.DataFrame(
        {"id": list("AAAABB"), "day": [0, 1, 2, 9, 0, 3], "ctc": [1.0, 3.0, np.nan, 50.0, 4.0, 8.0], "arm": "long"}
    )
    events = pd.DataFrame({"id": list("ABC"), "end": [10, 10, 10], "dead": [1, 0, 0], "arm": ["x", "y", "y"]})
    history = FollowUp(long, events, "id", "day", "end", "dead")
    known = known_at(history, 2.0, ["ctc"], ["last", "slope", "mean"])
    assert known.columns.tolist() == ["arm", "ctc", "ctc_slope", "ctc_mean"]
    assert known.loc["A"].tolist() == ["x", 3.0, 2.0, 2.0]
    assert known.loc["B"].tolist() == ["y", 4.0, 0.0, 4.0]
    assert known.loc["C", "ctc":].isna().all()


def test_any_two_tables_are_cut_at_the_measurements(shared_data):
    long = pd.read_csv(shared_data / "aids" / "aids_long.csv")
    ends = pd.read_csv(shared_data / "aids" / "aids_id.csv")[["patient", "Time", "death", "gender"]]
    cut = intervals_of(FollowUp(long, ends, "patient", "obstime", "Time", "death"))
    assert cut[["start", "stop"]].to_numpy() == pytest.approx(long[["start", "stop"]].to_numpy())
    assert cut["event"].tolist() == long["event"].astype(bool).tolist()
    assert cut["CD4"].tolist() == long["CD4"].tolist()
    fit = fit_cox(cut, "CD4 + drug", **TIMES, id="patient", cluster="patient")
    theirs = fit_cox(long, "CD4 + drug", **TIMES)
    assert fit.coefficients == pytest.approx(theirs.coefficients)
    assert fit.events == 188


def test_values_are_carried_forward_and_events_close_the_last_interval():
    long = pd.DataFrame({"id": list("AAAB"), "day": [0, 5, 5, 2], "ctc": [3.0, 9.0, np.nan, 1.0], "afp": [1, 2, 3, 4]})
    ends = pd.DataFrame({"id": list("ABC"), "end": [9, 2, 4], "died": [1, 1, 0], "arm": ["x", "y", "y"]})
    cut = intervals_of(FollowUp(long, ends, "id", "day", "end", "died"))
    assert cut[["id", "start", "stop", "event", "ctc", "arm"]].to_numpy().tolist() == [
        ["A", 0.0, 5.0, False, 3.0, "x"],
        ["A", 5.0, 9.0, True, 3.0, "x"],
    ]


def test_subjects_without_a_measurement_get_no_risk(pbc_visits):
    known = pbc_visits.at(2.0)
    gone = known.subjects[0]
    blind = FollowUp(known.long[known.long["id"] != gone], known.events, "id", "year", "years", "died")
    for predictor in PREDICTORS:
        risk = predictor(pbc_visits).risk(blind, 2.0, [3.0])[3.0]
        assert risk.isna().tolist() == [True] + [False] * (len(risk) - 1)
