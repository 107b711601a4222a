"""Segmentation: every nucleus once, tiled equal to untiled, oversized things left out and reported."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import ndimage

from ctc_imaging.errors import SegmentationError
from ctc_imaging.panel import load_panel
from ctc_imaging.segmentation import measure_background, segment_nuclei, segment_slide
from ctc_imaging.segmentation.background import BLOCK_PX, Background, level_and_noise
from ctc_imaging.segmentation.cells import REACH_UM, find_cells
from ctc_imaging.segmentation.grid import ALIGNMENT_PX, Box, Grid
from ctc_imaging.segmentation.image import UnknownScaleWarning
from ctc_imaging.segmentation.nuclei import TileNuclei, find_tile_nuclei, paint_nuclei
from ctc_imaging.segmentation.tiled import segment_tile

PANEL = load_panel("emt-4")
CHANNELS = dict(zip(PANEL.shorts, range(4), strict=True))
PIXEL_UM = 0.5


class ArraySlide:
    """A slide held in memory."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.shape = pixels.shape

    def read(self, channels, y0, y1, x0, x1):
        return self.pixels[channels, y0:y1, x0:x1]


def paint_discs(shape, centres, radius_px=8, heights=(300, 0, 0, 150), seed=0, sigma_px=0.8):
    """Return discs of nuclear stain with a rim of CD45 on a noisy background."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((4, *shape), np.float32)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for y, x in centres:
        away = np.hypot(rows - y, columns - x)
        for channel, height in enumerate(heights):
            reach = radius_px if channel == 0 else radius_px + 4
            pixels[channel][away <= reach] = height
    pixels = ndimage.gaussian_filter(pixels, (0, sigma_px, sigma_px))
    return (pixels + 200 + rng.normal(0, 10, pixels.shape)).clip(0, 65535).astype(np.uint16)


def segment(
    pixels: np.ndarray, tile_px: int = 2048, map_tiles=map, pixel_um: float = PIXEL_UM, finder: str = "nuclei"
) -> tuple[np.ndarray, pd.DataFrame]:
    slide = ArraySlide(pixels)
    labels = np.zeros((2, *pixels.shape[1:]), np.uint32)
    background = measure_background(slide, CHANNELS)
    return labels, segment_slide(slide, CHANNELS, PANEL, background, labels, pixel_um, tile_px, map_tiles, finder)


def scatter(count: int, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Random centres: some touch, some are cut by the edges."""
    return np.random.default_rng(seed).uniform((0, 0), shape, (count, 2))


def test_each_separate_nucleus_is_found_once_where_it_is():
    centres = [(y, x) for y in range(30, 400, 50) for x in range(30, 500, 50)]
    labels, cells = segment(paint_discs((420, 520), centres))
    assert len(cells) == len(centres)
    found = cells[["y_px", "x_px"]].to_numpy()
    away = np.abs(found[:, None] - np.array(centres)).max(axis=2)
    assert sorted(away.argmin(axis=1)) == list(range(len(centres)))
    assert away.min(axis=1).max() < 1
    assert cells["cell_id"].tolist() == list(range(1, len(cells) + 1))
    assert set(np.unique(labels[0])) == set(np.unique(labels[1])) == set(range(len(cells) + 1))


def test_nucleus_and_cell_sizes_are_in_micrometres():
    _, cells = segment(paint_discs((200, 200), [(60, 60), (140, 140)]))
    nucleus_um = np.sqrt(4 / np.pi * cells["nucleus_area_um2"])
    assert nucleus_um.between(7.5, 9.5).all()  # painted: 8.5 µm across
    assert cells["diameter_um"].between(11.5, 14).all()  # painted: 12.5 µm across
    assert np.allclose(cells["y_um"], cells["y_px"] * PIXEL_UM)


def test_signals_are_measured_over_local_background_in_noise_units():
    _, cells = segment(paint_discs((200, 200), [(60, 60), (140, 140)]))
    assert cells["cd45_mean"].between(110, 150).all()
    assert cells["cd45_snr"].between(10, 16).all()  # painted: 150 over a noise of 10, blurred at the rim
    assert cells["ck_snr"].abs().max() < 0.5


def test_touching_nuclei_are_two_cells():
    _, cells = segment(paint_discs((120, 120), [(60, 48), (60, 66)], radius_px=9))
    assert len(cells) == 2


