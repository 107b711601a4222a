"""Fault injection: calls that change a run's files fail in turn, and nothing half-written may ever be trusted.

python tests/robustness/faults.py                     every call of a small pretended batch, once each
python tests/robustness/faults.py --points 30         some of them, spread over the batch
python tests/robustness/faults.py --real --points 20  the real pipeline on one simulated slide
"""

from __future__ import annotations

import argparse
import errno
import json
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from runs import COMMAND, TABLES, complaints, differences, done, results, tree_hash

HERE = Path(__file__).parent
WRITE, SIZE, SYNC, RENAME, CREATE, REMOVE = (1 << bit for bit in range(6))
FOR_EVER = 2**64 - 1
# The control block as faults.c has it: calls, first, last, failed, kinds, error, folder, what.
_LAYOUT = struct.Struct("QQQQIi512s1024s")
_SECONDS = 60


@dataclass(frozen=True)
class Mode:
    """A way to fail: which kinds of calls, with which error, and whether all later ones fail too."""

    kinds: int
    error: int
    lasting: bool = False


MODES = {
    # One write, fsync or rename fails and the next succeeds; a failing write leaves half of its bytes.
    "once": Mode(WRITE | SIZE | SYNC | RENAME | CREATE, errno.ENOSPC),
    # A disk with bad places: removing a file can fail too.
    "broken": Mode(WRITE | SIZE | SYNC | RENAME | CREATE | REMOVE, errno.EIO),
    # No space from some moment on: files can still be removed and renamed.
    "full": Mode(WRITE | SIZE | CREATE, errno.ENOSPC, lasting=True),
    # A write that reports, as it may at any time, that it took half of the bytes.
    "short": Mode(WRITE, 0),
}


def build(folder: Path) -> Path | None:
    """Compile the library that makes calls fail; None where that can't be done."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not sys.platform.startswith("linux") or compiler is None:
        return None
    library = folder / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    return library


class Faults:
    """The control block that all processes under test share."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_LAYOUT.size))
        self.path = path
        with path.open("r+b") as file:
            self._block = mmap.mmap(file.fileno(), _LAYOUT.size)

    def arm(self, folder: Path, mode: Mode, number: int) -> None:
        """Let the call of this number below the folder fail, counted from 1; with 0 calls are only counted."""
        last = FOR_EVER if mode.lasting and number else number
        self._block[:] = _LAYOUT.pack(0, number, last, 0, mode.kinds, mode.error, bytes(folder), b"")

    def disarm(self) -> None:
        """Let no call fail."""
        self._block[:] = bytes(_LAYOUT.size)

    @property
    def calls(self) -> int:
        """How many calls there were."""
        return _LAYOUT.unpack(self._block[:])[0]

    @property
    def what(self) -> str:
        """The first call that failed and its file, or nothing."""
        return _LAYOUT.unpack(self._block[:])[7].rstrip(b"\0").decode(errors="replace")


class PretendedBatch:
    """Runs a batch of pretended slides in forks of one process that has imported everything."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", HERE / "faulty_pipeline.py"],
            env={**environment, "PYTHONPATH": os.pathsep.join([str(HERE.parent / "fakes"), *_python_path()])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.cohort = _pretended_cohort(folder / "input")

    def run(self, run: Path, temporary: Path) -> tuple[int, str]:
        """Run the command; return its exit code and what it said."""
        said = self._folder / "stderr.txt"
        arguments = ["run", str(self.cohort), "--out", str(run), "--workers", "1"]
        request = {"arguments": arguments, "stderr": str(said), "temporary": str(temporary), "seconds": _SECONDS}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline()), said.read_text(errors="replace")

    def close(self) -> None:
        """End the process."""
        self._server.communicate()


class RealBatch:
    """Runs the real pipeline on one simulated slide, each time in processes of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._environment = environment
        slide = ["simulate", "slide", "--out", folder / "input", "--shape", "384,384", "--leukocytes", "60"]
        subprocess.run([*COMMAND, *slide, "--ctc", "5"], check=True, stdout=subprocess.DEVNULL)
        self.cohort = folder / "input" / "cohort.csv"
        self.cohort.write_text("slide,patient_id,sample_date,blood_volume_ml\nslide.ome.tif,P1,2024-01-01,7.5\n")

    def run(self, run: Path, temporary: Path) -> tuple[int, str]:
        """Run the command; return its exit code and what it said."""
        ended = subprocess.run(
            [*COMMAND, "run", self.cohort, "--out", run, "--workers", "1"],
            env={**self._environment, "TMPDIR": str(temporary)},
            capture_output=True,
            text=True,
            timeout=5 * _SECONDS,
        )
        return ended.returncode, ended.stderr

    def close(self) -> None:
        """Leave nothing behind."""


@dataclass
class Undisturbed:
    """What an undisturbed run came to, and how many calls it made in each mode."""

    results: dict[str, str]
    slides: dict[str, str]
    rows: dict[str, int]
    calls: dict[str, int] = field(default_factory=dict)


