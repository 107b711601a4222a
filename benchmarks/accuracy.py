"""What `ctc-imaging run` finds and invents on simulated slides of unseen seeds, setting by setting.

    python benchmarks/accuracy.py --settings standard --slides 26 --ctc 20 --leukocytes 8000

Simulates slides, runs the command on them as a laboratory would, matches its calls to the truth
tables and prints one line a setting. Everything here is SIMULATED: it says how the software treats
the pixels it was built for, nothing about patients.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from ctc_training.dataset import match_cells
from ctc_training.evaluate import poisson_rate, proportion

from ctc_imaging.classification import load_model
from ctc_imaging.simulation import SETTINGS, simulate_slide, write_slide

FIRST_SEED = 900_000
"""Far from every seed used in training, calibration and tests."""


def main() -> None:
    """Run the settings asked for and print the table."""
    options = _options()
    description = load_model().description
    print(f"model {load_model().hash[:12]}, trained on: {description.get('data', description.get('training'))!s:.200}")
    print("All slides simulated. 95 % limits: Clopper-Pearson, Garwood.\n")
    head = f"{'setting':17} {'CTCs':>5} {'leukocytes':>10}"
    print(f"{head}  {'found % (limits)':24} {'false per 100,000 (limits)':28} phenotype right %, false CTCs by kind")
    for setting in options.settings:
        with tempfile.TemporaryDirectory() as folder:
            print(_line(setting, _measure(setting, options, Path(folder))), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--slides", type=int, default=6)
    parser.add_argument("--ctc", type=int, default=20)
    parser.add_argument("--leukocytes", type=int, default=8000)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    return parser.parse_args()


def _measure(setting: str, options: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """One row a true CTC or CTC call, over all slides of a setting."""
    seeds = range(options.first_seed, options.first_seed + options.slides)
    jobs = [(setting, seed, options.ctc, options.leukocytes, options.side, folder / f"s{seed}") for seed in seeds]
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(_simulate, jobs))
    cohort = pd.DataFrame(
        {
            "slide": [f"s{seed}/slide.ome.tif" for seed in seeds],
            "slide_id": [f"s{seed}" for seed in seeds],
            "patient_id": [f"p{seed}" for seed in seeds],
            "sample_date": "2026-01-01",
            "blood_volume_ml": 5,
        }
    )
    cohort.to_csv(folder / "cohort.csv", index=False)
    command = ["ctc-imaging", "run", folder / "cohort.csv", "--out", folder / "run", "--workers", str(options.workers)]
    subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], check=True, stdout=subprocess.DEVNULL)
    return pd.concat([_compare(folder, f"s{seed}") for seed in seeds], ignore_index=True)


def _simulate(job: tuple[str, int, int, int, int, Path]) -> None:
    setting, seed, ctc, leukocytes, side, folder = job
    write_slide(simulate_slide((side, side), ctc=ctc, leukocytes=leukocytes, setting=setting, seed=seed), folder)


def _compare(folder: Path, slide_id: str) -> pd.DataFrame:
    truth = pd.read_csv(folder / slide_id / "truth.csv")
    cells = pd.read_parquet(folder / "run" / "slides" / slide_id / "cells.parquet")
    cells["thing"] = match_cells(cells, truth)
    joined = truth.merge(
        cells[["thing", "call", "phenotype"]], how="outer", left_index=True, right_on="thing", suffixes=("", "_called")
    )
    return joined[["class", "kind", "phenotype", "call", "phenotype_called"]]


def _line(setting: str, rows: pd.DataFrame) -> str:
    true, called = rows["class"] == "ctc", rows["call"] == "ctc"
    leukocytes = int((rows["class"] == "leukocyte").sum())
    found = proportion(int((true & called).sum()), int(true.sum()))
    false = poisson_rate(int((called & ~true).sum()), leukocytes)
    right = (rows["phenotype"] == rows["phenotype_called"])[true & called].mean()
    kinds = rows.loc[called & ~true, "kind"].fillna("no object").value_counts()
    share = f"{100 * found['value']:.1f} ({100 * found['low']:.1f}-{100 * found['high']:.1f})"
    rate = f"{false['value']:.1f} ({false['low']:.1f}-{false['high']:.1f})"
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"{setting:17} {true.sum():5} {leukocytes:10}  {share:24} {rate:28} {100 * right:.1f}   {named}"


if __name__ == "__main__":
    main()
