"""All that a run needs (tables, panels, model), read and checked before any slide starts."""

from __future__ import annotations

import io
import json
import platform
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ctc_imaging
from ctc_imaging.config import Settings
from ctc_imaging.errors import ConfigError, ModelError, RunError, TableError
from ctc_imaging.files import sha256_json, write_text
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.pseudonyms import (
    Pseudonyms,
    check_distinct,
    make_key,
    make_scrubber,
    pseudonymous_entry,
    pseudonymous_table,
    read_text_table,
)
from ctc_imaging.scrubbing import Scrubber
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.cohort import SlideEntry

# Packages whose version may move a figure in the last digit.
_PACKAGES = ("numpy", "pandas", "scipy", "scikit-image", "opencv-python-headless", "torch", "tifffile", "imagecodecs")
# Options whose values tell nothing but how a run is computed.
_PLAIN_OPTIONS = ("--workers", "--seed", "--model", "--panel")
TABLES = ("cohort", "clinical", "imaging", "markers", "schedule")


@dataclass(frozen=True)
class Inputs:
    """The checked input of a run.

    `nuclei_hash` is that of what finds the nuclei; runs made before it had one have none.
    `tables` holds the normalised text of each table that was given (of the cohort always), `panels`
    each panel in use by the name or path it is called by; the run goes by the first of them, which is that
    of slides that name none, if there are any.

    Under pseudonymisation `pseudonyms` is given, and `entries` and `tables` hold pseudonyms; only the entries' paths
    and the panels' are still the real ones, for the workers to read. `scrubber` takes the rest out of free text, and
    `rows` has each slide's line in the laboratory's own cohort table, by which it is found again.

    `error_rates` is what the model was measured to do, for the limits of counts, and `reference` what slides like its
    training's have, for the alarm of drift; they decide no call, so they are no part of the run's identity.
    """

    entries: tuple[SlideEntry, ...]
    settings: Settings
    panels: Mapping[str, Panel]
    model_hash: str
    tables: Mapping[str, str]
    nuclei_hash: str = ""
    simulated: bool = False
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))
    pseudonyms: Pseudonyms | None = None
    scrubber: Scrubber = field(default_factory=Scrubber)
    rows: Mapping[str, int] = field(default_factory=dict)
    error_rates: Mapping[str, Any] | None = None
    reference: Mapping[str, Any] | None = None

    @property
    def panel(self) -> Panel:
        """The panel that the run goes by."""
        return next(iter(self.panels.values()))

    @property
    def identity(self) -> dict[str, dict[str, Any]]:
        """What one run can't mix: version, configuration, panels, model and cohort, without any path."""
        names = {called: panel.name for called, panel in self.panels.items()}
        cohort = [{**_as_row(entry), "slide": "", "panel": names.get(entry.panel or "")} for entry in self.entries]
        return {
            "version": {"number": ctc_imaging.__version__},
            "configuration": self.settings.plain,
            "panel": {panel.name: panel.hash for panel in self.panels.values()},
            "model": {"hash": self.model_hash, **({"nuclei": self.nuclei_hash} if self.nuclei_hash else {})},
            "cohort": {"slides": len(cohort), "hash": sha256_json(cohort)},
        }

    def facts(self) -> dict[str, Any]:
        """Return what run.json says of the run besides its identity."""
        panels = self.panels
        settings = asdict(self.settings)
        if self.pseudonyms:
            # A laboratory's own panel is called by its path.
            panels = {panel.name: panel for panel in panels.values()}
            settings["panel"] = self.panel.name
        return {
            "version": ctc_imaging.__version__,
            "command": list(self.command),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "simulated": self.simulated,
            "pseudonymised": self.pseudonyms is not None,
            "pseudonym_key": self.pseudonyms and self.pseudonyms.fingerprint,
            "configuration": settings,
            "panel": {**asdict(self.panel), "hash": self.panel.hash},
            "panels": {called: asdict(panel) for called, panel in panels.items()},
            "model": {
                "name": self.settings.model,
                "hash": self.model_hash,
                **({"error_rates": self.error_rates} if self.error_rates else {}),
                **({"reference": self.reference} if self.reference else {}),
            },
            "nuclei": {"name": self.settings.nuclei, "hash": self.nuclei_hash},
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
    pseudonyms: Pseudonyms | None = None,
) -> Inputs:
    """Read and check everything a run is given, without opening a slide.

    Parameters
    ----------
    cohort : Path
        cohort.csv.
    settings : Settings
    clinical, imaging, markers, schedule : Path, optional
        The other tables.
    pseudonyms : Pseudonyms, optional
        Given, patients, samples and slides are called by them from here on.

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
    inputs = Inputs(
        entries=entries,
        settings=settings,
        panels=_panels(cohort, entries, settings.panel, default),
        model_hash=model_hash(settings.model),
        nuclei_hash=nuclei_hash(settings.nuclei),
        tables={"cohort": _to_csv([_as_row(entry) for entry in entries]), **tables},
        # The simulator lays the truth beside its cohort table.
        simulated=(cohort.parent / "truth").is_dir(),
        error_rates=error_rates(settings.model),
        reference=drift_reference(settings.model),
    )
    return inputs if pseudonyms is None else _pseudonymous(inputs, pseudonyms, {**given, "cohort": cohort})


def ensure_key(path: Path, out: Path) -> bool:
    """Make the key file of a new run, unless it is there.

    Returns
    -------
    bool
        Whether it was made.

    Raises
    ------
    ConfigError
        If it can't be made, or the run is there, so it was made with another.
    """
    if Path(path).exists():
        return False
    if RunFolder(out).description.exists():
        raise ConfigError(path, "no such key file", f"give the one that {out} was made with, or another --out")
    make_key(path, out)
    return True


def check_pseudonyms(run: RunFolder, pseudonyms: Pseudonyms | None) -> None:
    """Check that a run's folder is pseudonymised with this key from its first byte on, or not at all.

    This is before the log and the ledger, which keep all that was ever written to them, so --force doesn't change it.

    Raises
    ------
    RunError
        If what is there was written with another key, or without.
    """
    remedy = "use another --out" + (" or the key it was made with" if pseudonyms else " or --pseudonymise")
    if run.description.is_file():
        key = run.read().get("pseudonym_key")
        if key != (pseudonyms and pseudonyms.fingerprint):
            raise RunError(run.path, f"made {'with another key' if key else 'without pseudonyms'}", remedy)
    elif pseudonyms and run.ledger.is_file():
        with Ledger(run.ledger) as ledger:
            if ledger.events() or ledger.reviews():
                raise RunError(run.description, "lost, so nobody can tell how the run was made", "use another --out")
    if pseudonyms and not run.description.is_file():
        _discard_undescribed(run)


def model_hash(name: str) -> str:
    """Load a classifier once, to be sure that it is whole, and return its hash.

    Raises
    ------
    ModelError
        If there is no such model or it is damaged.
    """
    from ctc_imaging.classification import load_model

    return load_model(name).hash


def error_rates(name: str) -> dict[str, Any] | None:
    """Return what a classifier was measured to do, or None where it doesn't say."""
    from ctc_imaging.assay import model_error_rates
    from ctc_imaging.classification.model import list_models, read_description

    # Whether the model is there and whole is checked where it is loaded.
    with suppress(KeyError, ModelError):
        return model_error_rates(read_description(list_models()[name]))
    return None


