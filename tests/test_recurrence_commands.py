"""The recurrence commands on plain tables, as a researcher types them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ctc_imaging.cli import main


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Counts and relapses of 150 subjects, whose columns have names of their own."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("tables")
    level, arm = rng.normal(0, 0.8, 150), rng.integers(0, 2, 150)
    relapse, censored = rng.exponential(300 * np.exp(-0.6 * level - 0.4 * arm)), rng.uniform(200, 900, 150)
    end = np.minimum(relapse, censored).clip(5).round(1)
    day = np.array([0.0, 30.0, 90.0, 180.0])
    seen = day < end[:, None]
    rows = {
        "who": np.broadcast_to([[f"S{number}"] for number in range(150)], seen.shape)[seen],
        "when": np.broadcast_to(day, seen.shape)[seen],
        "cells": rng.poisson(np.exp(level[:, None] + 0.5) * np.ones(4))[seen],
        "ml": 1.0,
    }
    pd.DataFrame(rows).to_csv(folder / "long.csv", index=False)
    events = {"who": [f"S{number}" for number in range(150)], "until": end, "relapse": relapse <= censored}
    pd.DataFrame({**events, "arm": np.where(arm, "b", "a")}).to_csv(folder / "events.csv", index=False)
    return folder


def options(folder):
    return [
        *("--long", str(folder / "long.csv"), "--events", str(folder / "events.csv"), "--id", "who", "--time", "when"),
        *("--event-time", "until", "--event", "relapse", "--long-formula", "cells ~ when", "--event-formula", "arm"),
        *("--family", "poisson", "--exposure", "ml", "--random-effects", "intercept"),
    ]


def test_fit_prints_the_contracts_object(tables, capsys):
    assert main(["recurrence", "fit", *options(tables), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["converged"] is True
    assert {"log_likelihood", "seconds", "parameters"} <= set(found)
    prefixes = {name.partition(":")[0] for name in found["parameters"]}
    assert prefixes == {"long", "event", "association", "baseline", "random"}
    association = found["parameters"]["association:value"]
    assert abs(association["estimate"] - 0.6) < 4 * association["se"]
    assert {"long:Intercept", "long:when", "event:arm[T.b]"} <= set(found["parameters"])


@pytest.mark.parametrize("baseline", ["weibull", "piecewise", "spline"])
def test_every_baseline_fits(tables, capsys, baseline):
    assert main(["recurrence", "fit", *options(tables), "--baseline", baseline]) == 0
    assert "converged" in capsys.readouterr().out


def test_knots_are_taken_as_given(tables, capsys):
    arguments = ["recurrence", "fit", *options(tables), "--baseline", "piecewise", "--knots", "100,300", "--json"]
    assert main(arguments) == 0
    names = json.loads(capsys.readouterr().out)["parameters"]
    assert sum(name.startswith("baseline:") for name in names) == 3


def test_one_subject_is_predicted_with_limits_and_drawn(tables, capsys, tmp_path):
    ends = pd.read_csv(tables / "events.csv")
    subject = ends.loc[ends["until"] > 200, "who"].iloc[0]
    picture = tmp_path / "course.svg"
    arguments = [*options(tables), "--patient", subject, "--horizons", "300,500", "--picture", str(picture), "--json"]
    assert main(["recurrence", "predict", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    near, far = found["predictions"]
    assert near["low"] <= near["risk"] <= near["high"]
    assert near["risk"] <= far["risk"]
    assert [row["time"] for row in found["updates"]] == [0.0, 30.0, 90.0, 180.0]
    assert picture.read_text(encoding="utf-8").count("<svg") == 1


def test_all_at_risk_are_predicted_from_a_landmark(tables, capsys):
    assert main(["recurrence", "predict", *options(tables), "--landmark", "90", "--horizons", "300", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["predictions"]
    ends = pd.read_csv(tables / "events.csv")
    assert len(rows) == (ends["until"] > 90).sum()
    assert all(0 <= row["risk"] <= 1 for row in rows)


def test_validation_prints_scores_beside_a_model_without_the_marker(tables, capsys):
    arguments = [*options(tables), "--landmarks", "90", "--horizons", "300", "--json", "--seed", "1"]
    assert main(["recurrence", "validate", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    scores = {(row["model"], row["score"]): row["value"] for row in found["scores"]}
    assert scores["joint model", "auc"] > scores["without marker", "auc"]
    assert found["calibration"][0]["groups"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit"], "--long"),
        (["fit", "run", "--long", "x.csv"], "--long"),
        (["predict", "--horizons", "100"], "--long"),
    ],
)
def test_missing_tables_are_named(capsys, arguments, said):
    assert main(["recurrence", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--family", "weird"], "--family"),
        (["--baseline", "weird"], "--baseline"),
        (["--association", "weird"], "--association"),
        (["--random-effects", "weird"], "--random-effects"),
        (["--knots", "a,b"], "--knots"),
        (["--long-formula", "nothing ~ when"], "--long-formula"),
        (["--event-formula", "nothing"], "--event-formula"),
        (["--event", "nothing"], "nothing"),
        (["--id", "nothing"], "nothing"),
    ],
)
def test_a_wrong_option_is_told_in_one_line(tables, capsys, more, said):
    arguments = options(tables)
    for name, value in zip(more[::2], more[1::2], strict=True):
        if name in arguments:
            arguments[arguments.index(name) + 1] = value
        else:
            arguments += [name, value]
    assert main(["recurrence", "fit", *arguments]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert said in told[-1]
    assert sum(line.startswith("ctc-imaging: error") for line in told) == 1


def test_horizons_beyond_the_data_are_refused(tables, capsys):
    assert main(["recurrence", "predict", *options(tables), "--landmark", "90", "--horizons", "9000"]) == 2
    assert "longest follow-up" in capsys.readouterr().err


def test_a_picture_of_another_kind_is_refused(tables, capsys, tmp_path):
    arguments = [*options(tables), "--patient", "S1", "--landmark", "1", "--horizons", "300"]
    assert main(["recurrence", "predict", *arguments, "--picture", str(tmp_path / "x.gif")]) == 2
    assert "--picture" in capsys.readouterr().err
