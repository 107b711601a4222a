"""Bias and interval coverage of the lead time, on SIMULATED trials whose lead is known.

Each trial has 200 patients, of whom about 100 relapse; scans every three months, with one in twenty missed; blood
samples on one of three grids, with one in ten missed. Truth and estimate are of relapses within two years of surgery
that CTC positivity precedes.

Run: python benchmarks/lead_time.py --trials 500
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from time import perf_counter

import numpy as np
import pandas as pd

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.recurrence.lead_time import estimate_lead_time
from ctc_imaging.recurrence.lead_time.simulation import EIGHT_VISITS, FIVE_VISITS, QUARTERLY, Trial

HORIZON_DAYS = 730.0
QUANTITIES = ("mean_days", "median_days", "never_positive")
COLUMNS = ("scenario", "relapses", "true mean", "bias", "coverage", "spread", "median: bias", "coverage")
COLUMNS += ("never positive: bias", "coverage", "failed", "s")
# Positive means that the estimate is longer, or larger, than the truth; spread is the standard deviation over trials.
TRIALS = (
    Trial("five visits in a year", FIVE_VISITS),
    Trial("the same, then half-yearly", EIGHT_VISITS),
    Trial("quarterly", QUARTERLY),
    Trial("five visits, a third positive since surgery", FIVE_VISITS, since_surgery=1 / 3),
    Trial("quarterly, a third positive since surgery", QUARTERLY, since_surgery=1 / 3),
    Trial("five visits, lead 90", FIVE_VISITS, lead_days=90),
    Trial("five visits, lead 240", FIVE_VISITS, lead_days=240),
    Trial("quarterly, lead 60", QUARTERLY, lead_days=60),
    Trial("quarterly, lead 240", QUARTERLY, lead_days=240),
    Trial("five visits, lead log-normal", FIVE_VISITS, lead="lognormal"),
    Trial("quarterly, lead log-normal", QUARTERLY, lead="lognormal"),
    Trial("five visits, lead uniform", FIVE_VISITS, lead="uniform"),
    Trial("quarterly, lead uniform", QUARTERLY, lead="uniform"),
    Trial("five visits, half turn positive", FIVE_VISITS, turning_share=0.5),
    Trial("quarterly, nine of ten turn positive", QUARTERLY, turning_share=0.9),
    Trial("five visits, 10 % false, 20 % missed", FIVE_VISITS, false_positive=0.1, true_positive=0.8),
    Trial("quarterly, 10 % false, 20 % missed", QUARTERLY, false_positive=0.1, true_positive=0.8),
    Trial("quarterly, 40 % missed", QUARTERLY, true_positive=0.6),
    Trial("five visits, 100 patients", FIVE_VISITS, patients=100),
    Trial("quarterly, 100 patients", QUARTERLY, patients=100),
    Trial("quarterly, scans half-yearly", QUARTERLY, scan_every=180),
    Trial("quarterly, 20 % missed, more in some patients", QUARTERLY, true_positive=0.8, true_alike=0.2),
    Trial("quarterly, relapse hump-shaped", QUARTERLY, relapse_shape=1.8, relapse_scale=1150),
    Trial("quarterly, positives scanned at once", QUARTERLY, scan_after_positive=0.7),
    Trial("quarterly, lead tied to relapse time (.5)", QUARTERLY, tie=0.5),
)


def main() -> None:
    """Draw, estimate and print one row a scenario."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--shape", default="weibull")
    parser.add_argument("--only", default="")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    print(f"SIMULATED, {options.trials} trials a row, lead fitted as {options.shape}; days\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    with ProcessPoolExecutor(options.workers) as pool:
        for trial in TRIALS:
            if options.only not in trial.name:
                continue
            begun = perf_counter()
            drawn = pool.map(partial(one, trial, options.shape), range(options.trials), chunksize=10)
            print(row(trial, drawn, begun), flush=True)


def one(trial: Trial, shape: str, seed: int) -> dict[str, float] | None:
    """Estimate one trial's lead; None where that fails."""
    try:
        found = estimate_lead_time(trial.draw(seed), HORIZON_DAYS, shape)
    except CtcImagingError:
        return None
    if not found.converged:
        return None
    values = {"relapses": float(found.relapses)}
    for name in QUANTITIES:
        limited = getattr(found, name)
        values |= {name: limited.value, f"{name}_low": limited.low, f"{name}_high": limited.high}
    return values


def row(trial: Trial, drawn: Iterable[dict[str, float] | None], begun: float) -> str:
    """Set the estimates beside the truth."""
    every = list(drawn)
    table, truth = pd.DataFrame([values for values in every if values is not None]), trial.truth(HORIZON_DAYS)
    bias = {name: table[name].mean() - truth[name] for name in QUANTITIES}
    cover = {
        name: ((table[f"{name}_low"] <= truth[name]) & (truth[name] <= table[f"{name}_high"])).mean()
        for name in QUANTITIES
    }
    cells = [
        trial.name,
        f"{table['relapses'].mean():.0f}",
        f"{truth['mean_days']:.0f}",
        f"{bias['mean_days']:+.1f}",
        f"{cover['mean_days']:.1%}",
        f"{np.std(table['mean_days']):.0f}",
        f"{bias['median_days']:+.1f}",
        f"{cover['median_days']:.1%}",
        f"{100 * bias['never_positive']:+.1f} %",
        f"{cover['never_positive']:.1%}",
        str(len(every) - len(table)),
        f"{perf_counter() - begun:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
