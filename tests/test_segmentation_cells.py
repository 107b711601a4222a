"""Cells: outlines that follow the stain, fair shares between neighbours, and objects without a nucleus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ctc_imaging.segmentation.cells import REACH_UM, Cells, find_cells, support_px
from ctc_imaging.segmentation.oversized import MAX_LENGTH_UM

PIXEL_UM = 0.5
CK, CD45 = 0, 1


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - y, columns - x) <= radius


def dark(shape: tuple[int, int], markers: int = 2, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, noise, (markers, *shape)).astype(np.float32)


def optics(markers: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(markers, (0, 0.8, 0.8))


def scene(seed: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A crowd of cells of two kinds, some without stain, with dirt and fibres among them."""
    rng = np.random.default_rng(seed)
    nuclei, markers = np.zeros(shape, np.int32), dark(shape)
    for label, (y, x) in enumerate(rng.uniform((0, 0), shape, (shape[0] * shape[1] // 500, 2)), start=1):
        radius = rng.uniform(3, 7)
        nuclei[disc(shape, y, x, radius) & (nuclei == 0)] = label
        markers[rng.integers(2)] += disc(shape, y, x, radius + rng.uniform(0, 5)) * rng.choice([0, 3, 8, 40])
    for y, x in rng.uniform((0, 0), shape, (12, 2)):
        markers[rng.integers(2)] += disc(shape, y, x, rng.uniform(2, 9)) * rng.choice([4, 9, 90])
    markers[0, :, shape[1] // 2] += 50
    return nuclei, optics(markers) + dark(shape, noise=1, seed=seed)


def outlines(cells: Cells) -> list[np.ndarray]:
    return [cells.labels == label for label in np.unique(cells.labels[cells.labels > 0])]


def test_a_cell_reaches_as_far_as_its_stain_and_no_farther_than_cytoplasm_can():
    shape = (100, 100)
    nuclei = disc(shape, 50, 50, 8).astype(np.int32)
    for radius in (11, 14, 30):
        markers = optics(dark(shape) + 20 * disc(shape, 50, 50, radius))
        found = np.sqrt((find_cells(nuclei, markers, PIXEL_UM).labels > 0).sum() / np.pi)
        assert found == pytest.approx(min(radius, 8 + REACH_UM / PIXEL_UM), abs=1)


def test_faint_stain_around_a_bright_cell_is_not_part_of_it():
    shape = (100, 100)
    nuclei = disc(shape, 50, 50, 8).astype(np.int32)
    bright = 50 * disc(shape, 50, 50, 11)
    alone = find_cells(nuclei, optics(dark(shape) + bright), PIXEL_UM).labels
    in_haze = find_cells(nuclei, optics(dark(shape) + bright + 4 * disc(shape, 50, 50, 16)), PIXEL_UM).labels
    assert abs(int((in_haze > 0).sum()) - int((alone > 0).sum())) < 0.1 * (alone > 0).sum()


def test_a_speck_of_dirt_does_not_hide_the_rest_of_a_cell():
    shape = (100, 100)
    nuclei = disc(shape, 50, 50, 8).astype(np.int32)
    markers = dark(shape) + 10 * disc(shape, 50, 50, 14)
    clean = find_cells(nuclei, optics(markers), PIXEL_UM).labels
    markers[CK] += 2000 * disc(shape, 50, 60, 2)
    dirty = find_cells(nuclei, optics(markers), PIXEL_UM).labels
    assert (dirty > 0)[clean > 0].mean() > 0.99


def test_without_stain_a_cell_is_its_nucleus():
    nuclei = disc((60, 60), 30, 30, 8).astype(np.int32)
    for markers in (dark((60, 60), noise=1), dark((60, 60), markers=0)):
        cells = find_cells(nuclei, markers, PIXEL_UM)
        assert np.array_equal(cells.labels, nuclei)
        assert not len(cells.anucleate)


def test_gaps_in_the_cytoplasm_are_filled():
    shape = (80, 80)
    nuclei = disc(shape, 40, 40, 6).astype(np.int32)
    cage = disc(shape, 40, 40, 13) & ~disc(shape, 40, 40, 11) | disc(shape, 40, 34, 7)
    cells = find_cells(nuclei, optics(dark(shape) + 30 * cage), PIXEL_UM).labels
    assert (cells > 0)[disc(shape, 40, 40, 11)].all()


@pytest.mark.parametrize("ck", [4, 12, 100])
def test_a_leukocyte_does_not_take_the_stain_of_a_tumour_cell_it_touches(ck):
    # The cells meet at x = 52. There the tumour cell's nucleus is 9 px away, the leukocyte's 3 px.
    shape = (100, 100)
    tumour, leukocyte = disc(shape, 50, 38, 14), disc(shape, 50, 62, 9) & ~disc(shape, 50, 38, 14)
    nuclei = np.where(disc(shape, 50, 36, 7), 1, np.where(disc(shape, 50, 62, 7), 2, 0))
    markers = dark(shape)
    markers[CK], markers[CD45] = ck * tumour, 10 * leukocyte
    stain = optics(markers)
    labels = find_cells(nuclei, stain + dark(shape, noise=1), PIXEL_UM).labels
    in_reach = ndimage.distance_transform_edt(nuclei != 1) <= REACH_UM / PIXEL_UM
    assert (labels == 1)[tumour & in_reach].mean() > 0.93
    assert (labels == 2)[leukocyte].mean() > 0.9
    assert stain[CK][labels == 2].sum() < 0.02 * stain[CK].sum()
    assert stain[CD45][labels == 1].sum() < 0.05 * stain[CD45].sum()


def test_cells_of_one_kind_share_the_ground_between_them_equally():
    shape = (80, 100)
    nuclei = np.where(disc(shape, 40, 40, 7), 2, np.where(disc(shape, 40, 59, 7), 1, 0))
    labels = find_cells(nuclei, dark(shape) + 10, PIXEL_UM).labels
    assert np.array_equal(labels == 2, (labels == 1)[:, ::-1])


@given(seed=st.integers(0, 10_000))
def test_outlines_do_not_depend_on_how_the_nuclei_are_numbered(seed):
    nuclei, markers = scene(seed, (90, 110))
    count = int(nuclei.max())
    numbers = np.concatenate([[0], np.random.default_rng(seed).permutation(count) + 1]).astype(np.int32)
    cells, renumbered = find_cells(nuclei, markers, PIXEL_UM), find_cells(numbers[nuclei], markers, PIXEL_UM)
    is_cell = cells.labels <= nuclei.max()
    assert np.array_equal(renumbered.labels[is_cell], numbers[cells.labels[is_cell]])
    shift = numbers[nuclei].max() - nuclei.max()
    assert np.array_equal(renumbered.labels[~is_cell], cells.labels[~is_cell] + shift)


@given(seed=st.integers(0, 10_000), pixel_size_um=st.sampled_from([0.35, 0.5, 0.65, 1.0]))
def test_a_cell_contains_its_nucleus_and_nothing_that_is_not_joined_to_it(seed, pixel_size_um):
    nuclei, markers = scene(seed, (90, 110))
    cells = find_cells(nuclei, markers, pixel_size_um)
    assert np.array_equal(cells.labels[nuclei > 0], nuclei[nuclei > 0])
    for label in np.unique(nuclei[nuclei > 0]):
        pieces, _ = ndimage.label(cells.labels == label)
        assert set(np.unique(pieces[cells.labels == label])) == set(np.unique(pieces[nuclei == label]))
        away = ndimage.distance_transform_edt(nuclei != label) * pixel_size_um
        assert away[cells.labels == label].max() <= REACH_UM


@given(
    seed=st.integers(0, 10_000),
    cut=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60)),
)
def test_an_outline_is_the_same_in_every_window_that_holds_its_support(seed, cut):
    pixel_size_um = 1.0
    nuclei, markers = scene(seed, (200, 210))
    rows, columns = slice(cut[0], 200 - cut[1]), slice(cut[2], 210 - cut[3])
    whole = find_cells(nuclei, markers, pixel_size_um)
    part = find_cells(nuclei[rows, columns], markers[:, rows, columns], pixel_size_um)
    held = np.zeros(nuclei.shape, bool)
    far = [support_px(pixel_size_um) if by else 0 for by in cut]
    held[cut[0] + far[0] : 200 - cut[1] - far[1], cut[2] + far[2] : 210 - cut[3] - far[3]] = True
    for cells, window in ((whole, (slice(None), slice(None))), (part, (rows, columns))):
        other = np.zeros(nuclei.shape, np.int32)
        other[rows, columns] = part.labels
        other = whole.labels if cells is part else other
        for outline in outlines(cells):
            frame = np.zeros(nuclei.shape, bool)
            frame[window] = outline
            own = frame & (nuclei > 0) if (frame & (nuclei > 0)).any() else frame
            if held[own].all():
                assert len(np.unique(other[frame])) == 1
                assert np.array_equal(other == other[frame][0], frame)


def test_what_is_stained_and_has_no_nucleus_is_kept_in_reading_order():
    shape = (200, 200)
    nuclei = 7 * disc(shape, 100, 100, 8).astype(np.int32)
    places = [(150, 30), (30, 160), (20, 40)]
    markers = dark(shape)
    for marker, (y, x) in enumerate(places):
        markers[marker % 2] += 10 * disc(shape, y, x, 6)
    cells = find_cells(nuclei, optics(markers) + dark(shape, noise=1), PIXEL_UM)
    assert cells.anucleate.tolist() == [8, 9, 10]
    assert [cells.labels[place] for place in places] == [10, 9, 8]
    for label in cells.anucleate:
        assert (cells.labels == label).sum() == pytest.approx(np.pi * 6**2, rel=0.25)


def test_what_is_too_long_too_small_or_too_dim_for_a_candidate_is_left_out():
    shape = (200, 300)
    markers = dark(shape)
    markers[CK, 20:30, 10 : 10 + int(MAX_LENGTH_UM / PIXEL_UM) + 10] = 100
    markers[CK, 60:140, 60] = 100
    markers[CD45] += 100 * disc(shape, 100, 100, 2) + 4 * disc(shape, 100, 200, 9)
    cells = find_cells(np.zeros(shape, np.int32), optics(markers) + dark(shape, noise=1), PIXEL_UM)
    assert not cells.labels.any()
    assert not len(cells.anucleate)


def test_stain_joined_to_a_nucleus_is_no_object_of_its_own():
    shape = (100, 140)
    nuclei = disc(shape, 50, 40, 8).astype(np.int32)
    large_cell = dark(shape) + 20 * disc(shape, 50, 50, 26)
    assert not len(find_cells(nuclei, optics(large_cell), PIXEL_UM).anucleate)
    # A fragment beside the cell, partly within reach of its nucleus, with a gap between them.
    apart = dark(shape) + 20 * disc(shape, 50, 40, 10) + 20 * disc(shape, 50, 61, 5)
    cells = find_cells(nuclei, optics(apart), PIXEL_UM)
    assert cells.anucleate.tolist() == [2]
    assert (cells.labels == 2)[disc(shape, 50, 61, 4)].all()
