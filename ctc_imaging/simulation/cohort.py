"""A simulated cohort on disk: the tables of a laboratory, its slides, and the truth beside them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
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
from ctc_imaging.simulation.placement import MAX_COVERED
from ctc_imaging.simulation.sequencing import simulate_sequencing
from ctc_imaging.simulation.settings import Setting
from ctc_imaging.simulation.slide import check_options, setting_named, simulate_with, write_image, write_truth

BLOOD_VOLUME_ML = 5.0
PIXEL_SIZE_UM = 0.5
PANEL = "emt-4"
SPIKED_CELLS = 20
RECOVERY = 0.9
BAD_FOCUS_UM = 30.0

COHORT_COLUMNS = (
    "slide",
    "patient_id",
    "sample_date",
    "blood_volume_ml",
    "slide_id",
    "sample_id",
    "sample_kind",
    "spiked_cells",
    "volume_on_slide_ml",
    "rescan_of",
    "batch",
    "panel",
    "pixel_size_um",
)
COVARIATES = ("MVI", "AFP", "BCLC", "size_cm")

_WHERE = "simulate cohort"
_BATCH = "B1"
_UNLIMITED = np.iinfo(np.int64).max
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
    sequencing: bool = False,
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
    sequencing : bool
        Add mutations.csv, samples.csv, germline.csv and frequencies.csv of some patients who relapse.
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
    if min(patients, workers) < 1:
        raise ConfigError(_WHERE, "there are no patients or no workers", "use 1 or more")
    check_options(_WHERE, shape_px, 0, leukocytes, seed, PIXEL_SIZE_UM)
    room = _UNLIMITED if tables_only else ctcs_that_fit(shape_px, leukocytes, chosen)
    out = Path(out)
    rngs = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(7)]
    people = draw_patients(patients, rngs[0])
    follow_up = draw_follow_up(people, rngs[1])
    visits = draw_visits(people, follow_up, rngs[2])
    counts = draw_counts(visits["true_burden"].to_numpy(), BLOOD_VOLUME_ML, rngs[3])
    visits["ctc"] = np.minimum(counts, room)
    samples = _samples(people, visits, rngs[4], spiked=int(min(SPIKED_CELLS, room)) if controls else None)
    slides = _slides(samples, patients, tables_only, rngs[5])
    _write_tables(out, people, follow_up, visits, slides)
    if sequencing:
        simulate_sequencing(_bloods(people, slides), _relapsed(people, follow_up), rngs[6]).write(out)
    if tables_only:
        write_csv(out / "counts.csv", draw_count_table(samples, leukocytes, chosen, rngs[5]))
    else:
        _run(_jobs(slides, chosen, shape_px, leukocytes, seed, out), workers, progress)


def ctcs_that_fit(shape_px: tuple[int, int], leukocytes: int, setting: Setting) -> int:
    """How many CTCs a slide has room for beside its leukocytes; the largest counts are cut to this.

    Raises
    ------
    ConfigError
        If not even the leukocytes fit.
    """
    covered_um2 = MAX_COVERED * shape_px[0] * shape_px[1] * PIXEL_SIZE_UM**2
    mean, sd = setting.leukocyte_diameter_um
    # A tenth more, for naked nuclei and for slides whose cells happen to be large.
    room_um2 = covered_um2 / 1.1 - leukocytes * np.pi / 4 * (mean**2 + sd**2)
    if room_um2 < 0:
        fault = f"{leukocytes} leukocytes don't fit on a slide of {shape_px[0]}x{shape_px[1]} px"
        raise ConfigError(_WHERE, fault, "take fewer of them or a larger shape")
    return int(room_um2 / (np.pi / 4 * setting.ctc_diameter_um.median**2 * 1.2))


def _samples(people: pd.DataFrame, visits: pd.DataFrame, rng: np.random.Generator, spiked: int | None) -> pd.DataFrame:
    """One row a blood sample drawn, with the CTCs truly in it; controls last, if any cells are to be spiked."""
    done = visits[visits["done"]]
    who = people.iloc[done["patient"]]
    dates = _dates(who["surgery_date"], done["day"])
    ids = who["patient_id"].to_numpy()
    samples = pd.DataFrame(
        {
            "sample_id": [f"{patient}-{visit}" for patient, visit in zip(ids, done["visit"], strict=True)],
            "patient_id": ids,
            "sample_date": dates,
            "sample_kind": "patient",
            "spiked_cells": "",
            "ctc": done["ctc"].to_numpy(),
        }
    )
    if spiked is not None:
        found = int(rng.binomial(spiked, RECOVERY))
        rows = [("blank", "", 0), ("donor", "", 0), ("spiked", str(spiked), found)]
        extra = [(f"control-{kind}", "", min(dates), kind, spiked, ctc) for kind, spiked, ctc in rows]
        samples = pd.concat([samples, pd.DataFrame(extra, columns=samples.columns)], ignore_index=True)
    return samples.assign(blood_volume_ml=BLOOD_VOLUME_ML)


def _slides(samples: pd.DataFrame, patients: int, plain: bool, rng: np.random.Generator) -> pd.DataFrame:
    """One row a scan: a slide a sample, but for the pooled sample, the rescan and the slide out of focus."""
    slides = samples.assign(
        slide_id=samples["sample_id"] + "-1",
        volume_on_slide_ml=samples["blood_volume_ml"],
        rescan_of="",
        glass=np.arange(len(samples)),
        scan=0,
        bad=False,
    )
    ours = np.flatnonzero(samples["sample_kind"] == "patient")
    if plain or len(ours) < 3:
        return slides
    pooled, rescanned, bad = (int(row) for row in rng.permutation(ours)[:3])
    slides.loc[bad, "bad"] = patients >= _PATIENTS_FOR_BAD_SLIDE
    second = slides.loc[pooled].copy()
    second["ctc"] = int(rng.binomial(second["ctc"], 0.5))
    second["slide_id"], second["glass"] = f"{second['sample_id']}-2", len(samples)
    second["volume_on_slide_ml"] = BLOOD_VOLUME_ML / 2
    slides.loc[pooled, ["ctc", "volume_on_slide_ml"]] = samples["ctc"][pooled] - second["ctc"], BLOOD_VOLUME_ML / 2
    again = slides.loc[rescanned].copy()
    again["rescan_of"], again["slide_id"], again["scan"] = again["slide_id"], f"{again['slide_id']}-rescan", 1
    return pd.concat([slides, pd.DataFrame([second, again])], ignore_index=True).sort_values(
        ["glass", "scan"], ignore_index=True
    )


def _bloods(people: pd.DataFrame, slides: pd.DataFrame) -> pd.DataFrame:
    """Patients' slides in their first scan, with the day of their blood since surgery."""
    own = slides[(slides["sample_kind"] == "patient") & (slides["scan"] == 0)]
    surgery = people.set_index("patient_id")["surgery_date"].reindex(own["patient_id"]).to_numpy("datetime64[D]")
    days = (own["sample_date"].to_numpy("datetime64[D]") - surgery).astype(float)
    return own.assign(day=days)[["slide_id", "patient_id", "day", "ctc"]]


