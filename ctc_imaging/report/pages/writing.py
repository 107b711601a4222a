"""Write the pages of a run, and remove those of samples and patients that it no longer has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctc_imaging.files import write_text
from ctc_imaging.report.names import page_names
from ctc_imaging.report.pages.cohort import cohort_parts
from ctc_imaging.report.pages.patient import patient_pages
from ctc_imaging.report.pages.sample import sample_pages
from ctc_imaging.report.pages.signing import signing_of
from ctc_imaging.report.pages.worklist import batch_parts
from ctc_imaging.report.rendering import environment, script
from ctc_imaging.report.source import Run

PAGES = "pages"


@dataclass(frozen=True)
class Links:
    """Names of the files of samples and patients, without ``.html``."""

    samples: dict[str, str]
    patients: dict[str, str]


def links_of(run: Run) -> Links:
    """Name the page of every sample that was counted or failed, and of every patient with a course."""
    return Links(
        samples=page_names(run.counts["sample_id"].dropna().astype(str)),
        patients=page_names(sorted(set(run.timeline["patient_id"].dropna().astype(str)))),
    )


def write_pages(run: Run, parts: dict[str, Any]) -> Path:
    """Write RUN/pages/.

    Parameters
    ----------
    run : Run
    parts : dict
        What the report shows, with `links` as of `links_of`; the pages show the same parts, not others made anew.

    Returns
    -------
    Path
        The folder. Pages of samples and patients that the run no longer has are removed.
    """
    folder = run.folder.path / PAGES
    text, fingerprint = script()
    shared = {**parts, "script": text, "script_hash": fingerprint}
    written = set()
    for place, template, own in _pages(run, shared):
        depth = "../" * (place.count("/") + 1)
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, environment().get_template(template).render({**shared, **own, "root": depth}))
        written.add(target)
    for old in folder.rglob("*.html"):
        if old not in written:
            old.unlink()
    return folder


def _pages(run: Run, parts: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield place under RUN/pages/, template and what it shows of its own."""
    signing = signing_of(run)
    yield "batch.html", "pages/batch.html.j2", batch_parts(run, parts, signing)
    yield "cohort.html", "pages/cohort.html.j2", cohort_parts(run, parts)
    for sample, own in sample_pages(run, parts, signing):
        yield f"samples/{parts['links'].samples[sample]}.html", "pages/sample.html.j2", own
    for patient, own in patient_pages(run, parts):
        yield f"patients/{parts['links'].patients[patient]}.html", "pages/patient.html.j2", own
