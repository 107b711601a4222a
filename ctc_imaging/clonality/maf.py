"""Mutations from a MAF, the table of the Genomic Data Commons, plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from ctc_imaging.clonality.genome import build_named, mutation_name
from ctc_imaging.clonality.read_parts import COLUMNS, Facts, Part
from ctc_imaging.errors import TableError

REQUIRED = ("Chromosome", "Start_Position", "Reference_Allele", "Tumor_Seq_Allele2", "Tumor_Sample_Barcode")
_PATIENT = ("PatientID", "patient_id", "Patient_ID", "case_submitter_id", "Case_ID")
_READS = {"ref_count": "t_ref_count", "alt_count": "t_alt_count"}
_GERMLINE = ("Germline", "LOH", "None", "Wildtype")


def is_maf(path: Path) -> bool:
    """Say whether a file's header is that of a MAF."""
    try:
        return set(REQUIRED) <= set(_header(_text(path)))
    except TableError:
        return False


def read_maf(path: Path) -> Part:
    """Read a MAF.

    Parameters
    ----------
    path : Path
        Tab, comma or semicolon between columns; lines that begin with ``#`` are left out. Read are `Chromosome`,
        `Start_Position`, `Reference_Allele`, `Tumor_Seq_Allele2`, `Tumor_Sample_Barcode`, and where they are there
        `t_ref_count`, `t_alt_count`, `Hugo_Symbol`, `NCBI_Build`, `Mutation_Status` and the patient (`PatientID`, ...).

    Returns
    -------
    Part
        Samples by their barcode. A mutation that isn't listed for a sample was not seen in it.

    Raises
    ------
    TableError
        The file can't be read, a column is missing, or a row has no meaning.
    """
    table = _read(path)
    table, notes = _without_germline(table, path)
    calls = pd.DataFrame(dict.fromkeys(COLUMNS, np.nan), index=table.index)
    calls["sample_id"] = table["Tumor_Sample_Barcode"]
    calls["mutation"] = _mutations(table, path)
    calls["present"] = 1.0
    for name, column in _READS.items():
        if set(_READS.values()) <= set(table):
            calls[name] = _counts(table, column, path)
    genes = dict(zip(calls["mutation"], table["Hugo_Symbol"], strict=True)) if "Hugo_Symbol" in table else {}
    return Part(path, calls, _facts(table, path), True, _build(table, path), notes, genes)


def _read(path: Path) -> pd.DataFrame:
    text = _text(path)
    header = _header(text)
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise TableError(path, f"there is no column {missing[0]}", f"a MAF has {', '.join(REQUIRED)}")
    known = {*REQUIRED, *_READS.values(), *_PATIENT, "Hugo_Symbol", "NCBI_Build", "Mutation_Status"}
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep=_separator(text),
            dtype=str,
            usecols=lambda name: name in known,
            keep_default_na=False,
        )
    except (pd.errors.ParserError, ValueError) as error:
        raise TableError(path, f"not a table ({error})", "check its columns") from error
    for column in REQUIRED:
        empty = np.flatnonzero(table[column].str.strip() == "")
        if len(empty):
            raise TableError(_place(path, empty[0], column), "the value is missing", "fill it in")
    if table.empty:
        raise TableError(path, "there are no mutations", "give a row a sample and mutation")
    return table.apply(lambda column: column.str.strip())


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        text = raw.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise TableError(path, "no such file", "check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(path, f"can't be read ({error})", "check the file, or fetch it again") from error
    except UnicodeDecodeError as error:
        raise TableError(path, "not UTF-8 text", "save it as text") from error
    lines = text.splitlines(keepends=True)
    start = next((number for number, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    return "".join(lines[start:])


def _separator(text: str) -> str:
    first = text.split("\n", 1)[0]
    return max("\t,;", key=first.count)


def _header(text: str) -> list[str]:
    return next(csv.reader(io.StringIO(text), delimiter=_separator(text)), [])


def _place(path: Path, row: int, column: str) -> str:
    return f"{path}, mutation {row + 1}, column {column}"


def _without_germline(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    if "Mutation_Status" not in table:
        return table, ()
    germline = table["Mutation_Status"].isin(_GERMLINE)
    if not germline.any():
        return table, ()
    left_out = f"{path.name}: {int(germline.sum())} rows that aren't somatic (Mutation_Status) are left out."
    return table[~germline].reset_index(drop=True), (left_out,)


def _mutations(table: pd.DataFrame, path: Path) -> list[str]:
    positions = pd.to_numeric(table["Start_Position"], errors="coerce")
    wrong = np.flatnonzero(~((positions > 0) & (positions % 1 == 0)))
    if len(wrong):
        fault = f"{table['Start_Position'].iloc[wrong[0]]!r} isn't a position"
        raise TableError(_place(path, wrong[0], "Start_Position"), fault, "write a whole number from 1 on")
    places = zip(
        table["Chromosome"], positions.astype(int), table["Reference_Allele"], table["Tumor_Seq_Allele2"], strict=True
    )
    return [mutation_name(*place) for place in places]


def _counts(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    counts = pd.to_numeric(table[column].replace({".": "", "NA": ""}), errors="coerce")
    empty = table[column].isin(("", ".", "NA"))
    wrong = np.flatnonzero(~empty & ~((counts >= 0) & (counts % 1 == 0)))
    if len(wrong):
        fault = f"{table[column].iloc[wrong[0]]!r} isn't a count of reads"
        raise TableError(_place(path, wrong[0], column), fault, "write a whole number from 0 on, or nothing")
    return counts


def _facts(table: pd.DataFrame, path: Path) -> dict[str, Facts]:
    column = next((name for name in _PATIENT if name in table), None)
    if column is None:
        return {sample: Facts() for sample in pd.unique(table["Tumor_Sample_Barcode"])}
    pairs = table[["Tumor_Sample_Barcode", column]].drop_duplicates()
    twice = pairs["Tumor_Sample_Barcode"].duplicated()
    if twice.any():
        sample = pairs.loc[twice, "Tumor_Sample_Barcode"].iloc[0]
        raise TableError(path, f"sample {sample} is of two patients", "give each sample its own barcode")
    return {sample: Facts(patient_id=patient or None) for sample, patient in pairs.itertuples(index=False)}


def _build(table: pd.DataFrame, path: Path) -> str | None:
    if "NCBI_Build" not in table:
        return None
    named = [name for name in pd.unique(table["NCBI_Build"]) if name]
    builds = {build_named(name, f"{path}, column NCBI_Build") for name in named}
    if len(builds) > 1:
        remedy = "lift one over, so that all rows are on one build"
        raise TableError(f"{path}, column NCBI_Build", f"rows are on {' and '.join(sorted(builds))}", remedy)
    return next(iter(builds), None)
