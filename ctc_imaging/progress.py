"""How far a batch is, for a person: a bar on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

_LINE_EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class Tally:
    """How many of `total` slides are done or failed; `done` counts those of an earlier start too."""

    total: int
    done: int
    failed: int

    @property
    def left(self) -> int:
        """How many slides are still to do."""
        return self.total - self.done - self.failed


Progress = Callable[[Tally], None]


@contextmanager
def show_progress(stream: TextIO, what: str = "slides") -> Iterator[Progress]:
    """Give a function to be told of every step, and show it on a stream.

    Parameters
    ----------
    stream : text stream
        On a terminal it gets a bar; otherwise a line at the start, every 5 s at most, and at the end.
    what : str
        What is counted.
    """
    if stream.isatty():
        with _bar(stream, what) as report:
            yield report
    else:
        yield _Lines(stream, what)


@contextmanager
def _bar(stream: TextIO, what: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    failed = TextColumn("{task.fields[failed]} failed")
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), failed, TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(what, total=None, failed=0)

        def report(tally: Tally) -> None:
            bar.update(task, total=tally.total, completed=tally.done + tally.failed, failed=tally.failed)

        yield report


class _Lines:
    """Writes plain lines, few enough for a log."""

    def __init__(self, stream: TextIO, what: str) -> None:
        self._stream = stream
        self._what = what
        self._start: tuple[float, int] | None = None
        self._last = 0.0

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if self._start is None:
            self._start = (now, tally.left)
        elif tally.left and now - self._last < _LINE_EVERY_SECONDS:
            return
        self._last = now
        failed = f", {tally.failed} failed" if tally.failed else ""
        ended = f"{tally.done + tally.failed} of {tally.total} {self._what}"
        self._stream.write(f"{ended}{failed}{self._time_left(tally, now)}\n")
        self._stream.flush()

    def _time_left(self, tally: Tally, now: float) -> str:
        since, left = self._start or (now, tally.left)
        if not tally.left or tally.left == left:
            return ""
        return f", about {(now - since) / (left - tally.left) * tally.left:.0f} s left"
