"""Survival, hazard and risk agree with published figures, never look ahead, and fail in words."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter

from ctc_imaging.counting import COUNT_COLUMNS
from ctc_imaging.errors import StatisticsError
from ctc_imaging.panel import CutOff
from ctc_imaging.recurrence import analyse
from ctc_imaging.recurrence.covariates import CTC_TERM, baseline_covariates, log2_ctc, usable_terms
from ctc_imaging.recurrence.cox import fit_time_varying, start_stop, time_varying_cox
from ctc_imaging.recurrence.landmark import CHANGE_TERM, absolute_risk, landmark_risk
from ctc_imaging.recurrence.survival import (
    kaplan_meier,
    landmark_survival,
    logrank_p_value,
    recurrence_free_times,
)
from ctc_imaging.timeline import build_timeline

SURGERY = pd.Timestamp("2020-01-01")
CUTOFF = CutOff(ctc=2, volume_ml=5, assay="simulated", source="this test")
VISITS = (-3, 7, 30, 91, 183, 365, 548)
# Remission in weeks under 6-mercaptopurine and placebo (Freireich, Blood 1963;21:699-716).
MERCAPTOPURINE = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def clinical_row(patient, end, event=False, death=None, **covariates):
    """A patient whose follow-up ends on day `end`, with recurrence if `event`."""
    days = {
        "surgery_date": 0,
        "recurrence_date": end if event else None,
        "death_date": death,
        "last_contact_date": end if death is None else death,
    }
    dates = {name: pd.NaT if day is None else SURGERY + pd.Timedelta(days=day) for name, day in days.items()}
    return {"patient_id": patient, **dates, **covariates}


def count_row(patient, day, ctc):
    date = (SURGERY + pd.Timedelta(days=day)).date().isoformat()
    return {
        "sample_id": f"{patient}_{date}",
        "patient_id": patient,
        "sample_date": date,
        "sample_kind": "patient",
        "slides": 1,
        "blood_volume_ml": 5.0,
        "assessed_volume_ml": 5.0,
        "assessable": True,
        "ctc": ctc,
        "ctc_per_ml": ctc / 5,
    }


def timeline_of(counts, clinical, landmark_day=30):
    return build_timeline(pd.DataFrame(counts, columns=list(COUNT_COLUMNS)), clinical, None, CUTOFF, landmark_day)


def simulate(patients, log_hazard_ratio, seed, mvi_log_hazard_ratio=0.7):
    """Patients whose hazard depends on the last sample's count and on microvascular invasion."""
    rng = np.random.default_rng(seed)
    counts, clinical = [], []
    starts = np.maximum(VISITS, 0)
    for number in range(patients):
        patient = f"P{number:04d}"
        mvi = rng.random() < 0.4
        ctc = rng.poisson(2 ** (rng.normal(1, 1.2) + rng.normal(0, 0.8, len(VISITS))))
        hazard = 4e-4 * np.exp(log_hazard_ratio * np.log2(1 + ctc) + mvi_log_hazard_ratio * mvi)
        passed = np.append(0, np.cumsum(hazard[:-1] * np.diff(starts)))
        target = rng.exponential()
        interval = np.searchsorted(passed, target, side="right") - 1
        event_day = starts[interval] + (target - passed[interval]) / hazard[interval]
        censored_day = rng.uniform(500, 1500)
        end = int(np.ceil(min(event_day, censored_day)))
        counts += [count_row(patient, day, found) for day, found in zip(VISITS, ctc, strict=True) if day <= end]
        clinical.append(clinical_row(patient, end, event_day <= censored_day, MVI=float(mvi), AFP=rng.lognormal(3, 2)))
    table = pd.DataFrame(clinical)
    return timeline_of(counts, table), table


@pytest.fixture(scope="module")
def simulated():
    return simulate(400, 0.4, seed=2)


def test_recurrence_free_survival_of_a_published_cohort(shared_data):
    table = pd.read_csv(shared_data / "hcc_resection" / "hepatoCellular.csv")
    months = {6: 73.1, 12: 59.9, 24: 45.0, 36: 39.2, 60: 34.4}
    for month, published in months.items():
        curve = kaplan_meier(table["RFS"], table["Recurrence"], horizon_days=month)
        assert 100 * curve.rfs_horizon[0] == pytest.approx(published, abs=0.05)
    assert curve.n == 227


