"""Quality: good slides pass, bad ones say why, and nothing but the pixels decides."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.panel import load_panel
from ctc_imaging.quality import MAX_BLUR_UM, Quality, assess, overview, write_png
from ctc_imaging.sharpness import blur_um
from ctc_imaging.simulation import SETTINGS
from ctc_imaging.simulation.slide import simulate_with
from ctc_imaging.slide import open_slide

PANEL = load_panel("emt-4")
SIDE = 768


def simulated(setting="standard", seed=1, leukocytes=180, **changes):
    changed = replace(SETTINGS[setting], **changes)
    return simulate_with(changed, (SIDE, SIDE), ctc=4, leukocytes=leukocytes, seed=seed).image


@pytest.fixture(scope="module")
def good():
    return simulated()


@pytest.fixture
def judge(tmp_path):
    """Write an image as a slide and judge it."""

    def judge(image, pixel_size_um=0.5, panel=PANEL, channels=None, sample_kind="patient", **options):
        tifffile.imwrite(tmp_path / "scan.tif", image, photometric="minisblack", **options)
        with open_slide(tmp_path / "scan.tif", pixel_size_um) as slide:
            return assess(slide, channels or panel.assign(slide.channel_names, slide.path), panel, sample_kind)

    return judge


@pytest.fixture
def draw(tmp_path):
    """Write an image as a slide, judge it and draw its overview."""

    def draw(image, **options):
        tifffile.imwrite(tmp_path / "scan.tif", image, photometric="minisblack")
        with open_slide(tmp_path / "scan.tif", 0.5) as slide:
            channels = PANEL.assign(slide.channel_names, slide.path)
            quality = assess(slide, channels, PANEL)
            return overview(slide, channels, PANEL, quality, **options), quality

    return draw


def discs(blur_um_wanted, contrast=500.0, noise=15.0, seed=0):
    """Nuclei of 7 to 10 µm at 0.5 µm a pixel, blurred by a Gaussian, with camera noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:256, :256]
    image = np.zeros((256, 256), np.float32)
    for centre in rng.uniform(20, 236, (12, 2)):
        image[np.hypot(y - centre[0], x - centre[1]) < rng.uniform(7, 10)] = 1
    blurred = cv2.GaussianBlur(image, (0, 0), blur_um_wanted / 0.5)
    return 100 + contrast * blurred + noise * rng.standard_normal(image.shape, dtype=np.float32)


# Slides as a scanner makes them


@pytest.mark.parametrize("setting", ["standard", "weak-stain", "bleed-through", "dying", "aggregates", "dense"])
def test_well_focused_slides_are_assessable_whole(judge, setting):
    quality = judge(simulated(setting, seed=3))
    assert quality.assessable
    assert quality.assessed_fraction > 0.95
    assert quality.reasons == ()


def test_few_cells_are_no_fault(judge):
    assert judge(simulated(leukocytes=12, seed=4)).assessed_fraction > 0.95


@pytest.mark.parametrize("focus_um", [-2, 0, 2, 4])
def test_a_small_focus_error_passes(judge, focus_um):
    image = simulated(focus_error_um=0.0, focus_offset_um=float(focus_um))
    assert judge(image).assessed_fraction > 0.95


@pytest.mark.parametrize("focus_um", [-9, 8, 10])
def test_a_slide_out_of_focus_is_not_assessable(judge, focus_um):
    quality = judge(simulated(focus_error_um=0.0, focus_offset_um=float(focus_um)))
    assert not quality.assessable
    assert quality.assessed_fraction < 0.5
    assert "of the slide can be assessed" in quality.reasons[0]
    assert "of the slide is out of focus" in quality.reasons[1]


def test_only_the_fields_out_of_focus_are_left_out(judge, good):
    image = good.copy()
    image[:, :, 512:] = simulated(focus_error_um=0.0, focus_offset_um=10.0)[:, :, 512:]
    quality = judge(image)
    assert quality.assessable
    np.testing.assert_array_equal(quality.blocks_ok, [[True, True, False]] * 3)
    assert quality.assessed_fraction == pytest.approx(2 / 3)


def test_blocks_without_nuclei_are_judged_by_their_neighbours(judge):
    image = simulated(focus_error_um=0.0, focus_offset_um=10.0)
    empty = simulated(leukocytes=0, seed=2, fibres=0.0, debris=0.0, naked_nuclei=0.0, dye_aggregates=0.0)
    image[:, :256, :256] = empty[:, :256, :256]
    assert not judge(image).blocks_ok.any()


# Stains


def without(image, short):
    """Replace one stain by the noise of an unstained channel."""
    image = image.copy()
    noise = np.random.default_rng(0).normal(200, 16, image.shape[1:])
    image[PANEL.shorts.index(short)] = noise.clip(0).astype(image.dtype)
    return image


@pytest.mark.parametrize(("short", "role"), [("dapi", "nucleus"), ("cd45", "leukocyte")])
def test_a_slide_without_a_needed_stain_is_not_assessable(judge, good, short, role):
    quality = judge(without(good, short))
    assert not quality.assessable
    assert quality.assessed_fraction == 0
    assert quality.reasons == (f"stain {short} ({role}) shows no signal",)


