"""What readers corrected of the segmentation: missed cells added, doubled ones merged, outlines drawn anew."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.store.history import histories, in_order
from ctc_imaging.store.record import ADD, MERGE, OUTLINE, Review
from ctc_imaging.store.signatures import is_exercise

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

POINT, INTO, POLYGON, WRONG = "point_um", "into", "polygon_um", "wrong"
"""Keys of a row's detail: where a missed cell lies (y, x), what a doubled one is part of, a new outline, or that the
outline is wrong."""

ADDED_FROM = 4_000_000_001
"""Cells that readers add are numbered from here on, far above any that segmentation finds."""


def detail_of(**facts: Any) -> str:
    """Write the detail of a row."""
    return json.dumps(facts, sort_keys=True)


def marks_of(reviews: Iterable[Review]) -> list[Review]:
    """Return the corrections in force, of all readers, in the order of their times; exercises don't count."""
    rows = list(reviews)
    marks = [
        row
        for (_, reading), history in histories(rows).items()
        if not is_exercise(reading)
        for row in history.standing
        if row.action in (ADD, MERGE, OUTLINE)
    ]
    return in_order(marks, rows)


def next_cell_id(reviews: Iterable[Review]) -> int:
    """Return the number of the next cell that is added to a slide; none is ever given twice."""
    return max((row.cell_id + 1 for row in reviews if row.action == ADD), default=ADDED_FROM)


def apply_marks(cells: pd.DataFrame, reviews: Iterable[Review]) -> pd.DataFrame:
    """Add, merge and outline a slide's cells as readers did.

    Parameters
    ----------
    cells : DataFrame
        A slide's cells.parquet.
    reviews : iterable of Review
        Of that slide.

    Returns
    -------
    DataFrame
        A cell that was added has a place, no call of the machine and no measurements; one with a new outline has the
        area and diameter of that outline; one whose outline is marked wrong is as it was.
    """
    marks = marks_of(reviews)
    if not marks:
        return cells.copy()
    cells = _with_added(cells, [row for row in marks if row.action == ADD])
    cells = _with_outlines(cells, [row for row in marks if row.action == OUTLINE])
    merged = {row.cell_id for row in marks if row.action == MERGE}
    return cells[~cells["cell_id"].isin(merged)].reset_index(drop=True)


def polygon_area_um2(polygon_um: NDArray[np.float64]) -> float:
    """Return the area of a polygon of corners (y, x), by the shoelace formula."""
    y, x = np.asarray(polygon_um, float).T
    return float(abs(np.dot(y, np.roll(x, 1)) - np.dot(x, np.roll(y, 1))) / 2)


def _with_added(cells: pd.DataFrame, added: Sequence[Review]) -> pd.DataFrame:
    import pandas as pd

    if not added:
        return cells
    rows = []
    for row in added:
        y_um, x_um = (float(value) for value in row.details[POINT])  # type: ignore[attr-defined]
        place = {"y_um": y_um, "x_um": x_um}
        if "y_px" in cells:
            pixel_size_um = _pixel_size_um(cells)
            place |= {"y_px": y_um / pixel_size_um, "x_px": x_um / pixel_size_um}
        rows.append(_blank(cells) | {"cell_id": row.cell_id, **place})
    new = pd.DataFrame(rows).reindex(columns=cells.columns)
    return pd.concat([cells, new.astype(_types(cells))], ignore_index=True)


def _pixel_size_um(cells: pd.DataFrame) -> float:
    """By the contract y_um = y_px * pixel size, so any cell off the origin tells the scale."""
    return float((cells["y_um"] + cells["x_um"]).sum() / (cells["y_px"] + cells["x_px"]).sum())


def _blank(cells: pd.DataFrame) -> dict[str, Any]:
    """Texts, flags and whole numbers of a cell of which nothing was measured."""
    kinds = {"b": False, "i": 0, "u": 0, "O": ""}
    blank = {str(name): kinds[kind.kind] for name, kind in cells.dtypes.items() if kind.kind in kinds}
    return {name: value for name, value in blank.items() if name != "cell_id"} | (
        {"assessed": True} if "assessed" in cells else {}
    )


def _types(cells: pd.DataFrame) -> dict[Any, Any]:
    return {name: kind for name, kind in cells.dtypes.items() if name != "cell_id"}


def _with_outlines(cells: pd.DataFrame, drawn: Sequence[Review]) -> pd.DataFrame:
    polygons = {row.cell_id: row.details[POLYGON] for row in drawn if POLYGON in row.details}
    areas = {cell_id: polygon_area_um2(np.asarray(polygon, float)) for cell_id, polygon in polygons.items()}
    if not areas or "area_um2" not in cells:
        return cells
    area = cells["cell_id"].map(areas)
    diameter = (area / np.pi) ** 0.5 * 2
    return cells.assign(area_um2=area.fillna(cells["area_um2"]), diameter_um=diameter.fillna(cells["diameter_um"]))
