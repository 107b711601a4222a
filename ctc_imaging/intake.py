"""Intake: a scan's bytes hashed and every chunk decoded once, into a working copy that all later steps read."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.errors import CtcImagingError, SlideError
from ctc_imaging.exposure import Exposure
from ctc_imaging.files import sha256_json
from ctc_imaging.readers.remote import connect, faults, forget, is_remote, stage, stamp
from ctc_imaging.slide import Slide, open_slide
from ctc_imaging.working_copy import begin_copy, finish_copy

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK_BYTES = 2**20


def scan_files(scan: Path) -> tuple[Path, ...]:
    """Return every file whose bytes make up a scan, or all there is where it can't be read as a slide.

    Raises
    ------
    SlideError
        If there is nothing.
    """
    connect(scan)
    try:
        with open_slide(scan) as slide:
            return slide.files
    except SlideError:
        if not scan.exists():
            raise
        return (scan,) if not scan.is_dir() else tuple(sorted(path for path in scan.rglob("*") if path.is_file()))


def fingerprint(scan: Path, files: tuple[Path, ...] | None = None) -> str:
    """Sum up names, sizes and times of a scan's files: while it stays the same, the scan needn't be read again.

    Empty for a remote scan whose server tells nothing by which a change could be seen.

    Parameters
    ----------
    scan : Path
    files : tuple of Path, optional
        As from `scan_files`, for those who know them already.
    """
    named = list(_named(scan, files or scan_files(scan)))
    with _readable(scan):
        if is_remote(scan):
            forget(scan)
        stamps = [(name, stamp(path)) for name, path in named]
    return "" if any(len(told) == 1 for _, told in stamps) else sha256_json([[name, *told] for name, told in stamps])


def scan_sha256(scan: Path, files: tuple[Path, ...] | None = None) -> str:
    """SHA-256 of a scan's bytes as hex: of its file, or of its files' names and bytes in the order of the names."""
    digest = hashlib.sha256()
    for name, path in _named(scan, files or scan_files(scan)):
        digest.update(name.encode())
        with _readable(scan), path.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def at_hand(scan: Path, files: tuple[Path, ...], folder: Path) -> Iterator[tuple[Path, str]]:
    """Have a scan on a local disk for the length of a block: a remote one is copied, each of its bytes read once.

    Parameters
    ----------
    scan : Path
    files : tuple of Path
        As from `scan_files`.
    folder : Path
        To be made for the copy, and removed again.

    Yields
    ------
    Path, str
        Where the scan lies, and its SHA-256 as `scan_sha256` gives it.

    Raises
    ------
    SlideError
        If it can't be read. Errors of the block name the scan, not its copy.
    """
    if not is_remote(scan):
        yield scan, scan_sha256(scan, files)
        return
    folder.mkdir()
    copy, sha256 = stage(scan, files, folder)
    try:
        yield copy, sha256
    except CtcImagingError as error:
        raise type(error)(error.where.replace(str(copy), str(scan)), error.fault, error.remedy) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def take_in(scan: Slide, channels: Mapping[str, int], folder: Path) -> dict[str, Exposure]:
    """Decode every chunk of a scan once, and lay the wanted channels into a folder (see `working_copy`).

    Parameters
    ----------
    scan : Slide
        Its channels that aren't wanted are decoded too: a damaged scan is refused whole.
    channels : mapping of str to int
        Short names to the scan's channels; the working copy has them in this order.
    folder : Path
        To be made; see `working_copy.open_copy`.

    Returns
    -------
    dict of str to Exposure
        By short name.

    Raises
    ------
    SlideError
        If a chunk is missing, damaged, or holds values that aren't finite.
    """
    folder.mkdir()
    ranges: dict[int, Exposure] = {}
    with ExitStack() as stack:
        planes = {}
        for short, channel in channels.items():
            planes[channel] = plane = begin_copy(folder, short, scan.shape[1:], scan.dtype)
            stack.callback(os.close, plane.file)
        for channel, y0, x0, chunk in _chunks(scan):
            if channel in planes:
                planes[channel].put(chunk, y0, x0)
                ranges[channel] = _widened(ranges.get(channel), chunk)
    finish_copy(folder, scan, list(channels))
    return {short: ranges[channel] for short, channel in channels.items()}


@contextmanager
def _readable(scan: Path) -> Iterator[None]:
    try:
        yield
    except faults() as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise SlideError(scan, f"can't be read ({reason})", "check that it is there, and its permissions") from error


def _chunks(scan: Slide) -> Iterator[tuple[int, int, int, NDArray]]:
    """Yield (channel, y0, x0, pixels) of every chunk, all channels of a place together: they may share its bytes."""
    _, height, width = scan.shape
    grids: dict[tuple[int, int], list[int]] = {}
    for channel, shape in enumerate(scan.chunk_shapes_px):
        grids.setdefault(shape, []).append(channel)
    for (high, wide), together in grids.items():
        for y0, x0 in product(range(0, height, high), range(0, width, wide)):
            for channel in together:
                pixels = scan.read([channel], y0, min(y0 + high, height), x0, min(x0 + wide, width))
                yield channel, y0, x0, pixels[0]


def _widened(known: Exposure | None, chunk: NDArray) -> Exposure:
    low, high = float(chunk.min()), float(chunk.max())
    known = known or Exposure(low, high, 0, 0)
    top = max(known.maximum, high)
    at_top = int(np.count_nonzero(chunk == chunk.dtype.type(top))) if high == top else 0
    before = known.at_maximum if known.maximum == top else 0
    return Exposure(min(known.minimum, low), top, before + at_top, known.pixels + chunk.size)


def _named(scan: Path, files: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """Name files relative to the scan's folder, so that a scan moved whole stays the same."""
    folder = scan.parent if scan in files else scan
    for path in files:
        yield path.relative_to(folder).as_posix() if path != scan else "", path
