"""A run held against its own record: everything hashed again, and what can be computed again computed again."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ctc_imaging.errors import CtcImagingError, ModelError, RunError, VersionError
from ctc_imaging.files import sha256_file, sha256_json
from ctc_imaging.progress import Progress, Tally
from ctc_imaging.store.ledger import MIGRATED, Ledger, SlideState, copy_ledger
from ctc_imaging.store.record import ADD, Review
from ctc_imaging.store.run_folder import SLIDE_PARTS, RunFolder

# Version 1 of the ledger kept no hashes of results.
_HASHES_SINCE = (MIGRATED, "schema 1")
_AGAIN = "run the same command again"
_RESTORE = "restore it from a copy, or use another --out"


@dataclass(frozen=True)
class Finding:
    """Something amiss in a run: a fault or, where the run itself may well be right, a note."""

    where: Path
    fault: str
    remedy: str
    is_fault: bool = True

    def __str__(self) -> str:
        """One line: ``where: fault; remedy``."""
        return " ".join(f"{self.where}: {self.fault}; {self.remedy}".split())


@dataclass(frozen=True)
class Verification:
    """What a verification came to: how many done slides it hashed, and what it found."""

    run: Path
    slides: int
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What must be put right."""
        return tuple(finding for finding in self.findings if finding.is_fault)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What couldn't be checked, or only looks odd."""
        return tuple(finding for finding in self.findings if not finding.is_fault)


def verify_run(folder: Path, progress: Progress | None = None) -> Verification:
    """Check a run's ledger, results, scans, tables, counts and reviews, without changing any of them.

    Parameters
    ----------
    folder : Path
        A RUN folder; it may lie on a disk that can only be read.
    progress : callable, optional
        Told of every slide; one with faults counts as failed.

    Returns
    -------
    Verification

    Raises
    ------
    RunError
        If the folder is no run, was made by a newer version, or a run is at work in it.
    """
    run = RunFolder(Path(folder).absolute())
    if not run.description.is_file():
        run.read()
    with _at_rest(run), TemporaryDirectory(prefix="ctc-imaging-") as aside:
        mirror = _Mirror(Path(aside), run)
        found = [*_check_description(run)]
        record, damage = _read_ledger(mirror)
        found += damage
        if record is None:
            return Verification(run.path, 0, tuple(found))
        found += [*_check_cohort(run, record), *_check_slides(run, record, progress), *_check_leftovers(run, record)]
        if any(finding.is_fault for finding in found):
            found.append(_note(run.path, "model, reviews and counts weren't checked", "put the faults right first"))
        else:
            found += [*_check_model(run), *_check_calls(mirror, record)]
    return Verification(run.path, len(record.done), tuple(found))


@dataclass(frozen=True)
class _Mirror(RunFolder):
    """A run's slides and tables, but with a ledger and counts of its own, in a folder that may be written to."""

    source: RunFolder

    @property
    def description(self) -> Path:
        return self.source.description

    @property
    def slides(self) -> Path:
        return self.source.slides

    def table(self, name: str) -> Path:
        return self.source.table(name)


@dataclass(frozen=True)
class _Record:
    """What the ledger says; `migrated` is when it learnt to keep hashes, empty if it always did."""

    slides: Mapping[str, SlideState]
    results: Mapping[str, Mapping[str, str]]
    reviews: tuple[Review, ...]
    migrated: str

    @property
    def done(self) -> dict[str, SlideState]:
        return {slide_id: state for slide_id, state in self.slides.items() if state.state == "done"}

    @property
    def unfinished(self) -> list[str]:
        return [slide_id for slide_id, state in self.slides.items() if state.state in ("pending", "running")]


def _at_rest(run: RunFolder) -> AbstractContextManager[None]:
    """Keep runs out meanwhile; in a folder that can't be written to there is none."""
    return run.locked() if os.access(run.path, os.W_OK) else nullcontext()


def _check_description(run: RunFolder) -> Iterator[Finding]:
    """Check run.json, and the tables it names."""
    from ctc_imaging.inputs import stored_hashes

    try:
        facts = run.read()
        if facts["hash"] != sha256_json(facts["identity"]):
            yield Finding(run.description, "its hash isn't that of its identity", _RESTORE)
        tables = stored_hashes(run)
        for name in sorted({*tables, *facts["tables"]}):
            if tables.get(name) != facts["tables"].get(name):
                fault = "isn't the table that run.json names" if name in tables else "is missing"
                yield Finding(run.table(name), fault, _AGAIN)
        yield from _check_identity(run, facts)
    except VersionError:
        raise
    except CtcImagingError as error:
        yield Finding(Path(error.where), error.fault, error.remedy)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        yield Finding(run.description, f"it, or a table it names, is damaged ({error!r})", _RESTORE)


