"""Sequenced samples of simulated patients who relapse: tumour, picked CTCs, relapse, and which clones they truly have.

The tree, the rates and the frequencies are invented: they exercise the analysis and say nothing of real tumours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ctc_imaging.files import write_csv

BUILD = "GRCh38"
PATIENTS = 12
SCENARIOS = ("shared_subclone", "shared_subclone", "common_origin", "shared_subclone", "unrelated")
"""What CTCs and relapse truly share, patient after patient; `unrelated` is a new primary."""

TRUNK, A, A1, B, RELAPSE, NEW = "trunk", "A", "A1", "B", "relapse", "new"
SIZES = {TRUNK: 12, A: 7, A1: 4, B: 7, RELAPSE: 6, NEW: 20}
"""Mutations of each clone."""

DEPTH, CELL_DEPTH, PURITY = 100.0, 30.0, 0.6
DROP_OUT, FALSE_CALLS, UNCOVERED = 0.2, 0.002, 0.05
GERMLINE_SITES = 80
RARE, HOTSPOT = 1 / 501, {"5 1295113 G A": 0.45, "3 41224646 T C": 0.04, "17 7674216 C A": 0.04}
GENES = {"5 1295113 G A": "TERT", "3 41224646 T C": "CTNNB1", "17 7674216 C A": "TP53"}
_MOST_CTCS, _CTCS_A_VISIT = 8, 3
_CLONAL_HAEMATOPOIESIS = 0.12
_ALIGNED_BP = 240_000_000


@dataclass(frozen=True)
class _Sequenced:
    """One sample: what it is, the fraction of its cancer cells in each clone, whether it is one cell."""

    sample_id: str
    kind: str
    day: float
    fractions: dict[str, float]
    slide_id: str = ""
    blood: float = 0.0

    @property
    def is_cell(self) -> bool:
        return self.kind in ("ctc", "leukocyte")


@dataclass(frozen=True)
class SequencingTables:
    """What `simulate_sequencing` makes: the files' tables by name; those of the truth under ``truth/``."""

    tables: dict[str, pd.DataFrame]

    def write(self, out: Path) -> None:
        """Write each table as CSV under a folder."""
        for name, table in self.tables.items():
            write_csv(out / f"{name}.csv", table)


