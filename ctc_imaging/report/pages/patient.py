"""The surgeon's page: one patient's counts and risk over time, beside imaging, treatment, markers and the scheme."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd

from ctc_imaging.clinical import CLINICAL_DATES
from ctc_imaging.report.clonality import CLONALITY_JSON, ClonalityPage
from ctc_imaging.report.course import clinical_row, course_figure, cutoff_name, markers_of, scans_of, treatments_of
from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.pages.scheme import scheme_card
from ctc_imaging.report.patients import PatientCard, event_days
from ctc_imaging.report.risk_words import counted, on_day
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import is_missing, number

_WORDS = {
    "MVI": "Microvascular invasion (MVI)",
    "size_cm": "Tumour size, cm",
    "BCLC": "BCLC stage",
    "AFP": "AFP before",
}
_YES_NO = {"MVI": {"0": "no", "1": "yes"}}


def patient_pages(run: Run, parts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every patient's id and what the page shows.

    Parameters
    ----------
    run : Run
    parts : dict
        As of `page.context`.
    """
    scheme, clones = scheme_card(run), _clone_tables(run, parts["clonality"])
    for card in parts["patients"]:
        risk = parts["risk"].of(card.patient)
        name = f"course-{parts['links'].patients[card.patient]}"
        figure, csv = (risk.figure, risk.csv) if risk else course_figure(run, card.patient, name)
        events = event_days(run.clinical, card.patient)
        yield (
            card.patient,
            {
                "card": card,
                "one": risk,
                "figure": figure,
                "figure_csv": csv,
                "last": last_count(run, card),
                "missed": [row for row in card.rows if not row["counted"] and row["visit"] != "not due"],
                "next_visit": next_visit(run, card.patient, events),
                "covariates": covariates(run, card.patient),
                "cutoff_name": cutoff_name(run),
                "scans": _scan_rows(run, card.patient),
                "markers": _marker_rows(run, card.patient),
                "treatments": [
                    (kind, on_day(begin), on_day(end)) for kind, begin, end in treatments_of(run, card.patient)
                ],
                "clone": parts["clonality"].of(card.patient),
                "clone_csv": clones.get(card.patient, ""),
                "scheme": scheme,
                "scheme_says": scheme.says(card.patient, events.get("last_contact")),
            },
        )


def last_count(run: Run, card: PatientCard) -> str:
    """Say the latest count with its limits and status; empty where there is none."""
    own = run.timeline[(run.timeline["patient_id"] == card.patient) & (run.timeline["visit_status"] == "done")]
    own = own[own["ctc"].notna()].sort_values("day", kind="stable")
    if own.empty:
        return ""
    row = own.iloc[-1]
    status = "" if is_missing(row["status"]) else f", CTC-{row['status']}"
    low, high = number(row["ctc_per_ml_low"]), number(row["ctc_per_ml_high"])
    return f"{counted(row)}, 95 % limits {low} to {high} per mL{status}, on {on_day(float(row['day']))}"


def next_visit(run: Run, patient: str, events: dict[str, float]) -> str:
    """Say when the next planned visit is, as far as the schedule tells."""
    if "death" in events:
        return ""
    if "recurrence" in events:
        return "none: the schedule ends with the recurrence"
    if not run.schedule:
        return "not known: the run was given no schedule"
    own = run.timeline[run.timeline["patient_id"] == patient]
    past = own.loc[own["visit_status"] != "not_due", "day"].astype(float)
    # A visit may be kept a few days early: it is over once something was done within its window.
    after = [visit for visit in run.schedule if past.empty or visit.day - visit.early_days > past.max()]
    if not after:
        return "none: the schedule is at its end"
    first = after[0]
    begin, end = first.day - first.early_days, first.day + first.late_days
    return f"{first.name}, {on_day(float(first.day))}, between day {begin:g} and {end:g}".replace("day -", "day −")


def covariates(run: Run, patient: str) -> list[tuple[str, str]]:
    """Name and value of what the clinical table tells of the tumour, beside dates and treatment."""
    row = clinical_row(run, patient)
    if row is None:
        return []
    beside = {"patient_id", "recurrence_site", "adjuvant_kind", *CLINICAL_DATES}
    names = [name for name in row.index if name not in beside and not is_missing(row[name])]
    shown = [(_WORDS.get(name, name.replace("_", " ")), _value(name, row[name])) for name in names]
    site = row.get("recurrence_site")
    return shown + ([] if site is None or is_missing(site) else [("Site of the recurrence", str(site))])


def _value(name: str, value: Any) -> str:
    text = number(value, 3) if isinstance(value, float) else str(value)
    return _YES_NO.get(name, {}).get(text, text)


def _scan_rows(run: Run, patient: str) -> list[dict[str, str]]:
    scans = scans_of(run, patient)
    if scans is None:
        return []
    return [
        {"day": on_day(float(row["time"])), "sort": f"{row['time']:.0f}", "modality": str(row["modality"]),
         "result": str(row["result"])}
        for row in scans.to_dict("records")
    ]  # fmt: skip


def _marker_rows(run: Run, patient: str) -> list[dict[str, str]]:
    return [
        {
            "marker": name,
            "day": on_day(float(row["time"])),
            "sort": f"{row['time']:.0f}",
            "value": number(row["value"], 3),
        }
        for name, table in markers_of(run, patient).items()
        for row in table.to_dict("records")
    ]


def _clone_tables(run: Run, page: ClonalityPage) -> dict[str, str]:
    """The mutations of each sequenced patient as a link, for beneath the drawing."""
    if not page.patients:
        return {}
    facts = json.loads((run.folder.path / CLONALITY_JSON).read_text(encoding="utf-8"))
    return {str(one["patient_id"]): csv_link(pd.json_normalize(one["mutations"])) for one in facts["patients"]}
