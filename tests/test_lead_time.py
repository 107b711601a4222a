"""Lead time: the likelihood is the integral it claims to be, truth comes back, alarms and flags are counted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from ctc_imaging.cli import main
from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.lead_time import (
    Observations,
    estimate_lead_time,
    false_alarms,
    lead_times,
    marker_lead,
    observe,
    observed_lead,
    prompted_scans,
)
from ctc_imaging.recurrence.lead_time.distributions import LEADS, log_days
from ctc_imaging.recurrence.lead_time.estimate import lead_survival
from ctc_imaging.recurrence.lead_time.likelihood import lay_out
from ctc_imaging.recurrence.lead_time.prompted import until_prompted
from ctc_imaging.recurrence.lead_time.simulation import QUARTERLY, Trial
from ctc_imaging.recurrence.lead_time.words import lead_facts, lead_lines

from .report_fixture import SURGERY as RUN_SURGERY
from .report_fixture import write_run, write_survival

SURGERY = pd.Timestamp("2024-01-10")
INF = np.inf
TRIAL = Trial("a trial", QUARTERLY)
# Log rates of relapse; logits of: precedes, since surgery, false, seen; the lead's log scale and log shape.
PARAMETERS = np.array([-6.5, -7.0, 0.6, -1.5, -3.0, 2.0, 5.0, 0.3])
KNOTS = np.array([300.0])


def observations(*patients):
    """Patients as (left, right, {day: positive})."""
    width = max(len(samples) for _, _, samples in patients)
    days = np.full((len(patients), width), INF)
    positive = np.zeros(days.shape, dtype=bool)
    for row, (_, _, samples) in enumerate(patients):
        days[row, : len(samples)], positive[row, : len(samples)] = list(samples), list(samples.values())
    names = pd.Index([f"P{number}" for number in range(len(patients))], name="patient_id")
    left, right = (np.array([patient[side] for patient in patients], dtype=float) for side in (0, 1))
    return Observations(names, left, right, days, positive)


def dates(days):
    return [SURGERY + pd.Timedelta(days=day) for day in days]


def chance_by_draws(left, right, samples, size=200_000):
    """Chance of one patient's data, by drawing relapse and onset from the model and reading the samples."""
    rng = np.random.default_rng(1)
    hazard = np.exp(PARAMETERS[:2])
    need = rng.exponential(size=size)
    first = hazard[0] * KNOTS[0]
    relapse = np.where(need < first, need / hazard[0], KNOTS[0] + (need - first) / hazard[1])
    share, since, false, seen = expit(PARAMETERS[2:6])
    lead = np.exp(PARAMETERS[6]) * rng.exponential(size=size) ** np.exp(-PARAMETERS[7])
    onset = np.where(rng.random(size) < since, 0.0, np.maximum(relapse - lead, 0.0))
    onset = np.where(rng.random(size) < share, onset, INF)
    chance = ((relapse > left) & (relapse <= right)).astype(float)
    for day, positive in samples.items():
        of_positive = np.where(day > onset, seen, false)
        chance *= of_positive if positive else 1 - of_positive
    return chance.mean(), chance.std() / np.sqrt(size)


@pytest.mark.parametrize(
    "patient",
    [
        (170.0, 265.0, {30: False, 90: True, 180: True}),
        (0.0, 95.0, {30: True}),
        (280.0, 370.0, {30: False, 90: True, 180: False, 270: True}),
        (720.0, INF, {30: False, 365: True, 700: True}),
        (400.0, INF, {30: True, 180: True, 365: True}),
        (90.0, 180.0, {}),
    ],
)
def test_the_likelihood_is_the_chance_of_the_data(patient):
    likelihood = lay_out(observations(patient), KNOTS, LEADS["weibull"])
    drawn, error = chance_by_draws(*patient)
    assert np.exp(likelihood.value_and_gradient(PARAMETERS)[0]) == pytest.approx(drawn, abs=4 * error)


