"""A cohort through the pipeline: slides in parallel processes, each failing alone, resumable at any moment."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctc_imaging.cluster import Cluster, connected, installed
from ctc_imaging.disk import SlideSize, check_space, folder_bytes, needed_bytes
from ctc_imaging.errors import ConfigError, RunError, SlideError
from ctc_imaging.inputs import Inputs, check_pseudonyms, load_inputs, save_tables, stored_hashes
from ctc_imaging.intake import at_hand, fingerprint, scan_files, scan_sha256
from ctc_imaging.progress import Progress, Tally
from ctc_imaging.pseudonyms import load_key
from ctc_imaging.readers.remote import connect, is_remote
from ctc_imaging.recount import recount
from ctc_imaging.scrubbing import ScrubbedFormatter, Scrubber
from ctc_imaging.slide import open_slide
from ctc_imaging.store.ledger import Ledger, SlideState
from ctc_imaging.store.manifest import hash_parts
from ctc_imaging.store.run_folder import RunFolder, missing_parts
from ctc_imaging.workers import Outcome, Task, one_line, processors, run_tasks

if TYPE_CHECKING:
    from ctc_imaging.cohort import SlideEntry
    from ctc_imaging.config import Settings

SlideProcess = Callable[["SlideEntry", Path, "Settings"], dict[str, Any]]
Work = Callable[..., Generator[Outcome]]
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
    rows : mapping of str to int
        Under pseudonymisation each slide's line in the laboratory's cohort table, by slide id; else empty.
    """

    run: Path
    done: tuple[str, ...]
    failed: dict[str, str]
    seconds: float
    notes: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)


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
    pseudonymise: Path | None = None,
    scheduler: str | None = None,
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
    pseudonymise : Path, optional
        A key file: patients, samples and slides have pseudonyms in all that is written, and no path is kept.
    scheduler : str, optional
        Address of a Dask scheduler whose workers do the slides, or ``local`` for one with `workers` processes here;
        see `cluster`.

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
    at_once = workers or processors()
    run = RunFolder(Path(out).absolute())
    pseudonyms = load_key(pseudonymise, run.path) if pseudonymise else None
    inputs = load_inputs(cohort, settings, clinical, imaging, markers, schedule, pseudonyms)
    run.prepare()
    working: AbstractContextManager[Cluster | None] = connected(scheduler, workers) if scheduler else nullcontext()
    with inputs.scrubber.errors(inputs.rows), run.locked(), _logging_to(run, inputs) as output, working as cluster:
        if not force:
            run.check_same(inputs.identity)
        if cluster:
            needed = installed((inputs.settings.model, inputs.settings.nuclei), tuple(inputs.facts()["packages"]))
            cluster.check(needed, run.slides, [entry.slide for entry in inputs.entries])
        with Ledger(run.ledger, create=True) as ledger:
            tasks = [
                Task(entry.slide_id, process_into, (process, entry, run, inputs.settings))
                for entry in _open_run(run, inputs, ledger, force, cluster.slots() if cluster else at_once)
            ]
            work = cluster.run_tasks if cluster else partial(run_tasks, workers=at_once, log=output)
            _Batch(run, ledger, progress, inputs.scrubber).process(tasks, work)
            # What workers that died left behind.
            run.discard_partial()
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
        rows=inputs.rows,
    )


