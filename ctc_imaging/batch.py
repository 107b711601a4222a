"""A cohort through the pipeline: slides in parallel processes, each failing alone, resumable at any moment."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctc_imaging.errors import ConfigError, RunError, SlideError
from ctc_imaging.files import sha256_file, sha256_json
from ctc_imaging.inputs import Inputs, load_inputs, save_tables, stored_hashes
from ctc_imaging.progress import Progress, Tally
from ctc_imaging.recount import recount
from ctc_imaging.store.ledger import Ledger, SlideState
from ctc_imaging.store.run_folder import RunFolder, missing_parts
from ctc_imaging.workers import Outcome, Task, one_line, processors, run_tasks

if TYPE_CHECKING:
    from ctc_imaging.cohort import SlideEntry
    from ctc_imaging.config import Settings

SlideProcess = Callable[["SlideEntry", Path, "Settings"], dict[str, Any]]
_ACTOR = "ctc-imaging run"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchResult:
    """What a batch came to.

    Attributes
    ----------
    run : Path
        The RUN folder.
    done : tuple of str
        Ids of the slides that are done, also by an earlier start, in the order of the cohort.
    failed : dict of str to str
        Ids of the slides that failed, with the reason.
    seconds : float
        How long this start took.
    notes : tuple of str
        What the counts and the timeline can't say.
    """

    run: Path
    done: tuple[str, ...]
    failed: dict[str, str]
    seconds: float
    notes: tuple[str, ...] = ()


def run_cohort(
    cohort: Path,
    out: Path,
    settings: Settings,
    clinical: Path | None = None,
    imaging: Path | None = None,
    markers: Path | None = None,
    schedule: Path | None = None,
    workers: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    process: SlideProcess | None = None,
) -> BatchResult:
    """Process every slide of a cohort into a RUN folder, count, and write the report.

    The same call goes on where an earlier one ended or was killed: done slides are kept, failed ones
    are tried again, and the result is that of an uninterrupted run.

    Parameters
    ----------
    cohort : Path
        cohort.csv.
    out : Path
        The RUN folder, new or of the same run.
    settings : Settings
    clinical, imaging, markers, schedule : Path, optional
        The other tables; may differ from those of an earlier start.
    workers : int, optional
        How many slides at a time; by default as many as there are processors.
    force : bool
        Compute everything anew, also with other settings. Reviews stay in the ledger.
    progress : callable, optional
        Told of every slide that ends.
    process : callable, optional
        What is done with one slide, by default `pipeline.process_slide`; must be importable.

    Returns
    -------
    BatchResult

    Raises
    ------
    CtcImagingError
        Before any slide starts, if a table, panel, model or option is wrong, or the folder is in use or
        of another run.
    """
    from ctc_imaging.report import write_report

    start = time.monotonic()
    if workers is not None and workers < 1:
        raise ConfigError("--workers", f"{workers} workers can't work", "give at least 1")
    inputs = load_inputs(cohort, settings, clinical, imaging, markers, schedule)
    run = RunFolder(Path(out).absolute())
    run.prepare()
    with run.locked(), _logging_to(run.log):
        if not force:
            run.check_same(inputs.identity)
        with Ledger(run.ledger, create=True) as ledger:
            tasks = [
                Task(entry.slide_id, process_into, (process, entry, run.partial(entry.slide_id), inputs.settings))
                for entry in _open_run(run, inputs, ledger, force)
            ]
            _Batch(run, ledger, progress).process(tasks, workers or processors())
            states = ledger.slides()
        notes = recount(run).notes
        write_report(run.path)
    ids = [entry.slide_id for entry in inputs.entries]
    failed = {slide_id: states[slide_id].reason for slide_id in ids if states[slide_id].state == "failed"}
    return BatchResult(
        run=run.path,
        done=tuple(slide_id for slide_id in ids if slide_id not in failed),
        failed=failed,
        seconds=time.monotonic() - start,
        notes=notes,
    )


def process_into(process: SlideProcess | None, entry: SlideEntry, folder: Path, settings: Settings) -> dict[str, Any]:
    """Process one slide into a new folder; runs in a worker.

    Returns
    -------
    dict
        `summary` as from the process, `sha256` and `fingerprint` of the scan.

    Raises
    ------
    SlideError
        If the scan changed while it was read.
    """
    if process is None:
        from ctc_imaging.pipeline import process_slide

        process = process_slide
    folder.mkdir(parents=True)
    before = fingerprint(entry.slide)
    summary = process(entry, folder, settings)
    if missing := missing_parts(folder):
        raise RunError(entry.slide_id, f"the results lack {', '.join(missing)}", "report this as a fault")
    sha256 = sha256_file(entry.slide)
    if fingerprint(entry.slide) != before:
        raise SlideError(entry.slide, "the scan changed while it was read", "run again when its copy is finished")
    return {"summary": summary, "sha256": sha256, "fingerprint": before}


def fingerprint(slide: Path) -> str:
    """Sum up names, sizes and times of a scan's files: while it stays the same, the scan needn't be read again."""
    files = [slide] if slide.is_file() else sorted(path for path in slide.rglob("*") if path.is_file())
    stats = [(path.relative_to(slide).as_posix(), path.stat()) for path in files]
    return sha256_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])


def _open_run(run: RunFolder, inputs: Inputs, ledger: Ledger, force: bool) -> list[SlideEntry]:
    """Describe the run on disk, tidy up after an earlier start, and list the slides to do."""
    ledger.set_slides([entry.slide_id for entry in inputs.entries])
    run.discard_partial()
    if force:
        # The ledger forgets the slides before their folders go: killed between, nothing old is trusted.
        for slide_id in ledger.slides():
            ledger.reset(slide_id)
        run.discard_results()
    states = ledger.slides()
    todo = [entry for entry in inputs.entries if not _is_done(run, states[entry.slide_id], entry)]
    for entry in todo:
        ledger.reset(entry.slide_id)
    save_tables(run, inputs)
    run.describe(inputs.identity, {**inputs.facts(), "tables": stored_hashes(run)})
    ledger.record(_ACTOR, "forced" if force else "started", " ".join(inputs.command))
    _log.info("%d slides, %d to do: %s", len(inputs.entries), len(todo), " ".join(inputs.command))
    return todo


def _is_done(run: RunFolder, state: SlideState, entry: SlideEntry) -> bool:
    """Say whether a slide's results stand.

    Raises
    ------
    RunError
        If they stand, but for another scan.
    """
    if state.state != "done" or not run.is_complete(entry.slide_id):
        return False
    # The results of a scan that was moved away since still stand.
    changed = entry.slide.exists() and fingerprint(entry.slide) != state.fingerprint
    if changed and sha256_file(entry.slide) != state.sha256:
        raise RunError(entry.slide, "the scan has changed since it was processed", "use another --out, or --force")
    return True


class _Batch:
    """The slides still to do, and what becomes of each."""

    def __init__(self, run: RunFolder, ledger: Ledger, progress: Progress | None) -> None:
        self._run = run
        self._ledger = ledger
        self._progress = progress
        self._begun: dict[str, float] = {}

    def process(self, tasks: list[Task], workers: int) -> None:
        self._tell()
        with closing(run_tasks(tasks, workers, self._run.log, self._start)) as outcomes:
            for outcome in outcomes:
                self._settle(outcome)
                self._tell()

    def _start(self, slide_id: str) -> None:
        self._begun[slide_id] = time.monotonic()
        self._run.discard(slide_id)
        self._ledger.start(slide_id)

    def _settle(self, outcome: Outcome) -> None:
        seconds = round(time.monotonic() - self._begun[outcome.key], 3)
        if outcome.failure is not None:
            self._run.discard(outcome.key)
            self._ledger.fail(outcome.key, outcome.failure, seconds)
            _log.error("%s failed: %s\n%s", outcome.key, outcome.failure, outcome.details)
            return
        self._run.publish(outcome.key)
        self._ledger.finish(outcome.key, seconds, outcome.result["sha256"], outcome.result["fingerprint"])
        _log.info("%s done in %.1f s: %s", outcome.key, seconds, json.dumps(outcome.result["summary"], default=str))

    def _tell(self) -> None:
        if self._progress is not None:
            states = [state.state for state in self._ledger.slides().values()]
            self._progress(Tally(len(states), states.count("done"), states.count("failed")))


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Write what the package logs to a file, one plain line each, for the length of the block."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("ctc_imaging")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        _log.error("stopped: %s", one_line(error))
        raise
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
