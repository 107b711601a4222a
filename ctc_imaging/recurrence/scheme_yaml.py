"""Schemes read from YAML, strictly: a key that isn't known, or a value without meaning, is an error that says so."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ctc_imaging.errors import ConfigError
from ctc_imaging.recurrence.scheme import Condition, Pattern, Risk, Sample, Scheme
from ctc_imaging.timeline import PATTERNS
from ctc_imaging.yaml_text import parse_yaml

_REMEDY = "compare it with docs/decision.md"
_KEYS = {"name", "suggests", "decision_day", "horizon_day", "if", "source"}


def shipped_schemes() -> list[str]:
    """Names of the schemes that come with the package."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load_scheme(name: str | Path) -> Scheme:
    """Load a shipped scheme by name, or one's own from a YAML file.

    Parameters
    ----------
    name : str or Path
        A name such as ``ctc-positive-1-month``, or the path of a YAML file.

    Returns
    -------
    Scheme

    Raises
    ------
    ConfigError
        If there is no such scheme, or the file is malformed.
    """
    if str(name) in shipped_schemes():
        return parse_scheme((_folder() / f"{name}.yaml").read_text(encoding="utf-8"), str(name))
    path = Path(name)
    try:
        return parse_scheme(path.read_text(encoding="utf-8-sig"), path)
    except OSError as error:
        remedy = f"use a YAML file or one of {', '.join(shipped_schemes())}"
        raise ConfigError(name, "no such scheme", remedy) from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, "not UTF-8 text", "save the scheme as UTF-8 YAML") from error


def parse_scheme(text: str, where: str | Path) -> Scheme:
    """Parse a scheme's YAML text.

    Raises
    ------
    ConfigError
        If a key is missing, unknown or has a value without meaning.
    """
    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(where, f"not YAML ({error})", _REMEDY) from error
    try:
        return _scheme(raw)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        fault = f"has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(where, f"the scheme is malformed: {fault}", _REMEDY) from error


def _folder() -> Any:
    return resources.files("ctc_imaging") / "recurrence" / "schemes"


def _scheme(raw: Any) -> Scheme:
    _check_keys(raw, _KEYS, "the scheme")
    listed, any_of = raw["if"], False
    if isinstance(listed, Mapping) and len(listed) == 1 and set(listed) <= {"any", "all"}:
        any_of, listed = "any" in listed, next(iter(listed.values()))
    if not isinstance(listed, list) or not listed:
        raise ValueError("if isn't a list of conditions, nor any: or all: with one")
    decision, horizon = _number(raw, "decision_day"), _number(raw, "horizon_day")
    if not 0 <= decision < horizon:
        raise ValueError("decision_day must be 0 or later, and horizon_day after it")
    conditions = tuple(_condition(entry, decision) for entry in listed)
    name, suggests, source = (_text(raw, key) for key in ("name", "suggests", "source"))
    return Scheme(name, suggests, decision, horizon, conditions, any_of, source)


def _condition(raw: Any, decision: float) -> Condition:
    if isinstance(raw, Mapping) and "risk_at_least" in raw:
        _check_keys(raw, {"risk_at_least"}, "the condition")
        least = _number(raw, "risk_at_least")
        if not 0 < least < 1:
            raise ValueError(f"risk_at_least is {least:g}, not between 0 and 1")
        return Risk(least)
    if isinstance(raw, Mapping) and "pattern" in raw:
        _check_keys(raw, {"pattern"}, "the condition")
        return Pattern(_patterns(raw["pattern"]))
    return _sample(raw, decision)


def _sample(raw: Any, decision: float) -> Sample:
    _check_keys(raw, {"marker", "is", "at_least", "volume_ml", "day", "window_days"}, "the condition")
    if ("is" in raw) == ("at_least" in raw):
        raise ValueError("a condition on a sample has either is: or at_least:")
    early, late = raw["window_days"]
    window = {"early": early, "late": late}
    early, late = abs(_number(window, "early")), _number(window, "late")
    day = _number(raw, "day")
    if late < 0:
        raise ValueError("a window ends before its day")
    if day + late > decision:
        raise ValueError(f"the window of day {day:g} ends after decision_day: the scheme would look ahead")
    return Sample(
        _text(raw, "marker"),
        _text(raw, "is") if "is" in raw else None,
        _number(raw, "at_least") if "at_least" in raw else None,
        _number(raw, "volume_ml") if "volume_ml" in raw else None,
        day,
        early,
        late,
    )


def _patterns(raw: Any) -> tuple[str, ...]:
    names = (raw,) if isinstance(raw, str) else tuple(raw)
    if unknown := [str(name) for name in names if name not in PATTERNS.values()]:
        raise ValueError(f"{unknown[0]} is no pattern; there are {', '.join(PATTERNS.values())}")
    return names


def _check_keys(raw: Any, known: set[str], what: str) -> None:
    if not isinstance(raw, Mapping):
        raise TypeError(f"{what} isn't a list of keys with values")
    if unknown := sorted(map(str, set(raw) - known)):
        raise ValueError(f"{what} has the unknown key {unknown[0]}")


def _number(raw: Mapping[str, Any], name: str) -> float:
    value = raw[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise TypeError(f"{name} isn't a number")
    return float(value)


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = raw[name]
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{name} isn't a text")
    return value.strip()