@given(seed=st.integers(0, 1000), shape=st.sampled_from(["weibull", "lognormal"]))
@settings(max_examples=15, deadline=None)
def test_the_gradient_is_that_of_the_likelihood(seed, shape):
    observed = Trial("small", QUARTERLY, patients=25, since_surgery=0.3).draw(seed)
    likelihood = lay_out(observed, KNOTS, LEADS[shape])
    theta = PARAMETERS + np.random.default_rng(seed).normal(0, 0.3, len(PARAMETERS))
    steps = np.eye(len(theta)) * 1e-5
    numeric = [
        (likelihood.value_and_gradient(theta + step)[0] - likelihood.value_and_gradient(theta - step)[0]) / 2e-5
        for step in steps
    ]
    np.testing.assert_allclose(likelihood.value_and_gradient(theta)[1], numeric, atol=1e-5)


def test_what_is_estimated_is_what_the_simulator_calls_true():
    """The estimand's formula at the true parameters, against draws of another piece of code."""
    trial = Trial("exact", lead="weibull", lead_days=150, relapse_shape=1.0, relapse_scale=1000.0, since_surgery=0.25)
    leads = trial._leads(np.array([0.5, 1 - np.exp(-1)]))
    shape = np.log(np.log(2)) / np.log(leads[0] / leads[1])
    parameters = np.array([-np.log(1000.0)] * 2 + [0.0, np.log(0.25 / 0.75), 0.0, 0.0, np.log(leads[1]), np.log(shape)])
    likelihood = lay_out(observations((0.0, 90.0, {30: True})), KNOTS, LEADS["weibull"])
    days, longer = lead_survival(likelihood, parameters, 730.0)
    truth = trial.truth(730.0)
    assert np.trapezoid(longer, days) == pytest.approx(truth["mean_days"], abs=1.5)
    assert np.interp(truth["median_days"], days, longer) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("trial", [TRIAL, replace(TRIAL, visits=(7.0, 30.0, 90.0, 180.0, 365.0), since_surgery=0.3)])
def test_the_truth_comes_back_from_many_patients(trial):
    found = estimate_lead_time(replace(trial, patients=1200).draw(3))
    truth = trial.truth(730.0)
    assert found.converged
    assert found.mean_days.value == pytest.approx(truth["mean_days"], abs=25)
    assert found.mean_days.low < truth["mean_days"] < found.mean_days.high
    assert found.never_positive.low < truth["never_positive"] < found.never_positive.high
    assert found.false_positive.low < trial.false_positive < found.false_positive.high
    assert found.true_positive.low < trial.true_positive < found.true_positive.high


def test_sparse_scans_don_t_lengthen_the_estimate_as_they_do_what_is_seen():
    truth = TRIAL.truth(730.0)["mean_days"]
    rare = replace(TRIAL, patients=800, scan_every=270.0).draw(5)
    assert observed_lead(rare).mean_days > truth + 50
    assert estimate_lead_time(rare).mean_days.value == pytest.approx(truth, abs=35)


def test_the_order_of_patients_and_those_who_tell_nothing_don_t_matter():
    observed = TRIAL.draw(2)
    found = estimate_lead_time(observed)
    order = np.random.default_rng(0).permutation(len(observed.patients))
    assert estimate_lead_time(observed.take(order)).mean_days.value == pytest.approx(found.mean_days.value, abs=0.5)
    blank = np.full((1, observed.sample_days.shape[1]), INF)
    padded = Observations(
        observed.patients.append(pd.Index(["nobody"])),
        np.append(observed.left, 0.0),
        np.append(observed.right, INF),
        np.vstack([observed.sample_days, blank]),
        np.vstack([observed.positive, blank < 0]),
    )
    assert estimate_lead_time(padded).mean_days.value == pytest.approx(found.mean_days.value, abs=0.5)


@pytest.mark.parametrize("alike", [0.0, 0.5])
def test_simulated_patients_may_differ_in_how_often_they_are_seen_positive(alike):
    trial = replace(TRIAL, patients=800, turning_share=1.0, since_surgery=1.0, true_positive=0.7, true_alike=alike)
    observed = trial.draw(1)
    taken = np.isfinite(observed.sample_days)
    assert observed.positive[taken].mean() == pytest.approx(0.7, abs=0.04)
    several = taken.sum(axis=1) >= 4
    shares = observed.positive[several].sum(axis=1) / taken[several].sum(axis=1)
    assert (shares.std() > 0.25) == bool(alike)


