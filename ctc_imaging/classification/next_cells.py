"""Which cells to review next so that a model learns most from few: doubtful ones, and no two of a kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctc_imaging.classification.classes import CLASSES

POOL = 4000
"""So many of the most doubtful cells are put in order by what they add; a person reads fewer."""
PICKED = 1000
"""So many are picked one by one; the rest follow by doubt."""

OTHER_BORDER = 0.35
"""How much the border between leukocyte and artefact counts beside that of CTCs, which is what is measured."""

_SMALLEST_P = 1e-6
_LENGTHS = ("diameter_um", "nucleus_area_um2", "area_um2")
_SHAPES = ("eccentricity", "solidity", "focus")
# Beyond this many spreads from the middle a cell is odd, and no odder farther out.
_FARTHEST = 4.0

Floats = NDArray[np.float64]


def learning_order(
    cells: pd.DataFrame, first: NDArray[np.bool_] | None = None, picked: int = PICKED
) -> NDArray[np.intp]:
    """Order cells by how much a model would learn from their labels, before any label is known.

    Each cell is a point: its features times how far the model's probabilities are from certainty, one copy a class,
    which is the gradient that its label would have on a last layer (BADGE; Ash, ICLR 2020). A cell is far from zero
    where the model doubts, and far from another where it is another kind of cell. Each next one is farthest from all
    that were taken and from zero, where the certain ones lie. So duplicates of one puzzling kind don't fill the queue,
    as they do where doubt alone decides (Kirsch, NeurIPS 2019). Doubt is seen from where calls change, see
    `seen_from_boundary`, and that of CTC or not counts most.

    Parameters
    ----------
    cells : DataFrame
        Columns of cells.parquet, of one model's run; of slides together if they are to be read together.
    first : ndarray of bool, shape (n,), optional
        Cells that come before all others, such as candidates; both parts are ordered in this way.
    picked : int
        Cells of each part that are picked one by one.

    Returns
    -------
    ndarray of intp, shape (n,)
        Positions in `cells`. The same cells give the same order, in time in proportion to their number.
    """
    p = seen_from_boundary(cells)
    before = np.zeros(len(cells), bool) if first is None else np.asarray(first, bool)
    parts = [np.flatnonzero(before), np.flatnonzero(~before)]
    return np.concatenate([part[_order(cells.iloc[part], p[part], picked)] for part in parts])


def _order(cells: pd.DataFrame, p: Floats, picked: int) -> NDArray[np.intp]:
    by_doubt = np.argsort(margin(p), kind="stable")
    pool = by_doubt[: max(POOL, picked)]
    if not pool.size:
        return pool
    features = cell_features(cells.iloc[pool])
    ctc_or_not = np.column_stack([p[pool, 0], 1 - p[pool, 0]])
    points = np.column_stack([gradients(ctc_or_not, features), OTHER_BORDER * gradients(p[pool], features)])
    taken = pool[farthest_first(points, min(picked, pool.size))]
    rest = np.ones(len(cells), bool)
    rest[taken] = False
    return np.concatenate([taken, by_doubt[rest[by_doubt]]])


def seen_from_boundary(cells: pd.DataFrame) -> Floats:
    """Probabilities as they would be with even odds at the places where calls change.

    CTCs are so rare that a cell may have to be as good as certain to be called one: there the model's even odds are
    elsewhere than its doubt. So the odds of a CTC are counted from the lowest probability that was still called one,
    and those between leukocyte and artefact from how many of each there are.

    Parameters
    ----------
    cells : DataFrame
        With `p_ctc`, `p_leukocyte`, `p_artefact`, and `call`, without which a CTC is one from 0.5 on.

    Returns
    -------
    ndarray of float64, shape (n, 3)
        In the order of `CLASSES`.
    """
    p = cells[[f"p_{name}" for name in CLASSES]].to_numpy(np.float64)
    called = p[(cells["call"] == CLASSES[0]).to_numpy(), 0] if "call" in cells else p[:0, 0]
    boundary = np.float64(called.min() if called.size else 0.5)
    ctc = 1 / (1 + np.exp(log_odds(boundary) - log_odds(p[:, 0])))
    others = p[:, 1:] / np.maximum(p[:, 1:].mean(axis=0), _SMALLEST_P) if len(p) else p[:, 1:]
    others = np.maximum(others, _SMALLEST_P)
    return np.column_stack([ctc, (1 - ctc)[:, None] * others / others.sum(axis=1, keepdims=True)])


def log_odds(p: Floats | np.float64) -> Any:
    """Logarithm of p / (1 - p), finite for 0 and 1 too."""
    clipped = np.clip(p, _SMALLEST_P, 1 - _SMALLEST_P)
    return np.log(clipped / (1 - clipped))


def margin(p: Floats) -> Floats:
    """Distance between the two likeliest classes in log odds: 0 where the model can't tell them apart.

    Parameters
    ----------
    p : ndarray of float64, shape (n, k)

    Returns
    -------
    ndarray of float64, shape (n,)

    Examples
    --------
    >>> margin(np.array([[0.5, 0.5, 0.0], [0.9, 0.05, 0.05]])).round(2).tolist()
    [0.0, 2.89]
    """
    ordered = np.sort(np.clip(p, _SMALLEST_P, 1), axis=1)
    return np.log(ordered[:, -1] / ordered[:, -2])


def cell_features(cells: pd.DataFrame) -> Floats:
    """What tells one kind of cell from another, each brought to a spread of one: markers, sizes and shape.

    Signals are taken on the arcsinh, as the network sees them, and sizes on the logarithm; middle and spread are by
    quantiles of these cells, so that a few odd ones don't set the scale.

    Parameters
    ----------
    cells : DataFrame
        Columns of cells.parquet. What is missing counts as in the middle.

    Returns
    -------
    ndarray of float64, shape (n, features)
    """
    signals = [np.arcsinh(cells[name].to_numpy(np.float64)) for name in cells if str(name).endswith("_snr")]
    lengths = [np.log1p(cells[name].to_numpy(np.float64)) for name in _LENGTHS if name in cells]
    shapes = [cells[name].to_numpy(np.float64) for name in _SHAPES if name in cells]
    return np.stack([_spread_of_one(column) for column in (*signals, *lengths, *shapes)], axis=1)


def is_feature(column: str) -> bool:
    """Tell whether a column of cells.parquet is one that `cell_features` uses."""
    return column.endswith("_snr") or column in (*_LENGTHS, *_SHAPES)


def gradients(p: Floats, features: Floats) -> Floats:
    """Gradients that the likeliest label would have on a last linear layer, (n, classes x (features + 1)).

    Examples
    --------
    >>> gradients(np.array([[1.0, 0.0], [0.6, 0.4]]), np.array([[2.0], [2.0]])).round(1).tolist()
    [[0.0, 0.0, 0.0, 0.0], [-0.8, -0.4, 0.8, 0.4]]
    """
    error = p - np.eye(p.shape[1])[p.argmax(axis=1)]
    with_constant = np.column_stack([features, np.ones(len(features))])
    return (error[:, :, None] * with_constant[:, None, :]).reshape(len(p), -1) + 0.0


def farthest_first(points: Floats, count: int) -> NDArray[np.intp]:
    """Order points: each next one is farthest from zero and from all before it (Gonzalez 1985, k-centre).

    Parameters
    ----------
    points : ndarray of float64, shape (n, d)
    count : int
        How many to take, at most n.

    Returns
    -------
    ndarray of intp, shape (count,)
        Takes time in proportion to n x d x count.

    Examples
    --------
    >>> farthest_first(np.array([[5.0, 0.0], [4.9, 0.0], [0.0, 1.0], [0.0, 0.0]]), 3).tolist()
    [0, 2, 1]
    """
    squares = (points**2).sum(axis=1)
    far = squares.copy()
    taken = np.empty(count, np.intp)
    for place in range(count):
        nearest = taken[place] = int(far.argmax())
        np.minimum(far, squares + squares[nearest] - 2 * (points @ points[nearest]), out=far)
        far[nearest] = -np.inf
    return taken


def _spread_of_one(values: Floats) -> Floats:
    known = values[np.isfinite(values)]
    if not known.size:
        return np.zeros(len(values))
    low, middle, high = np.quantile(known, [0.1, 0.5, 0.9])
    # A tenth and nine tenths of normal values lie 2.563 standard deviations apart.
    spread = (high - low) / 2.563 or float(known.std()) or 1.0
    return np.clip(np.nan_to_num((values - middle) / spread), -_FARTHEST, _FARTHEST)
