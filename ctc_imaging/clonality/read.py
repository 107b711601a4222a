"""From files to a checked cohort of sequenced samples, whatever their format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ctc_imaging.clonality.genome import check_sites, normal_name, one_build, site_of
from ctc_imaging.clonality.maf import is_maf, read_maf
from ctc_imaging.clonality.mutations import Sample, check_calls, frequencies_of
from ctc_imaging.clonality.plain_table import read_plain, renamed
from ctc_imaging.clonality.read_parts import Facts, Part
from ctc_imaging.clonality.read_samples import join_facts, make_samples, read_samples
from ctc_imaging.clonality.vcf import is_vcf, merge_parts, read_vcf, vcfs_in
from ctc_imaging.errors import TableError
from ctc_imaging.tables import check_unique, read_table

Complete = Callable[[dict[str, Facts]], dict[str, Facts]]
"""Fills in, and checks, what is known of the samples."""


@dataclass(frozen=True)
class Sequenced:
    """The sequenced samples of a cohort, checked.

    Attributes
    ----------
    samples : tuple of Sample
    calls : DataFrame
        A row a sample and each mutation of its patient: `patient_id`, `sample_id`, `mutation`, `present`,
        `ref_count`, `alt_count`, `major_cn`, `minor_cn`, `normal_cn`, `purity`; floats, missing where not known.
    build : str or None
        Genome build, where a file names it.
    kinds_known : bool
        Whether every sample's kind was given.
    simulated : bool
        Whether the table of samples says that they were simulated.
    notes : tuple of str
        What was left out or taken for granted.
    genes : mapping of str to str
        Gene by mutation, as far as the file tells.
    """

    samples: tuple[Sample, ...]
    calls: pd.DataFrame
    build: str | None = None
    kinds_known: bool = True
    simulated: bool = False
    notes: tuple[str, ...] = ()
    genes: Mapping[str, str] = field(default_factory=dict)


def read_sequenced(
    mutations: Path,
    samples: Path | None = None,
    *,
    kinds_needed: bool = True,
    complete: Complete | None = None,
    without_mutations: Collection[str] = (),
) -> Sequenced:
    """Read the mutations of a cohort and what is known of its samples.

    Parameters
    ----------
    mutations : Path
        A MAF (also gzipped), a VCF or BCF, a folder of them, or a plain table.
    samples : Path, optional
        Table of samples; needed where the mutations don't tell patient and kind.
    kinds_needed : bool
        Whether a sample without a kind is an error; else it is taken as tissue of a tumour, with a note.
    complete : callable, optional
        Fills in and checks what is known of the samples, by a run for example.
    without_mutations : collection of str
        Samples that may have none, having copy numbers: then nothing is known of their mutations.

    Returns
    -------
    Sequenced

    Raises
    ------
    TableError
        A file can't be read or contradicts another; a site has several alternative alleles in one sample.
    """
    part = read_part(Path(mutations))
    listed = read_samples(Path(samples)) if samples else {}
    facts = join_facts(part.facts, listed, Path(samples) if samples else None)
    facts = complete(facts) if complete else facts
    made = make_samples(facts, Path(samples) if samples else part.path, kinds_needed=kinds_needed)
    check_sites(part.calls["mutation"].unique(), part.build, str(part.path))
    _check_twice(part)
    _check_alleles(part)
    check_calls(made, part.calls)
    unsequenced = set(without_mutations) - set(part.calls["sample_id"])
    notes = [*part.notes, *_about_samples(part, facts, unsequenced)]
    return Sequenced(
        made,
        _with_purity(_completed(part, made, unsequenced, notes), facts),
        part.build,
        all(known.kind is not None for known in facts.values()),
        any(known.simulated for known in facts.values()),
        tuple(notes),
        part.genes,
    )


def read_part(path: Path) -> Part:
    """Read one source of mutations by what it is: a folder of VCFs, a VCF, a MAF or a plain table.

    Raises
    ------
    TableError
        It can't be read.
    """
    if path.is_dir():
        parts = [read_vcf(file) for file in vcfs_in(path)]
        build = one_build({str(part.path): part.build for part in parts})
        return replace(merge_parts(parts, path), build=build)
    if not path.is_file():
        raise TableError(path, "no such file", "check the path")
    if is_vcf(path):
        return read_vcf(path)
    return read_maf(path) if path.suffix in (".maf", ".gz") or is_maf(path) else read_plain(path)


def read_frequencies(path: Path) -> pd.Series:
    """Read how common each mutation is among patients.

    Parameters
    ----------
    path : Path
        Columns `mutation` and `freq`: (carriers + 1) / (patients + 1).

    Returns
    -------
    Series of float
        By mutation.

    Raises
    ------
    TableError
        A mutation is there twice, or a frequency isn't between 0 and 1.
    """
    table = renamed(read_table(Path(path), ("mutation", "freq")))
    names = [normal_name(row.required("mutation")) for row in table.rows]
    check_unique(table, "mutation", names)
    values = []
    for row in table.rows:
        row.required("freq")
        value = row.number("freq") or 0.0
        if not 0 < value < 1:
            remedy = "give (carriers + 1) / (patients + 1), above 0 and below 1"
            raise row.error("freq", f"{value:g} isn't a frequency", remedy)
        values.append(value)
    frequencies = pd.Series(values, index=pd.Index(names, name="mutation"), name="freq", dtype=float)
    frequencies_of(frequencies.index, frequencies)
    return frequencies


def _check_twice(part: Part) -> None:
    again = part.calls.duplicated(["sample_id", "mutation"])
    if again.any():
        sample, mutation = part.calls.loc[again, ["sample_id", "mutation"]].iloc[0]
        raise TableError(part.path, f"{mutation} stands twice in sample {sample}", "keep one row of the two")


def _check_alleles(part: Part) -> None:
    """Refuse two mutations at one place in one sample: one of them is a split or a wrong allele."""
    seen = part.calls[part.calls["present"] == 1]
    places = seen["mutation"].map(site_of)
    known = seen[places.notna()].assign(place=places[places.notna()])
    again = known.duplicated(["sample_id", "place"]) & ~known.duplicated(["sample_id", "mutation"])
    if again.any():
        row = known[again].iloc[0]
        same = known[(known["sample_id"] == row["sample_id"]) & (known["place"] == row["place"])]
        fault = f"several alternative alleles in sample {row['sample_id']} ({', '.join(same['mutation'])})"
        raise TableError(part.path, fault, "keep the one that is meant")


def _about_samples(part: Part, facts: Mapping[str, Facts], unsequenced: Collection[str]) -> list[str]:
    notes = []
    unknown = [name for name, known in facts.items() if known.kind is None]
    if unknown:
        notes.append("Nothing says what the samples are: each is taken as tissue of a tumour, free of a cell's errors.")
    empty = [name for name in facts if name not in {*part.calls["sample_id"], *unsequenced}]
    if empty:
        if not part.lists_only_present:
            raise TableError(part.path, f"sample {empty[0]} isn't in it", "take it off the samples, or add its calls")
        notes.append(f"Without any mutation in {part.path.name}, taken as having none: {', '.join(empty)}.")
    return notes


def _completed(part: Part, samples: tuple[Sample, ...], unsequenced: Collection[str], notes: list[str]) -> pd.DataFrame:
    """Give every sample a row for each mutation of its patient."""
    patients = pd.Series({sample.sample_id: sample.patient_id for sample in samples}, name="patient_id")
    calls = part.calls.assign(patient_id=part.calls["sample_id"].map(patients))
    tables = []
    for patient, ids in patients.groupby(patients, sort=False).groups.items():
        own = calls[calls["patient_id"] == patient].set_index(["sample_id", "mutation"])
        every = pd.MultiIndex.from_product([list(ids), pd.unique(own.index.get_level_values("mutation"))])
        whole = own.reindex(every.set_names(["sample_id", "mutation"]))
        tables.append(whole.assign(patient_id=str(patient)).reset_index())
    table = pd.concat(tables, ignore_index=True)
    if part.lists_only_present:
        known = ~table["sample_id"].isin(unsequenced)
        table["present"] = table["present"].mask(known, table["present"].fillna(0.0))
    elif unseen := int(table["present"].isna().sum()):
        notes.append(f"Not known whether present, and counted neither way: {unseen} of {len(table)} calls.")
    return table[["patient_id", *part.calls.columns]]


def _with_purity(calls: pd.DataFrame, facts: Mapping[str, Facts]) -> pd.DataFrame:
    given = calls["sample_id"].map({name: known.purity for name, known in facts.items()}).astype(float)
    return calls.assign(purity=calls["purity"].fillna(given), normal_cn=calls["normal_cn"].replace(0, np.nan))
