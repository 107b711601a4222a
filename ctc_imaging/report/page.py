"""Put the report's sections together on one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctc_imaging.files import write_text
from ctc_imaging.report.batches import batch_page
from ctc_imaging.report.clonality import clonality_page
from ctc_imaging.report.decision import decision_page
from ctc_imaging.report.drift import drift_page
from ctc_imaging.report.gallery import called_ctcs, make_gallery
from ctc_imaging.report.lead_time import lead_time_page
from ctc_imaging.report.morning import faults, notices
from ctc_imaging.report.pages import links_of, write_pages
from ctc_imaging.report.patients import patient_cards
from ctc_imaging.report.rendering import environment, style
from ctc_imaging.report.results import basis, result_rows
from ctc_imaging.report.risk import risk_page
from ctc_imaging.report.sections import headline, sample_rows, shown_phenotypes, slide_rows, summary
from ctc_imaging.report.source import Run, read_run
from ctc_imaging.report.survival import survival_page
from ctc_imaging.report.thresholds import threshold_page


def write_report(run: Path, pages: bool = True) -> Path:
    """Write RUN/report.html and the pages under RUN/pages/ from what stands in the RUN folder, each self-contained.

    Parameters
    ----------
    run : Path
        A folder made by ``ctc-imaging run``; its tables may be empty and its slides may all have failed.
    pages : bool
        False leaves out the pages by batch, sample, patient and cohort.

    Returns
    -------
    Path
        RUN/report.html. The same run gives the same bytes.

    Raises
    ------
    RunError
        If there is no readable ``run.json`` in the folder.
    """
    source = read_run(Path(run))
    target = source.folder.path / "report.html"
    parts = context(source)
    parts["links"] = links_of(source) if pages else None
    write_text(target, environment().get_template("report.html.j2").render(parts))
    if pages:
        write_pages(source, parts)
    return target


def context(run: Run) -> dict[str, Any]:
    """Gather what the template shows."""
    controls = run.counts[run.counts["sample_kind"] != "patient"]
    batches, drift, called = batch_page(run), drift_page(run), called_ctcs(run)
    return {
        "style": style(),
        "headline": headline(run, batches.controls),
        "faults": faults(run),
        "notices": notices(run, batches, drift),
        "batches": batches,
        "drift": drift,
        "thresholds": threshold_page(run),
        "facts": run_facts(run),
        "simulated": run.simulated,
        "panel": run.panel,
        "cutoff": run.cutoff,
        "clinical": run.clinical is not None,
        "shown_phenotypes": shown_phenotypes(run),
        "summary": summary(run),
        "results": result_rows(run),
        "basis": basis(run),
        "samples": sample_rows(run.patients),
        "controls": sample_rows(controls),
        "slides": slide_rows(run),
        "called": called,
        "gallery": make_gallery(run, called),
        "patients": patient_cards(run),
        "clonality": clonality_page(run),
        "unjudged": int(((run.timeline["visit_status"] == "done") & run.timeline["status"].isna()).sum()),
        "risk": risk_page(run),
        "survival": survival_page(run),
        "lead_time": lead_time_page(run),
        "decision": decision_page(run),
    }


def run_facts(run: Run) -> list[tuple[str, str]]:
    """Name and value of what the run was: when, with which version, panel and model."""
    return [
        ("Run", run.folder.path.resolve().name),
        ("Started", str(run.facts["created"])[:16].replace("T", " ") + " UTC"),
        ("Version", str(run.facts["version"])),
        ("Panel", _with_hash(run.panel)),
        ("Model", _with_hash(run.facts["model"])),
        *([("Nuclei by", _with_hash(run.facts["nuclei"]))] if run.facts["nuclei"] else []),
    ]


def _with_hash(part: dict[str, Any]) -> str:
    return f"{part['name']} ({part['hash'][:12]})"
