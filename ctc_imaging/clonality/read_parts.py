"""What a file of mutations gives, whatever its format: rows of calls, what it tells of samples, its genome build."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy.stats import binom

from ctc_imaging.clonality.mutations import KINDS
from ctc_imaging.errors import TableError

if TYPE_CHECKING:
    from pathlib import Path

    from ctc_imaging.tables import Row

CALL_TEXT = ("sample_id", "mutation")
CALL_NUMBERS = ("present", "ref_count", "alt_count", "major_cn", "minor_cn", "normal_cn", "purity")
COLUMNS = (*CALL_TEXT, *CALL_NUMBERS)

_ALIASES = {
    "mutation_id": "mutation",
    "ref_counts": "ref_count",
    "alt_counts": "alt_count",
    "tumour_content": "purity",
    "tumor_content": "purity",
    "chrom": "chromosome",
    "pos": "position",
    "patient": "patient_id",
    "sample": "sample_id",
    "hugo_symbol": "gene",
    "build": "genome_build",
    "ncbi_build": "genome_build",
}
_YES, _NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")

# A mutation is called from reads when so many can hardly be errors of the sequencer.
_LEAST_READS, _READ_ERROR, _CHANCE_OF_ERROR = 2, 0.005, 0.001


@dataclass(frozen=True)
class Facts:
    """What is known of one sample; None where the source doesn't say."""

    patient_id: str | None = None
    kind: str | None = None
    day: float | None = None
    sample_date: str | None = None
    slide_id: str | None = None
    cell_id: str | None = None
    cells: int | None = None
    purity: float | None = None
    simulated: bool = False


@dataclass(frozen=True)
class Part:
    """One file of mutations, read.

    Attributes
    ----------
    path : Path
    calls : DataFrame
        A row a sample and mutation: `COLUMNS`, missing numbers NaN.
    facts : dict of str to Facts
        By sample, as far as the file tells.
    lists_only_present : bool
        Whether a mutation that isn't listed for a sample was not seen in it; else it is unknown.
    build : str or None
        Genome build, where the file names it.
    notes : tuple of str
    genes : dict of str to str
        Gene by mutation, as far as the file tells.
    """

    path: Path
    calls: pd.DataFrame
    facts: dict[str, Facts]
    lists_only_present: bool
    build: str | None = None
    notes: tuple[str, ...] = field(default=())
    genes: dict[str, str] = field(default_factory=dict)


def plain_name(column: str) -> str:
    """Return a column's name in this package's words, for the names other programs give it."""
    name = re.sub(r"[ .-]+", "_", column.strip()).lower()
    return _ALIASES.get(name, name)


def call_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Make the table of calls, its numbers as floats."""
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({**dict.fromkeys(CALL_TEXT, str), **dict.fromkeys(CALL_NUMBERS, float)})


def is_seen(ref_count: pd.Series, alt_count: pd.Series) -> pd.Series:
    """Say of each row whether its reads show the mutation: 1, 0, or missing without reads.

    Two reads at least, and as many as errors of the sequencer (0.5 %) give with a chance below 0.001.
    """
    depth = ref_count + alt_count
    by_error = binom.sf(alt_count - 1, depth, _READ_ERROR)
    seen = (alt_count >= _LEAST_READS) & (by_error < _CHANCE_OF_ERROR)
    return seen.astype(float).where(depth > 0)


def truth_of(row: Row, column: str) -> float | None:
    """Return 1 for yes, 0 for no, None where the field is missing.

    Raises
    ------
    TableError
        The field says something else.
    """
    value = row.text(column)
    if value is None:
        return None
    if value.lower() in (*_YES, *_NO):
        return float(value.lower() in _YES)
    raise row.error(column, f"{value!r} is neither yes nor no", "write 1 or 0, and nothing where it isn't known")


def share_of(row: Row, column: str) -> float | None:
    """Return a number above 0 and up to 1, or None where the field is missing.

    Raises
    ------
    TableError
        It is another number.
    """
    value = row.number(column)
    if value is not None and not 0 < value <= 1:
        raise row.error(column, f"{value:g} isn't a share", "write it above 0 and up to 1")
    return value


def facts_of(row: Row) -> Facts:
    """Read what a row says of its sample.

    Raises
    ------
    TableError
        A field has no meaning.
    """
    kind = row.choice("kind", KINDS)
    cells = row.count("cells")
    if cells == 0:
        raise row.error("cells", "a sample of no cells has no meaning", "write how many there are, or nothing")
    if kind == "ctc" and (cells or 1) > 1:
        raise row.error("cells", "a ctc is one cell", "give ctc_pool or ctc_cluster for more")
    day = row.iso_date("sample_date")
    return Facts(
        patient_id=row.text("patient_id"),
        kind=kind,
        day=row.number("day"),
        sample_date=day.isoformat() if day else None,
        slide_id=row.text("slide_id"),
        cell_id=row.text("cell_id"),
        cells=cells,
        purity=share_of(row, "purity"),
        simulated=bool(truth_of(row, "simulated")),
    )


def merge_facts(sample: str, known: Facts, new: Facts, where: str | Path) -> Facts:
    """Put together what two sources say of a sample.

    Raises
    ------
    TableError
        They contradict each other.
    """
    values = {}
    for name, value in vars(new).items():
        before = getattr(known, name)
        if name == "simulated":
            values[name] = value or before
        elif value is not None and before is not None and value != before:
            raise TableError(where, f"sample {sample} has two values of {name}, {before} and {value}", "keep one")
        else:
            values[name] = before if value is None else value
    return Facts(**values)
