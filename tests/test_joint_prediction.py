"""Dynamic prediction by the joint model: no peeking, limits, agreement with simulation, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ctc_imaging.errors import ConfigError, StatisticsError
from ctc_imaging.recurrence.follow_up import FollowUp
from ctc_imaging.recurrence.joint import (
    JointPredictor,
    JointPredictorFit,
    JointSpec,
    MarkerSpec,
    fit_joint,
    predict_patient,
)
from ctc_imaging.recurrence.joint.prediction import updates

SPEC = JointSpec((MarkerSpec("y ~ day + trt", "negative-binomial", ("intercept",), "ml"),), "x")
LEVEL_SD, K, TREND, ASSOCIATION, EFFECT = 0.8, 4.0, 0.1, 0.7, 0.5
RATE = 0.15


def cohort(size, seed, followed=(2.0, 5.0)) -> FollowUp:
    """SIMULATED subjects with a hazard that follows the log rate of their counts."""
    rng = np.random.default_rng(seed)
    level, x = rng.normal(0.5, LEVEL_SD, size), rng.integers(0, 2, size) * 1.0
    scale = RATE * np.exp(ASSOCIATION * level + EFFECT * x)
    # The trend alone drives the hazard on: its integral can be turned round.
    drift = ASSOCIATION * TREND
    end_event = np.log1p(rng.exponential(1, size) * drift / scale) / drift
    censored = rng.uniform(*followed, size)
    end = np.minimum(end_event, censored)
    day = np.tile([0.0, 0.25, 0.5, 1.0, 1.5, 2.0], (size, 1)) + rng.uniform(0, 0.02, (size, 6))
    day[:, 0] = 0.0
    volume = rng.choice([0.5, 1.0, 2.0], day.shape)
    y = rng.poisson(np.exp(level[:, None] + TREND * day) * volume * rng.gamma(K, 1 / K, day.shape)) * 1.0
    who = np.broadcast_to(np.arange(size)[:, None], day.shape)
    seen = day < end[:, None]
    long = pd.DataFrame({"id": who[seen], "day": day[seen], "y": y[seen], "ml": volume[seen]})
    long["trt"] = (long["day"] > 0.9) * (long["id"] % 3 == 0) * 1.0
    events = pd.DataFrame({"id": np.arange(size), "end": end, "event": end_event <= censored, "x": x})
    return FollowUp(long, events, "id", "day", "end", "event", "years")


@pytest.fixture(scope="module")
def model():
    fitted = fit_joint(SPEC, cohort(500, 1))
    assert fitted.converged
    return fitted


@pytest.fixture(scope="module")
def others():
    """Subjects that the model hasn't seen, followed for long."""
    return cohort(80, 2, (4.0, 4.5))


def one_of(follow_up, number):
    return follow_up.subset([follow_up.subjects[number]])


@given(
    number=st.integers(0, 79),
    landmark=st.floats(0, 2.5),
    count=st.integers(0, 500),
    end=st.floats(2.6, 4.9),
    event=st.booleans(),
)
def test_nothing_after_the_landmark_is_looked_at(model, others, number, landmark, count, end, event):
    own = one_of(others, number)
    own = replace(own, events=own.events.assign(end=own.events["end"].clip(lower=2.6)))
    wanted = predict_patient(model, own, landmark, [3.0, 4.0])
    later = own.long["day"] > landmark
    altered = own.long.assign(
        y=own.long["y"].where(~later, float(count)), trt=own.long["trt"].where(~later, 1 - own.long["trt"])
    )
    dropped = own.long[~later]
    added = pd.concat([own.long, pd.DataFrame({"id": own.subjects, "day": 2.59, "y": 9.0, "ml": 1.0, "trt": 1.0})])
    ended = own.events.assign(end=end, event=event)
    for long in (altered, dropped, added if landmark < 2.59 else own.long):
        told = predict_patient(model, replace(own, long=long, events=ended), landmark, [3.0, 4.0])
        pd.testing.assert_frame_equal(told, wanted)
        everybody = JointPredictor(model).risk(replace(own, long=long, events=ended), landmark, [3.0, 4.0])
        assert everybody.iloc[0].to_numpy() == pytest.approx(wanted["risk"].to_numpy(), abs=1e-9)


