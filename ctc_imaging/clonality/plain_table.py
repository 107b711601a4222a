"""Mutations from a plain table: CSV or TSV, one row a sample and mutation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ctc_imaging.clonality.genome import build_named, mutation_name, normal_name, one_build
from ctc_imaging.clonality.read_parts import (
    Facts,
    Part,
    call_frame,
    facts_of,
    is_seen,
    merge_facts,
    plain_name,
    share_of,
    truth_of,
)
from ctc_imaging.errors import TableError
from ctc_imaging.tables import Row, Table, read_table

_PLACE = ("chromosome", "position", "ref", "alt")


def read_plain(path: Path) -> Part:
    """Read a plain table of mutations.

    Parameters
    ----------
    path : Path
        Columns `sample_id` and `mutation`, or `chromosome`, `position`, `ref`, `alt` instead of the latter; optional
        `present`, `ref_count`, `alt_count`, `major_cn`, `minor_cn`, `normal_cn`, `purity`, `gene`, `genome_build`,
        and what a table of samples has. PyClone's names are known too. With `present` or reads, a mutation that
        isn't listed for a sample is unknown there; with neither, it is absent.

    Returns
    -------
    Part

    Raises
    ------
    TableError
        The table or a value has no meaning.
    """
    table = renamed(read_table(path, ()))
    _check_columns(table)
    facts: dict[str, Facts] = {}
    builds: dict[str, str | None] = {}
    genes: dict[str, str] = {}
    rows = []
    for row in table.rows:
        sample = row.required("sample_id")
        # Purity may differ between a sample's rows in tables of other programs: it stays with the row.
        facts[sample] = _merged(facts.get(sample), replace(facts_of(row), purity=None), sample, path)
        rows.append(_call(row, sample))
        if gene := row.text("gene"):
            genes[rows[-1]["mutation"]] = gene
        if build := row.text("genome_build"):
            builds[f"{path}, row {row.line}"] = build_named(build, f"{path}, row {row.line}, column genome_build")
    listed = not {"present", "ref_count"} & set(table.columns)
    calls = call_frame(rows)
    seen = is_seen(calls["ref_count"], calls["alt_count"])
    calls["present"] = 1.0 if listed else calls["present"].fillna(seen)
    return Part(path, calls, facts, lists_only_present=listed, build=one_build(builds), genes=genes)


def renamed(table: Table) -> Table:
    """Give the columns of a table this package's names.

    Raises
    ------
    TableError
        Two columns get one name.
    """
    names = {name: plain_name(name) for name in table.columns}
    for name in names.values():
        if list(names.values()).count(name) > 1:
            raise TableError(f"{table.path}, column {name}", "the column is there twice", "keep one of them")
    rows = (replace(row, values={names.get(key, key): text for key, text in row.values.items()}) for row in table.rows)
    return Table(table.path, tuple(names.values()), tuple(rows))


def _merged(known: Facts | None, new: Facts, sample: str, path: Path) -> Facts:
    return new if known is None else merge_facts(sample, known, new, path)


def _check_columns(table: Table) -> None:
    columns = set(table.columns)
    if "sample_id" not in columns:
        remedy = "give sample_id and mutation; a MAF has Tumor_Sample_Barcode, Chromosome and Start_Position"
        raise TableError(table.path, "there is no column sample_id", remedy)
    if "mutation" not in columns and not set(_PLACE) <= columns:
        raise TableError(table.path, "there is no column mutation", f"give it, or {', '.join(_PLACE)}")
    if ("ref_count" in columns) != ("alt_count" in columns):
        raise TableError(table.path, "only one of ref_count and alt_count is there", "give both, or neither")
    if not table.rows:
        raise TableError(table.path, "there are no mutations", "give a row a sample and mutation")


def _call(row: Row, sample: str) -> dict[str, Any]:
    return {
        "sample_id": sample,
        "mutation": _mutation(row),
        "present": truth_of(row, "present"),
        "ref_count": row.count("ref_count"),
        "alt_count": row.count("alt_count"),
        "major_cn": row.count("major_cn"),
        "minor_cn": row.count("minor_cn"),
        "normal_cn": row.count("normal_cn"),
        "purity": share_of(row, "purity"),
    }


def _mutation(row: Row) -> str:
    if name := row.text("mutation"):
        return normal_name(name)
    for column in _PLACE:
        row.required(column)
    position = row.count("position")
    return mutation_name(row.required("chromosome"), int(position or 0), row.required("ref"), row.required("alt"))
