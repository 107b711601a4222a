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
# The contract's columns alone can't tell a rescan from a second slide, nor which CTCs a reader has looked at.
SLIDE_COLUMNS: tuple[str, ...] = (
    *("slide_id", "state", "reason"),
    *COUNT_COLUMNS,
    *("volume_on_slide_ml", "rescan_of", "ctc_unreviewed"),
)
_SUMMED = (*CELL_COUNTS, "ctc_machine", "reviewed")
_WHOLE = (*_SUMMED, "slides", "ctc_unreviewed")
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
    return low, np.asarray(gammainccinv(counts + 1, tail))


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
        where they apply, `assessed` (bool), `machine_call`, `reviewed` (bool), `reader` (str) and `edges`
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
    row = _empty_row(entry)
    if cells is None or failure is not None:
        state, reason = ("failed", failure) if failure is not None else ("pending", "not processed yet")
        return row | {"state": state, "reason": reason, "quality_reasons": reason}
    row |= {"state": "done"}
    if quality is None:
        return row | {"quality_reasons": "no quality record"}
    fraction = float(quality["assessed_fraction"])
    row |= {"assessed_fraction": fraction, "quality_reasons": _joined(quality["reasons"])}
    if not quality["assessable"] or fraction <= 0:
        return row
    counts = _count_cells(cells)
    volume_ml = entry.volume_on_slide_ml * fraction
    return row | {"assessable": True, "assessed_volume_ml": volume_ml} | counts | _per_ml(counts["ctc"], volume_ml)


def slide_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Put rows of `slide_row` into a table with `SLIDE_COLUMNS`, counts as nullable integers."""
    return typed_counts(pd.DataFrame(list(rows), columns=list(SLIDE_COLUMNS), dtype=object))


def count_samples(slides: pd.DataFrame) -> pd.DataFrame:
    """Pool the slides of each sample: sum of counts over sum of assessed volume.

    A rescan stands for the slide it names, whatever became of that one, also when the rescan itself
    failed. A sample is assessable if one of its slides is; the others add their reasons but neither
    counts nor volume. `assessed_fraction` is of the blood on all of the sample's slides.

    Parameters
    ----------
    slides : DataFrame
        One row a slide, with `SLIDE_COLUMNS`.

    Returns
    -------
    DataFrame
        One row a sample, with `COUNT_COLUMNS`, in the order in which samples first appear. Counts are
        nullable integers, NA where the sample isn't assessable.
    """
    current = _not_rescanned(typed_counts(slides))
    by_sample = current.groupby("sample_id", sort=False)
    samples = by_sample[["patient_id", "sample_date", "sample_kind", "blood_volume_ml", "signed_by"]].first()
    samples["slides"] = by_sample.size()
    samples["assessable"] = by_sample["assessable"].any()
    samples["quality_reasons"] = _named_reasons(current).groupby(current["sample_id"], sort=False).agg(_joined)
    samples["readers"] = by_sample["readers"].agg(_union)
    assessable = current[current["assessable"]].groupby("sample_id", sort=False)
    samples = samples.join(assessable[[*_SUMMED, "assessed_volume_ml"]].sum())
    samples["assessed_fraction"] = samples["assessed_volume_ml"] / by_sample["volume_on_slide_ml"].sum()
    rates = _per_ml(samples["ctc"].astype("float64"), samples["assessed_volume_ml"])
    return typed_counts(samples.assign(**rates).reset_index().reindex(columns=list(COUNT_COLUMNS)))


def unreviewed_ctcs(slides: pd.DataFrame) -> pd.Series:
    """Return how many of each sample's CTCs no reader has looked at.

    Parameters
    ----------
    slides : DataFrame
        As of `count_samples`.

    Returns
    -------
    Series of int
        By `sample_id`, of samples with a result.
    """
    current = _not_rescanned(typed_counts(slides))
    return current[current["assessable"]].groupby("sample_id")["ctc_unreviewed"].sum()


def typed_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Give each column its type, so that an empty count stays empty and a whole one stays whole in CSV.

    Parameters
    ----------
    table : DataFrame
        Any of `SLIDE_COLUMNS`, as made here or read from CSV; further columns are taken for text.

    Returns
    -------
    DataFrame
        Counts as Int64, volumes and rates as float64, `assessable` as bool, texts as str (missing is empty).
    """
    kinds = dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(_REAL, "float64") | {"assessable": "bool"}
    known: dict[str, Any] = {name: kind for name, kind in kinds.items() if name in table}
    texts = [name for name in table.columns if name not in kinds]
    filled = table.assign(**{name: _text(table, name) for name in texts})
    return filled.assign(**{name: _numbers(table[name]).astype(kind) for name, kind in known.items()})