@given(
    number=st.integers(0, 79), landmark=st.floats(0, 2), steps=st.lists(st.floats(0.01, 0.5), min_size=2, max_size=5)
)
def test_risk_rises_with_the_horizon_and_lies_within_its_limits(model, others, number, landmark, steps):
    horizons = landmark + np.cumsum(steps)
    found = predict_patient(model, one_of(others, number), landmark, horizons)
    assert (np.diff(found["risk"]) > 0).all()
    assert (np.diff(found["low"]) >= -1e-12).all()
    assert (np.diff(found["high"]) >= -1e-12).all()
    assert (found["low"] <= found["risk"]).all()
    assert (found["risk"] <= found["high"]).all()
    assert found.to_numpy().min() >= 0
    assert found.to_numpy().max() <= 1


def test_limits_from_few_draws_are_near_those_of_many(model, others):
    wide, off = [], []
    for number in range(0, 40, 4):
        own = one_of(others, number)
        many = predict_patient(model, own, 1.0, [3.0], draws=20_000, seed=7).iloc[0]
        few = predict_patient(model, own, 1.0, [3.0]).iloc[0]
        wide.append(many["high"] - many["low"])
        off.append([abs(few["low"] - many["low"]), abs(few["high"] - many["high"])])
        assert few["risk"] == many["risk"]
    assert np.mean(off) < 0.06 * np.mean(wide)


def test_a_prediction_is_the_posterior_mean_by_brute_force(model, others):
    """Random intercept on a dense grid, hazard on a dense grid of time, at the fitted parameters."""
    own = one_of(others, 4)
    beta = model.table["estimate"][["long:Intercept", "long:day", "long:trt"]].to_numpy()
    sd, k = model.table["estimate"][["random:sd(intercept)", "residual:k"]]
    log_rate, shape, effect, alpha = model.table["estimate"][
        ["baseline:log_rate", "baseline:shape", "event:x", "association:value"]
    ]
    landmark, horizon = 1.2, 3.0
    known = own.long[own.long["day"] <= landmark]
    x = own.events["x"].iloc[0]
    grid = np.linspace(-6, 6, 4001) * sd

    def cumulative(low, high):
        edges = np.linspace(low ** (1 / 4), high ** (1 / 4), 20_001)
        times = ((edges[1:] + edges[:-1]) / 2) ** 4
        last = known["trt"].to_numpy()[np.searchsorted(known["day"], times, side="right").clip(1) - 1]
        log = log_rate + (shape - 1) * np.log(times) + effect * x + alpha * (beta[0] + beta[1] * times + beta[2] * last)
        return np.exp(log) @ np.diff(edges**4)

    log = stats.norm.logpdf(grid, 0, sd) - cumulative(0, landmark) * np.exp(alpha * grid)
    for row in known.itertuples():
        mean = np.exp(beta @ [1, row.day, row.trt] + grid) * row.ml
        log = log + stats.nbinom.logpmf(row.y, k, k / (k + mean))
    chance = np.exp(log - log.max())
    wanted = 1 - (chance / chance.sum()) @ np.exp(-cumulative(landmark, horizon) * np.exp(alpha * grid))
    assert predict_patient(model, own, landmark, [horizon])["risk"].iloc[0] == pytest.approx(wanted, abs=1e-3)


def test_everybody_at_once_is_each_alone(model, others):
    table = JointPredictor(model).risk(others.at(1.0), 1.0, [2.0, 3.5])
    assert list(table.columns) == [2.0, 3.5]
    assert list(table.index) == list(others.at(1.0).subjects)
    for subject in table.index[::9]:
        alone = predict_patient(model, others.subset([subject]), 1.0, [2.0, 3.5])["risk"]
        assert table.loc[subject].to_numpy() == pytest.approx(alone.to_numpy(), abs=1e-9)


def test_landmark_zero_takes_the_first_measurement_only(model, others):
    table = JointPredictor(model).risk(others, 0.0, [2.0])
    first = replace(others, long=others.long[others.long["day"] == 0.0])
    assert table[2.0].between(0, 1).all()
    pd.testing.assert_frame_equal(table, JointPredictor(model).risk(first, 0.0, [2.0]))


def test_more_circulating_cells_mean_more_risk(model, others):
    own = one_of(others, 4)
    low, high = (replace(own, long=own.long.assign(y=y)) for y in (0.0, 60.0))
    horizon = [3.0]
    assert (
        predict_patient(model, low, 1.0, horizon)["risk"].iloc[0]
        < predict_patient(model, own, 1.0, horizon)["risk"].iloc[0]
        < predict_patient(model, high, 1.0, horizon)["risk"].iloc[0]
    )


