"""What the proofs share: the command to start, the results that may not differ, and what it may say."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

COMMAND = (sys.executable, "-c", "import sys; from ctc_imaging.cli import main; sys.exit(main())")
TABLES = ("counts.csv", "slides.csv", "timeline.csv")
_SAYS = re.compile(r"ctc-imaging: .+|\d+ of \d+ .+")


def results(run: Path) -> dict[str, str]:
    """Hash what must be the same however a run came about."""
    files = [*run.glob("slides/[!.]*/cells.parquet"), *(run / name for name in TABLES)]
    return {path.relative_to(run).as_posix(): sha256(path) for path in sorted(files) if path.is_file()}


def differences(run: Path, undisturbed: dict[str, str]) -> list[str]:
    """Name the results that differ from those of an undisturbed run, or are missing or too many."""
    found = results(run)
    names = sorted({*found, *undisturbed})
    return [f"{name} differs" for name in names if found.get(name) != undisturbed.get(name)]


def tree_hash(folder: Path) -> str:
    """Hash the names and bytes of all files in a folder."""
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}" for path in folder.rglob("*") if path.is_file()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def slide_states(run: Path) -> dict[str, tuple[str, str]]:
    """Read state and reason of every slide, as anyone with SQLite can; none where there is no ledger yet."""
    ledger = run / "ledger.sqlite"
    if not ledger.is_file():
        return {}
    with closing(sqlite3.connect(ledger, timeout=30)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'slides'").fetchone():
            return {}
        rows = connection.execute("SELECT slide_id, state, reason FROM slides").fetchall()
    return {slide_id: (state, reason) for slide_id, state, reason in rows}


def done(run: Path) -> list[str]:
    """List the slides that the ledger says are done."""
    return [slide_id for slide_id, (state, _) in slide_states(run).items() if state == "done"]


def complaints(code: int, stderr: str) -> list[str]:
    """Name what a command did that no command may: another exit code, a traceback, text without a sender."""
    found = [] if code in (0, 1, 2, 130) else [f"exit code {code}"]
    strange = [line for line in stderr.splitlines() if line and not _SAYS.fullmatch(line)]
    if strange:
        found.append(f"standard error holds {strange[0]!r} and {len(strange) - 1} more such lines")
    if code in (1, 2) and not re.search(r"error: .+; |failed: .+", stderr):
        found.append(f"exit code {code} with no reason given")
    return found
