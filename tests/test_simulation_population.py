"""Who is on a simulated slide: sizes, stains and phenotypes as published, clusters and crowds as pinned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

from ctc_imaging.errors import ConfigError
from ctc_imaging.simulation import SETTINGS
from ctc_imaging.simulation.dirt import draw_dirt, draw_naked_nuclei
from ctc_imaging.simulation.placement import draw_groups, place
from ctc_imaging.simulation.population import draw_cells, expected_count, phenotypes

STANDARD = SETTINGS["standard"]


def rng(seed=0):
    return np.random.default_rng(seed)


def ctcs(setting, count=20_000):
    return draw_cells(SETTINGS[setting], count, 0, rng())


def leukocytes(setting, count=20_000):
    return draw_cells(SETTINGS[setting], 0, count, rng())


def laid_out(setting, ctc, white, side_um, seed=0):
    """Cells, groups and centres of a slide."""
    cells = draw_cells(SETTINGS[setting], ctc, white, rng(seed))
    groups = draw_groups(cells, SETTINGS[setting], rng(seed + 1))
    return cells, groups, place(cells, groups, (side_um, side_um), "test", rng(seed + 2))


def touching(cells, centres, radius_um):
    """Pairs of cells whose circles of `radius_um` meet."""
    pairs = cKDTree(centres).query_pairs(2 * radius_um.max(), output_type="ndarray")
    apart = np.hypot(*(centres[pairs[:, 0]] - centres[pairs[:, 1]]).T)
    return pairs[apart <= radius_um[pairs[:, 0]] + radius_um[pairs[:, 1]]]


def test_ctc_stains_have_the_pinned_medians_and_centiles():
    cells = ctcs("standard")
    assert cells["snr_ck"].median() == pytest.approx(12, rel=0.03)
    assert cells["snr_ck"].quantile(0.05) == pytest.approx(5, rel=0.05)
    assert cells["snr_dapi"].median() == pytest.approx(30, rel=0.03)
    assert (cells["snr_cd45"] == 0).all()


def test_leukocyte_stains_have_the_pinned_medians_and_centiles():
    cells = leukocytes("standard")
    assert cells["snr_cd45"].median() == pytest.approx(10, rel=0.03)
    assert cells["snr_cd45"].quantile(0.05) == pytest.approx(3, rel=0.06)
    assert cells["snr_vim"].median() == pytest.approx(6, rel=0.03)


def test_one_leukocyte_in_a_thousand_carries_non_specific_ck():
    ck = leukocytes("standard")["snr_ck"]
    assert (ck > 0).sum() == 20
    assert ck[ck > 0].median() == pytest.approx(6, rel=0.2)


def test_diameters_overlap_as_published():
    ctc, white = ctcs("standard")["diameter_um"], leukocytes("standard")["diameter_um"]
    assert ctc.median() == pytest.approx(11, rel=0.03)
    assert ctc.between(7, 18).all()
    assert white.mean() == pytest.approx(9.4, abs=0.05)
    assert white.std() == pytest.approx(1.6, abs=0.08)


def test_size_can_be_inverted():
    assert ctcs("size-inverted")["diameter_um"].median() == pytest.approx(8, rel=0.03)
    assert leukocytes("size-inverted")["diameter_um"].median() == pytest.approx(11, rel=0.02)


def test_sixty_percent_of_leukocyte_nuclei_are_lobed_or_kidney_shaped():
    shapes = leukocytes("standard")["nucleus"]
    assert shapes.isin(["lobed", "kidney"]).mean() == pytest.approx(0.6, abs=0.02)


def test_weak_stain_dims_every_marker():
    strong, weak = ctcs("standard"), ctcs("weak-stain")
    for marker in ("dapi", "ck", "vim"):
        np.testing.assert_allclose(weak[f"snr_{marker}"], 0.4 * strong[f"snr_{marker}"])


def test_mesenchymal_only_ctcs_have_no_ck_to_speak_of():
    cells = ctcs("mesenchymal-only")
    assert cells["snr_ck"].max() < 1.5
    assert cells["snr_vim"].median() == pytest.approx(14, rel=0.03)
    assert (phenotypes(cells["snr_ck"].to_numpy(), cells["snr_vim"].to_numpy()) == "mesenchymal").mean() > 0.99


def test_the_more_vimentin_the_less_ck():
    cells = ctcs("standard")
    assert spearmanr(cells["snr_ck"], cells["snr_vim"])[0] < -0.2


def test_a_quarter_of_the_cells_is_dying_where_the_setting_says_so():
    assert ctcs("dying")["dying"].mean() == pytest.approx(0.25, abs=0.02)
    assert not ctcs("standard")["dying"].any()


def test_phenotype_follows_from_which_true_snr_reaches_three():
    ck, vimentin = np.array([3.0, 3.0, 2.9, 2.9, 9.0]), np.array([2.9, 3.0, 3.0, 2.9, np.nan])
    assert phenotypes(ck, vimentin).tolist() == ["epithelial", "hybrid", "mesenchymal", "undetermined", "undetermined"]


@given(rate=st.floats(0, 100), count=st.integers(0, 20_000), seed=st.integers(0, 99))
def test_a_rate_makes_its_whole_part_at_least(rate, count, seed):
    assert expected_count(rate, count, rng(seed)) >= int(rate * count / 1000)


def test_rates_below_one_object_are_drawn():
    drawn = np.array([expected_count(2, 200, rng(seed)) for seed in range(2000)])
    assert drawn.mean() == pytest.approx(0.4, abs=0.05)
    assert drawn.var() == pytest.approx(0.4, abs=0.08)


def test_dirt_comes_at_the_pinned_rates():
    kinds = draw_dirt(STANDARD, 10_000, rng())["kind"].value_counts()
    assert kinds[["dye_aggregate", "debris", "fibre", "ck_fragment"]].tolist() == [50, 100, 50, 20]
    assert len(draw_naked_nuclei(STANDARD, 10_000, rng())) == 200
    many = draw_dirt(SETTINGS["aggregates"], 10_000, rng())["kind"].value_counts()
    assert many["dye_aggregate"] == 1000


def test_about_a_tenth_of_ctcs_lies_in_clusters_and_a_twentieth_beside_leukocytes():
    cells = draw_cells(STANDARD, 4000, 4000, rng())
    groups = draw_groups(cells, STANDARD, rng(1))
    is_ctc = (cells["kind"] == "ctc").to_numpy()
    size = np.bincount(groups.cluster_id)
    ctc_members = np.bincount(groups.cluster_id, weights=is_ctc)
    pure = (size == ctc_members)[groups.cluster_id]
    clustered = is_ctc & (groups.cluster_id > 0)
    assert (clustered & pure).sum() / 4000 == pytest.approx(0.10, abs=0.02)
    assert (clustered & ~pure).sum() / 4000 == pytest.approx(0.05, abs=0.01)
    assert set(size[1:]) <= {2, 3, 4}


def test_members_of_a_cluster_touch_and_no_stranger_touches_a_ctc():
    cells, groups, centres = laid_out("standard", 100, 1500, 1000.0)
    pairs = touching(cells, centres, cells["diameter_um"].to_numpy() / 2)
    in_pair = np.unique(pairs)
    assert np.isin(np.flatnonzero(groups.cluster_id), in_pair).all()
    is_ctc = (cells["kind"] == "ctc").to_numpy()
    with_ctc = pairs[is_ctc[pairs].any(axis=1)]
    assert (groups.cluster_id[with_ctc[:, 0]] == groups.cluster_id[with_ctc[:, 1]]).all()


@pytest.mark.parametrize(("setting", "share"), [("standard", 0.0), ("dense", 0.4)])
def test_the_pinned_share_of_nuclei_touches(setting, share):
    cells, _, centres = laid_out(setting, 0, 2000, 1000.0)
    nucleus_um = (cells["diameter_um"] * cells["nucleus_ratio"] / 2).to_numpy()
    assert len(np.unique(touching(cells, centres, nucleus_um))) / len(cells) == pytest.approx(share, abs=0.02)


@settings(max_examples=10)
@given(ctc=st.integers(0, 6), white=st.integers(0, 60), seed=st.integers(0, 99))
def test_every_cell_lies_on_the_slide(ctc, white, seed):
    _, _, centres = laid_out("dense", ctc, white, 160.0, seed)
    assert centres.shape == (ctc + white, 2)
    assert ((centres >= 0) & (centres <= 160)).all()


def test_more_cells_than_fit_are_refused():
    with pytest.raises(ConfigError, match="would cover"):
        laid_out("standard", 0, 1000, 200.0)


def test_every_member_of_a_dense_crowd_with_a_ctc_shares_its_cluster():
    crowded = replace(
        STANDARD, touching_nuclei_fraction=1.0, ctc_clustered_fraction=0, ctc_leukocyte_cluster_fraction=0
    )
    cells = draw_cells(crowded, 50, 150, rng())
    groups = draw_groups(cells, crowded, rng(1))
    for anchor in np.unique(groups.group):
        members = groups.group == anchor
        has_ctc = (cells["kind"][members] == "ctc").any()
        assert len(set(groups.cluster_id[members])) == 1
        assert (groups.cluster_id[members] > 0).all() == (has_ctc and members.sum() > 1)
