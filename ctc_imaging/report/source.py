"""Read a RUN folder into the tables the report is made of, with missing kept missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ctc_imaging.assay import RATE_COLUMNS, RATES_CSV
from ctc_imaging.batch_quality import STAIN_COLUMNS, STAINS_CSV, batch_table
from ctc_imaging.clinical import Visit, load_clinical, load_imaging, load_markers, load_schedule
from ctc_imaging.cohort import SlideEntry, load_cohort
from ctc_imaging.counting import COUNT_COLUMNS, SLIDE_COLUMNS
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.timeline import TIMELINE_COLUMNS

SIGN_OFF_CSV = "sign_off.csv"
SIGN_OFF_COLUMNS = (
    *("sample_id", "ctc_machine", "ctc", "candidates", "candidates_read", "added", "disputed", "overruled"),
    *("overruled_without_reason", "readers", "ready", "signed_by", "signed_on", "ctc_signed", "amendments"),
)
"""As `sign_off.sign_off_table` writes them."""

# Columns read as text, lest an id such as 007 become a number.
TEXT = dict.fromkeys(
    (
        *("slide_id", "state", "reason", "rescan_of", "sample_id", "patient_id", "sample_date", "sample_kind"),
        *("quality_reasons", "readers", "signed_by", "visit_status", "status", "change", "pattern"),
        *("site", "batch", "panel", "channel", "role"),
        *("batch_name", "batch_verdict", "false_from", "recovery_from", "signed_on", "ready"),
    ),
    str,
)


@dataclass(frozen=True)
class Run:
    """The parts of a RUN folder that the report shows; tables have the contract's columns, empty where absent."""

    folder: RunFolder
    facts: dict[str, Any]
    slides: pd.DataFrame
    counts: pd.DataFrame
    timeline: pd.DataFrame
    clinical: pd.DataFrame | None
    stains: pd.DataFrame
    rates: pd.DataFrame
    cohort: tuple[SlideEntry, ...]
    sign_off: pd.DataFrame
    scans: pd.DataFrame
    markers: pd.DataFrame
    schedule: tuple[Visit, ...]

    @property
    def batches(self) -> pd.DataFrame:
        """Each slide's sample and batch, as from `batch_quality.batch_table`."""
        return batch_table(self.cohort)

    @property
    def simulated(self) -> bool:
        """Whether the slides were simulated."""
        return bool(self.facts["simulated"])

    @property
    def panel(self) -> dict[str, Any]:
        """The panel as run.json has it: `name`, `channels`, `cutoff`, `clusters`, `hash`."""
        return self.facts["panel"]

    @property
    def cutoff(self) -> dict[str, Any] | None:
        """The panel's cut-off (`ctc`, `volume_ml`, `assay`, `source`), if it has one."""
        return self.panel["cutoff"]

    @property
    def patients(self) -> pd.DataFrame:
        """Counts of patients' samples, without controls."""
        return self.counts[self.counts["sample_kind"] == "patient"]


def read_run(folder: Path) -> Run:
    """Read the tables of a RUN folder.

    Parameters
    ----------
    folder : Path
        A folder made by ``ctc-imaging run``.

    Returns
    -------
    Run

    Raises
    ------
    RunError
        If the folder isn't a run, or its run.json is damaged.
    """
    run = RunFolder(folder)
    return Run(
        folder=run,
        facts=run.read(),
        slides=read_table(run.slides_csv, SLIDE_COLUMNS),
        counts=read_table(run.counts_csv, COUNT_COLUMNS),
        timeline=read_table(run.timeline_csv, TIMELINE_COLUMNS),
        clinical=read_clinical(run.table("clinical")),
        stains=read_stains(run.path / STAINS_CSV),
        rates=read_table(run.path / RATES_CSV, RATE_COLUMNS),
        cohort=load_cohort(run.table("cohort")) if run.table("cohort").is_file() else (),
        sign_off=read_table(run.path / SIGN_OFF_CSV, SIGN_OFF_COLUMNS),
        scans=_loaded(run.table("imaging"), load_imaging, ("patient_id", "imaging_date", "modality", "result")),
        markers=_loaded(run.table("markers"), load_markers, ("patient_id", "date", "marker", "value")),
        schedule=load_schedule(run.table("schedule")).visits if run.table("schedule").is_file() else (),
    )


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read one of the run's CSV tables; columns the file lacks are added empty, `assessable` becomes a bool."""
    if not path.is_file() or not path.stat().st_size:
        return pd.DataFrame({name: pd.Series(dtype=object) for name in columns})
    table = pd.read_csv(path, dtype=TEXT)
    table = table.reindex(columns=[*columns, *(name for name in table if name not in columns)])
    if "assessable" in table:
        table["assessable"] = table["assessable"].astype(str).str.lower() == "true"
    return table


def read_stains(path: Path) -> pd.DataFrame:
    """Read the figures of the slides' stains; empty where the run is of an older version."""
    table = read_table(path, STAIN_COLUMNS)
    texts = [name for name in STAIN_COLUMNS if name in TEXT]
    return table.assign(**{name: table[name].fillna("") for name in texts})


def read_clinical(path: Path) -> pd.DataFrame | None:
    """Read the run's copy of clinical.csv; None where the run had none."""
    return load_clinical(path) if path.is_file() else None


def _loaded(path: Path, load: Callable[[Path], pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    return load(path) if path.is_file() else pd.DataFrame({name: pd.Series(dtype=object) for name in columns})
