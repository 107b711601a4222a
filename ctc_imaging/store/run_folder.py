"""The RUN folder: the one place that knows what lies where in it, and what belongs to one run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctc_imaging.config import Settings
from ctc_imaging.errors import RunError
from ctc_imaging.files import sha256_json, write_json
from ctc_imaging.panel import Panel, parse_panel
from ctc_imaging.store.lock import locked

SCHEMA_VERSION = 1
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
            facts = json.loads(path.read_text(encoding="utf-8"))
            schema = {name: facts[name] for name in _FACTS}["schema"]
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(self.path, "there is no run here", "give the folder that ctc-imaging run made") from error
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(path, f"damaged ({error!r})", "make the run anew in another folder") from error
        if schema > SCHEMA_VERSION:
            raise RunError(path, f"made by a newer version (schema {schema})", "install a newer ctc-imaging")
        return facts

    def settings(self) -> Settings:
        """Return the settings the run was made with."""
        return Settings(**self.read()["configuration"])

    def panel(self, called: str | None = None) -> Panel:
        """Return the panel a slide calls for, or the one the run goes by, whatever has become of its file."""
        facts = self.read()
        return parse_panel(json.dumps(facts["panels"][called] if called else facts["panel"]), self.description)

    def prepare(self) -> None:
        """Make the folder.

        Raises
        ------
        RunError
            If it holds something that isn't of a run.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        strange = sorted(entry.name for entry in self.path.iterdir() if entry.name not in _OWN)
        if strange and not self.description.is_file():
            raise RunError(self.path, f"not a run, and not empty ({strange[0]})", "give --out a new folder")
        self.slides.mkdir(exist_ok=True)

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
        whole = {"schema": SCHEMA_VERSION, **facts, **kept, "identity": identity, "hash": sha256_json(identity)}
        write_json(self.description, whole)

    def publish(self, slide_id: str) -> None:
        """Move a slide's finished results to their place, in one step, after they are safe on disk."""
        partial, final = self.partial(slide_id), self.slide(slide_id)
        _sync_tree(partial)
        shutil.rmtree(final, ignore_errors=True)
        partial.replace(final)

    def discard(self, slide_id: str) -> None:
        """Remove a slide's results, finished or not."""
        shutil.rmtree(self.slide(slide_id), ignore_errors=True)
        shutil.rmtree(self.partial(slide_id), ignore_errors=True)

    def discard_results(self) -> None:
        """Remove all that was computed from the tables and slides; ledger and log stay."""
        shutil.rmtree(self.slides, ignore_errors=True)
        self.slides.mkdir()
        for path in (self.slides_csv, self.counts_csv, self.timeline_csv, self.path / "report.html"):
            path.unlink(missing_ok=True)

    def discard_partial(self) -> None:
        """Remove all that a killed run left unfinished."""
        for folder in self.slides.glob(".*.partial"):
            shutil.rmtree(folder, ignore_errors=True)


def missing_parts(folder: Path) -> list[str]:
    """List which of a slide's results its folder lacks."""
    return [part for part in SLIDE_PARTS if not (folder / part).exists()]


def _sync_tree(folder: Path) -> None:
    """Have the system write a folder's files to disk, lest a power cut leave a ledger that says done of nothing."""
    for path in (*folder.rglob("*"), folder):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        elif os.name == "posix":
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
