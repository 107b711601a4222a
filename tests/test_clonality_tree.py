"""The mutation tree of single cells: SCITE's published scores, small trees by exhaustion, the moves between trees."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.clonality import tree_moves
from ctc_imaging.clonality.cell_tree import CellErrors, call_log_likelihoods, search_cell_tree, tree_log_score
from ctc_imaging.errors import StatisticsError

ERRORS = CellErrors(false_discovery=0.01, drop_out=0.2)


def is_tree(parents: np.ndarray) -> bool:
    """Whether every mutation leads to the root."""
    n = len(parents)
    for node in range(n):
        steps = 0
        while node != n:
            node, steps = parents[node], steps + 1
            if steps > n:
                return False
    return True


def all_trees(n: int) -> list[np.ndarray]:
    return [np.array(p) for p in product(range(n + 1), repeat=n) if is_tree(np.array(p))]


def carried(parents: np.ndarray, node: int) -> np.ndarray:
    has = np.zeros(len(parents), bool)
    while node != len(parents):
        has[node], node = True, parents[node]
    return has


def slow_score(calls: np.ndarray, parents: np.ndarray, errors: CellErrors) -> float:
    """Cell by cell and place by place, straight from the definition."""
    without, carrying = call_log_likelihoods(calls, errors)
    places = [carried(parents, node) for node in range(len(parents) + 1)]
    return sum(
        max(np.where(has, carrying[:, cell], without[:, cell]).sum() for has in places)
        for cell in range(calls.shape[1])
    )


matrices = (
    st.integers(1, 4)
    .flatmap(lambda n: st.lists(st.lists(st.sampled_from([0, 1, 3]), min_size=n, max_size=n), min_size=1, max_size=6))
    .map(lambda columns: np.array(columns).T)
)

trees = st.integers(2, 7).flatmap(
    lambda n: st.lists(st.integers(0, 100), min_size=n, max_size=n).map(
        # Each mutation hangs under the root or one with a lower number.
        lambda picks: np.array([n if pick % (i + 1) == i else pick % (i + 1) for i, pick in enumerate(picks)])
    )
)


@pytest.mark.parametrize(
    ("name", "errors", "published"),
    [
        ("Hou18", CellErrors(6.04e-5, 0.21545, 1.299164e-05), -378.3536),
        ("Xu", CellErrors(2.67e-5, 0.1643), -153.0791),
        ("Navin", CellErrors(1.24e-6, 0.0973), -579.4966),
    ],
)
def test_the_best_published_trees_are_reached(shared_data, name, errors, published):
    calls = np.loadtxt(shared_data / "clonality_scdna_scite" / f"data{name}.csv", dtype=int)
    tree = search_cell_tree(calls, errors)
    assert tree.log_score >= published - 0.01
    assert tree.log_score == pytest.approx(tree_log_score(calls, tree.parents, errors))


@given(matrices)
@settings(max_examples=25, deadline=None)
def test_no_small_tree_is_better_than_the_one_found(calls):
    best = max(slow_score(calls, parents, ERRORS) for parents in all_trees(len(calls)))
    assert search_cell_tree(calls, ERRORS, restarts=2, steps=2000).log_score == pytest.approx(best)


@given(trees, st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_score_is_that_of_its_definition(parents, seed):
    calls = np.random.default_rng(seed).integers(0, 4, (len(parents), 5))
    assert tree_log_score(calls, parents, ERRORS) == pytest.approx(slow_score(calls, parents, ERRORS))


@given(trees, st.data())
@settings(max_examples=80, deadline=None)
def test_every_move_leads_to_a_tree(parents, data):
    n = len(parents)
    before = parents.copy()
    a, b = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    move = data.draw(st.sampled_from([tree_moves.rehang, tree_moves.exchange, tree_moves.exchange_branches]))
    moved = move(parents, a, b)
    assert is_tree(parents)
    assert moved or (parents == before).all()


@given(trees, st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_exchanging_two_mutations_twice_changes_nothing(parents, a, b):
    a, b = a % len(parents), b % len(parents)
    before = parents.copy()
    tree_moves.exchange(parents, a, b)
    tree_moves.exchange(parents, a, b)
    assert (parents == before).all()


def test_the_tree_of_clean_calls_is_recovered():
    #      root
    #     0    3        cells: 01, 02, 02, 3, none
    #    1 2
    calls = np.array([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0]])
    tree = search_cell_tree(calls, ERRORS, restarts=2, steps=5000)
    assert tree.parents.tolist() == [4, 0, 0, 4]
    assert tree.attachments.tolist() == [1, 2, 2, 3, 4]
    assert (tree.genotypes() == calls).all()


def test_drop_out_is_seen_through():
    rng = np.random.default_rng(5)
    truth = np.zeros((9, 60), bool)
    truth[:3] = True
    truth[3:6, :30] = True
    truth[6:, 30:] = True
    calls = (truth & (rng.random(truth.shape) > 0.3)) | (~truth & (rng.random(truth.shape) < 0.005))
    found = search_cell_tree(calls.astype(int), CellErrors(0.005, 0.3), restarts=3, steps=30_000).genotypes()
    wrong = [(each != truth).mean() for each in (found, calls)]
    assert wrong[0] < wrong[1] / 2


def test_a_cell_without_calls_is_given_no_mutation():
    calls = np.array([[1, 1, 3], [1, 0, 3]])
    assert search_cell_tree(calls, ERRORS, restarts=1, steps=500).attachments[2] == 2


def test_the_order_of_mutations_and_cells_does_not_matter():
    rng = np.random.default_rng(0)
    calls = rng.choice(4, (8, 12), p=[0.4, 0.4, 0.1, 0.1])
    shuffled = calls[rng.permutation(8)][:, rng.permutation(12)]
    scores = [search_cell_tree(each, ERRORS, steps=50_000).log_score for each in (calls, shuffled)]
    assert scores[0] == pytest.approx(scores[1])


def test_the_same_seed_gives_the_same_tree():
    calls = np.random.default_rng(1).integers(0, 2, (10, 10))
    a, b = (search_cell_tree(calls, ERRORS, restarts=2, steps=5000, seed=7) for _ in range(2))
    assert (a.parents == b.parents).all()
    assert a.log_score == b.log_score


@pytest.mark.parametrize("calls", [np.array([[0, 1, 3]]), np.array([[0, 1, 2, 3]])])
def test_the_chances_of_a_site_sum_to_one(calls):
    for chances in call_log_likelihoods(calls, ERRORS):
        assert np.exp(chances[calls != 3]).sum() == pytest.approx(1)
        assert (chances[calls == 3] == 0).all()


@pytest.mark.parametrize("calls", [np.zeros((0, 3), int), np.zeros(4, int), np.array([[0, 5]])])
def test_calls_without_meaning_are_refused(calls):
    with pytest.raises(StatisticsError, match="calls"):
        search_cell_tree(calls, ERRORS)


@pytest.mark.parametrize("rates", [(0, 0.1), (0.01, 1.0), (0.01, 0.1, -1)])
def test_rates_that_are_no_chances_are_refused(rates):
    with pytest.raises(StatisticsError, match="isn't a chance"):
        CellErrors(*rates)


def test_losing_either_allele_in_half_of_the_cells_leaves_no_heterozygous_call():
    with pytest.raises(StatisticsError, match="drop_out"):
        search_cell_tree(np.array([[0, 1, 2]]), CellErrors(0.01, 0.5))
