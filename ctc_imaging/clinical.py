"""The tables beside the cohort (clinical, imaging, markers, schedule), checked before they are used."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ctc_imaging.errors import ConfigError, TableError
from ctc_imaging.tables import Row, Table, check_unique, read_table
from ctc_imaging.yaml_text import parse_yaml

if TYPE_CHECKING:
    from datetime import date

IMAGING_RESULTS = ("negative", "positive", "equivocal")
CLINICAL_DATES = (
    "surgery_date",
    "last_contact_date",
    "recurrence_date",
    "death_date",
    "adjuvant_start_date",
    "adjuvant_end_date",
    "withdrawal_date",
    "transplant_date",
)
CLINICAL_TEXTS = ("recurrence_site", "adjuvant_kind")

_CLINICAL_REQUIRED = ("patient_id", *CLINICAL_DATES[:4])
# Each pair must stand in this order where both dates are known.
_CLINICAL_ORDER = (
    ("surgery_date", "recurrence_date"),
    ("surgery_date", "last_contact_date"),
    ("recurrence_date", "last_contact_date"),
    ("last_contact_date", "death_date"),
    ("surgery_date", "adjuvant_start_date"),
    ("adjuvant_start_date", "adjuvant_end_date"),
    ("surgery_date", "withdrawal_date"),
    ("surgery_date", "transplant_date"),
)


@dataclass(frozen=True)
class Visit:
    """A planned blood sample: `day` since surgery, and how many days early or late it may be."""

    name: str
    day: int
    early_days: int
    late_days: int

    def covers(self, day: float) -> bool:
        """Say whether a sample on this day is this visit's."""
        return self.day - self.early_days <= day <= self.day + self.late_days


@dataclass(frozen=True)
class Schedule:
    """The planned visits, in the order of their days; their windows don't overlap."""

    visits: tuple[Visit, ...]


def load_clinical(path: Path) -> pd.DataFrame:
    """Read clinical.csv, one row a patient.

    Parameters
    ----------
    path : Path
        The table.

    Returns
    -------
    DataFrame
        `patient_id` and texts as str, dates as datetime64, every further column a covariate (float64 if
        all of its values are numbers). A missing last contact is the day of death.

    Raises
    ------
    TableError
        If a patient is there twice, a date is missing that is needed, or dates contradict each other.
    """
    table = read_table(Path(path), _CLINICAL_REQUIRED)
    _check_misspelt(table, (*_CLINICAL_REQUIRED, *CLINICAL_DATES, *CLINICAL_TEXTS))
    check_unique(table, "patient_id", [row.required("patient_id") for row in table.rows])
    dates = [_clinical_dates(row) for row in table.rows]
    columns: dict[str, Any] = {"patient_id": [row.required("patient_id") for row in table.rows]}
    for name in table.columns:
        if name in CLINICAL_DATES:
            columns[name] = _datetimes([known[name] for known in dates])
        elif name != "patient_id":
            columns[name] = _covariate(table, name)
    return pd.DataFrame(columns)


def load_imaging(path: Path) -> pd.DataFrame:
    """Read imaging.csv, one row a visit.

    Parameters
    ----------
    path : Path
        The table.

    Returns
    -------
    DataFrame
        `patient_id`, `imaging_date` (datetime64), `modality`, `result`.

    Raises
    ------
    TableError
        If a value is missing or unknown, or a visit is there twice.
    """
    table = read_table(Path(path), ("patient_id", "imaging_date", "modality", "result"))
    return _events(
        table,
        {
            "patient_id": lambda row: row.required("patient_id"),
            "imaging_date": lambda row: row.required_date("imaging_date"),
            "modality": lambda row: row.text("modality") or "",
            "result": lambda row: row.required("result") and row.choice("result", IMAGING_RESULTS),
        },
        key=("patient_id", "imaging_date", "modality"),
    )


