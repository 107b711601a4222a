"""The RUN folder: the one place that knows what lies where in it, and what belongs to one run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ctc_imaging.config import Settings
from ctc_imaging.disk import check_writable, disk_errors
from ctc_imaging.errors import RunError, VersionError
from ctc_imaging.files import TEMPORARY, sha256_json, sync_folder, sync_tree, write_json
from ctc_imaging.panel import Panel, parse_panel
from ctc_imaging.store.lock import locked

SCHEMA_VERSION = 3
_SINCE_2 = {"pseudonymised": False, "pseudonym_key": None}
_SINCE_3 = {"nuclei": None}
# From the facts of a version to those of the next.
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda facts: {**facts, **_SINCE_2},
    2: lambda facts: {**facts, **_SINCE_3},
}
SLIDE_PARTS = ("cells.parquet", "labels.ome.zarr", "crops.zarr", "quality.json", "overview.png")
# What may lie in a folder in which a run was started but not yet described by run.json.
_OWN = (
    "run.log",
    "tables",
    "slides",
    "survival",
    ".survival.partial",
    ".lock",
    "ledger.sqlite",
    "ledger.sqlite-wal",
    "ledger.sqlite-shm",
)
_FACTS = ("schema", "identity", "hash", "configuration", "panel", "panels", "model")
_ELSEWHERE = "use another --out, or --force to compute everything anew"


@dataclass(frozen=True)
class RunFolder:
    """A folder made by ``ctc-imaging run``; making the object touches nothing on disk."""

    path: Path

    @property
    def description(self) -> Path:
        """``run.json``: version, command, configuration, panel, model and tables."""
        return self.path / "run.json"

    @property
    def ledger(self) -> Path:
        """Slide states, reviews and audit trail."""
        return self.path / "ledger.sqlite"

    @property
    def log(self) -> Path:
        """The log in plain lines."""
        return self.path / "run.log"

    @property
    def slides(self) -> Path:
        """The folder with one folder a slide."""
        return self.path / "slides"

    @property
    def slides_csv(self) -> Path:
        """One row a slide."""
        return self.path / "slides.csv"

    @property
    def counts_csv(self) -> Path:
        """One row a sample."""
        return self.path / "counts.csv"

    @property
    def timeline_csv(self) -> Path:
        """One row a patient and time point."""
        return self.path / "timeline.csv"

    @property
    def survival(self) -> Path:
        """Optional counts and clinical data of a larger simulated cohort, for the survival pages of the demo."""
        return self.path / "survival"

    def table(self, name: str) -> Path:
        """Return the run's own copy of an input table: cohort, clinical, imaging, markers or schedule."""
        return self.path / "tables" / (f"{name}.yaml" if name == "schedule" else f"{name}.csv")

    def slide(self, slide_id: str) -> Path:
        """Return the folder of one slide's results."""
        return self.slides / slide_id

    def partial(self, slide_id: str) -> Path:
        """Return the folder in which this process lets a slide's results grow; orphans of another can't reach it."""
        return self.slides / f".{slide_id}.{os.getpid()}.partial"

    def new_partial(self, slide_id: str) -> Path:
        """Make a folder, new for each attempt, in which a slide's results grow: no other attempt can reach it."""
        folder = self._unused(slide_id)
        folder.mkdir(parents=True)
        return folder

    def is_complete(self, slide_id: str) -> bool:
        """Say whether all of a slide's results are there."""
        return not missing_parts(self.slide(slide_id))

    def locked(self) -> AbstractContextManager[None]:
        """Keep every other run out of the folder for the length of a block.

        Raises
        ------
        RunError
            If another process is at work in it.
        """
        return locked(self.path / ".lock")

    def read(self) -> dict[str, Any]:
        """Read run.json.

        Returns
        -------
        dict
            `configuration`, `panel`, `model`, `identity`, `hash` and more.

        Raises
        ------
        RunError
            If the folder isn't a run, or its run.json is damaged or newer than this version.
        """
        path = self.description
        try:
            facts = _migrated(path, json.loads(path.read_text(encoding="utf-8")))
            if lacking := [name for name in _FACTS if name not in facts]:
                raise KeyError(*lacking)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(self.path, "there is no run here", "give the folder that ctc-imaging run made") from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        return facts

    def _damaged(self, error: Exception) -> RunError:
        return RunError(self.description, f"damaged ({error!r})", "make the run anew in another folder")

    def settings(self) -> Settings:
        """Return the settings the run was made with."""
        try:
            return Settings(**self.read()["configuration"])
        except TypeError as error:
            raise self._damaged(error) from error

    def panel(self, called: str | None = None) -> Panel:
        """Return the panel a slide calls for, or the one the run goes by, whatever has become of its file."""
        facts = self.read()
        try:
            panel = facts["panels"][called] if called else facts["panel"]
        except (KeyError, TypeError) as error:
            raise self._damaged(error) from error
        return parse_panel(json.dumps(panel), self.description)

    def prepare(self) -> None:
        """Make the folder.

        Raises
        ------
        RunError
            If it holds something that isn't of a run, or can't be written to.
        """
        with disk_errors(self.path):
            inside = self.path.iterdir() if self.path.is_dir() else ()
            strange = sorted(
                entry.name for entry in inside if entry.name not in _OWN and not entry.name.startswith(TEMPORARY)
            )
        if strange and not self.description.is_file():
            raise RunError(self.path, f"not a run, and not empty ({strange[0]})", "give --out a new folder")
        check_writable(self.slides)

    def check_same(self, identity: Mapping[str, Mapping[str, Any]]) -> None:
        """Check that a new run's identity is that of the run already here, if there is one.

        Raises
        ------
        RunError
            If version, configuration, panels, model or cohort differ; the error says which.
        """
        if not self.description.is_file():
            return
        before = self.read()["identity"]
        differing = [
            f"{part} ({name} was {before.get(part, {}).get(name)}, is {identity[part].get(name)})"
            for part in identity
            for name in sorted({*identity[part], *before.get(part, {})})
            if before.get(part, {}).get(name) != identity[part].get(name)
        ]
        if differing:
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            raise RunError(self.path, f"made with another {differing[0]}{more}", _ELSEWHERE)

    def describe(self, identity: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]) -> None:
        """Write run.json, keeping when and by which command the run was first made."""
        kept = {}
        if self.description.is_file():
            before = self.read()
            if before["identity"] == identity:
                kept = {name: before[name] for name in ("created", "command")}
        known = {"schema": SCHEMA_VERSION, **_SINCE_2, **_SINCE_3, **facts, **kept}
        with disk_errors(self.description):
            write_json(self.description, {**known, "identity": identity, "hash": sha256_json(identity)})

    def publish(self, slide_id: str, partial: Path | None = None) -> None:
        """Move a slide's finished results to their place, in one step, after they are safe on disk.

        Parameters
        ----------
        slide_id : str
            A slide that the ledger doesn't call done; once this returns, it may.
        partial : Path, optional
            Where the results have grown, by default `partial(slide_id)`.

        Raises
        ------
        RunError
            If the disk is full or can't be written to. Then the slide has its old results, the new ones or none.
        """
        partial, final = partial or self.partial(slide_id), self.slide(slide_id)
        with disk_errors(partial):
            sync_tree(partial)
            old = self._set_aside(slide_id)
            partial.replace(final)
            sync_folder(self.slides)
        if old:
            shutil.rmtree(old, ignore_errors=True)

    def discard(self, slide_id: str) -> None:
        """Remove a slide's results, finished or not."""
        with disk_errors(self.slides):
            self._set_aside(slide_id)
        for folder in self.partials(slide_id):
            shutil.rmtree(folder, ignore_errors=True)

    def discard_results(self) -> None:
        """Remove all that was computed from the tables and slides; ledger and log stay."""
        shutil.rmtree(self.slides, ignore_errors=True)
        self.slides.mkdir()
        for path in (
            self.slides_csv,
            self.counts_csv,
            self.timeline_csv,
            self.path / "stains.csv",
            self.path / "drift.csv",
            self.path / "error_rates.csv",
            self.path / "report.html",
        ):
            path.unlink(missing_ok=True)

    def discard_partial(self) -> None:
        """Remove the results that a killed run left unfinished."""
        for folder in self.partials():
            shutil.rmtree(folder, ignore_errors=True)

    def discard_temporary(self) -> None:
        """Remove the files that a killed run left half written."""
        for path in (*self.path.glob(f"{TEMPORARY}*"), *self.path.glob(f"tables/{TEMPORARY}*")):
            path.unlink(missing_ok=True)

    def partials(self, slide_id: str | None = None) -> list[Path]:
        """List the folders with unfinished results, of one slide or of all."""
        return [path for path in sorted(self.slides.glob(".*.partial")) if slide_id in (None, _slide_of(path))]

    def _set_aside(self, slide_id: str) -> Path | None:
        """Take a slide's results from their place in one step, so that half of them is never taken for the whole."""
        if not self.slide(slide_id).exists():
            return None
        aside = self._unused(slide_id)
        self.slide(slide_id).replace(aside)
        return aside

    def _unused(self, slide_id: str) -> Path:
        return self.slides / f".{slide_id}.{uuid4().hex[:12]}.partial"


def missing_parts(folder: Path) -> list[str]:
    """List which of a slide's results its folder lacks."""
    return [part for part in SLIDE_PARTS if not (folder / part).exists()]


def _slide_of(partial: Path) -> str:
    """Return whose results grow in a folder: its name is the slide's id between dots, then a word of its own."""
    return partial.name.removeprefix(".").removesuffix(".partial").rpartition(".")[0]


def _migrated(path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Bring what run.json says to this version; the file stays as it is."""
    schema = facts["schema"]
    if schema > SCHEMA_VERSION:
        raise VersionError(path, f"made by a newer version (schema {schema})", "install a newer ctc-imaging")
    for version in range(schema, SCHEMA_VERSION):
        facts = {**_MIGRATIONS[version](facts), "schema": version + 1}
    return facts
