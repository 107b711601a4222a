"""What was sequenced of a patient, which mutations were called in it, and how common they are among patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ctc_imaging.errors import TableError

TISSUE_KINDS = ("primary", "relapse", "metastasis")
CTC_KINDS = ("ctc", "ctc_pool", "ctc_cluster")
CONTROL_KINDS = ("leukocyte", "germline")
KINDS = TISSUE_KINDS + CTC_KINDS + CONTROL_KINDS

CALL_COLUMNS = ("sample_id", "mutation", "present")
READ_COLUMNS = ("ref_count", "alt_count")
COPY_NUMBER_COLUMNS = ("major_cn", "minor_cn", "normal_cn", "purity")


@dataclass(frozen=True)
class Sample:
    """One sequenced thing of a patient.

    Parameters
    ----------
    patient_id, sample_id : str
    kind : {"primary", "relapse", "metastasis", "ctc", "ctc_pool", "ctc_cluster", "leukocyte", "germline"}
        `ctc` is a single cell; `ctc_pool` and `ctc_cluster` are several, amplified as one.
    day : float, optional
        Days since surgery, negative before it.
    slide_id, cell_id : str, optional
        Where the picked cell lay.
    cells : int
        Cells in it: 1 for a single CTC, any number where it has no meaning.

    Raises
    ------
    TableError
        The kind isn't one of those, the cells aren't a number from 1 on, or a single cell has more than one.
    """

    patient_id: str
    sample_id: str
    kind: str
    day: float | None = None
    slide_id: str | None = None
    cell_id: str | None = None
    cells: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise TableError(
                f"sample {self.sample_id}", f"there is no kind {self.kind}", f"give one of {', '.join(KINDS)}"
            )
        if self.cells < 1 or (self.kind == "ctc" and self.cells > 1):
            raise TableError(
                f"sample {self.sample_id}",
                f"a {self.kind} of {self.cells} cells has no meaning",
                "give ctc for one cell, ctc_pool or ctc_cluster for more",
            )

    @property
    def is_tumour(self) -> bool:
        """Whether its mutations may be the tumour's: neither leukocyte nor germline."""
        return self.kind not in CONTROL_KINDS

    @property
    def is_few_cells(self) -> bool:
        """Whether so few cells were amplified that alleles get lost."""
        return self.kind in (*CTC_KINDS, "leukocyte")


def check_calls(samples: Sequence[Sample], calls: pd.DataFrame) -> None:
    """Check that a table of calls fits its samples.

    Parameters
    ----------
    samples : sequence of Sample
    calls : DataFrame
        One row a sample and mutation: `sample_id`, `mutation`, `present` (true, false or missing); optional
        `ref_count`, `alt_count`, `major_cn`, `minor_cn`, `normal_cn`, `purity`.

    Raises
    ------
    TableError
        A column is missing, a sample stands twice or isn't listed, or a mutation stands twice in a sample.
    """
    missing = [name for name in CALL_COLUMNS if name not in calls]
    if missing:
        raise TableError("calls", f"there is no column {missing[0]}", f"give {', '.join(CALL_COLUMNS)}")
    ids = [sample.sample_id for sample in samples]
    twice = [name for name in ids if ids.count(name) > 1]
    if twice:
        raise TableError("samples", f"sample {twice[0]} is listed twice", "give each sample its own sample_id")
    unknown = calls.loc[~calls["sample_id"].isin(ids), "sample_id"]
    if len(unknown):
        raise TableError("calls", f"sample {unknown.iloc[0]} isn't among the samples", "list it, with its kind")
    again = calls.duplicated(["sample_id", "mutation"])
    if again.any():
        sample, mutation = calls.loc[again, ["sample_id", "mutation"]].iloc[0]
        raise TableError("calls", f"{mutation} stands twice in sample {sample}", "keep one row of the two")


def presence(calls: pd.DataFrame) -> pd.Series:
    """Say of each row whether the mutation was seen: 1, 0, or missing where no read covers its site."""
    present = pd.to_numeric(calls["present"].astype("Float64"), errors="coerce").astype(float)
    if set(READ_COLUMNS) <= set(calls.columns):
        present = present.mask(depth(calls) == 0)
    return pd.Series(present, index=calls.index, name="present")


def depth(calls: pd.DataFrame) -> pd.Series:
    """Count the reads over each row's site; missing where they aren't given."""
    if not set(READ_COLUMNS) <= set(calls.columns):
        return pd.Series(np.nan, index=calls.index)
    reads = calls[list(READ_COLUMNS)].astype("Float64").astype(float)
    return reads["ref_count"] + reads["alt_count"]


def frequencies_of(mutations: pd.Index, frequencies: pd.Series) -> np.ndarray:
    """Look up how common mutations are among patients.

    Parameters
    ----------
    mutations : Index of str
    frequencies : Series of float
        Marginal frequency by mutation, above 0 and below 1: (carriers + 1) / (patients + 1), so that none is 0.

    Returns
    -------
    ndarray of float
        A mutation that isn't listed was seen in nobody: it gets the smallest frequency there is.

    Raises
    ------
    TableError
        There are no frequencies, one stands twice, or one isn't between 0 and 1.
    """
    if not len(frequencies):
        raise TableError("frequencies", "there are none", "give mutation and freq, (carriers + 1) / (patients + 1)")
    if frequencies.index.has_duplicates:
        name = frequencies.index[frequencies.index.duplicated()][0]
        raise TableError("frequencies", f"{name} stands twice", "keep one row of the two")
    known = frequencies.astype(float)
    wrong = known[~((known > 0) & (known < 1))]
    if len(wrong):
        raise TableError(
            "frequencies",
            f"{wrong.iloc[0]} of {wrong.index[0]} isn't a frequency",
            "give (carriers + 1) / (patients + 1), above 0 and below 1",
        )
    return known.reindex(mutations).fillna(known.min()).to_numpy(float)
