"""Reading the tables a laboratory types: tolerant of how they were saved, strict on what they say."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ctc_imaging.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_DELIMITERS = ",;\t"
_MISSING = frozenset({"na", "n/a", "nan"})
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"([+-]?[0-9]+),([0-9]+)")
_YEARS = range(1900, 2200)


@dataclass(frozen=True)
class Row:
    """One row of a table, with its line in the file (the header is line 1).

    `values` holds stripped text; ``NA``, ``N/A`` and ``NaN`` are read as missing, like an empty field.
    """

    path: Path
    line: int
    values: Mapping[str, str]
    decimal_comma: bool = False

    def error(self, column: str, fault: str, remedy: str) -> TableError:
        """Make the error that names the file, this row and the column."""
        return TableError(f"{self.path}, row {self.line}, column {column}", fault, remedy)

    def text(self, column: str) -> str | None:
        """Return the text of a field, or None where it is missing."""
        return self.values.get(column) or None

    def required(self, column: str) -> str:
        """Return the text of a field that can't be missing.

        Raises
        ------
        TableError
            If it is missing.
        """
        value = self.text(column)
        if value is None:
            raise self.error(column, "the value is missing", "fill it in")
        return value

    def choice(self, column: str, allowed: Collection[str]) -> str | None:
        """Return one of the `allowed` words, or None where the field is missing.

        Raises
        ------
        TableError
            If the field holds another word.
        """
        value = self.text(column)
        if value is not None and value not in allowed:
            raise self.error(column, f"{value!r} isn't known", f"use one of {', '.join(allowed)}")
        return value

    def number(self, column: str) -> float | None:
        """Return a finite number, or None where the field is missing.

        A decimal comma is read where commas don't separate the columns.

        Raises
        ------
        TableError
            If the field isn't a number, or could be one of two.
        """
        value = self.text(column)
        if value is None:
            return None
        comma = _DECIMAL_COMMA.fullmatch(value) if self.decimal_comma else None
        if comma and len(comma[2]) == 3:
            raise self.error(column, f"{value!r} may mean thousands or decimals", "write it with a decimal point")
        plain = f"{comma[1]}.{comma[2]}" if comma else value
        if not _NUMBER.fullmatch(plain) or not math.isfinite(float(plain)):
            raise self.error(column, f"{value!r} isn't a number", "write digits with a decimal point, no unit")
        return float(plain)

    def positive(self, column: str) -> float | None:
        """Return a number above zero, or None where the field is missing.

        Raises
        ------
        TableError
            If the field isn't a number above zero.
        """
        value = self.number(column)
        if value is not None and value <= 0:
            raise self.error(column, f"{self.values[column]!r} isn't above zero", "write the measured value")
        return value

    def count(self, column: str) -> int | None:
        """Return a whole number from zero up, or None where the field is missing.

        Raises
        ------
        TableError
            If the field isn't such a number.
        """
        value = self.number(column)
        if value is None:
            return None
        if value < 0 or value != int(value):
            raise self.error(column, f"{self.values[column]!r} isn't a whole number from 0 up", "write a count")
        return int(value)

    def iso_date(self, column: str) -> date | None:
        """Return an ISO 8601 date (a time of day is dropped), or None where the field is missing.

        Raises
        ------
        TableError
            If the field isn't such a date between 1900 and 2199.
        """
        value = self.text(column)
        if value is None:
            return None
        try:
            day = datetime.fromisoformat(value).date()
        except ValueError as error:
            raise self.error(column, f"{value!r} isn't a date", "write it like 2024-03-05 (ISO 8601)") from error
        if day.year not in _YEARS:
            raise self.error(column, f"the year of {value!r} can't be meant", "write it like 2024-03-05 (ISO 8601)")
        return day

    def required_date(self, column: str) -> date:
        """Return a date that can't be missing.

        Raises
        ------
        TableError
            If it is missing or no date.
        """
        self.required(column)
        return cast("date", self.iso_date(column))


@dataclass(frozen=True)
class Table:
    """A table as text: its columns in the order of the file, and its rows."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(path: Path, required: Iterable[str], optional: Iterable[str] | None = None) -> Table:
    """Read a table separated by commas, semicolons or tabs, in UTF-8 with or without BOM.

    Parameters
    ----------
    path : Path
        The file.
    required : iterable of str
        Columns that must be there.
    optional : iterable of str, optional
        Columns that may be there; any other one is an error. By default every further column is read.

    Returns
    -------
    Table

    Raises
    ------
    TableError
        If the file can't be read, its rows don't fit its header, or a column is missing or unknown.
    """
    path = Path(path)
    text = _decode(path)
    delimiter = _delimiter(text)
    lines = _split(path, text, delimiter)
    if not lines:
        raise TableError(path, "the table is empty", "give it a header and one row each")
    header = _header(path, lines[0][1])
    _check_columns(path, header, tuple(required), None if optional is None else tuple(optional))
    rows = tuple(_row(path, line, header, fields, delimiter != ",") for line, fields in lines[1:])
    return Table(path, tuple(name for name in header if name), rows)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is probably a misspelling of, if any."""
    folded = {re.sub(r"[^a-z0-9]", "", word.lower()): word for word in known}
    hits = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", name.lower()), folded, n=1, cutoff=0.6)
    return folded[hits[0]] if hits else None


def check_unique(table: Table, column: str, keys: Iterable[str]) -> None:
    """Check that no two rows have one key.

    Parameters
    ----------
    table : Table
        The table.
    column : str
        The column to name in the error.
    keys : iterable of str
        One key a row.

    Raises
    ------
    TableError
        At the second row with the same key.
    """
    first: dict[str, Row] = {}
    for row, key in zip(table.rows, keys, strict=True):
        if key in first:
            fault = f"{row.text(column) or key!r} is already in row {first[key].line}"
            raise row.error(column, fault, "give each row its own")
        first[key] = row


def _decode(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise TableError(path, "no such file", "check the path") from error
    except OSError as error:
        raise TableError(path, f"can't be read ({error.strerror})", "check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise TableError(path, "not UTF-8 text", "save it as CSV UTF-8") from error
    if "\0" in text:
        raise TableError(path, "not UTF-8 text", "save it as CSV UTF-8")
    return text


def _delimiter(text: str) -> str:
    """Choose the separator that the header uses most; a comma where there is one column only."""
    header = re.split(r"[\r\n]", re.sub(r'"[^"]*"', "", text.lstrip("\r\n")), maxsplit=1)[0]
    return max(_DELIMITERS, key=header.count)


def _split(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Split the text into (line number, fields), leaving blank rows out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[tuple[int, list[str]]] = []
    end = 0
    try:
        for fields in reader:
            start, end = end + 1, reader.line_num
            if any(field.strip() for field in fields):
                lines.append((start, [field.strip() for field in fields]))
    except csv.Error as error:
        raise TableError(
            f"{path}, row {end + 1}", f"not a table ({error})", "check its quotes and save it as CSV"
        ) from error
    return lines


def _header(path: Path, fields: list[str]) -> list[str]:
    named = [name for name in fields if name]
    for name in named:
        if named.count(name) > 1:
            raise TableError(f"{path}, column {name}", "the column is there twice", "keep one of them")
    return fields


def _check_columns(path: Path, header: list[str], required: tuple[str, ...], optional: tuple[str, ...] | None) -> None:
    known = required + (optional or ())
    unknown = [name for name in header if name and name not in known]
    missing = [name for name in required if name not in header]
    if unknown and optional is not None:
        guess = nearest(unknown[0], known)
        remedy = f"did you mean {guess}?" if guess else f"known columns are {', '.join(known)}"
        raise TableError(f"{path}, column {unknown[0]}", "the column isn't known", remedy)
    if missing:
        guess = nearest(missing[0], unknown)
        remedy = f"is it the column {guess}?" if guess else "add it"
        raise TableError(path, f"the column {missing[0]} is missing", remedy)


def _row(path: Path, line: int, header: list[str], fields: list[str], decimal_comma: bool) -> Row:
    width = len(header)
    extra = [field for field in fields[width:] if field]
    unnamed = [field for name, field in zip(header, fields, strict=False) if field and not name]
    if len(fields) < width or extra or unnamed:
        fault = f"the row has {len(fields)} fields, the header has {sum(map(bool, header))}"
        raise TableError(f"{path}, row {line}", fault, "quote text that holds the separator, or complete the row")
    values = {
        name: "" if field.lower() in _MISSING else field for name, field in zip(header, fields, strict=False) if name
    }
    return Row(path, line, values, decimal_comma)
