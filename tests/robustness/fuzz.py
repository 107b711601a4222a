"""Fuzzing: damaged slides and tables end in a result or in a typed error of one line, never in anything else.

python tests/robustness/fuzz.py --count 20000 --seed 0 --keep fuzz-findings
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import random
import resource
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fuzz_bases import make_bases
from fuzz_mutations import mutate_file, mutate_slide

SECONDS_A_CASE = 10
_CASES_A_PROCESS = 400
_ADDRESS_SPACE_BYTES = 4 * 2**30
_RESIDENT_BYTES = 3 * 2**29
# Beyond these a slide isn't read whole, only at its corners: its header may claim any size.
_PIXELS, _CHUNKS = 4_000_000, 4_000
_WINDOW_PX = 32
_TABLES_SHARE = 0.35
_FRAMES = 6
_LONGEST_LINE = 20_000


class TooSlow(BaseException):
    """A case takes too long; no Exception, so that nobody catches it."""


def cases(bases: Path, first: int, count: int, seed: int, work: Path) -> None:
    """Do a number of cases in this process, saying which one begins and what was found, a line of JSON each."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES))
    warnings.simplefilter("ignore")
    logging.disable()
    signal.signal(signal.SIGALRM, _too_slow)
    for number in range(first, first + count):
        _say({"case": number})
        path = make_case(bases, number, seed, work)
        finding = attempt(path)
        if finding:
            _say({"finding": finding, "case": number})


def make_case(bases: Path, number: int, seed: int, work: Path) -> Path:
    """Lay a damaged copy of a base, the same for the same number and seed, into a new folder."""
    draw = random.Random(f"{seed}-{number}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    is_table = draw.random() < _TABLES_SHARE
    base = draw.choice(sorted((bases / ("tables" if is_table else "slides")).iterdir()))
    path = work / base.name
    if base.is_dir():
        shutil.copytree(base, path)
    else:
        shutil.copy(base, path)
    (mutate_file if is_table else mutate_slide)(path, draw)
    return path


def attempt(path: Path) -> str | None:
    """Open and read one input; return what it did that it may not, or None."""
    from ctc_imaging.errors import CtcImagingError

    before = _peak_bytes()
    signal.setitimer(signal.ITIMER_REAL, SECONDS_A_CASE)
    try:
        read(path)
    except CtcImagingError as error:
        if "\n" in str(error) or len(str(error)) > _LONGEST_LINE or not error.remedy or not error.where:
            kind = f"{type(error).__name__} of {path.name} that isn't one short line of file, fault and remedy"
            return f"{kind}\n{len(str(error))} characters: {error!r:.300}"
    except (Exception, TooSlow) as error:  # noqa: BLE001 - anything at all is a finding
        return f"{_place_of(error)}\n{traceback.format_exc(limit=-_FRAMES)}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if _peak_bytes() - before > _RESIDENT_BYTES:
        return f"{path.name}: took {(_peak_bytes() - before) / 2**20:.0f} MiB"
    return None


def read(path: Path) -> None:
    """Load a table, known by its name, or open a slide and read its pixels."""
    from ctc_imaging import cohort
    from ctc_imaging.config import load_settings
    from ctc_imaging.panel import load_panel

    tables: dict[str, Callable[[Path], Any]] = {
        "cohort.csv": cohort.load_cohort,
        "clinical.csv": cohort.load_clinical,
        "imaging.csv": cohort.load_imaging,
        "markers.csv": cohort.load_markers,
        "schedule.yaml": cohort.load_schedule,
        "config.yaml": load_settings,
        "panel.yaml": load_panel,
    }
    tables.get(path.name, _read_slide)(path)


def _read_slide(path: Path) -> None:
    from ctc_imaging.slide import open_slide

    first = path / "c0.ome.tif"
    with open_slide(first if first.exists() else path) as slide:
        count, height, width = slide.shape
        high, wide = slide.chunk_shape_px
        chunks = count * math.ceil(height / high) * math.ceil(width / wide)
        if count * height * width <= _PIXELS and chunks <= _CHUNKS:
            slide.read(range(count), 0, height, 0, width)
            return
        for y0, x0 in ((0, 0), (max(0, height - _WINDOW_PX), max(0, width - _WINDOW_PX))):
            y1, x1 = min(height, y0 + _WINDOW_PX), min(width, x0 + _WINDOW_PX)
            slide.read(sorted({0, count - 1}), y0, y1, x0, x1)


def _place_of(error: BaseException) -> str:
    """Name an error by its kind and the innermost line of the package, so that the same fault has the same name."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "ctc_imaging" in frame.filename]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}"


def _too_slow(*_: object) -> None:
    raise TooSlow(f"more than {SECONDS_A_CASE} s")


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def fuzz(count: int, seed: int, folder: Path) -> Iterator[tuple[int, str]]:
    """Do cases 0 to `count` in child processes; yield the number of each finding and what it is."""
    number = 0
    while number < count:
        last = number
        for said in _child(folder, number, min(_CASES_A_PROCESS, count - number), seed):
            last = said["case"]
            if "finding" in said:
                yield last, said["finding"]
        number = last + 1


def _child(folder: Path, first: int, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what a child process says; the last is its death, if it didn't end by itself."""
    arguments = ["--child", str(first), "--count", str(count), "--seed", str(seed), "--folder", str(folder)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **threads},
    )
    last, end = first, ""
    with selectors.DefaultSelector() as selector, process:
        selector.register(process.stdout, selectors.EVENT_READ)
        buffer = b""
        while not end:
            if not selector.select(6 * SECONDS_A_CASE):
                process.kill()
                end = "hung in a library"
            elif part := os.read(process.stdout.fileno(), 1 << 16):
                *lines, buffer = (buffer + part).split(b"\n")
                for said in map(json.loads, lines):
                    last = said["case"]
                    yield said
            else:
                end = "ended"
        said = process.stderr.read().decode(errors="replace")
    if process.returncode:
        how = end if end != "ended" else f"the process died with {process.returncode}: {said[-1500:]}"
        yield {"case": last, "finding": how}


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz, and list each kind of finding once; 1 if there is any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the inputs of the first three findings of a kind")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child is not None:
        cases(options.folder / "bases", options.child, options.count, options.seed, options.folder / "work")
        return 0
    kinds: dict[str, list[tuple[int, str]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="ctc-fuzz-") as folder:
        make_bases(Path(folder) / "bases")
        for number, finding in fuzz(options.count, options.seed, Path(folder)):
            kind = finding.split("\n", 1)[0]
            kinds[kind].append((number, finding))
            if options.keep and len(kinds[kind]) <= 3:
                _keep(options.keep, Path(folder), number, options.seed, finding)
    for kind, found in sorted(kinds.items()):
        numbers = ", ".join(str(number) for number, _ in found[:5])
        sys.stdout.write(f"{len(found)} x {kind} (cases {numbers} of seed {options.seed})\n{found[0][1]}\n")
    total = sum(map(len, kinds.values()))
    sys.stdout.write(f"fuzz: {options.count} cases, seed {options.seed}, {total} findings of {len(kinds)} kinds\n")
    return 1 if kinds else 0


def _keep(keep: Path, folder: Path, number: int, seed: int, finding: str) -> None:
    place = keep / f"seed{seed}-case{number}"
    make_case(folder / "bases", number, seed, place)
    (place / "finding.txt").write_text(finding)


if __name__ == "__main__":
    sys.exit(main())