def test_kaplan_meier_and_logrank_as_in_textbooks():
    # Kalbfleisch and Prentice; Kleinbaum and Klein, Survival Analysis, chapter 2: chi-square 16.79.
    event = np.arange(21) < 9
    curve = kaplan_meier(MERCAPTOPURINE, event, horizon_days=23)
    steps = dict(zip(curve.days, curve.survival, strict=True))
    expected = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert {day: round(steps[day], 3) for day in expected} == expected
    assert curve.rfs_horizon[0] == pytest.approx(0.448, abs=5e-4)
    group = ["6-MP"] * 21 + ["placebo"] * 21
    p = logrank_p_value(MERCAPTOPURINE + PLACEBO, [*event, *[True] * 21], group)
    assert p == pytest.approx(4.17e-5, rel=0.01)


def test_limits_are_log_log_of_greenwoods_variance():
    curve = kaplan_meier(MERCAPTOPURINE, np.arange(21) < 9, horizon_days=6)
    survival, low, high = curve.rfs_horizon
    half = 1.959964 * np.sqrt(3 / (21 * 18)) / abs(np.log(survival))
    assert (low, high) == pytest.approx((survival ** np.exp(half), survival ** np.exp(-half)), rel=1e-5)


def test_an_event_on_the_day_of_the_horizon_counts():
    for event_day, survival in ((730, 0.5), (731, 1.0)):
        curve = kaplan_meier([event_day, 800], [True, False], horizon_days=730)
        assert curve.rfs_horizon[0] == survival


def test_nothing_is_said_beyond_follow_up():
    assert np.isnan(kaplan_meier([100, 200], [True, False], horizon_days=730).rfs_horizon).all()
    assert kaplan_meier([100, 200], [True, True], horizon_days=730).rfs_horizon[0] == 0
    assert np.isnan(kaplan_meier([800, 900], [False, False], horizon_days=730).rfs_horizon[1:]).all()


@given(
    days=st.lists(st.integers(31, 2000), min_size=1, max_size=30),
    seed=st.integers(0, 99),
)
def test_curves_start_at_the_landmark_and_only_fall(days, seed):
    event = np.random.default_rng(seed).random(len(days)) < 0.5
    curve = kaplan_meier(days, event, landmark_day=30)
    assert (curve.days[0], curve.survival[0]) == (30, 1)
    assert (np.diff(curve.survival) <= 1e-12).all()
    known = ~np.isnan(curve.low)
    assert (curve.low[known] <= curve.survival[known]).all()
    assert (curve.survival[known] <= curve.high[known]).all()


def test_the_first_of_recurrence_and_death_is_the_event():
    rows = [clinical_row("A", 400, True), clinical_row("B", 300, death=300), clinical_row("C", 500)]
    rows.append(clinical_row("D", 200, True, death=600))
    times = recurrence_free_times(pd.DataFrame(rows))
    assert times["days"].tolist() == [400, 300, 500, 200]
    assert times["event"].tolist() == [True, True, False, True]


def landmark_cohort():
    """Six patients, of whom three reach day 30 with a pattern."""
    clinical = pd.DataFrame(
        [
            clinical_row("early event", 20, True),
            clinical_row("event on the day", 30, True),
            clinical_row("early loss", 25),
            clinical_row("no second sample", 900),
            clinical_row("negative", 900),
            clinical_row("positive", 31, True),
            clinical_row("positive too", 730, True),
            clinical_row("no sample at all", 900),
        ]
    )
    counts = [count_row(name, -3, 0) for name in clinical["patient_id"][:-1]]
    for name, ctc in (("negative", 0), ("positive", 5), ("positive too", 5)):
        counts += [count_row(name, 30, ctc), count_row(name, 60, 5 - ctc)]
    return timeline_of(counts, clinical), clinical