def _relapsed(people: pd.DataFrame, follow_up: FollowUp) -> pd.DataFrame:
    days = pd.Series(follow_up.recurrence, name="recurrence_day")
    table = pd.concat([people["patient_id"], days], axis=1)
    return table[table["recurrence_day"].notna()]


def _write_tables(
    out: Path, people: pd.DataFrame, follow_up: FollowUp, visits: pd.DataFrame, slides: pd.DataFrame
) -> None:
    write_csv(out / "cohort.csv", _cohort_table(slides))
    write_csv(out / "clinical.csv", _clinical_table(people, follow_up))
    write_csv(out / "imaging.csv", _imaging_table(people, follow_up))
    write_csv(out / "truth" / "patients.csv", _truth_table(people, follow_up, visits))
    write_text(out / "schedule.yaml", _schedule())


def _cohort_table(slides: pd.DataFrame) -> pd.DataFrame:
    table = slides.assign(
        slide="slides/" + slides["slide_id"] + ".ome.tif",
        batch=_BATCH,
        panel=PANEL,
        pixel_size_um=PIXEL_SIZE_UM,
    )
    return table[[*COHORT_COLUMNS]]


def _clinical_table(people: pd.DataFrame, follow_up: FollowUp) -> pd.DataFrame:
    surgery = people["surgery_date"]
    # Adjuvant treatment that was to start after a recurrence or the last contact never did.
    start = people["adjuvant_day"].where(people["adjuvant_day"] < np.fmin(follow_up.recurrence, follow_up.last_contact))
    end = np.minimum(start + 60, follow_up.last_contact)
    return pd.DataFrame(
        {
            "patient_id": people["patient_id"],
            "surgery_date": _dates(surgery, 0),
            "last_contact_date": _dates(surgery, follow_up.last_contact),
            "recurrence_date": _dates(surgery, follow_up.recurrence),
            "death_date": _dates(surgery, follow_up.death),
            "recurrence_site": follow_up.site,
            "adjuvant_kind": people["adjuvant_kind"].where(start.notna(), ""),
            "adjuvant_start_date": _dates(surgery, start),
            "adjuvant_end_date": _dates(surgery, end),
            **{name: people[name] for name in COVARIATES},
        }
    )


