"""Commands that make and refresh a run: run, demo, counts, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result

if TYPE_CHECKING:
    from ctc_imaging.batch import BatchResult

Cohort = Annotated[Path, typer.Argument(metavar="COHORT.csv", help="One row a slide.", show_default=False)]
Out = Annotated[Path, typer.Option(metavar="RUN", help="Folder of the run; one started before goes on.")]
Clinical = Annotated[Path | None, typer.Option(metavar="FILE", help="One row a patient: surgery, recurrence, death.")]
Imaging = Annotated[Path | None, typer.Option(metavar="FILE", help="One row an imaging visit.")]
Markers = Annotated[Path | None, typer.Option(metavar="FILE", help="One row a measurement, for example AFP.")]
Schedule = Annotated[Path | None, typer.Option(metavar="FILE", help="Planned visits as YAML.")]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler, such as tcp://10.0.0.1:8786, or local.")
]
Force = Annotated[bool, typer.Option("--force", help="Compute everything anew, also with other settings.")]
Pseudonymise = Annotated[
    Path | None,
    typer.Option(metavar="KEYFILE", help="Replace patient ids in all that is written; the secret, made if not there."),
]
DemoOut = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the demo; one started before goes on.")]
DemoSeed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of everything random.")]


def register(app: options.App) -> None:
    """Add the commands."""
    app.command(epilog="Example: ctc-imaging demo --out demo")(demo)
    app.command(epilog="Example: ctc-imaging run cohort.csv --out run --clinical clinical.csv")(run)
    app.command(epilog="Example: ctc-imaging counts run")(counts)
    app.command(epilog="Example: ctc-imaging report run")(report)


def run(
    cohort: Cohort,
    out: Out,
    clinical: Clinical = None,
    imaging: Imaging = None,
    markers: Markers = None,
    schedule: Schedule = None,
    panel: options.Panel = None,
    model: options.Model = None,
    nuclei: options.Nuclei = None,
    seed: options.Seed = None,
    config: options.Config = None,
    workers: options.Workers = None,
    scheduler: Scheduler = None,
    pseudonymise: Pseudonymise = None,
    force: Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Process a cohort, from slides to report.

    After a stop of any kind the same command goes on. Slides that fail are named, the others are done.
    """
    from ctc_imaging.batch import run_cohort
    from ctc_imaging.config import load_settings
    from ctc_imaging.inputs import ensure_key
    from ctc_imaging.progress import show_progress

    settings = load_settings(config, panel=panel, model=model, nuclei=nuclei, seed=seed)
    if pseudonymise is not None and ensure_key(pseudonymise, out):
        note(f"{pseudonymise} is a new key: keep it safe, apart from {out}; without it no patient is found again")
    tables = (clinical, imaging, markers, schedule)
    with show_progress(sys.stderr) as progress:
        batch = run_cohort(
            cohort, out, settings, *tables, workers, force, progress, pseudonymise=pseudonymise, scheduler=scheduler
        )
    _finish(batch, as_json)


def demo(
    out: DemoOut = Path("demo"),
    workers: options.Workers = None,
    seed: DemoSeed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Run everything on a small simulated cohort.

    At the end it says where the report is. After a stop the same command goes on.
    """
    from ctc_imaging.demo import run_demo, simulate_demo
    from ctc_imaging.progress import show_progress

    with show_progress(sys.stderr, "slides simulated") as progress:
        simulate_demo(out, seed, workers, progress)
    with show_progress(sys.stderr) as progress:
        batch = run_demo(out, seed, workers, progress)
    _finish(batch, as_json)


def counts(run: options.Run, as_json: options.AsJson = False) -> None:
    """Count anew, with the reviews so far."""
    from ctc_imaging.recount import recount
    from ctc_imaging.store.run_folder import RunFolder

    folder = RunFolder(run)
    tables = recount(folder)
    for line in tables.notes:
        note(line)
    ctc, reviewed = int(tables.counts["ctc"].sum()), int(tables.counts["reviewed"].sum())
    facts = {
        "run": run,
        "samples": len(tables.counts),
        "assessable": int(tables.counts["assessable"].sum()),
        "ctc": ctc,
        "reviewed": reviewed,
        "counts": folder.counts_csv,
        "timeline": folder.timeline_csv,
    }
    text = f"{len(tables.counts)} samples, {facts['assessable']} assessable, {ctc} CTCs, {reviewed} cells reviewed"
    result(facts, f"{text}\n{folder.counts_csv}", as_json)


def report(run: options.Run, as_json: options.AsJson = False) -> None:
    """Write the report anew."""
    from ctc_imaging.report import write_report

    page = write_report(run)
    result({"run": run, "report": page}, str(page), as_json)


def _finish(batch: BatchResult, as_json: bool) -> None:
    for line in batch.notes:
        note(line)
    for slide_id, reason in batch.failed.items():
        row = f" (row {batch.rows[slide_id]} of the cohort table)" if slide_id in batch.rows else ""
        note(f"slide {slide_id}{row} failed: {reason}")
    page = batch.run / "report.html"
    facts = {
        "run": batch.run,
        "done": len(batch.done),
        "failed": batch.failed,
        "rows": {slide_id: batch.rows[slide_id] for slide_id in batch.failed if slide_id in batch.rows},
        "seconds": round(batch.seconds, 1),
        "report": page,
    }
    text = f"{len(batch.done)} slides done, {len(batch.failed)} failed, in {batch.seconds:.0f} s\n{page}"
    result(facts, text, as_json)
    if batch.failed:
        raise typer.Exit(1)
