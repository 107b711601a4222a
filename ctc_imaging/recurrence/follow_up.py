"""Subjects under observation: repeated measurements in one table, the end of follow-up in another, one clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import TableError
from ctc_imaging.recurrence.survival import recurrence_free_times
from ctc_imaging.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctc_imaging.tables import Table

_SHOWN = 3
_YES_NO = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
LONG, EVENTS = "the longitudinal table", "the event table"


@dataclass(frozen=True)
class FollowUp:
    """Measurements and events of the same subjects, checked.

    Parameters
    ----------
    long : DataFrame
        One row a measurement: the columns `id` and `time`, and any others. In order of subject and time.
    events : DataFrame
        One row a subject: `id`, `event_time` (float64), `event` (bool: whether follow-up ended with the event),
        and baseline covariates. The order of subjects is this table's.
    id, time, event_time, event : str
        Names of the columns; both times on one clock that starts at 0.
    time_unit : str
        What the times are counted in, for words and pictures.
    notes : tuple of str
        A sentence for whatever was left out.
    where : str
        Where the tables come from, for errors.

    Raises
    ------
    TableError
        If a column is missing, a subject has two events, a time is missing, negative or infinite, or measurements
        belong to nobody.
    """

    long: pd.DataFrame
    events: pd.DataFrame
    id: str
    time: str
    event_time: str
    event: str
    time_unit: str = "days"
    notes: tuple[str, ...] = ()
    where: str = field(default="follow-up", compare=False)

    def __post_init__(self) -> None:
        _check_columns(self.long, (self.id, self.time), f"{self.where}: {LONG}")
        _check_columns(self.events, (self.id, self.event_time, self.event), f"{self.where}: {EVENTS}")
        events = _checked_events(self)
        long, notes = _checked_rows(self, events)
        object.__setattr__(self, "events", events)
        object.__setattr__(self, "long", long)
        object.__setattr__(self, "notes", (*self.notes, *notes))

    @property
    def subjects(self) -> pd.Index:
        """The subjects, in the order of the event table."""
        return pd.Index(self.events[self.id], name=self.id)

    def subset(self, ids: Iterable[object]) -> FollowUp:
        """Keep some subjects.

        Parameters
        ----------
        ids : iterable
            Which.

        Returns
        -------
        FollowUp
        """
        wanted = set(ids)
        long, events = (table[table[self.id].isin(wanted)] for table in (self.long, self.events))
        return replace(self, long=long, events=events, notes=())

    def at(self, landmark: float) -> FollowUp:
        """Keep what is known at a landmark: subjects still at risk after it, measurements up to it.

        Parameters
        ----------
        landmark : float
            On the clock of both tables.

        Returns
        -------
        FollowUp
        """
        at_risk = self.events[self.events[self.event_time] > landmark]
        known = self.long[self.long[self.id].isin(at_risk[self.id]) & (self.long[self.time] <= landmark)]
        return replace(self, long=known, events=at_risk, notes=())


def follow_up_of_tables(
    long_path: Path, events_path: Path, *, id: str, time: str, event_time: str, event: str
) -> FollowUp:
    """Read any longitudinal table and any event table.

    Parameters
    ----------
    long_path, events_path : Path
        Tables separated by commas, semicolons or tabs; columns of numbers become float64, others text.
    id, time, event_time, event : str
        Columns: the subject (in both), time of measurement, end of follow-up, whether that was the event (0 or 1).

    Returns
    -------
    FollowUp

    Raises
    ------
    TableError
        If a table can't be read, or doesn't say what is needed.
    """
    long = _typed(read_table(Path(long_path), (id, time)), (id,))
    events = _typed(read_table(Path(events_path), (id, event_time, event)), (id,))
    where = f"{long_path}, {events_path}"
    return FollowUp(long, events, id, time, event_time, event, time_unit=f"units of {time}", where=where)


def follow_up_of_run(timeline: pd.DataFrame, clinical: pd.DataFrame) -> FollowUp:
    """Lay a run's samples beside its patients' recurrence-free survival.

    Parameters
    ----------
    timeline : DataFrame
        As of `timeline.build_timeline`; samples that weren't taken or can't be assessed are left out.
    clinical : DataFrame
        As of `cohort.load_clinical`.

    Returns
    -------
    FollowUp
        Columns `patient_id`, `day`, and in the event table `days` and `event` (recurrence or death of any cause).
    """
    done = timeline[(timeline["visit_status"] == "done") & timeline["day"].notna()]
    done = done.assign(day=done["day"].astype("float64"))
    times = recurrence_free_times(clinical).reset_index()
    known = times.dropna(subset=["days"]).merge(clinical, on="patient_id")
    seen = known[known["patient_id"].isin(timeline["patient_id"])]
    outsiders = done.loc[~done["patient_id"].isin(seen["patient_id"]), "patient_id"].nunique()
    notes = (f"{outsiders} patient(s) with samples aren't in the clinical table.",) if outsiders else ()
    done = done[done["patient_id"].isin(seen["patient_id"])]
    columns = {"id": "patient_id", "time": "day", "event_time": "days", "event": "event"}
    return FollowUp(done, seen, **columns, notes=notes, where="run")


def _check_columns(table: pd.DataFrame, needed: tuple[str, ...], where: str) -> None:
    if missing := [name for name in needed if name not in table]:
        raise TableError(where, f"has no column {missing[0]}", f"it has {', '.join(map(str, table.columns[:12]))}")


def _checked_events(given: FollowUp) -> pd.DataFrame:
    events = given.events.reset_index(drop=True)
    where = f"{given.where}: {EVENTS}"
    if len(events) == 0:
        raise TableError(where, "holds nobody", "give it one row a subject")
    if (double := events[given.id].duplicated()).any():
        raise TableError(where, f"{_some(events.loc[double, given.id])} stands there twice", "give each one row")
    times = _numbers(events[given.event_time], given.event_time, where)
    if bad := _some(events.loc[~((times >= 0) & np.isfinite(times)), given.id]):
        fault = f"{given.event_time} of {bad} is missing, negative or infinite"
        raise TableError(where, fault, "correct it, or leave them out")
    event = _numbers(events[given.event], given.event, where)
    if not event.isin([0.0, 1.0]).all():
        raise TableError(where, f"{given.event} isn't 0 or 1 for everybody", "write 1 for the event, 0 for none")
    return events.assign(**{given.event_time: times, given.event: event == 1.0})


def _checked_rows(given: FollowUp, events: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Put the measurements in order, and leave out those from after the end of follow-up."""
    where = f"{given.where}: {LONG}"
    times = _numbers(given.long[given.time], given.time, where)
    long = given.long.assign(**{given.time: times}).reset_index(drop=True)
    if bad := _some(long.loc[times.isna().to_numpy(), given.id]):
        raise TableError(where, f"{given.time} of a measurement of {bad} is missing", "fill it in, or leave it out")
    ends = long[given.id].map(events.set_index(given.id)[given.event_time])
    if bad := _some(long.loc[ends.isna(), given.id]):
        raise TableError(where, f"{bad} isn't in the event table", "give everybody a row there")
    late = long[given.time] > ends
    place = pd.Series(np.arange(len(events)), index=events[given.id])
    order = np.lexsort((long[given.time], long[given.id].map(place)))
    notes = [f"{int(late.sum())} measurement(s) from after the end of follow-up are left out."] if late.any() else []
    return long.iloc[order][~late.iloc[order].to_numpy()].reset_index(drop=True), notes


def _numbers(values: pd.Series, column: str, where: str) -> pd.Series:
    if values.dtype == object or isinstance(values.dtype, pd.StringDtype):
        words = values.astype(str).str.strip().str.lower()
        values = words.map(_YES_NO).where(words.isin(_YES_NO), values)
    try:
        return pd.to_numeric(values).astype("float64")
    except (ValueError, TypeError) as error:
        raise TableError(where, f"column {column} isn't all numbers ({error})", "write numbers only") from error


def _typed(table: Table, texts: tuple[str, ...]) -> pd.DataFrame:
    columns = {}
    for name in table.columns:
        values = pd.Series([row.values.get(name) or None for row in table.rows], dtype="object")
        columns[name] = values if name in texts else _covariate(values)
    return pd.DataFrame(columns)


def _covariate(values: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    return values if (numbers.isna() & values.notna()).any() else numbers.astype("float64")


def _some(ids: pd.Series) -> str:
    """Name a few subjects, or nobody."""
    distinct = [str(value) for value in ids.drop_duplicates()]
    more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
    return ", ".join(distinct[:_SHOWN]) + more
