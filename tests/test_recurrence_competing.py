"""Recurrence beside death without it: incidence, Fine and Gray, and what one says when the other is absent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.competing import (
    cause_specific_cox,
    cumulative_incidence,
    landmark_incidence,
    recurrence_causes,
)
from ctc_imaging.recurrence.cox_prediction import event_probability
from ctc_imaging.recurrence.fine_gray import fine_gray, weighted_rows
from ctc_imaging.recurrence.fitting import fit_cox
from ctc_imaging.recurrence.product_limit import product_limit

FIVE_YEARS = 5 * 365.25
TRANSPLANT, DEATH = 1, 2


def random_causes(seed, size=60):
    rng = np.random.default_rng(seed)
    stop, cause = rng.integers(1, 25, size).astype(float), rng.choice(3, size, p=[0.4, 0.35, 0.25])
    return stop, cause


def simulate(rng, size, effect=0.6):
    """Subdistribution hazard of cause 1 with this log ratio (Fine and Gray 1999), uniform censoring."""
    x, share = rng.normal(size=size), 0.5
    ever = 1 - (1 - share) ** np.exp(effect * x)
    first = rng.random(size) < ever
    own = -np.log(1 - (1 - (1 - rng.random(size) * ever) ** np.exp(-effect * x)) / share)
    time = np.where(first, own, rng.exponential(size=size))
    censored = rng.uniform(0.5, 4, size)
    cause = np.where(time <= censored, np.where(first, 1, 2), 0)
    return pd.DataFrame({"x": x, "time": np.minimum(time, censored), "cause": cause})


@pytest.fixture
def pbc(shared_data):
    """The 312 randomised; status 1 is transplant, 2 death."""
    table = pd.read_csv(shared_data / "pbc" / "pbc_baseline.csv")
    return table[table["trt"].notna()]


def test_pbc_incidence_at_five_years(pbc):
    assert len(pbc) == 312
    for cause, published in ((TRANSPLANT, 0.04406), (DEATH, 0.28374)):
        value, low, high = cumulative_incidence(pbc["time"], pbc["status"], cause).at(FIVE_YEARS)
        assert value == pytest.approx(published, abs=5e-6)
        assert low < value < high


def test_pbc_fine_gray_for_death(pbc):
    fit = fine_gray(pbc, "log(bili) + age", stop="time", cause="status", of=DEATH)
    assert fit.coefficients[0] == pytest.approx(1.01857, abs=0.02 * 0.09765)
    assert fit.coefficients[0] == pytest.approx(1.01857, abs=1e-5)
    assert fit.standard_errors[0] == pytest.approx(0.09765, rel=0.002)
    efron = fine_gray(pbc, "log(bili) + age", stop="time", cause="status", of=DEATH, ties="efron")
    assert efron.coefficients[0] == pytest.approx(1.01857, abs=0.02 * 0.09765)


def test_the_cause_specific_hazard_censors_other_causes(pbc):
    fit = cause_specific_cox(pbc, "log(bili) + age", stop="time", cause="status", of=DEATH)
    same = fit_cox(pbc.assign(dead=pbc["status"] == DEATH), "log(bili) + age", stop="time", event="dead")
    assert fit.coefficients.tolist() == same.coefficients.tolist()
    assert fit.model == "cause-specific Cox model of cause 2"


@given(seed=st.integers(0, 10_000), size=st.integers(2, 60))
def test_causes_share_out_what_kaplan_meier_loses(seed, size):
    stop, cause = random_causes(seed, size)
    times = np.unique(stop)
    total = sum(cumulative_incidence(stop, cause, of).incidence for of in (1, 2))
    np.testing.assert_allclose(total, 1 - product_limit(stop, cause > 0).survival, atol=1e-12)
    assert (np.diff(total) >= -1e-12).all()
    assert len(total) == len(times)


@given(seed=st.integers(0, 10_000), size=st.integers(5, 60))
def test_a_single_cause_has_the_limits_of_kaplan_meier(seed, size):
    stop, cause = random_causes(seed, size)
    event = cause > 0
    incidence, curve = cumulative_incidence(stop, event.astype(int), 1), product_limit(stop, event)
    known = curve.survival > 0
    greenwood = (curve.survival**2 * np.where(known, curve.greenwood, 0))[known]
    np.testing.assert_allclose(incidence.variance[known], greenwood, atol=1e-12)


def test_limits_of_incidence_hold_the_truth_95_times_in_100():
    rng = np.random.default_rng(5)
    held = []
    for _ in range(400):
        rows = simulate(rng, 100, effect=0.0)
        _, low, high = cumulative_incidence(rows["time"], rows["cause"], 1).at(1.0)
        held.append(low < 0.5 * (1 - np.exp(-1)) < high)
    assert 0.92 < np.mean(held) < 0.98


def test_incidence_isnt_told_beyond_follow_up():
    incidence = cumulative_incidence([1, 2, 3], [1, 2, 0], 1)
    assert incidence.at(3).value == pytest.approx(1 / 3)
    assert np.isnan(incidence.at(3.1)).all()
    assert np.isnan(incidence.at(0.5)[1:]).all()
    assert cumulative_incidence([1, 2], [1, 2], 1).at(99).value == 0.5


@given(seed=st.integers(0, 10_000), cut=st.floats(0.1, 0.9))
def test_late_entry_pieces_one_follow_up_together(seed, cut):
    stop, cause = random_causes(seed)
    middle = stop * cut
    whole = cumulative_incidence(stop, cause, 1)
    pieces = cumulative_incidence(
        np.append(middle, stop), np.append(0 * cause, cause), 1, start=np.append(0 * stop, middle)
    )
    assert pieces.at(12.0)[0] == pytest.approx(whole.at(12.0)[0], nan_ok=True)
    assert pieces.at(12.0)[1] == pytest.approx(whole.at(12.0)[1], nan_ok=True)


def test_fine_gray_recovers_the_ratio_with_limits():
    rng = np.random.default_rng(11)
    fits = [fine_gray(simulate(rng, 200), "x", stop="time", cause="cause", of=1) for _ in range(100)]
    estimates, errors = (np.array([getattr(fit, name)[0] for fit in fits]) for name in FIGURES)
    assert estimates.mean() == pytest.approx(0.6, abs=0.04)
    assert 0.9 < (np.abs(estimates - 0.6) < 1.96 * errors).mean() < 0.995


FIGURES = ("coefficients", "standard_errors")


def test_fine_gray_predicts_the_incidence():
    rows = simulate(np.random.default_rng(2), 3000, effect=0.0).assign(x=np.random.default_rng(0).normal(size=3000))
    fit = fine_gray(rows, "x", stop="time", cause="cause", of=1)
    predicted = event_probability(fit, pd.DataFrame({"x": [0.0]}), 0, 1.0).iloc[0]
    direct = cumulative_incidence(rows["time"], rows["cause"], 1).at(1.0)
    assert predicted["risk"] == pytest.approx(direct.value, abs=0.003)
    assert predicted["high"] - predicted["low"] == pytest.approx(direct.high - direct.low, rel=0.1)


@given(seed=st.integers(0, 10_000))
def test_without_other_causes_fine_gray_is_cox(seed):
    stop, cause = random_causes(seed)
    rows = pd.DataFrame({"stop": stop, "cause": (cause == 1) * 1, "x": np.random.default_rng(seed).normal(size=60)})
    rows["event"] = rows["cause"] == 1
    ours = fine_gray(rows, "x", stop="stop", cause="cause", of=1)
    cox = fit_cox(rows, "x", stop="stop", event="event", ties="breslow")
    np.testing.assert_allclose(ours.coefficients, cox.coefficients, rtol=1e-8)


@given(seed=st.integers(0, 10_000))
def test_without_censoring_other_causes_stay_at_risk_for_ever(seed):
    stop, cause = random_causes(seed)
    cause = np.maximum(cause, 1)
    rows = pd.DataFrame({"stop": stop, "cause": cause, "x": np.random.default_rng(seed).normal(size=60)})
    endless = rows.assign(stop=np.where(cause == 1, stop, 1e6), event=cause == 1)
    ours = fine_gray(rows, "x", stop="stop", cause="cause", of=1)
    cox = fit_cox(endless, "x", stop="stop", event="event", ties="breslow")
    np.testing.assert_allclose(ours.coefficients, cox.coefficients, rtol=1e-8)


@given(seed=st.integers(0, 10_000))
def test_weights_are_chances_of_not_being_censored(seed):
    stop, cause = random_causes(seed, 30)
    rows = weighted_rows(stop, cause, 1)
    own, prolonged = rows[: len(stop)], rows[len(stop) :]
    assert (own["fg weight"] == 1).all()
    assert not prolonged["fg event"].any()
    assert (prolonged["fg start"] < prolonged["fg stop"]).all()
    assert ((prolonged["fg weight"] > 0) & (prolonged["fg weight"] <= 1)).all()
    assert (cause[prolonged["fg row"]] == 2).all()
    for _, piece in rows.groupby("fg row"):
        assert piece["fg start"].iloc[1:].tolist() == piece["fg stop"].iloc[:-1].tolist()
        assert (np.diff(piece["fg weight"]) <= 0).all()


def test_what_cant_be_fitted_is_named():
    rows = simulate(np.random.default_rng(0), 30)
    for table, fault in (
        (rows[:0], "there are no rows"),
        (rows.assign(cause=0), "nobody has the event"),
        (rows.assign(cause=np.nan), "cause is missing in 30 of 30 rows"),
    ):
        with pytest.raises(StatisticsError, match=f"Fine-Gray model: {fault}"):
            fine_gray(table, "x", stop="time", cause="cause", of=1)


SURGERY = pd.Timestamp("2020-01-01")


def clinical_of(*patients):
    """Rows of (patient, recurrence, death, last contact) in days."""
    names = ("recurrence_date", "death_date", "last_contact_date")
    rows = [
        {"patient_id": patient, "surgery_date": SURGERY}
        | {
            name: pd.NaT if day is None else SURGERY + pd.Timedelta(days=day)
            for name, day in zip(names, days, strict=True)
        }
        for patient, *days in patients
    ]
    return pd.DataFrame(rows)


def test_the_first_of_recurrence_and_death_is_the_cause():
    clinical = clinical_of(
        ("both", 100, 300, 300), ("same day", 200, 200, 200), ("dead", None, 150, 150), ("well", None, None, 400)
    )
    causes = recurrence_causes(clinical)
    assert causes["cause"].tolist() == [1, 1, 2, 0]
    assert causes["days"].tolist() == [100, 200, 150, 400]


def timeline_of(**patterns):
    rows = [
        {"patient_id": patient, "day": day, "status": status}
        for patient, statuses in patterns.items()
        for day, status in zip((-3, 20), statuses, strict=True)
    ]
    return pd.DataFrame(rows)


def test_incidence_by_pattern_keeps_death_apart():
    up, low = ("negative", "positive"), ("negative", "negative")
    timeline = timeline_of(a=up, b=up, c=low, d=low, e=(None, "positive"), f=up)
    clinical = clinical_of(
        ("a", 100, None, 900),
        ("b", None, 200, 200),
        ("c", None, None, 900),
        ("d", 800, None, 900),
        ("e", 60, 500, 500),
        ("f", 10, None, 900),
    )
    incidence, notes = landmark_incidence(timeline, clinical, 30, 730)
    assert (incidence.everyone.n, incidence.everyone.events) == (5, {"recurrence": 3, "death without recurrence": 1})
    shares = {group.group: [share.value for share in group.by_horizon.values()] for group in incidence.groups}
    assert shares == {"persistently_negative": [0, 0], "turned_positive": [0.5, 0.5]}
    assert 0 < incidence.recurrence_p <= 1
    assert notes == []


def test_incidence_says_when_it_adds_nothing():
    clinical = clinical_of(("a", 100, None, 900), ("b", None, None, 900))
    timeline = timeline_of(a=("negative", "positive"), b=("negative", "positive"))
    incidence, notes = landmark_incidence(timeline, clinical, 30, 730)
    assert incidence.recurrence_p is None
    assert notes == ["nobody died without recurrence, so time to recurrence and recurrence-free survival are the same."]
    with pytest.raises(StatisticsError, match="no patient of the timeline is at risk on day 5000"):
        landmark_incidence(timeline, clinical, 5000, 6000)
