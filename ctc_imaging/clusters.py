"""CTC clusters: cells whose outlines lie within a gap of each other, by the panel's named rule."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ctc_imaging.panel import ClusterRule


def find_clusters(cells: pd.DataFrame, labels: Any, rule: ClusterRule, pixel_size_um: float) -> pd.DataFrame:
    """Add each cell's cluster.

    CTCs within `rule.max_gap_um` of each other, directly or through other CTCs, form one cluster
    with the leukocytes within that gap of any of them. It counts from `rule.min_ctc` CTCs, or from
    one CTC with a leukocyte.

    Parameters
    ----------
    cells : DataFrame
        With ``cell_id``, ``call``, ``y_px``, ``x_px`` and ``diameter_um``.
    labels : array-like of uint32, shape (2, Y, X)
        Cell labels in the first plane.
    rule : ClusterRule
    pixel_size_um : float

    Returns
    -------
    DataFrame
        `cells` with ``cluster_id`` (0 for none, else counting from 1 in the order of ``cell_id``) and
        ``cluster_kind`` (``ctc`` for CTCs alone, ``ctc_leukocyte`` with leukocytes, empty for none).
    """
    call = pd.Series(cells["call"].to_numpy(), index=cells["cell_id"].to_numpy())
    pairs = _neighbours(cells, labels, rule.max_gap_um / pixel_size_um)
    group = _groups(pairs)
    # A leukocyte between two groups joins the first.
    beside = {
        other: group[one]
        for one in sorted(pairs, key=group.__getitem__, reverse=True)
        for other in pairs[one]
        if call[other] == "leukocyte"
    }
    mixed, sizes = set(beside.values()), Counter(group.values())
    kept = [number for number in sorted(sizes) if sizes[number] >= rule.min_ctc or number in mixed]
    names = {number: index for index, number in enumerate(kept, start=1)}
    members = {cell: names[number] for cell, number in {**group, **beside}.items() if number in names}
    kinds = {names[number]: "ctc_leukocyte" if number in mixed else "ctc" for number in kept}
    cluster_id = np.array([members.get(cell, 0) for cell in cells["cell_id"]], np.int64)
    kind = np.array([kinds.get(number, "") for number in cluster_id], object)
    return cells.assign(cluster_id=cluster_id, cluster_kind=kind)


def _neighbours(cells: pd.DataFrame, labels: Any, gap_px: float) -> dict[int, list[int]]:
    """For each CTC the other cells within the gap of its outline; one that has none on the label image has none."""
    found: dict[int, list[int]] = {}
    known = set(cells["cell_id"].tolist())
    ctc = cells.loc[cells["call"] == "ctc", ["cell_id", "y_px", "x_px"]].astype(np.int64)
    for cell_id, y, x in ctc.to_numpy().tolist():
        view = _around(labels, cell_id, y, x, int(np.ceil(gap_px)) + 1)
        if not (view == cell_id).any():
            found[cell_id] = []
            continue
        # Centres of touching pixels lie one pixel apart.
        within = ndimage.distance_transform_edt(view != cell_id) <= gap_px + 1
        found[cell_id] = [int(other) for other in np.unique(view[within]) if other in known and other != cell_id]
    return found


def _around(labels: Any, cell_id: int, y: int, x: int, margin_px: int) -> np.ndarray:
    """Return a window of labels that holds a cell with a margin, widened while the cell reaches its border."""
    for reach_px in (64, 128, 256, 512):
        window = np.asarray(labels[0, max(y - reach_px, 0) : y + reach_px, max(x - reach_px, 0) : x + reach_px])
        inner = (slice(margin_px, -margin_px), slice(margin_px, -margin_px))
        if np.count_nonzero(window[inner] == cell_id) == np.count_nonzero(window == cell_id):
            break
    return window


def _groups(pairs: dict[int, list[int]]) -> dict[int, int]:
    """Number of the connected group of each CTC, groups in the order of their first cell."""
    place = {cell: index for index, cell in enumerate(pairs)}
    edges = [(place[one], place[other]) for one, others in pairs.items() for other in others if other in place]
    rows, columns = np.array(edges, np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(place), len(place)))
    _, number = connected_components(graph, directed=False) if place else (0, ())
    return {cell: int(number[index]) for cell, index in place.items()}