def test_what_can_t_be_estimated_is_refused():
    few = TRIAL.draw(2).take(np.arange(8))
    with pytest.raises(StatisticsError, match="10 are the least"):
        estimate_lead_time(few)
    observed = TRIAL.draw(2)
    with pytest.raises(StatisticsError, match="no relapse was preceded by a positive"):
        estimate_lead_time(replace(observed, positive=np.zeros_like(observed.positive)))
    with pytest.raises(StatisticsError, match="no patient has both"):
        observe(pd.DataFrame({"patient_id": [], "day": [], "positive": []}), pd.DataFrame({"left": [], "right": []}))


def test_the_lead_as_seen():
    seen = observed_lead(
        observations(
            (80, 180, {30: False, 60: True, 90: True}),
            (80, 200, {30: True}),
            (80, 150, {30: False}),
            (0, 90, {}),
            (700, INF, {30: True}),
        )
    )
    assert (seen.relapses, seen.positive_first, seen.never_seen_positive, seen.without_sample) == (4, 2, 1, 1)
    assert (seen.median_days, seen.mean_days) == (145.0, 145.0)
    assert seen.quartile_days == (132.5, 157.5)


def test_false_alarms_are_episodes_that_nothing_followed():
    found = false_alarms(
        observations(
            (800, INF, {30: True, 60: True, 90: False, 180: True, 365: False}),  # two false ones, to day 365
            (400, 500, {30: True, 300: False, 450: True}),  # one 470 days before its relapse, one true
            (400, INF, {30: False, 90: True}),  # too late to tell, year ends at day 35
        ),
        window_days=365,
    )
    assert (found.alarms, found.false, found.patients, found.unresolved) == (5, 3, 2, 1)
    assert found.patient_years == pytest.approx((365 + 450 + 35) / 365.25)
    assert found.per_patient_year == pytest.approx(3 / found.patient_years)
    assert found.low < found.per_patient_year < found.high


def test_no_false_alarm_still_has_an_upper_limit():
    found = false_alarms(observations((1095, INF, {365: False, 730: False})))
    assert (found.false, found.low) == (0, 0.0)
    assert found.high == pytest.approx(3.689 / (730 / 365.25), rel=1e-3)
    assert np.isnan(false_alarms(observations((100, INF, {30: True}))).per_patient_year)


def tables_of_prompted():
    scans = pd.DataFrame(
        [(name, day, "negative") for name in "AB" for day in (90, 180, 270)]
        + [("A", 290, "positive"), ("B", 355, "positive")],
        columns=["patient_id", "day", "result"],
    )
    samples = pd.DataFrame(
        [("A", 90, True), ("A", 280, True), ("B", 340, True)], columns=["patient_id", "day", "positive"]
    )
    return samples, scans


def test_an_early_scan_after_a_positive_sample_is_flagged():
    samples, scans = tables_of_prompted()
    found = prompted_scans(samples, scans)
    # B's came when it was due, and a sample of the day of A's scan prompted nothing.
    assert found.scans.to_dict("records") == [
        {"patient_id": "A", "day": 290, "result": "positive", "sample_day": 280.0}
    ]
    assert (found.found, found.usual_days) == (1, 90.0)
    kept_samples, kept_scans, ends = until_prompted(samples, scans, found)
    assert ends.to_dict() == {"A": 280.0}
    assert kept_scans.groupby("patient_id")["day"].max().to_dict() == {"A": 270, "B": 355}
    assert len(kept_samples) == 3


