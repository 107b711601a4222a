"""Scores of outlined nuclei: by hand on small maps, and whatever the labels' values, order and number."""

from __future__ import annotations

import numpy as np
import pytest
from ctc_training.nuclei.score import (
    THRESHOLDS,
    aggregated_jaccard,
    average_precision,
    count_error,
    find_errors,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

MAPS = st.tuples(
    arrays(np.int32, (6, 7), elements=st.integers(0, 5)),
    arrays(np.int32, (6, 7), elements=st.integers(0, 5)),
    arrays(bool, (6, 7)),
)


def row(text: str) -> np.ndarray:
    """Turn one character a pixel into a label map of one row; a dot is background."""
    return np.array([[0 if letter == "." else ord(letter) for letter in text]])


def all_scores(labels, truth, ignore=None):
    precision = average_precision(labels, truth, ignore)
    return [*precision, aggregated_jaccard(labels, truth, ignore), count_error(labels, truth, ignore)]


def kinds(labels: str, truth: str, ignore: str | None = None) -> dict[str, str]:
    """Errors as letters, kinds without any left out."""
    errors = find_errors(row(labels), row(truth), None if ignore is None else row(ignore) > 0)
    return {kind: "".join(map(chr, found)) for kind, found in vars(errors).items() if len(found)}


def test_thresholds_go_from_a_half_to_nine_tenths():
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def test_precision_by_hand():
    # IoU of a and x 3/4, of b and y 2/3; c is missed, z is false
    labels, truth = row("xxx..yyy.zz.."), row("aaaa.bb....cc")
    precision = average_precision(labels, truth, thresholds=(0.5, 0.65, 0.7, 0.75, 0.8))
    assert precision == pytest.approx([2 / 4, 2 / 4, 1 / 5, 1 / 5, 0])


def test_an_overlap_of_exactly_a_half_counts_once():
    assert average_precision(row("x."), row("aa"), thresholds=(0.5,)) == 1
    assert average_precision(row("xxyy"), row("aaaa"), thresholds=(0.5,)) == 1 / 2
    assert average_precision(row("xxxx"), row("aabb"), thresholds=(0.5,)) == 1 / 2


def test_low_thresholds_are_paired_as_many_as_can_be():
    # x could answer to a or b, y to b only: both are right where x takes a
    labels, truth = row("xxxxyy"), row("aabbbb")
    assert average_precision(labels, truth, thresholds=(0.3,)) == 1
    assert average_precision(truth, labels, thresholds=(0.3,)) == 1


def test_aggregated_jaccard_by_hand():
    # a takes x: 3 shared, 4 united; b takes y: 2 shared, 3 united; c: 2 px unanswered; z: 2 px untaken
    assert aggregated_jaccard(row("xxx..yyy.zz.."), row("aaaa.bb....cc")) == pytest.approx(5 / 11)


def test_a_found_nucleus_that_two_true_ones_take_is_counted_with_both():
    # Kumar's index: a and b take x, 2 of 4 px each
    assert aggregated_jaccard(row("xxxx"), row("aabb")) == pytest.approx(4 / 8)
    # only one of x and y is taken: 2 of 4 px, and 2 px untaken
    assert aggregated_jaccard(row("xxyy"), row("aaaa")) == pytest.approx(2 / 6)


def test_count_error_has_a_sign():
    assert count_error(row("xx.yy"), row("aaaaa")) == 1
    assert count_error(row("....."), row("aa.bb")) == -2
    assert count_error(row("xx.yy"), row("aa.bb")) == 0


def test_what_lies_in_ignored_area_is_not_false_but_may_be_right():
    labels, truth = row("xx.yyyy"), row("aa.....")
    ignore = row("...iii.") > 0
    assert average_precision(labels, truth).max() == 1 / 2
    assert average_precision(labels, truth, ignore).min() == 1
    assert aggregated_jaccard(labels, truth, ignore) == 1
    assert count_error(labels, truth, ignore) == 0
    assert all_scores(row("aa..."), row("aa..."), np.ones((1, 5), bool)) == [1] * 10 + [0]


def test_half_of_a_nucleus_in_ignored_area_is_not_enough():
    assert average_precision(row("xx.yyyy"), row("aa....."), row("...ii..") > 0).max() == 1 / 2


def test_of_two_equal_answers_the_ignored_one_is_left_out():
    for ignore in ("ii..", "..ii"):
        assert average_precision(row("xxyy"), row("aaaa"), row(ignore) > 0, thresholds=(0.5,)) == 1


def test_nothing_found_where_nothing_is_is_perfect():
    empty = np.zeros((3, 4), np.int32)
    assert all_scores(empty, empty) == [1] * 10 + [0]
    assert all_scores(row("xx."), row("..."), row("ii.") > 0) == [1] * 10 + [0]


def test_shapes_that_differ_are_refused():
    truth = np.zeros((3, 4), np.int32)
    with pytest.raises(ValueError, match="differ in shape"):
        average_precision(truth.T, truth)
    with pytest.raises(ValueError, match="differ in shape"):
        aggregated_jaccard(truth, truth, np.zeros((4, 4), bool))


@pytest.mark.parametrize(
    ("labels", "truth", "expected"),
    [
        ("xxxx.", "aaaa.", {}),
        (".....", "aaaa.", {"missed": "a"}),
        ("xxxx.", ".....", {"false": "x"}),
        ("xxyyy", "aaaaa", {"split": "a"}),
        ("xxxxx", "aabbb", {"merged": "x"}),
        ("x....", "aaaa.", {"inexact": "a"}),
        ("xxxxx", "...aa", {"inexact": "a"}),
        ("xxxxxyyz", "aaaaaaaa", {"split": "a"}),  # right all the same, but fragments lie in it
        ("xxxxxxxx", "aaaaaabb", {"merged": "x"}),  # right for a, but b went into it
        ("x...yyzz", "aa.b.cdd", {"missed": "b"}),
    ],
)
def test_each_error_has_its_kind(labels, truth, expected):
    assert kinds(labels, truth) == expected


def test_what_lies_in_ignored_area_is_no_error():
    assert kinds("xx.yy", "aa...", "...ii") == {}


@given(MAPS)
def test_the_truth_itself_is_perfect(maps):
    _, truth, ignore = maps
    assert all_scores(truth, truth, ignore) == [1] * 10 + [0]
    assert all(len(found) == 0 for found in vars(find_errors(truth, truth, ignore)).values())


@given(maps=MAPS, seed=st.integers(0, 1000), dtype=st.sampled_from([np.int32, np.uint32, np.int64]))
def test_the_values_of_labels_mean_nothing(maps, seed, dtype):
    labels, truth, ignore = maps
    rng = np.random.default_rng(seed)
    renamed = (np.concatenate([[0], rng.permutation(10**6)[:5] + 1]).astype(dtype)[part] for part in (labels, truth))
    assert all_scores(*renamed, ignore) == all_scores(labels, truth, ignore)


@given(MAPS)
def test_scores_are_shares_and_fall_with_the_threshold(maps):
    precision = average_precision(*maps)
    assert ((precision >= 0) & (precision <= 1)).all()
    assert (np.diff(precision) <= 0).all()
    assert 0 <= aggregated_jaccard(*maps) <= 1


@given(MAPS)
def test_without_ignored_area_precision_does_not_know_which_map_is_the_truth(maps):
    labels, truth, _ = maps
    assert np.array_equal(average_precision(labels, truth), average_precision(truth, labels))


@given(maps=MAPS, more=arrays(bool, (6, 7)))
def test_ignoring_more_never_lowers_a_score(maps, more):
    labels, truth, ignore = maps
    # Without its own pixel a nucleus may lie in ignored area no longer, so area is only ever added.
    assert (average_precision(labels, truth, ignore | more) >= average_precision(labels, truth, ignore)).all()
    assert aggregated_jaccard(labels, truth, ignore | more) >= aggregated_jaccard(labels, truth, ignore)


@given(MAPS)
def test_a_true_nucleus_has_one_kind_of_error_at_most(maps):
    errors = find_errors(*maps)
    wrong = np.concatenate([errors.missed, errors.split, errors.inexact])
    assert len(np.unique(wrong)) == len(wrong)
    assert not set(errors.merged) & set(errors.false)


@given(MAPS)
def test_what_is_missed_at_a_half_has_a_kind(maps):
    labels, truth, ignore = maps
    if average_precision(labels, truth, ignore, thresholds=(0.5,)) < 1:
        assert any(len(found) for found in vars(find_errors(labels, truth, ignore)).values())
