"""Which slides were stained together, and what a batch is called."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from ctc_imaging.cohort import SlideEntry

BATCH_COLUMNS = ("slide_id", "sample_id", "sample_kind", "sample_date", "spiked_cells", "site", "batch")


def batch_table(entries: Iterable[SlideEntry]) -> pd.DataFrame:
    """Tell each slide's sample, batch and controls' cells, without slides that a rescan replaces.

    Parameters
    ----------
    entries : iterable of SlideEntry
        The cohort.

    Returns
    -------
    DataFrame
        `BATCH_COLUMNS` and `batch_name` (see `batch_names`), one row a slide, in the cohort's order.
    """
    entries = list(entries)
    replaced = {entry.rescan_of for entry in entries}
    rows = [
        {
            "slide_id": entry.slide_id,
            "sample_id": entry.sample_id,
            "sample_kind": entry.sample_kind,
            "sample_date": entry.sample_date.isoformat(),
            "spiked_cells": entry.spiked_cells,
            "site": entry.site or "",
            "batch": entry.batch or "",
        }
        for entry in entries
        if entry.slide_id not in replaced
    ]
    table = pd.DataFrame(rows, columns=list(BATCH_COLUMNS))
    return table.assign(batch_name=batch_names(table))


def batch_names(table: pd.DataFrame) -> pd.Series:
    """Name each row's batch in words; the same number at two sites is two batches.

    Parameters
    ----------
    table : DataFrame
        With `site` and `batch` as text, empty where there is none.

    Returns
    -------
    Series of str
        Such as ``batch B2``, ``batch B2 of Riga`` where there are several sites, and ``the run`` without a batch.
    """
    batch = table["batch"].map(lambda name: f"batch {name}" if name else "")
    if table["site"].nunique() < 2:
        return batch.where(batch != "", "the run")
    site = table["site"].map(lambda name: name or "no site")
    return (batch + " of " + site).where(batch != "", "the slides of " + site)
