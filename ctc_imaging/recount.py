"""Counts and timeline anew, from the cells of a run's slides and the reviews so far."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctc_imaging.errors import RunError
from ctc_imaging.files import write_csv
from ctc_imaging.reviewed import reviewed_cells
from ctc_imaging.sign_off import (
    SIGN_OFF_CSV,
    current_signatures,
    sign_off_table,
    signers_of_samples,
    signers_of_slides,
)
from ctc_imaging.store.ledger import COUNTED, Ledger
from ctc_imaging.store.reviews import current_reviews
from ctc_imaging.store.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.cohort import SlideEntry

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recount:
    """The tables of a run as they were written, and what they can't say."""

    slides: pd.DataFrame
    counts: pd.DataFrame
    timeline: pd.DataFrame
    sign_off: pd.DataFrame
    notes: tuple[str, ...]


def recount(run: RunFolder) -> Recount:
    """Write slides.csv, counts.csv, timeline.csv, sign_off.csv, stains.csv, drift.csv and error_rates.csv.

    Parameters
    ----------
    run : RunFolder
        Its slides may be in any state: one that isn't done has no counts.

    Returns
    -------
    Recount

    Raises
    ------
    RunError
        If the folder is no run.
    """
    from ctc_imaging import batch_quality as beside
    from ctc_imaging import clinical as tables
    from ctc_imaging.assay import RATES_CSV, assess_samples
    from ctc_imaging.cohort import load_cohort
    from ctc_imaging.counting import count_samples, slide_table, unreviewed_ctcs
    from ctc_imaging.drift import DRIFT_CSV, judge_drift
    from ctc_imaging.timeline import build_timeline

    panel, landmark_day = run.panel(), run.settings().landmark_day
    entries = load_cohort(run.table("cohort"))
    batches = beside.batch_table(entries)
    rows, measured, figures = zip(*_slide_rows(run, entries), strict=True)
    stains = beside.stain_table(stain for slide in measured for stain in slide)
    stains = stains[stains["slide_id"].isin(batches["slide_id"])]
    remarks = beside.stain_remarks(beside.stain_figures(stains))
    slides = beside.add_remarks(slide_table(rows), remarks)
    signed = current_signatures(run)
    slides = slides.assign(signed_by=signers_of_slides(slides, signed))
    counts = count_samples(slides)
    counts = counts.assign(signed_by=signers_of_samples(counts, slides))
    controls = beside.judge_controls(counts, batches, panel.cutoff, remarks)
    counts = beside.mark_failed_controls(counts, batches, controls)
    facts = run.read()
    model = facts["model"].get("error_rates")
    counts, rates = assess_samples(counts, batches, controls, unreviewed_ctcs(slides), model)
    clinical = tables.load_clinical(run.table("clinical")) if run.table("clinical").is_file() else None
    schedule = tables.load_schedule(run.table("schedule")) if run.table("schedule").is_file() else None
    timeline = build_timeline(counts, clinical, schedule, panel.cutoff, landmark_day)
    written = {run.slides_csv: slides, run.counts_csv: counts, run.timeline_csv: timeline}
    written[run.path / SIGN_OFF_CSV] = sign_off_table(run, counts, slides)
    written |= {run.path / beside.STAINS_CSV: stains, run.path / RATES_CSV: rates}
    current = (row for slide in figures for row in slide if row["slide_id"] in set(batches["slide_id"]))
    written[run.path / DRIFT_CSV] = judge_drift(current, facts["model"].get("reference"), facts["simulated"])
    for path, table in written.items():
        write_csv(path, table)
    _note_record(run)
    notes = tuple(timeline.attrs.get("notes", ()))
    _log.info("counted %d samples of %d slides: %s", len(counts), len(slides), " ".join(notes) or "nothing to note")
    return Recount(slides, counts, timeline, written[run.path / SIGN_OFF_CSV], notes)


def _note_record(run: RunFolder) -> None:
    """Note in the audit trail on how much of the record these counts rest: who rewrites it must rewrite this too."""
    with Ledger(run.ledger) as ledger:
        number, seal = ledger.head()
        noted = [event.detail for event in ledger.events() if event.event == COUNTED]
        if number and noted[-1:] != [said := f"{number} {seal}"]:
            ledger.record("ctc-imaging counts", COUNTED, said)


def _slide_rows(
    run: RunFolder, entries: tuple[SlideEntry, ...]
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
    """Yield each slide's row of slides.csv, the figures of its stains, and those that are followed for drift."""
    from ctc_imaging.batch_quality import stain_rows
    from ctc_imaging.counting import slide_row
    from ctc_imaging.drift import drift_rows

    with Ledger(run.ledger) as ledger:
        states, reviews = ledger.slides(), current_reviews(run, ledger)
    panels = {called: run.panel(called) for called in {entry.panel for entry in entries}}
    for entry in entries:
        state = states.get(entry.slide_id)
        if state is None or state.state != "done":
            yield slide_row(entry, None, None, state.reason or None if state else None), [], []
            continue
        panel = panels[entry.panel]
        try:
            quality = json.loads((run.slide(entry.slide_id) / "quality.json").read_text(encoding="utf-8"))
            cells = reviewed_cells(run, entry.slide_id, reviews.get(entry.slide_id, []), panel)
            measured = (entry, cells, quality, panel)
            rows = slide_row(entry, cells, quality), stain_rows(*measured), drift_rows(*measured)
        except (OSError, ValueError, LookupError, TypeError) as error:
            fault = f"its results are damaged ({type(error).__name__})"
            raise RunError(
                run.slide(entry.slide_id), fault, "remove the folder and run the same command as before"
            ) from error
        yield rows