@given(
    tile_px=st.sampled_from([64, 100, 131, 257, 300]),
    seed=st.integers(0, 10_000),
    count=st.integers(0, 130),
    shape=st.tuples(st.integers(40, 330), st.integers(40, 330)),
    pixel_um=st.sampled_from([0.5, 0.25, 0.34, 0.65]),
    finder=st.sampled_from(["nuclei", "classical"]),
)
@example(tile_px=64, seed=1, count=400, shape=(320, 320), pixel_um=0.5, finder="nuclei")  # clumps across many seams
@example(tile_px=64, seed=1, count=400, shape=(320, 320), pixel_um=0.5, finder="classical")
@example(tile_px=64, seed=2, count=900, shape=(700, 700), pixel_um=0.5, finder="nuclei")
@example(tile_px=64, seed=3, count=300, shape=(601, 599), pixel_um=0.25, finder="nuclei")
def test_tiled_equals_untiled_to_the_pixel(tile_px, seed, count, shape, pixel_um, finder):
    pixels = paint_discs(shape, scatter(count, shape, seed), radius_px=round(3 / pixel_um), seed=seed)
    whole_labels, whole = segment(pixels, pixel_um=pixel_um, finder=finder)
    labels, cells = segment(pixels, tile_px, pixel_um=pixel_um, finder=finder)
    assert np.array_equal(labels, whole_labels)
    pd.testing.assert_frame_equal(cells, whole, check_exact=True)
    assert cells.attrs == whole.attrs


@pytest.fixture(scope="module")
def crowded():
    """A crowded field with dirt of all sizes, and its cells."""
    pixels = paint_discs((640, 640), scatter(700, (640, 640), 8), radius_px=7, seed=8)
    pixels[1, 100:130, 100:190] += 200  # marker without nucleus
    pixels[2, 300:320, 300:420] += 300
    pixels[0, 500:512, 100:600] += 900  # a fibre
    slide = ArraySlide(pixels)
    background = measure_background(slide, CHANNELS)
    labels = np.zeros((2, 640, 640), np.uint32)
    return slide, background, segment_slide(slide, CHANNELS, PANEL, background, labels, PIXEL_UM)


@given(
    corner=st.tuples(st.integers(0, 30), st.integers(0, 30)), sides=st.tuples(st.integers(1, 20), st.integers(1, 20))
)
@example(corner=(6, 6), sides=(4, 4))
def test_a_tile_anywhere_has_exactly_the_cells_that_begin_in_it(crowded, corner, sides):
    slide, background, cells = crowded
    y0, x0 = (ALIGNMENT_PX * place for place in corner)
    core = Box(y0, min(y0 + ALIGNMENT_PX * sides[0], 640), x0, min(x0 + ALIGNMENT_PX * sides[1], 640))
    grid = Grid.of((640, 640), PIXEL_UM)
    nuclei = nuclei_of(slide, background, grid, Box(0, 640, 0, 640))
    everything = segment_tile(slide, CHANNELS, PANEL, background, grid, (nuclei.core, (nuclei,)))
    tile = segment_tile(slide, CHANNELS, PANEL, background, grid, (core, (nuclei,)))
    y, x = np.divmod(everything.anchors, 640)
    inside = (y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1)
    assert np.array_equal(tile.anchors, everything.anchors[inside])
    for name in everything.columns:
        assert np.array_equal(tile.columns[name], cells[name].to_numpy()[inside]), name


def as_elsewhere(function, items):
    """Map as other processes would: all pickled, the last item first."""
    sent = pickle.dumps(function)
    done = [pickle.dumps(pickle.loads(sent)(item)) for item in reversed(items)]
    return [pickle.loads(result) for result in reversed(done)]


@pytest.mark.parametrize(("count", "tile_px"), [(0, 64), (40, 64), (60, 131)])
def test_tiles_done_in_other_processes_give_the_same_bytes(count, tile_px):
    pixels = paint_discs((200, 260), scatter(count, (200, 260), seed=count), radius_px=6, seed=count)
    labels, cells = segment(pixels, tile_px)
    labels_elsewhere, cells_elsewhere = segment(pixels, tile_px, as_elsewhere)
    assert np.array_equal(labels_elsewhere, labels)
    pd.testing.assert_frame_equal(cells_elsewhere, cells, check_exact=True)
    assert cells_elsewhere.attrs == cells.attrs


def nuclei_of(slide: ArraySlide, background, grid: Grid, core: Box) -> TileNuclei:
    own = Background(background.level[[0]], background.noise[[0]])
    return find_tile_nuclei(slide, 0, own, grid, "nuclei", core)


