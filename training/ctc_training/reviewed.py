"""Reviewed cells of runs as labelled crops, cut again from the scans exactly as in use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ctc_imaging.classification.classes import CALLS
from ctc_imaging.classification.crops import iterate_crops
from ctc_imaging.cohort import SlideEntry, load_cohort
from ctc_imaging.errors import SlideError
from ctc_imaging.intake import fingerprint, scan_sha256
from ctc_imaging.readers.remote import connect
from ctc_imaging.segmentation import measure_background
from ctc_imaging.slide import open_slide
from ctc_imaging.store.labels import open_labels
from ctc_imaging.store.ledger import Ledger, SlideState
from ctc_imaging.store.record import Review
from ctc_imaging.store.reviews import current_reviews
from ctc_imaging.store.run_folder import RunFolder
from ctc_training.crop_arrays import CropArrays, stack
from ctc_training.votes import votes_of

UNREVIEWED_WEIGHT = 0.2
"""How often a cell that no reader saw is drawn, beside one that was reviewed."""


@dataclass(frozen=True)
class ReviewedSlide:
    """One slide with reviews: a row of `table` for each cell to be learnt from.

    `table` has the columns of `votes.VOTE_COLUMNS` and `origin`, `source`, `setting`, `run`, `patient_id`, `batch`,
    `slide_id`, `scan_sha256`, `weight`, `stands_for`, `kind`, `y_px`, `x_px`.
    """

    run: RunFolder
    entry: SlideEntry
    table: pd.DataFrame

    def cut(self) -> CropArrays:
        """Cut the crops from the scan, with the run's own outlines, in the order of the table."""
        panel = self.run.panel(self.entry.panel)
        with open_slide(self.entry.slide, self.entry.pixel_size_um) as scan:
            channels = panel.assign(scan.channel_names, self.entry.slide)
            background = measure_background(scan, channels)
            labels = open_labels(self.run.slide(self.entry.slide_id) / "labels.ome.zarr")
            batches = iterate_crops(scan, channels, panel, background, labels, self.table)
            return stack(batches, self.table["cell_id"].to_numpy())


@dataclass(frozen=True)
class ReviewedRun:
    """The slides of a run that can be learnt from, and those that can't, with the reason."""

    run: RunFolder
    slides: tuple[ReviewedSlide, ...]
    left_out: dict[str, str]
    undecided: int

    def facts(self) -> dict[str, object]:
        """Return what a training set says of the run."""
        described = self.run.read()
        return {
            "run": self.run.path.name,
            "run_hash": described["hash"],
            "model": described["model"],
            "simulated": bool(described.get("simulated")),
            "slides": len(self.slides),
            "slides_left_out": self.left_out,
            "cells": int(sum(len(slide.table) for slide in self.slides)),
            "cells_undecided": self.undecided,
        }


def reviewed_run(folder: Path, unreviewed: int = 0, seed: int = 0) -> ReviewedRun:
    """Gather the reviews of a run.

    Parameters
    ----------
    folder : Path
        Made by ``ctc-imaging run``.
    unreviewed : int
        So many cells a slide that the run called leukocyte and nobody reviewed are added, with a lower weight.
    seed : int
        Draws them.

    Returns
    -------
    ReviewedRun
        Cells that no reader could decide on are left out and counted; slides whose scan isn't as it was, too.

    Raises
    ------
    RunError
        If there is no run.
    """
    run = RunFolder(Path(folder).absolute())
    entries = {entry.slide_id: entry for entry in load_cohort(run.table("cohort"))} if run.read() else {}
    with Ledger(run.ledger) as ledger:
        reviews, states = current_reviews(run, ledger), ledger.slides()
    slides, left_out, undecided = [], {}, 0
    for slide_id in sorted(reviews):
        fault = _fault(entries[slide_id], states[slide_id])
        if fault:
            left_out[slide_id] = fault
            continue
        table = _labelled(run, entries[slide_id], states[slide_id], reviews[slide_id], unreviewed, seed)
        undecided += int((table["target"] == "").sum())
        slides.append(ReviewedSlide(run, entries[slide_id], table[table["target"] != ""].reset_index(drop=True)))
    return ReviewedRun(run, tuple(slide for slide in slides if len(slide.table)), left_out, undecided)


def _fault(entry: SlideEntry, state: SlideState) -> str | None:
    """Say why a slide's crops can't be cut any more."""
    try:
        connect(entry.slide)
        if not entry.slide.exists():
            return "the scan isn't where it was when the run was made"
        if fingerprint(entry.slide) != state.fingerprint and scan_sha256(entry.slide) != state.sha256:
            return "the scan has changed since the run was made"
    except (SlideError, OSError) as error:
        return f"the scan can't be read ({error})"
    return None


def _labelled(
    run: RunFolder, entry: SlideEntry, state: SlideState, reviews: Sequence[Review], unreviewed: int, seed: int
) -> pd.DataFrame:
    """Labels of a slide's cells with all that is known of where they come from."""
    columns = ["cell_id", "y_px", "x_px", "call"]
    cells = pd.read_parquet(run.slide(entry.slide_id) / "cells.parquet", columns=columns)
    votes = votes_of(reviews).assign(origin="reviewed", weight=1.0, stands_for=1)
    others = cells[(cells["call"] == "leukocyte") & ~cells["cell_id"].isin(votes["cell_id"])]
    rows = pd.concat([votes, _unseen(others, unreviewed, [seed, int(state.sha256[:8], 16)])], ignore_index=True)
    batch = f"{entry.site or ''}/{entry.batch}" if entry.batch else ""
    return rows.merge(cells.drop(columns="call"), on="cell_id", how="left", validate="one_to_one").assign(
        source=f"{run.path.name}/{entry.slide_id}",
        setting=f"{run.path.name}, {entry.batch}" if entry.batch else run.path.name,
        run=run.path.name,
        # A control without a patient is nobody's but its own sample's.
        patient_id=entry.patient_id or f"sample {entry.sample_id}",
        batch=batch,
        slide_id=entry.slide_id,
        scan_sha256=state.sha256,
        kind=rows["target"],
    )


def _unseen(others: pd.DataFrame, count: int, seed: list[int]) -> pd.DataFrame:
    """Draw cells that nobody reviewed; each stands for all that weren't drawn."""
    chosen = np.sort(np.random.default_rng(seed).permutation(others["cell_id"].to_numpy())[:count])
    table = pd.DataFrame({"cell_id": chosen}).assign(**dict.fromkeys(CALLS, 0))
    return table.assign(
        leukocyte=1,
        readers="",
        target="leukocyte",
        agreement=np.nan,
        disputed=False,
        phenotype="",
        origin="unreviewed",
        weight=UNREVIEWED_WEIGHT,
        stands_for=max(round(len(others) / max(len(chosen), 1)), 1),
    )
