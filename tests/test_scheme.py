"""Schemes: read strictly, blind to what comes later, unknown stays unknown, accuracy as plain counting where it can."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ctc_imaging.cli.recurrence.decide import decide
from ctc_imaging.errors import ConfigError, StatisticsError
from ctc_imaging.recurrence.decision_words import scheme_facts, scheme_lines
from ctc_imaging.recurrence.follow_up import FollowUp
from ctc_imaging.recurrence.scheme_evaluation import evaluate_scheme, survival_at
from ctc_imaging.recurrence.scheme_risks import cross_fitted_risks
from ctc_imaging.recurrence.scheme_yaml import load_scheme, parse_scheme, shipped_schemes
from ctc_imaging.recurrence.survival import kaplan_meier

SCHEME = """
name: positive at one month
suggests: consider adjuvant treatment
decision_day: 45
horizon_day: 730
if:
  - {marker: status, is: positive, day: 30, window_days: [10, 15]}
source: this test
"""
POSITIVE = "{marker: status, is: positive, day: 30, window_days: [10, 15]}"
COUNT = "{marker: ctc, at_least: 2, volume_ml: 5, day: 30, window_days: [10, 15]}"
RISK = "{risk_at_least: 0.5}"


def scheme_with(conditions):
    return parse_scheme(SCHEME.replace(f"\n  - {POSITIVE}", f" {conditions}"), "test")


def cohort(patients=200, seed=0, censored=False):
    """Patients with one sample at one month; the positive recur earlier; every tenth has no sample."""
    rng = np.random.default_rng(seed)
    positive = rng.random(patients) < 0.4
    event_day = 46 + np.ceil(rng.exponential(np.where(positive, 400, 1500)))
    lost = rng.uniform(46, 2500, patients) if censored else np.full(patients, 5000.0)
    ids = [f"P{number:03d}" for number in range(patients)]
    events = pd.DataFrame({"id": ids, "stop": np.minimum(event_day, lost), "event": event_day <= lost})
    long = pd.DataFrame(
        {
            "id": ids,
            "day": 28.0,
            "status": np.where(positive, "positive", "negative"),
            "ctc": np.where(positive, 3.0, 1.0),
            "blood_volume_ml": 5.0,
        }
    )
    return FollowUp(long[long.index % 10 != 9], events, "id", "day", "stop", "event")


def test_shipped_schemes_can_be_read_and_have_a_source():
    assert shipped_schemes() == ["ctc-positive-1-month", "high-risk-1-month"]
    for name in shipped_schemes():
        scheme = load_scheme(name)
        assert scheme.name == name
        assert scheme.source
    assert load_scheme("high-risk-1-month").needs_risk


def test_a_scheme_comes_from_a_file_too(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SCHEME, encoding="utf-8")
    assert load_scheme(path) == parse_scheme(SCHEME, "test")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_scheme(path)
    with pytest.raises(ConfigError, match="use a YAML file or one of ctc-positive"):
        load_scheme(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("name: positive at one month", "", "has no name"),
        ("source: this test", "source: 3", "source isn't a text"),
        ("source: this test", "apply: true\nsource: x", "unknown key apply"),
        ("decision_day: 45", "decision_day: soon", "decision_day isn't a number"),
        ("decision_day: 45", "decision_day: true", "decision_day isn't a number"),
        ("decision_day: 45", "decision_day: 900", "horizon_day after it"),
        ("decision_day: 45", "decision_day: 31", "look ahead"),
        ("is: positive", "is: positive, at_least: 2", "either is: or at_least:"),
        (", is: positive", "", "either is: or at_least:"),
        ("is: positive", "is: positive, colour: red", "unknown key colour"),
        ("[10, 15]", "[10]", "malformed"),
        ("[10, 15]", "[10, -15]", "ends before its day"),
        (f"- {POSITIVE}", "[]", "malformed"),
        (f"\n  - {POSITIVE}", " []", "if isn't a list"),
        (POSITIVE, "{risk_at_least: 1.5}", "between 0 and 1"),
        (POSITIVE, "{pattern: turned_blue}", "turned_blue is no pattern"),
        (SCHEME, "- just\n- a list\n", "isn't a list of keys"),
        (SCHEME, "name: [", "not YAML"),
    ],
)
def test_what_is_wrong_with_a_scheme_is_named(old, new, fault):
    assert old in SCHEME
    with pytest.raises(ConfigError, match=fault):
        parse_scheme(SCHEME.replace(old, new), "test.yaml")


def fault_of(text):
    try:
        parse_scheme(text, "test")
    except ConfigError as error:
        return str(error)
    return ""


@given(text=st.text(max_size=200), place=st.integers(0, len(SCHEME)))
def test_no_text_gets_past_the_reader_but_as_a_config_error(text, place):
    for written in (text, SCHEME[:place] + text + SCHEME[place:]):
        assert "\n" not in fault_of(written)


def test_a_scheme_names_by_status_by_count_and_by_pattern():
    followed = cohort()
    by_status, by_count = (scheme_with(f"[{condition}]").names(followed) for condition in (POSITIVE, COUNT))
    pd.testing.assert_series_equal(by_status, by_count)
    before = followed.long.assign(day=0.0, status="negative")
    both = FollowUp(pd.concat([before, followed.long]), followed.events, "id", "day", "stop", "event")
    by_pattern = scheme_with("[{pattern: [turned_positive, persistently_positive]}]").names(both)
    pd.testing.assert_series_equal(by_status, by_pattern)


def test_a_count_of_another_blood_volume_isnt_judged():
    followed = cohort()
    other = FollowUp(followed.long.assign(blood_volume_ml=7.5), followed.events, "id", "day", "stop", "event")
    assert scheme_with(f"[{COUNT}]").names(other).isna().all()


@given(answers=st.tuples(*[st.sampled_from([0.0, 1.0, np.nan])] * 2))
def test_unknown_answers_count_only_where_they_decide(answers):
    long = pd.DataFrame({"id": ["A"], "day": [30.0], "status": [{0.0: "negative", 1.0: "positive"}.get(answers[0])]})
    followed = FollowUp(
        long, pd.DataFrame({"id": ["A"], "stop": [900.0], "event": [True]}), "id", "day", "stop", "event"
    )
    risks = pd.Series({"A": {0.0: 0.2, 1.0: 0.8}.get(answers[1], np.nan)})
    any_of, all_of = (
        scheme_with(f"{{{kind}: [{POSITIVE}, {RISK}]}}").names(followed, risks).item() for kind in ("any", "all")
    )
    known = [answer for answer in answers if not np.isnan(answer)]
    unknown = len(known) < 2
    expected_any = 1.0 if 1.0 in known else (np.nan if unknown else 0.0)
    expected_all = 0.0 if 0.0 in known else (np.nan if unknown else 1.0)
    np.testing.assert_equal((any_of, all_of), (expected_any, expected_all))


@given(day=st.floats(45.5, 2000), status=st.sampled_from(["positive", "negative"]))
def test_nothing_after_the_decision_is_looked_at(day, status):
    followed = cohort(40)
    later = followed.long.assign(day=day, status=status, ctc=99.0)
    stop = later["id"].map(followed.events.set_index("id")["stop"])
    more = FollowUp(
        pd.concat([followed.long, later[later["day"] <= stop]]), followed.events, "id", "day", "stop", "event"
    )
    for condition in (POSITIVE, COUNT):
        scheme = scheme_with(f"[{condition}]")
        pd.testing.assert_series_equal(scheme.names(more), scheme.names(followed))


def test_without_censoring_accuracy_is_plain_counting():
    followed = cohort()
    found = evaluate_scheme(parse_scheme(SCHEME, "test"), followed, replicates=200)
    table = followed.events.merge(followed.long, on="id")
    had, named = table["stop"] <= 730, table["status"] == "positive"
    expected = [
        (had & named).sum() / had.sum(),
        (~had & ~named).sum() / (~had).sum(),
        (had & named).sum() / named.sum(),
        (~had & ~named).sum() / (~named).sum(),
    ]
    assert found.accuracy["estimate"].tolist() == pytest.approx(expected)
    assert (found.accuracy["low"] < found.accuracy["estimate"]).all()
    assert (found.accuracy["estimate"] < found.accuracy["high"]).all()
    half = found.net_benefit.set_index("threshold").loc[0.5]
    assert half["scheme"] == pytest.approx(((had & named).sum() - (~had & named).sum()) / len(table))
    assert half["everybody"] == pytest.approx((had.sum() - (~had).sum()) / len(table))


def test_censoring_doesnt_change_accuracy_but_for_noise():
    plain, censored = (
        evaluate_scheme(parse_scheme(SCHEME, "test"), cohort(4000, 1, late), replicates=2) for late in (False, True)
    )
    assert censored.accuracy["estimate"].tolist() == pytest.approx(plain.accuracy["estimate"].tolist(), abs=0.04)


@given(seed=st.integers(0, 1000), horizon=st.floats(1, 30))
def test_survival_of_many_weightings_is_kaplan_meier(seed, horizon):
    rng = np.random.default_rng(seed)
    days, event = rng.integers(1, 30, 25).astype(float), rng.random(25) < 0.6
    often = rng.integers(1, 4, 25)
    found = survival_at(days, event, np.stack([np.ones(25), often]), horizon)
    curves = [kaplan_meier(days, event, horizon_days=horizon)]
    curves.append(kaplan_meier(np.repeat(days, often), np.repeat(event, often), horizon_days=horizon))
    np.testing.assert_allclose(found, [curve.rfs_horizon[0] for curve in curves], atol=1e-12)


def test_patients_without_a_sample_are_neither_named_nor_not():
    followed = cohort()
    found = evaluate_scheme(parse_scheme(SCHEME, "test"), followed, pd.Series(40.0, followed.subjects), replicates=10)
    groups = found.groups.set_index("group")
    assert groups.loc["can't be judged", "patients"] == 20
    assert groups["patients"].sum() == found.at_risk == 200
    assert groups["treated_before"].sum() == 200
    assert any("20 patient(s) can't be judged" in note for note in found.notes)
    assert any("200 of the patients had adjuvant treatment" in note for note in found.notes)


def test_a_scheme_that_nobody_can_be_judged_by_is_named():
    followed = cohort()
    early = FollowUp(followed.long.assign(day=1.0), followed.events, "id", "day", "stop", "event")
    with pytest.raises(StatisticsError, match="none of 200 patients"):
        evaluate_scheme(parse_scheme(SCHEME, "test"), early)
    with pytest.raises(ConfigError, match="predicted risk"):
        evaluate_scheme(scheme_with(f"[{RISK}]"), followed)
    with pytest.raises(ConfigError, match="no column colour"):
        scheme_with("[{marker: colour, is: red, day: 30, window_days: [1, 1]}]").names(followed)


def test_a_scheme_that_names_everybody_or_nobody_is_evaluated():
    followed = cohort()
    everybody = evaluate_scheme(
        scheme_with(f"[{RISK}]"), followed, risks=pd.Series(0.9, followed.subjects), replicates=50
    )
    assert everybody.accuracy.set_index("quantity").loc["sensitivity", "estimate"] == 1
    assert everybody.logrank_p is None
    np.testing.assert_allclose(everybody.net_benefit["scheme"], everybody.net_benefit["everybody"])
    nobody = evaluate_scheme(scheme_with(f"[{RISK}]"), followed, risks=pd.Series(0.1, followed.subjects), replicates=50)
    assert nobody.net_benefit["scheme"].tolist() == [0] * 5


def test_risks_come_from_models_that_never_saw_the_patient():
    followed = cohort(50)
    scheme = scheme_with(f"[{RISK}]")

    class Fake:
        def __init__(self, training):
            self.seen = set(training.subjects)

        def risk(self, history, landmark, horizons):
            assert (landmark, list(horizons)) == (45, [730])
            assert not self.seen & set(history.subjects)
            assert (history.long["day"] <= 45).all()
            return pd.DataFrame({730.0: 0.7}, index=history.subjects)

    risks = cross_fitted_risks(scheme, followed, Fake)
    assert set(risks.index) == set(followed.subjects)
    assert scheme.names(followed, risks).eq(1).all()


def test_the_words_say_that_nothing_is_applied():
    found = evaluate_scheme(parse_scheme(SCHEME, "test"), cohort(), replicates=10)
    assert "nobody was treated or advised by it" in scheme_lines(found)[0]
    facts = json.loads(json.dumps(scheme_facts(found)))
    assert facts["groups"][0]["treated_before"] is None
    assert "nobody" in facts["statement"]


@pytest.fixture
def app():
    app = typer.Typer()
    app.command()(decide)
    return app


@pytest.fixture
def tables(tmp_path):
    followed = cohort(300, 2, censored=True)
    rng = np.random.default_rng(0)
    begun = pd.Series(rng.integers(46, 90, 300)).where(rng.random(300) < 0.4)
    events = followed.events.assign(
        event=followed.events["event"].astype(int),
        mvi=rng.integers(0, 2, 300),
        begun=begun.where(begun < followed.events["stop"]),
    )
    followed.long.to_csv(tmp_path / "long.csv", index=False)
    events.to_csv(tmp_path / "events.csv", index=False)
    names = {"long": tmp_path / "long.csv", "events": tmp_path / "events.csv"}
    names |= {"id": "id", "time": "day", "event-time": "stop", "event": "event"}
    return [part for name, value in names.items() for part in (f"--{name}", str(value))]


def test_decide_takes_any_tables(app, tables):
    extra = ["--scheme", "ctc-positive-1-month", "--treatment-start", "begun", "--covariates", "mvi", "--draws", "50"]
    outcome = CliRunner().invoke(app, [*tables, *extra, "--json"])
    assert outcome.exit_code == 0, outcome.output
    facts = json.loads(outcome.stdout)
    assert facts["statement"] == facts["treatment"]["statement"] == "observational, a hypothesis"
    assert facts["scheme"]["groups"][0]["group"] == "named"
    assert facts["simulated"] is False
    words = CliRunner().invoke(app, [*tables, *extra]).stdout
    assert "evaluated only" in words
    assert "observational, a hypothesis" in words


def test_decide_says_what_is_missing(app, tables):
    def fault(*extra):
        return CliRunner().invoke(app, [*tables, *extra]).exception

    assert isinstance(fault("--scheme", "nothing"), ConfigError)
    assert isinstance(fault("--method", "magic"), ConfigError)
    assert "no column adjuvant_start_date" in str(fault())
    assert "--landmark" in str(fault("--treatment-start", "begun"))
    outcome = CliRunner().invoke(app, [*tables, "--scheme", "ctc-positive-1-month", "--json"])
    assert json.loads(outcome.stdout)["treatment"] is None
    assert "no effect of treatment is given" in outcome.stderr
