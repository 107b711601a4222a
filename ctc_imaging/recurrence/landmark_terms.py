"""What is known of each subject at a landmark: the marker's last value, its slope and mean, and the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctc_imaging.recurrence.follow_up import FollowUp

Summary = Literal["last", "slope", "mean"]


def known_at(
    history: FollowUp, landmark: float, markers: Sequence[str], summaries: Sequence[Summary] = ("last",)
) -> pd.DataFrame:
    """Summarise each subject's measurements up to a landmark.

    Parameters
    ----------
    history : FollowUp
        Measurements after the landmark are never read.
    landmark : float
    markers : sequence of str
        Columns of the longitudinal table, of numbers.
    summaries : sequence of {'last', 'slope', 'mean'}
        Column ``MARKER`` is the last value that isn't missing; ``MARKER_slope`` the least-squares slope per unit of
        time over all values, 0 for a subject with one value or all on one day; ``MARKER_mean`` their mean.

    Returns
    -------
    DataFrame
        Index of subjects, in the order of the event table; the summaries, NaN without a measurement, and the event
        table's other columns.
    """
    known = history.long[history.long[history.time] <= landmark]
    covariates = history.events.drop(columns=[history.event_time, history.event]).set_index(history.id)
    columns = {
        name: values for marker in markers for name, values in _summaries(known, history, marker, summaries).items()
    }
    table = covariates.drop(columns=[name for name in columns if name in covariates])
    return table.join(pd.DataFrame(columns, index=table.index))


def default_terms(table: pd.DataFrame, markers: Sequence[str], formula: str | None) -> str | list[str]:
    """Take the formula, or without one all summaries of the markers that the table has.

    Parameters
    ----------
    table : DataFrame
        As of `known_at`.
    markers : sequence of str
    formula : str or None

    Returns
    -------
    str or list of str
        Terms as of `fit_cox`.
    """
    if formula is not None:
        return formula
    made = {f"{marker}{suffix}" for marker in markers for suffix in ("", "_slope", "_mean")}
    return [str(name) for name in table if name in made]


def _summaries(
    known: pd.DataFrame, history: FollowUp, marker: str, summaries: Sequence[Summary]
) -> dict[str, pd.Series]:
    rows = known[[history.id, history.time, marker]].dropna()
    values = rows.groupby(history.id)[marker]
    found = {
        "last": lambda: values.last(),
        "mean": lambda: values.mean(),
        "slope": lambda: _slope(rows[history.id], rows[history.time], rows[marker]),
    }
    names = {"last": marker, "mean": f"{marker}_mean", "slope": f"{marker}_slope"}
    return {names[summary]: found[summary]().reindex(history.subjects) for summary in summaries}


def _slope(ids: pd.Series, time: pd.Series, value: pd.Series) -> pd.Series:
    centred = time - time.groupby(ids).transform("mean")
    products = pd.DataFrame({"cross": centred * value, "square": centred**2}).groupby(ids).sum()
    flat = products["square"] <= 0
    return (products["cross"] / products["square"].where(~flat, np.nan)).where(~flat, 0.0)