def process_into(process: SlideProcess | None, entry: SlideEntry, run: RunFolder, settings: Settings) -> dict[str, Any]:
    """Process one slide into a new folder; runs in a worker.

    Returns
    -------
    dict
        `summary` as from the process, `folder` with the results, their hashes as `results`, and `sha256` and
        `fingerprint` of the scan.

    Raises
    ------
    SlideError
        If the scan changed while it was read.
    """
    if process is None:
        from ctc_imaging.pipeline import process_slide

        process = process_slide
    folder = run.new_partial(entry.slide_id)
    try:
        files = scan_files(entry.slide)
        before = fingerprint(entry.slide, files)
        with at_hand(entry.slide, files, folder / ".scan") as (scan, sha256):
            summary = process(replace(entry, slide=scan), folder, settings)
        if missing := missing_parts(folder):
            raise RunError(entry.slide_id, f"the results lack {', '.join(missing)}", "report this as a fault")
        if fingerprint(entry.slide, files) != before:
            raise SlideError(entry.slide, "the scan changed while it was read", "run again when its copy is finished")
        results = hash_parts(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return {"summary": summary, "folder": folder, "results": results, "sha256": sha256, "fingerprint": before}


def _open_run(run: RunFolder, inputs: Inputs, ledger: Ledger, force: bool, workers: int) -> list[SlideEntry]:
    """Describe the run on disk, tidy up after an earlier start, and list the slides to do."""
    run.discard_partial()
    run.discard_temporary()
    states, results = ledger.slides(), ledger.results()
    todo = [
        entry
        for entry in inputs.entries
        if force or not _is_done(run, states.get(entry.slide_id), results.get(entry.slide_id), entry)
    ]
    freed = folder_bytes(run.slides) if force else 0
    check_space(run.path, needed_bytes(_sizes(todo), workers) - freed)
    # The ledger forgets the slides before their folders go: killed between, nothing old is trusted.
    ledger.set_slides([entry.slide_id for entry in inputs.entries])
    for entry in todo:
        ledger.reset(entry.slide_id)
    if force:
        run.discard_results()
    save_tables(run, inputs)
    run.describe(inputs.identity, {**inputs.facts(), "tables": stored_hashes(run)})
    ledger.record(_ACTOR, "forced" if force else "started", " ".join(inputs.command))
    _log.info("%d slides, %d to do: %s", len(inputs.entries), len(todo), " ".join(inputs.command))
    return todo


def _sizes(entries: list[SlideEntry]) -> Iterator[SlideSize]:
    """Measure the slides that can be opened; the others fail later, each alone."""
    for entry in entries:
        # Whatever a reader trips over here, its worker will too, and there it stops nothing but this slide.
        with suppress(Exception), open_slide(entry.slide, entry.pixel_size_um) as slide:
            yield SlideSize(slide.shape, slide.dtype.itemsize, copies=2 if is_remote(entry.slide) else 1)


def _is_done(run: RunFolder, state: SlideState | None, results: Mapping[str, str] | None, entry: SlideEntry) -> bool:
    """Say whether a slide's results stand.

    Raises
    ------
    RunError
        If they stand, but for another scan.
    """
    if state is None or state.state != "done" or not run.is_complete(entry.slide_id):
        return False
    # Runs of older versions have no hashes of their results.
    if results and hash_parts(run.slide(entry.slide_id)) != results:
        return False
    connect(entry.slide)
    # The results of a scan that was moved away since still stand.
    found = fingerprint(entry.slide) if entry.slide.exists() else state.fingerprint
    if (not found or found != state.fingerprint) and scan_sha256(entry.slide) != state.sha256:
        raise RunError(entry.slide, "the scan has changed since it was processed", "use another --out, or --force")
    return True


class _Batch:
    """The slides still to do, and what becomes of each."""

    def __init__(self, run: RunFolder, ledger: Ledger, progress: Progress | None, scrubber: Scrubber) -> None:
        self._run = run
        self._scrubber = scrubber
        self._ledger = ledger
        self._progress = progress
        self._begun: dict[str, float] = {}

    def process(self, tasks: list[Task], work: Work) -> None:
        self._tell()
        with closing(work(tasks, started=self._start)) as outcomes:
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
            self._fail(outcome.key, outcome.failure, outcome.details, seconds)
            return
        result = outcome.result
        try:
            self._run.publish(outcome.key, result["folder"])
        except (RunError, OSError) as error:
            shutil.rmtree(result["folder"], ignore_errors=True)
            self._fail(outcome.key, one_line(error), "", seconds)
            return
        self._ledger.finish(outcome.key, seconds, result["sha256"], result["fingerprint"], result["results"])
        _log.info("%s done in %.1f s: %s", outcome.key, seconds, json.dumps(result["summary"], default=str))

    def _fail(self, slide_id: str, failure: str, details: str, seconds: float) -> None:
        reason = self._scrubber.cut(failure)
        self._ledger.fail(slide_id, reason, seconds)
        _log.error("%s failed: %s%s", slide_id, reason, f"\n{details}" if details else "")

    def _tell(self) -> None:
        if self._progress is not None:
            states = [state.state for state in self._ledger.slides().values()]
            self._progress(Tally(len(states), states.count("done"), states.count("failed")))


class _LogFile(logging.FileHandler):
    """The run's log: on a full disk its lines are lost, and nothing else is."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: what the batch itself can't write it reports."""

    def close(self) -> None:
        """Close the file, if it can be."""
        with suppress(OSError):
            super().close()


@contextmanager
def _logging_to(run: RunFolder, inputs: Inputs) -> Iterator[Path]:
    """Write what the package logs to the run's log, one plain line each; yields where workers print to."""
    check_pseudonyms(run, inputs.pseudonyms)
    handler = _LogFile(run.log, encoding="utf-8")
    handler.setFormatter(ScrubbedFormatter("%(asctime)s %(levelname)s %(message)s", inputs.scrubber))
    logger = logging.getLogger("ctc_imaging")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with inputs.scrubber.output(run.log) as output:
            yield output
    except BaseException as error:
        _log.error("stopped: %s", one_line(error))
        raise
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
