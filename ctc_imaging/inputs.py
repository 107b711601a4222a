"""All that a run needs (tables, panels, model), read and checked before any slide starts."""

from __future__ import annotations

import io
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctc_imaging
from ctc_imaging.config import Settings
from ctc_imaging.errors import TableError
from ctc_imaging.files import sha256_json, write_text
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.store.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.cohort import SlideEntry

# Packages whose version may move a figure in the last digit.
_PACKAGES = ("numpy", "pandas", "scipy", "scikit-image", "opencv-python-headless", "torch", "tifffile", "imagecodecs")
TABLES = ("cohort", "clinical", "imaging", "markers", "schedule")


@dataclass(frozen=True)
class Inputs:
    """The checked input of a run.

    `tables` holds the normalised text of each table that was given (of the cohort always), `panels`
    each panel in use by the name or path it is called by; the run goes by the first of them, which is that
    of slides that name none, if there are any.
    """

    entries: tuple[SlideEntry, ...]
    settings: Settings
    panels: Mapping[str, Panel]
    model_hash: str
    tables: Mapping[str, str]
    simulated: bool = False
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))

    @property
    def panel(self) -> Panel:
        """The panel that the run goes by."""
        return next(iter(self.panels.values()))

    @property
    def identity(self) -> dict[str, dict[str, Any]]:
        """What one run can't mix: version, configuration, panels, model and cohort, without any path."""
        settings = asdict(self.settings)
        names = {called: panel.name for called, panel in self.panels.items()}
        cohort = [{**_as_row(entry), "slide": "", "panel": names.get(entry.panel or "")} for entry in self.entries]
        return {
            "version": {"number": ctc_imaging.__version__},
            "configuration": {name: value for name, value in settings.items() if name not in ("panel", "model")},
            "panel": {panel.name: panel.hash for panel in self.panels.values()},
            "model": {"hash": self.model_hash},
            "cohort": {"slides": len(cohort), "hash": sha256_json(cohort)},
        }

    def facts(self) -> dict[str, Any]:
        """Return what run.json says of the run besides its identity."""
        return {
            "version": ctc_imaging.__version__,
            "command": list(self.command),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "simulated": self.simulated,
            "configuration": asdict(self.settings),
            "panel": {**asdict(self.panel), "hash": self.panel.hash},
            "panels": {called: asdict(panel) for called, panel in self.panels.items()},
            "model": {"name": self.settings.model, "hash": self.model_hash},
            "tables": {name: sha256_json(text) for name, text in self.tables.items()},
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in _PACKAGES},
        }


def load_inputs(
    cohort: Path,
    settings: Settings,
    clinical: Path | None = None,
    imaging: Path | None = None,
    markers: Path | None = None,
    schedule: Path | None = None,
) -> Inputs:
    """Read and check everything a run is given, without opening a slide.

    Parameters
    ----------
    cohort : Path
        cohort.csv.
    settings : Settings
    clinical, imaging, markers, schedule : Path, optional
        The other tables.

    Returns
    -------
    Inputs

    Raises
    ------
    TableError, ConfigError, PanelError, ModelError
        At the first thing that is wrong.
    """
    from ctc_imaging.cohort import load_cohort

    cohort = Path(cohort).absolute()
    entries = tuple(_absolute(entry, cohort.parent) for entry in load_cohort(cohort))
    default = load_panel(settings.panel)
    if Path(settings.panel).is_file():
        settings = replace(settings, panel=str(Path(settings.panel).absolute()))
    given = {"clinical": clinical, "imaging": imaging, "markers": markers, "schedule": schedule}
    tables = {name: _normalised(name, Path(path)) for name, path in given.items() if path is not None}
    return Inputs(
        entries=entries,
        settings=settings,
        panels=_panels(cohort, entries, settings.panel, default),
        model_hash=model_hash(settings.model),
        tables={"cohort": _to_csv([_as_row(entry) for entry in entries]), **tables},
        # The simulator lays the truth beside its cohort table.
        simulated=(cohort.parent / "truth").is_dir(),
    )


def model_hash(name: str) -> str:
    """Load a classifier once, to be sure that it is whole, and return its hash.

    Raises
    ------
    ModelError
        If there is no such model or it is damaged.
    """
    from ctc_imaging.classification import load_model

    return load_model(name).hash


def save_tables(run: RunFolder, inputs: Inputs) -> None:
    """Lay the run's own copies of its tables into RUN/tables/; those not given now are left as they are."""
    for name, text in inputs.tables.items():
        if not run.table(name).is_file() or run.table(name).read_text(encoding="utf-8") != text:
            write_text(run.table(name), text)


def stored_hashes(run: RunFolder) -> dict[str, str]:
    """Return the hash of each table that lies in RUN/tables/."""
    found = {name: run.table(name) for name in TABLES if run.table(name).is_file()}
    return {name: sha256_json(path.read_text(encoding="utf-8")) for name, path in found.items()}


def _absolute(entry: SlideEntry, folder: Path) -> SlideEntry:
    """Make paths independent of the working folder, which workers don't share."""
    local = folder / entry.panel if entry.panel else None
    panel = str(local) if local is not None and local.is_file() else entry.panel
    return replace(entry, slide=entry.slide.absolute(), panel=panel)


def _panels(cohort: Path, entries: tuple[SlideEntry, ...], called: str, default: Panel) -> dict[str, Panel]:
    """Load every panel in use, the default first, and refuse a patient whose samples would be read by two."""
    panels = {} if all(entry.panel for entry in entries) else {called: default}
    by_patient: dict[str, Panel] = {}
    by_name: dict[str, Panel] = {}
    for entry in entries:
        called_by = entry.panel or called
        panel = panels[called_by] = panels.get(called_by) or load_panel(called_by)
        if by_name.setdefault(panel.name, panel) != panel:
            raise TableError(cohort, f"two panels have the name {panel.name}", "rename one of them")
        if entry.sample_kind == "patient" and by_patient.setdefault(entry.patient_id, panel) != panel:
            fault = f"patient {entry.patient_id} has slides of the panels {by_patient[entry.patient_id].name}"
            raise TableError(cohort, f"{fault} and {panel.name}", "give one patient's slides one panel")
    return panels


def _normalised(name: str, path: Path) -> str:
    from ctc_imaging import clinical as tables

    if name == "schedule":
        visits = tables.load_schedule(path).visits
        windows = [
            {"name": visit.name, "day": visit.day, "window_days": [visit.early_days, visit.late_days]}
            for visit in visits
        ]
        return json.dumps(windows, ensure_ascii=False, indent=1) + "\n"
    loaders = {"clinical": tables.load_clinical, "imaging": tables.load_imaging, "markers": tables.load_markers}
    return _to_csv(loaders[name](path))


def _as_row(entry: SlideEntry) -> dict[str, Any]:
    values = {field.name: getattr(entry, field.name) for field in fields(entry)}
    return {**values, "slide": str(entry.slide), "sample_date": entry.sample_date.isoformat()}


def _to_csv(table: pd.DataFrame | list[dict[str, Any]]) -> str:
    import pandas as pd

    buffer = io.StringIO()
    # dtype object keeps whole numbers whole in a column with gaps.
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(table, dtype=object)
    frame.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
