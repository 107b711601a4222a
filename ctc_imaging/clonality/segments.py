"""Copy-number segments: copies at each mutation's place, and breakpoints that two samples share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.clonality.genome import GRCH38, LENGTHS_BP, build_named, chromosome_named, one_build, site_of
from ctc_imaging.clonality.mutations import Sample
from ctc_imaging.clonality.plain_table import renamed
from ctc_imaging.errors import TableError
from ctc_imaging.tables import Row, read_table

_ALIASES = {
    "id": "sample_id",
    "loc_start": "start",
    "loc_end": "end",
    "seg_mean": "log2_ratio",
    "mean": "log2_ratio",
    "major": "major_cn",
    "minor": "minor_cn",
    "nmajor": "major_cn",
    "nminor": "minor_cn",
    "num_mark": "probes",
}
_PLOIDY = 2.0

_TOLERANCE_BP = 1_000_000
"""How far apart two samples' breakpoints may be and still be one: a few bins of low-pass sequencing."""

_LEAST_CHANGE = 0.2
"""Least step of the log2 ratio (or 0.5 copies) that is a breakpoint."""

_SHIFTS = 9_999


@dataclass(frozen=True)
class Segments:
    """Segments of samples: `sample_id`, `chromosome`, `start`, `end`, `level`, `major_cn`, `minor_cn`; and the build.

    `level` is the log2 ratio, by the copies where only those are given.
    """

    table: pd.DataFrame
    build: str | None = None


def read_segments(path: Path) -> Segments:
    """Read a table of copy-number segments, such as a SEG file.

    Parameters
    ----------
    path : Path
        One row a segment: sample (`ID`), `chrom`, `loc.start`, `loc.end`, and `seg.mean` (log2 ratio), or `major_cn`
        and `minor_cn`, or all of these; optional `genome_build`.

    Returns
    -------
    Segments

    Raises
    ------
    TableError
        A column or value is missing, or segments of a sample overlap.
    """
    table = renamed(read_table(Path(path), ()))
    columns = {_ALIASES.get(name, name) for name in table.columns}
    missing = [name for name in ("sample_id", "chromosome", "start", "end") if name not in columns]
    if missing or not ({"log2_ratio"} <= columns or {"major_cn", "minor_cn"} <= columns):
        lacking = missing[0] if missing else "log2_ratio (seg.mean)"
        raise TableError(path, f"there is no column {lacking}", "give ID, chrom, loc.start, loc.end, seg.mean")
    rows, builds = [], dict[str, str | None]()
    for row in table.rows:
        own = replace(row, values={_ALIASES.get(key, key): text for key, text in row.values.items()})
        rows.append(_segment(own))
        if build := own.text("genome_build"):
            builds[f"{path}, row {row.line}"] = build_named(build, f"{path}, row {row.line}, column genome_build")
    frame = pd.DataFrame(rows).sort_values(["sample_id", "chromosome", "start"], kind="stable", ignore_index=True)
    before = frame.groupby(["sample_id", "chromosome"])["end"].shift()
    if (overlapping := frame["start"] < before).any():
        sample, chromosome, start = frame.loc[overlapping, ["sample_id", "chromosome", "start"]].iloc[0]
        fault = f"segments of sample {sample} overlap at {chromosome}:{start}"
        raise TableError(path, fault, "give each place one segment")
    return Segments(frame, one_build(builds))


def _segment(row: Row) -> dict[str, Any]:
    for column in ("start", "end"):
        row.required(column)
    start, end = row.count("start") or 0, row.count("end") or 0
    if end <= start:
        raise row.error("end", f"a segment that ends at {end} doesn't reach from {start} on", "check start and end")
    major, minor, ratio = row.count("major_cn"), row.count("minor_cn"), row.number("log2_ratio")
    if ratio is None:
        copies = row.required("major_cn") and float((major or 0) + (minor or 0))
        ratio = float(np.log2(max(float(copies), 0.1) / _PLOIDY))
    return {
        "sample_id": row.required("sample_id"),
        "chromosome": chromosome_named(row.required("chromosome")),
        "start": start,
        "end": end,
        "level": ratio,
        "major_cn": np.nan if major is None else float(major),
        "minor_cn": np.nan if minor is None else float(minor),
    }


