"""Clone trees held against known answers: scores, fractions and verdicts, with seconds.

    python benchmarks/clonality_trees.py [--shared ../shared/data] [--patients 20] [--json]

SCITE's three published matrices and CRUK0001 are real data; the verdicts are of SIMULATED patients and say nothing of
patients. Functions are compiled before any clock starts.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ctc_imaging.clonality.cell_tree import CellErrors, search_cell_tree
from ctc_imaging.clonality.clone_fractions import fit_clone_fractions
from ctc_imaging.clonality.origin import origin_of

if TYPE_CHECKING:
    from collections.abc import Callable

SHARED = Path(__file__).parents[2] / "shared" / "data"
PUBLISHED = {
    "Hou18": (CellErrors(6.04e-5, 0.21545, 1.299164e-05), -378.3536),
    "Xu": (CellErrors(2.67e-5, 0.1643), -153.0791),
    "Navin": (CellErrors(1.24e-6, 0.0973), -579.4966),
}
TRUNK = {"R1": 0.995, "R2": 0.984, "R3": 0.998}
PYCLONE = {"mutation_id": "mutation", "ref_counts": "ref_count", "alt_counts": "alt_count", "tumour_content": "purity"}

SIZES = {"T": 10, "A": 6, "B": 6, "R": 8, "C": 4}
REGIONS = {"P1": {"T": 1, "A": 0.4, "B": 0.3}, "P2": {"T": 1, "A": 0.1, "B": 0.7}}
TRUTHS = {"shared_subclone": ("TAC", "TAR"), "common_origin": ("TAC", "TBR"), "unrelated": ("C", "TBR")}
PURITY, DEPTH, FALSE_DISCOVERY = 0.6, 100, 0.005


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result


def scite_scores(folder: Path, seeds: int) -> list[dict[str, Any]]:
    """Search each published matrix from several seeds."""
    rows = []
    for name, (errors, published) in PUBLISHED.items():
        calls = np.loadtxt(folder / f"data{name}.csv", dtype=int)
        runs = [timed(partial(search_cell_tree, calls, errors, seed=seed)) for seed in range(seeds)]
        scores = np.array([tree.log_score for _, tree in runs])
        rows.append(
            {
                "matrix": name,
                "size": "x".join(map(str, calls.shape)),
                "published": published,
                "reached": round(float(scores.max()), 4),
                "seeds_reaching_it": f"{int((scores >= published - 0.01).sum())} of {seeds}",
                "seconds": round(float(np.median([seconds for seconds, _ in runs])), 2),
            }
        )
    return rows


def cruk0001(path: Path) -> list[dict[str, Any]]:
    """The trunk's fraction in three regions of one patient."""
    reads = pd.read_csv(path, sep="\t").rename(columns=PYCLONE)
    seconds, fit = timed(partial(fit_clone_fractions, reads))
    table = fit.table()
    trunk = table[(table > 0.8).all(axis=1)].iloc[0]
    return [
        {
            "mutations": len(fit.mutations),
            "clones": len(table),
            **{f"{region}, known {known}": round(float(trunk[region]), 3) for region, known in TRUNK.items()},
            "seconds": round(seconds, 2),
        }
    ]


def pyclone_simulated(path: Path) -> list[dict[str, Any]]:
    """The simulated example of PyClone-VI's authors, whose truth is in the file."""
    from sklearn.metrics import adjusted_rand_score

    reads = pd.read_csv(path, sep="\t").rename(columns=PYCLONE)
    seconds, fit = timed(partial(fit_clone_fractions, reads))
    found = fit.mutations.set_index("mutation")["clone"]
    truth = reads.drop_duplicates("mutation").set_index("mutation")["cluster"]
    fractions = fit.mutations.merge(fit.clones, on="clone").set_index(["mutation", "sample_id"])["fraction"]
    error = (fractions - reads.set_index(["mutation", "sample_id"])["ccf"]).abs().mean()
    rand = adjusted_rand_score(truth, found[truth.index])
    return [{"adjusted_rand": round(rand, 3), "mean_error_of_fraction": round(error, 3), "seconds": round(seconds, 2)}]


