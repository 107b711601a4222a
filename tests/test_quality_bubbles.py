"""Bubbles and folds are found and left out; cells, dirt and uneven light are not mistaken for them."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.bubbles import light_field
from ctc_imaging.panel import load_panel
from ctc_imaging.quality import assess
from ctc_imaging.simulation import SETTINGS
from ctc_imaging.simulation.slide import simulate_with
from ctc_imaging.slide import open_slide

PANEL = load_panel("emt-4")
SHAPE = (1024, 1280)
FAULT = "lies under a bubble or fold"
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


def simulated(setting="standard", seed=1, **changes):
    changed = replace(SETTINGS[setting], **changes)
    return simulate_with(changed, SHAPE, ctc=6, leukocytes=600, seed=seed).image


@pytest.fixture(scope="module")
def good():
    return simulated()


@pytest.fixture
def judge(tmp_path):
    def judge(image, pixel_size_um=0.5, panel=PANEL):
        tifffile.imwrite(tmp_path / "scan.tif", image, photometric="minisblack")
        with open_slide(tmp_path / "scan.tif", pixel_size_um) as slide:
            return assess(slide, panel.assign(slide.channel_names, slide.path), panel)

    return judge


def lit(image, where, levels):
    """Add light to an area with a soft edge, in grey levels by channel."""
    soft = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 4)
    return np.clip(image + soft * np.reshape(levels, (-1, 1, 1)), 0, 4095).astype(np.uint16)


def blocks_of(where):
    """Blocks of 256 px that an area touches."""
    return where.reshape(SHAPE[0] // 256, 256, SHAPE[1] // 256, 256).any(axis=(1, 3))


def bubble(radius_px=330, rim_px=60, y=512, x=620):
    away = np.hypot(Y - y, X - x)
    return away < radius_px + rim_px / 2, abs(away - radius_px) < rim_px / 2


def test_a_bubble_is_left_out_with_what_it_encloses(judge, good):
    inside, rim = bubble()
    quality = judge(lit(good, rim, [200, 150, 180, 120]))
    np.testing.assert_array_equal(quality.faults[FAULT] | ~blocks_of(inside), True)
    assert not quality.blocks_ok[blocks_of(inside)].any()
    assert quality.blocks_ok.any()
    share = quality.share(quality.faults[FAULT])
    assert f"{share:.1%} of the slide {FAULT}" in quality.reasons


def test_a_bubble_that_dims_the_light_is_found_without_a_rim(judge, good):
    inside, _ = bubble(radius_px=250)
    quality = judge(lit(good, inside, [-110, -130, -120, -100]))
    assert quality.faults[FAULT][blocks_of(bubble(radius_px=150)[0])].all()


def test_a_fold_is_left_out_along_its_length(judge, good):
    band = abs(X - 0.4 * Y - 400) < 45
    quality = judge(lit(good, band, [300, 250, 200, 150]))
    assert quality.faults[FAULT][blocks_of(band)].mean() > 0.9
    assert quality.assessable
    assert quality.blocks_ok[:, -1].all()


def test_under_a_wide_fold_a_slide_is_not_assessable(judge, good):
    quality = judge(lit(good, abs(X - 640) < 300, [300, 250, 200, 150]))
    assert not quality.assessable
    assert quality.reasons[0].startswith("only ")


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_of_the_simulator_raises_a_false_alarm(judge, setting):
    assert not judge(simulated(setting, seed=4)).faults[FAULT].any()


@pytest.mark.parametrize("setting", ["standard", "aggregates", "dense"])
def test_dark_corners_of_fields_are_no_bubbles(judge, setting):
    assert not judge(simulated(setting, seed=5, vignetting=0.4)).faults[FAULT].any()


def test_a_ramp_of_light_is_no_fold(judge, good):
    ramp = np.linspace(1, 3, SHAPE[1])
    assert not judge((good * ramp).clip(0, 4000).astype(np.uint16)).faults[FAULT].any()


def test_a_clump_that_shows_some_stains_only_is_no_bubble(judge, good):
    inside, _ = bubble(radius_px=200)
    assert not judge(lit(good, inside, [600, 0, 300, 300])).faults[FAULT].any()


def test_a_small_glow_is_no_bubble(judge, good):
    inside, _ = bubble(radius_px=60)
    assert not judge(lit(good, inside, [300, 300, 300, 300])).faults[FAULT].any()


def test_the_edge_of_the_scan_is_no_bubble(judge, good):
    image = good.copy()
    image[:, 700:, :300] = 0
    quality = judge(image)
    assert not quality.faults[FAULT].any()
    assert quality.faults["was never scanned"].any()


def test_with_two_channels_nothing_is_said(judge, good):
    two = replace(PANEL, channels=tuple(c for c in PANEL.channels if c.short in ("dapi", "ck")))
    _, rim = bubble()
    assert not judge(lit(good, rim, [300] * 4)[:2], panel=two).faults[FAULT].any()


def test_real_leukocytes_are_no_bubbles(judge, shared_data):
    lymphocytes = tifffile.imread(shared_data / "vectra_lymphocytes" / "components_float32_cyx.tif")
    assert not judge(lymphocytes[[3, 0, 1, 2]]).faults[FAULT].any()


def test_real_bone_marrow_is_no_fold(judge, shared_data):
    """Nuclei only, at about 0.5 µm a pixel; the other channels are empty."""
    rng = np.random.default_rng(0)
    for path in sorted((shared_data / "sbsst265_cytospin" / "images").glob("*.png")):
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        nuclei = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        empty = [rng.normal(20, 2, nuclei.shape).astype(np.uint8) for _ in range(3)]
        assert not judge(np.stack([nuclei, *empty])).faults[FAULT].any(), path.name


def test_a_bubble_is_found_on_a_slide_that_ends_within_a_block(judge, good):
    _, rim = bubble()
    image = lit(good, rim, [200, 150, 180, 120])
    assert judge(image[:, :1000, :1270]).faults[FAULT].any()


@settings(max_examples=20, deadline=None)
@given(st.floats(100, 1000), st.lists(st.floats(-40, 40), min_size=5, max_size=5))
def test_smooth_light_is_followed_everywhere(level, weights):
    y, x = (np.linspace(-1, 1, size) for size in (16, 24))
    y, x = y[:, None], x[None, :]
    light = level + sum(w * term for w, term in zip(weights, (y, x, y * y, y * x, x * x), strict=True))
    field = light_field(np.broadcast_to(light, (16, 24)).astype(np.float32), np.ones((16, 24), bool), 15)
    np.testing.assert_allclose(field, np.broadcast_to(light, (16, 24)), rtol=1e-3)


def test_the_field_of_an_area_is_not_drawn_up_by_a_bubble():
    level = np.full((32, 32), 200, np.float32)
    level[8:16, 8:16] = 600
    np.testing.assert_allclose(light_field(level, np.ones(level.shape, bool), 15), 200, rtol=1e-2)
