"""Background: level and noise found under cells, from few pixels, and taken off alike in every window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ctc_imaging.segmentation import Background, measure_background
from ctc_imaging.segmentation.background import BLOCK_PX, CLIP, DENSEST_SHARE, ROUNDS, level_and_noise

SAMPLED_ROWS = np.concatenate([np.arange(8) + start for start in (12, 44, 76, 108)])


class ArraySlide:
    """A slide in memory that remembers how often each of its rows was read."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.shape = pixels.shape
        self.reads = np.zeros(pixels.shape[1], int)

    def read(self, channels, y0, y1, x0, x1):
        self.reads[y0:y1] += 1
        return self.pixels[channels, y0:y1, x0:x1]


def measure(pixels: np.ndarray) -> Background:
    return measure_background(ArraySlide(pixels), {str(channel): channel for channel in range(len(pixels))})


def noisy(shape, level=200.0, noise=10.0, seed=0):
    return np.random.default_rng(seed).normal(level, noise, shape).clip(0, 65535)


def any_background(shape_px, channels=2, seed=0):
    """Level and noise that differ from block to block."""
    rng = np.random.default_rng(seed)
    grid = channels, *(-(-side // BLOCK_PX) for side in shape_px)
    return Background(rng.uniform(150, 400, grid).astype(np.float32), rng.uniform(5, 30, grid).astype(np.float32))


def plain_level_and_noise(pixels):
    """The method, as one would write it down."""
    values = np.sort(pixels, axis=None).astype(np.float64)
    held = max(1, int(DENSEST_SHARE * len(values)))
    starts = max(1, len(values) // 2 - held + 1)
    level = values[np.argmin(values[held - 1 : held - 1 + starts] - values[:starts]) + held // 2]
    noise = spread_below(values, level)
    kept = values
    for _ in range(ROUNDS):
        remaining = values[values <= level + CLIP * noise]
        if len(remaining) == len(kept) or noise == 0:
            break
        kept = remaining
        level = np.median(kept)
        noise = spread_below(values, level)
    return level, noise


def spread_below(values, level):
    return 1.4826 * np.median(level - values[: max(1, np.count_nonzero(values <= level))])


def plain_over(background, pixels, y0, x0, factor):
    """What `over` finds, in double precision, one step after the other."""
    _, height, width = pixels.shape
    rows, columns = np.arange(0, height, factor), np.arange(0, width, factor)
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.float64), rows, axis=1), columns, axis=2)
    counts = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
    centres = np.meshgrid(y0 + rows + (factor - 1) / 2, x0 + columns + (factor - 1) / 2, indexing="ij")
    places = (np.array(centres) - (BLOCK_PX - 1) / 2) / BLOCK_PX
    level, noise = (
        np.stack([ndimage.map_coordinates(plane.astype(np.float64), places, order=1, mode="nearest") for plane in grid])
        for grid in (background.level, background.noise)
    )
    above = sums / counts - level
    return above, above / noise


@given(
    count=st.integers(1, 3000),
    covered=st.floats(0, 0.8),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int32, np.float32, np.float64]),
    seed=st.integers(0, 10_000),
)
def test_level_and_noise_are_those_of_the_plain_method(count, covered, dtype, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(rng.uniform(10, 120), rng.uniform(0, 20), count)
    pixels[: int(covered * count)] += rng.uniform(0, 200)
    pixels = rng.permutation(pixels).clip(0, 255).astype(dtype)
    assert level_and_noise(pixels) == pytest.approx(plain_level_and_noise(pixels), abs=1e-9)


@given(level=st.floats(50, 5000), noise=st.floats(2, 50), covered=st.floats(0, 0.4), seed=st.integers(0, 99))
def test_bright_objects_are_no_background(level, noise, covered, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(level, noise, 2048)
    pixels[: int(covered * 2048)] += rng.uniform(20, 60) * noise
    found_level, found_noise = level_and_noise(pixels)
    assert abs(found_level - level) < 0.8 * noise
    assert found_noise == pytest.approx(noise, rel=0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_slide_is_measured_block_by_block_on_a_fixed_sample(dtype):
    pixels = noisy((2, 3 * BLOCK_PX, 4 * BLOCK_PX + 37), level=100, seed=3)
    pixels[:, 40:90, 100:300] += 80
    pixels = pixels.clip(0, 255).astype(dtype)
    level, noise = np.zeros((2, 2, 3, 5))
    for channel, row, column in np.ndindex(level.shape):
        block = pixels[channel, row * BLOCK_PX :, column * BLOCK_PX : (column + 1) * BLOCK_PX]
        level[channel, row, column], noise[channel, row, column] = level_and_noise(block[SAMPLED_ROWS, ::2])
    found = measure(pixels)
    assert np.allclose(found.level, ndimage.median_filter(level, (1, 3, 3), mode="nearest"), rtol=1e-6)
    assert np.allclose(found.noise, ndimage.median_filter(noise, (1, 3, 3), mode="nearest"), rtol=1e-6)


@pytest.mark.parametrize("height", [128, 1024, 1000, 1030])
def test_no_row_is_read_twice_and_most_are_not_read(height):
    slide = ArraySlide(np.zeros((1, height, 200), np.uint16))
    measure_background(slide, {"dapi": 0})
    assert slide.reads.max() == 1
    assert slide.reads.mean() < 0.3


def test_background_follows_uneven_light_under_cells():
    side = 6 * BLOCK_PX
    ramp = np.linspace(200, 260, side)
    pixels = np.random.default_rng(0).normal(0, 10, (3, side, side)) + ramp
    for y, x in np.random.default_rng(1).integers(0, side - 18, (side**2 // 2000, 2)):
        pixels[:, y : y + 18, x : x + 18] += 300
    level, noise = measure(pixels.astype(np.uint16)).window(0, side, BLOCK_PX, side - BLOCK_PX)
    assert np.abs(level - ramp[BLOCK_PX:-BLOCK_PX]).max() < 5
    assert np.median(noise) == pytest.approx(10, rel=0.15)


def test_a_block_full_of_cells_takes_the_background_of_its_neighbours():
    pixels = noisy((1, 3 * BLOCK_PX, 3 * BLOCK_PX))
    pixels[:, BLOCK_PX : 2 * BLOCK_PX, BLOCK_PX : 2 * BLOCK_PX] += 1000
    found = measure(pixels.astype(np.uint16))
    assert np.abs(found.level - 200).max() < 2
    assert np.abs(found.noise - 10).max() < 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (7, 5), (33, 64), (130, 257)])
def test_slides_of_any_size_have_a_background(shape):
    pixels = noisy((2, *shape)).astype(np.uint16)
    background = measure(pixels)
    assert background.level.shape == (2, *(-(-side // BLOCK_PX) for side in shape))
    above, signal = background.over(pixels, 0, 0, 2)
    assert np.isfinite(signal).all()
    assert np.abs(above).max() < 60


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_without_noise_have_a_finite_signal(dtype):
    pixels = np.full((2, 200, 200), 7, dtype)
    pixels[1, 50, 50] = 9
    above, signal = measure(pixels).over(pixels, 0, 0)
    assert np.isfinite(signal).all()
    assert above[1, 50, 50] == 2
    assert np.count_nonzero(above) == np.count_nonzero(signal) == 1


@given(
    shape=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    corner=st.tuples(st.integers(0, 90), st.integers(0, 90)),
    factor=st.integers(1, 5),
    dtype=st.sampled_from([np.uint8, np.uint16, np.int16, np.float32, np.float64]),
    seed=st.integers(0, 10_000),
)
def test_light_over_background_is_the_mean_of_a_bin_less_the_level_at_its_centre(shape, corner, factor, dtype, seed):
    y0, x0 = corner[0] * factor, corner[1] * factor
    background = any_background((700, 700), seed=seed)
    pixels = np.random.default_rng(seed).uniform(0, 255, (2, *shape)).astype(dtype)
    above, signal = background.over(pixels, y0, x0, factor)
    expected_above, expected_signal = plain_over(background, pixels, y0, x0, factor)
    assert above.dtype == signal.dtype == np.float32
    assert above.shape == signal.shape == expected_above.shape
    assert np.allclose(above, expected_above, rtol=0, atol=3e-4)
    assert np.allclose(signal, expected_signal, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_unbinned_signal_is_the_signal(dtype):
    background = any_background((500, 600))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 300, 400)).astype(dtype)
    above, signal = background.over(pixels, 77, 111)
    level, noise = background.window(77, 377, 111, 511)
    assert np.allclose(above, pixels - level, rtol=0, atol=1e-4)
    assert np.allclose(above, signal * noise, rtol=1e-5, atol=1e-4)
    assert np.allclose(signal, background.signal(pixels, 77, 111), rtol=0, atol=1e-4)


@given(
    factor=st.integers(1, 4),
    corner=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
)
def test_every_window_sees_the_same_to_the_bit(factor, corner, size, dtype):
    shape = (389, 401)
    background = any_background(shape)
    slide = np.random.default_rng(0).uniform(0, 255, (2, *shape)).astype(dtype)
    y0, x0 = (min(place * factor, side - 1) // factor * factor for place, side in zip(corner, shape, strict=True))
    part = slide[:, y0 : y0 + size[0] * factor, x0 : x0 + size[1] * factor]
    for whole, seen in zip(background.over(slide, 0, 0, factor), background.over(part, y0, x0, factor), strict=True):
        rows, columns = (slice(start // factor, None) for start in (y0, x0))
        assert np.array_equal(seen, whole[:, rows, columns][:, : seen.shape[1], : seen.shape[2]])


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_how_pixels_lie_in_memory_does_not_matter(factor):
    background = any_background((300, 300))
    pixels = np.random.default_rng(0).integers(0, 65536, (2, 120, 130)).astype(np.uint16)
    expected = background.over(pixels, 0, 0, factor)
    for same in (np.asfortranarray(pixels), pixels.astype(">u2"), pixels[:, ::-1].copy()[:, ::-1]):
        assert all(map(np.array_equal, background.over(same, 0, 0, factor), expected))


@pytest.mark.parametrize("corner", [(3, 0), (0, 5)])
def test_a_window_that_cuts_bins_is_refused(corner):
    with pytest.raises(ValueError, match="cuts bins of 2 px"):
        any_background((300, 300)).over(np.zeros((2, 10, 10), np.uint16), *corner, factor=2)
