"""Turn the tables' codes and raw numbers into what a person reads on the page."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas as pd

MISSING = "–"

LABELS = {
    "persistently_negative": "stayed negative",
    "turned_positive": "turned positive",
    "turned_negative": "turned negative",
    "persistently_positive": "stayed positive",
    "not_assessable": "not assessable",
    "not_due": "not due",
    "not_distinguishable": "unclear",
    "ctc": "CTC",
}
MARKERS = {"dapi": "DAPI", "ck": "CK", "vim": "Vimentin", "cd45": "CD45", "epcam": "EpCAM", "twist": "Twist"}


def label(code: Any) -> str:
    """Words for a code of the tables; a dash where it is missing."""
    if is_missing(code):
        return MISSING
    return LABELS.get(str(code), str(code).replace("_", " "))


def term(name: str) -> str:
    """Words for a term of a model; a base-2 logarithm is read by its doublings.

    Examples
    --------
    >>> term("log2(1 + CTC in 5 mL)"), term("tumour_size")
    ('each doubling of 1 + CTC in 5 mL', 'tumour size')
    """
    logarithm = re.fullmatch(r"log2\((.*)\)", name)
    return f"each doubling of {logarithm[1]}" if logarithm else label(name)


def marker(short: str) -> str:
    """A channel's short name as it is printed on a slide (``ck`` is CK)."""
    return MARKERS.get(short, short.upper())


def is_missing(value: Any) -> bool:
    """Tell whether a table's cell is empty."""
    return bool(pd.isna(value)) or value == ""


def number(value: Any, digits: int = 2) -> str:
    """A number to `digits` significant figures, and as many decimals at most; a dash where it is missing.

    Examples
    --------
    >>> number(0.7377), number(0.8001), number(12.0), number(73569.6), number(None), number(0.0051)
    ('0.74', '0.80', '12', '73,570', '–', '<0.01')
    """
    if is_missing(value):
        return MISSING
    value = float(value)
    if not math.isfinite(value):
        return "not estimable"
    if value == int(value):
        return f"{value:,.0f}"
    rounded = float(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    least = 10.0**-digits
    return f"<{least:g}" if 0 < value < least else f"{value:,.{min(decimals, digits)}f}"


def whole(value: Any) -> str:
    """A count with thousands separated; a dash where it is missing, never 0."""
    return MISSING if is_missing(value) else f"{int(value):,}"


def percent(value: Any, digits: int = 0) -> str:
    """A fraction as a percentage; a dash where it is missing."""
    if is_missing(value):
        return MISSING
    return f"{100 * float(value):.{digits}f} %"


def limits(low: Any, high: Any) -> str:
    """An interval from `low` to `high`, as in ``0.13–1.8``."""
    return MISSING if is_missing(low) or is_missing(high) else f"{number(low)}–{number(high)}"


def per_ml(row: pd.Series) -> str:
    """CTCs per mL of a row of counts with their exact Poisson limits; zero keeps its upper limit."""
    if is_missing(row["ctc_per_ml"]):
        return MISSING
    return f"{number(row['ctc_per_ml'])} ({limits(row['ctc_per_ml_low'], row['ctc_per_ml_high'])})"


def p_value(value: Any) -> str:
    """A p-value as clinical journals print it."""
    if is_missing(value):
        return MISSING
    return "p < 0.001" if float(value) < 0.001 else f"p = {float(value):.{3 if float(value) < 0.1 else 2}f}"


def interval(days: Any) -> str:
    """A span of days in the unit a clinic uses: days to 2 weeks, then months of 30.44 days.

    Examples
    --------
    >>> interval(7), interval(30), interval(730), interval(-3)
    ('day 7', '1 month', '24 months', 'day -3')
    """
    if is_missing(days):
        return MISSING
    if abs(float(days)) < 14:
        return f"day {int(days)}"
    months = f"{float(days) / 30.4375:.1f}".removesuffix(".0")
    return f"{months} month{'' if months == '1' else 's'}"


def plural(count: int, noun: str) -> str:
    """A count with its noun, as in ``1 slide`` and ``2 slides``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