def run_tables(trial, seed):
    """A simulated trial as a run's tables; AFP is the same signal with a week's delay, and rarely measured."""
    observed = trial.draw(seed)
    names = observed.patients
    relapsed = observed.relapsed
    right = np.where(relapsed, observed.right, observed.left + 1)
    clinical = pd.DataFrame({"patient_id": names, "surgery_date": SURGERY})
    clinical["last_contact_date"] = dates(np.ceil(right))
    clinical["recurrence_date"] = [
        day if hit else pd.NaT for day, hit in zip(dates(np.ceil(right)), relapsed, strict=True)
    ]
    clinical["death_date"] = pd.NaT
    rows, samples = np.nonzero(np.isfinite(observed.sample_days))
    timeline = pd.DataFrame(
        {"patient_id": names[rows], "day": np.ceil(observed.sample_days[rows, samples]).astype(int)}
    )
    timeline["status"] = np.where(observed.positive[rows, samples], "positive", "negative")
    scans = [
        pd.DataFrame({"patient_id": names, "imaging_date": dates(np.floor(observed.left)), "result": "negative"}),
        pd.DataFrame({"patient_id": names, "imaging_date": dates(np.ceil(right)), "result": "positive"})[relapsed],
    ]
    imaging = pd.concat(scans).assign(modality="CT")
    markers = pd.DataFrame({"patient_id": timeline["patient_id"], "date": dates(timeline["day"]), "marker": "afp"})
    markers["value"] = np.where(timeline["status"] == "positive", 35.0, 4.0)
    return timeline, clinical, imaging, markers


def test_a_run_s_tables_give_both_markers_on_the_same_patients():
    timeline, clinical, imaging, markers = run_tables(TRIAL, 4)
    half = set(clinical["patient_id"].iloc[::2])
    found = lead_times(timeline, clinical, imaging, markers[markers["patient_id"].isin(half)])
    ctc, afp = found.same_patients
    assert ctc.patients == afp.patients < found.ctc.patients
    # They are the same signal here.
    assert afp.estimate.mean_days == ctc.estimate.mean_days
    assert afp.alarms == ctc.alarms
    text = "\n".join(lead_lines(found))
    assert "AFP 20 or more" in text
    assert "before imaging could first see the relapse" in text
    facts = json.loads(json.dumps(lead_facts(found)))
    assert facts["ctc"]["estimate"]["mean_days"]["value"] == found.ctc.estimate.mean_days.value
    assert lead_times(timeline, clinical, imaging, markers, marker="PIVKA").same_patients == ()


def test_samples_without_a_status_or_before_surgery_tell_nothing():
    timeline, clinical, imaging, _ = run_tables(TRIAL, 4)
    more = pd.DataFrame({"patient_id": timeline["patient_id"].unique(), "day": 20, "status": None})
    before = pd.DataFrame({"patient_id": timeline["patient_id"].unique(), "day": -3, "status": "positive"})
    found = lead_times(pd.concat([timeline, more, before]), clinical, imaging)
    expected = lead_times(timeline, clinical, imaging)
    assert lead_facts(found) == lead_facts(expected)


def test_whoever_relapsed_before_the_first_sample_is_counted():
    timeline, clinical, imaging, _ = run_tables(TRIAL, 4)
    before = pd.DataFrame({"patient_id": clinical["patient_id"], "day": -3, "status": "positive"})
    everybody = lead_times(pd.concat([timeline, before]), clinical, imaging).ctc
    assert everybody.seen.without_sample > lead_times(timeline, clinical, imaging).ctc.seen.without_sample == 0
    assert everybody.patients == len(clinical)


def test_too_little_data_still_gives_what_was_seen():
    samples = pd.DataFrame({"patient_id": ["A", "B"], "day": [30, 30], "positive": [True, False]})
    intervals = pd.DataFrame({"left": [80.0, 800.0], "right": [180.0, INF]}, index=["A", "B"])
    found = marker_lead("CTC", "a rule", samples, intervals)
    assert found.estimate is None
    assert "10 are the least" in found.reason
    assert found.seen.median_days == 150.0


