"""Clones of bulk samples: a published patient, simulated ones with known clones, the exact posterior of groupings."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.clone_evidence import (
    BULK_GRID,
    CELL_GRID,
    CopyNumbers,
    from_bulk_calls,
    from_cell_calls,
    from_cell_reads,
    from_pool_calls,
    from_reads,
    from_reads_without_purity,
    log_prior,
)
from ctc_imaging.clonality.clone_fractions import credible_limits, fit_clone_fractions
from ctc_imaging.clonality.clone_mixture import (
    Evidence,
    fit_mixture,
    merge_groups,
    partition_log_score,
    sample_partitions,
)
from ctc_imaging.errors import StatisticsError

PYCLONE = {"mutation_id": "mutation", "ref_counts": "ref_count", "alt_counts": "alt_count", "tumour_content": "purity"}
ERRORS = CellErrors(0.001, 0.2)


def simulated(fractions, sizes, *, purity=0.7, depth=300, seed=0):
    """Make reads of clones with known fractions, a row of `fractions` a clone, a column a sample."""
    rng = np.random.default_rng(seed)
    rows = []
    for clone, (of_clone, size) in enumerate(zip(fractions, sizes, strict=True)):
        for number in range(size):
            for sample, fraction in enumerate(of_clone):
                reads = rng.poisson(depth)
                alt = rng.binomial(reads, max(purity * fraction / 2, 0.001))
                rows.append((f"c{clone}m{number}", f"S{sample}", reads - alt, alt, purity))
    return pd.DataFrame(rows, columns=["mutation", "sample_id", "ref_count", "alt_count", "purity"])


def evidence_of(likelihoods):
    grids = [BULK_GRID if each.shape[1] > 2 else CELL_GRID for each in likelihoods]
    return Evidence.of(likelihoods, grids, [log_prior(grid) for grid in grids])


def test_the_trunk_of_cruk0001(shared_data):
    reads = pd.read_csv(shared_data / "clonality_pyclone" / "tracerx_cruk0001.tsv", sep="\t").rename(columns=PYCLONE)
    fit = fit_clone_fractions(reads)
    table = fit.table()
    trunk = table.index[(table > 0.8).all(axis=1)]
    assert len(trunk) == 1
    assert table.loc[trunk[0], ["R1", "R2", "R3"]].to_numpy() == pytest.approx([0.995, 0.984, 0.998], abs=0.01)
    assert 130 <= (fit.mutations["clone"] == trunk[0]).sum() <= 180
    assert fit.mutations["mutation"].nunique() == reads["mutation"].nunique()


def test_pyclone_vis_simulated_clones_are_found(shared_data):
    reads = pd.read_csv(shared_data / "clonality_pyclone" / "synthetic.tsv", sep="\t").rename(columns=PYCLONE)
    found = fit_clone_fractions(reads).mutations.set_index("mutation")["clone"]
    truth = reads.drop_duplicates("mutation").set_index("mutation")["cluster"]
    assert adjusted_rand_score(truth, found[truth.index]) > 0.85


def test_clones_of_known_fractions_are_found():
    truth = [(1.0, 1.0), (0.5, 0.0), (0.2, 0.9)]
    fit = fit_clone_fractions(simulated(truth, (30, 20, 10)))
    assert fit.table().to_numpy() == pytest.approx(np.array(truth), abs=0.05)
    assert (
        fit.mutations["mutation"].str[:2].map({"c0": 0, "c1": 1, "c2": 2}).tolist() == fit.mutations["clone"].tolist()
    )
    assert (fit.mutations["chance"] > 0.9).all()
    for row in fit.clones.itertuples():
        # The limits are points of the grid, 0.01 apart.
        assert row.low - 0.01 <= row.fraction <= row.high + 0.01


def test_more_samples_tell_clones_apart_that_one_cannot():
    alone = fit_clone_fractions(simulated([(0.5,), (0.5,)], (10, 10)))
    both = fit_clone_fractions(simulated([(0.5, 0.1), (0.5, 0.8)], (10, 10)))
    assert alone.mutations["clone"].nunique() == 1
    assert both.mutations["clone"].nunique() == 2


def test_a_mutation_without_reads_somewhere_is_grouped_by_the_rest():
    reads = simulated([(1.0, 1.0), (0.4, 0.1)], (12, 12))
    gone = (reads["mutation"] == "c1m0") & (reads["sample_id"] == "S1")
    found = fit_clone_fractions(reads[~gone]).mutations.set_index("mutation")["clone"]
    assert found["c1m0"] == found["c1m1"] != found["c0m0"]


def test_one_mutation_is_one_clone():
    fit = fit_clone_fractions(simulated([(1.0,)], (1,)))
    assert fit.mutations["clone"].tolist() == [0]


def test_the_same_seed_gives_the_same_clones():
    reads = simulated([(1.0, 0.3), (0.6, 0.3), (0.2, 0.1)], (9, 9, 9), depth=60)
    a, b = (fit_clone_fractions(reads, seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(a.clones, b.clones)


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda t: t.drop(columns="alt_count"), "alt_count"),
        (lambda t: t.iloc[:0], "no mutations"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "stands twice"),
        (lambda t: t.assign(purity=np.nan), "has none"),
        (lambda t: t.assign(purity=1.5), "outside 0 to 1"),
        (lambda t: t.assign(alt_count=-1), "below zero"),
    ],
)
def test_tables_without_meaning_are_refused(spoil, fault):
    with pytest.raises(StatisticsError, match=fault):
        fit_clone_fractions(spoil(simulated([(1.0,)], (3,))))


def test_a_purity_for_all_may_be_given():
    reads = simulated([(1.0,), (0.5,)], (20, 20), purity=0.5)
    fit = fit_clone_fractions(reads.drop(columns="purity"), purity=0.5)
    assert sorted(fit.table()["S0"]) == pytest.approx([0.5, 1.0], abs=0.06)


@pytest.mark.parametrize(
    ("copies", "vaf"),
    [
        (CopyNumbers(1, 1, 2, 1.0), 0.25),
        (CopyNumbers(1, 1, 2, 0.5), 0.125),
        (CopyNumbers(1, 0, 2, 1.0), 0.5),
        (CopyNumbers(1, 0, 1, 1.0), 0.5),
    ],
)
def test_the_likeliest_fraction_follows_from_purity_and_copies(copies, vaf):
    # A half of the cancer cells carries it. With one copy lost the second case of the mean pulls a little.
    likelihood = from_reads(np.array([10_000 * (1 - vaf)]), np.array([10_000 * vaf]), copies)[0]
    assert BULK_GRID[likelihood.argmax()] == pytest.approx(
        0.5, abs=0.2 if copies.minor == 0 and copies.normal == 2 else 0.011
    )


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 4), st.integers(0, 2), st.floats(0.05, 1))
@settings(max_examples=50, deadline=None)
def test_any_reads_have_a_finite_likelihood(ref, alt, major, minor, purity):
    likelihood = from_reads(np.array([ref]), np.array([alt]), CopyNumbers(major, min(minor, major), 2, purity))
    assert np.isfinite(likelihood).all()
    if ref + alt == 0:
        assert np.ptp(likelihood) < 1e-9


@pytest.mark.parametrize(
    "silent",
    [
        from_reads(np.array([np.nan]), np.array([np.nan]), CopyNumbers()),
        from_reads_without_purity(np.array([np.nan]), np.array([3.0])),
        from_bulk_calls(np.array([np.nan])),
        from_cell_calls(np.array([np.nan]), ERRORS),
        from_cell_reads(np.array([0.0]), np.array([0.0]), ERRORS),
        from_pool_calls(np.array([np.nan]), 5, ERRORS),
    ],
)
def test_what_is_missing_says_nothing(silent):
    assert np.ptp(silent) == pytest.approx(0, abs=1e-9)


def test_a_single_cells_reads_weigh_by_their_depth():
    ratio = np.diff(from_cell_reads(np.array([0, 1, 10, 30]), np.array([0, 1, 10, 0]), ERRORS), axis=1)[:, 0]
    assert ratio[0] == pytest.approx(0)
    assert 0 < ratio[1] < ratio[2]
    # Thirty reads of the other allele: absent, or dropped out, and drop-out sets how sure that can be.
    assert ratio[3] == pytest.approx(np.log(ERRORS.drop_out), abs=0.05)


def test_the_more_cells_in_a_pool_the_less_an_absence_can_be_drop_out():
    absent = [from_pool_calls(np.array([0.0]), cells, ERRORS)[0] for cells in (1, 5, 20)]
    losses = [each[-1] - each[0] for each in absent]
    assert losses[0] > losses[1] > losses[2]
    assert losses[0] == pytest.approx(np.log(ERRORS.drop_out), abs=1e-6)


def test_credible_limits_hold_the_level():
    posterior = np.exp(-0.5 * ((BULK_GRID - 0.4) / 0.05) ** 2)
    low, high = credible_limits(posterior / posterior.sum(), BULK_GRID)
    assert (low, high) == pytest.approx((0.3, 0.5), abs=0.011)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_merging_never_makes_a_grouping_less_likely(seed):
    rng = np.random.default_rng(seed)
    evidence = evidence_of([rng.normal(0, 2, (12, 2)), rng.normal(0, 2, (12, 101))])
    labels = rng.integers(0, 6, 12)
    labels = np.unique(labels, return_inverse=True)[1]
    merged = merge_groups(evidence, labels)
    assert partition_log_score(evidence, merged) >= partition_log_score(evidence, labels) - 1e-9
    assert len(np.unique(merged)) <= len(np.unique(labels))


def test_groupings_are_drawn_as_often_as_they_are_likely():
    rng = np.random.default_rng(4)
    evidence = evidence_of([rng.normal(0, 1.0, (3, 2)) for _ in range(3)])
    groupings = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 2)]
    scores = np.array([partition_log_score(evidence, np.array(each)) for each in groupings])
    exact = np.exp(scores - scores.max())
    drawn = sample_partitions(evidence, np.zeros(3, np.int64), draws=20_000, seed=1)
    shares = [(drawn == each).all(axis=1).mean() for each in groupings]
    assert shares == pytest.approx(exact / exact.sum(), abs=0.015)


def test_single_cells_and_bulk_samples_are_grouped_together():
    # The bulk sample can't tell the two clones apart, the cells can.
    bulk = from_reads(np.full(8, 75), np.full(8, 25), CopyNumbers())
    cells = [from_cell_calls(np.repeat(has, 4), ERRORS) for has in ((1.0, 0.0), (1.0, 0.0), (0.0, 1.0))]
    labels = fit_mixture(evidence_of([bulk, *cells]), clones=5, restarts=3, seed=0)
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