def _check_identity(run: RunFolder, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Compute the run's identity anew from the settings, panels and cohort that it keeps."""
    from ctc_imaging.cohort import load_cohort
    from ctc_imaging.inputs import Inputs

    identity = facts["identity"]
    panels = {called: run.panel(called) for called in facts["panels"]}
    hashes = [(facts[kind] or {"hash": ""})["hash"] for kind in ("model", "nuclei")]
    again = Inputs(load_cohort(run.table("cohort")), run.settings(), panels, hashes[0], {}, hashes[1])
    if again.identity["version"] != identity["version"]:
        number = identity["version"]["number"]
        yield _note(
            run.description, "its identity wasn't computed anew", f"version {number}, which made it, can do that"
        )
        return
    for part in sorted({*again.identity, *identity}):
        if again.identity.get(part) != identity.get(part):
            yield Finding(run.description, f"its {part} isn't the one its identity names", _RESTORE)
    if run.panel() != again.panel:
        yield Finding(run.description, "its panel isn't the one its slides were read with", _RESTORE)


def _read_ledger(mirror: _Mirror) -> tuple[_Record | None, list[Finding]]:
    """Copy the ledger and read it, and list what is wrong with it; without a record nothing more can be checked."""
    path = mirror.source.ledger
    try:
        copy_ledger(path, mirror.ledger)
        with Ledger(mirror.ledger) as ledger:
            found = [Finding(path, fault, _RESTORE) for fault in ledger.faults()]
            migrated = [event.time for event in ledger.events() if (event.event, event.detail[:8]) == _HASHES_SINCE]
            reviews = tuple(ledger.reviews())
            return _Record(ledger.slides(), ledger.results(), reviews, max(migrated, default="")), found
    except VersionError as error:
        raise VersionError(path, error.fault, error.remedy) from error
    except RunError as error:
        return None, [Finding(path, error.fault, error.remedy)]


def _check_cohort(run: RunFolder, record: _Record) -> Iterator[Finding]:
    from ctc_imaging.cohort import load_cohort

    with suppress(CtcImagingError):
        if {entry.slide_id for entry in load_cohort(run.table("cohort"))} != record.slides.keys():
            yield Finding(run.ledger, "its slides aren't those of tables/cohort.csv", _AGAIN)
        if run.read()["pseudonymised"]:
            yield _note(run.table("cohort"), "a pseudonymised run doesn't keep where its scans lie", "check them apart")


def _scans(run: RunFolder) -> dict[str, Path]:
    """Return each slide's scan, as far as the run knows it."""
    from ctc_imaging.cohort import load_cohort

    # What is damaged is a finding of its own.
    with suppress(CtcImagingError):
        if not run.read()["pseudonymised"]:
            return {entry.slide_id: entry.slide for entry in load_cohort(run.table("cohort"))}
    return {}


def _check_slides(run: RunFolder, record: _Record, progress: Progress | None) -> Iterator[Finding]:
    scans, bad = _scans(run), 0
    for count, (slide_id, state) in enumerate(record.done.items()):
        if progress is not None:
            progress(Tally(len(record.done), count - bad, bad))
        found = [*_check_parts(run.slide(slide_id), record.results.get(slide_id, {}), state.finished < record.migrated)]
        if slide_id in scans:
            found += _check_scan(scans[slide_id], state.sha256)
        bad += any(finding.is_fault for finding in found)
        yield from found
    if progress is not None:
        progress(Tally(len(record.done), len(record.done) - bad, bad))


def _check_parts(folder: Path, recorded: Mapping[str, str], before_hashes: bool) -> Iterator[Finding]:
    """Hold a slide's results against the hashes taken when they were made."""
    if not recorded and before_hashes:
        fault = "its results were recorded before they were hashed, so nothing vouches for them"
        yield _note(folder, fault, "--force computes them anew")
    elif not recorded:
        yield Finding(folder, "the hashes of its results are missing", f"remove the folder and {_AGAIN}")
    expected = {*SLIDE_PARTS, *recorded}
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for name in sorted(expected | present):
        path = folder / name
        if name not in present:
            yield Finding(path, "is missing", _AGAIN)
        elif name not in expected:
            yield Finding(path, "isn't a result of this run", "move it away")
        elif name in recorded:
            yield from _check_hash(path, recorded[name], f"remove the folder {folder} and {_AGAIN}")


def _check_hash(path: Path, sha256: str, remedy: str) -> Iterator[Finding]:
    try:
        if sha256_file(path) != sha256:
            yield Finding(path, "has changed since it was made", remedy)
    except OSError as error:
        yield Finding(path, f"can't be read ({error.strerror or error})", remedy)


def _check_scan(scan: Path, sha256: str) -> Iterator[Finding]:
    from ctc_imaging.intake import scan_sha256
    from ctc_imaging.readers.remote import connect

    remedy = "restore it, or process it into another --out"
    try:
        connect(scan)
        if not scan.exists():
            yield _note(scan, "the scan isn't there any more, so it wasn't checked", "bring it back to have it checked")
        elif scan_sha256(scan) != sha256:
            yield Finding(scan, "the scan has changed since it was processed", remedy)
    except (OSError, CtcImagingError) as error:
        yield Finding(scan, f"the scan can't be read ({error})", remedy)


def _check_leftovers(run: RunFolder, record: _Record) -> Iterator[Finding]:
    """Look for folders that no slide accounts for."""
    partials = run.partials()
    for folder in partials:
        yield _note(folder, "left behind by a run that was stopped", f"{_AGAIN}, and it goes")
    for path in sorted(run.slides.iterdir()) if run.slides.is_dir() else ():
        if path.name in record.slides and path.name not in record.done:
            yield _note(path, f"results of a slide that is {record.slides[path.name].state}", f"{_AGAIN}, and they go")
        elif path.name not in record.slides and path not in partials:
            yield Finding(path, "belongs to no slide of this run", "move it away")
    if record.unfinished:
        yield _note(run.path, f"{len(record.unfinished)} slides are still to do", _AGAIN)


def _check_model(run: RunFolder) -> Iterator[Finding]:
    from ctc_imaging.inputs import model_hash, nuclei_hash

    facts = run.read()
    remedy = "install that model to compute anew what it found"
    for model, hash_of in ((facts["model"], model_hash), (facts["nuclei"], nuclei_hash)):
        if model is None:
            continue
        try:
            if hash_of(model["name"]) != model["hash"]:
                yield _note(run.description, f"the model {model['name']} installed now is another", remedy)
        except ModelError as error:
            yield _note(run.description, f"the model {model['name']} can't be loaded now ({error.fault})", remedy)


def _check_calls(mirror: _Mirror, record: _Record) -> Iterator[Finding]:
    """Check reviews and counts, which read the cells themselves."""
    try:
        yield from _check_reviews(mirror.source, record)
        if not record.unfinished:
            yield from _check_counts(mirror)
    except CtcImagingError as error:
        yield Finding(Path(error.where), error.fault, error.remedy)
    except (KeyError, TypeError, ValueError, OSError) as error:
        # Only results without hashes come so far when they are damaged.
        yield Finding(mirror.slides, f"the results can't be counted ({error!r})", "compute them anew with --force")


def _check_reviews(run: RunFolder, record: _Record) -> Iterator[Finding]:
    """Look for reviews of this very run whose slide or cell it doesn't have."""
    import pandas as pd

    run_hash = run.read()["hash"]
    cells: dict[str, set[int]] = defaultdict(set)
    added = {review.cell for review in record.reviews if review.action == ADD}
    for review in record.reviews:
        state = record.done.get(review.slide_id)
        if review.cell in added:
            continue
        if review.run_hash == run_hash and (state is None or state.sha256 == review.slide_sha256):
            cells[review.slide_id].add(review.cell_id)
    for slide_id, reviewed in cells.items():
        if slide_id not in record.slides:
            yield Finding(run.ledger, f"it has reviews of {slide_id}, which is no slide of this run", _RESTORE)
        elif slide_id in record.done:
            known = pd.read_parquet(run.slide(slide_id) / "cells.parquet", columns=["cell_id"])["cell_id"]
            if unknown := sorted(reviewed.difference(known)):
                yield Finding(run.ledger, f"it has reviews of {slide_id}, which has no cell {unknown[0]}", _RESTORE)


def _check_counts(mirror: _Mirror) -> Iterator[Finding]:
    """Count anew, beside the run, and hold every table so written against the run's own, byte for byte."""
    from ctc_imaging.recount import recount

    recount(mirror)
    for fresh in sorted(mirror.path.glob("*.csv")):
        path = mirror.source.path / fresh.name
        if not path.is_file():
            yield Finding(path, "is missing", f"ctc-imaging counts {mirror.source.path}")
        elif path.read_bytes() != fresh.read_bytes():
            yield Finding(path, "isn't what cells and reviews give now", f"ctc-imaging counts {mirror.source.path}")


def _note(where: Path, fault: str, remedy: str) -> Finding:
    return Finding(where, fault, remedy, is_fault=False)
