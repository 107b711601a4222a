"""A lock file that keeps two runs out of one folder and that no crash can leave behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctc_imaging.errors import RunError

if sys.platform == "win32":
    import msvcrt

    def _try_lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for the length of the block; the system drops it if the process dies.

    Raises
    ------
    RunError
        If another process holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            _try_lock(handle)
        except (BlockingIOError, PermissionError) as error:
            raise RunError(path.parent, "another run is at work in this folder", "wait for its end") from error
        yield
    finally:
        os.close(handle)
