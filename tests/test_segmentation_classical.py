"""The finder that needs no weights: what is a nucleus to the eye is one, and noise is none."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from ctc_training.nuclei.build import read_sources, validation_part
from ctc_training.nuclei.score import average_precision
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ctc_imaging.segmentation.classical import ClassicalFinder
from ctc_imaging.segmentation.image import UnknownScaleWarning, segment_with
from ctc_imaging.segmentation.instances import find_instances
from ctc_imaging.segmentation.model import load_finder
from ctc_imaging.simulation import simulate_slide

PIXEL_UM = 0.5
SMALLEST_PX = 28
FINDER = ClassicalFinder()


def discs(centres: list[tuple[float, float]], heights: list[float], radius_px: float = 8, side: int = 96) -> np.ndarray:
    """A window of discs, as bright as they come where they overlap, blurred by the optics, over noise of 1."""
    rows, columns = np.indices((side, side))
    plane = np.zeros((side, side))
    for (y, x), height in zip(centres, heights, strict=True):
        plane = np.where(np.hypot(rows - y, columns - x) <= radius_px, np.maximum(plane, height), plane)
    noise = np.random.default_rng(0).normal(size=plane.shape)
    return (ndimage.gaussian_filter(plane, 0.8) + noise).astype(np.float32)


def nuclei_of(window: np.ndarray, pixel_size_um: float = PIXEL_UM) -> np.ndarray:
    return find_instances(FINDER.maps(window[None], pixel_size_um)[0], SMALLEST_PX, 40)


def labels_at(labels: np.ndarray, centres: list[tuple[float, float]]) -> list[int]:
    return [int(labels[round(y), round(x)]) for y, x in centres]


@given(
    st.floats(0, np.pi),
    st.floats(1.85, 2.0),
    st.sampled_from([6.0, 8.0, 11.0]),
    st.floats(20, 500),
    st.floats(-0.5, 0.5),
)
def test_two_nuclei_that_touch_are_parted(
    angle: float, distance_radii: float, radius_px: float, height: float, shift_px: float
) -> None:
    half = 0.5 * distance_radii * radius_px * np.array([np.sin(angle), np.cos(angle)])
    middle = 48 + shift_px
    centres = [(middle - half[0], middle - half[1]), (middle + half[0], middle + half[1])]
    found = nuclei_of(discs(centres, [height, height], radius_px))
    assert sorted(labels_at(found, centres)) == [1, 2]
    assert found.max() == 2


@given(st.floats(15, 800), st.floats(5, 14), st.floats(44, 52))
def test_one_nucleus_is_one_with_the_outline_at_half_its_height(height: float, radius_px: float, place: float) -> None:
    found = nuclei_of(discs([(place, 48)], [height], radius_px))
    assert found.max() == 1
    assert np.sqrt((found > 0).sum() / np.pi) == pytest.approx(radius_px, abs=1)


@pytest.mark.parametrize("distance_px", [17, 20, 30])
def test_a_dim_nucleus_beside_a_bright_one_is_found(distance_px: int) -> None:
    centres = [(48.0, 25.0), (48.0, 25.0 + distance_px)]
    found = nuclei_of(discs(centres, [400, 60]))
    assert sorted(labels_at(found, centres)) == [1, 2]


@given(st.integers(0, 10_000), st.sampled_from([32, 96, 192]))
def test_noise_alone_holds_no_nucleus(seed: int, side: int) -> None:
    noise = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    assert nuclei_of(noise).max() == 0


@given(st.integers(0, 10_000), st.sampled_from([2.0, 20.0, 200.0]))
def test_a_windows_maps_do_not_depend_on_its_company(seed: int, height: float) -> None:
    rng = np.random.default_rng(seed)
    windows = ndimage.gaussian_filter(rng.normal(size=(5, 48, 48)), (0, 3, 3)) * height * 10
    windows = windows.astype(np.float32)
    together = FINDER.maps(windows, PIXEL_UM)
    assert np.array_equal(FINDER.maps(windows[3:4].copy(), PIXEL_UM)[0], together[3])
    assert np.array_equal(FINDER.maps(windows[::-1], PIXEL_UM)[::-1], together)


@given(st.integers(0, 10_000), st.floats(0.3, 1.0), st.integers(1, 70))
def test_maps_are_within_their_bounds_whatever_is_shown(seed: int, pixel_size_um: float, side: int) -> None:
    rng = np.random.default_rng(seed)
    window = rng.choice([-50, 0, 3, 100, 60_000], size=(1, side, side)).astype(np.float32)
    maps = FINDER.maps(window, pixel_size_um)[0]
    assert maps.dtype == np.float32
    assert ((maps[:2] >= 0) & (maps[:2] <= 1)).all()
    rows, columns = np.indices((side, side))
    assert ((rows + maps[2] >= 0) & (rows + maps[2] < side)).all()
    assert ((columns + maps[3] >= 0) & (columns + maps[3] < side)).all()


def test_a_flat_bright_window_is_no_trouble() -> None:
    assert nuclei_of(np.full((64, 64), 1000, np.float32)).shape == (64, 64)
    assert FINDER.maps(np.zeros((0, 32, 32), np.float32), PIXEL_UM).shape == (0, 4, 32, 32)


def test_far_away_stain_changes_no_outline() -> None:
    """What lies beyond a patch's margin decides nothing inside: neighbouring patches agree."""
    centres = [(30.0, 30.0), (30.0, 44.0), (46.0, 36.0)]
    near = discs(centres, [100, 80, 200], side=192)
    far = near.copy()
    far[100:180, 100:180] += discs([(40, 40), (40, 55)], [900, 900], side=80)
    ours = np.s_[:, :64, :64]
    assert np.array_equal(FINDER.maps(near[None], PIXEL_UM)[0][ours], FINDER.maps(far[None], PIXEL_UM)[0][ours])


def test_the_hash_follows_the_constants() -> None:
    assert load_finder("classical").hash == FINDER.hash
    assert load_finder("classical").name == "classical"
    assert ClassicalFinder(saddle_um=0.5).hash != FINDER.hash
    assert ClassicalFinder(threshold=5.0).hash != FINDER.hash


@pytest.mark.parametrize(("setting", "least"), [("standard", 0.9), ("dense", 0.85), ("weak-stain", 0.85)])
def test_simulated_nuclei_are_found(setting: str, least: float) -> None:
    slide = simulate_slide((512, 512), ctc=6, leukocytes=100, setting=setting, seed=3)
    plane = slide.image[slide.channel_names.index("DAPI")]
    found = segment_with(FINDER, plane, slide.pixel_size_um)
    assert average_precision(found, slide.nuclei)[0] > least


def test_real_nuclei_are_found(shared_data: Path) -> None:
    cultured, cytospins = validation_part(*read_sources(shared_data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownScaleWarning)
        scores = [
            average_precision(segment_with(FINDER, item.image), item.labels, item.ignore)[[0, 5]]
            for item in cultured[::6] + cytospins[:1]
        ]
    at_half, at_three_quarters = np.mean(scores, axis=0)
    assert at_half > 0.8
    assert at_three_quarters > 0.68
