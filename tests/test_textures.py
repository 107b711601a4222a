"""Real nuclei for simulated cells: cut clean, scaled to the cell, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from ctc_training.nuclei.images import LabelledImage
from ctc_training.textures import NucleusBank, cut_nuclei, read_bank

from ctc_imaging.simulation import SETTINGS
from ctc_imaging.simulation.shapes import Grid
from ctc_imaging.simulation.slide import simulate_with


def labelled() -> LabelledImage:
    """Five discs: two good ones, one at the edge, one too small, one that is hardly brighter than its surroundings."""
    y, x = np.mgrid[:160, :160]
    labels = np.zeros((160, 160), np.int32)
    places = [(40, 40, 12), (40, 110, 16), (110, 2, 12), (110, 50, 4), (110, 110, 12)]
    for number, (row, column, radius) in enumerate(places, start=1):
        labels[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = number
    image = np.random.default_rng(0).normal(20, 4, labels.shape) + 100 * np.isin(labels, [1, 2, 3, 4]) + (labels == 5)
    image[(labels == 1) & (x < 40)] += 100
    return LabelledImage("discs", "discs", image.astype(np.float32), labels, np.zeros(labels.shape, bool))


@pytest.fixture(scope="module")
def bank():
    return NucleusBank(tuple(cut_nuclei([labelled()])), "discs", share=1.0)


def test_only_whole_large_and_clear_nuclei_are_taken(bank):
    assert sorted(round(nucleus.radius_px) for nucleus in bank.nuclei) == [12, 16]


def test_stain_has_mean_one_and_none_outside(bank):
    for nucleus in bank.nuclei:
        assert nucleus.stain[nucleus.cover > 0].mean() == pytest.approx(1)
        assert nucleus.stain[nucleus.cover == 0].max() == 0


@pytest.mark.parametrize("radius_um", [3.0, 5.0, 8.0])
def test_a_drawn_nucleus_has_the_area_asked_for(bank, radius_um):
    grid = Grid.around(12.0, (0.0, 0.0), 0.25)
    cover, stain = bank.draw(radius_um, (1.0, -1.0), grid, np.random.default_rng(1))
    assert cover.shape == stain.shape == grid.shape
    assert cover.sum() * 0.25**2 == pytest.approx(np.pi * radius_um**2, rel=0.05)


def test_the_nucleus_lies_where_it_was_put(bank):
    grid = Grid.around(15.0, (0.0, 0.0), 0.25)
    cover, _ = bank.draw(3.0, (4.0, -5.0), grid, np.random.default_rng(2))
    middle = (cover * grid.y).sum() / cover.sum(), (cover * grid.x).sum() / cover.sum()
    np.testing.assert_allclose(middle, (4.0, -5.0), atol=0.2)


def test_slides_with_real_nuclei_are_reproducible_and_differ_from_plain_ones(bank):
    def slide(source):
        return simulate_with(SETTINGS["standard"], (200, 200), ctc=2, leukocytes=12, seed=3, source=source).image

    np.testing.assert_array_equal(slide(bank), slide(bank))
    assert (slide(bank)[0] != slide(None)[0]).any()


def test_the_public_images_give_thousands(shared_data):
    bank = read_bank(shared_data)
    assert len(bank.nuclei) > 5_000
    assert all(nucleus.radius_px >= 7 for nucleus in bank.nuclei)
