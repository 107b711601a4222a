"""Which cells to review next: doubtful ones, of every kind, each once, the same each time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.classification.next_cells import (
    cell_features,
    farthest_first,
    gradients,
    is_feature,
    learning_order,
    margin,
    seen_from_boundary,
)


def cells_of(kinds, seed=0):
    """Draw cells of several kinds; each is (count, p of ctc, CK signal, CD45 signal)."""
    rng = np.random.default_rng(seed)
    parts = []
    for kind, (count, p_ctc, ck, cd45) in enumerate(kinds):
        parts.append(pd.DataFrame({
            "kind": kind, "p_ctc": p_ctc, "p_leukocyte": 1 - p_ctc, "p_artefact": 0.0,
            "ck_snr": ck * rng.lognormal(0, 0.03, count), "cd45_snr": cd45 * rng.lognormal(0, 0.03, count),
            "diameter_um": rng.normal(10, 0.1, count), "nucleus_area_um2": 40.0, "area_um2": 80.0,
            "eccentricity": 0.5, "solidity": 0.95, "focus": 0.7,
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


PLAIN, TWINS, RARE, OTHER = (2000, 0.0, 0.3, 10.0), (300, 0.45, 6.0, 1.0), (3, 0.45, 6.0, 12.0), (3, 0.45, 0.3, 0.3)


def test_one_puzzling_kind_in_numbers_does_not_fill_the_queue_and_certain_cells_come_last():
    cells = cells_of([PLAIN, TWINS, RARE, OTHER])
    order = learning_order(cells, picked=500)
    kinds = cells["kind"].to_numpy()[order]
    assert set(kinds[:5]) == {1, 2, 3}
    assert (kinds[-2000:] == 0).all()
    by_doubt = cells["kind"].to_numpy()[np.argsort(margin(seen_from_boundary(cells)), kind="stable")]
    assert (by_doubt[:5] == 1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(1, 40), st.integers(0, 10**6))
def test_every_cell_comes_once_and_the_order_is_the_same_each_time(count, picked, seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.3, 0.3, 0.3], count)
    cells = pd.DataFrame(p, columns=["p_ctc", "p_leukocyte", "p_artefact"])
    cells = cells.assign(ck_snr=rng.choice([0.0, 1.0, np.nan], count), diameter_um=9.0, focus=np.nan)
    first = rng.random(count) < 0.3
    order = learning_order(cells, first, picked)
    assert sorted(order.tolist()) == list(range(count))
    assert first[order[: first.sum()]].all()
    assert np.array_equal(order, learning_order(cells.copy(), first, picked))


def test_doubt_is_greatest_where_calls_change_not_at_one_half():
    cells = pd.DataFrame({"p_ctc": [0.999, 0.99, 0.5, 0.0, 0.0], "p_leukocyte": [0.0, 0.01, 0.5, 1.0, 0.9],
                          "p_artefact": [0.001, 0.0, 0.0, 0.0, 0.1],
                          "call": ["ctc", "ctc", "indeterminate", "leukocyte", "leukocyte"]})  # fmt: skip
    p = seen_from_boundary(cells)
    assert p[1, 0] == pytest.approx(0.5)
    assert margin(p).argmin() == 1
    assert np.allclose(p.sum(axis=1), 1)
    assert seen_from_boundary(cells.drop(columns="call"))[2, 0] == pytest.approx(0.5)
    # A tenth of an artefact is much where there are few.
    assert p[4, 2] > 0.5


def test_after_those_picked_one_by_one_the_rest_follow_by_doubt():
    rng = np.random.default_rng(0)
    cells = cells_of([(500, 0.0, 1.0, 5.0)]).assign(p_ctc=rng.uniform(0, 0.5, 500))
    cells["p_leukocyte"], cells["p_artefact"] = 1 - cells["p_ctc"], 0.0
    rest = margin(seen_from_boundary(cells))[learning_order(cells, picked=20)[20:]]
    assert (np.diff(rest) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 25), st.integers(0, 10**6))
def test_each_next_point_is_farthest_from_all_before_it(count, seed):
    points = np.random.default_rng(seed).normal(size=(count, 3))
    order = farthest_first(points, count)
    taken = np.vstack([np.zeros(3), points[order]])
    for place in range(count):
        gap = np.linalg.norm(points[:, None] - taken[: place + 1], axis=2).min(axis=1)
        assert gap[order[place]] == pytest.approx(gap[np.setdiff1d(np.arange(count), order[:place])].max(), abs=1e-6)
    assert sorted(order.tolist()) == list(range(count))


def test_a_certain_cell_teaches_nothing_and_features_do_not_depend_on_units():
    features = np.array([[3.0, -1.0]])
    assert not gradients(np.array([[0.0, 1.0, 0.0]]), features).any()
    cells = cells_of([PLAIN, TWINS])
    same = cells.assign(eccentricity=cells["eccentricity"] * 2 + 1, focus=np.nan)
    assert np.allclose(cell_features(cells), cell_features(same))
    assert np.isfinite(cell_features(cells)).all()


def test_features_are_what_the_model_measures_not_where_a_cell_lies_or_what_was_said_of_it():
    assert is_feature("cd45_snr")
    assert is_feature("diameter_um")
    assert not [name for name in ("y_um", "cell_id", "p_ctc", "call", "cd45_mean", "cluster_id") if is_feature(name)]
