"""The simulated microscope keeps to the physics it claims: noise, light, focus, bleed-through, saturation."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.simulation import SETTINGS, optics, shapes

STANDARD = replace(SETTINGS["standard"], bleed_through=0.0, vignetting=0.0, focus_error_um=0.0)
FLAT = np.ones((1, 40, 40), np.float32)


def photograph(signal, setting=STANDARD, background=50.0, seed=0, haze=None):
    """Photograph a plane of electrons under an even background."""
    signal = signal if signal.ndim == 3 else signal[None]
    levels = np.full(len(signal), background, np.float32)
    haze = np.repeat(FLAT, len(signal), axis=0) if haze is None else haze
    fields = optics.lay_fields(signal.shape[1:], setting, np.random.default_rng(seed))
    image = optics.photograph(signal, levels, haze, fields, setting, 0.5, np.random.SeedSequence(seed))
    return image if len(image) > 1 else image[0]


def electrons(image):
    return (image.astype(float) - optics.CAMERA.offset_adu) * optics.CAMERA.electrons_per_adu


def zeros(*shape):
    return np.zeros(shape, np.float32)


def test_background_has_its_mean_and_the_noise_of_photons_and_reading():
    seen = electrons(photograph(zeros(600, 600), background=50.0))
    typical = seen[np.abs(seen - 50) < 60]
    assert typical.mean() == pytest.approx(50, rel=0.01)
    assert typical.std() == pytest.approx(np.sqrt(50 + optics.CAMERA.read_noise_e**2), rel=0.02)
    assert float(optics.noise_e(50.0)) == pytest.approx(np.sqrt(50 + 1.6**2))


def test_the_camera_saturates_at_twelve_bits():
    image = photograph(np.full((80, 80), 1e5, np.float32))
    assert image.dtype == np.uint16
    assert image.min() == image.max() == 4095


def test_hot_pixels_are_few_and_bright_and_at_the_same_place_in_every_field():
    image = photograph(zeros(1024, 2048), background=50.0)
    hot = np.argwhere(electrons(image) > 150)
    assert 5 <= len(hot) / 2 <= 40
    left = {tuple(spot) for spot in hot if spot[1] < 1024}
    right = {(y, x - 1024) for y, x in hot if x >= 1024}
    assert len(left & right) >= 0.8 * max(len(left), len(right))


@pytest.mark.parametrize("focus_um", [0.0, 4.0])
def test_a_point_widens_to_the_point_spread_it_should_have(focus_um):
    signal = zeros(620, 620)
    signal[10::20, 10::20] = 1500.0
    seen = electrons(photograph(signal, replace(STANDARD, focus_offset_um=focus_um), background=0.0))
    spot = np.median(seen.reshape(31, 20, 31, 20), axis=(0, 2))
    y, x = np.mgrid[-10:10, -10:10]
    sigma_px = np.sqrt((spot * (y**2 + x**2)).sum() / spot.sum() / 2)
    assert optics.point_spread_px(STANDARD, 0.0, 0.5) == pytest.approx(0.7)
    assert sigma_px == pytest.approx(optics.point_spread_px(STANDARD, focus_um, 0.5), rel=0.1)


@given(focus=st.floats(0, 20))
def test_focus_error_of_either_sign_widens_the_point_spread(focus):
    sharp = optics.point_spread_px(STANDARD, 0.0, 0.5)
    near, far = (optics.point_spread_px(STANDARD, sign * focus, 0.5) for sign in (-1, 1))
    assert near == far >= sharp


def test_light_falls_off_to_the_corners_of_each_field():
    light = optics.illumination((101, 201), 0.2)
    assert light[50, 100] == pytest.approx(1)
    assert light[[0, 0, -1, -1], [0, -1, 0, -1]] == pytest.approx(0.8)


@given(height=st.integers(64, 3000), width=st.integers(64, 3000))
def test_fields_tile_the_slide_and_none_is_larger_than_the_sensor(height, width):
    fields = optics.lay_fields((height, width), STANDARD, np.random.default_rng(0))
    assert sum(field.shape[0] * field.shape[1] for field in fields) == height * width
    assert all(max(field.shape) <= optics.FIELD_PX for field in fields)
    assert len({(field.rows.start, field.columns.start) for field in fields}) == len(fields)


def test_light_at_a_cell_is_the_light_that_the_camera_sees_there():
    setting = replace(STANDARD, vignetting=0.2)
    fields = optics.lay_fields((700, 1500), setting, np.random.default_rng(0))
    whole = np.zeros((700, 1500), np.float32)
    for field in fields:
        whole[field.rows, field.columns] = optics.illumination(field.shape, 0.2)
    y, x = np.array([0, 350, 699, 20]), np.array([0, 749, 1499, 751])
    np.testing.assert_allclose(optics.light_at(fields, 0.2, y.astype(float), x.astype(float)), whole[y, x], atol=1e-5)


def test_focus_drifts_smoothly_in_standard_and_jumps_in_defocus():
    def focus(setting):
        fields = optics.lay_fields((8 * 1024, 8 * 1024), SETTINGS[setting], np.random.default_rng(2))
        return np.array([field.focus_um for field in fields]).reshape(8, 8)

    smooth, jumping = focus("standard"), focus("defocus")
    assert np.abs(smooth).max() <= 2
    assert np.abs(jumping).max() <= 8
    assert np.abs(np.diff(smooth)).max() < 1.1
    assert np.abs(np.diff(jumping)).max() > 4


def test_fields_join_without_a_seam():
    """A smooth signal over two fields, blurred, shows no step at their edge."""
    signal = np.tile(np.linspace(0, 900, 1600, dtype=np.float32), (200, 1))
    seen = electrons(photograph(signal, replace(STANDARD, focus_offset_um=8.0)))
    columns = np.median(seen, axis=0)
    assert abs((columns[800:808].mean() - columns[792:800].mean()) - 8 * 900 / 1600) < 4


@pytest.mark.parametrize("fraction", [0.02, 0.15])
def test_neighbouring_channels_bleed_both_ways_and_others_do_not(fraction):
    signal = zeros(3, 200, 200)
    signal[1] = 1000.0
    seen = [np.median(plane) for plane in electrons(photograph(signal, replace(STANDARD, bleed_through=fraction)))]
    assert seen[1] == pytest.approx(1050, rel=0.01)
    assert [seen[0] - 50, seen[2] - 50] == pytest.approx([1000 * fraction] * 2, abs=2)
    alone = zeros(3, 200, 200)
    alone[0] = 1000.0
    third = electrons(photograph(alone, replace(STANDARD, bleed_through=fraction)))[2]
    assert np.median(third) == pytest.approx(50, abs=1)


def test_haze_is_slow_mild_and_read_alike_by_pixel_and_by_position():
    haze = optics.draw_haze((300, 500), 2, np.random.default_rng(0))
    field = optics.Field(slice(0, 300), slice(0, 500), 0.0)
    whole = optics.enlarge(haze[0], field)
    assert whole.shape == (300, 500)
    assert 0.7 < whole.min() < whole.max() < 1.4
    assert np.abs(np.diff(whole, axis=0)).max() < 0.02
    y, x = np.array([0.0, 150.0, 299.0]), np.array([0.0, 77.0, 499.0])
    np.testing.assert_allclose(optics.haze_at(haze[0], y, x), whole[y.astype(int), x.astype(int)], atol=1e-6)


def test_noise_does_not_depend_on_the_number_of_threads():
    before = cv2.getNumThreads()
    signal = np.random.default_rng(0).uniform(0, 500, (1200, 700)).astype(np.float32)
    images = []
    for threads in (1, 4):
        cv2.setNumThreads(threads)
        images.append(photograph(signal))
    cv2.setNumThreads(before)
    np.testing.assert_array_equal(*images)


@given(
    diameter=st.floats(5, 20),
    aspect=st.floats(1, 1.6),
    angle=st.floats(0, 3),
    roughness=st.floats(0, 0.08),
    seed=st.integers(0, 50),
)
def test_an_outline_has_the_area_of_its_diameter_whatever_its_shape(diameter, aspect, angle, roughness, seed):
    rng = np.random.default_rng(seed)
    outline = shapes.draw_outline(diameter / 2, rng, aspect=aspect, angle=angle, roughness=roughness)
    grid = shapes.Grid.around(diameter, (0.3, -0.2), 0.25)
    area_um2 = float(outline.cover(grid).sum()) * 0.25**2
    assert area_um2 == pytest.approx(np.pi * diameter**2 / 4, rel=0.02)


def test_texture_windows_fit_and_change_with_the_stream():
    sheet = shapes.filaments(0.5)
    assert sheet.mean() == pytest.approx(1, rel=0.01)
    rng = np.random.default_rng(0)
    cuts = [shapes.window(sheet, (31, 47), rng) for _ in range(12)]
    assert {cut.shape for cut in cuts} == {(31, 47)}
    assert not np.array_equal(cuts[0], cuts[1])