@pytest.fixture
def plain_tables(tmp_path):
    observed = TRIAL.draw(6)
    rows, samples = np.nonzero(np.isfinite(observed.sample_days))
    long = {"who": observed.patients[rows], "t": observed.sample_days[rows, samples]}
    long["hot"] = observed.positive[rows, samples].astype(int)
    pd.DataFrame(long).to_csv(tmp_path / "long.csv", index=False)
    found = np.where(observed.relapsed, observed.right, np.nan)
    events = pd.DataFrame({"who": observed.patients, "clear": observed.left, "seen": found})
    events.to_csv(tmp_path / "events.csv", index=False)
    options = ["recurrence", "leadtime", "--long", tmp_path / "long.csv", "--events", tmp_path / "events.csv"]
    options += ["--id", "who", "--time", "t", "--positive", "hot", "--last-negative", "clear"]
    return [str(option) for option in options], observed, events


def test_the_command_takes_any_tables(plain_tables, capsys):
    options, observed, _ = plain_tables
    assert main([*options, "--first-positive", "seen", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ctc"]["estimate"]["mean_days"]["value"] == pytest.approx(
        estimate_lead_time(observed).mean_days.value, abs=0.5
    )
    assert facts["prompted"] is None
    assert main([*options, "--first-positive", "seen"]) == 0
    assert "False alarms:" in capsys.readouterr().out


def test_the_command_says_in_one_line_what_is_wrong(plain_tables, capsys, tmp_path):
    options, _, events = plain_tables
    assert main(options) == 2
    assert "--first-positive: is missing" in capsys.readouterr().err
    events.assign(seen=1.0).to_csv(tmp_path / "events.csv", index=False)
    assert main([*options, "--first-positive", "seen"]) == 2
    error = capsys.readouterr().err
    assert "isn't after the last scan free of it" in error
    assert error.count("\n") == 1
    assert main(["recurrence", "leadtime", str(tmp_path), "--id", "who"]) == 2
    assert "is for tables" in capsys.readouterr().err


def test_the_command_reads_a_run(tmp_path, capsys):
    run = write_run(tmp_path / "run")
    write_survival(run)
    assert main(["recurrence", "leadtime", str(run)]) == 2
    assert "run it with --imaging" in capsys.readouterr().err
    clinical = pd.read_csv(run / "survival" / "clinical.csv", parse_dates=["last_contact_date", "recurrence_date"])
    rows = []
    for patient in clinical.itertuples():
        relapse = patient.recurrence_date
        days = pd.Timestamp(RUN_SURGERY) + pd.to_timedelta(np.arange(90, 1500, 90), unit="D")
        rows += [
            (patient.patient_id, day, "negative")
            for day in days
            if day < (relapse if pd.notna(relapse) else patient.last_contact_date)
        ]
        rows += [(patient.patient_id, relapse, "positive")] * pd.notna(relapse)
    imaging = pd.DataFrame(rows, columns=["patient_id", "imaging_date", "result"]).assign(modality="CT")
    imaging.to_csv(run / "survival" / "imaging.csv", index=False, date_format="%Y-%m-%d")
    assert main(["recurrence", "leadtime", str(run), "--json"]) == 0
    out, err = capsys.readouterr()
    facts = json.loads(out)
    assert facts["simulated"]
    assert "SIMULATED" in err
    assert facts["ctc"]["rule"].startswith("2 CTC or more in 5 mL (CanPatrol")
    assert facts["ctc"]["seen"]["relapses"] > 50
    assert main(["recurrence", "leadtime", str(run), "--cutoff", "zhang-2022"]) == 0
    assert "doesn't state the assay" in capsys.readouterr().err
    assert main(["recurrence", "leadtime", str(run), "--cutoff", "yu-2018"]) == 2
    assert "no sample is of that volume" in capsys.readouterr().err


@given(days=st.floats(0.01, 4000), scale=st.floats(3, 7), shape=st.floats(-1, 1.5))
@settings(deadline=None)
def test_leads_are_distributions(days, scale, shape):
    for lead in LEADS.values():
        low, high = lead.cdf_and_slopes(log_days(np.array([days, 2 * days])), scale, shape)[0]
        assert 0 <= low <= high <= 1
        assert lead.cdf_and_slopes(log_days(np.array([0.0, -5.0, -INF])), scale, shape)[0].tolist() == [0, 0, 0]
