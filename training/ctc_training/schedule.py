"""How long, how fast and on what shares to learn, from defaults or a YAML file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from ctc_imaging.errors import ConfigError
from ctc_imaging.tables import nearest
from ctc_imaging.yaml_text import parse_yaml

BALANCES = ("shares", "inverse", "effective", "none")
PRECISIONS = ("float32", "bfloat16")
_LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "crops_per_epoch": (1, 10_000_000),
    "batch": (2, 65_536),
    "learning_rate": (1e-8, 1.0),
    "weight_decay": (0.0, 10.0),
    "hard_weight": (0.0, 1e6),
    "threads": (1, 1024),
    "seed": (0, 2**31 - 1),
    "patience": (0, 10_000),
    "simulated_share": (0.0, 1.0),
}


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    Attributes
    ----------
    epochs : int
    crops_per_epoch : int
        Drawn with replacement.
    batch : int
    learning_rate, weight_decay : float
        Of AdamW (Loshchilov 2019, arXiv 1711.05101); the rate falls along a cosine.
    class_shares : tuple of float
        Share of CTCs, leukocytes and artefacts in what the network sees, where `balance` is ``shares``.
    hard_weight : float
        How much oftener a hard negative of a simulated slide is drawn than an easy one of its class.
    threads : int
    seed : int
    balance : str
        How often each class is drawn: in its ``shares``, ``inverse`` to its number (every class equally
        often), by the ``effective`` number of its crops (Cui 2019, CVPR), or ``none`` (as they come).
    patience : int
        Stop when the held-out loss hasn't fallen for so many epochs, and keep the best; 0 never stops.
    precision : str
        ``float32``, or ``bfloat16`` for the network's inner products.
    simulated_share : float
        Share of simulated crops in what the network sees, where reviewed ones are mixed with such.
    """

    epochs: int = 24
    crops_per_epoch: int = 60_000
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    class_shares: tuple[float, float, float] = (0.35, 0.35, 0.30)
    hard_weight: float = 5.0
    threads: int = 2
    seed: int = 0
    balance: str = "shares"
    patience: int = 0
    precision: str = "float32"
    simulated_share: float = 0.5


SMALL = Schedule(crops_per_epoch=1024)
"""For a few small slides, which prove that training works."""

FINE_TUNING = Schedule(epochs=8, crops_per_epoch=4096, learning_rate=2e-4, patience=3)
"""To go on from a model: short, slow, and no longer than the held-out cells gain by it."""


def default_architecture() -> dict[str, int]:
    """Return the network's arguments as it has them by itself."""
    from ctc_imaging.classification.network import CellNetwork

    return {name: argument.default for name, argument in inspect.signature(CellNetwork).parameters.items()}


def load_schedule(
    path: Path | None, start: Schedule, architecture: Mapping[str, int] | None = None
) -> tuple[Schedule, dict[str, int]]:
    """Read a schedule and the network's size from a YAML file.

    Parameters
    ----------
    path : Path, optional
        A mapping of names of `Schedule`, and `architecture`, a mapping of the network's arguments.
    start : Schedule
        Holds for what the file doesn't say.
    architecture : mapping, optional
        Of the model that training goes on from, which then can't be changed.

    Returns
    -------
    Schedule, dict

    Raises
    ------
    ConfigError
        If the file can't be read, a name isn't known or a value has no meaning.
    """
    values = _read(path) if path is not None else {}
    size = values.pop("architecture", None)
    _check_names(values, [field.name for field in fields(Schedule)], path)
    changed = {name: _value(name, value, path) for name, value in values.items()}
    if architecture is None:
        return replace(start, **changed), {**default_architecture(), **_architecture(size, path)}
    if size is not None and {**architecture, **_architecture(size, path)} != dict(architecture):
        remedy = "leave it out, or use --start none"
        raise ConfigError(f"{path}, architecture", "not that of the model training starts from", remedy)
    return replace(start, **changed), dict(architecture)


def as_notes(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as JSON values, for ``model.json``."""
    return {**asdict(schedule), "class_shares": list(schedule.class_shares)}


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(path, "no such file", "check the path given to --config") from error
    except ValueError as error:
        raise ConfigError(path, f"not YAML ({error})", "write lines like 'epochs: 8'") from error
    except OSError as error:
        raise ConfigError(path, f"can't be read ({error.strerror})", "check the path and its permissions") from error
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ConfigError(path, "not a list of settings", "write lines like 'epochs: 8'")
    return {str(name): value for name, value in raw.items()}


def _check_names(values: Mapping[str, Any], known: list[str], path: Path | None) -> None:
    for name in values:
        if name not in known:
            guess = nearest(str(name), known)
            remedy = f"did you mean {guess}?" if guess else f"known settings are {', '.join(known)}"
            raise ConfigError(f"{path}, {name}", "the setting isn't known", remedy)


def _value(name: str, value: Any, path: Path | None) -> Any:
    """Check one value of a schedule."""
    words = {"balance": BALANCES, "precision": PRECISIONS}.get(name)
    if words is not None:
        if value not in words:
            raise ConfigError(f"{path}, {name}", f"{value!r} isn't known", f"use one of {', '.join(words)}")
        return value
    if name == "class_shares":
        return _shares(value, path)
    whole = isinstance(getattr(Schedule, name), int)
    return _number(name, value, whole, _LIMITS[name], path)


def _shares(value: Any, path: Path | None) -> tuple[float, ...]:
    numbers = isinstance(value, list) and all(type(share) in (int, float) and share >= 0 for share in value)
    if not numbers or len(value) != 3 or sum(value) <= 0:
        where, remedy = f"{path}, class_shares", "write three like [0.35, 0.35, 0.3]"
        raise ConfigError(where, f"{value!r} isn't three shares", remedy)
    return tuple(float(share) / sum(value) for share in value)


def _number(name: str, value: Any, whole: bool, limits: tuple[float, float], path: Path | None) -> Any:
    # YAML takes 3e-4 for text: it wants 3.0e-4, which nobody writes.
    if isinstance(value, str) and not whole:
        value = _as_float(value)
    if type(value) not in ((int,) if whole else (int, float)):
        raise ConfigError(f"{path}, {name}", f"{value!r} isn't a {'whole ' if whole else ''}number", "write digits")
    low, high = limits
    if not low <= value <= high:
        raise ConfigError(f"{path}, {name}", f"{value} is out of range", f"use {low:g} to {high:g}")
    return value if whole else float(value)


def _as_float(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _architecture(size: Any, path: Path | None) -> dict[str, int]:
    """Check the network's arguments."""
    if size is None:
        return {}
    if not isinstance(size, Mapping):
        raise ConfigError(f"{path}, architecture", f"{size!r} has no names", "write 'architecture: {width: 24}'")
    known = list(default_architecture())
    _check_names({str(name): value for name, value in size.items()}, known, path)
    return {str(name): _number(f"architecture, {name}", value, True, (1, 4096), path) for name, value in size.items()}