def test_a_failed_leukocyte_stain_is_found_in_spite_of_bleed_through(judge):
    dim = replace(SETTINGS["standard"].leukocyte_cd45_snr, median=1e-3)
    quality = judge(simulated(leukocyte_cd45_snr=dim, seed=5))
    assert quality.reasons[0] == "stain cd45 (leukocyte) shows no signal"


@pytest.mark.parametrize("short", ["ck", "vim"])
def test_a_tumour_stain_without_signal_is_a_remark_only(judge, good, short):
    quality = judge(without(good, short))
    assert quality.assessable
    assert quality.assessed_fraction > 0.95
    assert [reason for reason in quality.reasons if f"no cell shows {short}" in reason]


@pytest.mark.parametrize("short", PANEL.shorts)
def test_constant_channels_are_named(judge, good, short):
    image = good.copy()
    image[PANEL.shorts.index(short)] = 137
    quality = judge(image)
    assert not quality.assessable
    assert [reason for reason in quality.reasons if reason.startswith(f"channel {short} (")]
    assert quality.reasons[0].endswith("is constant")


def test_missing_channels_are_named(judge, good):
    quality = judge(good[:3], channels={"dapi": 0, "ck": 1, "vim": 2})
    assert not quality.assessable
    assert quality.reasons[0] == "channel cd45 (leukocyte) is missing"


# Controls


def test_a_blank_without_cells_is_assessable(judge):
    nothing = np.random.default_rng(0).normal(200, 16, (4, SIDE, SIDE)).astype(np.uint16)
    assert not judge(nothing).assessable
    quality = judge(nothing, sample_kind="blank")
    assert quality.assessable
    assert quality.assessed_fraction == 1
    assert "no cell shows dapi (nucleus): no such cells, or the stain failed" in quality.reasons


@pytest.mark.parametrize("kind", ["spiked", "stain_control"])
def test_a_control_may_be_all_cell_line_but_not_without_nuclei(judge, good, kind):
    cell_line = judge(without(good, "cd45"), sample_kind=kind)
    assert cell_line.assessable
    assert any(reason.startswith("no cell shows cd45") for reason in cell_line.reasons)
    assert not judge(without(good, "dapi"), sample_kind=kind).assessable


def test_a_constant_channel_fails_a_blank_too(judge, good):
    image = good.copy()
    image[1] = 0
    assert not judge(image, sample_kind="blank").assessable


# Light


def test_saturated_blocks_are_left_out(judge, good):
    image = good.copy()
    image[1, :200, :200] = 4095
    quality = judge(image)
    assert quality.assessable
    np.testing.assert_array_equal(quality.blocks_ok, [[False, True, True], [True] * 3, [True] * 3])
    assert "11.1% of the slide is saturated" in quality.reasons
    assert quality.channels["ck"].saturated_fraction == pytest.approx(200 * 200 / SIDE**2, rel=0.01)


def test_a_bright_pixel_is_no_saturation(judge, good):
    image = good.copy()
    image[1, :200, :200] = 4000
    assert judge(image).channels["ck"].saturated_fraction == 0


def test_what_was_never_scanned_is_left_out(judge, good):
    image = good.copy()
    image[:, 300:, :256] = 0
    quality = judge(image)
    np.testing.assert_array_equal(quality.blocks_ok[:, 0], [True, False, False])
    assert quality.blocks_ok[:, 1:].all()
    assert quality.reasons == ("22.2% of the slide was never scanned",)


def test_uneven_light_is_a_remark(judge, good):
    ramp = np.linspace(1, 3, SIDE)
    quality = judge((good * ramp).clip(0, 4000).astype(np.uint16))
    assert quality.assessable
    assert any("background of dapi is uneven" in reason for reason in quality.reasons)


# Nothing but the pixels


def test_the_verdict_does_not_depend_on_how_the_pixels_are_stored(judge, good):
    stored = ({}, {"tile": (64, 48), "compression": "zlib"}, {"rowsperstrip": 13, "compression": "lzw"})
    verdicts = [judge(good, **options).to_json() for options in stored]
    assert verdicts[0] == verdicts[1] == verdicts[2]


