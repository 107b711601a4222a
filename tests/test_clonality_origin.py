"""Where CTCs and relapse left the primary: simulated patients with known trees, and answers that can't be given."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest

from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.clone_trees import TreeData, draw_log_weights, tree_log_weight, weigh_trees
from ctc_imaging.clonality.origin import CANNOT_TELL, COMMON_ORIGIN, SHARED_SUBCLONE, UNRELATED, origin_of
from ctc_imaging.errors import StatisticsError

# Clones by their letters: T trunk, A and B subclones of the primary, R private to the relapse, C to the CTCs.
SIZES = {"T": 10, "A": 6, "B": 6, "R": 8, "C": 4}
REGIONS = {"P1": {"T": 1, "A": 0.4, "B": 0.3}, "P2": {"T": 1, "A": 0.1, "B": 0.7}}
PURITY, DEPTH, DROP_OUT, FALSE = 0.6, 200, 0.2, 0.001


def mutations(sizes=SIZES):
    return [(f"{clone}{number}", clone) for clone, size in sizes.items() for number in range(size)]


def tissue(sample, fractions, rng, sizes=SIZES):
    rows = []
    for name, clone in mutations(sizes):
        reads = rng.poisson(DEPTH)
        alt = rng.binomial(reads, max(fractions.get(clone, 0) * PURITY / 2, 0.001))
        rows.append((sample, name, reads - alt, alt, PURITY))
    return pd.DataFrame(rows, columns=["sample_id", "mutation", "ref_count", "alt_count", "purity"])


def ctcs(has, rng, cells=3, sizes=SIZES):
    rows = [
        (f"C{cell}", name, rng.random() < (1 - DROP_OUT if clone in has else FALSE))
        for cell in range(cells)
        for name, clone in mutations(sizes)
    ]
    return pd.DataFrame(rows, columns=["sample_id", "mutation", "present"])


def patient(ctc_has, relapse_has, seed=0, cells=3, sizes=SIZES):
    rng = np.random.default_rng(seed)
    primary = pd.concat([tissue(sample, fractions, rng, sizes) for sample, fractions in REGIONS.items()])
    relapse = tissue("R", dict.fromkeys(relapse_has, 1), rng, sizes)
    return primary, ctcs(ctc_has, rng, cells, sizes), relapse


def calls_only(table):
    return table.assign(present=table["alt_count"] >= 5)[["sample_id", "mutation", "present"]]


def verdict(result, a, b):
    pairs = result.pairs.set_index(["sample_a", "sample_b"])
    return pairs.loc[(a, b), "verdict"]


@pytest.fixture(scope="module")
def from_subclone():
    """CTCs and relapse both from subclone A."""
    return origin_of(*patient("TAC", "TAR"))


def test_a_subclone_shared_beyond_the_trunk_is_the_finding(from_subclone):
    for cell in ("C0", "C1", "C2"):
        assert verdict(from_subclone, cell, "R") == SHARED_SUBCLONE
    assert verdict(from_subclone, "P1", "R") == SHARED_SUBCLONE


def test_the_tree_is_that_of_the_truth(from_subclone):
    by_name = {names[0][0]: clone for clone, names in from_subclone.clones.set_index("clone")["mutations"].items()}
    assert sorted(by_name) == sorted(SIZES)
    parents = from_subclone.clones.set_index("clone")["parent"]
    assert pd.isna(parents[by_name["T"]])
    assert parents[by_name["A"]] == parents[by_name["B"]] == by_name["T"]
    assert parents[by_name["R"]] == parents[by_name["C"]] == by_name["A"]
    assert from_subclone.tree_support > 0.9
    assert from_subclone.clones.set_index("clone").loc[by_name["T"], "trunk"] > 0.95


def test_the_clone_that_relapse_and_ctcs_left_from_is_named_with_support(from_subclone):
    table = from_subclone.samples.pivot(index="clone", columns="sample_id", values="leaves_from")
    names = from_subclone.clones.set_index("clone")["mutations"].map(lambda m: m[0][0])
    for sample in ("C0", "C1", "C2", "R"):
        assert names[table[sample].idxmax()] == "A"
        assert table[sample].max() > 0.9


def test_fractions_of_tissue_and_of_single_cells(from_subclone):
    table = from_subclone.samples.pivot(index="clone", columns="sample_id", values="fraction")
    names = from_subclone.clones.set_index("clone")["mutations"].map(lambda m: m[0][0])
    of = table.set_axis(names[table.index], axis=0)
    assert of.loc["A", ["P1", "P2"]].to_numpy() == pytest.approx([0.4, 0.1], abs=0.06)
    assert of.loc["B", ["P1", "P2"]].to_numpy() == pytest.approx([0.3, 0.7], abs=0.06)
    assert of.loc["C", ["C0", "C1", "C2"]].min() > 0.95


@pytest.mark.parametrize(("ctc", "relapse"), [("TAC", "TBR"), ("TC", "TR")])
def test_sharing_only_the_trunk_is_a_common_origin(ctc, relapse):
    result = origin_of(*patient(ctc, relapse, seed=1))
    for cell in ("C0", "C1", "C2"):
        assert verdict(result, cell, "R") == COMMON_ORIGIN


def test_tumours_with_nothing_in_common_are_unrelated():
    result = origin_of(*patient("C", "R"))
    assert verdict(result, "C0", "R") == UNRELATED
    assert verdict(result, "P1", "R") == UNRELATED


def test_a_leukocyte_among_the_ctcs_is_unrelated():
    primary, cells, relapse = patient("TAC", "TAR")
    leukocyte = cells[cells["sample_id"] == "C0"].assign(sample_id="WBC", present=False)
    result = origin_of(primary, pd.concat([cells, leukocyte]), relapse)
    assert verdict(result, "WBC", "R") == UNRELATED
    assert verdict(result, "C0", "R") == SHARED_SUBCLONE


def test_what_calls_alone_cannot_tell_is_not_told():
    # In both regions of the primary all of T, A and B are present; without fractions A may be trunk.
    primary, cells, relapse = patient("TAC", "TAR")
    result = origin_of(calls_only(primary), cells, calls_only(relapse))
    assert verdict(result, "C0", "R") == CANNOT_TELL
    assert any("only presence is known of P1, P2, R" in note for note in result.notes)


def test_a_clone_the_primary_does_not_have_is_shared_beyond_its_trunk_even_by_calls_alone():
    primary, cells, relapse = patient("TAR", "TAR")
    assert verdict(origin_of(calls_only(primary), cells, calls_only(relapse)), "C0", "R") == SHARED_SUBCLONE


def test_a_cell_without_calls_gets_no_verdict():
    primary, cells, relapse = patient("TAC", "TAR", cells=1)
    result = origin_of(primary, cells.assign(present=pd.NA), relapse)
    assert verdict(result, "C0", "R") == CANNOT_TELL


def test_one_false_call_does_not_make_a_shared_subclone():
    primary, cells, relapse = patient("TBC", "TAR", cells=1)
    cells.loc[cells["mutation"] == "R0", "present"] = True
    assert verdict(origin_of(primary, cells, relapse), "C0", "R") != SHARED_SUBCLONE


def test_without_the_primary_seeding_cannot_be_told():
    primary, cells, relapse = patient("TAC", "TAR")
    result = origin_of(primary.iloc[:0], cells, relapse)
    assert verdict(result, "C0", "R") == CANNOT_TELL
    assert "no sample of the primary" in result.notes[0]


def test_without_a_relapse_the_ctcs_are_still_placed():
    primary, cells, _ = patient("TAC", "")
    assert verdict(origin_of(primary, cells), "P1", "C0") == SHARED_SUBCLONE


def test_errors_may_differ_by_sample():
    primary, cells, _ = patient("TC", "", cells=1)
    # Two of the six mutations of A were seen: false calls, or a cell of A whose others dropped out?
    cells.loc[cells["mutation"].isin(["A0", "A1"]), "present"] = True
    for_all, for_one, for_another = (
        origin_of(primary, cells, errors=errors).pairs
        for errors in (CellErrors(0.3, 0.05), {"C0": CellErrors(0.3, 0.05)}, {"other": CellErrors(0.3, 0.05)})
    )
    pd.testing.assert_frame_equal(for_all, for_one)
    assert for_all["p_shared_subclone"].iloc[1] < for_another["p_shared_subclone"].iloc[1]


def test_reads_of_single_cells_and_of_pools_are_understood():
    primary, cells, relapse = patient("TAC", "TAR", cells=2)
    depth = np.where(cells["present"], 12, 0)
    reads = cells.assign(ref_count=24 - depth, alt_count=depth).drop(columns="present")
    result = origin_of(primary, reads, relapse, cells={"C1": 5})
    assert verdict(result, "C0", "R") == SHARED_SUBCLONE
    assert verdict(result, "C1", "R") == SHARED_SUBCLONE


def test_the_same_seed_gives_the_same_answer_and_plain_data():
    first, second = (origin_of(*patient("TAC", "TBR", cells=1), seed=5) for _ in range(2))
    assert json.dumps(first.as_dict()) == json.dumps(second.as_dict())
    root = [clone for clone in first.as_dict()["clones"] if clone["parent"] is None]
    assert root[0]["mutations"] == [f"T{number}" for number in range(10)]


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda p, c, r: (p.iloc[:0], c.iloc[:0], None), "no mutations"),
        (lambda p, c, r: (pd.concat([p, p]), c, r), "stands twice"),
        (lambda p, c, r: (p, c.drop(columns="mutation"), r), "no column mutation"),
        (lambda p, c, r: (p, c.drop(columns="present"), r), "neither calls nor reads"),
        (lambda p, c, r: (p, c, p), "of two kinds"),
    ],
)
def test_tables_without_meaning_are_refused(spoil, fault):
    with pytest.raises(StatisticsError, match=fault):
        origin_of(*spoil(*patient("TAC", "TAR", cells=1)))


def trees_of(n):
    """All trees of n clones, by exhaustion."""
    kept = []
    for parents in product(range(n + 1), repeat=n):
        ends = list(range(n))
        for _ in range(n):
            ends = [end if end == n else parents[end] for end in ends]
        if all(end == n for end in ends):
            kept.append(parents)
    return kept


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_without_data_every_tree_is_as_likely(n):
    empty = TreeData(np.zeros((0, 10, n)), np.zeros(0, bool), np.zeros((n, 0)))
    trees = weigh_trees(empty, widest=1000)
    assert sorted(map(tuple, trees.parents.tolist())) == sorted(trees_of(n))
    assert len(trees.weights) == (n + 1) ** (n - 1)
    assert trees.weights == pytest.approx(1 / len(trees.weights))


def test_weights_are_those_of_all_trees():
    rng = np.random.default_rng(0)
    data = TreeData(rng.beta(2, 4, (2, 300, 3)), np.array([False, False]), rng.normal(0, 1, (3, 4)))
    trees = weigh_trees(data, widest=1000)
    exact = {tree: np.exp(tree_log_weight(np.array(tree), data)) for tree in trees_of(3)}
    for parents, weight in zip(trees.parents.tolist(), trees.weights, strict=True):
        assert weight == pytest.approx(exact[tuple(parents)] / sum(exact.values()))


def test_fractions_that_sum_to_more_than_their_parent_are_unlikely():
    draws = np.array([[0.9, 0.5, 0.3], [0.9, 0.7, 0.6]])
    siblings = draw_log_weights(np.array([3, 0, 0]), draws, False)
    assert siblings[0] == 0
    assert siblings[1] < -50
    # One within the other is possible for both.
    assert (draw_log_weights(np.array([3, 0, 1]), draws, False) == 0).all()


def test_a_tumour_has_a_trunk_unless_the_panel_misses_it():
    whole, half = np.array([[1.0]]), np.array([[0.5]])
    root = np.array([1])
    assert draw_log_weights(root, whole, True)[0] == pytest.approx(0)
    assert -4 < draw_log_weights(root, half, True)[0] < -2
    assert draw_log_weights(root, half, False)[0] == 0


def test_a_clone_that_contradicts_the_rest_is_left_off_the_tree():
    # 0 and 1 cross: each is the larger in one sample, and together they are more than all.
    fractions = np.array([[0.9, 0.2, 0.5], [0.2, 0.9, 0.9]])[:, None, :].repeat(50, axis=1)
    data = TreeData(np.ascontiguousarray(fractions), np.array([True, True]), np.zeros((3, 0)))
    trees = weigh_trees(data)
    assert trees.misfits.tolist() == [2]
    assert trees.placed.tolist() == [0, 1]
