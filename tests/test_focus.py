"""The best focus of a stack: sharp everywhere, the same depth for all stains, every chunk decoded once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.readers import focus
from ctc_imaging.readers.focus import PART_PX, best_focus
from ctc_imaging.readers.regions import Box, chunk_box, read_box
from ctc_imaging.simulation import SETTINGS
from ctc_imaging.simulation.slide import simulate_with


@dataclass
class Pixels:
    """A plane in memory that counts which of its chunks were decoded."""

    pixels: np.ndarray
    chunk_shape_px: tuple[int, int]
    decoded: Counter = field(default_factory=Counter)

    @property
    def shape(self):
        return self.pixels.shape

    @property
    def dtype(self):
        return self.pixels.dtype

    def read_chunk(self, row, column):
        self.decoded[row, column] += 1
        return self.pixels[chunk_box(row, column, self.chunk_shape_px, self.shape).slices]


def stacks_of(pixels, chunk=(256, 256)):
    return [[Pixels(plane, chunk) for plane in stack] for stack in pixels]


def whole(plane):
    return read_box(plane, Box(0, plane.shape[0], 0, plane.shape[1]))


def grid(plane):
    return np.ndindex(*(-(-side // chunk) for side, chunk in zip(plane.shape, plane.chunk_shape_px, strict=True)))


@pytest.fixture(scope="module")
def scan():
    """A slide scanned at five depths, the middle one 1 µm off and the others 4 µm apart: [channel, z, y, x]."""
    depths_um = (-9, -5, -1, 3, 7)
    flat = [replace(SETTINGS["standard"], focus_error_um=0, focus_offset_um=abs(depth)) for depth in depths_um]
    images = [
        simulate_with(setting, (768, 1100), ctc=4, leukocytes=300, seed=5, scan=scan).image
        for scan, setting in enumerate(flat)
    ]
    return np.stack(images, axis=1)


def test_the_plane_in_focus_is_shown(scan):
    for sharp in range(5):
        order = [*range(2 - sharp, 2), 2, *range(3, 7 - sharp)]
        pixels = scan[:, [depth % 5 for depth in order]]
        for channel, plane in enumerate(best_focus(stacks_of(pixels))):
            np.testing.assert_array_equal(whole(plane), scan[channel, 2])


def test_a_tilted_slide_is_sharp_on_both_sides(scan):
    tilted = scan[:, [2, 3, 4]].copy()
    tilted[:, 0, :, 512:], tilted[:, 2, :, 512:] = scan[:, 4, :, 512:], scan[:, 2, :, 512:]
    for channel, plane in enumerate(best_focus(stacks_of(tilted))):
        np.testing.assert_array_equal(whole(plane), scan[channel, 2])


def test_all_stains_of_a_part_come_from_one_depth(scan):
    """Keratin is nearly empty: alone it would choose by noise."""
    numbered = (scan // 8 * 8) + np.arange(5, dtype=np.uint16)[:, None, None]
    shown = np.stack([whole(plane) for plane in best_focus(stacks_of(numbered))]) % 8
    for row in range(0, 768, PART_PX):
        for column in range(0, 1100, PART_PX):
            assert len(np.unique(shown[:, row : row + PART_PX, column : column + PART_PX])) == 1


def test_dust_on_the_coverslip_does_not_outvote_the_cells(scan):
    dusty = scan.copy()
    dusty[:, 4, 100:130, 200:230] = np.random.default_rng(0).choice([100, 4095], (30, 30))
    np.testing.assert_array_equal(whole(best_focus(stacks_of(dusty))[0])[:PART_PX, :PART_PX], scan[0, 2, :512, :512])


def test_without_signal_the_middle_depth_is_shown():
    noise = np.random.default_rng(1).normal(200, 9, (2, 5, 600, 700)).astype(np.uint16)
    for channel, plane in enumerate(best_focus(stacks_of(noise))):
        np.testing.assert_array_equal(whole(plane), noise[channel, 2])
    black = np.zeros((1, 4, 100, 100), np.uint8)
    assert not whole(best_focus(stacks_of(black))[0]).any()


def test_a_single_depth_is_passed_on_as_it_is():
    stacks = stacks_of(np.zeros((3, 1, 40, 50), np.uint8))
    assert best_focus(stacks) == tuple(stack[0] for stack in stacks)


def test_a_depth_with_pixels_that_are_not_finite_is_shown():
    pixels = np.random.default_rng(3).normal(0, 1, (1, 3, 300, 300)).astype(np.float32)
    pixels[0, 2, 20, 30] = np.nan
    assert np.isnan(whole(best_focus(stacks_of(pixels))[0])[20, 30])


@pytest.mark.parametrize("chunk", [(256, 256), (8, 1100), (768, 1100), (128, 512)])
def test_block_by_block_every_chunk_is_decoded_once(scan, chunk):
    stacks = stacks_of(scan, chunk)
    planes = best_focus(stacks)
    for block in grid(planes[0]):
        for plane in planes:
            plane.read_chunk(*block)
    assert {count for stack in stacks for plane in stack for count in plane.decoded.values()} == {1}
    assert {len(plane.decoded) for stack in stacks for plane in stack} == {len(list(grid(stacks[0][0])))}


@pytest.mark.parametrize("chunk", [(256, 256), (384, 384), (7, 1100), (1000, 1000)])
def test_the_same_stack_shows_the_same_pixels_however_it_is_stored(scan, chunk):
    expected, found = (whole(best_focus(stacks_of(scan, stored))[0]) for stored in ((512, 512), chunk))
    assert np.array_equal(found, expected)


def test_coming_back_decodes_only_the_depth_shown(scan):
    stacks = stacks_of(scan)
    planes = best_focus(stacks)
    first = [[plane.read_chunk(*block) for plane in planes] for block in grid(planes[0])]
    for stack in stacks:
        for plane in stack:
            plane.decoded.clear()
    again = [[plane.read_chunk(*block) for plane in planes] for block in grid(planes[0])]
    assert all(
        np.array_equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True)
    )
    assert [[bool(plane.decoded) for plane in stack] for stack in stacks] == [[z == 2 for z in range(5)]] * 4


def test_memory_is_bounded_also_for_strips_and_whole_planes(scan, monkeypatch):
    """With next to no memory the result is the same, and the rest is decoded again."""
    expected = [whole(plane) for plane in best_focus(stacks_of(scan, (768, 1100)))]
    monkeypatch.setattr(focus, "STACK_BYTES", 2**20)
    monkeypatch.setattr(focus, "WAITING_BYTES", 2**20)
    stacks = stacks_of(scan, (768, 1100))
    for one, other in zip(best_focus(stacks), expected, strict=True):
        np.testing.assert_array_equal(whole(one), other)
    for one, other in zip(best_focus(stacks_of(scan, (8, 1100))), expected, strict=True):
        np.testing.assert_array_equal(whole(one), other)


@settings(max_examples=10)
@given(
    shape=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    chunk=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    seed=st.integers(0, 5),
)
def test_every_pixel_is_that_of_one_depth_in_any_order(shape, chunk, seed):
    rng = np.random.default_rng(seed)
    depth = np.arange(3, dtype=np.uint8)[:, None, None]
    pixels = (rng.integers(0, 32, (2, 3, *shape)) * 8).astype(np.uint8) + depth
    planes = best_focus(stacks_of(pixels, chunk))
    blocks = [(plane, *block) for plane in planes for block in grid(plane)]
    shuffled = [blocks[index] for index in rng.permutation(len(blocks))]
    for plane, row, column in shuffled:
        plane.read_chunk(row, column)
    shown = np.stack([whole(plane) for plane in planes])
    assert np.array_equal(shown[0] % 8, shown[1] % 8)
    assert np.array_equal(shown, np.take_along_axis(pixels, (shown % 8)[:, None].astype(np.intp), axis=1)[:, 0])


@pytest.mark.parametrize(
    "shapes", [[], [[]], [[(9, 9)], [(9, 9), (9, 9)]], [[(9, 9), (9, 8)]], [[(9, 9)], []]], ids=str
)
def test_stacks_that_do_not_fit_are_refused(shapes):
    stacks = [[Pixels(np.zeros(shape, np.uint8), (9, 9)) for shape in stack] for stack in shapes]
    with pytest.raises(ValueError, match="equally deep"):
        best_focus(stacks)
