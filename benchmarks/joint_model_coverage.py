"""How often the joint model's 95 % intervals hold the truth, on SIMULATED counts as over-dispersed as published ones.

Two worlds, each 300 patients with at most six visits in a year, followed for two to five years:

- cellsearch: mean 1.13 and k .44 in 7.5 mL, 43 % positive (Yu 2018, before surgery);
- canpatrol: mean 8.1 and k 1.42 in 5 mL, about 90 % positive (Qi 2018).

A zero-inflated negative binomial with a random intercept (and, with --slope, a random slope), the volume of blood as
exposure; the hazard of recurrence is Weibull and depends on the current log rate and on one yes/no covariate.

Run: python benchmarks/joint_model_coverage.py --replicates 1000
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import beta

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.recurrence.follow_up import FollowUp
from ctc_imaging.recurrence.joint import JointSpec, MarkerSpec, fit_joint

PATIENTS = 300
VISITS_YEARS = (7 / 365, 30 / 365, 90 / 365, 180 / 365, 1.0, 1.5)
FOLLOWED_YEARS = (2.0, 5.0)
ASSOCIATION, COVARIATE, SHAPE, TREND, SLOPE_SD = 0.5, 0.6, 0.8, 0.2, 0.3
VOLUMES_ML = (5.0, 7.5)
GRID = np.linspace(0, FOLLOWED_YEARS[1], 1501)


@dataclass(frozen=True)
class World:
    """Truth of a simulated world; `log_rate` is of CTCs in `volume_ml`, `hazard` the log of its rate a year."""

    name: str
    log_rate: float
    intercept_sd: float
    k: float
    zero_share: float
    hazard: float
    volume_ml: float

    @property
    def truth(self) -> dict[str, float]:
        """The true values, named as the model names them."""
        return {
            "long:Intercept": self.log_rate - np.log(self.volume_ml),
            "long:year": TREND,
            "residual:k": self.k,
            "residual:zero_share": self.zero_share,
            "random:sd(intercept)": self.intercept_sd,
            "event:covariate": COVARIATE,
            "association:value": ASSOCIATION,
        }


WORLDS = (
    World("cellsearch", np.log(1.329) - 0.405, 0.9, 4.2, 0.15, -1.0, 7.5),
    World("canpatrol", np.log(8.526) - 0.18, 0.6, 7.7, 0.05, -1.9, 5.0),
)


def draw(world: World, slope: bool, seed: int) -> FollowUp:
    """Draw a cohort.

    Parameters
    ----------
    world : World
    slope : bool
        Whether patients differ in slope.
    seed : int

    Returns
    -------
    FollowUp
    """
    rng = np.random.default_rng(seed)
    level = world.log_rate + rng.normal(0, world.intercept_sd, (PATIENTS, 1))
    trend = TREND + rng.normal(0, SLOPE_SD if slope else 0.0, (PATIENTS, 1))
    covariate = rng.integers(0, 2, PATIENTS)
    event = _draw_events(world, level, trend, covariate, rng)
    censored = rng.uniform(*FOLLOWED_YEARS, PATIENTS)
    end = np.minimum(event, censored)
    year = np.clip(np.array(VISITS_YEARS) + rng.normal(0, 0.01, (PATIENTS, len(VISITS_YEARS))), 0.003, None)
    volume = rng.choice(VOLUMES_ML, year.shape)
    mean = np.exp(level + trend * year) * volume / world.volume_ml
    count = rng.poisson(mean * rng.gamma(world.k, 1 / world.k, year.shape))
    count = np.where(rng.random(year.shape) < world.zero_share, 0, count)
    seen = (year < end[:, None]) & (rng.random(year.shape) > 0.06)
    patient = np.broadcast_to(np.arange(PATIENTS)[:, None], year.shape)
    long = {"patient": patient, "year": year, "ctc": count.astype(float), "volume_ml": volume}
    events = {"patient": np.arange(PATIENTS), "end": end, "event": event <= censored, "covariate": covariate * 1.0}
    table = pd.DataFrame({name: values[seen] for name, values in long.items()})
    return FollowUp(table, pd.DataFrame(events), "patient", "year", "end", "event", "years")


def _draw_events(
    world: World, level: np.ndarray, trend: np.ndarray, covariate: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Invert the cumulative hazard on a grid, linear between its points."""
    middle = (GRID[1:] + GRID[:-1]) / 2
    rate = level - np.log(world.volume_ml) + trend * middle
    log_hazard = world.hazard + np.log(SHAPE) + COVARIATE * covariate[:, None] + ASSOCIATION * rate
    # The Weibull part is integrated exactly over each step.
    steps = np.exp(log_hazard) * np.diff(GRID**SHAPE) / SHAPE
    cumulative = np.cumsum(steps, axis=1)
    wanted = rng.exponential(1.0, PATIENTS)
    place = (cumulative < wanted[:, None]).sum(axis=1)
    inside = np.minimum(place, len(middle) - 1)
    rows = np.arange(PATIENTS)
    before = cumulative[rows, inside] - steps[rows, inside]
    share = (wanted - before) / steps[rows, inside]
    return np.where(place < len(middle), GRID[inside] + share * np.diff(GRID)[inside], np.inf)


