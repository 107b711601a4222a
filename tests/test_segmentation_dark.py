"""The dark test: no nucleus is passed over, noise is, and a window's borders don't matter."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ctc_imaging.segmentation import measure_background
from ctc_imaging.segmentation.dark import BLOCK_PX, stained_blocks, support_px

NUCLEUS_UM, SNR, OPTICS_UM = 4.0, 5.0, 0.35
PHASES = 8
"""Places of a nucleus between two pixels, along each axis."""

PLANTED_PER_SIDE = 100
SCALES = [(0.35, 1), (0.5, 1), (0.65, 1), (0.325, 2), (1.0, 1), (1.3, 1)]
"""Native pixel sizes (µm), and how many are binned."""


def paint_nuclei(kind: str, pixel_um: float, side_px: int) -> np.ndarray:
    """One nucleus in the middle of a square, at each place between pixels: (PHASES ** 2, side, side)."""
    fine = (np.arange((side_px + 1) * PHASES) + 0.5) / PHASES - side_px / 2 - 0.5
    away = np.hypot(fine[:, None], fine) * pixel_um * 2 / NUCLEUS_UM
    # Both have a mean of SNR within their outline.
    height = SNR if kind == "flat" else 2 * SNR * (1 - away**2)
    sharp = np.where(away <= 1, height, 0).astype(np.float32)
    seen = cv2.GaussianBlur(sharp, (0, 0), OPTICS_UM / pixel_um * PHASES, borderType=cv2.BORDER_CONSTANT)
    return np.stack(
        [
            seen[y:, x:][: side_px * PHASES, : side_px * PHASES]
            .reshape(side_px, PHASES, side_px, PHASES)
            .mean(axis=(1, 3))
            for y in range(PHASES)
            for x in range(PHASES)
        ]
    )


def plant(kind: str, pixel_um: float, factor: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """10,000 nuclei without noise at native resolution, and the working pixels (y, x) of their centres.

    An odd number of working pixels apart, so that they lie in every way on the grid of blocks, and farther
    than one could be found by the light of the next.
    """
    side_px = max(25, 2 * round(6 / (pixel_um * factor)) + 1) * factor
    nuclei = paint_nuclei(kind, pixel_um, side_px)
    chosen = rng.integers(0, PHASES**2, (PLANTED_PER_SIDE, PLANTED_PER_SIDE))
    total_px = PLANTED_PER_SIDE * side_px
    mosaic = nuclei[chosen].transpose(0, 2, 1, 3).reshape(total_px, total_px)
    middles = side_px // factor * np.arange(PLANTED_PER_SIDE) + side_px // factor // 2
    return mosaic, np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)


def passed_over(marked: np.ndarray, centres_px: np.ndarray) -> int:
    """Nuclei whose centre lies neither in a marked block nor beside one."""
    near = ndimage.binary_dilation(marked, np.ones((3, 3)))
    return int((~near[tuple(centres_px.T // BLOCK_PX)]).sum())


def binned(pixels: np.ndarray, factor: int) -> np.ndarray:
    height, width = (side // factor for side in pixels.shape)
    return pixels.reshape(height, factor, width, factor).mean(axis=(1, 3))


@pytest.mark.parametrize("kind", ["flat", "domed"])
@pytest.mark.parametrize(("pixel_um", "factor"), SCALES)
def test_of_ten_thousand_small_faint_nuclei_none_is_passed_over(kind, pixel_um, factor):
    rng = np.random.default_rng(7)
    light, centres_px = plant(kind, pixel_um, factor, rng)
    light += rng.standard_normal(light.shape, np.float32)
    marked = stained_blocks(binned(light, factor), pixel_um * factor)
    assert len(centres_px) == 10_000
    assert passed_over(marked, centres_px) == 0


def binned_signal(slide, factor):
    """Stain over the slide's background on the working grid, as one plane in a stack."""
    signal = measure_background(slide, {"dapi": 0}).signal(slide.pixels, 0, 0)[0]
    height, width = (side // factor * factor for side in signal.shape)
    blocks = signal[:height, :width].reshape(height // factor, factor, width // factor, factor)
    return blocks.mean(axis=(1, 3))[None]


@pytest.mark.parametrize(("pixel_um", "factor"), [(0.5, 1), (0.325, 2)])
def test_none_is_passed_over_on_uneven_light(pixel_um, factor):
    rng = np.random.default_rng(8)
    light, centres_px = plant("flat", pixel_um, factor, rng)
    light += rng.standard_normal(light.shape, np.float32)
    noise = 20
    light *= noise
    light += np.linspace(300, 900, light.shape[1], dtype=np.float32)
    slide = Planes(light.round().astype(np.uint16)[None])
    signal = binned_signal(slide, factor)
    assert passed_over(stained_blocks(signal[0], pixel_um * factor), centres_px) == 0


@pytest.mark.parametrize(("pixel_um", "factor"), SCALES)
def test_background_alone_is_dark(pixel_um, factor):
    noise = np.random.default_rng(9).standard_normal((1600, 1600), np.float32)
    assert stained_blocks(binned(noise, factor), pixel_um * factor).mean() < 1e-3


def test_uneven_light_alone_is_dark():
    rng = np.random.default_rng(10)
    light = np.linspace(300, 500, 2000)[:, None] + np.linspace(0, 300, 2000) + rng.normal(0, 20, (2000, 2000))
    slide = Planes(light.astype(np.uint16)[None])
    signal = binned_signal(slide, 1)
    assert stained_blocks(signal[0], 0.5).mean() < 0.01


class Planes:
    """A slide held in memory."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.shape = pixels.shape

    def read(self, channels, y0, y1, x0, x1):
        return self.pixels[channels, y0:y1, x0:x1]


def mottled(shape, seed) -> np.ndarray:
    """Signal of which about a third is stained."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 3)
    return (smooth * 30).astype(np.float32)


@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    pixel_um=st.sampled_from([0.33, 0.4, 0.5, 0.65, 1.3]),
    seed=st.integers(0, 10_000),
)
def test_a_block_is_stained_where_the_mean_of_a_box_is_six_of_its_standard_deviations(shape, pixel_um, seed):
    signal = mottled(shape, seed)
    k = max(3, round(2 / pixel_um))
    # The box of an even side reaches further up and left; `reflect` mirrors with the edge pixel itself.
    means = ndimage.uniform_filter(signal.astype(np.float64), k, mode="reflect")
    clear = np.abs(means * k - 6) > 1e-3
    padding = [(0, -side % BLOCK_PX) for side in shape]
    rows, columns = (-(-side // BLOCK_PX) for side in shape)
    above, unclear = (
        np.pad(mask, padding).reshape(rows, BLOCK_PX, columns, BLOCK_PX).any(axis=(1, 3))
        for mask in (means * k > 6, ~clear)
    )
    marked = stained_blocks(signal, pixel_um)
    assert marked.dtype == bool
    assert np.array_equal(marked | unclear, above | unclear)


@given(
    corner=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    pixel_um=st.sampled_from([0.35, 0.5, 0.65, 1.3]),
    seed=st.integers(0, 3),
)
def test_every_window_marks_the_same_blocks(corner, size, pixel_um, seed):
    slide = mottled((170, 190), seed)
    y0, x0 = (place * BLOCK_PX for place in corner)
    window = slide[y0 : y0 + size[0], x0 : x0 + size[1]]
    whole = stained_blocks(slide, pixel_um)[corner[0] :, corner[1] :]
    seen = stained_blocks(window, pixel_um)
    rim = -(-support_px(pixel_um) // BLOCK_PX)
    # Blocks whose surroundings the window shows; the slide's own edge is nobody's rim.
    inner = tuple(
        slice(rim if place else 0, max(extent // BLOCK_PX - rim, 0))
        for place, extent in zip(corner, window.shape, strict=True)
    )
    assert np.array_equal(seen[inner], whole[: seen.shape[0], : seen.shape[1]][inner])


@given(seed=st.integers(0, 1000), y=st.integers(0, 59), x=st.integers(0, 59))
def test_more_light_never_darkens_a_block(seed, y, x):
    signal = mottled((60, 60), seed)
    before = stained_blocks(signal, 0.5)
    signal[y, x] += 10
    assert (stained_blocks(signal, 0.5) >= before).all()


@pytest.mark.parametrize("pixel_um", [0.35, 0.5, 0.65, 1.3])
def test_a_pixel_reaches_no_further_than_it_should(pixel_um):
    signal = np.zeros((160, 160), np.float32)
    signal[80, 80] = 1e6
    rows, columns = np.nonzero(stained_blocks(signal, pixel_um))
    reach = support_px(pixel_um)
    for blocks in (rows, columns):
        assert blocks.min() >= (80 - reach) // BLOCK_PX
        assert blocks.max() <= (80 + reach) // BLOCK_PX


@pytest.mark.parametrize("shape", [(0, 0), (0, 9), (1, 1), (1, 7), (9, 2), (4, 4)])
@pytest.mark.parametrize("level", [0, 10])
def test_windows_of_any_size(shape, level):
    marked = stained_blocks(np.full(shape, level, np.float32), 0.35)
    assert marked.shape == tuple(-(-side // BLOCK_PX) for side in shape)
    assert marked.all() if level else not marked.any()


def test_signal_of_any_type_and_layout():
    signal = mottled((60, 80), 0)
    expected = stained_blocks(signal, 0.5)
    wide = np.zeros((60, 160), np.float64)
    wide[:, ::2] = signal
    assert np.array_equal(stained_blocks(wide[:, ::2], 0.5), expected)
    assert np.array_equal(stained_blocks(np.asfortranarray(signal), 0.5), expected)
