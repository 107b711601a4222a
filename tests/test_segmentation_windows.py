"""What a finder sees of a stained region doesn't depend on the tile that asks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.segmentation import windows
from ctc_imaging.segmentation.dark import BLOCK_PX


@dataclass
class Mirror:
    """A finder that shows what it was shown: the pixel, and where in its window it lay."""

    name: str = "mirror"
    hash: str = "0"
    sides: list[int] = field(default_factory=list)

    def maps(self, signal: np.ndarray, pixel_size_um: float) -> np.ndarray:
        self.sides += [signal.shape[-1]] * len(signal)
        rows, columns = np.indices(signal.shape[1:], np.float32)
        shape = signal.shape
        return np.stack(
            [signal, signal.sum(axis=(1, 2), keepdims=True) + 0 * signal, rows + np.zeros(shape), columns + 0 * signal],
            axis=1,
        ).astype(np.float32)


def looked_at(signal: np.ndarray, origin_px: tuple[int, int] = (0, 0)) -> tuple[np.ndarray, Mirror]:
    """Let the mirror look at all that is stained."""
    finder = Mirror()
    height, width = signal.shape
    blocks = signal.reshape(height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX).any(axis=(1, 3))
    regions = windows.find_regions(blocks)
    everything = slice(0, height), slice(0, width)
    wanted = np.ones(len(regions.boxes), bool)
    return windows.look(finder, signal, regions, wanted, everything, origin_px, 0.5), finder


def spots(seed: int, shape: tuple[int, int] = (320, 320)) -> np.ndarray:
    """Whole-number stain in a few spots far from the border: sums are exact."""
    rng = np.random.default_rng(seed)
    signal = np.zeros(shape, np.float32)
    for _ in range(rng.integers(1, 8)):
        y, x = rng.integers(120, 180, 2)
        side = rng.integers(3, 24)
        signal[y : y + side, x : x + side] = rng.integers(1, 100)
    return signal


@given(st.integers(0, 10_000), st.integers(0, 12), st.integers(0, 12))
def test_small_regions_look_the_same_from_any_window(seed: int, down: int, right: int) -> None:
    signal = spots(seed)
    dy, dx = down * BLOCK_PX, right * BLOCK_PX
    whole, _ = looked_at(signal)
    part, _ = looked_at(np.ascontiguousarray(signal[dy:, dx:]), (dy, dx))
    assert np.array_equal(whole[:, dy:, dx:], part)


@given(st.integers(0, 30), st.integers(0, 30))
def test_large_regions_are_seen_in_squares_counted_from_the_slide(down: int, right: int) -> None:
    signal = np.zeros((800, 800), np.float32)
    signal[300:500, 290:520] = np.arange(230) % 17 + 1
    dy, dx = down * BLOCK_PX, right * BLOCK_PX
    whole, _ = looked_at(signal)
    part, finder = looked_at(np.ascontiguousarray(signal[dy:, dx:]), (dy, dx))
    assert np.array_equal(whole[:, dy:, dx:], part)
    assert set(finder.sides) == {windows.SLIDE_PATCHES.side_px + 2 * windows.SLIDE_PATCHES.margin_px}


def test_the_window_is_the_smallest_that_shows_the_region_whole() -> None:
    signal = np.zeros((320, 320), np.float32)
    signal[160:164, 160:164] = 1
    _, finder = looked_at(signal)
    assert finder.sides == [32]
    signal[160:164, 160:240] = 1
    assert looked_at(signal)[1].sides == [96]


def test_dark_parts_are_not_looked_at() -> None:
    maps, finder = looked_at(np.zeros((320, 320), np.float32))
    assert not finder.sides
    assert not maps.any()


def test_pixels_of_each_region_come_from_its_own_window() -> None:
    signal = np.zeros((320, 320), np.float32)
    signal[100:110, 100:110], signal[100:110, 128:138] = 3, 5
    maps, finder = looked_at(signal)
    assert len(finder.sides) == 2
    assert np.array_equal(maps[0] > 0, signal > 0)
    assert np.array_equal(maps[0][signal > 0], signal[signal > 0])


def test_beyond_the_edge_a_window_shows_the_mirror_image() -> None:
    signal = np.arange(64, dtype=np.float32).reshape(8, 8)
    cut = windows.cut(signal, np.array([[-2, -2]]), 12)[0]
    assert np.array_equal(cut, np.pad(signal, 2, mode="reflect"))
    assert windows.cut(np.ones((1, 1), np.float32), np.array([[-5, -5]]), 16).shape == (1, 16, 16)
