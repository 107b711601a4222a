"""Swapped channels are refused by the pixels alone, and no slide whose channels are right ever is."""

from itertools import combinations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import SlideError
from ctc_imaging.inspection import inspect_slide
from ctc_imaging.panel import load_panel
from ctc_imaging.quality import assess
from ctc_imaging.simulation import SETTINGS, simulate_slide
from ctc_imaging.slide import open_slide
from ctc_imaging.staining import check_stains, measure_overlap, overlap_type

SIDE = 768
SAMPLES = {
    "patient": (2, 280),
    "donor": (0, 250),
    "spiked": (35, 35),
    "stain_control": (60, 0),
    "blank": (0, 3),
}
# Cells that carry both alike: leukocytes, by far the most, show vimentin and CD45.
ALIKE = {("vim", "cd45")}


def simulated(kind="patient", setting="standard", panel="emt-4", seed=1):
    ctc, leukocytes = SAMPLES[kind]
    return simulate_slide((SIDE, SIDE), ctc=ctc, leukocytes=leukocytes, setting=setting, seed=seed, panel=panel).image


def swapped(image, panel, first, second):
    order = list(range(len(image)))
    a, b = panel.shorts.index(first), panel.shorts.index(second)
    order[a], order[b] = b, a
    return image[order]


@pytest.fixture
def check(tmp_path):
    def check(image, panel="emt-4", kind="patient", pixel_size_um=0.5):
        tifffile.imwrite(tmp_path / "scan.tif", image, photometric="minisblack")
        panel = load_panel(panel)
        with open_slide(tmp_path / "scan.tif", pixel_size_um) as slide:
            quality = assess(slide, panel.assign(slide.channel_names, slide.path), panel, kind)
        check_stains(quality.overlap, panel, kind, slide.path)

    return check


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_is_refused_for_its_stains(check, setting):
    check(simulated(setting=setting, seed=7))


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("panel", ["emt-4", "epithelial-3"])
def test_no_kind_of_sample_is_refused_for_its_stains(check, kind, panel):
    check(simulated(kind, panel=panel, setting="bleed-through"), panel, kind)


@pytest.mark.parametrize("panel", ["emt-4", "epithelial-3"])
@pytest.mark.parametrize("setting", ["standard", "weak-stain", "bleed-through", "aggregates"])
def test_every_swap_that_shows_is_refused(check, panel, setting):
    image = simulated(panel=panel, setting=setting, seed=3)
    for pair in combinations(load_panel(panel).shorts, 2):
        wrong = swapped(image, load_panel(panel), *pair)
        if pair in ALIKE:
            check(wrong, panel)
            continue
        with pytest.raises(SlideError, match="don't show the stains they are named for") as caught:
            check(wrong, panel)
        assert "channel order" in caught.value.remedy
        assert caught.value.where.endswith("scan.tif")


def test_channels_in_reverse_order_are_refused(check):
    with pytest.raises(SlideError, match="channels dapi and cd45"):
        check(simulated()[::-1])


def test_a_swapped_nuclear_stain_is_refused_in_a_control_too(check):
    panel = load_panel("emt-4")
    for short in ("ck", "vim", "cd45"):
        with pytest.raises(SlideError, match="dapi"):
            check(swapped(simulated("spiked"), panel, "dapi", short), kind="spiked")


def test_ck_and_cd45_may_lie_either_way_in_a_control(check):
    check(swapped(simulated("spiked"), load_panel("emt-4"), "ck", "cd45"), kind="spiked")


def test_a_patient_rich_in_tumour_cells_is_not_refused(check):
    check(simulated("spiked"), kind="patient")


def test_a_blank_is_never_refused(check):
    check(swapped(simulated("blank"), load_panel("emt-4"), "dapi", "ck"), kind="blank")


def test_a_coarse_scan_shows_a_swap_too(check):
    coarse = simulate_slide((512, 512), ctc=2, leukocytes=280, seed=1, pixel_size_um=0.8).image
    check(coarse, pixel_size_um=0.8)
    with pytest.raises(SlideError, match="dapi and cd45"):
        check(swapped(coarse, load_panel("emt-4"), "dapi", "cd45"), pixel_size_um=0.8)


def test_an_empty_or_artificial_slide_says_nothing(check):
    noise = np.random.default_rng(0).normal(200, 16, (4, 300, 300)).astype(np.uint16)
    for image in (noise, np.zeros((4, 300, 300), np.uint16), noise[:, :2, :3]):
        check(image)


def test_real_leukocytes_are_not_refused(check, shared_data):
    """A lymph follicle: Cy5 is on the leukocytes' membranes, the others are on a few cells each."""
    alexa, cy3, cy5, dapi, fitc = tifffile.imread(shared_data / "vectra_lymphocytes" / "components_float32_cyx.tif")
    for others in ((alexa, cy3), (cy3, alexa), (fitc, alexa), (alexa, fitc), (fitc, cy3), (cy3, fitc)):
        check(np.stack([dapi, *others, cy5]))


def test_inspection_warns_of_a_swap(tmp_path):
    path = tmp_path / "scan.tif"
    panel = load_panel("emt-4")
    tifffile.imwrite(path, swapped(simulated(), panel, "dapi", "cd45"), photometric="minisblack")
    facts = inspect_slide(path, panel, 0.5)
    assert any("dapi and cd45 may be swapped" in warning for warning in facts["warnings"])
    assert "maps" not in facts["quality"]
    assert facts["quality"]["left_out"]["lies under a bubble or fold"] == 0


# The figures beneath


def cell(nucleus_px=6, cell_px=10, side=64, seed=0):
    """A nucleus in a cell, on noise of one unit."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    away = np.hypot(y - side / 2, x - side / 2)
    signal = rng.standard_normal((2, side, side)).astype(np.float32)
    signal[0, away < nucleus_px] += 40
    signal[1, away < cell_px] += 20
    return signal


def test_a_stain_reaches_over_the_edge_of_what_lies_inside_it():
    figures = measure_overlap(cell())
    assert figures["inside"][0] == pytest.approx([40, 20], abs=1)
    assert figures["around"][0] == pytest.approx([0, 20], abs=1)
    assert figures["around"][1] == pytest.approx([0, 0], abs=1)
    assert figures["body"] == pytest.approx([np.pi * 36, np.pi * 100], rel=0.1)


def test_specks_are_no_cells():
    signal = np.zeros((2, 64, 64), np.float32)
    signal[0, ::8, ::8] = 90
    figures = measure_overlap(signal)
    assert not figures["stained"].any()
    assert np.isnan(figures["inside"]).all()


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.integers(0, 99))
def test_the_figures_follow_the_channels(order, seed):
    signal = np.concatenate([cell(seed=seed), cell(4, 12, seed=seed + 1)])
    one, other = measure_overlap(signal), measure_overlap(np.ascontiguousarray(signal[list(order)]))
    for name in overlap_type(4).names:
        expected = one[name][np.ix_(order, order)] if one[name].ndim == 2 else one[name][list(order)]
        np.testing.assert_array_equal(other[name], expected)
