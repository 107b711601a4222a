"""Kill -9 of a batch, or of one of its workers, at random moments; then resume, and compare with an undisturbed run.

python tests/robustness/kills.py --kills 50 --seed 0
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runs import COMMAND, complaints, differences, done, results

SLIDES = 12
_PATIENTS = ("P001", "P002")
_SECONDS = 300
_ORPHANS_SECONDS = 10.0
_RESUMES = 3
# What Python's own helper process says of a killed process, which can't give back its locks.
_LEAK = re.compile(r".*resource_tracker.*\n( .*\n)?")


@dataclass(frozen=True)
class Kill:
    """One kill: who was killed, when in seconds after the start, how many slides were done, and what is wrong."""

    who: str
    at_seconds: float
    done: int
    slides: int
    resumes: int
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in one line."""
        when = f"{self.who} killed at {self.at_seconds:.2f} s with {self.done} of {self.slides} slides done"
        return f"{when}, resumed {self.resumes} times: {'; '.join(self.wrong) or 'all bytes as undisturbed'}"


class Batch:
    """A cohort of small simulated slides, and what an undisturbed run makes of it."""

    def __init__(self, folder: Path, workers: int = 2, slides: int = SLIDES) -> None:
        self._folder = folder
        self._workers = workers
        self._number = 0
        self.slides = slides
        self._cohort = _simulate(folder / "input", slides)
        start = time.monotonic()
        run = self._folder / "undisturbed"
        ended = subprocess.run(self._command(run), capture_output=True, text=True, timeout=_SECONDS)
        self.seconds = time.monotonic() - start
        if ended.returncode:
            raise RuntimeError(f"the undisturbed run failed: {ended.stderr}")
        self.undisturbed = results(run)

    def kill(self, parent_dies: bool, at: float, draw: random.Random) -> Kill:
        """Start the batch, kill it or a worker of it when the share `at` of its time is over, and resume it."""
        self._number += 1
        run = self._folder / f"run-{self._number}"
        at_seconds = at * self.seconds
        process = subprocess.Popen(self._command(run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(at_seconds)
        family = list(_descendants(process.pid))
        victim = _victim(process, family, parent_dies, draw)
        whole = done(run)
        if victim is not None:
            os.kill(victim, signal.SIGKILL)
        wrong = []
        if victim == process.pid:
            process.communicate()
        else:
            said = process.communicate(timeout=_SECONDS)[1]
            wrong += complaints(process.returncode, _LEAK.sub("", said))
        if victim is None:
            self.seconds = at_seconds
        wrong += [f"{len(left)} processes lived on" for left in [_still_there(family)] if left]
        resumes, after = (0, []) if process.returncode == 0 else self._resume(run)
        wrong += [*after, *differences(run, self.undisturbed)]
        who = "nobody" if victim is None else "parent" if victim == process.pid else "worker"
        return Kill(who, at_seconds, len(whole), self.slides, resumes, tuple(wrong))

    def _resume(self, run: Path) -> tuple[int, list[str]]:
        """Start the same command again until it succeeds; return how often, and what it did wrong."""
        for count in range(1, _RESUMES + 1):
            ended = subprocess.run(self._command(run), capture_output=True, text=True, timeout=_SECONDS)
            wrong = complaints(ended.returncode, ended.stderr)
            if ended.returncode == 0 or wrong:
                return count, wrong
        return _RESUMES, [f"still exit code {ended.returncode}: {ended.stderr.strip().splitlines()[-1:]}"]

    def _command(self, run: Path) -> list[str | Path]:
        options = ["--clinical", self._cohort.with_name("clinical.csv"), "--workers", str(self._workers)]
        return [*COMMAND, "run", self._cohort, "--out", run, *options]


def _simulate(folder: Path, slides: int) -> Path:
    """Simulate a cohort and keep some of its slides."""
    options = ["--patients", "3", "--shape", "512,512", "--leukocytes", "60", "--seed", "0"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*COMMAND, "simulate", "cohort", "--out", folder, *options], check=True, **quiet)
    header, *rows = (folder / "cohort.csv").read_text().splitlines()
    kept = [row for row in rows if row.split(",")[1] in _PATIENTS][:slides]
    if len(kept) < slides:
        raise RuntimeError(f"the simulated cohort has {len(kept)} slides of {_PATIENTS}, not {slides}")
    (folder / "some.csv").write_text("\n".join([header, *kept]) + "\n")
    return folder / "some.csv"


def _victim(process: subprocess.Popen[str], family: list[int], parent_dies: bool, draw: random.Random) -> int | None:
    """Choose whom to kill: None if the batch has ended already; the parent too where there is no worker yet."""
    if process.poll() is not None:
        return None
    workers = sorted(pid for pid in family if "resource_tracker" not in _command_line(pid))
    return process.pid if parent_dies or not workers else draw.choice(workers)


def _descendants(pid: int) -> Iterator[int]:
    """Yield the processes that a process started, and theirs."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(child) for child in children.read_text().split()]
        except OSError:
            continue
        for child in found:
            yield child
            yield from _descendants(child)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def _still_there(family: list[int]) -> list[int]:
    """Wait until all have ended, and return those that take too long."""
    end = time.monotonic() + _ORPHANS_SECONDS
    while (left := [pid for pid in family if _command_line(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def main(argv: Sequence[str] | None = None) -> int:
    """Kill and resume so many times, a line each and one in all; 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    draw = random.Random(options.seed)
    bad = killed = 0
    with tempfile.TemporaryDirectory(prefix="ctc-kills-") as folder:
        batch = Batch(Path(folder))
        sys.stdout.write(f"undisturbed: {SLIDES} slides, {len(batch.undisturbed)} results, {batch.seconds:.1f} s\n")
        while killed < options.kills:
            # A random moment in each of so many equal stretches; parent and worker in turn.
            kill = batch.kill(killed % 2 == 0, (killed + draw.random()) / options.kills, draw)
            killed += kill.who != "nobody"
            bad += bool(kill.wrong)
            sys.stdout.write(f"kill {killed}: {kill}\n")
            sys.stdout.flush()
        sys.stdout.write(f"kills: {killed}, of which {bad} with trouble\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
