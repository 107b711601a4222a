"""Predictions for subjects a model hasn't seen, none of it by peeking."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.baseline_cox import BaselineCoxFit
from ctc_imaging.recurrence.follow_up import FollowUp
from ctc_imaging.recurrence.joint import JointPredictorFit, JointSpec, MarkerSpec
from ctc_imaging.recurrence.landmark_cox import LandmarkCox
from ctc_imaging.recurrence.validation import (
    by_horizon,
    by_window,
    calibrations,
    cross_validate,
    difference_table,
    integrated_table,
    score_table,
)
from ctc_imaging.recurrence.validation.cross_validation import folds

JOINT = JointPredictorFit(JointSpec((MarkerSpec("y ~ t", "gaussian", ("intercept",)),), "x"))


def cohort(count=120, seed=0):
    """Subjects whose marker tells their hazard."""
    rng = np.random.default_rng(seed)
    level, x = rng.normal(0, 1, count), rng.integers(0, 2, count) * 1.0
    time, censored = rng.exponential(np.exp(-level - 0.5 * x)), rng.uniform(0.5, 3, count)
    end = np.minimum(time, censored).clip(0.01)
    visits = np.array([0.0, 0.2, 0.5, 1.0])
    seen = visits < end[:, None]
    rows = {
        "id": np.broadcast_to(np.arange(count)[:, None], seen.shape)[seen],
        "t": np.broadcast_to(visits, seen.shape)[seen],
        "y": (level[:, None] + rng.normal(0, 0.5, seen.shape))[seen],
    }
    events = {"id": np.arange(count), "end": end, "event": time <= censored, "x": x}
    return FollowUp(pd.DataFrame(rows), pd.DataFrame(events), "id", "t", "end", "event")


@dataclass(frozen=True)
class Spy:
    """Writes down what it is shown, and tells one risk of all."""

    seen: list

    def __call__(self, training):
        self.seen.append(("training", training))
        return self

    def risk(self, history, landmark, horizons):
        self.seen.append((landmark, history))
        return pd.DataFrame(0.5, index=history.subjects, columns=list(horizons))


def test_a_model_never_sees_the_fold_it_is_asked_about_nor_what_comes_after_the_landmark():
    follow_up, seen = cohort(), []
    cross_validate({"spy": Spy(seen)}, follow_up, by_horizon([0.2, 0.5], [1.0]))
    training = None
    for what, shown in seen:
        if what == "training":
            training = shown
            continue
        assert not set(training.subjects) & set(shown.subjects)
        assert (shown.long["t"] <= what).all()
        assert not shown.events["event"].any()
        assert (shown.events["end"] < what + 1e-9).all()


@pytest.mark.parametrize("fit", [JOINT, LandmarkCox(("y",)), BaselineCoxFit("x")])
def test_what_comes_later_changes_no_prediction(fit):
    follow_up = cohort()
    test = follow_up.subset(range(30))
    predictor = fit(follow_up.subset(range(30, 120)))
    later = test.long["t"] > 0.5
    other = FollowUp(
        test.long.assign(y=test.long["y"].where(~later, 99.0)),
        test.events.assign(end=test.events["end"].where(test.events["end"] <= 0.5, 9.0), event=False),
        *("id", "t", "end", "event"),
    )
    first, second = (predictor.risk(one.at(0.5), 0.5, [1.0, 1.5]) for one in (test, other))
    pd.testing.assert_frame_equal(first, second)
    assert first.notna().all().all()
    assert (first[1.0] <= first[1.5]).all()


def test_everybody_at_risk_is_asked_about_once_a_repeat():
    follow_up = cohort()
    table = cross_validate({"spy": Spy([])}, follow_up, by_window([0.2, 0.5], [0.5]), repeats=2).table
    at_risk = sum(int((follow_up.events["end"] > landmark).sum()) for landmark in (0.2, 0.5))
    assert len(table) == 2 * at_risk
    assert not table.duplicated(["repeat", "id", "landmark"]).any()


def test_folds_share_the_events():
    follow_up = cohort()
    dealt = folds(follow_up, 5, 1)
    events = np.bincount(dealt, follow_up.events["event"])
    assert events.max() - events.min() <= 1
    assert (folds(follow_up, 5, 1) == dealt).all()


def test_the_marker_adds_to_the_covariate_and_the_difference_says_so():
    found = cross_validate({"joint": JOINT, "x": BaselineCoxFit("x")}, cohort(300, 3), by_horizon([0.5], [1.0, 1.5]))
    differences = difference_table(found, "joint", "x").set_index(["horizon", "score"])
    assert differences.loc[(1.5, "auc"), "low"] > 0
    scores = score_table(found).set_index(["model", "horizon", "score"])["value"]
    gap = scores["joint", 1.5, "auc"] - scores["x", 1.5, "auc"]
    assert differences.loc[(1.5, "auc"), "value"] == pytest.approx(gap)
    assert set(integrated_table(found)["model"]) == {"joint", "x"}
    assert calibrations(found, "joint")[0.5, 1.5].slope.value > 0


def test_a_fit_that_fails_is_named_and_the_others_go_on():
    def broken(_training):
        raise StatisticsError("broken", "there is nothing to fit", "give it data")

    found = cross_validate({"spy": Spy([]), "broken": broken}, cohort(), by_horizon([0.2], [1.0]))
    assert len(found.notes) == 5
    assert "nothing to fit" in found.notes[0]
    assert found.table["spy"].notna().all()
    assert found.table["broken"].isna().all()


def test_more_folds_than_events_are_refused():
    with pytest.raises(StatisticsError, match="fewer folds"):
        cross_validate({"spy": Spy([])}, cohort(10), by_horizon([0.2], [1.0]), count=11)