def test_contrast_and_offset_do_not_change_the_blur(judge, good):
    brighter = judge(good * 3 + 500)
    np.testing.assert_allclose(brighter.blur_um, judge(good).blur_um, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kind", ["zeros", "full", "noise-free", "step", "one pixel"])
def test_artificial_images_have_finite_figures(judge, dtype, kind):
    top = 1.0 if dtype == "float32" else np.iinfo(dtype).max
    image = np.zeros((4, 300, 520), dtype)
    if kind == "full":
        image[:] = top
    elif kind == "noise-free":
        image[:, 100:116, 100:116] = top / 2
    elif kind == "step":
        image[:, :, 260:] = top
    elif kind == "one pixel":
        image[:, 9, 9] = top
    text = json.dumps(judge(image).to_json(), allow_nan=False)
    assert json.loads(text)["block_px"] == 256


def test_noise_free_nuclei_are_assessable(judge):
    image = np.zeros((4, 512, 512), np.uint8)
    for y in range(20, 512, 60):
        for x in range(20, 512, 60):
            image[:, y - 8 : y + 8, x - 8 : x + 8] = 90
    quality = judge(image)
    assert quality.assessable
    assert quality.assessed_fraction == 1


@pytest.mark.parametrize("shape", [(2, 3), (64, 64), (257, 513), (300, 30)])
def test_any_size_of_slide_can_be_judged(judge, good, shape):
    quality = judge(good[:, : shape[0], : shape[1]])
    assert quality.blocks_ok.shape == tuple(-(-side // 256) for side in shape)
    assert quality.blur_um.shape == quality.blocks_ok.shape


def test_without_a_pixel_size_focus_is_not_judged(judge, good):
    quality = judge(good, pixel_size_um=None)
    assert quality.assessable
    assert np.isnan(quality.blur_um).all()
    assert quality.reasons == ("the pixel size is unknown, so focus wasn't judged",)
    assert quality.to_json()["focus"]["blur_median_um"] is None


@pytest.mark.parametrize(
    ("true_um", "low", "high"), [(0.35, 0, 0.3), (1.0, 0.8, 1.3), (1.5, 1.4, 1.9), (2.5, 2.1, 2.8)]
)
def test_the_blur_of_nuclei_is_known(true_um, low, high):
    read = [blur_um(discs(true_um, seed=seed), 100, 500, 15, 0.5) for seed in range(4)]
    assert low <= np.mean(read) <= high


@settings(max_examples=10)
@given(st.floats(150, 3000), st.floats(1, 15))
def test_the_blur_is_the_same_in_bright_and_dim_nuclei(contrast, noise):
    read = blur_um(discs(1.5, contrast, noise), 100, contrast, noise, 0.5)
    assert read == pytest.approx(1.7, abs=0.3)


def test_no_nuclei_have_no_blur():
    assert np.isnan(blur_um(discs(1.0, contrast=0.0), 100, 500, 15, 0.5))


# Where


def verdict(blocks_ok, shape_px):
    return Quality(shape_px, 256, np.array(blocks_ok), np.zeros((2, 2)), {}, 0.5, True, ())


def test_points_belong_to_the_block_their_pixel_is_in():
    quality = verdict([[True, False], [False, True]], (500, 512))
    y = np.array([0, -0.5, 255.4, 255.5, 300, 511, -0.6, 10, 512])
    x = np.array([0, -0.5, 255.4, 0, 300, 511, 0, 600, 300])
    expected = [True, True, True, False, True, True, False, False, False]
    np.testing.assert_array_equal(quality.contains(y, x), expected)


@given(st.integers(0, 499), st.integers(0, 511))
def test_every_pixel_is_where_its_block_says(y, x):
    quality = verdict([[True, False], [False, True]], (500, 512))
    assert quality.contains(y, x) == ((y < 256) == (x < 256))


def test_the_json_says_which_blocks(judge, good):
    image = good.copy()
    image[:, 300:, :256] = 0
    record = judge(image).to_json()
    assert record["blocks_ok"] == ["111", "011", "011"]
    assert record["assessed_fraction"] == pytest.approx(7 / 9)
    assert record["focus"]["blur_limit_um"] == MAX_BLUR_UM
    assert set(record["channels"]) == set(PANEL.shorts)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


# The overview


def test_the_overview_is_small_and_in_colour(draw, good):
    picture, _ = draw(good, max_px=300)
    assert picture.dtype == np.uint8
    assert picture.shape == (256, 256, 3)
    assert (np.ptp(picture.astype(int), axis=2) > 60).any()


def test_the_overview_averages_the_pixels_whatever_the_regions(draw, good):
    small, _ = draw(good, max_px=256)
    same, _ = draw(good, max_px=383)
    np.testing.assert_array_equal(small, same)


def test_the_overview_hatches_what_is_not_assessed(draw, good):
    image = good.copy()
    image[:, 300:, :256] = 0
    picture, quality = draw(image)
    assert picture.shape == (SIDE, SIDE, 3)
    excluded = picture[300:, :250].astype(int)
    assert not quality.blocks_ok[1:, 0].any()
    assert (np.ptp(excluded, axis=2) == 0).all()
    assert len(np.unique(excluded)) == 2


def test_a_failed_stain_does_not_glow(draw, good):
    dark, _ = draw(without(good, "ck"))
    green = dark[..., 1].astype(int) - dark[..., [0, 2]].max(axis=2)
    assert np.mean(green > 60) < 1e-3


@pytest.mark.parametrize("shape", [(2, 3), (5, 300), (300, 5)])
def test_the_overview_of_any_size_can_be_drawn(draw, good, shape):
    picture, _ = draw(good[:, : shape[0], : shape[1]])
    assert picture.shape == (*shape, 3)


def test_pictures_are_written_as_they_are(tmp_path, draw, good):
    picture, _ = draw(good)
    write_png(tmp_path / "ü" / "overview.png", picture)
    data = np.frombuffer((tmp_path / "ü" / "overview.png").read_bytes(), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1], picture)
    assert [path.name for path in (tmp_path / "ü").iterdir()] == ["overview.png"]
