"""Worker processes that do one task each at a time, so that a task that raises or crashes fails alone."""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ctc_imaging.errors import CtcImagingError, disk_fault

_LONGEST_REASON = 500
_PATIENCE_SECONDS = 5.0
# One thread a task: more would only fight for the cores, and could change the order of a sum.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")

# M_MMAP_THRESHOLD of malloc.h: arrays from this size on get memory of their own.
_MMAP_THRESHOLD, _LARGE_BYTES = -3, 2**20


class WorkerLost(Exception):
    """A process that did a part of a task died."""


@dataclass(frozen=True)
class Task:
    """A call of a function that can be pickled, under a key of its own."""

    key: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its `result`, or in one line why there is none, with all `details` for the log."""

    key: str
    result: Any = None
    failure: str | None = None
    details: str = ""
    crashed: bool = False


def run_tasks(tasks: Iterable[Task], workers: int, log: Path, started: Callable[[str], None]) -> Generator[Outcome]:
    """Run tasks in spawned processes, and yield what becomes of each as it ends.

    A task whose process dies (out of memory, a fault in a C library) is tried again at the end, alone,
    and then given up. Closing the iterator kills the processes; they also end when this one dies.

    Parameters
    ----------
    tasks : iterable of Task
    workers : int
        How many processes, at least 1.
    log : Path
        What the processes write to standard output and error goes to the end of this file.
    started : callable
        Told the key of each task as it starts.

    Yields
    ------
    Outcome
        One for each task, in the order in which they end.
    """
    yield from with_second_try(tasks, lambda waiting: _work_off(waiting, workers, log, started))


def with_second_try(tasks: Iterable[Task], work_off: Callable[[deque[Task]], Generator[Outcome]]) -> Generator[Outcome]:
    """Work tasks off, and those whose process died once more at the end, each alone, so that none dies of another."""
    waiting = deque(tasks)
    by_key = {task.key: task for task in waiting}
    crashed = []
    for outcome in work_off(waiting):
        if outcome.crashed:
            crashed.append(outcome.key)
        else:
            yield outcome
    for key in crashed:
        yield from work_off(deque([by_key[key]]))


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_line(error: BaseException) -> str:
    """Say in one line what an error is."""
    if isinstance(error, CtcImagingError):
        text = str(error)
    elif isinstance(error, OSError) and (fault := disk_fault(error)):
        text = "; ".join(fault if error.filename is None else (f"{error.filename}: {fault[0]}", fault[1]))
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:_LONGEST_REASON]


def give_memory_back() -> None:
    """Have this process return every large array to the system once it's freed, where the C library is glibc.

    Left alone, glibc learns to keep them, and a long slide ends up holding twice what it uses.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def died(how: str) -> str:
    """Say that a worker process died."""
    return f"the worker process died ({how}); too little memory?"


def attempt(task: Task) -> Outcome:
    """Do a task here, and say what became of it."""
    try:
        return Outcome(task.key, result=task.function(*task.arguments))
    except WorkerLost as lost:
        return Outcome(task.key, failure=died(str(lost)), details=traceback.format_exc(), crashed=True)
    except CtcImagingError as error:
        # It says all there is to say: where in the program it was found is of no use to anybody.
        return Outcome(task.key, failure=one_line(error))
    except Exception as error:  # noqa: BLE001 - this is the wall between a bad slide and the others
        return Outcome(task.key, failure=one_line(error), details=traceback.format_exc())


def _work_off(waiting: deque[Task], workers: int, log: Path, started: Callable[[str], None]) -> Generator[Outcome]:
    busy: dict[Connection, _Worker] = {}
    try:
        for _ in range(min(workers, len(waiting))):
            _give(_Worker(log), waiting, busy, started)
        while busy:
            for connection in wait(list(busy)):
                worker = busy.pop(connection)  # type: ignore[call-overload]
                outcome = worker.collect()
                if waiting:
                    _give(_Worker(log) if outcome.crashed else worker, waiting, busy, started)
                else:
                    worker.stop()
                yield outcome
    finally:
        for worker in busy.values():
            worker.stop()


def _give(
    worker: _Worker, waiting: deque[Task], busy: dict[Connection, _Worker], started: Callable[[str], None]
) -> None:
    busy[worker.connection] = worker
    task = waiting.popleft()
    started(task.key)
    worker.give(task)


class _Worker:
    """A process and the pipe to it; knows which task it is at, so a crash can be blamed."""

    def __init__(self, log: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.key = ""
        self._process = context.Process(target=_serve, args=(theirs, log), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        self.key = task.key
        # A process that has died meanwhile is noticed by `collect`.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(task)

    def collect(self) -> Outcome:
        try:
            outcome: Outcome = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_PATIENCE_SECONDS)
            self.stop()
            return Outcome(self.key, failure=died(_exit_name(self._process.exitcode)), crashed=True)
        return outcome

    def stop(self) -> None:
        self._process.terminate()
        self._process.join(_PATIENCE_SECONDS)
        self._process.kill()
        self._process.join()
        self.connection.close()


def _exit_name(code: int | None) -> str:
    return f"exit code {code}" if code is None or code >= 0 else f"signal {-code}"


def _serve(connection: Connection, log: Path) -> None:
    """Do tasks until there are no more: the life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Leaving by an exception lets libraries give back what they hold; a plain SIGTERM would leak semaphores.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _write_to(log)
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    give_memory_back()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(attempt(task))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE_SECONDS)
        os._exit(1)


def _write_to(log: Path) -> None:
    """Send all this process prints, also from C libraries and of its own death, to the log."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # A line at a time, so that those of two workers don't run into each other.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable(sys.__stderr__ or sys.stderr)
