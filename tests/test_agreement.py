"""Agreement figures are those of the textbooks, and their limits hold what they promise."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtrit
from sklearn.metrics import cohen_kappa_score

from ctc_imaging.agreement import (
    agreement_of,
    cohen_kappa,
    count_difference,
    count_table,
    fleiss_kappa,
    limits_of_agreement,
    missed_ctcs,
    positive_agreement,
    repeatability,
    specific_agreement,
)
from ctc_imaging.agreement.kappa import call_counts
from ctc_imaging.errors import StatisticsError

CALLS = ("ctc", "leukocyte", "artefact", "indeterminate")
READERS = st.lists(st.tuples(*[st.sampled_from(CALLS)] * 2), min_size=2, max_size=60)

# Thirty patients, six psychiatrists, five diagnoses (Fleiss, Psychol Bull 1971;76:378-82, table 1).
DIAGNOSES = """
00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006
"""


def table_of_calls(square):
    """Two readers' calls behind a table of counts."""
    rows, columns = np.indices(np.shape(square))
    return np.repeat(rows.ravel(), np.ravel(square)), np.repeat(columns.ravel(), np.ravel(square))


# Known answers


@pytest.mark.parametrize(
    ("square", "kappa", "error"),
    [
        # Fleiss, Statistical Methods for Rates and Proportions, 2nd ed. 1981, table 13.1; errors are statsmodels'.
        ([[75, 1, 4], [5, 4, 1], [0, 0, 10]], 0.676471, 0.0877030),
        ([[44, 5, 1], [7, 20, 3], [9, 5, 6]], 0.491525, 0.0721275),
    ],
)
def test_cohen_kappa_has_the_standard_error_of_fleiss_cohen_and_everitt(square, kappa, error):
    a, b = table_of_calls(square)
    found, n = cohen_kappa(a, b), len(a)
    assert found.value == pytest.approx(kappa, abs=1e-6)
    half = error * np.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.975)
    assert (found.low, found.high) == pytest.approx((kappa - half, kappa + half), abs=2e-6)
    assert found.limits_by == "cells"


def test_fleiss_kappa_of_psychiatric_diagnoses():
    counts = [[int(digit) for digit in row] for row in DIAGNOSES.split()]
    assert np.sum(counts, axis=0).tolist() == [26, 26, 30, 55, 43]
    found = fleiss_kappa(counts)
    assert found.value == pytest.approx(0.430, abs=5e-4)
    assert found.low < 0.430 < found.high
    # Kappa of two readers only moves by what their shares differ.
    a, b = table_of_calls([[40, 5], [5, 50]])
    assert fleiss_kappa(call_counts(np.stack([a, b], 1), 2)).value == pytest.approx(cohen_kappa(a, b).value)


def test_fleiss_limits_are_those_of_the_jackknife():
    counts = np.array([[int(digit) for digit in row] for row in DIAGNOSES.split()])
    n, found = len(counts), fleiss_kappa(counts)
    without = np.array([fleiss_kappa(np.delete(counts, cell, axis=0)).value for cell in range(n)])
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    assert found.high - found.value == pytest.approx(error * stdtrit(n - 1, 0.975), rel=0.05)


def test_bland_altman_by_hand():
    found = limits_of_agreement([10, 12, 15, 9], [8, 12, 11, 9])
    sd = np.std([2, 0, 4, 0], ddof=1)
    assert (found.mean, found.sd) == pytest.approx((1.5, sd))
    assert (found.low, found.high) == pytest.approx((1.5 - 1.96 * sd, 1.5 + 1.96 * sd))
    t = stdtrit(3, 0.975)
    assert found.mean_high == pytest.approx(1.5 + t * sd / 2)
    assert found.low_error == pytest.approx(t * sd * np.sqrt(1 / 4 + 1.96**2 / 6))


def test_repeatability_by_hand_with_a_round_missing():
    found = repeatability([[1, 3, np.nan], [5, 5, 8], [4, np.nan, np.nan]])
    assert found.samples == 2
    assert found.sd == pytest.approx(np.sqrt((2 + 6) / 3))
    assert found.coefficient == pytest.approx(1.96 * np.sqrt(2) * found.sd)
    assert found.sd_low < found.sd < found.sd_high