class Trials:
    """A batch that is run with one fault after the other."""

    def __init__(self, folder: Path, library: Path, real: bool = False) -> None:
        self._folder = folder
        self._faults = Faults(folder / "control")
        environment = {**os.environ, "LD_PRELOAD": str(library), "CTC_FAULTS": str(self._faults.path)}
        self._batch = (RealBatch if real else PretendedBatch)(folder, environment)
        self._number = 0
        self.undisturbed = self._measure()

    def points(self, mode: str, count: int | None, seed: int) -> list[int]:
        """Choose the numbers of the calls to fail: all, or some, one in each of so many equal stretches."""
        calls = self.undisturbed.calls[mode]
        if count is None or count >= calls:
            return list(range(1, calls + 1))
        draw = random.Random(seed)
        edges = [1 + round(calls * index / count) for index in range(count + 1)]
        return [draw.randrange(start, end) for start, end in pairwise(edges)]

    def trial(self, mode: str, number: int) -> tuple[str, list[str]]:
        """Let one call fail, look at what is left, run the same command again; return what failed and what is wrong."""
        with self._place() as (run, temporary):
            self._faults.arm(run.parent, MODES[mode], number)
            code, said = self._batch.run(run, temporary)
            what = self._faults.what
            wrong = [f"after the fault: {text}" for text in (*complaints(code, said), *self.untrue(run, code))]
            code, said = self.run(run, temporary)
            wrong += [f"after the resume: {text}" for text in complaints(code, said)]
            wrong += [f"after the resume: exit code {code}, {said.strip().splitlines()[-1:]}"] if code else []
            wrong += [f"after the resume: {text}" for text in differences(run, self.undisturbed.results)]
        return what or "nothing", wrong

    def run(self, run: Path, temporary: Path) -> tuple[int, str]:
        """Run the batch with no fault; return the exit code and what it said."""
        self._faults.disarm()
        return self._batch.run(run, temporary)

    def close(self) -> None:
        """End what was started."""
        self._batch.close()

    def _measure(self) -> Undisturbed:
        calls = {}
        for name, mode in MODES.items():
            with self._place() as (run, temporary):
                self._faults.arm(run.parent, mode, 0)
                code, said = self._batch.run(run, temporary)
                if code:
                    raise RuntimeError(f"the undisturbed run failed: {said}")
                calls[name] = self._faults.calls
                slides = {folder.name: tree_hash(folder) for folder in (run / "slides").glob("[!.]*")}
                rows = {name: _rows(run / name) for name in TABLES}
                whole = Undisturbed(results(run), slides, rows, calls)
        return whole

    def untrue(self, run: Path, code: int) -> Iterator[str]:
        """Name what a folder says that isn't so: a slide done but not whole, a table or page cut short."""
        for slide_id in done(run):
            folder = run / "slides" / slide_id
            if not folder.is_dir() or tree_hash(folder) != self.undisturbed.slides[slide_id]:
                yield f"slide {slide_id} is called done and isn't whole"
        for name, rows in self.undisturbed.rows.items():
            if (run / name).is_file() and _rows(run / name) != rows:
                yield f"{name} is cut short"
        page, description = run / "report.html", run / "run.json"
        if page.is_file() and not page.read_text(errors="replace").rstrip().endswith("</html>"):
            yield "report.html is cut short"
        if description.is_file() and not _is_json(description):
            yield "run.json is cut short"
        if code == 0:
            yield from differences(run, self.undisturbed.results)

    @contextmanager
    def _place(self) -> Iterator[tuple[Path, Path]]:
        """Give a new folder for a run and for temporary files beside it."""
        self._number += 1
        place = self._folder / f"trial-{self._number}"
        (place / "tmp").mkdir(parents=True)
        yield place / "run", place / "tmp"
        shutil.rmtree(place)


def _python_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _pretended_cohort(folder: Path) -> Path:
    (folder / "slides").mkdir(parents=True)
    lines = ["slide,patient_id,sample_date,blood_volume_ml,slide_id"]
    for index, slide_id in enumerate(("S1", "S2")):
        (folder / "slides" / f"{slide_id}.tif").write_text(f"pretended {slide_id}")
        lines.append(f"slides/{slide_id}.tif,P1,2024-0{index + 1}-01,7.5,{slide_id}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder / "cohort.csv"


def _rows(table: Path) -> int:
    """Count the whole lines of a table."""
    return table.read_bytes().count(b"\n") if table.read_bytes().endswith(b"\n") else -1


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trials, a line each where something is wrong; 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--points", type=int, help="how many calls to fail in each mode; by default every one")
    parser.add_argument("--at", type=int, nargs="+", help="the numbers of the calls to fail")
    parser.add_argument("--real", action="store_true", help="the real pipeline on one simulated slide")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="a line for every trial")
    options = parser.parse_args(argv)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="ctc-faults-") as folder:
        library = build(Path(folder))
        if library is None:
            sys.stdout.write("faults: left out, they need Linux and a C compiler\n")
            return 0
        trials = Trials(Path(folder), library, options.real)
        for mode in options.modes:
            points = options.at or trials.points(mode, options.points, options.seed)
            wrong = 0
            for number in points:
                what, faults = trials.trial(mode, number)
                wrong += bool(faults)
                if faults or options.verbose:
                    sys.stdout.write(f"{mode} {number}: {what}: {'; '.join(faults) or 'as it should be'}\n")
            calls, kind = trials.undisturbed.calls[mode], "real" if options.real else "pretended"
            sys.stdout.write(f"faults, {mode}, {kind}: {len(points)} of {calls} calls failed, {wrong} with trouble\n")
            sys.stdout.flush()
            bad += wrong
        trials.close()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
