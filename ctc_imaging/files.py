"""Writing files so that no reader ever sees half of one, and hashing them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

TEMPORARY = ".writing-"
"""How the names of files begin that aren't whole yet, or never will be."""


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`, moved onto it when the block succeeds.

    Parameters
    ----------
    target : Path
        Where the finished file shall stand. Its folder is made if needed.

    Yields
    ------
    Path
        A path in the same folder, with the same suffix, to write to.

    Raises
    ------
    OSError
        If the disk is full, fails or can't be written to; then `target` is whole, as before or new.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f"{TEMPORARY}{target.stem}-", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        sync_file(temporary)
        temporary.replace(target)
    except BaseException:
        # What the block failed of matters more to the user than rubbish that can't be removed.
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Have the system write a file to disk now."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Have the system write a folder's list of names to disk now: only then does a rename outlive a power cut."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network disks know no such call.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Have the system write a folder and all that lies in it to disk now."""
    for inside in (*path.rglob("*"), path):
        if inside.is_file():
            sync_file(inside)
        else:
            sync_folder(inside)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(target: Path, value: Any) -> None:
    """Write a JSON value atomically, keys in the order given, indented."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(target: Path, table: pd.DataFrame) -> None:
    """Write a table atomically as comma-separated UTF-8 without its index."""
    write_text(target, table.to_csv(index=False, lineterminator="\n"))


def write_parquet(target: Path, table: pd.DataFrame) -> None:
    """Write a table atomically as Parquet without its index."""
    with atomic_path(target) as temporary:
        table.to_parquet(temporary, index=False)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files in the order of their names, as hex."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file != path:
            digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces), as hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