def test_curves_are_of_those_at_risk_at_the_landmark():
    survival, notes = landmark_survival(*landmark_cohort(), 30, 730)
    assert [(curve.group, curve.n, curve.events) for curve in survival.curves] == [
        ("persistently_negative", 1, 0),
        ("turned_positive", 2, 2),
    ]
    assert list(survival.excluded.values()) == [2, 1, 1]
    assert survival.at_risk.loc["turned_positive", [30, 182, 730]].tolist() == [2, 1, 1]
    assert survival.at_risk.loc["persistently_negative"].tolist() == [1, 1, 1, 1, 1, 0]
    assert survival.at_risk.columns.tolist() == [30, 182, 365, 548, 730, 912]
    assert survival.curves[1].rfs_horizon[0] == 0
    assert 0 < survival.logrank_p <= 1
    assert notes == []


def test_a_single_pattern_has_no_logrank_and_says_so():
    timeline, clinical = landmark_cohort()
    few = timeline[timeline["patient_id"].isin(["negative"])]
    survival, notes = landmark_survival(few, clinical, 30, 1000)
    assert survival.logrank_p is None
    assert np.isnan(survival.curves[0].rfs_horizon[0])
    assert notes == [
        "follow-up ends before day 1000 in: persistently negative.",
        "all patients at risk have one pattern, so there is nothing to compare.",
    ]


def test_patterns_are_fixed_at_the_landmark_asked_for():
    timeline, clinical = landmark_cohort()
    survival, _ = landmark_survival(timeline, clinical, 60, 730)
    assert [curve.group for curve in survival.curves] == ["turned_positive", "persistently_negative"][::-1]
    assert [curve.n for curve in survival.curves] == [1, 1]


def test_time_varying_cox_reaches_the_published_figures_on_pbc(shared_data):
    # R survival, vignette "Using time dependent covariates": log(bili) 1.241214, log(protime) 3.983400.
    table = pd.read_csv(shared_data / "pbc" / "pbc_start_stop.csv")
    rows = pd.DataFrame(
        {
            "patient_id": table["id"],
            "start": table["tstart"].astype(float),
            "stop": table["tstop"].astype(float),
            "event": table["death"] == 1,
            "log(bili)": np.log(table["bili"]),
            "log(protime)": np.log(table["protime"]),
        }
    )
    fitted = fit_time_varying(rows, ["log(bili)", "log(protime)"]).table()
    assert np.log(fitted["hazard_ratio"]).tolist() == pytest.approx([1.241214, 3.983400], abs=1e-5)
    assert fitted["term"].tolist() == ["log(bili)", "log(protime)"]


def test_time_varying_cox_recovers_the_effects(simulated):
    model, _ = time_varying_cox(*simulated)
    table = model.table.set_index("term")
    for term, truth in ((CTC_TERM, 0.4), ("MVI", 0.7), ("log2(1 + AFP)", 0.0)):
        assert table.loc[term, "low"] < np.exp(truth) < table.loc[term, "high"]
    assert table.loc[CTC_TERM, "p"] < 1e-6
    assert model.n_patients == 400
    assert model.disproportion == ()
    assert model.n_events == recurrence_free_times(simulated[1])["event"].sum()


def test_no_effect_is_found_where_there_is_none():
    table = time_varying_cox(*simulate(300, 0.0, seed=5, mvi_log_hazard_ratio=0.0))[0].table.set_index("term")
    assert table.loc[CTC_TERM, "low"] < 1 < table.loc[CTC_TERM, "high"]


def test_intervals_cut_follow_up_at_samples():
    clinical = pd.DataFrame([clinical_row("A", 100, True), clinical_row("B", 90), clinical_row("C", 50, True)])
    counts = [count_row("A", day, ctc) for day, ctc in ((-9, 7), (-3, 1), (30, 3), (60, 0), (100, 15), (200, 15))]
    counts += [count_row("B", 20, 1), count_row("C", 50, 1)]
    rows = start_stop(timeline_of(counts, clinical), clinical)
    assert rows.drop(columns="patient_id").to_numpy(dtype=float).tolist() == [
        [0, 30, 0, 1],
        [30, 60, 0, 2],
        [60, 100, 1, 0],
        [20, 90, 0, 1],
    ]


SERIES = st.dictionaries(st.integers(-10, 300), st.integers(0, 20), min_size=1, max_size=8)


