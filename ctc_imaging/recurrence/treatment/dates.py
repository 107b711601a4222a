"""When adjuvant treatment began: counts from after its start are marked, and follow-up is cut there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError

if TYPE_CHECKING:
    from ctc_imaging.recurrence.follow_up import FollowUp

ON_TREATMENT = "on_treatment"
_START, _KIND = "adjuvant_start_date", "adjuvant_kind"


def treatment_start(follow_up: FollowUp, column: str | None = None) -> pd.Series:
    """Find each subject's first day of adjuvant treatment.

    Parameters
    ----------
    follow_up : FollowUp
    column : str, optional
        Column of the event table with the time of the start, empty for who had no treatment. Without it the
        start is `adjuvant_start_date` less `surgery_date`, as in clinical.csv.

    Returns
    -------
    Series of float64
        By subject, on the follow-up's clock: inf for who had no treatment, NaN for who had one of unknown start.

    Raises
    ------
    StatisticsError
        If the table doesn't tell.
    """
    events = follow_up.events
    needed = (column,) if column is not None else (_START, "surgery_date")
    if missing := [name for name in needed if name not in events]:
        remedy = "give adjuvant_start_date in the clinical table, or name the column of an event table"
        raise StatisticsError("effect of treatment", f"the event table has no column {missing[0]}", remedy)
    if column is not None:
        start = pd.to_numeric(events[column], errors="coerce").astype("float64")
    else:
        start = _days(events[_START], events["surgery_date"])
    start = start.fillna(np.inf)
    if column is None and _KIND in events:
        named = events[_KIND].fillna("").astype(str).str.strip() != ""
        start = start.mask(named & np.isinf(start))
    return pd.Series(start.to_numpy(), index=follow_up.subjects, name="start")


def mark_on_treatment(follow_up: FollowUp, start: pd.Series) -> FollowUp:
    """Mark the measurements taken under treatment, so that models can take them as such.

    A sample of the day of the start was drawn before it. Treatment once begun counts to the end: what it changed in
    the counts doesn't end with its last dose.

    Parameters
    ----------
    follow_up : FollowUp
    start : Series of float64
        As of `treatment_start`.

    Returns
    -------
    FollowUp
        `long` has the further column ``on_treatment``: 0 or 1, NaN where the start isn't known.
    """
    began = follow_up.long[follow_up.id].map(start)
    marked = (follow_up.long[follow_up.time] > began).astype("float64").mask(began.isna())
    return replace(follow_up, long=follow_up.long.assign(**{ON_TREATMENT: marked}))


def split_at_start(rows: pd.DataFrame, start: pd.Series, id: str = "patient_id") -> pd.DataFrame:
    """Cut start-stop rows at the start of treatment, as a time-varying Cox model needs them.

    Parameters
    ----------
    rows : DataFrame
        `id`, `start`, `stop`, `event` and any terms, as of `cox.start_stop`.
    start : Series of float64
        As of `treatment_start`; subjects whose start isn't known are left out.
    id : str
        The subjects' column.

    Returns
    -------
    DataFrame
        The same with ``on_treatment`` (0 or 1), which holds from after the start on.
    """
    began = rows[id].map(start)
    rows, began = rows[began.notna()], began.dropna()
    crossed = (rows["start"] < began) & (began < rows["stop"])
    before = rows.assign(stop=rows["stop"].where(~crossed, began), event=rows["event"] & ~crossed)
    before[ON_TREATMENT] = (rows["start"] >= began).astype("float64")
    after = rows[crossed].assign(start=began[crossed], **{ON_TREATMENT: 1.0})
    return pd.concat([before, after]).sort_values([id, "start"], kind="stable", ignore_index=True)


def _days(dates: pd.Series, since: pd.Series) -> pd.Series:
    return (pd.to_datetime(dates) - pd.to_datetime(since)).dt.days.astype("float64")