def load_markers(path: Path) -> pd.DataFrame:
    """Read markers.csv, one row a measurement.

    Parameters
    ----------
    path : Path
        The table.

    Returns
    -------
    DataFrame
        `patient_id`, `date` (datetime64), `marker`, `value` (float64, in the laboratory's unit).

    Raises
    ------
    TableError
        If a value is missing or isn't a number, or a measurement is there twice.
    """
    table = read_table(Path(path), ("patient_id", "date", "marker", "value"))
    return _events(
        table,
        {
            "patient_id": lambda row: row.required("patient_id"),
            "date": lambda row: row.required_date("date"),
            "marker": lambda row: row.required("marker"),
            "value": lambda row: row.required("value") and row.number("value"),
        },
        key=("patient_id", "date", "marker"),
    )


def load_schedule(path: Path) -> Schedule:
    """Read schedule.yaml: a list of visits, each with `name`, `day` and `window_days` [early, late].

    Parameters
    ----------
    path : Path
        The YAML file. ``window_days: [3, 7]`` allows 3 days early and 7 days late, as does ``[-3, 7]``.

    Returns
    -------
    Schedule

    Raises
    ------
    ConfigError
        If the file isn't such a list, or two windows overlap.
    """
    path = Path(path)
    remedy = "write a list of visits like {name: 1 month, day: 30, window_days: [7, 14]}"
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(path, f"can't be read ({error.strerror})", "check the path") from error
    except ValueError as error:
        raise ConfigError(path, "not YAML", remedy) from error
    try:
        listed = raw["visits"] if isinstance(raw, Mapping) else raw
        visits = sorted((_visit(item) for item in listed), key=lambda visit: visit.day)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(path, f"the schedule is malformed ({error!r})", remedy) from error
    for before, after in pairwise(visits):
        if before.day + before.late_days >= after.day - after.early_days:
            raise ConfigError(path, f"the windows of {before.name} and {after.name} overlap", "make one shorter")
    return Schedule(tuple(visits))


def _visit(item: Mapping[str, Any]) -> Visit:
    unknown = set(item) - {"name", "day", "window_days"}
    if unknown:
        raise KeyError(*sorted(unknown))
    early, late = item["window_days"]
    numbers = (item["day"], early, late)
    if any(not isinstance(number, int) or isinstance(number, bool) for number in numbers):
        raise TypeError(f"days must be whole numbers: {reprlib.repr(numbers)}")
    if late < 0:
        raise ValueError(f"a window ends before its visit: {reprlib.repr(item['window_days'])}")
    return Visit(str(item["name"]), item["day"], abs(early), late)


def _clinical_dates(row: Row) -> dict[str, date | None]:
    """Read one patient's dates and check that none comes before one it can't precede."""
    dates = {name: row.iso_date(name) for name in CLINICAL_DATES}
    dates["last_contact_date"] = dates["last_contact_date"] or dates["death_date"]
    for name in ("surgery_date", "last_contact_date"):
        if dates[name] is None:
            raise row.error(name, "the value is missing", "fill it in")
    for before, after in _CLINICAL_ORDER:
        earlier, later = dates[before], dates[after]
        if earlier and later and later < earlier:
            raise row.error(after, f"{later} is before {before} {earlier}", "correct the one or the other")
    return dates


def _check_misspelt(table: Table, known: Iterable[str]) -> None:
    """A covariate may have any name, but not one that is all but a known column's."""
    for name in table.columns:
        close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.93)
        if close and name != close[0]:
            raise TableError(f"{table.path}, column {name}", "the column isn't known", f"did you mean {close[0]}?")


def _covariate(table: Table, name: str) -> pd.Series:
    texts = [row.text(name) for row in table.rows]
    try:
        return pd.Series([row.number(name) for row in table.rows], dtype="float64")
    except TableError:
        return pd.Series(texts, dtype="object")


def _events(table: Table, readers: Mapping[str, Callable[[Row], Any]], key: Sequence[str]) -> pd.DataFrame:
    columns = {name: [read(row) for row in table.rows] for name, read in readers.items()}
    check_unique(table, key[1], [str(values) for values in zip(*(columns[name] for name in key), strict=True)])
    return pd.DataFrame({name: _datetimes(values) if "date" in name else values for name, values in columns.items()})


def _datetimes(dates: Sequence[date | None]) -> pd.Series:
    return pd.Series(pd.to_datetime(pd.Series(list(dates), dtype="object")), dtype="datetime64[ns]")