# What always holds


@given(READERS)
def test_cohen_kappa_is_that_of_scikit_learn(pairs):
    a, b = zip(*pairs, strict=True)
    found = cohen_kappa(a, b)
    if len({*a, *b}) == 1:
        assert np.isnan(found.value)
    else:
        assert found.value == pytest.approx(cohen_kappa_score(a, b), abs=1e-9)
        assert -1 <= found.low <= found.value + 1e-12 <= found.high + 2e-12 <= 1 + 3e-12
    swapped = cohen_kappa(b, a)
    assert (swapped.low, swapped.high) == pytest.approx((found.low, found.high), nan_ok=True)


@given(READERS)
def test_positive_agreement_counts_both_twice(pairs):
    a, b = (np.array(reader) for reader in zip(*pairs, strict=True))
    found = positive_agreement(a, b)
    both, one = int(((a == "ctc") & (b == "ctc")).sum()), int(((a == "ctc") ^ (b == "ctc")).sum())
    if both + one == 0:
        assert np.isnan(found.value)
    else:
        assert found.value == pytest.approx(2 * both / (2 * both + one))
        assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(2, 5)), min_size=1, max_size=40))
def test_specific_agreement_of_many_readers_is_the_chance_that_another_agrees(cells):
    given_, read = np.array([(min(calls, readers), readers) for calls, readers in cells]).T
    found = specific_agreement(given_, read)
    if (given_ * (read - 1)).sum():
        assert found.value == pytest.approx((given_ * (given_ - 1)).sum() / (given_ * (read - 1)).sum())
        assert found.low <= found.value <= found.high or (len(cells) == 1 and found.limits_by == "")
    else:
        assert np.isnan(found.value)


def test_perfect_agreement_on_few_cells_is_no_certainty():
    calls = ["ctc"] * 3 + ["leukocyte"] * 3
    kappa, positive = cohen_kappa(calls, calls), positive_agreement(calls, calls)
    assert (kappa.value, kappa.high) == (1, 1)
    assert kappa.low < 0.2
    assert positive.low < 0.5
    assert positive_agreement(calls * 50, calls * 50).low > 0.97


def test_readers_who_never_agree_on_few_cells_leave_room_for_doubt():
    found = cohen_kappa(["ctc"] * 4, ["artefact"] * 4)
    assert found.value == 0
    assert found.high > 0.5


def test_one_class_only_has_no_kappa_but_says_so():
    found = cohen_kappa(["ctc"] * 5, ["ctc"] * 5)
    assert found.as_dict() == {"value": None, "low": None, "high": None, "limits_by": ""}


def test_limits_by_sample_hold_where_those_by_cell_do_not():
    random = np.random.default_rng(3)

    def read(samples):
        sample = np.repeat(np.arange(samples), 20)
        # Some samples are stained badly: there both readers err more.
        error = 1 / (1 + np.exp(2 - 0.9 * random.normal(size=samples)))
        truth = random.random(len(sample)) < 0.4
        a, b = (truth ^ (random.random(len(sample)) < error[sample]) for _ in range(2))
        return sample, a, b

    _, *both = read(20_000)
    true_kappa, true_positive = cohen_kappa(*both).value, positive_agreement(*both, True).value
    hits = np.zeros(4)
    for _ in range(200):
        sample, a, b = read(12)
        for place, (found, true) in enumerate(
            [
                (cohen_kappa(a, b, sample), true_kappa),
                (positive_agreement(a, b, True, sample), true_positive),
                (cohen_kappa(a, b), true_kappa),
                (positive_agreement(a, b, True), true_positive),
            ]
        ):
            hits[place] += found.low <= true <= found.high
    assert (hits[:2] / 200 > 0.9).all()
    assert (hits[2:] / 200 < 0.9).all()


# CTCs that the model rejected


def test_missed_ctcs_stand_for_the_inverse_of_their_chance():
    found = missed_ctcs([True, False, True, False], [0.5, 0.01, 0.1, 0.02])
    assert (found.value, found.found, found.read) == (12, 2, 4)
    assert 2 <= found.low < 12 < found.high


