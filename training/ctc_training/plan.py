"""Which simulated slides train, calibrate and test a model, with seeds that never meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ctc_training.dataset import Recipe
from ctc_training.hard_settings import DIRTY, PALE

STANDARD = "standard"
HARDER = (
    "weak-stain",
    "bleed-through",
    "defocus",
    "dying",
    "aggregates",
    "mesenchymal-only",
    "size-inverted",
    "dense",
)
# Slides of one purpose take seeds from one such range; a model's own seed moves them all.
SEEDS_PER_MODEL = 10_000
SEEDS_PER_PURPOSE = 1_000
MOST_SLIDES = SEEDS_PER_PURPOSE // (3 + len(HARDER))
"""Slides of one setting and purpose that still have seeds of their own."""

REFERENCE_SLIDES = 48


@dataclass(frozen=True)
class Plan:
    """Slides for the three purposes.

    Attributes
    ----------
    training, calibration, test : tuple of Recipe
        No two of them share a seed.
    reference_slides : int
        Further slides on which the reference of drift is measured; none without one.
    """

    training: tuple[Recipe, ...]
    calibration: tuple[Recipe, ...]
    test: tuple[Recipe, ...]
    reference_slides: int = 0


def full_plan(seed: int) -> Plan:
    """Slides for a model in earnest, mostly standard ones, rich in CTCs for training; a third have real nuclei."""
    first = 1 + seed * SEEDS_PER_MODEL
    plain = {STANDARD: 10, **dict.fromkeys(HARDER, 2), DIRTY.name: 6, PALE.name: 2}
    real = {STANDARD: 8, **dict.fromkeys(HARDER, 1), DIRTY.name: 4, PALE.name: 1}
    textured = [replace(recipe, textured=True) for recipe in _crowded(real, first + MOST_SLIDES // 2)]
    other_scales = [
        replace(recipe, pixel_size_um=scale, shape_px=(side, side))
        for recipe, (scale, side) in zip(
            _crowded({STANDARD: 4}, first + 3 * MOST_SLIDES // 4), 2 * [(0.65, 1576), (0.325, 3152)], strict=True
        )
    ]
    training = (*_crowded(plain, first), *textured, *other_scales)
    calibration = large_slides({STANDARD: 12, **dict.fromkeys(HARDER, 1)}, first + SEEDS_PER_PURPOSE)
    return Plan(training, calibration, test_slides(seed, {STANDARD: 12, **dict.fromkeys(HARDER, 2)}), REFERENCE_SLIDES)


def small_plan(seed: int) -> Plan:
    """A few small slides, which prove that training works and nothing more."""
    first = 1 + seed * SEEDS_PER_MODEL
    purposes = [
        slides({STANDARD: count}, first + purpose * SEEDS_PER_PURPOSE, ctc=40, leukocytes=160, shape_px=(512, 512))
        for purpose, count in enumerate((2, 1, 1))
    ]
    training, calibration, test = purposes
    return Plan(training, calibration, test)


def test_slides(seed: int, counts: Mapping[str, int]) -> tuple[Recipe, ...]:
    """Slides for testing the model of a seed, which neither its training nor its calibration saw."""
    return large_slides(counts, 1 + seed * SEEDS_PER_MODEL + 2 * SEEDS_PER_PURPOSE)


def large_slides(counts: Mapping[str, int], first_seed: int) -> tuple[Recipe, ...]:
    """Slides with many leukocytes and few CTCs, on which rare false calls can be counted."""
    return slides(counts, first_seed, ctc=100, leukocytes=9000, shape_px=(4096, 4096))


def _crowded(counts: Mapping[str, int], first_seed: int) -> tuple[Recipe, ...]:
    return slides(counts, first_seed, ctc=400, leukocytes=2500)


def slides(
    counts: Mapping[str, int], first_seed: int, ctc: int, leukocytes: int, shape_px: tuple[int, int] = (2048, 2048)
) -> tuple[Recipe, ...]:
    """So many slides of each setting; a setting's seeds don't depend on which others are asked for."""
    return tuple(
        Recipe(setting, first_seed + place * MOST_SLIDES + number, ctc, leukocytes, shape_px)
        for place, setting in enumerate((STANDARD, *HARDER, DIRTY.name, PALE.name))
        for number in range(counts.get(setting, 0))
    )
