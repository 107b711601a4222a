"""Counts add up, limits are exact, and what wasn't assessed is never a zero."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from ctc_imaging.cohort import SlideEntry
from ctc_imaging.counting import (
    CELL_COUNTS,
    COUNT_COLUMNS,
    SLIDE_COLUMNS,
    count_samples,
    poisson_limits,
    slide_row,
    slide_table,
    unreviewed_ctcs,
)

GOOD = {"assessable": True, "assessed_fraction": 1.0, "reasons": []}
CONTRACT = (
    "sample_id patient_id sample_date sample_kind slides blood_volume_ml assessed_volume_ml assessed_fraction "
    "assessable quality_reasons cells leukocyte artefact indeterminate ctc ctc_epithelial ctc_hybrid ctc_mesenchymal "
    "ctc_undetermined ctc_clusters ctc_leukocyte_clusters ctc_per_ml ctc_per_ml_low ctc_per_ml_high "
    "ctc_per_ml_total_low ctc_per_ml_total_high ctc_expected_false limit_of_blank limit_of_detection ctc_machine "
    "readers reviewed signed_by"
)
CALLS = st.sampled_from(["ctc", "leukocyte", "artefact", "indeterminate"])


def entry(slide_id="s1", sample_id="t1", volume_ml=2.5, rescan_of=None, kind="patient"):
    return SlideEntry(
        Path(slide_id), "P1", date(2024, 3, 5), 5.0, slide_id, sample_id, kind, None, volume_ml, rescan_of, *[None] * 4
    )


def cells(*calls, **columns):
    count = len(calls)
    table = {"call": calls, "phenotype": [""] * count, "edges": [""] * count, "cluster_id": [0] * count}
    return pd.DataFrame({**table, "cluster_kind": [""] * count, **columns})


def samples(*rows):
    return count_samples(slide_table(rows))


def quality(fraction=1.0, *reasons, assessable=True):
    return {"assessable": assessable, "assessed_fraction": fraction, "reasons": list(reasons)}


def test_columns_are_the_contracts():
    assert list(COUNT_COLUMNS) == CONTRACT.split()
    assert list(SLIDE_COLUMNS)[: 3 + len(COUNT_COLUMNS)] == ["slide_id", "state", "reason", *COUNT_COLUMNS]
    assert tuple(slide_row(entry(), None, None)) == SLIDE_COLUMNS
    assert list(slide_table([]).columns) == list(SLIDE_COLUMNS)
    assert list(count_samples(slide_table([])).columns) == list(COUNT_COLUMNS)


def test_exact_poisson_limits_as_published():
    # Garwood 1936; Johnson, Kotz and Kemp, Univariate Discrete Distributions, table of 95 % limits.
    low, high = poisson_limits([0, 1, 2, 5, 10, 50])
    np.testing.assert_allclose(low, [0, 0.0253, 0.2422, 1.6235, 4.7954, 37.1110], atol=1e-4)
    np.testing.assert_allclose(high, [3.6889, 5.5716, 7.2247, 11.6683, 18.3904, 65.9188], atol=1e-4)


@given(count=st.integers(0, 5000), confidence=st.floats(0.5, 0.999))
def test_limits_leave_half_of_the_rest_on_each_side(count, confidence):
    low, high = (float(limit) for limit in poisson_limits(count, confidence))
    assert low <= count < high
    assert poisson.cdf(count, high) == pytest.approx((1 - confidence) / 2, rel=1e-6)
    if count:
        assert poisson.sf(count - 1, low) == pytest.approx((1 - confidence) / 2, rel=1e-6)


@given(mean=st.floats(0.01, 40))
def test_limits_cover_at_least_as_often_as_they_say(mean):
    counts = np.arange(200)
    low, high = poisson_limits(counts)
    assert poisson.pmf(counts, mean)[(low <= mean) & (mean <= high)].sum() >= 0.95 - 1e-9


def test_a_slide_counts_calls_and_phenotypes():
    found = cells("ctc", "ctc", "ctc", "leukocyte", "artefact", phenotype=["epithelial", "hybrid", None, "", "hybrid"])
    row = slide_row(entry(), found, quality(0.8, "dim"))
    assert [row[name] for name in CELL_COUNTS] == [5, 1, 1, 0, 3, 1, 1, 0, 1, 0, 0]
    assert (row["state"], row["assessable"], row["quality_reasons"]) == ("done", True, "dim")
    assert row["assessed_volume_ml"] == pytest.approx(2.0)
    assert row["ctc_per_ml"] == pytest.approx(1.5)
    assert row["ctc_per_ml_low"] == pytest.approx(0.61867 / 2, abs=1e-4)
    assert (row["ctc_machine"], row["reviewed"], row["readers"]) == (3, 0, "")


@given(calls=st.lists(st.tuples(CALLS, st.sampled_from(["epithelial", "hybrid", "mesenchymal", "undetermined", ""]))))
def test_classes_add_up_to_cells_and_phenotypes_to_ctcs(calls):
    row = slide_row(entry(), cells(*(call for call, _ in calls), phenotype=[kind for _, kind in calls]), GOOD)
    assert row["cells"] == row["leukocyte"] + row["artefact"] + row["indeterminate"] + row["ctc"] == len(calls)
    assert row["ctc"] == sum(row[f"ctc_{kind}"] for kind in ("epithelial", "hybrid", "mesenchymal", "undetermined"))


def test_two_edges_count_and_two_do_not():
    edges = ["", "top", "left", "top+left", "bottom", "right", "top+right", "left+bottom"]
    assert slide_row(entry(), cells(*["ctc"] * 8, edges=edges), GOOD)["ctc"] == 4


@given(
    cuts=st.lists(st.integers(1, 99), min_size=0, max_size=4, unique=True),
    spots=st.lists(st.tuples(st.integers(1, 99), st.integers(0, 3)), max_size=30),
)
def test_over_adjoining_fields_each_object_counts_once(cuts, spots):
    """The two-edges rule: a row of fields counts every object that ends inside the last field exactly once."""
    borders = [0, *sorted(cuts), 100]
    total = 0
    for start, stop in pairwise(borders):
        inside = [(first, first + length) for first, length in spots if first < stop and first + length >= start]
        edges = ["+".join(["left"] * (first < start) + ["right"] * (last >= stop)) for first, last in inside]
        total += slide_row(entry(), cells(*["ctc"] * len(edges), edges=edges), GOOD)["ctc"]
    assert total == sum(first + length < 100 for first, length in spots)


def test_cells_in_unassessed_regions_are_not_counted():
    row = slide_row(entry(), cells("ctc", "leukocyte", assessed=[False, True]), quality(0.5))
    assert (row["cells"], row["ctc"]) == (1, 0)


def test_clusters_count_once_and_only_when_whole():
    found = cells(
        *["ctc"] * 7,
        cluster_id=pd.array([1, 1, 2, 2, 3, 3, None], dtype="Int64"),
        cluster_kind=["ctc"] * 2 + ["ctc_leukocyte"] * 2 + ["ctc"] * 2 + [None],
        edges=["", "top", "", "", "", "right", ""],
    )
    row = slide_row(entry(), found, GOOD)
    assert (row["ctc_clusters"], row["ctc_leukocyte_clusters"]) == (1, 1)


def test_review_is_counted_beside_the_machine():
    found = cells(
        "ctc",
        "leukocyte",
        "ctc",
        machine_call=["ctc", "ctc", "artefact"],
        reviewed=[False, True, True],
        reader=[None, "wei", "anna;wei"],
    )
    row = slide_row(entry(), found, GOOD)
    assert (row["ctc"], row["ctc_machine"], row["reviewed"], row["readers"]) == (2, 2, 2, "anna;wei")


def test_zero_is_a_result_with_an_upper_limit():
    row = slide_row(entry(), cells("leukocyte"), GOOD)
    assert (row["ctc"], row["ctc_per_ml"], row["ctc_per_ml_low"]) == (0, 0, 0)
    assert row["ctc_per_ml_high"] == pytest.approx(3.6889 / 2.5, abs=1e-4)


@pytest.mark.parametrize(
    ("found", "quality", "failure", "state", "reason"),
    [
        (None, None, "half a file", "failed", "half a file"),
        (None, None, None, "pending", "not processed yet"),
        (cells("ctc"), None, None, "done", "no quality record"),
        (cells("ctc"), quality(0.1, "blurred", assessable=False), None, "done", "blurred"),
        (cells("ctc"), quality(0.0), None, "done", ""),
    ],
)
def test_a_slide_that_cannot_be_assessed_has_no_counts(found, quality, failure, state, reason):
    row = slide_row(entry(), found, quality, failure)
    assert (row["state"], row["quality_reasons"], row["assessable"]) == (state, reason, False)
    assert all(row[name] is pd.NA for name in (*CELL_COUNTS, "ctc_per_ml", "ctc_per_ml_high", "assessed_volume_ml"))
    pooled = samples(row)
    assert pooled.loc[0, [*CELL_COUNTS, "ctc_per_ml", "ctc_per_ml_high", "assessed_volume_ml"]].isna().all()
    assert not pooled.loc[0, "assessable"]
    assert ",,,,,,,,,,," in pooled.to_csv(index=False)


@given(
    slides=st.lists(
        st.tuples(st.lists(CALLS, max_size=8), st.floats(0.1, 1), st.floats(0.5, 5), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_a_sample_is_the_sum_of_its_assessable_slides(slides):
    rows = [
        slide_row(entry(f"s{i}", volume_ml=volume), cells(*calls), quality(fraction, assessable=assessable))
        for i, (calls, fraction, volume, assessable) in enumerate(slides)
    ]
    pooled = samples(*rows).loc[0]
    used = [slide for slide in slides if slide[3]]
    assert pooled["slides"] == len(slides)
    assert pooled["assessable"] == bool(used)
    if used:
        volume_ml = sum(fraction * volume for _, fraction, volume, _ in used)
        ctc = sum(calls.count("ctc") for calls, *_ in used)
        assert pooled["ctc"] == ctc
        assert pooled["assessed_volume_ml"] == pytest.approx(volume_ml)
        assert pooled["ctc_per_ml"] == pytest.approx(ctc / volume_ml)
        assert pooled["assessed_fraction"] == pytest.approx(volume_ml / sum(volume for _, _, volume, _ in slides))


def test_pooling_a_slide_with_itself_narrows_the_limits_only():
    once = samples(slide_row(entry("a"), cells("ctc", "ctc"), GOOD)).loc[0]
    twice = samples(*(slide_row(entry(name), cells("ctc", "ctc"), GOOD) for name in "ab")).loc[0]
    assert twice["ctc_per_ml"] == once["ctc_per_ml"]
    assert once["ctc_per_ml_low"] < twice["ctc_per_ml_low"] < twice["ctc_per_ml_high"] < once["ctc_per_ml_high"]


def test_a_rescan_replaces_and_never_adds():
    rows = [
        slide_row(entry("a"), cells("ctc", "ctc"), GOOD),
        slide_row(entry("b", rescan_of="a"), cells("ctc"), GOOD),
        slide_row(entry("c", rescan_of="b"), cells("leukocyte"), GOOD),
        slide_row(entry("d"), cells("ctc"), GOOD),
    ]
    pooled = samples(*rows).loc[0]
    assert (pooled["slides"], pooled["ctc"], pooled["cells"], pooled["assessed_volume_ml"]) == (2, 1, 2, 5.0)


def test_a_rescan_that_failed_does_not_bring_the_old_scan_back():
    rows = [slide_row(entry("a"), cells("ctc"), GOOD), slide_row(entry("b", rescan_of="a"), None, None, "half a file")]
    pooled = samples(*rows).loc[0]
    assert not pooled["assessable"]
    assert pooled["quality_reasons"] == "half a file"


def test_a_sample_names_the_slides_that_failed_and_the_readers():
    found = cells("ctc", reviewed=[True], reader=["wei"])
    rows = [
        slide_row(entry("a"), found, GOOD),
        slide_row(entry("b"), None, None, "half a file"),
        slide_row(entry("c"), cells("ctc", reviewed=[True], reader=["anna"]), quality(0.9, "dim", "uneven")),
    ]
    pooled = samples(*rows).loc[0]
    assert pooled["quality_reasons"] == "b: half a file; c: dim; uneven"
    assert (pooled["readers"], pooled["reviewed"], pooled["ctc_machine"]) == ("anna;wei", 2, 2)
    assert pooled["assessed_fraction"] == pytest.approx(1.9 / 3)


def test_samples_keep_the_cohorts_order_and_controls_their_kind():
    rows = [
        slide_row(entry(name, name, kind=kind), cells("ctc"), GOOD) for name, kind in (("z", "patient"), ("a", "blank"))
    ]
    table = samples(*rows)
    assert table["sample_id"].tolist() == ["z", "a"]
    assert table["sample_kind"].tolist() == ["patient", "blank"]


def test_counts_survive_csv_as_whole_numbers(tmp_path):
    rows = [slide_row(entry("a"), cells("ctc"), GOOD), slide_row(entry("b", "t2"), None, None, "broken")]
    slide_table(rows).to_csv(tmp_path / "slides.csv", index=False)
    again = count_samples(pd.read_csv(tmp_path / "slides.csv"))
    pd.testing.assert_frame_equal(again, samples(*rows))
    pd.testing.assert_frame_equal(count_samples(pd.DataFrame(rows)), samples(*rows))
    assert again["ctc"].tolist() == [1, pd.NA]


def test_a_sample_says_how_many_of_its_ctcs_no_reader_looked_at():
    found = cells("ctc", "ctc", "leukocyte", reviewed=[True, False, False], reader=["wei", None, None])
    confirmed = cells("ctc", reviewed=[True], reader=["wei"])
    rows = [
        slide_row(entry("a"), found, GOOD),
        slide_row(entry("b"), found, GOOD),
        slide_row(entry("c", rescan_of="b"), confirmed, GOOD),
        slide_row(entry("d", "t2"), confirmed, GOOD),
        slide_row(entry("e", "t3"), None, None, "half a file"),
    ]
    assert dict(unreviewed_ctcs(slide_table(rows))) == {"t1": 1, "t2": 0}
    assert "ctc_unreviewed" not in count_samples(slide_table(rows))