@given(corner=st.tuples(st.integers(0, 30), st.integers(0, 30)), sides=st.tuples(st.integers(1, 9), st.integers(1, 9)))
@example(corner=(6, 6), sides=(4, 4))
@example(corner=(29, 12), sides=(4, 4))  # across the fibre
def test_a_tile_anywhere_has_exactly_the_nuclei_that_begin_in_it(crowded, corner, sides):
    slide, background, _ = crowded
    y0, x0 = (ALIGNMENT_PX * place for place in corner)
    core = Box(y0, min(y0 + ALIGNMENT_PX * sides[0], 640), x0, min(x0 + ALIGNMENT_PX * sides[1], 640))
    grid, whole = Grid.of((640, 640), PIXEL_UM), Box(0, 640, 0, 640)
    labels, left_out = paint_nuclei([nuclei_of(slide, background, grid, whole)], whole)
    found, also_left_out = paint_nuclei([nuclei_of(slide, background, grid, core)], whole)
    values, first = np.unique(labels, return_index=True)
    y, x = np.divmod(first, 640)
    owned = values[(values > 0) & (y >= core.y0) & (y < core.y1) & (x >= core.x0) & (x < core.x1)]
    assert np.array_equal(found, np.where(np.isin(labels, owned), np.searchsorted(owned, labels) + 1, 0))
    inside = core.within(whole)
    assert np.array_equal(also_left_out[inside], left_out[inside])


def test_a_tile_travels_small():
    slide = ArraySlide(paint_discs((500, 500), scatter(120, (500, 500), 1), radius_px=6))
    background = measure_background(slide, CHANNELS)
    grid = Grid.of((500, 500), PIXEL_UM)
    nuclei = nuclei_of(slide, background, grid, Box(0, 500, 0, 500))
    tile = segment_tile(slide, CHANNELS, PANEL, background, grid, (nuclei.core, (nuclei,)))
    assert len(pickle.dumps(tile)) < slide.pixels.nbytes / 20


def test_saturated_clumps_are_parted_alike_in_every_tile():
    # Flat tops: all ties, nothing but the rule decides.
    pixels = np.minimum(paint_discs((300, 300), scatter(120, (300, 300), 3), heights=(60000, 0, 0, 60000)), 20000)
    whole_labels, _ = segment(pixels)
    for tile_px in (70, 128):
        assert np.array_equal(segment(pixels, tile_px)[0], whole_labels)


def test_a_clump_too_long_for_any_cell_is_left_out_everywhere_and_reported():
    pixels = paint_discs((700, 700), [(600, 600)])
    pixels[0, 100:130, 50:600] = 20_000  # a fibre 275 µm long
    for tile_px in (2048, 200):
        labels, cells = segment(pixels, tile_px)
        assert len(cells) == 1
        assert cells.attrs["oversized_um2"] == pytest.approx(30 * 550 * PIXEL_UM**2, rel=0.15)
        assert not labels[:, 100:130, 50:600].any()


def test_what_is_left_out_is_counted_once():
    pixels = paint_discs((500, 500), [(100, 100), (300, 300)], radius_px=84)
    pixels[0, 230:370, 230:370] = 6000  # 70 µm of clot where the second was
    _, cells = segment(pixels)
    painted = (np.pi * 84**2 + 140**2) * PIXEL_UM**2
    assert cells.attrs["oversized_um2"] == pytest.approx(painted, rel=0.2)


def test_haze_that_joins_all_nuclei_hides_none():
    centres = [(y, x) for y in range(20, 480, 40) for x in range(20, 480, 40)]
    pixels = paint_discs((700, 700), centres)
    pixels[0, 10:470, 10:470] += 80  # 230 µm of tissue, far over the threshold
    whole_labels, whole = segment(pixels)
    away = np.linalg.norm(whole[["y_px", "x_px"]].to_numpy()[:, None] - np.array(centres)[None], axis=2)
    assert away.min(axis=0).max() < 2
    assert whole.attrs["oversized_um2"] == 0
    assert np.array_equal(segment(pixels, 150)[0], whole_labels)


def test_every_cell_contains_its_nucleus_and_is_one_piece():
    shape = (300, 300)
    labels, cells = segment(paint_discs(shape, scatter(100, shape, 5), radius_px=6))
    assert np.array_equal(labels[0][labels[1] > 0], labels[1][labels[1] > 0])
    for cell_id in cells["cell_id"]:
        assert ndimage.label(labels[0] == cell_id, np.ones((3, 3)))[1] == 1


def test_cytoplasm_needs_signal_and_stays_within_reach():
    nuclei = np.zeros((100, 100), np.int32)
    nuclei[40:60, 40:60] = 1
    dark = np.zeros((1, 100, 100), np.float32)
    assert np.array_equal(find_cells(nuclei, dark, PIXEL_UM).labels, nuclei)
    cells = find_cells(nuclei, dark + 10, PIXEL_UM).labels
    away = ndimage.distance_transform_edt(nuclei == 0)
    assert np.array_equal(cells > 0, away <= REACH_UM / PIXEL_UM)


