"""Features: known shapes give known figures, in any window and on any working grid."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from ctc_imaging.features import CellPixels, measure_cells
from ctc_imaging.outlines import find_runs
from ctc_imaging.panel import load_panel

PANEL = load_panel("emt-4")
PIXEL_UM = 0.5


def view_of(cells: np.ndarray, nuclei: np.ndarray | None = None, seed: int = 0, **changes) -> CellPixels:
    """Cells on noise, in the middle of a large slide."""
    signal = np.random.default_rng(seed).normal(3, 1, (4, *cells.shape)).astype(np.float32)
    nuclei = cells if nuclei is None else nuclei
    view = CellPixels(find_runs(cells), find_runs(nuclei), signal * 10, signal, (500, 300), (9999, 9999))
    return replace(view, **changes)


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - y, columns - x) <= radius


def blobs(seed: int, shape: tuple[int, int] = (60, 70)) -> tuple[np.ndarray, np.ndarray]:
    """Ragged cells of all shapes, some in several pieces, some without a nucleus."""
    rng = np.random.default_rng(seed)
    cells, _ = ndimage.label(ndimage.gaussian_filter(rng.normal(size=shape), 2) > 0.08)
    cells[(cells > 0) & (rng.random(shape) < 0.1)] = 0
    values = np.unique(cells[cells > 0])
    cells = np.where(cells > 0, np.searchsorted(values, cells) + 1, 0)
    nuclei = np.where((rng.random(shape) < 0.5) & (cells % 3 > 0), cells, 0)
    return cells, nuclei


def test_a_square_is_measured_exactly():
    cells = np.zeros((30, 40), int)
    cells[5:15, 10:20] = 1
    row = measure_cells(view_of(cells), PANEL, PIXEL_UM).iloc[0]
    assert (row["y_px"], row["x_px"]) == (509.5, 314.5)
    assert (row["y_um"], row["x_um"]) == (254.75, 157.25)
    assert row["area_um2"] == row["nucleus_area_um2"] == 25
    assert row["diameter_um"] == pytest.approx(np.sqrt(100 / np.pi))
    assert (row["eccentricity"], row["solidity"]) == (0, 1)


def test_shape_tells_discs_from_lines_and_corners():
    cells = np.zeros((80, 80), int)
    cells[disc(cells.shape, 20, 20, 12)] = 1
    cells[50, 5:45] = 2
    cells[60:78, 50:54] = cells[74:78, 50:68] = 3
    table = measure_cells(view_of(cells), PANEL, PIXEL_UM)
    assert table["eccentricity"][0] < 0.1
    assert table["eccentricity"][1] == pytest.approx(np.sqrt(1 - 1 / 40**2))
    assert table["solidity"][0] > 0.92
    assert table["solidity"][1] == 1
    assert table["solidity"][2] == pytest.approx((18 * 4 + 14 * 4) / (18 * 18 - 14 * 14 / 2))


@given(seed=st.integers(0, 10_000))
def test_solidity_is_that_of_the_convex_hull_of_the_pixels_corners(seed):
    cells, nuclei = blobs(seed)
    table = measure_cells(view_of(cells, nuclei), PANEL, PIXEL_UM)
    for label in range(1, cells.max() + 1):
        mask = np.pad(cells == label, ((0, 1), (0, 1)))
        corners = mask | np.roll(mask, 1, 0) | np.roll(mask, 1, 1) | np.roll(mask, (1, 1), (0, 1))
        hull = cv2.contourArea(cv2.convexHull(np.argwhere(corners).astype(np.int32)))
        assert table["solidity"][label - 1] == (cells == label).sum() / hull


@given(seed=st.integers(0, 10_000))
def test_signals_are_means_over_the_nucleus_for_its_stain_and_over_the_cell_for_all_others(seed):
    cells, nuclei = blobs(seed)
    view = view_of(cells, nuclei, seed)
    table = measure_cells(view, PANEL, PIXEL_UM)
    for label in range(1, cells.max() + 1):
        cell, nucleus = cells == label, nuclei == label
        row = table.iloc[label - 1]
        assert row["nucleus_area_um2"] == nucleus.sum() * PIXEL_UM**2
        assert row["dapi_snr"] == pytest.approx(view.signal[0][nucleus if nucleus.any() else cell].mean(), rel=1e-5)
        assert row["dapi_mean"] == pytest.approx(view.above[0][nucleus if nucleus.any() else cell].mean(), rel=1e-5)
        for channel, short in enumerate(PANEL.shorts[1:], start=1):
            assert row[f"{short}_mean"] == pytest.approx(view.above[channel][cell].mean(), rel=1e-5)
            assert row[f"{short}_snr"] == pytest.approx(view.signal[channel][cell].mean(), rel=1e-5)


@given(
    seed=st.integers(0, 10_000),
    before=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    after=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    factor=st.sampled_from([1, 2, 3]),
)
def test_the_same_cells_give_the_same_bits_in_any_window(seed, before, after, factor):
    cells, nuclei = blobs(seed)
    view = view_of(cells, nuclei, seed, factor=factor)
    margins = tuple(zip(before, after, strict=True))
    elsewhere = CellPixels(
        cells=find_runs(np.pad(cells, margins)),
        nuclei=find_runs(np.pad(nuclei, margins)),
        above=np.pad(view.above, ((0, 0), *margins), constant_values=7),
        signal=np.pad(view.signal, ((0, 0), *margins), constant_values=7),
        origin_px=(500 - before[0], 300 - before[1]),
        slide_px=view.slide_px,
        factor=factor,
    )
    tables = [measure_cells(seen, PANEL, PIXEL_UM) for seen in (view, elsewhere)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@given(seed=st.integers(0, 10_000), factor=st.sampled_from([2, 3]))
def test_a_working_grid_changes_no_figure_where_pixels_are_alike(seed, factor):
    cells, nuclei = blobs(seed, (30, 35))
    view = view_of(cells, nuclei, seed, factor=factor)

    def repeated(planes: np.ndarray) -> np.ndarray:
        return planes.repeat(factor, axis=-2).repeat(factor, axis=-1)

    native = CellPixels(
        *(find_runs(repeated(planes)) for planes in (cells, nuclei)),
        *(repeated(planes) for planes in (view.above, view.signal)),
        origin_px=(500 * factor, 300 * factor),
        slide_px=view.slide_px,
    )
    binned, whole = (measure_cells(seen, PANEL, PIXEL_UM) for seen in (view, native))
    pd.testing.assert_frame_equal(
        binned.drop(columns="eccentricity"), whole.drop(columns="eccentricity"), rtol=1e-6, check_exact=False
    )


@pytest.mark.parametrize("factor", [1, 2])
def test_edges_are_those_of_the_slide_and_not_of_the_window(factor):
    cells = np.zeros((20, 30), int)
    cells[0:3, 12:15], cells[9:12, 0:3], cells[17:20, 12:15], cells[9:12, 27:30] = 1, 2, 3, 4
    cells[17:20, 27:30], cells[9:12, 12:15] = 5, 6
    # The last working pixels are cut: the slide ends within them.
    slide_px = (20 * factor - (factor - 1), 30 * factor - (factor - 1))
    table = measure_cells(view_of(cells, origin_px=(0, 0), slide_px=slide_px, factor=factor), PANEL, PIXEL_UM)
    assert table["edges"].tolist() == ["top", "left", "bottom", "right", "bottom+right", ""]
    assert table["at_edge"].tolist() == [True] * 5 + [False]
    inside = measure_cells(view_of(cells, origin_px=(1, 1), slide_px=(99, 99), factor=factor), PANEL, PIXEL_UM)
    assert not inside["at_edge"].any()


def test_an_object_without_a_nucleus_has_its_nuclear_stain_measured_all_over():
    cells = np.zeros((20, 20), int)
    cells[5:10, 5:10] = 1
    view = view_of(cells, nuclei=np.zeros_like(cells))
    row = measure_cells(view, PANEL, PIXEL_UM).iloc[0]
    assert row["nucleus_area_um2"] == 0
    assert row["dapi_snr"] == pytest.approx(view.signal[0, 5:10, 5:10].mean(), rel=1e-6)


def test_nothing_to_measure_gives_no_rows_but_all_columns():
    none = measure_cells(view_of(np.zeros((9, 9), int)), PANEL, PIXEL_UM)
    some = measure_cells(view_of(np.ones((9, 9), int)), PANEL, PIXEL_UM)
    assert none.empty
    assert none.columns.tolist() == some.columns.tolist()
    assert none.dtypes.tolist() == some.dtypes.tolist()
