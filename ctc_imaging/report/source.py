"""Read a RUN folder into the tables the report is made of, with missing kept missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ctc_imaging.clinical import load_clinical
from ctc_imaging.counting import COUNT_COLUMNS, SLIDE_COLUMNS
from ctc_imaging.errors import RunError
from ctc_imaging.timeline import TIMELINE_COLUMNS

TEXT = {
    name: str
    for name in (
        "slide_id state reason sample_id patient_id sample_date sample_kind quality_reasons readers signed_by rescan_of "
        "visit_status status change pattern"
    ).split()
}


@dataclass(frozen=True)
class Run:
    """The parts of a RUN folder that the report shows; tables have the contract's columns, empty where absent."""

    folder: Path
    facts: dict[str, Any]
    slides: pd.DataFrame
    counts: pd.DataFrame
    timeline: pd.DataFrame
    clinical: pd.DataFrame | None

    @property
    def simulated(self) -> bool:
        """Whether the slides were simulated."""
        return bool(self.facts.get("simulated", False))

    @property
    def cutoff(self) -> dict[str, Any] | None:
        """The panel's cut-off (`ctc`, `volume_ml`, `assay`, `source`), if it has one."""
        return self.facts.get("panel", {}).get("cutoff")

    @property
    def patients(self) -> pd.DataFrame:
        """Counts of patients' samples, without controls."""
        return self.counts[self.counts["sample_kind"] == "patient"]

    def slide_folder(self, slide_id: str) -> Path:
        """Folder of one slide's cells, crops and pictures."""
        return self.folder / "slides" / slide_id


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
        If the folder has no readable ``run.json``.
    """
    facts = _read_facts(folder / "run.json")
    return Run(
        folder=folder,
        facts=facts,
        slides=read_table(folder / "slides.csv", SLIDE_COLUMNS),
        counts=read_table(folder / "counts.csv", COUNT_COLUMNS),
        timeline=read_table(folder / "timeline.csv", TIMELINE_COLUMNS),
        clinical=read_clinical(folder / "tables" / "clinical.csv"),
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


def read_clinical(path: Path) -> pd.DataFrame | None:
    """Read the run's copy of clinical.csv; None where the run had none."""
    return load_clinical(path) if path.is_file() else None


def _read_facts(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RunError(path, "there is no run here", "give the folder that ctc-imaging run made")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise RunError(path, f"not JSON ({error})", "make the run anew with --force") from error
    if not isinstance(facts, dict):
        raise RunError(path, "not a JSON object", "make the run anew with --force")
    return facts