def drift_reference(name: str) -> dict[str, Any] | None:
    """Return what slides like a classifier's training slides have, or None where it doesn't say."""
    from ctc_imaging.classification.model import list_models, read_description

    # Whether the model is there and whole is checked where it is loaded.
    with suppress(KeyError, ModelError):
        return read_description(list_models()[name]).get("reference")
    return None


def nuclei_hash(name: str) -> str:
    """Load what finds nuclei once, to be sure that it is whole, and return its hash.

    Raises
    ------
    ModelError
        If there is no such model or it is damaged.
    """
    from ctc_imaging.segmentation.model import load_finder

    return load_finder(name).hash


def save_tables(run: RunFolder, inputs: Inputs) -> None:
    """Lay the run's own copies of its tables into RUN/tables/; those not given now are left as they are."""
    for name, text in inputs.tables.items():
        if not run.table(name).is_file() or run.table(name).read_text(encoding="utf-8") != text:
            write_text(run.table(name), text)


def stored_hashes(run: RunFolder) -> dict[str, str]:
    """Return the hash of each table that lies in RUN/tables/."""
    found = {name: run.table(name) for name in TABLES if run.table(name).is_file()}
    return {name: sha256_json(path.read_text(encoding="utf-8")) for name, path in found.items()}


def _discard_undescribed(run: RunFolder) -> None:
    """Remove what a run left that was killed before it described itself: perhaps it wasn't pseudonymised."""
    for folder in (run.path / "tables", run.slides):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (run.log, *run.path.glob(f"{run.ledger.name}*")):
        file.unlink(missing_ok=True)
    run.slides.mkdir()