def replicate(task: tuple[World, bool, int]) -> dict[str, object]:
    """Draw and fit once."""
    world, slope, seed = task
    effects = ("intercept", "slope") if slope else ("intercept",)
    follow_up = draw(world, slope, seed)
    family = "zero-inflated-negative-binomial"
    spec = JointSpec((MarkerSpec("ctc ~ year", family, effects, "volume_ml"),), "covariate")
    try:
        model = fit_joint(spec, follow_up)
    except CtcImagingError as error:
        return {"seed": seed, "converged": False, "reason": str(error)}
    found: dict[str, object] = {"seed": seed, "converged": model.converged, "seconds": model.seconds}
    found["zeros"] = float((follow_up.long["ctc"] == 0).mean())
    found["events"] = model.events
    found["reason"] = "" if model.converged else "; ".join(model.notes)
    for name, truth in world.truth.items():
        row = model.table.loc[name]
        found[name] = row["estimate"]
        found[f"{name} held"] = bool(row["low"] <= truth <= row["high"]) if np.isfinite(row["se"]) else None
    return found


def report(world: World, found: pd.DataFrame) -> None:
    """Print the table of one world."""
    good = found[found["converged"]]
    print(f"\n### {world.name}: {len(found):,} SIMULATED cohorts of {PATIENTS} patients\n")
    print(
        f"{found['zeros'].mean():.0%} of counts are zero, {found['events'].mean():.0f} recurrences a cohort;", end=" "
    )
    print(f"median fit {good['seconds'].median():.2f} s. Not converged: {len(found) - len(good)}.")
    for reason, count in found.loc[~found["converged"], "reason"].value_counts().items():
        print(f"- {count} x {reason}")
    print("\n| Parameter | Truth | Mean estimate | Bias / SD | Interval holds it, % (exact 95 %) | At a bound |")
    print("|---|---|---|---|---|---|")
    for name, truth in world.truth.items():
        values, held = good[name].astype(float), good[f"{name} held"]
        known = held.dropna().astype(bool)
        low, high = _exact(int(known.sum()), len(known))
        bias = (values.mean() - truth) / values.std()
        share = f"{known.mean():.1%} ({low:.1%}-{high:.1%})"
        print(f"| {name} | {truth:.3f} | {values.mean():.3f} | {bias:+.2f} | {share} | {int(held.isna().sum())} |")


def _exact(hits: int, count: int) -> tuple[float, float]:
    low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    return float(low), float(beta.ppf(0.975, hits + 1, count - hits)) if hits < count else 1.0


def main(arguments: Iterable[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--slope", action="store_true", help="patients differ in slope too")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--worlds", default=",".join(world.name for world in WORLDS))
    options = parser.parse_args(None if arguments is None else list(arguments))
    for world in (one for one in WORLDS if one.name in options.worlds.split(",")):
        tasks = [(world, options.slope, seed) for seed in range(options.replicates)]
        with ProcessPoolExecutor(options.workers) as pool:
            report(world, pd.DataFrame(pool.map(replicate, tasks, chunksize=4)))


if __name__ == "__main__":
    main()