def tissue(sample: str, fractions: dict[str, float], rng: np.random.Generator) -> pd.DataFrame:
    """Simulated reads of a tissue sample."""
    rows = []
    for clone, size in SIZES.items():
        for number in range(size):
            reads = rng.poisson(DEPTH)
            alt = rng.binomial(reads, max(fractions.get(clone, 0) * PURITY / 2, 0.001))
            rows.append((sample, f"{clone}{number}", reads - alt, alt, PURITY))
    return pd.DataFrame(rows, columns=["sample_id", "mutation", "ref_count", "alt_count", "purity"])


def simulated_patient(
    truth: str, drop_out: float, cells: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """A SIMULATED patient: two regions of the primary, single CTCs, a relapse."""
    ctc_has, relapse_has = TRUTHS[truth]
    primary = pd.concat([tissue(sample, fractions, rng) for sample, fractions in REGIONS.items()])
    rows = [
        (f"C{cell}", f"{clone}{number}", rng.random() < (1 - drop_out if clone in ctc_has else FALSE_DISCOVERY))
        for cell in range(cells)
        for clone, size in SIZES.items()
        for number in range(size)
    ]
    ctcs = pd.DataFrame(rows, columns=["sample_id", "mutation", "present"])
    return primary, ctcs, tissue("R", dict.fromkeys(relapse_has, 1.0), rng)


def verdicts(patients: int) -> list[dict[str, Any]]:
    """Verdicts on CTC and relapse of SIMULATED patients, by drop-out and number of cells."""
    rows = []
    for drop_out in (0.05, 0.2, 0.4):
        for cells in (1, 5):
            for truth in TRUTHS:
                rng = np.random.default_rng([int(100 * drop_out), cells, patients])
                told, seconds = [], []
                for _ in range(patients):
                    tables = simulated_patient(truth, drop_out, cells, rng)
                    errors = CellErrors(FALSE_DISCOVERY, drop_out)
                    took, result = timed(partial(origin_of, *tables, errors=errors))
                    pairs = result.pairs
                    told += pairs[pairs["sample_a"].str.startswith("C") & (pairs["sample_b"] == "R")][
                        "verdict"
                    ].tolist()
                    seconds.append(took)
                shares = pd.Series(told).value_counts(normalize=True)
                right, silent = shares.get(truth, 0.0), shares.get("cannot_tell", 0.0)
                rows.append(
                    {
                        "drop_out": drop_out,
                        "cells": cells,
                        "truth": truth,
                        "pairs": len(told),
                        "right": round(right, 3),
                        "cannot_tell": round(silent, 3),
                        "wrong": round(abs(1 - right - silent), 3),
                        "seconds": round(float(np.median(seconds)), 2),
                    }
                )
    return rows


def warm_up() -> None:
    """Compile."""
    search_cell_tree(np.array([[0, 1], [1, 1]]), CellErrors(0.01, 0.1), restarts=1, steps=10)
    origin_of(*simulated_patient("common_origin", 0.2, 1, np.random.default_rng(0)))


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--patients", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warm_up()
    results = {
        "Single-cell trees, log score": scite_scores(options.shared / "clonality_scdna_scite", options.seeds),
        "CRUK0001, trunk": cruk0001(options.shared / "clonality_pyclone" / "tracerx_cruk0001.tsv"),
        "PyClone-VI's simulated example": pyclone_simulated(options.shared / "clonality_pyclone" / "synthetic.tsv"),
        "CTC and relapse, SIMULATED patients": verdicts(options.patients),
    }
    if options.json:
        print(json.dumps(results, indent=2))
        return
    for title, rows in results.items():
        print(f"\n{title}\n{pd.DataFrame(rows).to_string(index=False)}")


if __name__ == "__main__":
    main()
