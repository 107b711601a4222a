"""Which simulated slides train, calibrate and test a model, with seeds that never meet."""

from __future__ import annotations

from dataclasses import dataclass

from ctc_training.dataset import Recipe

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
SEEDS_PER_PURPOSE = 1_000
SEEDS_PER_MODEL = 10_000


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
    training = slides({STANDARD: 16, **dict.fromkeys(HARDER, 2)}, first, ctc=400, leukocytes=2500)
    calibration = large_slides({STANDARD: 12, **dict.fromkeys(HARDER, 1)}, first + SEEDS_PER_PURPOSE)
    return Plan(training, calibration, test_slides(seed, {STANDARD: 12, **dict.fromkeys(HARDER, 2)}))


def small_plan(seed: int) -> Plan:
    """A few small slides, which prove that training works and nothing more."""
    first = 1 + seed * SEEDS_PER_MODEL
    small = {"ctc": 40, "leukocytes": 160, "shape_px": (512, 512)}
    return Plan(
        slides({STANDARD: 2}, first, **small),
        slides({STANDARD: 1}, first + SEEDS_PER_PURPOSE, **small),
        slides({STANDARD: 1}, first + 2 * SEEDS_PER_PURPOSE, **small),
    )


def test_slides(seed: int, counts: dict[str, int]) -> tuple[Recipe, ...]:
    """Slides for testing the model of a seed, which neither its training nor its calibration saw."""
    return large_slides(counts, 1 + seed * SEEDS_PER_MODEL + 2 * SEEDS_PER_PURPOSE)


def large_slides(counts: dict[str, int], first_seed: int) -> tuple[Recipe, ...]:
    """Slides with many leukocytes and few CTCs, on which rare false calls can be counted."""
    return slides(counts, first_seed, ctc=50, leukocytes=9000, shape_px=(4096, 4096))


def slides(
    counts: dict[str, int], first_seed: int, ctc: int, leukocytes: int, shape_px: tuple[int, int] = (2048, 2048)
) -> tuple[Recipe, ...]:
    """So many slides of each setting, seeds counting up from the first."""
    names = [setting for setting, count in counts.items() for _ in range(count)]
    return tuple(
        Recipe(setting, first_seed + offset, ctc, leukocytes, shape_px) for offset, setting in enumerate(names)
    )