def simulate_sequencing(slides: pd.DataFrame, relapsed: pd.DataFrame, rng: np.random.Generator) -> SequencingTables:
    """Simulate the sequencing of some patients who relapse.

    Parameters
    ----------
    slides : DataFrame
        One row a slide of a patient, the first scan of each: `slide_id`, `patient_id`, `day`, `ctc`.
    relapsed : DataFrame
        `patient_id` and `recurrence_day` of all who relapse. Of those with a CTC the first 12 are sequenced.
    rng : numpy.random.Generator

    Returns
    -------
    SequencingTables
        `mutations`, `frequencies`, `samples`, `germline`, `truth/clonality` (scenario and clones of each sample) and
        `truth/clonality_pairs` (what each pair truly shares).
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    names: list[str] = []
    allele = rng.uniform(0.25, 0.5, GERMLINE_SITES)
    sites = _places(GERMLINE_SITES, rng)
    patients = relapsed[relapsed["patient_id"].isin(slides.loc[slides["ctc"] > 0, "patient_id"])].head(PATIENTS)
    days = zip(patients["patient_id"].astype(str), patients["recurrence_day"].astype(float), strict=True)
    for number, (patient, relapse_day) in enumerate(days):
        scenario = SCENARIOS[number % len(SCENARIOS)]
        own = slides[(slides["patient_id"] == patient) & (slides["ctc"] > 0)].sort_values("day")
        samples = list(_samples(patient, own, relapse_day, scenario))
        clones = _clones(rng)
        names += [name for each in clones.values() for name in each]
        tables = {
            "mutations": _mutations(samples, clones, rng),
            "samples": _sample_rows(patient, samples),
            "germline": _germline(samples, sites, allele, rng),
            "truth/clonality": _truth(patient, scenario, samples),
            "truth/clonality_pairs": _pairs(patient, samples),
        }
        for name, table in tables.items():
            parts.setdefault(name, []).append(table)
    made = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    return SequencingTables({**(made or _nothing()), "frequencies": _frequencies(names)})


def _samples(patient: str, slides: pd.DataFrame, relapse_day: float, scenario: str) -> Iterator[_Sequenced]:
    yield _Sequenced(f"{patient}-germline", "germline", 0.0, {}, blood=1.0)
    for region, (a, b) in enumerate(((0.55, 0.35), (0.25, 0.65)), start=1):
        fractions = {TRUNK: 1.0, A: a, A1: 0.3 * a, B: b}
        yield _Sequenced(f"{patient}-primary{region}", "primary", 0.0, fractions, blood=0.4)
    first = slides.iloc[0]
    yield _Sequenced(f"{patient}-wbc1", "leukocyte", float(first["day"]), {}, str(first["slide_id"]), blood=1.0)
    seeds = B if scenario == "common_origin" else A
    number = 0
    for slide, day, ctc in zip(slides["slide_id"], slides["day"].astype(float), slides["ctc"].astype(int), strict=True):
        for _ in range(min(ctc, _CTCS_A_VISIT, _MOST_CTCS - number)):
            number += 1
            clones = {TRUNK: 1.0, B if seeds == A and day < 0 and number % 2 else seeds: 1.0}
            if A in clones and day > 0:
                clones[A1] = 1.0
            yield _Sequenced(f"{patient}-ctc{number}", "ctc", day, clones, str(slide))
    new = {NEW: 1.0} if scenario == "unrelated" else {TRUNK: 1.0, A: 1.0, A1: 1.0, RELAPSE: 1.0}
    yield _Sequenced(f"{patient}-relapse", "relapse", relapse_day, new, blood=0.4)


def _clones(rng: np.random.Generator) -> dict[str, list[str]]:
    """Draw the mutations of each clone, and one of the blood (clonal haematopoiesis); a hotspot may arise twice."""
    places = iter(_places(sum(SIZES.values()) + 1, rng))
    clones = {name: [next(places) for _ in range(size)] for name, size in SIZES.items()}
    hotspots = list(HOTSPOT)
    clones[TRUNK][0] = hotspots[0]
    clones[TRUNK][1] = hotspots[1 + int(rng.integers(2))]
    if rng.random() < HOTSPOT[hotspots[0]]:
        clones[NEW][0] = hotspots[0]
    clones["blood"] = [next(places)]
    return clones


def _places(count: int, rng: np.random.Generator) -> list[str]:
    # Within the shortest of the chromosomes used, so that every place is on its chromosome.
    chromosomes, positions = rng.integers(1, 3, count), rng.choice(_ALIGNED_BP // 1000, count, replace=False)
    bases = "ACGT"
    pairs = rng.integers(0, 4, count), rng.integers(1, 4, count)
    return [
        f"{chromosome} {1000 * place + 1} {bases[ref]} {bases[(ref + step) % 4]}"
        for chromosome, place, ref, step in zip(chromosomes, positions, *pairs, strict=True)
    ]


def _mutations(samples: list[_Sequenced], clones: dict[str, list[str]], rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for sample in samples:
        carried: dict[str, float] = {}
        for clone, mutations in clones.items():
            fraction = _CLONAL_HAEMATOPOIESIS if clone == "blood" else sample.fractions.get(clone, 0.0)
            for mutation in mutations:
                carried[mutation] = max(carried.get(mutation, 0.0), fraction)
        for mutation, fraction in carried.items():
            in_blood = mutation in clones["blood"]
            ref, alt = _reads(sample, fraction, in_blood, rng)
            rows.append((sample.sample_id, mutation, ref, alt))
    table = pd.DataFrame(rows, columns=["sample_id", "mutation", "ref_count", "alt_count"])
    return table.assign(gene=table["mutation"].map(GENES).fillna(""), genome_build=BUILD)


def _reads(sample: _Sequenced, fraction: float, in_blood: bool, rng: np.random.Generator) -> tuple[int, int]:
    if sample.is_cell:
        has = sample.kind == "leukocyte" if in_blood else fraction > 0
        return _cell_reads(1 if has else 0, rng)
    mutated = fraction * sample.blood if in_blood else fraction * PURITY * (sample.kind != "germline")
    depth = int(rng.poisson(DEPTH))
    alt = int(rng.binomial(depth, np.clip(mutated / 2, 0.0005, 1.0)))
    return depth - alt, alt


def _cell_reads(copies: int, rng: np.random.Generator, of: int = 2) -> tuple[int, int]:
    """Reads of a cell with `copies` mutated alleles of two: either may drop out, amplification favours one."""
    depth = 0 if rng.random() < UNCOVERED else int(rng.poisson(CELL_DEPTH))
    kept = rng.random(of) >= DROP_OUT
    alt_kept, ref_kept = int(kept[:copies].sum()), int(kept[copies:].sum())
    if alt_kept + ref_kept == 0:
        return 0, 0
    share = 0.0 if alt_kept == 0 else 1.0 if ref_kept == 0 else float(rng.beta(2, 2))
    if alt_kept == 0 and rng.random() < FALSE_CALLS:
        share = float(rng.beta(2, 2))
    alt = int(rng.binomial(depth, share))
    return depth - alt, alt


def _germline(
    samples: list[_Sequenced], sites: list[str], allele: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    copies = rng.binomial(2, allele)
    rows = []
    for sample in samples:
        for site, count in zip(sites, copies, strict=True):
            if sample.is_cell:
                ref, alt = _cell_reads(int(count), rng)
            else:
                depth = int(rng.poisson(DEPTH))
                alt = int(rng.binomial(depth, count / 2))
                ref = depth - alt
            rows.append((sample.sample_id, site, ref, alt))
    return pd.DataFrame(rows, columns=["sample_id", "site", "ref_count", "alt_count"]).assign(genome_build=BUILD)


def _sample_rows(patient: str, samples: list[_Sequenced]) -> pd.DataFrame:
    rows = [
        {
            "sample_id": sample.sample_id,
            "patient_id": patient,
            "kind": sample.kind,
            "day": int(sample.day),
            "slide_id": sample.slide_id,
            "cells": 1 if sample.is_cell else "",
            "purity": PURITY if sample.kind in ("primary", "relapse") else "",
            "simulated": 1,
        }
        for sample in samples
    ]
    return pd.DataFrame(rows)


def _truth(patient: str, scenario: str, samples: list[_Sequenced]) -> pd.DataFrame:
    rows = [(patient, scenario, sample.sample_id, " ".join(sample.fractions)) for sample in samples]
    return pd.DataFrame(rows, columns=["patient_id", "scenario", "sample_id", "clones"])


def _pairs(patient: str, samples: list[_Sequenced]) -> pd.DataFrame:
    rows = []
    for a, b in combinations([sample for sample in samples if sample.fractions], 2):
        both = set(a.fractions) & set(b.fractions)
        verdict = "unrelated" if not both else "common_origin" if both == {TRUNK} else "shared_subclone"
        rows.append((patient, a.sample_id, b.sample_id, verdict))
    return pd.DataFrame(rows, columns=["patient_id", "sample_a", "sample_b", "verdict"])


def _frequencies(mutations: list[str]) -> pd.DataFrame:
    names = [*HOTSPOT, *(name for name in dict.fromkeys(mutations) if name not in HOTSPOT)]
    return pd.DataFrame({"mutation": names, "freq": [HOTSPOT.get(name, RARE) for name in names]})


def _nothing() -> dict[str, pd.DataFrame]:
    """Tables of a cohort in which nobody relapsed, with their headers."""
    columns = {
        "mutations": ["sample_id", "mutation", "ref_count", "alt_count", "gene", "genome_build"],
        "samples": ["sample_id", "patient_id", "kind", "day", "slide_id", "cells", "purity", "simulated"],
        "germline": ["sample_id", "site", "ref_count", "alt_count", "genome_build"],
        "truth/clonality": ["patient_id", "scenario", "sample_id", "clones"],
        "truth/clonality_pairs": ["patient_id", "sample_a", "sample_b", "verdict"],
    }
    return {name: pd.DataFrame(columns=names) for name, names in columns.items()}