def test_none_found_still_has_an_upper_limit_which_is_exact():
    found = missed_ctcs([False] * 200, [0.01] * 200)
    assert (found.value, found.low) == (0, 0)
    # As many would all have escaped with a chance of 2.5 %, one more with less.
    assert 0.99**found.high >= 0.025 > 0.99 ** (found.high + 1)
    # Clopper and Pearson's limit of 0 of 200 in 20,000 cells.
    assert found.high == pytest.approx(20_000 * (1 - 0.025 ** (1 / 200)), rel=0.015)


def test_where_all_rejected_cells_were_read_nothing_is_in_doubt():
    found = missed_ctcs([True, False, True], [1, 1, 1])
    assert (found.value, found.low, found.high) == (2, 2, 2)
    assert missed_ctcs([False] * 3, [1] * 3).high == 0


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.001, 1)), min_size=1, max_size=50),
    st.integers(60, 10_000),
)
def test_limits_of_missed_ctcs_are_in_order(cells, count):
    found = missed_ctcs(*zip(*cells, strict=True), cells=count)
    assert found.found <= found.low
    assert found.low <= found.value * (1 + 1e-12)
    assert found.high <= count
    assert found.high >= min(found.value, count) * (1 - 1e-12)


@pytest.mark.parametrize(("missed", "drawn"), [(0, 100), (8, 100), (60, 300)])
def test_limits_of_missed_ctcs_hold(missed, drawn):
    random = np.random.default_rng(missed)
    cells, hits = 2000, 0
    for _ in range(300):
        size = random.lognormal(0, 1, cells)
        chance = np.minimum(0.5 * drawn / cells + 0.5 * drawn * size / size.sum(), 1)
        read = random.random(cells) < chance
        found = missed_ctcs((np.arange(cells) < missed)[read], chance[read], chance.min(), cells)
        hits += found.low <= missed <= found.high
    assert hits / 300 > 0.94


@pytest.mark.parametrize(
    ("hits", "chances", "least"),
    [([], [], None), ([True], [0.0], None), ([True], [1.5], None), ([True], [0.1], 0.2), ([True], [np.nan], None)],
)
def test_a_sample_that_cannot_be_is_refused(hits, chances, least):
    with pytest.raises(StatisticsError, match="missed CTCs"):
        missed_ctcs(hits, chances, least)


# A table of calls


def calls_of(*rows):
    return pd.DataFrame(rows, columns=["sample_id", "slide_id", "cell_id", "reader", "call"])


@pytest.fixture(scope="module")
def study():
    """Three readers of 6 samples of 12 cells, the third of the first 4 only; A once more; 3 rejected cells a sample."""
    random = np.random.default_rng(1)
    rows = []
    for sample in range(6):
        for cell in range(15):
            truth = random.choice(CALLS, p=[0.4, 0.4, 0.15, 0.05])
            for reader, rounds in (("A", 2), ("B", 1), ("C", 1 if sample < 4 else 0)):
                for number in range(1, rounds + 1):
                    call = truth if random.random() < 0.85 else random.choice(CALLS)
                    chance = 0.1 if cell >= 12 else 1.0
                    rows.append((f"T{sample}", f"S{sample}", cell, reader, call, number, chance))
    names = ["sample_id", "slide_id", "cell_id", "reader", "call", "round", "inclusion_probability"]
    return pd.DataFrame(rows, columns=names)


def test_readers_are_compared_on_the_cells_both_read(study):
    found = agreement_of(study)
    assert (found.readers, found.cells, found.samples) == (("A", "B", "C"), 90, 6)
    assert [(pair.a, pair.b, pair.cells, pair.samples) for pair in found.pairs] == [
        ("A", "B", 90, 6),
        ("A", "C", 60, 4),
        ("B", "C", 60, 4),
    ]
    first = study[study["round"] == 1].pivot(index=["slide_id", "cell_id"], columns="reader", values="call")
    both = first[["A", "C"]].dropna()
    assert found.pairs[1].kappa.value == pytest.approx(cohen_kappa_score(both["A"], both["C"]))
    assert found.pairs[1].same == (both["A"] == both["C"]).sum()
    assert found.fleiss is not None
    assert 0.5 < found.fleiss.low < found.fleiss.high < 1
    assert set(found.classes) == set(CALLS)


