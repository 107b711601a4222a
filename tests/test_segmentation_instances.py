"""From maps to nuclei: what the maps say is what comes out."""

from __future__ import annotations

import numpy as np
import pytest
from ctc_training.nuclei.targets import OFFSET_UNIT_PX, targets_of
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.segmentation.instances import find_instances, support_px


def discs(shape: tuple[int, int], centres: list[tuple[int, int]], radius_px: float) -> np.ndarray:
    """Label each pixel by the nearest centre within a radius."""
    rows, columns = np.indices(shape)
    squared = np.stack([(rows - y) ** 2 + (columns - x) ** 2 for y, x in centres])
    return np.where(squared.min(axis=0) <= radius_px**2, squared.argmin(axis=0) + 1, 0).astype(np.int32)


def perfect_maps(labels: np.ndarray) -> np.ndarray:
    """What a network that makes no mistake would say."""
    maps, _ = targets_of(labels, np.zeros(labels.shape, bool))
    maps[2:] *= OFFSET_UNIT_PX
    return maps


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    """The objects as sets of pixels, whatever their numbers."""
    flat = labels.ravel()
    return {frozenset(np.flatnonzero(flat == value).tolist()) for value in np.unique(flat[flat > 0])}


@given(
    st.lists(st.tuples(st.integers(8, 56), st.integers(8, 56)), min_size=1, max_size=9, unique=True),
    st.integers(5, 9),
)
def test_perfect_maps_of_nuclei_that_touch_give_these_nuclei(centres: list[tuple[int, int]], radius_px: int) -> None:
    apart = [
        centre
        for index, centre in enumerate(centres)
        if all(np.hypot(centre[0] - y, centre[1] - x) > 1.8 * radius_px for y, x in centres[:index])
    ]
    labels = discs((64, 64), apart, radius_px)
    found = find_instances(perfect_maps(labels), min_area_px=9)
    assert len(np.unique(found[found > 0])) == len(apart)
    same = sum(
        (mask & other).sum() / (mask | other).sum() > 0.9
        for value in range(1, len(apart) + 1)
        for mask in [labels == value]
        for other in [found == np.bincount(found[mask]).argmax()]
    )
    assert same == len(apart)


def test_numbers_follow_the_reading_order_of_first_pixels() -> None:
    labels = discs((60, 60), [(45, 10), (10, 45), (12, 12)], 6)
    found = find_instances(perfect_maps(labels), 9)
    values, first = np.unique(found, return_index=True)
    assert values.tolist() == [0, 1, 2, 3]
    assert sorted(first[1:].tolist()) == first[1:].tolist()


def test_specks_are_left_out_and_numbers_have_no_gaps() -> None:
    labels = discs((60, 60), [(10, 10), (40, 40)], 6)
    labels[25, 25] = 3
    assert np.unique(find_instances(perfect_maps(labels), 9)).tolist() == [0, 1, 2]


def test_nothing_seen_is_no_nucleus() -> None:
    assert not find_instances(np.zeros((4, 20, 30), np.float32), 9).any()


def test_pixels_that_point_at_a_nucleus_they_dont_touch_are_not_its() -> None:
    maps = perfect_maps(discs((40, 80), [(20, 15)], 8))
    maps[0, 15:25, 60:70] = 1
    maps[3, 15:25, 60:70] = -50
    found = find_instances(maps, 9)
    assert found[20, 15] == 1
    assert not found[:, 40:].any()


def test_a_step_counts_no_further_than_its_longest() -> None:
    maps = perfect_maps(discs((40, 120), [(20, 15)], 8))
    maps[0, 19:22, 15:100] = 1
    maps[3, 19:22, 24:100] = -np.arange(9, 85)
    free, bounded = find_instances(maps, 9), find_instances(maps, 9, longest_step_px=12)
    assert np.flatnonzero(free[20]).max() == 99
    assert np.flatnonzero(bounded[20]).max() <= 23 + support_px(12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_images_of_one_row_or_column_are_no_trouble(shape: tuple[int, int]) -> None:
    maps = np.ones((4, *shape), np.float32)
    assert find_instances(maps, 1).shape == shape
