"""Free text (reasons, log lines, what workers print) without the names, ids and paths that tell a patient."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from ctc_imaging.errors import CtcImagingError

_PATIENCE_SECONDS = 5.0
# How many characters of a reason workers keep.
_CUT_AT = 500
# Letters of alphabets that write words apart; others, such as Chinese, know no edge of a word.
_LETTER = "0-9A-Za-zÀ-ÖØ-öø-ɏͰ-ӿ\u0300-\u036f"
# Figures, units, and what a sentence is full of.
_AMBIGUOUS = re.compile(r"[0-9.,:+-]{1,5}|[A-Za-z]{1,2}|.", re.DOTALL)
# The rest of a path; a file's name ends where our errors and Python's go on.
_DEEPER = r"(?:[/\\][^\n'\":;,|<>]*)?"
# Words of our own messages: a folder of this name tells nothing, and replacing them would make no message readable.
_PLAIN_WORDS = """
slide slides scan scans image images img sample samples patient patients blank blanks donor donors spiked control
controls stain cohort cohorts clinical imaging markers schedule panel panels channel channels data dataset study
input inputs output run runs raw tif tiff ome zarr csv home user users mnt media srv var tmp temp opt root private
volumes share shared server lab work worker workers file files folder done failed ctc cell cells dapi ck vim
cd45 frame frames field fields tile tiles position
"""
_PLAIN = frozenset(_PLAIN_WORDS.split())


class Scrubber:
    """Replaces names and paths in a text; one without any leaves every text as it is.

    Names are replaced as whole words, whatever their case. Where a name could as well be a figure or a word of our
    own (``7``, ``slide``), only in quotes, as a part of a path, or behind "patient", "sample" or "slide".

    Parameters
    ----------
    names : mapping of str to str
        Ids, names of files and folders, and what stands in their place.
    paths : mapping of str to str
        Paths, replaced with all that lies beneath.
    """

    def __init__(self, names: Mapping[str, str] | None = None, paths: Mapping[str, str] | None = None) -> None:
        needles: dict[str, tuple[str, str]] = {}
        for path, replacement in (paths or {}).items():
            for spelling in _spellings(path):
                needles.setdefault(_folded(spelling), (_whole(spelling) + _DEEPER, replacement))
        for name, replacement in (names or {}).items():
            for spelling in _spellings(name):
                needles.setdefault(_folded(spelling), (_pattern(spelling), replacement))
        self._needles = sorted(needles.items(), key=lambda needle: len(needle[0]), reverse=True)

    def __bool__(self) -> bool:
        """Whether there is anything to replace."""
        return bool(self._needles)

    def __call__(self, text: str) -> str:
        """Return the text with everything replaced."""
        folded = _folded(text)
        # A regular expression of all names would try each at each place: this finds the few that can be there.
        found = [needle for folded_name, needle in self._needles if folded_name in folded]
        if not found:
            return text
        pattern = re.compile("|".join(f"({name})" for name, _ in found), re.IGNORECASE)
        return pattern.sub(lambda match: found[(match.lastindex or 1) - 1][1], text)

    def cut(self, text: str) -> str:
        """Return a reason, which may have been cut short, also without the beginning of a name at its end."""
        for start in range(len(text) if len(text) >= _CUT_AT else 0):
            end = _folded(text[start:])
            if len(end) > 2 and any(name.startswith(end) for name, _ in self._needles):
                return f"{self(text[:start])}…"
        return self(text)

    @contextmanager
    def errors(self, rows: Mapping[str, int]) -> Iterator[None]:
        """Let no error out of the block that quotes a name; a slide is named by its row of the cohort table.

        Parameters
        ----------
        rows : mapping of str to int
            Lines of the table by slide id.
        """
        try:
            yield
        except CtcImagingError as error:
            if not self:
                raise
            where = self(error.where)
            row = f" (row {rows[where]} of the cohort table)" if where in rows else ""
            raise type(error)(where + row, self(error.fault), self(error.remedy)) from None
        except OSError as error:
            if not self or error.filename is None:
                raise
            raise type(error)(error.errno, error.strerror, self(os.fsdecode(error.filename))) from None

    @contextmanager
    def output(self, log: Path) -> Iterator[Path]:
        """Give workers a file to print to, from which all comes into the log.

        Their lines pass through memory only: killed at any moment, this leaves none of them anywhere.

        Parameters
        ----------
        log : Path

        Yields
        ------
        Path
            The log itself where there is nothing to replace. Systems without named pipes lose what workers print.
        """
        if not self:
            yield log
        elif not hasattr(os, "mkfifo"):
            yield Path(os.devnull)
        else:
            with tempfile.TemporaryDirectory(prefix="ctc-imaging-") as folder, _pipe(Path(folder), log, self) as pipe:
                yield pipe


class ScrubbedFormatter(logging.Formatter):
    """Formats log records with message and traceback scrubbed; time and level stay as they are."""

    def __init__(self, layout: str, scrub: Callable[[str], str]) -> None:
        super().__init__(layout)
        self._scrub = scrub

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Scrub a record's message before it is laid out."""
        record.message = self._scrub(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """Scrub a traceback."""
        return self._scrub(super().formatException(ei))  # type: ignore[arg-type]


@contextmanager
def _pipe(folder: Path, log: Path, scrub: Callable[[str], str]) -> Iterator[Path]:
    pipe = folder / "output"
    os.mkfifo(pipe, 0o600)
    # Opened for reading alone, a pipe waits for its first writer, and ends with its last: here that is this block.
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(pipe, os.O_WRONLY)
    os.set_blocking(reading, True)
    thread = threading.Thread(target=_copy, args=(reading, log, scrub), daemon=True)
    thread.start()
    try:
        yield pipe
    finally:
        os.close(writing)
        thread.join(_PATIENCE_SECONDS)


def _copy(reading: int, log: Path, scrub: Callable[[str], str]) -> None:
    with os.fdopen(reading, "rb") as lines, log.open("ab", buffering=0) as target:
        for line in lines:
            text = scrub(line.decode(errors="surrogateescape"))
            # A full disk mustn't stop the reading: workers would wait for ever to print.
            with suppress(OSError):
                target.write(text.encode(errors="replace"))


def _spellings(text: str) -> set[str]:
    """List how programs write a text: composed and decomposed, escaped, and as part of a URL."""
    forms = {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}
    return {
        spelling
        for form in forms
        for spelling in (form, form.replace("\\", "\\\\"), ascii(form)[1:-1], quote(form, errors="surrogateescape"))
        if spelling.strip()
    }


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _pattern(name: str) -> str:
    """Return the regular expression of a name where it can be meant."""
    if not _AMBIGUOUS.fullmatch(name) and name.casefold() not in _PLAIN:
        return _whole(name)
    before = r"(?:(?<=['\"])|(?<![0-9][/\\])(?<=[/\\])|(?<=patient )|(?<=sample )|(?<=slide ))"
    return rf"{before}{_escaped(name)}(?=['\"/\\,;:\s]|$)"


def _whole(name: str) -> str:
    """Return the regular expression of a name that isn't a part of a longer word or number."""
    if re.fullmatch(r"[0-9.,]+", name):
        # A figure is as often written to a word (MRN1234567) as behind a space.
        return rf"(?<![0-9])(?<![0-9][.,]){_escaped(name)}(?![0-9])(?![.,][0-9])"
    before = f"(?<![{_LETTER}])" if re.match(f"[{_LETTER}]", name) else ""
    after = f"(?![{_LETTER}])" if re.search(f"[{_LETTER}]$", name) else ""
    return f"{before}{_escaped(name)}{after}"


def _escaped(name: str) -> str:
    return r"\s+".join(re.escape(word) for word in name.split())