def test_counts_leave_out_cells_that_stand_for_many(study):
    found = agreement_of(study)
    certain = study[(study["round"] == 1) & (study["inclusion_probability"] == 1)]
    counts = certain[certain["call"] == "ctc"].groupby(["sample_id", "reader"]).size()
    assert found.counts.loc["T2", "B"] == counts["T2", "B"]
    assert np.isnan(found.counts.loc["T5", "C"])
    difference = found.pairs[0].difference
    assert difference.mean == pytest.approx((found.counts["A"] - found.counts["B"]).mean())
    assert count_difference(study[study["round"] == 1], "A", "B") == difference
    pd.testing.assert_frame_equal(count_table(study[study["round"] == 1]), found.counts)


def test_a_reader_is_compared_with_the_first_round(study):
    found = agreement_of(study)
    assert list(found.rounds) == ["A"]
    (pair,) = found.rounds["A"]
    assert (pair.a, pair.b, pair.cells) == ("1", "2", 90)
    assert found.repeatability["A"].samples == 6


def test_missed_ctcs_by_reader_and_by_majority(study):
    found = agreement_of(study, smallest_probability=0.05, rejected_cells=180)
    assert set(found.missed) == {"A", "B", "C", "majority"}
    drawn = study[(study["inclusion_probability"] < 1) & (study["round"] == 1) & (study["reader"] == "B")]
    assert found.missed["B"].value == pytest.approx(10 * (drawn["call"] == "ctc").sum())
    assert found.missed["C"].read == 12
    assert all(missed.high <= 180 for missed in found.missed.values())


def test_figures_go_to_json_without_loss(study):
    text = json.dumps(agreement_of(study).as_dict(), allow_nan=False)
    read = json.loads(text)
    assert read["pairs"][0]["kappa"]["limits_by"] == "samples"
    assert read["counts"][5]["C"] is None
    assert read["missed"]["majority"]["read"] == 18


def test_the_order_of_rows_says_nothing(study):
    shuffled = study.sample(frac=1, random_state=0)
    assert agreement_of(shuffled).as_dict() == agreement_of(study).as_dict()


def test_a_single_reader_has_counts_and_nothing_to_be_compared_with():
    found = agreement_of(calls_of(("T", "S", 1, "A", "ctc"), ("T", "S", 2, "A", "artefact")))
    assert found.pairs == ()
    assert found.fleiss is None
    assert found.counts.loc["T", "A"] == 1
    assert found.as_dict()["missed"] == {}


def test_readers_of_other_cells_are_not_compared():
    found = agreement_of(calls_of(("T", "S", 1, "A", "ctc"), ("T", "S", 2, "B", "ctc")))
    assert found.pairs == ()
    assert found.fleiss is None


def test_a_reader_who_calls_a_cell_twice_is_refused():
    row = ("T", "S", 1, "A", "ctc")
    with pytest.raises(StatisticsError, match="A has called cell 1 of S twice in round 1; give the last call"):
        agreement_of(calls_of(row, row))


def test_a_table_without_readers_is_refused():
    with pytest.raises(StatisticsError, match="the column reader is missing"):
        agreement_of(calls_of().drop(columns="reader"))
    with pytest.raises(StatisticsError, match="nobody has read"):
        agreement_of(calls_of())


def test_no_cells_in_common_is_refused():
    with pytest.raises(StatisticsError, match="0 and 0 cells"):
        cohen_kappa([], [])
    with pytest.raises(StatisticsError, match="no cell was read by two"):
        fleiss_kappa([[1, 0], [0, 1]])
    with pytest.raises(StatisticsError, match="A and B have read no cell in common"):
        count_difference(calls_of(("T", "S", 1, "A", "ctc"), ("T", "S", 2, "B", "ctc")), "A", "B")
