"""Are samples of the patient they are said to be? Alleles at germline sites, which drop-out can't add."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from ctc_imaging.clonality.genome import build_named, mutation_name, normal_name, one_build
from ctc_imaging.clonality.mutations import Sample
from ctc_imaging.clonality.plain_table import renamed
from ctc_imaging.errors import TableError
from ctc_imaging.tables import Row, read_table

COLUMNS = ("sample_id", "site", "ref_seen", "alt_seen", "ref_count", "alt_count")

_GENOTYPES = {"0/0": (1.0, 0.0), "0/1": (1.0, 1.0), "1/0": (1.0, 1.0), "1/1": (0.0, 1.0)}
_HET = "0/1"
_FEWEST_SITES = 8
_STRANGE = 0.05
"""Share of foreign alleles that errors of a single cell may reach."""

_STRANGE_IN_TISSUE = 0.2
"""The same where the patient's alleles are known from a tumour, which may have lost some."""

_CELLS, _ENOUGH_CELLS = 2, 4
_SURE = 1e-4
_LEAST_READS = 2


def read_germline(path: Path) -> tuple[pd.DataFrame, str | None]:
    """Read germline sites: common variants at which people differ, looked up in every sample.

    Parameters
    ----------
    path : Path
        One row a sample and site: `sample_id`, `site` (or `chromosome`, `position`, `ref`, `alt`), and `genotype`
        (0/0, 0/1, 1/1) or `ref_count` and `alt_count`, or both; optional `genome_build`.

    Returns
    -------
    sites : DataFrame
        `COLUMNS`: which alleles were seen (1, 0, missing), and reads.
    build : str or None

    Raises
    ------
    TableError
        A value has no meaning, or a site is there twice in a sample.
    """
    table = renamed(read_table(Path(path), ("sample_id",)))
    named = "site" in table.columns or {"chromosome", "position", "ref", "alt"} <= set(table.columns)
    if not named or not ({"genotype"} <= set(table.columns) or {"ref_count", "alt_count"} <= set(table.columns)):
        lacking = "genotype" if named else "site"
        raise TableError(path, f"there is no column {lacking}", "give sample_id, site, and genotype or reads")
    rows, builds = [], dict[str, str | None]()
    for row in table.rows:
        rows.append(_alleles(row))
        if build := row.text("genome_build"):
            builds[f"{path}, row {row.line}"] = build_named(build, f"{path}, row {row.line}, column genome_build")
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    again = frame.duplicated(["sample_id", "site"])
    if again.any():
        sample, site = frame.loc[again, ["sample_id", "site"]].iloc[0]
        raise TableError(path, f"site {site} stands twice in sample {sample}", "keep one row of the two")
    return frame, one_build(builds)


def _alleles(row: Row) -> dict[str, Any]:
    text = (row.text("genotype") or "").replace("|", "/")
    if text and text not in (*_GENOTYPES, "./."):
        raise row.error("genotype", f"{text!r} isn't a genotype", "write 0/0, 0/1 or 1/1, and nothing if not known")
    reads = [row.count(name) for name in ("ref_count", "alt_count")]
    by_reads = [np.nan if None in reads or sum(reads) == 0 else float(count >= _LEAST_READS) for count in reads]  # type: ignore[arg-type,operator]
    ref, alt = _GENOTYPES.get(text, tuple(by_reads))
    site = row.text("site")
    if site is None:
        place = [row.required(name) for name in ("chromosome", "position", "ref", "alt")]
        site = mutation_name(place[0], row.count("position") or 0, place[2], place[3])
    values = (row.required("sample_id"), normal_name(site), ref, alt, *(np.nan if n is None else n for n in reads))
    return dict(zip(COLUMNS, values, strict=True))


def germline_of(samples: Sequence[Sample], sites: pd.DataFrame) -> pd.DataFrame:
    """Tell each patient's genotypes: by its germline sample, else by tissue, else by four cells or more together.

    Parameters
    ----------
    samples : sequence of Sample
    sites : DataFrame
        As from `read_germline`.

    Returns
    -------
    DataFrame
        `patient_id`, `site`, `ref_seen`, `alt_seen` (1 or 0).
    """
    return _genotypes(samples, sites, left_out=None)


