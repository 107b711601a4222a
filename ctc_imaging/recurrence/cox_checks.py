"""What makes a Cox model impossible, named before it is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.linalg import qr

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.concordance import compared_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.partial_likelihood import PartialLikelihood

_SHOWN = 3
_RANK_TOLERANCE = 1e-9


def check_intervals(
    start: NDArray[np.float64] | None,
    stop: NDArray[np.float64],
    event: NDArray[np.bool_],
    ids: pd.Series | None,
    model: str,
) -> None:
    """Refuse rows that nobody can have lived through.

    Parameters
    ----------
    start, stop : ndarray of float64, shape (n,)
        Intervals (start, stop]; without `start` all begin together.
    event : ndarray of bool, shape (n,)
    ids : Series or None
        Whose interval it is.
    model : str
        The model's name, for errors.

    Raises
    ------
    StatisticsError
        If a time is missing, an interval is empty, nobody has the event, or one subject's intervals overlap.
    """
    if not np.isfinite(stop).all() or (start is not None and np.isnan(start).any()):
        raise StatisticsError(model, "a time is missing or infinite", "correct these rows, or leave them out")
    if start is not None and (empty := int((start >= stop).sum())):
        fault = f"{empty} interval(s) end before they begin, or at once"
        raise StatisticsError(model, fault, "give every row a stop after its start")
    if not event.any():
        raise StatisticsError(model, "nobody has the event", "follow more patients for longer")
    if ids is not None:
        _check_overlaps(start, stop, ids, model)


def check_terms(likelihood: PartialLikelihood, spread: NDArray[np.float64], names: Sequence[str], model: str) -> None:
    """Refuse covariates whose hazard ratio the data can't tell.

    Parameters
    ----------
    likelihood : PartialLikelihood
        Of the covariates, centred.
    spread : ndarray of float64, shape (k,)
        Standard deviation of each.
    names : sequence of str
        Of each.
    model : str
        The model's name, for errors.

    Raises
    ------
    StatisticsError
        If a covariate is constant, follows from others, or tells the event apart completely.
    """
    remedy = "leave it out"
    for name, own, column in zip(names, spread, likelihood.design.T, strict=True):
        if own == 0:
            raise StatisticsError(model, f"{name} is the same in all rows", remedy)
        if fault := _separation(likelihood, column):
            raise StatisticsError(model, f"{name} {fault}", f"{remedy}, or gather more events")
    if dependent := _dependent(likelihood.design):
        listed = ", ".join(names[i] for i in dependent)
        raise StatisticsError(model, f"{listed} follows exactly from the other covariates", remedy)


def _check_overlaps(start: NDArray[np.float64] | None, stop: NDArray[np.float64], ids: pd.Series, model: str) -> None:
    rows = pd.DataFrame({"id": ids.to_numpy(), "stop": stop, "start": -np.inf if start is None else start})
    rows = rows.sort_values(["id", "start", "stop"], kind="stable")
    before = rows.groupby("id", sort=False).shift()
    twice = (rows[["start", "stop"]] == before[["start", "stop"]]).all(axis=1)
    remedy = "give each subject intervals that follow one another"
    for wrong, words in ((twice, "the same interval twice"), (rows["start"] < before["stop"], "overlapping intervals")):
        if wrong.any():
            raise StatisticsError(model, f"{_some(rows.loc[wrong, 'id'])} has {words}", remedy)


def _separation(likelihood: PartialLikelihood, column: NDArray[np.float64]) -> str:
    """Say that a covariate is never, or always, the greatest or smallest of those at risk when the event happens."""
    ends_with_event = np.zeros(len(column), bool)
    ends_with_event[likelihood.dead] = True
    # Numbers of event times are a clock of their own, on which strata follow one another.
    greater, _, less = compared_pairs(column, likelihood.last, ends_with_event, likelihood.first)
    tied = pd.Series(column[likelihood.dead]).groupby(likelihood.dead_time).nunique().max() > 1
    if not (greater.any() or less.any() or tied):
        return "is the same in all who are at risk together whenever the event happens"
    if tied or (greater.any() and less.any()):
        return ""
    which = "lowest" if greater.any() else "highest"
    return f"tells the event apart completely: it is always the {which} of those at risk, so its ratio has no limit"


def _dependent(design: NDArray[np.float64]) -> list[int]:
    diagonal, order = qr(design, mode="r", pivoting=True, check_finite=False)
    size = np.abs(np.diag(diagonal))
    return sorted(order[: len(size)][size < _RANK_TOLERANCE * size[0]]) if len(size) else []


def _some(values: pd.Series) -> str:
    distinct = [str(value) for value in values.drop_duplicates()]
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(distinct[:_SHOWN]) + more
