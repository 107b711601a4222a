"""The settings of a run: defaults, overridden by a YAML file, overridden by options."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ctc_imaging.errors import ConfigError
from ctc_imaging.files import sha256_json
from ctc_imaging.tables import nearest
from ctc_imaging.yaml_text import parse_yaml

# The smallest value with a meaning. A tile must hold several of the largest cells.
_LOWEST = {"seed": 0, "tile_px": 256, "landmark_day": 0, "horizon_days": 1}


@dataclass(frozen=True)
class Settings:
    """Everything that may change a run's figures, apart from its input.

    `panel` is a shipped panel's name or the path of a YAML file, `model` a classifier's name, `nuclei` that of what
    finds the nuclei (a network, or ``classical``). Lengths are pixels, times days since surgery: curves start at
    `landmark_day` and end at `horizon_days`.

    Raises
    ------
    ConfigError
        If a value has the wrong type or no meaning.
    """

    panel: str = "emt-4"
    model: str = "default"
    nuclei: str = "nuclei"
    seed: int = 0
    tile_px: int = 2048
    landmark_day: int = 30
    horizon_days: int = 730

    def __post_init__(self) -> None:
        _check(asdict(self), "settings")

    @property
    def hash(self) -> str:
        """SHA-256 of the settings as hex, without those that are hashed by content, not by name."""
        return sha256_json(self.plain)

    @property
    def plain(self) -> dict[str, Any]:
        """The settings that aren't the name of something with a content of its own."""
        return {name: value for name, value in asdict(self).items() if name not in ("panel", "model", "nuclei")}


def load_settings(path: Path | None = None, **overrides: Any) -> Settings:
    """Read settings from a YAML file, if there is one, and override them by those given.

    Parameters
    ----------
    path : Path, optional
        A YAML mapping of names of `Settings` to values; a relative path of a panel in it is relative
        to its folder.
    **overrides
        Settings by name; None means not given.

    Returns
    -------
    Settings

    Raises
    ------
    ConfigError
        If the file can't be read, a key is unknown or a value has no meaning.
    """
    values = _read(Path(path)) if path is not None else {}
    given = {name: value for name, value in overrides.items() if value is not None}
    _check(given, "options")
    return Settings(**{**values, **given})


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(path, "no such file", "check the path given to --config") from error
    except ValueError as error:
        raise ConfigError(path, f"not YAML ({error})", "write lines like 'seed: 1'") from error
    except OSError as error:
        raise ConfigError(path, f"can't be read ({error.strerror})", "check the path and its permissions") from error
    if raw is None:
        return {}
    if not isinstance(raw, Mapping):
        raise ConfigError(path, "not a list of settings", "write lines like 'seed: 1'")
    values = {str(name): value for name, value in raw.items()}
    _check(values, path)
    panel = values.get("panel")
    # A name too long for a file is none of a file.
    with suppress(OSError):
        if panel is not None and (path.parent / panel).is_file():
            values["panel"] = str(path.parent / panel)
    return values


def _check(values: Mapping[str, Any], where: str | Path) -> None:
    kinds = {field.name: str(field.type) for field in fields(Settings)}
    for name, value in values.items():
        if name not in kinds:
            guess = nearest(name, kinds)
            remedy = f"did you mean {guess}?" if guess else f"known settings are {', '.join(kinds)}"
            raise ConfigError(f"{where}, {name}", "the setting isn't known", remedy)
        if kinds[name] == "str" and not (isinstance(value, str) and value):
            raise ConfigError(f"{where}, {name}", f"{reprlib.repr(value)} isn't a name", "write a name or a path")
        if kinds[name] == "int" and (not isinstance(value, int) or isinstance(value, bool)):
            raise ConfigError(f"{where}, {name}", f"{reprlib.repr(value)} isn't a whole number", "write digits only")
        if name in _LOWEST and value < _LOWEST[name]:
            raise ConfigError(f"{where}, {name}", f"{value} is too small", f"use at least {_LOWEST[name]}")
    landmark_day, horizon_days = values.get("landmark_day"), values.get("horizon_days")
    if landmark_day is not None and horizon_days is not None and landmark_day >= horizon_days:
        raise ConfigError(f"{where}, horizon_days", "the horizon isn't after the landmark", "make it later")