def _empty_row(entry: SlideEntry) -> dict[str, Any]:
    return dict.fromkeys(SLIDE_COLUMNS, pd.NA) | {
        "slide_id": entry.slide_id,
        "reason": "",
        "sample_id": entry.sample_id,
        "patient_id": entry.patient_id,
        "sample_date": entry.sample_date.isoformat(),
        "sample_kind": entry.sample_kind,
        "slides": 1,
        "blood_volume_ml": entry.blood_volume_ml,
        "assessable": False,
        "quality_reasons": "",
        "readers": "",
        "signed_by": "",
        "volume_on_slide_ml": entry.volume_on_slide_ml,
        "rescan_of": entry.rescan_of or "",
    }


def _count_cells(cells: pd.DataFrame) -> dict[str, Any]:
    counted = counted_cells(cells)
    call = _text(cells, "call")
    is_ctc = counted & (call == "ctc")
    phenotypes = _text(cells, "phenotype")[is_ctc].value_counts()
    named = {name: int(phenotypes.get(name, 0)) for name in ("epithelial", "hybrid", "mesenchymal")}
    machine = _text(cells, "machine_call") if "machine_call" in cells else call
    reviewed = (
        cells["reviewed"].astype("boolean").fillna(False).astype(bool) if "reviewed" in cells else counted & False
    )
    return {
        "cells": int(counted.sum()),
        **{name: int((counted & (call == name)).sum()) for name in ("leukocyte", "artefact", "indeterminate", "ctc")},
        **{f"ctc_{name}": number for name, number in named.items()},
        "ctc_undetermined": int(is_ctc.sum()) - sum(named.values()),
        **_count_clusters(cells, counted),
        "ctc_machine": int((counted & (machine == "ctc")).sum()),
        "ctc_unreviewed": int((is_ctc & ~reviewed).sum()),
        "reviewed": int(reviewed.sum()),
        "readers": _union(_text(cells, "readers" if "readers" in cells else "reader")[reviewed]),
    }


def _not_rescanned(slides: pd.DataFrame) -> pd.DataFrame:
    return slides[~slides["slide_id"].isin(slides["rescan_of"].dropna())]


def counted_cells(cells: pd.DataFrame) -> pd.Series:
    """Tell which cells count: in the assessed area, and by the two-edges rule.

    Of the cells cut by the edge of the scan those at the top and left count, those at the bottom and right don't.

    Parameters
    ----------
    cells : DataFrame
        With `edges`, and `assessed` where parts of the slide couldn't be assessed.

    Returns
    -------
    Series of bool
    """
    assessed = cells["assessed"].astype(bool) if "assessed" in cells else pd.Series(True, index=cells.index)
    return assessed & ~_text(cells, "edges").str.contains("bottom|right")


def _count_clusters(cells: pd.DataFrame, counted: pd.Series) -> dict[str, int]:
    """Count clusters of which every cell is counted: the two-edges rule then holds for clusters too."""
    names = {"ctc_clusters": "ctc", "ctc_leukocyte_clusters": "ctc_leukocyte"}
    if "cluster_id" not in cells:
        return dict.fromkeys(names, 0)
    member = cells["cluster_id"].fillna(0) != 0
    ids = cells["cluster_id"][member]
    whole = counted[member].groupby(ids).all()
    kind = _text(cells, "cluster_kind")[member].groupby(ids).first()
    return {name: int((whole & (kind == wanted)).sum()) for name, wanted in names.items()}


def _per_ml(ctc: Any, volume_ml: Any) -> dict[str, Any]:
    low, high = poisson_limits(ctc)
    rates = {"ctc_per_ml": ctc, "ctc_per_ml_low": low, "ctc_per_ml_high": high}
    return {name: value / volume_ml for name, value in rates.items()}


def _text(cells: pd.DataFrame, name: str) -> pd.Series:
    if name not in cells:
        return pd.Series("", index=cells.index)
    return cells[name].astype(object).where(cells[name].notna(), "").astype(str)


def _named_reasons(slides: pd.DataFrame) -> pd.Series:
    """Put the slide's name before its reasons where the sample has more than one slide."""
    alone = ~slides["sample_id"].duplicated(keep=False)
    reasons = slides["quality_reasons"]
    return reasons.where(alone | (reasons == ""), slides["slide_id"] + ": " + reasons)


def _joined(reasons: Iterable[str]) -> str:
    return "; ".join(filter(None, reasons))


def _union(readers: Iterable[str]) -> str:
    return ";".join(sorted({name for names in readers for name in names.split(";") if name}))


def _numbers(column: pd.Series) -> pd.Series:
    return column if column.dtype == bool else pd.to_numeric(column.astype(object).where(column.notna(), np.nan))