@given(series=SERIES, end=st.integers(1, 250), event=st.booleans(), until=st.integers(0, 250), other=SERIES)
def test_no_interval_knows_a_later_sample(series, end, event, until, other):
    clinical = pd.DataFrame([clinical_row("A", end, event)])
    changed = {day: ctc for day, ctc in series.items() if day < until} | {
        day: ctc for day, ctc in other.items() if day >= until
    }
    halves = []
    for visits in (series, changed):
        rows = start_stop(timeline_of([count_row("A", *visit) for visit in visits.items()], clinical), clinical)
        if len(rows):
            assert rows["start"].iloc[1:].tolist() == rows["stop"].iloc[:-1].tolist()
            assert rows["stop"].iloc[-1] == end
            assert rows["event"].tolist() == [False] * (len(rows) - 1) + [event]
        # What a day up to `until` sees: the value of the interval that the day falls into.
        days = np.arange(1, min(until, end) + 1)
        place = np.searchsorted(rows["stop"], days)
        seen = [
            rows[CTC_TERM].iloc[i] if i < len(rows) and rows["start"].iloc[i] < d else None
            for i, d in zip(place, days, strict=True)
        ]
        halves.append(seen)
    assert halves[0] == halves[1]


def test_absolute_risk_is_one_minus_breslow_survival():
    rng = np.random.default_rng(3)
    terms = pd.DataFrame(rng.normal(size=(120, 2)), columns=["a", "b"])
    days = pd.Series(np.ceil(rng.exponential(400 * np.exp(-0.7 * terms["a"])))).clip(upper=700)
    data = terms.assign(days=days, event=days < 700)
    fitter = CoxPHFitter().fit(data, "days", "event")
    risk = absolute_risk(
        terms.to_numpy(),
        days.to_numpy(),
        data["event"].to_numpy(),
        fitter.params_.to_numpy(),
        fitter.variance_matrix_.to_numpy(),
    )
    np.testing.assert_allclose(risk["risk"], 1 - fitter.predict_survival_function(data, times=[700]).iloc[0], atol=1e-9)
    assert (risk["low"] < risk["risk"]).all()
    assert (risk["risk"] < risk["high"]).all()


def test_limits_of_risk_hold_the_truth_95_times_in_100():
    rng = np.random.default_rng(4)
    held = []
    for _ in range(40):
        x = rng.normal(size=150)
        days = rng.exponential(500 * np.exp(-0.6 * x))
        data = pd.DataFrame({"x": x, "days": days.clip(max=400), "event": days <= 400})
        fitter = CoxPHFitter().fit(data, "days", "event")
        estimate = fitter.params_.to_numpy(), fitter.variance_matrix_.to_numpy()
        risk = absolute_risk(x[:, None], data["days"].to_numpy(), data["event"].to_numpy(), *estimate)
        truth = 1 - np.exp(-400 / 500 * np.exp(0.6 * x))
        held.append(((risk["low"] < truth) & (truth < risk["high"])).mean())
    assert 0.90 < np.mean(held) < 0.99


def test_landmark_risk_is_calibrated_and_follows_the_count(simulated):
    timeline, clinical = simulated
    risk, notes = landmark_risk(timeline, clinical, 30, 730)
    survival, _ = landmark_survival(timeline, clinical, 30, 730)
    assert risk.n == len(risk.table) == sum(curve.n for curve in survival.curves)
    times = recurrence_free_times(clinical).loc[risk.table["patient_id"]]
    everyone = kaplan_meier(times["days"], times["event"], landmark_day=30, horizon_days=730)
    assert risk.table["risk"].mean() == pytest.approx(1 - everyone.rfs_horizon[0], abs=0.02)
    assert risk.events == (times["event"] & (times["days"] <= 730)).sum()
    assert risk.coefficients["term"].tolist() == [CTC_TERM, CHANGE_TERM, "MVI", "log2(1 + AFP)"]
    assert risk.coefficients["hazard_ratio"][0] > 1
    assert notes == []


def test_landmark_risk_knows_nothing_after_the_landmark(simulated):
    timeline, clinical = simulated
    blind = timeline.copy()
    blind.loc[blind["day"] > 30, "ctc_per_ml"] = 99.0
    pd.testing.assert_frame_equal(
        landmark_risk(timeline, clinical, 30, 730)[0].table, landmark_risk(blind, clinical, 30, 730)[0].table
    )


