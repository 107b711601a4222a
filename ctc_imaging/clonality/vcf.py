"""Mutations from VCF or BCF, one file or a folder of several, read through htslib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ctc_imaging.clonality.genome import build_named, build_of_lengths, mutation_name
from ctc_imaging.clonality.read_parts import Facts, Part, call_frame, is_seen
from ctc_imaging.errors import ConfigError, TableError

if TYPE_CHECKING:
    import pysam

SUFFIXES = (".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")
_PLACEHOLDERS = ("*", "<NON_REF>", "<*>")
_PASSED = ("PASS", ".")


def is_vcf(path: Path) -> bool:
    """Say whether a file is a VCF or BCF, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_vcf(path: Path) -> Part:
    """Read a VCF or BCF of small variants.

    Parameters
    ----------
    path : Path
        Records that passed their filters are read; each sample's genotype (GT) and reads (AD) where they are given.
        Samples are named as in the header; one that the caller names as its normal (Mutect2) is germline.

    Returns
    -------
    Part
        Several tumour samples in one file were called together, so a site without genotype is unknown; with one, a
        site that isn't listed was not seen in it.

    Raises
    ------
    TableError
        The file is damaged or has no samples, a record has several alternative alleles, or two records are one.
    ConfigError
        The reader isn't installed.
    """
    with _opened(path) as file:
        names = list(file.header.samples)
        if not names:
            raise TableError(path, "there are no samples in it", "give a VCF with genotypes")
        rows, failed = _rows(file, names, path)
        build = _build(file, path)
        facts = {name: Facts(kind="germline") if name in _normals(file) else Facts() for name in names}
    if not rows:
        raise TableError(path, "there are no mutations in it that passed their filters", "check column FILTER")
    notes = (f"{path.name}: {failed} records that failed their filters are left out.",) if failed else ()
    calls = call_frame(rows)
    calls["present"] = calls["present"].fillna(is_seen(calls["ref_count"], calls["alt_count"]))
    alone = sum(fact.kind is None for fact in facts.values()) <= 1
    return Part(path, calls, facts, alone, build, notes)


@contextmanager
def _opened(path: Path) -> Iterator[pysam.VariantFile]:
    try:
        import pysam
    except ImportError as error:
        raise ConfigError(
            path, "reading VCF needs pysam", "install ctc-imaging[sequencing], or give a table"
        ) from error
    # Else htslib writes lines of its own to standard error.
    before = pysam.set_verbosity(0)
    try:
        with pysam.VariantFile(str(path)) as file:
            yield file
    except FileNotFoundError as error:
        raise TableError(path, "no such file", "check the path") from error
    except (OSError, ValueError) as error:
        raise TableError(path, f"can't be read as VCF ({error})", "check the file with bcftools view") from error
    finally:
        pysam.set_verbosity(before)


def _rows(file: pysam.VariantFile, names: list[str], path: Path) -> tuple[list[dict[str, Any]], int]:
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    failed = 0
    for record in file:
        alts = [alt for alt in record.alts or () if alt not in _PLACEHOLDERS]
        if any(name not in _PASSED for name in record.filter):
            failed += 1
            continue
        if not alts:
            continue
        where = f"{path}, {record.chrom}:{record.pos}"
        if len(alts) > 1:
            fault = f"several alternative alleles ({', '.join(alts)})"
            raise TableError(where, fault, "split them with bcftools norm --multiallelics -")
        mutation = mutation_name(record.chrom, record.pos, str(record.ref), alts[0])
        if mutation in seen:
            raise TableError(where, f"{mutation} is there twice", "keep one, for example with bcftools norm -d all")
        seen.add(mutation)
        number = (record.alts or ()).index(alts[0]) + 1
        rows += [{"sample_id": name, "mutation": mutation, **_call(record.samples[name], number)} for name in names]
    return rows, failed


def _call(sample: Any, number: int) -> dict[str, float]:
    """Read one sample's genotype and reads of allele `number`; NaN where they aren't given."""
    depths = sample.get("AD")
    reads = (np.nan, np.nan)
    if depths is not None and len(depths) > number and None not in (depths[0], depths[number]):
        reads = float(depths[0]), float(depths[number])
    alleles = [allele for allele in sample.get("GT", ()) if allele is not None]
    present = float(number in alleles) if alleles else np.nan
    # Callers that look at several samples at once write 0/1 for all of them: without a read it isn't seen.
    if reads[1] == 0:
        present = 0.0 if sum(reads) else np.nan
    return {"present": present, "ref_count": reads[0], "alt_count": reads[1]}


def _normals(file: pysam.VariantFile) -> set[str]:
    return {str(record.value) for record in file.header.records if record.key == "normal_sample"}


def _build(file: pysam.VariantFile, path: Path) -> str | None:
    """Tell the build by the lengths of the contigs, else by what the header says."""
    contigs = file.header.contigs
    lengths = {str(name): contig.length for name, contig in contigs.items() if contig.length}
    if found := build_of_lengths(lengths):
        return found
    for record in file.header.records:
        said = dict(record.items()).get("assembly") if record.key == "contig" else None
        if record.key == "reference":
            said = next((word for word in ("38", "37", "hg19") if word in str(record.value)), None)
        if said:
            return build_named(str(said).strip('"'), f"{path}, header")
    return None


def vcfs_in(folder: Path) -> list[Path]:
    """List the VCFs of a folder, in the order of their names.

    Raises
    ------
    TableError
        There are none.
    """
    found = sorted(path for path in folder.iterdir() if is_vcf(path))
    if not found:
        raise TableError(folder, "there are no VCFs in it", f"name them {', '.join(SUFFIXES)}")
    return found


def merge_parts(parts: list[Part], folder: Path) -> Part:
    """Put the samples of several VCFs together.

    Raises
    ------
    TableError
        A sample is in two of them.
    """
    facts: dict[str, Facts] = {}
    for part in parts:
        for name, fact in part.facts.items():
            if name in facts and fact.kind != "germline":
                raise TableError(part.path, f"sample {name} is in another file too", "give each sample in one file")
            facts[name] = fact
    calls = pd.concat([part.calls for part in parts]).drop_duplicates(["sample_id", "mutation"], ignore_index=True)
    notes = tuple(note for part in parts for note in part.notes)
    return Part(folder, calls, facts, all(part.lists_only_present for part in parts), None, notes)
