"""Outlines as runs: nothing is lost on the way from labels to runs and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging.outlines import find_runs, first_runs, paint_runs, relabelled


def labels_of(seed: int, shape: tuple[int, int] = (17, 23)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, shape).astype(np.int32)


@given(seed=st.integers(0, 10_000), factor=st.sampled_from([1, 2, 3]))
def test_painted_runs_are_the_labels_again_on_finer_pixels(seed, factor):
    labels = labels_of(seed)
    plane = np.zeros((17 * factor, 23 * factor), np.uint32)
    paint_runs(plane, find_runs(labels), np.arange(9, dtype=np.uint32), (0, 0), factor)
    assert np.array_equal(plane, labels.repeat(factor, axis=0).repeat(factor, axis=1))


def test_part_of_a_plane_gets_its_part_and_keeps_what_it_had():
    labels = np.zeros((10, 10), np.int32)
    labels[2:8, 3:9] = 1
    part = np.full((4, 5), 7, np.uint32)
    paint_runs(part, find_runs(labels), np.array([0, 42], np.uint32), (5, 6), 1)
    expected = np.full((4, 5), 7)
    expected[:3, :3] = 42
    assert np.array_equal(part, expected)


@given(seed=st.integers(0, 10_000), corner=st.tuples(st.integers(-9, 30), st.integers(-9, 30)))
def test_any_part_of_a_plane_is_painted_as_cut_out_of_the_whole(seed, corner):
    labels = labels_of(seed)
    part = np.zeros((6, 7), np.uint32)
    paint_runs(part, find_runs(labels), np.arange(9, dtype=np.uint32), corner, 1)
    wide = np.pad(labels, 40)
    y, x = (40 + place for place in corner)
    assert np.array_equal(part, wide[y : y + 6, x : x + 7])


def test_runs_are_in_reading_order_and_end_with_the_row():
    labels = np.array([[1, 1, 2], [0, 2, 2]], np.int64)
    assert find_runs(labels).tolist() == [[1, 0, 0, 2], [2, 0, 2, 3], [2, 1, 1, 3]]


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 3)])
def test_where_there_is_nothing_there_are_no_runs(shape):
    assert find_runs(np.zeros(shape, np.int32)).shape == (0, 4)


@given(st.integers(0, 10_000))
def test_relabelled_runs_are_those_of_relabelled_labels(seed):
    labels, lookup = labels_of(seed), np.array([0, 3, 0, 1], np.int32)
    painted = np.zeros(labels.shape, np.uint32)
    paint_runs(painted, relabelled(find_runs(labels), lookup), np.arange(4, dtype=np.uint32), (0, 0), 1)
    assert np.array_equal(painted, lookup[labels])


@given(st.integers(0, 10_000))
def test_the_first_run_begins_with_the_first_pixel(seed):
    labels = labels_of(seed)
    runs = find_runs(labels)
    for label, index in enumerate(first_runs(runs, 5), start=1):
        if (labels == label).any():
            y, x = np.argwhere(labels == label)[0]
            assert runs[index].tolist()[:3] == [label, y, x]
        else:
            assert index == -1