def test_a_new_count_narrows_the_limits(model, others):
    own = others.subset([others.long.groupby("id").size().idxmax()])
    course = updates(model, own, 4.0, None, 2.2)
    assert list(course["time"][:-1]) == sorted(own.long.loc[own.long["day"] <= 2.2, "day"])
    assert course["time"].iloc[-1] == 2.2
    ahead = updates(model, own, None, 1.0, 2.2)
    assert ahead["horizon"].to_numpy() == pytest.approx(ahead["time"].to_numpy() + 1.0)
    width = (ahead["high"] - ahead["low"]) / ahead["risk"]
    assert width.iloc[-1] < width.iloc[0]


def test_risks_are_calibrated_in_new_subjects(model):
    """SIMULATED: as many have the event as the model says, in thirds of its risk."""
    new = cohort(1500, 11, (4.0, 4.5))
    landmark, horizon = 1.1, 3.0
    risk = JointPredictor(model).risk(new.at(landmark), landmark, [horizon])[horizon].dropna()
    outcome = new.events.set_index("id").loc[risk.index]
    had = outcome["event"] & (outcome["end"] <= horizon)
    for third in np.array_split(risk.sort_values().index, 3):
        expected, spread = risk[third].mean(), np.sqrt((risk[third] * (1 - risk[third])).sum()) / len(third)
        assert had[third].mean() == pytest.approx(expected, abs=3 * spread + 0.03)


def test_the_fit_of_the_protocol_predicts(others):
    predictor = JointPredictorFit(SPEC)(cohort(200, 3))
    risk = predictor.risk(others.at(1.0), 1.0, (2.0,))
    assert risk[2.0].between(0, 1).all()


def test_the_fit_of_the_protocol_refuses_what_does_not_converge():
    spec = replace(SPEC, markers=(replace(SPEC.markers[0], formula="y ~ day"),), association=("value", "slope"))
    with pytest.raises(StatisticsError, match="can't tell"):
        JointPredictorFit(spec)(cohort(60, 3))


def test_who_is_not_at_risk_or_lacks_a_covariate_gets_no_risk(model, others):
    unknown = others.events["x"].where(others.events["id"] != 3)
    gaps = replace(others, events=others.events.assign(x=unknown, end=others.events["end"].clip(lower=0.5)))
    table = JointPredictor(model).risk(gaps, 1.0, [2.0])
    ended = gaps.events.set_index("id")["end"] <= 1.0
    assert table[2.0].isna().equals(ended.rename(2.0) | (ended.index == 3))
    nobody = JointPredictor(model).risk(others, 4.9, [4.95])
    assert nobody[4.95].isna().all()
    with pytest.raises(StatisticsError, match="covariate"):
        predict_patient(model, gaps.subset([3]), 0.1, [2.0])


def test_a_covariate_known_only_later_is_not_known(model, others):
    own = one_of(others, 4)
    late = replace(own, long=own.long[own.long["day"] > 0.4])
    with pytest.raises(StatisticsError, match="covariate"):
        predict_patient(model, late, 0.3, [2.0])


@pytest.mark.parametrize(
    ("landmark", "horizons", "fault"),
    [
        (1.0, [99.0], "nobody was followed to 99"),
        (1.0, [1.0], "isn't after 1"),
        (1.0, [2.0, 0.5], "isn't after 1"),
        (1.0, [], "isn't after 1"),
        (-1.0, [2.0], "before time 0"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(model, others, landmark, horizons, fault):
    with pytest.raises(StatisticsError, match=fault):
        predict_patient(model, one_of(others, 4), landmark, horizons)


def test_one_subject_is_meant_and_some_draws(model, others):
    with pytest.raises(StatisticsError, match="80 subjects are given"):
        predict_patient(model, others, 1.0, [2.0])
    with pytest.raises(StatisticsError, match="too few"):
        predict_patient(model, one_of(others, 4), 1.0, [2.0], draws=1)


def test_a_level_never_seen_in_training_is_refused():
    given_ = cohort(150, 5)
    sites = replace(given_, events=given_.events.assign(site=np.where(given_.events["id"] % 2, "a", "b")))
    fitted = fit_joint(replace(SPEC, event_formula="site"), sites)
    new = one_of(sites, 4)
    new = replace(new, events=new.events.assign(site="c"))
    with pytest.raises(ConfigError, match="can't be worked out"):
        predict_patient(fitted, new, 0.1, [2.0])


def test_a_seed_gives_the_same_limits(model, others):
    first, again = (predict_patient(model, one_of(others, 6), 1.0, [3.0], seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)
