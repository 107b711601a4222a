"""Samples beside their controls: which controls count for whom, and nothing claimed that no control tells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ctc_imaging.assay import LIMIT_COLUMNS, RATE_COLUMNS, assess_samples, total_limits
from ctc_imaging.assay.error_rates import FalseCalls
from ctc_imaging.assay.samples import batch_verdicts
from ctc_imaging.counting import COUNT_COLUMNS

MODEL = {
    "simulated": True,
    "sources": [
        {"ctc": 1000, "found": 990, "leukocytes": 200_000, "false_ctc": 2},
        {"ctc": 400, "found": 390, "leukocytes": 52_000, "false_ctc": 4},
    ],
}


def sample(name, kind="patient", ctc=0, batch="B1", **columns):
    known = {
        "sample_id": name, "sample_kind": kind, "ctc": ctc, "ctc_machine": ctc, "leukocyte": 75_000, "batch": batch,
        "assessable": True, "blood_volume_ml": 5.0, "assessed_volume_ml": 5.0, "spiked_cells": None,
        "verdict": "passed", "unreviewed": 1,
    }  # fmt: skip
    return known | columns


def blanks(*found, batch="B1", **columns):
    return [sample(f"{batch}-b{place}", "blank", ctc, batch, **columns) for place, ctc in enumerate(found)]


def tubes(*found, batch="B1", cells=100, **columns):
    known = {"spiked_cells": cells, "leukocyte": 400} | columns
    return [sample(f"{batch}-s{place}", "spiked", ctc, batch, **known) for place, ctc in enumerate(found)]


def assess(*samples, model=MODEL):
    """Return the patients' rows of both tables, by sample."""
    table = pd.DataFrame(list(samples))
    names = table["batch"].map(lambda batch: f"batch {batch}" if batch else "the run")
    batches = table[["sample_id", "sample_kind", "spiked_cells"]].assign(batch_name=names)
    controls = table.assign(batch_name=names)[table["sample_kind"] != "patient"]
    unreviewed = table.set_index("sample_id")["unreviewed"]
    counts, rates = assess_samples(table.reindex(columns=list(COUNT_COLUMNS)), batches, controls, unreviewed, model)
    assert tuple(counts) == COUNT_COLUMNS
    assert tuple(rates) == RATE_COLUMNS
    return counts.set_index("sample_id"), rates.set_index("sample_id")


def test_with_controls_of_its_own_batch_a_sample_goes_by_them():
    own = [*blanks(0, 1, 0, 0, 0), *tubes(80, 82, 81)]
    other = [*blanks(9, 9, 9, 9, 9, batch="B2"), *tubes(50, 52, 51, batch="B2")]
    counts, rates = assess(sample("p1", ctc=3), sample("p2", ctc=3, batch="B2"), *own, *other)
    assert rates.loc["p1", ["false_from", "recovery_from", "blanks", "spiked_tubes"]].tolist() == ["batch"] * 2 + [5, 3]
    assert rates.loc["p1", "false_per_100k"] == pytest.approx(1.5 / 3.75)
    assert rates.loc["p1", "recovery"] == pytest.approx(0.81, abs=1e-3)
    assert counts.loc["p1", "limit_of_blank"] < 3 < 9 <= counts.loc["p2", "limit_of_blank"]
    assert counts.loc["p1", "ctc_expected_false"] == pytest.approx(75_000 * 1.5 / 375_000)
    assert counts.loc["p1", "ctc_per_ml_total_low"] > 0 == counts.loc["p2", "ctc_per_ml_total_low"]


def test_with_too_few_of_its_own_a_sample_goes_by_the_whole_runs():
    controls = [*blanks(0, 1), *blanks(1, 0, 0, batch="B2"), *tubes(80), *tubes(82, batch="B2")]
    _, rates = assess(sample("p1"), sample("p2", batch="B3"), *controls)
    assert set(rates["false_from"]) == set(rates["recovery_from"]) == {"run"}
    assert rates["blanks"].tolist() == [5, 5]
    assert rates["blank_ctc"].tolist() == [2, 2]
    assert rates["batch_verdict"].tolist() == ["passed", ""]


def test_bad_blanks_stay_in_but_tubes_that_failed_elsewhere_do_not():
    controls = [*blanks(0, 0), *blanks(8, batch="B2", verdict="failed")]
    controls += [*tubes(80), *tubes(3, batch="B2", verdict="failed")]
    _, rates = assess(sample("p1"), sample("p2", batch="B2"), *controls)
    assert rates["blank_ctc"].tolist() == [8, 8]
    assert rates["spiked_tubes"].tolist() == [1, 2]
    assert rates.loc["p2", "recovery"] < 0.5 < rates.loc["p1", "recovery"]
    assert rates["batch_verdict"].tolist() == ["passed", "failed"]


def test_false_calls_of_the_machine_count_whatever_a_reader_made_of_them():
    _, rates = assess(sample("p1"), *blanks(0, 0, ctc_machine=3))
    assert rates.loc["p1", "blank_ctc"] == 6


def test_false_calls_in_a_spiked_tube_are_no_recovered_cells():
    _, clean = assess(sample("p1"), *blanks(0, 0), *tubes(83, leukocyte=75_000))
    _, dirty = assess(sample("p1"), *blanks(3, 3), *tubes(83, leukocyte=75_000))
    assert clean.loc["p1", "recovery"] == pytest.approx(0.83)
    assert dirty.loc["p1", "recovery"] == pytest.approx(0.80)