def check_identity(samples: Sequence[Sample], sites: pd.DataFrame, path: Path) -> tuple[str, ...]:
    """Check that every sample is of its patient.

    A single cell loses alleles but gains none: what tells is the share of sites at which a sample shows an allele
    that the patient (by its other samples) doesn't have. Within one person that is errors only; between two people
    about a third of common sites where the patient is homozygous.

    Parameters
    ----------
    samples : sequence of Sample
    sites : DataFrame
        As from `read_germline`.
    path : Path
        Named in errors.

    Returns
    -------
    tuple of str
        Notes on samples that can't be checked.

    Raises
    ------
    TableError
        A sample isn't of its patient, or isn't among the samples.
    """
    known = {sample.sample_id for sample in samples}
    for name in pd.unique(sites["sample_id"]):
        if name not in known:
            raise TableError(path, f"sample {name} isn't among the samples", "list it, or take its sites off")
    unchecked = []
    with_germline = {sample.patient_id for sample in samples if sample.kind == "germline"}
    for sample in samples:
        if sample.kind == "germline":
            continue  # The others are held against it: if it is another's, all of them are strange.
        strange = _STRANGE if sample.patient_id in with_germline else _STRANGE_IN_TISSUE
        found = _foreign(sample, sites, _genotypes(samples, sites, left_out=sample.sample_id))
        own = found.get(sample.patient_id, (0, 0))
        if own[1] < _FEWEST_SITES:
            unchecked.append(sample.sample_id)
        elif binom.sf(own[0] - 1, own[1], strange) < _SURE:
            fault = f"sample {sample.sample_id} isn't of patient {sample.patient_id}"
            seen = f"at {own[0]} of {own[1]} sites an allele the patient lacks"
            raise TableError(path, f"{fault} ({seen}{_fits(sample, found)})", "check tubes and names for a swap")
    if not unchecked:
        return ()
    return (f"Too few germline sites to tell whether they are of their patient: {', '.join(unchecked)}.",)


def germline_rows(samples: Sequence[Sample], sites: pd.DataFrame) -> pd.DataFrame:
    """Lay each sample's reads or calls beside its patient's heterozygous germline sites.

    Returns
    -------
    DataFrame
        `sample_id`, `site`, `genotype` (of the germline), `ref_count`, `alt_count`, `present`: whether the
        alternative allele was seen. The germline's alleles as in `germline_of`.
    """
    patients = {sample.sample_id: sample.patient_id for sample in samples}
    rows = sites.assign(patient_id=sites["sample_id"].map(patients))
    genotypes = germline_of(samples, sites).rename(columns={"ref_seen": "ref_has", "alt_seen": "alt_has"})
    rows = rows.merge(genotypes, on=["patient_id", "site"])
    names = {(1.0, 0.0): "0/0", (1.0, 1.0): _HET, (0.0, 1.0): "1/1"}
    rows["genotype"] = [names.get(pair, "") for pair in zip(rows["ref_has"], rows["alt_has"], strict=True)]
    rows["present"] = rows["alt_seen"]
    return rows.loc[rows["genotype"] != "", [*("sample_id", "site", "genotype", "ref_count", "alt_count", "present")]]


def _genotypes(samples: Sequence[Sample], sites: pd.DataFrame, left_out: str | None) -> pd.DataFrame:
    """Alleles of each patient by the best source that isn't left out: germline, tissue, or several cells together."""
    ranks = {"germline": 0, "primary": 1, "relapse": 1, "metastasis": 1}
    who = {s.sample_id: (s.patient_id, ranks.get(s.kind, _CELLS)) for s in samples if s.sample_id != left_out}
    rows = sites[sites["sample_id"].isin(who)].dropna(subset=["ref_seen", "alt_seen"])
    rows = rows.assign(
        patient_id=[who[name][0] for name in rows["sample_id"]], rank=[who[name][1] for name in rows["sample_id"]]
    )
    best = rows[rows["rank"] == rows.groupby("patient_id")["rank"].transform("min")]
    groups = best.groupby(["patient_id", "site"], sort=False)
    kept = groups[["ref_seen", "alt_seen"]].max()
    # What one cell lacks it may have lost; what several lack isn't there.
    sure = (groups["rank"].first() < _CELLS) | (groups.size() >= _ENOUGH_CELLS)
    return kept[sure].reset_index()


def _foreign(sample: Sample, sites: pd.DataFrame, genotypes: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Count foreign alleles, and the sites where one could show, by patient the sample might be of."""
    own = sites[sites["sample_id"] == sample.sample_id].dropna(subset=["ref_seen", "alt_seen"])
    both = genotypes.merge(own, on="site", suffixes=("_has", ""))
    homozygous = both[both["ref_seen_has"] + both["alt_seen_has"] == 1]
    shows = (homozygous["ref_seen"] > homozygous["ref_seen_has"]) | (
        homozygous["alt_seen"] > homozygous["alt_seen_has"]
    )
    counts = shows.groupby(homozygous["patient_id"]).agg(["sum", "count"])
    return {str(patient): (int(row["sum"]), int(row["count"])) for patient, row in counts.iterrows()}


def _fits(sample: Sample, found: dict[str, tuple[int, int]]) -> str:
    fits = [
        patient
        for patient, (foreign, count) in found.items()
        if patient != sample.patient_id and count >= _FEWEST_SITES and foreign <= _STRANGE * count
    ]
    return f"; it fits {fits[0]}" if len(fits) == 1 else ""
