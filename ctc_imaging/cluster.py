"""Slides, and parts of large slides, as tasks of a Dask cluster: one started here, or one that runs elsewhere."""

from __future__ import annotations

import logging
import pickle
import platform
import queue
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ctc_imaging.errors import ConfigError, RunError
from ctc_imaging.files import sha256_json
from ctc_imaging.parts import mapping_by
from ctc_imaging.workers import Outcome, Task, WorkerLost, attempt, died, one_line, processors, with_second_try

if TYPE_CHECKING:
    from distributed import Client, Future

LOCAL = "local"
"""What to give as the scheduler's address for a cluster of processes on this machine."""

FEW_PARTS = 4
"""So few parts of a slide aren't worth sending to other workers."""

_CONNECT_SECONDS = 15.0
_LOOK_SECONDS = 2.0
_REMIND_SECONDS = 60.0
_SAME_ELSEWHERE = "give every worker the same installation as this machine"
_LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application")

Fault = tuple[str, str]
"""A fault and its remedy."""


_log = logging.getLogger(__name__)


class WaitingWarning(UserWarning):
    """The cluster has no workers just now."""


@contextmanager
def connected(address: str, workers: int | None = None) -> Iterator[Cluster]:
    """Connect to a Dask scheduler, or start one with worker processes here, for the length of a block.

    Parameters
    ----------
    address : str
        Such as ``tcp://10.0.0.1:8786``, or `LOCAL`.
    workers : int, optional
        How many processes to start where the cluster is local; by default one a processor.

    Yields
    ------
    Cluster

    Raises
    ------
    ConfigError
        If Dask isn't installed, the address is none, or nobody answers there.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ConfigError("--scheduler", "needs Dask", "pip install 'ctc-imaging[cluster]'") from error
    _log_to_the_run()
    if address == LOCAL:
        with _local_cluster(workers or processors()) as own, Client(own) as client:
            yield Cluster(client, LOCAL)
        return
    if workers is not None:
        raise ConfigError("--workers", "workers of another scheduler aren't started here", "leave it out")
    try:
        client = Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        fault = "no Dask scheduler answers there"
        raise ConfigError(f"--scheduler {address}", fault, "check the address, such as tcp://10.0.0.1:8786") from error
    with client:
        yield Cluster(client, address)


class Cluster:
    """A Dask scheduler with its workers, which may come and go."""

    def __init__(self, client: Client, address: str) -> None:
        self._client = client
        self._address = address
        self._waiting_since: float | None = None
        self._remind_at = 0.0
        self._needed: Installation | None = None

    def check(self, needed: Installation, folder: Path, scans: Sequence[Path]) -> None:
        """Wait for a worker, and check that all there are can do what this machine can.

        Parameters
        ----------
        needed : Installation
            Of this machine; must be the same everywhere, also on workers that join later.
        folder : Path
            Must be seen and writable everywhere.
        scans : sequence of Path
            Must be seen everywhere, where they are seen here.

        Raises
        ------
        RunError
            If a worker can't be used; the error says which, and why.
        """
        while not self.slots():
            time.sleep(_LOOK_SECONDS / 4)
        self._needed = needed
        token = folder / f".{uuid4().hex}.partial"
        token.touch()
        try:
            # A URL is seen from anywhere, or fails its own slide.
            seen = [str(path) for path in (token, *scans) if "://" not in str(path) and path.exists()]
            found = self._client.run(survey, needed, seen, on_error="return")
        finally:
            token.unlink()
        for worker, said in found.items():
            fault = (one_line(said), _SAME_ELSEWHERE) if isinstance(said, Exception) else said
            if fault:
                raise RunError(f"worker {worker}", *fault)

    def run_tasks(self, tasks: Iterable[Task], started: Callable[[str], None]) -> Generator[Outcome]:
        """Run tasks on the workers, and yield what becomes of each as it ends; like `workers.run_tasks`.

        A task whose worker dies is given to another; one that sees several die is tried again at the end, with
        nothing beside it, and then given up. Closing the iterator cancels what hasn't started; a worker
        elsewhere ends the slide it is at, and nobody looks at it.

        Raises
        ------
        RunError
            If the scheduler is lost.
        """
        return with_second_try(tasks, lambda waiting: self._work_off(waiting, started))

    def _work_off(self, waiting: deque[Task], started: Callable[[str], None]) -> Generator[Outcome]:
        busy: dict[Future, str] = {}
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        try:
            while waiting or busy:
                # Never more than can run at once: a task that waits beside one that kills its worker is blamed too.
                for _ in range(min(self.slots() - len(busy), len(waiting))):
                    task = waiting.popleft()
                    started(task.key)
                    busy[self._submit(task, ended)] = task.key
                try:
                    future = ended.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    continue
                yield self._outcome(future, busy.pop(future))
        finally:
            if busy and self._client.status == "running":
                self._client.cancel(list(busy))

    def _submit(self, task: Task, ended: queue.SimpleQueue[Future]) -> Future:
        # A key of its own: the scheduler's log and pages shall name no patient.
        future = self._client.submit(attempt_here, task, self._needed, key=f"slide-{uuid4().hex}", pure=False)
        future.add_done_callback(ended.put)
        return future

    def _outcome(self, future: Future, key: str) -> Outcome:
        from distributed import CancelledError, KilledWorker

        error = future.exception()
        if isinstance(error, KilledWorker):
            return Outcome(key, failure=died("again and again"), crashed=True)
        if error is not None:
            return Outcome(key, failure=one_line(error))
        try:
            return future.result()
        except CancelledError as lost:
            raise self._lost() from lost

    def slots(self) -> int:
        """Count how many tasks can run at once; say so, now and then, while it is none."""
        try:
            slots = sum(self._client.nthreads().values())
        except (OSError, ValueError, RuntimeError) as error:
            raise self._lost() from error
        now = time.monotonic()
        if slots:
            self._waiting_since, self._remind_at = None, now
        elif now >= self._remind_at:
            self._waiting_since = self._waiting_since or now
            self._remind_at = now + _REMIND_SECONDS
            minutes = int(now - self._waiting_since) // 60
            said = f"waiting for workers of {self._address}" + (f" for {minutes} min" if minutes else "")
            _log.info(said)
            warnings.warn(said, WaitingWarning, stacklevel=2)
        return slots

    def _lost(self) -> RunError:
        fault = "the Dask scheduler is gone; what is done so far is kept"
        return RunError(f"--scheduler {self._address}", fault, "start it again, then run the same command")


def attempt_here(task: Task, needed: Installation | None) -> Outcome:
    """Do a task on this worker, its parts on all workers; refuse where something else is installed than needed."""
    use_one_thread()
    fault = needed.fault_here() if needed else None
    if fault:
        return Outcome(task.key, failure=str(RunError(f"worker on {platform.node()}", *fault)))
    try:
        with mapping_by(map_by_all):
            return attempt(task)
    except SystemExit as left:
        return Outcome(task.key, failure=died(f"exit code {left.code}"))


def map_by_all(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Call a function on each item, on all workers, from within a task; yield the results in order.

    Only some items are on their way at any time, so that results don't pile up.

    Raises
    ------
    WorkerLost
        If a part sees several workers die.
    """
    from distributed import KilledWorker, worker_client

    if len(items) <= FEW_PARTS:
        yield from map(function, items)
        return
    with worker_client() as client:
        # A task, not data: it comes again where the worker that holds it dies.
        shared = client.submit(bytes, pickle.dumps(function), key=f"shared-{uuid4().hex}")
        most = 2 * sum(client.nthreads().values()) + 1
        under_way: deque[Future] = deque()
        try:
            for item in items:
                # Parts go before slides that haven't begun: what is begun shall end.
                under_way.append(client.submit(do_part, shared, item, key=f"part-{uuid4().hex}", priority=1))
                if len(under_way) >= most:
                    yield pickle.loads(under_way.popleft().result())
            while under_way:
                yield pickle.loads(under_way.popleft().result())
        except KilledWorker as error:
            raise WorkerLost("again and again, at a part of the slide") from error
        finally:
            if under_way:
                client.cancel(list(under_way))