def test_without_controls_the_models_figures_serve_and_no_limit_of_blank_is_claimed():
    counts, rates = assess(sample("p1", ctc=3))
    row, rate = counts.loc["p1"], rates.loc["p1"]
    assert (rate["false_from"], rate["recovery_from"], rate["batch_verdict"]) == ("simulated", "simulated", "")
    assert row["ctc_expected_false"] == pytest.approx(75_000 * 6.5 / 252_000)
    assert row["ctc_per_ml_total_low"] == 0
    assert row["ctc_per_ml_total_high"] > 0
    assert row[["limit_of_blank", "limit_of_detection"]].isna().all()
    assert rate[["recovery", "recovery_low", "recovery_high"]].isna().all()
    _, real = assess(sample("p1", ctc=3), model={**MODEL, "simulated": False})
    assert real.loc["p1", "false_from"] == "model"


def test_with_nothing_known_nothing_is_filled():
    counts, rates = assess(sample("p1", ctc=3), model=None)
    assert counts.loc["p1", list(LIMIT_COLUMNS)].isna().all()
    assert rates.loc["p1", ["false_from", "recovery_from"]].tolist() == ["", ""]


def test_blanks_with_fewer_leukocytes_than_a_sample_set_no_limit():
    counts, rates = assess(sample("p1", ctc=3), *blanks(0, 1, leukocyte=300))
    assert rates.loc["p1", ["false_from", "blanks"]].tolist() == ["simulated", 2]
    assert np.isnan(counts.loc["p1", "limit_of_blank"])
    unknown, _ = assess(sample("p1", ctc=3), *blanks(0, 1, leukocyte=0), model=None)
    assert unknown.loc["p1", list(LIMIT_COLUMNS)].isna().all()


def test_where_a_reader_confirmed_every_ctc_none_is_taken_for_false():
    controls = [*blanks(4, 6, 5, 4, 6), *tubes(80, 82, 81)]
    counts, rates = assess(
        sample("p1", ctc=6), sample("p2", ctc=6, unreviewed=0), sample("p3", unreviewed=0), *controls
    )
    assert rates["all_reviewed"].tolist() == [False, True, False]
    assert counts.loc["p2", "ctc_expected_false"] == 0
    assert counts.loc["p1", "ctc_per_ml_total_low"] == 0 < counts.loc["p2", "ctc_per_ml_total_low"]
    assert counts.loc["p2", ["limit_of_blank", "limit_of_detection"]].isna().all()
    assert counts.loc["p3", "ctc_expected_false"] > 0


def test_only_patients_samples_with_a_result_have_limits_and_nothing_else_changes():
    lost = sample("p2", ctc=None, assessable=False, assessed_volume_ml=None)
    samples = [sample("p1", ctc=2), lost, *blanks(0, 0), *tubes(80)]
    counts, rates = assess(*samples)
    assert rates.index.tolist() == ["p1"]
    assert counts.loc["p1", list(LIMIT_COLUMNS)].notna().all()
    assert counts.drop("p1")[list(LIMIT_COLUMNS)].isna().all(axis=None)
    given = pd.DataFrame(samples).reindex(columns=list(COUNT_COLUMNS)).set_index("sample_id")
    kept = [name for name in counts if name not in LIMIT_COLUMNS]
    pd.testing.assert_frame_equal(counts[kept], given[kept])


def test_a_run_without_patients_has_no_error_rates():
    counts, rates = assess(*blanks(0, 0))
    assert rates.empty
    assert counts[list(LIMIT_COLUMNS)].isna().all(axis=None)


def test_limits_are_those_of_the_samples_own_volume_and_leukocytes():
    small = sample("p1", ctc=3, leukocyte=500, assessed_volume_ml=2.5)
    counts, _ = assess(small, sample("p2", ctc=3), *blanks(5, 5, 5, 5, 5), *tubes(80, 82, 81))
    assert counts.loc["p1", "limit_of_blank"] == 0 < counts.loc["p2", "limit_of_blank"]
    assert counts.loc["p1", "limit_of_detection"] < counts.loc["p2", "limit_of_detection"]
    assert counts.loc["p1", "ctc_per_ml_total_low"] > 0 == counts.loc["p2", "ctc_per_ml_total_low"]


def test_with_known_rates_the_limits_are_those_of_one_sample():
    counts, _ = assess(sample("p1", ctc=5, unreviewed=0), *tubes(*[81] * 50))
    low, high = total_limits(5, 5.0, 75_000, FalseCalls(0.0), _recovery())
    row = counts.loc["p1"]
    assert (row["ctc_per_ml_total_low"], row["ctc_per_ml_total_high"]) == pytest.approx((float(low), float(high)))


def _recovery():
    from ctc_imaging.assay import estimate_recovery

    return estimate_recovery([81] * 50, [100] * 50)


def test_a_sample_stained_in_two_batches_has_the_worse_verdict():
    batches = pd.DataFrame({"sample_id": ["p1", "p1", "p2", "p3"], "batch_name": ["a", "b", "a", "c"]})
    controls = pd.DataFrame({"batch_name": ["a", "b", "b"], "verdict": ["not judged", "passed", "failed"]})
    assert batch_verdicts(batches, controls) == {"p1": "failed", "p2": "not judged"}