def _imaging_table(people: pd.DataFrame, follow_up: FollowUp) -> pd.DataFrame:
    scans = follow_up.imaging
    who = people.iloc[scans["patient"]]
    return pd.DataFrame(
        {
            "patient_id": who["patient_id"].to_numpy(),
            "imaging_date": _dates(who["surgery_date"], scans["day"]),
            "modality": scans["modality"],
            "result": scans["result"],
        }
    )


def _truth_table(people: pd.DataFrame, follow_up: FollowUp, visits: pd.DataFrame) -> pd.DataFrame:
    """What is behind a patient's samples, one row a visit that was due; `ctc` is in the tube, drawn or not."""
    people = people.assign(true_recurrence_day=follow_up.true_recurrence, **asdict(HAZARD)).replace(np.inf, np.nan)
    who = people.iloc[visits["patient"]].reset_index(drop=True)
    kept = ["residual", "burden_before", "burden_left", "doubling_days", "adjuvant_day", "true_recurrence_day", "MVI"]
    own = visits[["visit", "day", "done", "true_burden", "ctc"]]
    return pd.concat([who["patient_id"], own, who[[*kept, *asdict(HAZARD)]]], axis=1).round(5)


def _schedule() -> str:
    lines = [f"  - {{name: {v.name}, day: {v.day}, window_days: [{v.early_days}, {v.late_days}]}}\n" for v in VISITS]
    return "visits:\n" + "".join(lines)


def _dates(surgery: pd.Series, day: pd.Series | np.ndarray | float) -> np.ndarray:
    """ISO dates `day` days after surgery, empty where the day is missing."""
    days = np.broadcast_to(np.asarray(day, float), len(surgery))
    whole = np.where(np.isnan(days), 0, days).astype("timedelta64[D]")
    written = np.datetime_as_string(surgery.to_numpy("datetime64[D]") + whole, unit="D")
    return np.where(np.isnan(days), "", written)


def _jobs(
    slides: pd.DataFrame, setting: Setting, shape_px: tuple[int, int], leukocytes: int, seed: int, out: Path
) -> list[_SlideJob]:
    bad = replace(setting, focus_offset_um=BAD_FOCUS_UM)
    return [
        _SlideJob(
            slide_id=row["slide_id"],
            setting=bad if row["bad"] else setting,
            shape_px=shape_px,
            ctc=int(row["ctc"]),
            leukocytes=leukocytes,
            seed=int(np.random.SeedSequence([seed, row["glass"]]).generate_state(1)[0]),
            scan=int(row["scan"]),
            folder=out,
        )
        for row in slides.to_dict("records")
    ]


def _run(jobs: Sequence[_SlideJob], workers: int, progress: Progress | None) -> None:
    done = map(_SlideJob.run, jobs) if workers == 1 else _run_in_processes(jobs, workers)
    for number, _ in enumerate(done, start=1):
        if progress is not None:
            progress(number, len(jobs))


def _run_in_processes(jobs: Sequence[_SlideJob], workers: int) -> Iterator[None]:
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        try:
            for future in as_completed([pool.submit(job.run) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and the cores to the other workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