def do_part(function: bytes, item: Any) -> bytes:
    """Call a pickled function on an item here; results travel pickled, and wait so too."""
    use_one_thread()
    return pickle.dumps(pickle.loads(function)(item))


def use_one_thread() -> None:
    """Keep libraries from starting threads of their own: results mustn't depend on how many there would be."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Installation:
    """What may change a result: `facts` about versions, our own code and models, by name."""

    models: tuple[str, str]
    packages: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]

    def fault_here(self) -> Fault | None:
        """Say in which fact this process differs, if in any."""
        here = installed(self.models, self.packages).facts
        for (name, there), (_, found) in zip(self.facts, here, strict=True):
            if found != there:
                return f"its {name} is {found}, not {there} as where the run was started", _SAME_ELSEWHERE
        return None


@lru_cache(maxsize=4)
def installed(models: tuple[str, str], packages: tuple[str, ...]) -> Installation:
    """Sum up what is installed here.

    Parameters
    ----------
    models : tuple of str
        Names of the classifier and of the nucleus finder in use.
    packages : tuple of str
        Distributions whose versions matter.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    import ctc_imaging
    from ctc_imaging.classification import load_model
    from ctc_imaging.segmentation.model import load_finder

    code = sorted(Path(ctc_imaging.__file__).parent.rglob("*.py"))
    facts = {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "ctc-imaging": ctc_imaging.__version__,
        "code of ctc-imaging": sha256_json([path.read_text(encoding="utf-8") for path in code])[:12],
        f"model {models[0]}": load_model(models[0]).hash[:12],
        f"model {models[1]}": load_finder(models[1]).hash[:12],
        **{name: _version(name) for name in packages},
    }
    return Installation(models, packages, tuple(facts.items()))


def survey(needed: Installation, paths: Sequence[str]) -> Fault | None:
    """Say what this worker lacks; it must see all paths, and be able to write to the first."""
    fault = needed.fault_here()
    if fault:
        return fault
    for path in paths:
        if not Path(path).exists():
            return f"it doesn't see {path}", "share the folder with every worker, under the same path"
    try:
        Path(paths[0]).touch()
    except OSError as error:
        return f"it can't write to {Path(paths[0]).parent} ({error.strerror})", "give workers the right to write there"
    return None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _local_cluster(workers: int) -> Any:
    from distributed import LocalCluster

    options = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.ERROR}
    # Our tasks bound their memory themselves; at a limit Dask would end one that is about to succeed.
    return LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=None, **options)


def _log_to_the_run() -> None:
    """Have what Dask tells of itself go to where this package's log goes, not to the terminal."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [_Forward(logging.WARNING)]
        logger.propagate = False


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        for handler in logging.getLogger("ctc_imaging").handlers:
            handler.handle(record)
