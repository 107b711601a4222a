"""Crops: one scale, one unit, the same whatever the slide's sampling, tiles or panel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.classification.crops import CROP_PX, crop_order, crop_side, cut, iterate_crops, to_crop_scale
from ctc_imaging.errors import SlideError
from ctc_imaging.panel import load_panel
from ctc_imaging.segmentation import Background

LEVEL, NOISE = 100.0, 5.0


@dataclass
class PlainSlide:
    image: np.ndarray
    pixel_size_um: float | None = 0.5

    @property
    def shape(self):
        return self.image.shape

    def read(self, channels, y0, y1, x0, x1):
        height, width = self.shape[1:]
        assert 0 <= y0 < y1 <= height, "read outside the slide"
        assert 0 <= x0 < x1 <= width, "read outside the slide"
        return self.image[list(channels), y0:y1, x0:x1]


def flat_background(channels: int) -> Background:
    return Background(np.full((channels, 2, 2), LEVEL, np.float32), np.full((channels, 2, 2), NOISE, np.float32))


def cells_at(places: list[tuple[float, float]]) -> pd.DataFrame:
    y, x = np.array(places, float).reshape(-1, 2).T
    return pd.DataFrame({"cell_id": np.arange(1, len(y) + 1), "y_px": y, "x_px": x})


def crops_of(slide, cells, panel_name="emt-4", labels=None, batch=256):
    panel = load_panel(panel_name)
    channels = {short: index for index, short in enumerate(panel.shorts)}
    labels = np.zeros((2, *slide.shape[1:]), np.uint32) if labels is None else labels
    return list(iterate_crops(slide, channels, panel, flat_background(len(panel.channels)), labels, cells, batch))


def test_crop_is_signal_over_background_in_noise_units_centred_on_the_cell():
    image = np.full((4, 200, 200), LEVEL, np.uint16)
    image[1, 90, 70] = LEVEL + 12 * NOISE
    (batch,) = crops_of(PlainSlide(image), cells_at([(90.2, 69.9)]))
    assert batch.roles.shape == (1, 4, CROP_PX, CROP_PX)
    assert batch.roles.dtype == np.float32
    assert batch.roles[0, 1, CROP_PX // 2, CROP_PX // 2] == pytest.approx(12)
    assert np.count_nonzero(batch.roles) == 1


def test_a_marker_the_panel_lacks_is_an_empty_plane_and_a_flag():
    image = np.full((3, 64, 64), LEVEL + NOISE, np.uint16)
    (batch,) = crops_of(PlainSlide(image), cells_at([(32, 32)]), "epithelial-3")
    np.testing.assert_array_equal(batch.present, [1, 1, 0, 1])
    assert (batch.roles[0, 2] == 0).all()
    np.testing.assert_allclose(batch.roles[0, [0, 1, 3]], 1)


def test_masks_show_only_the_own_cell_and_nucleus():
    labels = np.zeros((2, 100, 100), np.uint32)
    labels[0, 40:60, 40:60], labels[1, 45:55, 45:55] = 1, 1
    labels[:, 40:60, 62:80] = 2
    (batch,) = crops_of(PlainSlide(np.zeros((4, 100, 100), np.uint16)), cells_at([(50, 50), (50, 70)]), labels=labels)
    np.testing.assert_array_equal(batch.masks.sum((2, 3)), [[400, 100], [360, 360]])


def test_beyond_the_slide_there_is_nothing():
    image = np.full((4, 60, 60), LEVEL + 2 * NOISE, np.uint16)
    (batch,) = crops_of(PlainSlide(image), cells_at([(0, 0), (59, 59)]))
    for crop in batch.roles[:, 0]:
        inside = crop != 0
        np.testing.assert_allclose(crop[inside], 2)
        assert inside.sum() in (24 * 24, 25 * 25)


def test_a_slide_of_unknown_scale_is_refused():
    with pytest.raises(SlideError, match="pixel size"):
        crops_of(PlainSlide(np.zeros((4, 60, 60), np.uint16), None), cells_at([(30, 30)]))


@pytest.mark.parametrize(("pixel_size_um", "side"), [(0.5, 48), (0.507, 48), (0.25, 96), (0.65, 37), (1.0, 24)])
def test_crops_cover_24_um_at_every_scale(pixel_size_um, side):
    assert crop_side(pixel_size_um) == side


@pytest.mark.parametrize("pixel_size_um", [0.25, 0.325, 0.65])
def test_a_disc_reads_the_same_at_every_scale(pixel_size_um):
    """A 10 um disc keeps its area; with the same light its signal over noise of one 0.5 um pixel is kept too."""
    side = round(60 / pixel_size_um)
    y, x = np.indices((side, side)) * pixel_size_um
    disc = np.hypot(y - 30, x - 30) <= 5
    # A pixel of a quarter of the area collects a quarter of the light and half of the noise.
    brightness = 20 * NOISE * pixel_size_um / 0.5
    image = np.broadcast_to(LEVEL + disc * brightness, (4, side, side)).astype(np.float32)
    labels = np.stack([disc, disc]).astype(np.uint32)
    centre = 30 / pixel_size_um
    (batch,) = crops_of(PlainSlide(image, pixel_size_um), cells_at([(centre, centre)]), labels=labels)
    assert batch.masks[0, 0].sum() * 0.25 == pytest.approx(np.pi * 25, rel=0.05)
    assert batch.roles[0, 0, 20:28, 20:28].mean() == pytest.approx(20, rel=0.01)


def test_order_is_by_block_then_id_and_batches_are_full():
    places = [(1500, 1500), (20, 20), (30, 1500), (40, 25), (1600, 30)]
    slide = PlainSlide(np.zeros((4, 1700, 1700), np.uint16))
    batches = crops_of(slide, cells_at(places), batch=2)
    assert [batch.cell_ids.tolist() for batch in batches] == [[2, 4], [3, 5], [1]]
    shuffled = cells_at(places).iloc[[4, 2, 0, 1, 3]]
    assert shuffled["cell_id"].to_numpy()[crop_order(shuffled)].tolist() == [2, 4, 3, 5, 1]


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_a_crop_depends_on_its_own_surroundings_only(data):
    """Crops are the same with and without other cells, so that no tile or neighbour shows in a result."""
    image = np.random.default_rng(0).integers(0, 500, (4, 150, 170)).astype(np.uint16)
    place = st.tuples(st.floats(0, 149), st.floats(0, 169))
    places = data.draw(st.lists(place, min_size=1, max_size=5))
    together = np.concatenate([batch.roles for batch in crops_of(PlainSlide(image), cells_at(places))])
    for index, one in enumerate(places):
        (alone,) = crops_of(PlainSlide(image), cells_at([one]))
        np.testing.assert_array_equal(alone.roles[0], together[index])


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 39), st.floats(0, 39), st.integers(1, 60))
def test_cut_pads_with_zero_and_keeps_the_rest_in_place(y, x, side):
    image = np.arange(1, 1601, dtype=np.int64).reshape(1, 40, 40)
    crop = cut(image, y, x, side)
    assert crop.shape == (1, side, side)
    rows, columns = np.nonzero(crop[0])
    values = crop[0, rows, columns] - 1
    if len(values):
        assert len(np.unique(values // 40 - rows)) == 1
        assert len(np.unique(values % 40 - columns)) == 1


def test_resampling_keeps_a_constant():
    for side in (24, 37, 48, 96):
        np.testing.assert_allclose(to_crop_scale(np.full((2, 3, side, side), 7.0, np.float32)), 7, rtol=1e-6)
