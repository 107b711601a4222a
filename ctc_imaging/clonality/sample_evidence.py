"""A patient's tables of calls as evidence on clones: bulk samples, pools and single cells side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.clone_evidence import (
    CELL_GRID,
    from_bulk_calls,
    from_cell_calls,
    from_cell_reads,
    from_pool_calls,
    from_reads_without_purity,
    log_prior,
)
from ctc_imaging.clonality.clone_fractions import reads_likelihood
from ctc_imaging.clonality.clone_mixture import Evidence
from ctc_imaging.errors import StatisticsError

GRID = np.linspace(0.0, 1.0, 51)
"""Fractions of bulk samples and pools."""


@dataclass(frozen=True)
class PatientEvidence:
    """Evidence of all of a patient's samples on all mutations.

    Attributes
    ----------
    evidence : Evidence
    mutations : object ndarray, shape (n_mutations,)
    sample_ids : tuple of str
        Samples of the primary first, then of the CTCs, then of the relapse.
    primary_samples : int
    is_cell, is_tumour : bool ndarray, shape (n_samples,)
        Single cells; tissue samples, in which every cancer cell descends from some clone.
    presence_only : tuple of str
        Tissue samples of which no fractions can be told.
    """

    evidence: Evidence
    mutations: np.ndarray
    sample_ids: tuple[str, ...]
    primary_samples: int
    is_cell: np.ndarray
    is_tumour: np.ndarray
    presence_only: tuple[str, ...]

    @property
    def has_primary(self) -> bool:
        """Whether the primary was sequenced."""
        return self.primary_samples > 0


def gather_evidence(
    primary: pd.DataFrame,
    ctcs: pd.DataFrame,
    relapse: pd.DataFrame | None,
    *,
    cells: Mapping[str, int],
    errors: CellErrors | Mapping[str, CellErrors],
    default: CellErrors,
) -> PatientEvidence:
    """Turn the tables into log likelihoods; see `origin.origin_of` for the parameters.

    `default` are the errors of samples that a mapping of errors doesn't name.
    """
    parts = {"primary": primary, "CTCs": ctcs, "relapse": relapse}
    tables = {name: _checked(table, name) for name, table in parts.items() if table is not None and len(table)}
    if not tables:
        raise StatisticsError("calls", "there are no mutations", "give a row a sample and mutation")
    mutations = pd.unique(pd.concat([table["mutation"] for table in tables.values()]))
    samples = [(part, str(sample), rows) for part, table in tables.items() for sample, rows in _by_sample(table)]
    _check_ids([sample for _, sample, _ in samples])
    is_cell = np.array([part == "CTCs" and cells.get(sample, 1) == 1 for part, sample, _ in samples])
    likelihoods = [
        _of_ctc(rows, mutations, cells.get(sample, 1), _errors_of(sample, errors, default))
        if part == "CTCs"
        else _of_tissue(rows, mutations)
        for part, sample, rows in samples
    ]
    grids = [CELL_GRID if cell else GRID for cell in is_cell]
    return PatientEvidence(
        Evidence.of(likelihoods, grids, [log_prior(grid) for grid in grids]),
        np.asarray(mutations, object),
        tuple(sample for _, sample, _ in samples),
        sum(part == "primary" for part, _, _ in samples),
        is_cell,
        np.array([part != "CTCs" for part, _, _ in samples]),
        tuple(sample for part, sample, rows in samples if part != "CTCs" and not _tells_fractions(rows).any()),
    )


def _of_tissue(rows: pd.DataFrame, mutations: np.ndarray) -> np.ndarray:
    """Reads with purity where there are any, else reads as presence, else the calls."""
    with_purity = _tells_fractions(rows)
    result = reads_likelihood(rows[with_purity], mutations, GRID)
    at = rows[~with_purity].set_index("mutation").reindex(mutations)
    ref, alt, present = (_column(at, name) for name in ("ref_count", "alt_count", "present"))
    counted = ~(np.isnan(ref) | np.isnan(alt))
    presence = from_bulk_calls(np.where(counted, np.nan, present), grid=GRID)
    return result + presence + np.where(counted[:, None], from_reads_without_purity(ref, alt, grid=GRID), 0.0)


def _of_ctc(rows: pd.DataFrame, mutations: np.ndarray, count: int, errors: CellErrors) -> np.ndarray:
    at = rows.set_index("mutation").reindex(mutations)
    ref, alt, present = (_column(at, name) for name in ("ref_count", "alt_count", "present"))
    counted = ~(np.isnan(ref) | np.isnan(alt))
    if count == 1:
        calls = from_cell_calls(np.where(counted, np.nan, present), errors)
        return calls + np.where(counted[:, None], from_cell_reads(ref, alt, errors), 0.0)
    # Amplification bends a pool's allele fractions: its reads tell whether a mutation is there, no more.
    seen = np.where(ref + alt > 0, _seen_in_reads(ref, alt), np.nan)
    return from_pool_calls(np.where(counted, seen, present), count, errors, grid=GRID)


def _seen_in_reads(ref: np.ndarray, alt: np.ndarray) -> np.ndarray:
    likelihood = from_reads_without_purity(ref, alt, grid=CELL_GRID)
    return (likelihood[:, 1] > likelihood[:, 0]).astype(float)


def _errors_of(sample: str, errors: CellErrors | Mapping[str, CellErrors], default: CellErrors) -> CellErrors:
    return errors.get(sample, default) if isinstance(errors, Mapping) else errors


def _tells_fractions(rows: pd.DataFrame) -> np.ndarray:
    return ~np.isnan(np.column_stack([_column(rows, name) for name in ("ref_count", "alt_count", "purity")])).any(
        axis=1
    )


def _column(rows: pd.DataFrame, name: str) -> np.ndarray:
    if name not in rows:
        return np.full(len(rows), np.nan)
    # Presence may stand as booleans, nullable booleans or objects with gaps.
    return pd.to_numeric(rows[name].astype("Float64"), errors="coerce").to_numpy(float, na_value=np.nan)


def _by_sample(table: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    return [(sample, table[table["sample_id"] == sample]) for sample in pd.unique(table["sample_id"])]


def _check_ids(samples: list[str]) -> None:
    for sample in samples:
        if samples.count(sample) > 1:
            raise StatisticsError("calls", f"sample {sample} is of two kinds", "give each sample in one table")


def _checked(table: pd.DataFrame, name: str) -> pd.DataFrame:
    missing = [column for column in ("sample_id", "mutation") if column not in table]
    if missing:
        raise StatisticsError(name, f"there is no column {missing[0]}", "give sample_id and mutation")
    if not {"present", "ref_count"} & set(table.columns):
        raise StatisticsError(name, "there are neither calls nor reads", "give present, or ref_count and alt_count")
    twice = table.duplicated(["sample_id", "mutation"])
    if twice.any():
        sample, mutation = table.loc[twice, ["sample_id", "mutation"]].iloc[0]
        raise StatisticsError(name, f"{mutation} stands twice in sample {sample}", "keep one row of the two")
    return table
