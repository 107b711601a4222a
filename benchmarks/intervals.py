"""How often the limits of CTCs per mL hold the truth, and how wide they are beside those of one who knows the rates.

Numbers only, no images: true cells are Poisson, a tube's recovery binomial, false calls Poisson. Every sample has
controls of its own, drawn anew, and its limits are computed from what those controls gave.

    python benchmarks/intervals.py [--samples 4000] [--seed 0] [--json]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass

import numpy as np

from ctc_imaging.assay import FalseCalls, Recovery, estimate_false_calls, estimate_recovery, total_limits

BURDENS = (0, 1, 3, 10, 50)
VOLUME_ML = 5.0
LEUKOCYTES = 75_000


@dataclass(frozen=True)
class World:
    """A laboratory: its true rates, how much tubes differ in them, and the controls it has."""

    name: str
    recovery: float = 0.81
    recovery_sd: float = 0.0
    false_per_100k: float = 0.1
    false_cv: float = 0.0
    spiked: tuple[int, int] = (10, 100)
    blanks: tuple[int, int] = (20, 100_000)
    counted_tube: bool = False

    def draw_recovery(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw the recovery of tubes."""
        if not self.recovery_sd:
            return np.full(size, self.recovery)
        precision = self.recovery * (1 - self.recovery) / self.recovery_sd**2 - 1
        return rng.beta(self.recovery * precision, (1 - self.recovery) * precision, size)

    def draw_false(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draw the false calls per leukocyte of samples."""
        mean = self.false_per_100k / 1e5
        return rng.gamma(self.false_cv**-2, mean * self.false_cv**2, size) if self.false_cv else np.full(size, mean)


WORLDS = (
    World("ten spiked tubes of 100, 20 blanks of 100,000"),
    World("ten and 20, exactly so many cells in the tube", counted_tube=True),
    World("ten and 20, 5 false per 100,000", false_per_100k=5.0),
    World("three spiked tubes of 20, three blanks of 75,000", spiked=(3, 20), blanks=(3, 75_000)),
    World("three and three, 5 false per 100,000", false_per_100k=5.0, spiked=(3, 20), blanks=(3, 75_000)),
    World("tubes differ: recovery SD 0.08, false calls CV 0.5", recovery_sd=0.08, false_per_100k=5.0, false_cv=0.5),
    World("one spiked tube of 100, one blank of 75,000", spiked=(1, 100), blanks=(1, 75_000)),
)


def measure(world: World, samples: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Return coverage and mean width at each burden, measured and of one who knows each sample's rates."""
    burden = np.array(BURDENS, dtype=float)
    limits = np.empty((2, samples, 2, len(burden)))
    for sample in range(samples):
        tubes, cells = world.spiked
        found = rng.binomial(cells, world.draw_recovery(rng, tubes))
        blanks, leukocytes = world.blanks
        false = rng.poisson(world.draw_false(rng, blanks) * leukocytes)
        known = estimate_false_calls(false, [leukocytes] * blanks), estimate_recovery(found, [cells] * tubes)
        recovery, rate = world.draw_recovery(rng, len(burden)), world.draw_false(rng, len(burden))
        true = burden.astype(int) if world.counted_tube else rng.poisson(burden)
        count = rng.binomial(true, recovery) + rng.poisson(rate * LEUKOCYTES)
        limits[0, sample] = total_limits(count, VOLUME_ML, LEUKOCYTES, *known)
        limits[1, sample] = np.column_stack([
            total_limits(count[i], VOLUME_ML, LEUKOCYTES, FalseCalls(rate[i]), Recovery(recovery[i]))
            for i in range(len(burden))
        ])  # fmt: skip
    held = (limits[:, :, 0] <= burden / VOLUME_ML) & (burden / VOLUME_ML <= limits[:, :, 1])
    width = (limits[:, :, 1] - limits[:, :, 0]).mean(axis=1)
    return [
        {
            "burden": int(burden[i]),
            "coverage": float(held[0, :, i].mean()),
            "oracle_coverage": float(held[1, :, i].mean()),
            "width_per_ml": float(width[0, i]),
            "width_ratio": float(width[0, i] / width[1, i]),
        }
        for i in range(len(burden))
    ]


def main() -> None:
    """Print the table, or with --json all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results = [
        {"world": asdict(world), "rows": measure(world, given.samples, np.random.default_rng(given.seed))}
        for world in WORLDS
    ]
    if given.json:
        print(json.dumps({"samples": given.samples, "results": results}, indent=1))
        return
    print(f"{given.samples} samples a line of {VOLUME_ML:g} mL and {LEUKOCYTES:,} leukocytes; controls anew for each")
    print(f"{'controls':52}{'true CTCs':>10}{'held, %':>9}{'oracle, %':>11}{'width/mL':>10}{'to oracle':>11}")
    for result in results:
        for row in result["rows"]:
            name = result["world"]["name"] if row["burden"] == BURDENS[0] else ""
            print(
                f"{name:52}{row['burden']:>10}{100 * row['coverage']:>9.1f}{100 * row['oracle_coverage']:>11.1f}"
                f"{row['width_per_ml']:>10.2f}{row['width_ratio']:>11.3f}"
            )


if __name__ == "__main__":
    main()
