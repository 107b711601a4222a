"""The cells that an export is made of: a slide's cells with the calls in force, and the outlines that readers drew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from ctc_imaging.cohort import SlideEntry, load_cohort
from ctc_imaging.errors import ConfigError, RunError
from ctc_imaging.panel import Panel
from ctc_imaging.reviewed import reviewed_cells
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.outline_marks import POLYGON, WRONG, marks_of
from ctc_imaging.store.record import OUTLINE, Review
from ctc_imaging.store.reviews import CALLS, current_reviews
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.tables import nearest

CALL_COLOURS = {"ctc": "#ff4fd8", "indeterminate": "#27e0f0", "leukocyte": "#8b93a1", "artefact": "#c2884f"}
"""As in the review window."""


@dataclass(frozen=True)
class SlideCells:
    """One slide's cells for export.

    Attributes
    ----------
    slide_id, sample_id, patient_id : str
    folder : Path
        Of the slide's results.
    panel : Panel
    pixel_size_um : float
    cells : DataFrame
        Columns of cells.parquet and of `apply_reviews`; `outline` is "segmented", "drawn" (by a reader), "marked wrong"
        or "none" (a cell that a reader added).
    drawn : dict of int to ndarray of float64, shape (n, 2)
        Corners (y, x) in µm of the outlines that readers drew, by cell.
    """

    slide_id: str
    sample_id: str
    patient_id: str
    folder: Path
    panel: Panel
    pixel_size_um: float
    cells: pd.DataFrame
    drawn: dict[int, NDArray[np.float64]]


def read_slides(run: RunFolder, slide_ids: Sequence[str] = (), calls: Sequence[str] = ()) -> Iterator[SlideCells]:
    """Read the cells of a run, slide by slide in the order of the cohort.

    Parameters
    ----------
    run : RunFolder
    slide_ids : sequence of str
        Just these slides; by default all with results.
    calls : sequence of str
        Just cells with these calls, after the reviews so far; by default all.

    Yields
    ------
    SlideCells

    Raises
    ------
    ConfigError
        If a slide has no results or a call isn't known.
    RunError
        If the folder is no run, holds no results, or they are damaged.
    """
    entries, reviews = _entries(run, slide_ids), _reviews(run)
    if unknown := next((call for call in calls if call not in CALLS), None):
        raise ConfigError("--calls", f"{unknown!r} isn't known", f"use some of {','.join(CALLS)}")
    for entry in entries:
        try:
            slide = _slide(run, entry, reviews.get(entry.slide_id, []), calls)
        except (OSError, ValueError, LookupError, TypeError) as error:
            fault = f"its results are damaged ({type(error).__name__})"
            raise RunError(run.slide(entry.slide_id), fault, "run ctc-imaging verify, then the run again") from error
        yield slide


def slide_ids_of(run: RunFolder, slide_ids: Sequence[str] = ()) -> list[str]:
    """Return which slides an export takes, by default all with results.

    Raises
    ------
    ConfigError
        If one has no results.
    RunError
        If the folder is no run, or none has.
    """
    return [entry.slide_id for entry in _entries(run, slide_ids)]


def class_name(call: str, phenotype: str) -> str:
    """Name a cell's class: its call, and a CTC's phenotype after a colon."""
    return f"{call}: {phenotype}" if phenotype else call or "no call"


def rgb(colour: str) -> list[int]:
    """Return a colour ``#rrggbb`` as three whole numbers."""
    return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]


def _entries(run: RunFolder, slide_ids: Sequence[str]) -> list[SlideEntry]:
    run.read()
    with Ledger(run.ledger) as ledger:
        done = {slide_id for slide_id, state in ledger.slides().items() if state.state == "done"}
    for slide_id in slide_ids:
        if slide_id not in done:
            guess = nearest(slide_id, done)
            remedy = f"did you mean {guess}?" if guess else "name one that is done in slides.csv"
            raise ConfigError("--slide", f"{slide_id!r} isn't a slide with results in this run", remedy)
    if not done:
        raise RunError(run.path, "no slide has results", "finish the run first")
    entries = load_cohort(run.table("cohort"))
    return [entry for entry in entries if entry.slide_id in (set(slide_ids) or done)]


def _reviews(run: RunFolder) -> dict[str, list[Review]]:
    with Ledger(run.ledger) as ledger:
        return current_reviews(run, ledger)


def _slide(run: RunFolder, entry: SlideEntry, reviews: Sequence[Review], calls: Sequence[str]) -> SlideCells:
    folder, panel = run.slide(entry.slide_id), run.panel(entry.panel)
    labels: Any = zarr.open_group(folder / "labels.ome.zarr", mode="r")
    scale = labels.attrs["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    cells = reviewed_cells(run, entry.slide_id, reviews, panel)
    machine = set(pd.read_parquet(folder / "cells.parquet", columns=["cell_id"])["cell_id"])
    marks = [mark for mark in marks_of(reviews) if mark.action == OUTLINE]
    drawn = {mark.cell_id: np.asarray(mark.details[POLYGON], float) for mark in marks if POLYGON in mark.details}
    wrong = {mark.cell_id for mark in marks if mark.details.get(WRONG)} - set(drawn)
    cells = cells.assign(outline=[_outline(int(cell), machine, drawn, wrong) for cell in cells["cell_id"]])
    kept = cells[cells["call"].isin(calls)] if calls else cells
    return SlideCells(
        slide_id=entry.slide_id,
        sample_id=entry.sample_id,
        patient_id=entry.patient_id,
        folder=folder,
        panel=panel,
        pixel_size_um=float(scale[-1]),
        cells=kept.reset_index(drop=True),
        drawn=drawn,
    )


def _outline(cell_id: int, machine: set[int], drawn: dict[int, Any], wrong: set[int]) -> str:
    if cell_id in drawn:
        return "drawn"
    if cell_id not in machine:
        return "none"
    return "marked wrong" if cell_id in wrong else "segmented"
