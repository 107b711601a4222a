"""Counts per slide and per sample from final calls, per mL with exact limits; a failed sample is never a zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import gammainccinv, gammaincinv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from ctc_imaging.cohort import SlideEntry

CELL_COUNTS = (
    "cells",
    "leukocyte",
    "artefact",
    "indeterminate",
    "ctc",
    "ctc_epithelial",
    "ctc_hybrid",
    "ctc_mesenchymal",
    "ctc_undetermined",
    "ctc_clusters",
    "ctc_leukocyte_clusters",
)
COUNT_COLUMNS: tuple[str, ...] = (
    "sample_id",
    "patient_id",
    "sample_date",
    "sample_kind",
    "slides",
    "blood_volume_ml",
    "assessed_volume_ml",
    "assessed_fraction",
    "assessable",
    "quality_reasons",
    *CELL_COUNTS,
    "ctc_per_ml",
    "ctc_per_ml_low",
    "ctc_per_ml_high",
    "ctc_per_ml_total_low",
    "ctc_per_ml_total_high",
    "ctc_expected_false",
    "limit_of_blank",
    "limit_of_detection",
    "ctc_machine",
    "readers",
    "reviewed",
    "signed_by",
)
# The last two say how slides pool: the contract's columns alone can't tell a rescan from a second slide.
SLIDE_COLUMNS: tuple[str, ...] = ("slide_id", "state", "reason", *COUNT_COLUMNS, "volume_on_slide_ml", "rescan_of")
_SUMMED = (*CELL_COUNTS, "ctc_machine", "reviewed")
_WHOLE = (*_SUMMED, "slides")
_REAL = (
    "blood_volume_ml",
    "assessed_volume_ml",
    "assessed_fraction",
    "ctc_per_ml",
    "ctc_per_ml_low",
    "ctc_per_ml_high",
    "ctc_per_ml_total_low",
    "ctc_per_ml_total_high",
    "ctc_expected_false",
    "limit_of_blank",
    "limit_of_detection",
    "volume_on_slide_ml",
)


def poisson_limits(count: ArrayLike, confidence: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact two-sided limits of a Poisson mean (Garwood, Biometrika 1936;28:437-42).

    Parameters
    ----------
    count : array_like of int
        Observed counts; NaN gives NaN.
    confidence : float
        Coverage, at least this much at every mean.

    Returns
    -------
    low, high : ndarray of float64
        In the shape of `count`. A zero has the low limit 0 and a high limit above it.

    Examples
    --------
    >>> low, high = poisson_limits(0)
    >>> round(float(high), 3)
    3.689
    """
    counts = np.asarray(count, dtype=float)
    tail = (1 - confidence) / 2
    low = np.where(counts == 0, 0.0, gammaincinv(np.maximum(counts, 1e-300), tail))
    return low, gammainccinv(counts + 1, tail)


def slide_row(
    entry: SlideEntry, cells: pd.DataFrame | None, quality: Mapping[str, Any] | None, failure: str | None = None
) -> dict[str, Any]:
    """Count one slide.

    Parameters
    ----------
    entry : SlideEntry
        The slide as the cohort table has it.
    cells : DataFrame or None
        Columns of cells.parquet with final `call`, `phenotype` and clusters (also after review), and,
        where they apply, `assessed` (bool), `machine_call`, `reviewed` (bool), `reader` (str) and `at_edge`
        (the sides of the scan a cell touches, joined by ``+``). None where the slide isn't done.
    quality : mapping or None
        `assessable`, `assessed_fraction`, `reasons`; a slide without it isn't assessable.
    failure : str, optional
        Why the slide failed.

    Returns
    -------
    dict
        One value for each of `SLIDE_COLUMNS`; counts are NA where the slide isn't assessable.
    """
    done = cells is not None and failure is None
    row = _empty_row(entry, "done" if done else "failed" if failure else "pending", failure or "")
    if not done or cells is None:
        return row | {"quality_reasons": failure or "not processed yet"}
    if quality is None:
        return row | {"quality_reasons": "no quality record"}
    fraction = float(quality["assessed_fraction"])
    row |= {"assessed_fraction": fraction, "quality_reasons": "; ".join(quality["reasons"])}
    if not quality["assessable"] or fraction <= 0:
        return row
    volume_ml = entry.volume_on_slide_ml * fraction
    return row | {"assessable": True, "assessed_volume_ml": volume_ml} | _count_cells(cells) | {}


def slide_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Put rows of `slide_row` into a table with `SLIDE_COLUMNS`, counts as nullable integers."""
    return _typed(pd.DataFrame(list(rows), columns=list(SLIDE_COLUMNS)))
