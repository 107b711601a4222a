"""Which simulated slides train, calibrate and test a model, with seeds that never meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ctc_training.dataset import DIRTY, Recipe

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
MOST_SLIDES = SEEDS_PER_PURPOSE // (2 + len(HARDER))
"""Slides of one setting and purpose that still have seeds of their own."""


@dataclass(frozen=True)
class Plan:
    """Slides for the three purposes.

    Attributes
    ----------
    training, calibration, test : tuple of Recipe
        No two of them share a seed.
    """

    training: tuple[Recipe, ...]
    calibration: tuple[Recipe, ...]
    test: tuple[Recipe, ...]


def full_plan(seed: int) -> Plan:
    """Slides for a model in earnest, mostly standard ones, rich in CTCs for training."""
    first = 1 + seed * SEEDS_PER_MODEL
    training = slides({STANDARD: 12, **dict.fromkeys(HARDER, 2), DIRTY.name: 8}, first, ctc=400, leukocytes=2500)
    calibration = large_slides({STANDARD: 12, **dict.fromkeys(HARDER, 1)}, first + SEEDS_PER_PURPOSE)
    return Plan(training, calibration, test_slides(seed, {STANDARD: 12, **dict.fromkeys(HARDER, 2)}))


def small_plan(seed: int) -> Plan:
    """A few small slides, which prove that training works and nothing more."""
    first = 1 + seed * SEEDS_PER_MODEL
    purposes = [
        slides({STANDARD: count}, first + purpose * SEEDS_PER_PURPOSE, ctc=40, leukocytes=160, shape_px=(512, 512))
        for purpose, count in enumerate((2, 1, 1))
    ]
    return Plan(*purposes)


def test_slides(seed: int, counts: Mapping[str, int]) -> tuple[Recipe, ...]:
    """Slides for testing the model of a seed, which neither its training nor its calibration saw."""
    return large_slides(counts, 1 + seed * SEEDS_PER_MODEL + 2 * SEEDS_PER_PURPOSE)


def large_slides(counts: Mapping[str, int], first_seed: int) -> tuple[Recipe, ...]:
    """Slides with many leukocytes and few CTCs, on which rare false calls can be counted."""
    return slides(counts, first_seed, ctc=50, leukocytes=9000, shape_px=(4096, 4096))


def slides(
    counts: Mapping[str, int], first_seed: int, ctc: int, leukocytes: int, shape_px: tuple[int, int] = (2048, 2048)
) -> tuple[Recipe, ...]:
    """So many slides of each setting; a setting's seeds don't depend on which others are asked for."""
    return tuple(
        Recipe(setting, first_seed + place * MOST_SLIDES + number, ctc, leukocytes, shape_px)
        for place, setting in enumerate((STANDARD, *HARDER, DIRTY.name))
        for number in range(counts.get(setting, 0))
    )
