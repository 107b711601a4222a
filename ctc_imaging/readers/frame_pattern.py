"""File names of fields by a pattern such as ``{channel}/Tile{index:06}.tif``, and the files that fit it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.frame_words import unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_KINDS = {
    "channel": r"[^/]+?",
    "index": r"\d+",
    "row": r"\d+",
    "column": r"\d+",
    **{f"{axis}_{unit}": _NUMBER for axis in "xy" for unit in ("um", "mm", "px")},
}
_WHOLE = ("index", "row", "column")
_TOKEN = re.compile(r"\{(?P<name>[^{}:]*)(?::0?(?P<digits>\d{1,2}))?\}|(?P<any>\*)|(?P<text>[^{}*]+)|(?P<brace>[{}])")
_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class FrameFile:
    """A file that fits the pattern, and what its name says: `channel` as text, all else as numbers."""

    path: Path
    values: Mapping[str, str | float]


@dataclass(frozen=True)
class FramePattern:
    """A pattern of file names, relative to the slide's folder.

    `names` are the fields in it: ``channel``, ``index``, ``row``, ``column``, ``x_um``, ``y_um`` (or mm, px).
    """

    text: str
    names: frozenset[str]
    segments: tuple[re.Pattern[str], ...]

    def files(self, folder: Path) -> tuple[list[FrameFile], int]:
        """Find the TIFF files that fit, in the order of their names, and count those beside them that don't."""
        found: list[FrameFile] = []
        strays = 0
        for path, values in _walk(folder, self.segments, {}):
            if values is None:
                strays += 1
            else:
                found.append(FrameFile(path, {name: _value(name, text) for name, text in values.items()}))
        return sorted(found, key=lambda file: file.path), strays

    def example(self, values: Mapping[str, str | float]) -> str:
        """Return the name of the file with these values, as far as the pattern tells it."""
        return _TOKEN.sub(lambda token: _written(token, values), self.text)


def parse_pattern(text: str, channels: Sequence[str] | None, where: str) -> FramePattern:
    """Compile a pattern of file names.

    Parameters
    ----------
    text : str
        Folders and a file name with fields in braces; ``{index:06}`` has at least six digits, ``*`` is any text.
    channels : sequence of str, optional
        The only texts that ``{channel}`` may stand for.
    where : str
        File and key, for errors.

    Returns
    -------
    FramePattern

    Raises
    ------
    SlideError
        If a field isn't known or stands twice, or the pattern leaves the folder.
    """
    check_inside(text, where)
    normal = unicodedata.normalize("NFC", text)
    names = [token["name"] for token in _TOKEN.finditer(normal) if token["name"] is not None]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SlideError(where, f"{{{twice[0]}}} stands twice in {text!r}", "use * for one of them")
    segments = [
        re.compile("".join(_regex(token, channels, where) for token in _TOKEN.finditer(segment)))
        for segment in PurePosixPath(normal).parts
    ]
    return FramePattern(text, frozenset(names), tuple(segments))


def check_inside(text: str, where: str) -> None:
    """Raise SlideError, naming `where`, if a path could leave the slide's folder."""
    posix, windows = PurePosixPath(text), PureWindowsPath(text)
    if not text or posix.is_absolute() or windows.drive or "\\" in text or ".." in posix.parts or "\0" in text:
        raise SlideError(where, f"{text!r} leaves the slide's folder", "write a path inside it, with / and without ..")


def _regex(token: re.Match[str], channels: Sequence[str] | None, where: str) -> str:
    name = token["name"]
    if token["brace"]:
        raise SlideError(where, f"{token.string!r} has an unpaired brace", "write fields like {index}")
    if name is None:
        return "[^/]*?" if token["any"] else re.escape(token["text"])
    if name not in _KINDS:
        raise unknown(where, f"{{{name}}}", "field", _KINDS)
    kind = _KINDS[name]
    if name == "channel" and channels is not None:
        kind = "|".join(re.escape(unicodedata.normalize("NFC", channel)) for channel in channels)
    if token["digits"]:
        if name not in _WHOLE:
            raise SlideError(where, f"{{{name}}} has no number of digits", f"write {{{name}}} alone")
        kind = rf"\d{{{int(token['digits'])},}}"
    return f"(?P<{name}>{kind})"


def _walk(
    folder: Path, segments: Sequence[re.Pattern[str]], values: dict[str, str]
) -> Iterator[tuple[Path, dict[str, str] | None]]:
    """Yield every TIFF file at the pattern's depth with its values, None if its name doesn't fit."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        fit = segments[0].fullmatch(unicodedata.normalize("NFC", path.name))
        if len(segments) > 1:
            if fit and path.is_dir():
                yield from _walk(path, segments[1:], values | fit.groupdict())
        elif path.suffix.lower() in _SUFFIXES and path.is_file():
            yield path, values | fit.groupdict() if fit else None


def _value(name: str, text: str) -> str | float:
    if name == "channel":
        return text
    return int(text) if name in _WHOLE else float(text)


def _written(token: re.Match[str], values: Mapping[str, str | float]) -> str:
    name = token["name"]
    if name not in values:
        return token[0]
    return f"{values[name]:0{token['digits']}d}" if token["digits"] else str(values[name])
