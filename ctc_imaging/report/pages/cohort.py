"""The investigator's page: survival, dynamics, lead time, decision curves, validation, and a list of the patients."""

from __future__ import annotations

from typing import Any

from ctc_imaging.report.dynamics import dynamics_page
from ctc_imaging.report.source import Run
from ctc_imaging.report.validation import validation_page
from ctc_imaging.report.words import MISSING


def cohort_parts(run: Run, parts: dict[str, Any]) -> dict[str, Any]:
    """Gather what cohort.html shows beside the report's own parts.

    Parameters
    ----------
    run : Run
    parts : dict
        As of `page.context`.

    Returns
    -------
    dict
    """
    return {
        "validation": validation_page(run),
        "dynamics": dynamics_page(run),
        "people": [_person(card, parts["risk"].of(card.patient)) for card in parts["patients"]],
    }


def _person(card: Any, risk: Any) -> dict[str, Any]:
    counts = [row for row in card.rows if row["counted"]]
    return {
        "patient": card.patient,
        "counts": f"{len(counts)}",
        "gaps": f"{sum(not row['counted'] and row['visit'] != 'not due' for row in card.rows)}",
        "last": counts[-1]["per_ml"] if counts else MISSING,
        "pattern": card.pattern or MISSING,
        "risk": risk.risk if risk else MISSING,
        "limits": f"{risk.low} to {risk.high}" if risk else MISSING,
        "standing": risk.standing if risk else card.outcome.removesuffix("."),
    }
