"""A cohort through the pipeline: slides in parallel processes, each failing alone, resumable at any moment."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctc_imaging.errors import ConfigError, RunError, SlideError
from ctc_imaging.files import sha256_file, sha256_json, write_csv
from ctc_imaging.inputs import Inputs, load_inputs, save_tables, stored_hashes
from ctc_imaging.progress import Progress, Tally
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.workers import Outcome, Task, run_tasks

if TYPE_CHECKING:
    import pandas as pd

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
    """

    run: Path
    done: tuple[str, ...]
    failed: dict[str, str]
    seconds: float


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
    start = time.monotonic()
    if workers is not None and workers < 1:
        raise ConfigError("--workers", f"{workers} workers can't work", "give at least 1")
    inputs = load_inputs(cohort, settings, clinical, imaging, markers, schedule)
    run = RunFolder(Path(out).absolute())
    run.prepare()
    with run.locked(), _logging_to(run.log):
        if not force:
            run.check_same(inputs.identity)
        with Ledger(run.ledger) as ledger:
            todo = _open_run(run, inputs, ledger, force)
            _process_slides(run, todo, ledger, settings, workers or _processors(), progress or _silent, process)
            states = ledger.slides()
        recount(run)
        _write_report(run)
    failed = {slide_id: state.reason for slide_id, state in states.items() if state.state == "failed"}
    done = tuple(slide_id for slide_id, state in states.items() if state.state == "done")
    return BatchResult(run.path, done, failed, time.monotonic() - start)


def recount(run: RunFolder) -> pd.DataFrame:
    """Write slides.csv, counts.csv and timeline.csv anew from the slides' cells and the reviews so far.

    Parameters
    ----------
    run : RunFolder

    Returns
    -------
    DataFrame
        The counts, one row a sample.

    Raises
    ------
    RunError
        If the folder is no run.
    """
    from ctc_imaging import clinical as tables
    from ctc_imaging.cohort import load_cohort
    from ctc_imaging.counting import count_samples, slide_table
    from ctc_imaging.timeline import build_timeline

    panel, landmark_day = run.panel(), run.settings().landmark_day
    slides = slide_table(_slide_rows(run, load_cohort(run.table("cohort"))))
    counts = count_samples(slides)
    clinical = tables.load_clinical(run.table("clinical")) if run.table("clinical").is_file() else None
    schedule = tables.load_schedule(run.table("schedule")) if run.table("schedule").is_file() else None
    timeline = build_timeline(counts, clinical, schedule, panel.cutoff, landmark_day)
    for path, table in ((run.slides_csv, slides), (run.counts_csv, counts), (run.timeline_csv, timeline)):
        write_csv(path, table)
    return counts


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
        from ctc_imaging.pipeline import process_slide as process
    folder.mkdir(parents=True)
    before = fingerprint(entry.slide)
    summary = process(entry, folder, settings)
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
    ledger.record(_ACTOR, "forced" if force else "started", " ".join(inputs.command))
    run.discard_partial()
    if force:
        # The ledger forgets the slides before run.json changes: killed here, nothing old is ever trusted.
        for slide_id in ledger.slides():
            ledger.reset(slide_id)
            run.discard(slide_id)
    todo = [entry for entry in inputs.entries if not _is_done(run, ledger, entry)]
    save_tables(run, inputs)
    run.describe(inputs.identity, {**inputs.facts(), "tables": stored_hashes(run)})
    for entry in todo:
        ledger.reset(entry.slide_id)
    _log.info("%d slides, %d to do; %s", len(inputs.entries), len(todo), " ".join(inputs.command))
    return todo


def _is_done(run: RunFolder, ledger: Ledger, entry: SlideEntry) -> bool:
    """Say whether a slide's results stand.

    Raises
    ------
    RunError
        If they stand, but for another scan.
    """
    state = ledger.slides()[entry.slide_id]
    if state.state != "done" or not run.is_complete(entry.slide_id):
        return False
    # A scan that was moved away since leaves its results standing.
    changed = entry.slide.exists() and fingerprint(entry.slide) != state.fingerprint
    if changed and sha256_file(entry.slide) != state.sha256:
        raise RunError(entry.slide, "the scan has changed since it was processed", "use another --out, or --force")
    return True


def _process_slides(
    run: RunFolder,
    todo: list[SlideEntry],
    ledger: Ledger,
    settings: Settings,
    workers: int,
    progress: Progress,
    process: SlideProcess | None,
) -> None:
    total = len(ledger.slides())
    done, failed = total - len(todo), 0
    progress(Tally(total, done, failed))
    begun: dict[str, float] = {}

    def start(slide_id: str) -> None:
        begun[slide_id] = time.monotonic()
        run.discard(slide_id)
        ledger.start(slide_id)

    tasks = [
        Task(entry.slide_id, process_into, (process, entry, run.partial(entry.slide_id), settings)) for entry in todo
    ]
    with closing(run_tasks(tasks, workers, run.log, start)) as outcomes:
        for outcome in outcomes:
            failed += not _settle(run, ledger, outcome, time.monotonic() - begun[outcome.key])
            done = total - len(todo) + sum(1 for _ in ()) if False else done
            progress(Tally(total, done, failed))
