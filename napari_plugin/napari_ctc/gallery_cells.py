"""What the gallery shows and in what order: sorting and filters over all cells of a review; no Qt."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.store.standing import apply_reviews
from napari_ctc.queue_cells import doubt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.store.record import Review
    from napari_ctc.queue import ReviewQueue

ANY = "any"
SORTS = ("doubt", "CTC probability", "size", "place on the slide")
_BAND_UM = 200.0


@dataclass(frozen=True)
class Filters:
    """Which cells are shown; `ANY` shows all."""

    call: str = ANY
    phenotype: str = ANY
    cluster: str = ANY
    reviewed: str = ANY


CHOICES = {
    "call": (ANY, "ctc", "indeterminate", "leukocyte", "artefact", "overruled", "disputed"),
    "phenotype": (ANY, "epithelial", "hybrid", "mesenchymal", "undetermined"),
    "cluster": (ANY, "in a cluster", "single"),
    "reviewed": (ANY, "reviewed", "not reviewed"),
}
"""What each filter can be set to, by the field of `Filters`."""


def gallery_table(queue: ReviewQueue) -> pd.DataFrame:
    """Return all cells of a review with their calls in force.

    Returns
    -------
    DataFrame
        A row a cell: `slide_id`, `cell_id`, `y_um`, `x_um`, `call`, `phenotype`, `p_ctc`, `diameter_um`, `cluster`
        (bool), `reviewed` (bool), `machine_call`, `disputed` (bool), `doubt`.
    """
    machine = queue.table.assign(doubt=doubt(queue.table))
    rows = queue.record.rows
    by_slide = machine.groupby("slide_id", sort=False)
    tables = [_final(part, rows.get(str(name), [])) for name, part in by_slide]
    table = pd.concat(tables, ignore_index=True) if tables else _final(machine, [])
    return table.assign(cluster=table["cluster_kind"].fillna("") != "", doubt=table["doubt"].fillna(0.0))


def chosen(table: pd.DataFrame, sort: str, filters: Filters) -> NDArray[np.intp]:
    """Return the places of the cells to be shown, in their order.

    Parameters
    ----------
    table : DataFrame
        As of `gallery_table`.
    sort : str
        One of `SORTS`.
    filters : Filters
    """
    keep = np.ones(len(table), bool)
    for field in fields(Filters):
        value = getattr(filters, field.name)
        if value != ANY:
            keep &= _matches(table, field.name, value)
    places = np.flatnonzero(keep)
    keys = _keys(table.iloc[places], sort)
    return places[np.lexsort(keys[::-1])]


def with_call(table: pd.DataFrame, row: Review, call: str, phenotype: str, reviewed: bool) -> None:
    """Put a new call into the table, in place."""
    here = (table["slide_id"] == row.slide_id) & (table["cell_id"] == row.cell_id)
    table.loc[here, ["call", "phenotype", "reviewed"]] = [call, phenotype, reviewed]


def _final(cells: pd.DataFrame, rows: list[Review]) -> pd.DataFrame:
    final = apply_reviews(cells, rows)
    slide_ids = cells["slide_id"].iloc[0] if len(cells) else ""
    return final.assign(slide_id=slide_ids)


def _matches(table: pd.DataFrame, name: str, value: str) -> NDArray[np.bool_]:
    if value == "overruled":
        return ((table["machine_call"] == "ctc") & (table["call"] != "ctc")).to_numpy()
    if value == "disputed":
        return table["disputed"].to_numpy(bool)
    if name == "cluster":
        return table["cluster"].to_numpy(bool) == (value == "in a cluster")
    if name == "reviewed":
        return table["reviewed"].to_numpy(bool) == (value == "reviewed")
    return (table[name] == value).to_numpy()


def _keys(table: pd.DataFrame, sort: str) -> list[NDArray[np.generic]]:
    """Keys to sort by, the first one first."""
    if sort == "CTC probability":
        return [-table["p_ctc"].fillna(2.0).to_numpy()]
    if sort == "size":
        return [-table["diameter_um"].fillna(np.inf).to_numpy()]
    if sort == "doubt":
        return [table["doubt"].to_numpy()]
    slides = pd.factorize(table["slide_id"], sort=True)[0]
    band = (table["y_um"] // _BAND_UM).to_numpy()
    return [slides, band, table["x_um"].to_numpy()]
