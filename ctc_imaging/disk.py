"""Room on the disk: what a run will need, whether it is there, and what a full or unwritable disk is called."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path

from ctc_imaging.errors import RunError, disk_fault

# A simulated slide of setting `dense` with 3,900 cells a square millimetre takes 1.04 bytes a pixel, most of it labels;
# `standard` with 1,500 takes .46. Two pictures of 1200 px a side take 8.6 MB if nothing can be compressed.
_RESULT_BYTES_PER_PX = 1.5
_PICTURE_BYTES = 10_000_000
_ELSEWHERE = "choose a folder that can be written to"


@dataclass(frozen=True)
class SlideSize:
    """The pixels of a slide that a run will work on: `shape` is (C, Y, X), each value of `itemsize` bytes.

    There are two `copies` of a remote slide while it is processed: as it was fetched, and decoded.
    """

    shape: tuple[int, int, int]
    itemsize: int
    copies: int = 1

    @property
    def scratch_bytes(self) -> int:
        """What the slide's working copy takes while it is processed."""
        return math.prod(self.shape) * self.itemsize * self.copies

    @property
    def result_bytes(self) -> int:
        """What the slide's results take in the end, at most, unless nearly all cells are candidates."""
        return int(self.shape[1] * self.shape[2] * _RESULT_BYTES_PER_PX) + _PICTURE_BYTES


def needed_bytes(slides: Iterable[SlideSize], workers: int) -> int:
    """Return how many bytes a run of these slides needs at once, at most.

    Parameters
    ----------
    slides : iterable of SlideSize
        Those still to do.
    workers : int
        How many are processed at a time: each has one working copy.
    """
    sizes = list(slides)
    scratch = sum(nlargest(workers, (size.scratch_bytes for size in sizes)))
    return scratch + sum(size.result_bytes for size in sizes)


def folder_bytes(folder: Path) -> int:
    """Return how many bytes the files below a folder hold; 0 where it isn't there."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_space(folder: Path, needed: int) -> None:
    """Check that a disk has room for `needed` more bytes.

    Raises
    ------
    RunError
        If the disk that `folder` is on, or will be on, has not.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    with disk_errors(folder):
        free = shutil.disk_usage(existing).free
    if free < needed:
        fault = f"the run needs about {_size(needed)}, {_size(free)} are free"
        raise RunError(folder, fault, "free some space or give another --out")


def check_writable(folder: Path) -> None:
    """Make a folder, unless it is there, and check that files can be written into it.

    Raises
    ------
    RunError
        If not.
    """
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"\0" * 4096)
        except OSError as error:
            if disk_fault(error):
                raise
            raise RunError(folder, f"can't be written to ({error.strerror or error})", _ELSEWHERE) from error


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Call by their names the faults of a disk that is full, failing or not to be written to.

    Raises
    ------
    RunError
        For such an OSError in the block; any other goes through as it is.
    """
    try:
        yield
    except OSError as error:
        known = disk_fault(error)
        if known is None:
            raise
        raise RunError(error.filename or where, *known) from error


def _size(count: float) -> str:
    """Write bytes as a person would, such as 12 GB or 3.4 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.1f} {unit}" if count < 9.95 and unit != "bytes" else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
