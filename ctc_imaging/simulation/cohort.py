"""A simulated cohort on disk: the tables of a laboratory, its slides, and the truth beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from ctc_imaging.errors import ConfigError
from ctc_imaging.files import write_csv, write_text
from ctc_imaging.simulation.counts import draw_count_table
from ctc_imaging.simulation.patients import (
    HAZARD,
    VISITS,
    FollowUp,
    draw_counts,
    draw_follow_up,
    draw_patients,
    draw_visits,
)
from ctc_imaging.simulation.settings import SETTINGS, Setting
from ctc_imaging.simulation.slide import setting_named, simulate_with, write_image, write_truth

BLOOD_VOLUME_ML = 5.0
PIXEL_SIZE_UM = 0.5
PANEL = "emt-4"
SPIKED_CELLS = 20
RECOVERY = 0.9
BAD_FOCUS_UM = 30.0

_WHERE = "simulate cohort"
_BATCH = "B1"
_PATIENTS_FOR_BAD_SLIDE = 8
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _SlideJob:
    """One slide to simulate; `seed` is its glass, `scan` counts the scans of it."""

    slide_id: str
    setting: Setting
    shape_px: tuple[int, int]
    ctc: int
    leukocytes: int
    seed: int
    scan: int
    folder: Path

    def run(self) -> None:
        slide = simulate_with(
            self.setting,
            self.shape_px,
            ctc=self.ctc,
            leukocytes=self.leukocytes,
            seed=self.seed,
            scan=self.scan,
            pixel_size_um=PIXEL_SIZE_UM,
            panel=PANEL,
        )
        write_image(slide, self.folder / "slides" / f"{self.slide_id}.ome.tif")
        write_truth(slide, self.folder / "truth" / f"{self.slide_id}.csv")


def simulate_cohort(
    out: Path,
    patients: int = 16,
    seed: int = 0,
    shape_px: tuple[int, int] = (1024, 1024),
    leukocytes: int = 400,
    setting: str = "standard",
    tables_only: bool = False,
    controls: bool = True,
    workers: int = 1,
    progress: Progress | None = None,
) -> None:
    """Simulate a cohort into a folder.

    Writes cohort.csv, clinical.csv, imaging.csv, schedule.yaml, truth/patients.csv, and for each slide
    slides/SLIDE_ID.ome.tif and truth/SLIDE_ID.csv. From 8 patients on, one slide is badly out of focus;
    one sample lies on two slides and one slide is scanned twice.

    Parameters
    ----------
    out : Path
    patients : int
    seed : int
        The same seed gives the same bytes, whatever the number of workers.
    shape_px : tuple of int
        Rows and columns of each slide, at 0.5 µm a pixel.
    leukocytes : int
        On each slide.
    setting : str
        One of `ctc_imaging.simulation.SETTINGS`.
    tables_only : bool
        Leave out the pixels and write counts.csv instead.
    controls : bool
        Add a blank, a healthy donor and a spiked sample.
    workers : int
        Processes that simulate slides.
    progress : callable, optional
        Called with the number of slides done and to do.

    Raises
    ------
    ConfigError
        If an option has no meaning.
    """
    chosen = setting_named(setting, _WHERE)
    if min(patients, workers) < 1 or min(leukocytes, seed) < 0:
        raise ConfigError(_WHERE, "a number of patients, workers or cells has no meaning", "use 1 or more")
    who, follow, visit, count, table_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5))
    people = draw_patients(patients, who)
    follow_up = draw_follow_up(people, follow)
    visits = draw_visits(people, follow_up, visit)
    visits["ctc"] = draw_counts(visits["true_burden"].to_numpy(), BLOOD_VOLUME_ML, count)
    samples = _samples(people, visits, controls, count)
    slides = _slides(samples, patients, tables_only, count)
    out = Path(out)
    _write_tables(out, people, follow_up, visits, slides)
    if tables_only:
        write_csv(out / "counts.csv", draw_count_table(samples, leukocytes, chosen, table_rng))
        return
    _run(_jobs(slides, chosen, shape_px, leukocytes, seed, out), workers, progress)
