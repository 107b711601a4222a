"""Do single CTCs and the tumour share an origin? An error-aware test beside one that takes calls at their word.

Simulated, not evidence about patients. A panel of 80 sites is looked at in the tumour, which carries 20 of them, and in
each cell. Most mutations are rare (1 patient in 1,021), a tenth are hotspots (1 to 50 % of patients). A related cell
carries a share of 10 to 40 % of the tumour's mutations, those of the clone it left from; any cell carries others as
often as they are in patients, and private ones at 3 % of the other sites. A cell loses a mutation at the drop-out rate
and shows a false one at a rate of its own, from 1 in 10,000 up to --most-false (log-uniform), at the tumour's sites
too. Both rates are estimated from 200 germline sites for each, as `cell_errors_of` does. Evidence of several cells is
added up: the log likelihoods of all cells at the same clonality signal.

Both tests are cut where 5 % of unrelated patients are called related, in simulations of the same design, so that only
what they see differs; the table gives the share of related patients found, with limits of the gain (paired). Each row
has a cut of its own, and those with "any" one cut for patients of all drop-out rates (and numbers of cells): a
laboratory has cells of every quality and one cut.

    python benchmarks/clonality.py --patients 1000
"""

from __future__ import annotations

import argparse
import time
from itertools import product

import numpy as np
import pandas as pd

from ctc_imaging.clonality.cell_pair import of_cells, of_tissue, with_errors
from ctc_imaging.clonality.cell_rates import cell_errors_of
from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.mutations import Sample
from ctc_imaging.clonality.pair_likelihood import SIGNALS, PairEvidence, log_likelihood, without_errors

_TUMOUR, _OTHER_SITES, _GERMLINE_SITES = 20, 60, 200
_RARE, _HOTSPOTS, _PRIVATE = 1 / 1021, 0.1, 0.03
_LEAST_SHARED, _MOST_SHARED = 0.1, 0.4
_LEAST_FALSE = 1e-4
_FALSE_RELATED = 0.05
_LINE = "{:>8} {:>8} {:>6} {:>8} {:>12} {:>6} {:>18} {:>6}"


def main() -> None:
    """Simulate and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--patients", type=int, default=1000, help="related and unrelated ones, each")
    arguments.add_argument("--drop-out", type=float, nargs="*", default=[0.05, 0.1, 0.2, 0.3, 0.4])
    arguments.add_argument("--cells", type=int, nargs="*", default=[1, 3, 10, 30])
    arguments.add_argument("--most-false", type=float, nargs="*", default=[0.02, 0.1])
    asked = arguments.parse_args()
    print("SIMULATED single CTCs: related patients found, %, where 5 % of unrelated ones are called related")
    heads = ("false to", "drop-out", "cells", "naive", "error-aware", "gain", "its 95 % limits", "s")
    print(_LINE.format(*heads))
    for most_false in asked.most_false:
        scores = {}
        for drop_out, cells in product(asked.drop_out, asked.cells):
            start = time.perf_counter()
            scores[drop_out, cells] = one = _scores(most_false, drop_out, cells, asked.patients)
            _tell(f"{most_false:.0%}", f"{drop_out:.0%}", cells, one, f"{time.perf_counter() - start:.1f}")
        for cells in asked.cells:
            pooled = [one for (_, number), one in scores.items() if number == cells]
            _tell(f"{most_false:.0%}", "any", cells, np.concatenate(pooled))
        _tell(f"{most_false:.0%}", "any", "any", np.concatenate(list(scores.values())))


def _scores(most_false: float, drop_out: float, cells: int, patients: int) -> np.ndarray:
    """Both tests' statistics of `patients` related and as many unrelated ones: (patients, related or not, test)."""
    random = np.random.default_rng([int(most_false * 1000), int(drop_out * 100), cells])
    of_kind = [
        [statistics(random, most_false, drop_out, cells, related) for _ in range(patients)] for related in (True, False)
    ]
    return np.swapaxes(np.array(of_kind), 0, 1)


def _tell(most_false: str, drop_out: str, cells: int | str, scores: np.ndarray, seconds: str = "") -> None:
    found = [_found(scores[:, 0, test], scores[:, 1, test]) for test in (0, 1)]
    gain = 100 * (found[1].mean() - found[0].mean())
    error = 100 * (found[1].astype(float) - found[0]).std(ddof=1) / np.sqrt(len(scores))
    limits = f"{gain - 1.96 * error:5.1f} to {gain + 1.96 * error:5.1f}"
    naive, aware = (100 * one.mean() for one in found)
    told = (f"{naive:.1f}", f"{aware:.1f}", f"{gain:.1f}", limits, seconds)
    print(_LINE.format(most_false, drop_out, cells, *told), flush=True)


def statistics(
    random: np.random.Generator, most_false: float, drop_out: float, cells: int, related: bool
) -> tuple[float, float]:
    """Simulate a patient; log likelihood ratio of all cells together, calls taken at their word and error-aware."""
    hotspot = random.random(_TUMOUR + _OTHER_SITES) < _HOTSPOTS
    p = np.where(hotspot, np.exp(random.uniform(np.log(0.01), np.log(0.5), len(hotspot))), _RARE)
    tumour = np.arange(len(p)) < _TUMOUR
    clone = tumour & (random.random(len(p)) < (random.uniform(_LEAST_SHARED, _MOST_SHARED) if related else 0.0))
    rates = np.exp(random.uniform(np.log(_LEAST_FALSE), np.log(most_false), cells))
    known = _estimated(random, drop_out, rates)
    naive, aware = np.zeros(len(SIGNALS)), np.zeros(len(SIGNALS))
    for false, errors in zip(rates, known, strict=True):
        own = (random.random(len(p)) < p) | (~tumour & (random.random(len(p)) < _PRIVATE))
        has = clone | own
        called = np.where(has, random.random(len(p)) >= drop_out, random.random(len(p)) < false)
        naive += _curve(without_errors(p[tumour & called], p[tumour ^ called]))
        detections = of_tissue(len(p)), of_cells(errors, 1, np.full(len(p), np.nan))
        aware += _curve(with_errors(tumour, called, p, detections))
    return float(naive.max()), float(aware.max())


def _estimated(random: np.random.Generator, drop_out: float, rates: np.ndarray) -> list[CellErrors]:
    """What a patient's cells show at germline sites, and the rates told from it."""
    samples = tuple(Sample("P", f"C{number}", "ctc") for number in range(len(rates)))
    seen = 1 - drop_out / (1 + drop_out)
    tables = [
        pd.DataFrame({
            "sample_id": sample.sample_id,
            "genotype": np.repeat(["0/1", "0/0"], _GERMLINE_SITES),
            "present": (random.random(2 * _GERMLINE_SITES) < np.repeat([seen, false], _GERMLINE_SITES)).astype(float),
        })
        for sample, false in zip(samples, rates, strict=True)
    ]  # fmt: skip
    found = cell_errors_of(samples, pd.DataFrame(), pd.concat(tables))
    return [found[sample.sample_id] for sample in samples]


def _curve(evidence: PairEvidence) -> np.ndarray:
    likelihoods = log_likelihood(evidence, SIGNALS)
    return likelihoods - likelihoods[0]


def _found(related: np.ndarray, unrelated: np.ndarray) -> np.ndarray:
    """Whether each related patient is above what 5 % of unrelated ones reach; ties count by their share."""
    cut = np.quantile(unrelated, 1 - _FALSE_RELATED, method="higher")
    return related > cut


if __name__ == "__main__":
    main()