def test_cells_at_the_edge_say_which():
    _, cells = segment(paint_discs((100, 300), [(2, 100), (50, 2), (98, 200), (50, 297), (50, 150)]))
    assert sorted(cells["edges"]) == ["", "bottom", "left", "right", "top"]
    assert np.array_equal(cells["at_edge"], cells["edges"] != "")


def test_an_empty_slide_has_no_cells_but_all_columns():
    labels, cells = segment(paint_discs((150, 150), []))
    assert cells.empty
    assert not labels.any()
    assert {"cell_id", "y_um", "cd45_snr", "edges"} <= set(cells.columns)


@given(level=st.floats(50, 5000), noise=st.floats(2, 50), covered=st.floats(0, 0.4), seed=st.integers(0, 99))
def test_background_ignores_bright_objects(level, noise, covered, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(level, noise, 4096)
    pixels[: int(covered * 4096)] += rng.uniform(20, 60) * noise
    found_level, found_noise = level_and_noise(pixels)
    assert abs(found_level - level) < 0.8 * noise
    assert found_noise == pytest.approx(noise, rel=0.45)


def test_background_follows_uneven_light():
    shape = (6 * BLOCK_PX, 6 * BLOCK_PX)
    ramp = np.linspace(200, 260, shape[1])[None, None, :]
    pixels = (np.random.default_rng(0).normal(0, 10, (4, *shape)) + ramp).astype(np.float32)
    level, noise = measure_background(ArraySlide(pixels), CHANNELS).window(0, shape[0], BLOCK_PX, shape[1] - BLOCK_PX)
    assert np.abs(level - ramp[..., BLOCK_PX:-BLOCK_PX]).max() < 5
    assert np.median(noise) == pytest.approx(10, rel=0.2)


def test_constant_pixels_have_a_finite_signal():
    background = measure_background(ArraySlide(np.full((4, 200, 200), 7, np.uint8)), CHANNELS)
    assert np.isfinite(background.signal(np.full((4, 200, 200), 7, np.uint8), 0, 0)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("pixel_size_um", [0.5, None])
@pytest.mark.parametrize("model", ["nuclei", "classical"])
def test_nuclei_of_one_image_of_any_type(dtype, pixel_size_um, model):
    centres = [(y, x) for y in range(30, 270, 40) for x in range(30, 270, 40)]
    image = paint_discs((300, 300), centres)[0].clip(0, 1000) * (0.2 if dtype == np.uint8 else 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        labels = segment_nuclei(image.astype(dtype), pixel_size_um, model)
    assert labels.dtype == np.uint32
    assert labels.max() == len(centres)
    assert [w.category for w in caught] == ([] if pixel_size_um else [UnknownScaleWarning])


@pytest.mark.parametrize(
    "image", [np.zeros((50, 50), np.uint8), np.full((9, 9), 255, np.uint8), np.ones((1, 1), np.uint16)]
)
def test_images_without_nuclei_give_empty_labels(image):
    assert not segment_nuclei(image).any()


@pytest.mark.parametrize(
    ("image", "pixel_size_um"),
    [
        (np.zeros((3, 4, 5)), 0.5),
        (np.zeros((0, 5)), 0.5),
        (np.array([[np.nan, 1.0]]), 0.5),
        (np.array([["a"]]), 0.5),
        (np.eye(30) * 100, 0.0),
        (np.eye(30) * 100, 1000.0),
    ],
)
def test_what_is_no_image_is_refused(image, pixel_size_um):
    with pytest.raises(SegmentationError):
        segment_nuclei(image, pixel_size_um)


def average_precision(found: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    """TP / (TP + FP + FN) of one image."""
    pairs = np.zeros((truth.max() + 1, found.max() + 1))
    np.add.at(pairs, (truth.ravel(), found.ravel()), 1)
    overlap = pairs / (pairs.sum(1, keepdims=True) + pairs.sum(0, keepdims=True) - pairs)
    hits = (overlap[1:, 1:] > threshold).sum()
    return hits / (truth.max() + found.max() - hits)


@pytest.mark.parametrize(("model", "least"), [("nuclei", 0.8), ("classical", 0.75)])
def test_real_nuclei_are_found_without_a_scale(shared_data, model, least):
    # The network was trained on these: this tells that it is whole, its card tells how good it is on others.
    import tifffile
    from skimage import io

    folder = shared_data / "dsb2018_fluo"
    names = sorted(path.stem for path in (folder / "images").glob("*.png"))[::12]
    scores = []
    for name in names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnknownScaleWarning)
            found = segment_nuclei(io.imread(folder / "images" / f"{name}.png"), model=model)
        scores.append(average_precision(found, tifffile.imread(folder / "labels" / f"{name}.tif"), 0.5))
    assert np.mean(scores) > least