def _pseudonymous(inputs: Inputs, pseudonyms: Pseudonyms, given: Mapping[str, Path | None]) -> Inputs:
    """Put pseudonyms in the place of all ids, and hide where anything lies."""
    cohort = Path(given["cohort"] or "")
    tables = {name: text for name, text in inputs.tables.items() if name not in ("cohort", "schedule")}
    patients = {entry.patient_id for entry in inputs.entries}
    patients |= {patient for text in tables.values() for patient in read_text_table(text)["patient_id"]}
    check_distinct(sorted(patients), pseudonyms.patient, cohort)
    check_distinct((entry.sample_id for entry in inputs.entries), pseudonyms.sample, cohort)
    check_distinct((entry.slide_id for entry in inputs.entries), pseudonyms.slide, cohort)
    only_patients = Scrubber({patient: pseudonyms.patient(patient) for patient in patients})
    entries = tuple(pseudonymous_entry(entry, pseudonyms, only_patients) for entry in inputs.entries)
    rows = [
        {
            **_as_row(entry),
            # No path: the rows are in the order of the laboratory's own table, which has it.
            "slide": entry.slide_id,
            "panel": entry.panel and inputs.panels[entry.panel].name,
        }
        for entry in entries
    ]
    tables = {
        name: pseudonymous_table(Path(given[name] or ""), text, pseudonyms, only_patients)
        for name, text in tables.items()
    }
    schedule = {name: text for name, text in inputs.tables.items() if name == "schedule"}
    files = [path for path in (*given.values(), *map(Path, inputs.panels)) if path and path.is_file()]
    lines = [row.line for row in read_table(cohort, ("slide",)).rows]
    return replace(
        inputs,
        entries=entries,
        tables={"cohort": _to_csv(rows), **tables, **schedule},
        command=_without_values(inputs.command),
        pseudonyms=pseudonyms,
        scrubber=make_scrubber(inputs.entries, patients, pseudonyms, files),
        rows={entry.slide_id: line for entry, line in zip(entries, lines, strict=True)},
    )


def _without_values(command: tuple[str, ...]) -> tuple[str, ...]:
    """Keep of a command what can't name anybody: the program, its sub-command and options, and plain values."""
    shown = [Path(command[0]).name] if command else []
    for before, token in pairwise(command):
        option, equals, _ = token.partition("=")
        if token.startswith("-"):
            shown.append(f"{option}=..." if equals else option)
        else:
            plain = before in _PLAIN_OPTIONS or (before == command[0] and token == "run")
            shown.append(token if plain and not {"/", "\\"} & set(token) else "...")
    return tuple(shown)


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