def with_copies(calls: pd.DataFrame, segments: Segments) -> pd.DataFrame:
    """Fill in major and minor copies at each call's place from the sample's segments.

    Parameters
    ----------
    calls : DataFrame
        With `sample_id`, `mutation`, `major_cn`, `minor_cn`; what is given there stays.
    segments : Segments

    Returns
    -------
    DataFrame
    """
    known = segments.table.dropna(subset=["major_cn", "minor_cn"])
    calls = calls.copy()
    sites = calls["mutation"].map(site_of)
    for (sample, chromosome), rows in known.groupby(["sample_id", "chromosome"]):
        here = (calls["sample_id"] == sample) & sites.map(lambda site, c=chromosome: bool(site) and site[0] == c)
        at = np.array([site.position for site in sites[here]])
        which = np.searchsorted(rows["start"].to_numpy(), at, side="right") - 1
        inside = (which >= 0) & (at <= rows["end"].to_numpy()[which])
        for column in ("major_cn", "minor_cn"):
            found = np.where(inside, rows[column].to_numpy()[which], np.nan)
            calls.loc[here, column] = calls.loc[here, column].fillna(pd.Series(found, index=calls.index[here]))
    return calls


def breakpoint_relatedness(samples: Sequence[Sample], segments: Segments, *, seed: int = 0) -> pd.DataFrame:
    """Hold the breakpoints of every pair of a patient's tumour samples against chance.

    An approximation for samples that have copy numbers and nothing else: breakpoints in the same direction (up or down
    along the chromosome) at most 1 Mb apart count as shared. The chance of as many is counted over rotations of one
    sample's breakpoints within each chromosome, which keep how many there are on it and how they are spaced. It knows
    nothing of places where many tumours break, and takes the segments to be called rightly.

    Parameters
    ----------
    samples : sequence of Sample
    segments : Segments
        Without a build, chromosomes are as long as in GRCh38.
    seed : int

    Returns
    -------
    DataFrame
        A row a pair with breakpoints in both: `patient_id`, `sample_a`, `sample_b`, `shared_breakpoints`,
        `breakpoints_a`, `breakpoints_b`, `p_value` (never below 1 / 10,000).
    """
    lengths = LENGTHS_BP[segments.build or GRCH38]
    points = {str(sample): _breakpoints(rows) for sample, rows in segments.table.groupby("sample_id")}
    tumour = [sample for sample in samples if sample.is_tumour and len(points.get(sample.sample_id, ()))]
    rng = np.random.default_rng(seed)
    rows = []
    for a, b in combinations(tumour, 2):
        if a.patient_id == b.patient_id:
            first, second = points[a.sample_id], points[b.sample_id]
            shared, p_value = _shared_against_chance(first, second, lengths, rng)
            rows.append((a.patient_id, a.sample_id, b.sample_id, shared, len(first), len(second), p_value))
    columns = [*("patient_id", "sample_a", "sample_b", "shared_breakpoints", "breakpoints_a", "breakpoints_b")]
    return pd.DataFrame(rows, columns=[*columns, "p_value"])


def _breakpoints(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `chromosome`, `start` and `up` (whether the level rises there) of each breakpoint."""
    rows = rows.sort_values(["chromosome", "start"], kind="stable")
    step = rows["level"].diff().where(rows["chromosome"].eq(rows["chromosome"].shift()))
    return rows.assign(up=step > 0).loc[step.abs() >= _LEAST_CHANGE, ["chromosome", "start", "up"]]


def _shared_against_chance(
    first: pd.DataFrame, second: pd.DataFrame, lengths: Mapping[str, int], rng: np.random.Generator
) -> tuple[int, float]:
    theirs = dict(list(second.groupby("chromosome")))
    seen, by_chance = 0, np.zeros(_SHIFTS)
    for chromosome, ours in first.groupby("chromosome"):
        if chromosome not in theirs or chromosome not in lengths:
            continue
        length = lengths[str(chromosome)]
        moves = np.concatenate([[0.0], rng.uniform(0, length, _SHIFTS)])
        shared = _matches(ours, theirs[chromosome], moves, length)
        seen, by_chance = seen + int(shared[0]), by_chance + shared[1:]
    return seen, float((by_chance >= seen).sum() + 1) / (_SHIFTS + 1)


def _matches(ours: pd.DataFrame, theirs: pd.DataFrame, moves: np.ndarray, length_bp: int) -> np.ndarray:
    """Count for each move of theirs around the chromosome how many of ours have one of them in reach."""
    count = np.zeros(len(moves))
    for up in (False, True):
        moved = (theirs.loc[theirs["up"] == up, "start"].to_numpy(float) + moves[:, None]) % length_bp
        for start in ours.loc[ours["up"] == up, "start"]:
            count += (np.abs(moved - start) <= _TOLERANCE_BP).any(axis=1)
    return count
