"""Clusters: who touches whom, by the panel's rule."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.clusters import find_clusters
from ctc_imaging.panel import ClusterRule

RULE = ClusterRule("touching outlines", min_ctc=2, max_gap_um=1.0)
PIXEL_UM = 0.5
SIDE_PX = 10


def lay(*cells: tuple[int, int, str], shape=(300, 300)) -> tuple[pd.DataFrame, np.ndarray]:
    """Square cells of 5 µm with their top left corner at (y, x)."""
    labels = np.zeros((2, *shape), np.uint32)
    for cell_id, (y, x, _) in enumerate(cells, start=1):
        labels[:, y : y + SIDE_PX, x : x + SIDE_PX] = cell_id
    table = pd.DataFrame(
        {
            "cell_id": np.arange(1, len(cells) + 1),
            "call": [call for _, _, call in cells],
            "y_px": [y + SIDE_PX / 2 for y, _, _ in cells],
            "x_px": [x + SIDE_PX / 2 for _, x, _ in cells],
        }
    ).astype({"call": object})
    return table, labels


def clusters(*cells, rule=RULE) -> list[tuple[int, str]]:
    table = find_clusters(*lay(*cells), rule, PIXEL_UM)
    return list(zip(table["cluster_id"], table["cluster_kind"], strict=True))


@pytest.mark.parametrize(("gap_px", "together"), [(0, True), (2, True), (3, False), (40, False)])
def test_two_ctcs_within_the_gap_are_a_cluster(gap_px, together):
    found = clusters((20, 20, "ctc"), (20, 30 + gap_px, "ctc"))
    assert found == ([(1, "ctc")] * 2 if together else [(0, "")] * 2)


def test_a_chain_of_ctcs_is_one_cluster():
    assert clusters(*[(20, 20 + 11 * place, "ctc") for place in range(4)]) == [(1, "ctc")] * 4


def test_a_ctc_with_a_leukocyte_is_a_cluster_of_the_other_kind():
    assert clusters((20, 20, "ctc"), (20, 30, "leukocyte")) == [(1, "ctc_leukocyte")] * 2


def test_leukocytes_join_only_where_they_touch_a_ctc_themselves():
    found = clusters((20, 20, "ctc"), (20, 30, "leukocyte"), (20, 40, "leukocyte"))
    assert [cluster_id for cluster_id, _ in found] == [1, 1, 0]


def test_leukocytes_artefacts_and_doubtful_cells_alone_form_none():
    assert clusters((20, 20, "leukocyte"), (20, 30, "leukocyte")) == [(0, "")] * 2
    assert clusters((20, 20, "ctc"), (20, 30, "artefact"), (30, 20, "indeterminate")) == [(0, "")] * 3


def test_the_rule_says_from_how_many_ctcs_it_counts():
    pair = ((20, 20, "ctc"), (20, 30, "ctc"))
    assert clusters(*pair, rule=ClusterRule("more than two", 3, 1.0)) == [(0, "")] * 2


def test_a_long_ctc_at_the_edge_of_the_scan_still_finds_its_neighbour():
    table, labels = lay((0, 0, "ctc"), (200, 0, "ctc"), shape=(400, 60))
    labels[:, :200, :5] = 1  # 100 µm long, its centre far from the other
    assert find_clusters(table, labels, RULE, PIXEL_UM)["cluster_id"].tolist() == [1, 1]


def test_no_cells_no_clusters():
    table, labels = lay()
    assert find_clusters(table, labels, RULE, PIXEL_UM)["cluster_id"].tolist() == []


@given(
    places=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), unique=True, max_size=40),
    seed=st.integers(0, 99),
)
def test_clusters_are_what_touches_and_numbered_from_one(places, seed):
    calls = np.random.default_rng(seed).choice(["ctc", "leukocyte"], len(places))
    cells = [(y * 14, x * 14, call) for (y, x), call in zip(places, calls, strict=True)]
    table = find_clusters(*lay(*cells), ClusterRule("near", 2, 2.0), PIXEL_UM)
    ids = sorted(set(table["cluster_id"]) - {0})
    assert ids == list(range(1, len(ids) + 1))
    for _, members in table[table["cluster_id"] > 0].groupby("cluster_id"):
        assert (members["call"] == "ctc").any()
        assert len(members) > 1
        assert (members["cluster_kind"] == ("ctc" if (members["call"] == "ctc").all() else "ctc_leukocyte")).all()
    alone = table[(table["cluster_id"] == 0) & (table["call"] == "ctc")]
    for one in alone.itertuples():
        near = table[
            (np.hypot(table["y_px"] - one.y_px, table["x_px"] - one.x_px) < 14.5) & (table["cell_id"] != one.cell_id)
        ]
        assert near.empty
