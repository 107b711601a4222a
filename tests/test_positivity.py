"""Markers: positive against the slide's own leukocytes and background, with a chance that rises with the signal."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.classification.rarity import BALANCED, RARE, at_prevalence, threshold_at
from ctc_imaging.panel import load_panel
from ctc_imaging.positivity import (
    MIN_LEUKOCYTES,
    POSITIVE_SNR,
    UNMARKED,
    PositivityScale,
    positive_from,
    positivity,
    relative_signal,
    unmarked,
)

PANEL = load_panel("emt-4")
SCALE = PositivityScale(network=1.0, bias=0.0)
SCALES = {"epithelial": SCALE, "mesenchymal": SCALE}


def slide(ck_of_leukocytes: float, ctc_ck: float = 12.0, leukocytes: int = 100) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ck = [*(ck_of_leukocytes + rng.normal(0, 0.2, leukocytes)), ctc_ck]
    calls = ["leukocyte"] * leukocytes + ["ctc"]
    return pd.DataFrame({"call": calls, "nucleus_area_um2": 50.0, "ck_snr": ck, "vim_snr": 6.0})


def test_what_leukocytes_show_of_keratin_is_the_slides_own_zero():
    assert positive_from(slide(0.0), PANEL)["ck"] == pytest.approx(POSITIVE_SNR, abs=0.1)
    assert positive_from(slide(4.5), PANEL)["ck"] == pytest.approx(4.5 + POSITIVE_SNR, abs=0.1)


def test_vimentin_is_held_against_the_background_for_leukocytes_carry_it():
    assert positive_from(slide(4.5), PANEL)["vim"] == POSITIVE_SNR


def test_a_dark_slide_never_lowers_the_threshold():
    assert positive_from(slide(-2.0), PANEL)["ck"] == POSITIVE_SNR


def test_few_cells_are_no_reference():
    assert positive_from(slide(4.5, leukocytes=MIN_LEUKOCYTES - 2), PANEL)["ck"] == POSITIVE_SNR


def test_without_leukocytes_what_all_cells_show_marks_none():
    assert positive_from(slide(1.9).assign(call="indeterminate"), PANEL)["ck"] == pytest.approx(
        1.9 + POSITIVE_SNR, abs=0.1
    )


def test_a_control_of_tumour_cells_alone_keeps_them_positive():
    assert positive_from(slide(12.0).assign(call="ctc"), PANEL)["ck"] == 2 * POSITIVE_SNR


def test_calls_changed_by_a_person_move_no_threshold():
    reviewed = slide(4.5).assign(machine_call=lambda cells: cells["call"], call="artefact")
    assert positive_from(reviewed, PANEL) == positive_from(slide(4.5), PANEL)


def test_bleed_through_makes_no_cell_epithelial():
    logits = np.full((101, 3), 3.0, np.float32)
    alike = positivity(SCALES, logits, slide(4.5, ctc_ck=4.6), PANEL)["p_epithelial"][-1]
    clear = positivity(SCALES, logits, slide(4.5, ctc_ck=14.0), PANEL)["p_epithelial"][-1]
    assert alike < UNMARKED < 0.5 < clear


def test_a_cell_with_neither_marker_is_unmarked_and_one_that_may_have_one_is_not():
    chances = np.array([[0.01, 0.02], [0.3, 0.02], [0.01, np.nan], [0.99, np.nan]])
    assert unmarked(chances).tolist() == [True, False, True, False]


def test_a_panel_without_the_marker_tells_nothing_of_it():
    cells = slide(0.0).drop(columns="vim_snr")
    p = positivity(SCALES, np.zeros((101, 3), np.float32), cells, load_panel("epithelial-3"))
    assert np.isnan(p["p_mesenchymal"]).all()
    assert not np.isnan(p["p_epithelial"]).any()


@given(st.floats(-5, 200), st.floats(0, 50), st.floats(0.5, 10), st.floats(-9, 9))
def test_more_signal_is_never_less_likely_positive(snr, more, threshold, logit):
    p = SCALE.probability(np.full(2, logit), relative_signal(np.array([snr, snr + more]), threshold))
    assert 0 <= p[0] <= p[1] <= 1


shares = st.tuples(*[st.floats(1e-6, 1)] * 3).map(lambda three: tuple(x / sum(three) for x in three))


@given(shares, shares, shares)
def test_a_change_of_prevalence_is_undone_by_its_reverse(p, before, after):
    there = at_prevalence(np.array([p]), before, after)
    assert there.sum() == pytest.approx(1)
    np.testing.assert_allclose(at_prevalence(there, after, before)[0], p, rtol=1e-6)


def test_prior_shift_by_hand():
    # Odds of 1 : 1 where both are equally common are 1 : 99 where one of a hundred is a CTC.
    p = at_prevalence(np.array([[0.5, 0.5, 0.0]]), (0.5, 0.5, 1e-9), (0.01, 0.99, 1e-9))
    np.testing.assert_allclose(p[0], [0.01, 0.99, 0])


def test_the_threshold_is_even_odds_where_cells_are_rare():
    threshold = threshold_at(BALANCED, RARE)
    p = np.array([[threshold, 1 - threshold, 0.0]])
    assert at_prevalence(p, BALANCED, RARE)[0, 0] == pytest.approx(0.5)