def test_analyse_gives_all_four_from_tables_read_from_csv(simulated, tmp_path):
    timeline, clinical = simulated
    timeline.to_csv(tmp_path / "timeline.csv", index=False)
    direct, again = analyse(timeline, clinical), analyse(pd.read_csv(tmp_path / "timeline.csv"), clinical)
    assert direct.survival.logrank_p == again.survival.logrank_p
    pd.testing.assert_frame_equal(direct.cox.table, again.cox.table)
    pd.testing.assert_frame_equal(direct.risk.table, again.risk.table)
    pd.testing.assert_frame_equal(again.incidence.table(), direct.incidence.table())
    assert again.notes == (
        "cumulative incidence of recurrence: nobody died without recurrence, so time to recurrence and "
        "recurrence-free survival are the same.",
        "landmark risk: the model is judged by nobody but the patients it was fitted to.",
    )


def test_too_few_events_become_notes():
    analysis = analyse(*simulate(9, 0.4, seed=9))
    assert analysis.survival is not None
    assert (analysis.cox, analysis.risk) == (None, None)
    assert any("a model carries one term per 10 events" in note for note in analysis.notes)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), patients=st.integers(1, 40), flat=st.booleans())
def test_no_data_crash_or_warn(seed, patients, flat):
    timeline, clinical = simulate(patients, 0.4, seed)
    if flat:
        timeline["ctc_per_ml"] = 0.2
        clinical["MVI"] = 1.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        analysis = analyse(timeline, clinical, horizon_days=365)
    assert not caught
    assert all(note.endswith(".") and "\n" not in note for note in analysis.notes)
    if flat:
        assert (analysis.cox, analysis.risk) == (None, None)


def test_a_timeline_of_other_patients_becomes_notes(simulated):
    analysis = analyse(simulated[0].assign(patient_id="X"), simulated[1])
    assert (analysis.survival, analysis.cox, analysis.risk, analysis.incidence) == (None,) * 4
    assert len(analysis.notes) == 4


def test_covariates_are_read_as_laboratories_write_them():
    clinical = pd.DataFrame(
        {
            "patient_id": ["A", "B", "C", "D"],
            "mvi": ["Yes", "M0", "M2", None],
            "AFP": [0.0, 7.0, np.nan, 1.0],
            "BCLC": ["0", "A", "B", "?"],
            "Size": [1.5, 2, 3, 4],
            "other": [1, 2, 3, 4],
        }
    )
    covariates = baseline_covariates(clinical)
    assert covariates.columns.tolist() == ["MVI", "log2(1 + AFP)", "BCLC stage", "tumour size"]
    assert covariates["MVI"].fillna(-1).tolist() == [1, 0, 1, -1]
    assert covariates["log2(1 + AFP)"].fillna(-1).tolist() == [0, 3, -1, 1]
    assert covariates["BCLC stage"].fillna(-1).tolist() == [0, 1, 2, -1]
    assert log2_ctc([0.0, 1.4]).tolist() == [0.0, 3.0]


def test_terms_that_cannot_be_used_are_named_with_their_reason():
    event = pd.Series([True, False] * 25)
    candidates = pd.DataFrame(
        {
            "ctc": np.arange(50.0),
            "constant": 1.0,
            "separates": event.astype(float),
            "unknown": [1.0, 2.0] + [np.nan] * 48,
            "gaps": [np.nan, *np.arange(49.0)],
            "one too many": np.arange(50.0) ** 2,
        }
    )
    patients, notes = usable_terms(candidates, event, "ctc", "a model")
    assert patients.columns.tolist() == ["ctc", "gaps"]
    assert len(patients) == 49
    assert [note.split(" is left out: ")[0] for note in notes[:4]] == [
        "constant",
        "separates",
        "unknown",
        "one too many",
    ]
    assert notes[4] == "1 patient(s) with an unknown covariate are left out."
    with pytest.raises(StatisticsError, match="a model: constant can't be used: it is the same in all patients"):
        usable_terms(candidates, event, "constant", "a model")
