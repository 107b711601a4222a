"""Each patient's counts over time: a drawing, what happened, and the table beneath."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.report.figures import draw_patient, to_svg
from ctc_imaging.report.sections import remark
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import MISSING, is_missing, label, number, per_ml, plural, whole


@dataclass(frozen=True)
class PatientCard:
    """One patient's part of the page."""

    patient: str
    pattern: str
    outcome: str
    figure: str
    rows: tuple[dict[str, Any], ...]


def patient_cards(run: Run) -> list[PatientCard]:
    """Make every patient's card, in order of patient id, all on one axis of counts."""
    done = run.timeline.loc[run.timeline["visit_status"] == "done", "ctc_per_ml_high"].astype(float)
    top = float(np.nanmax([2.0, *done]))
    return [
        _card(run, str(patient), series.sort_values("day", kind="stable"), top)
        for patient, series in run.timeline.groupby("patient_id", sort=True)
    ]


def _card(run: Run, patient: str, series: pd.DataFrame, top_per_ml: float) -> PatientCard:
    series = series.assign(day=series["day"].astype(float))
    events = event_days(run.clinical, patient)
    cutoff = run.cutoff
    line = cutoff["ctc"] / cutoff["volume_ml"] if cutoff else None
    shown = {name: day for name, day in events.items() if name != "last_contact"}
    figure = to_svg(draw_patient(series, line, shown, top_per_ml), f"patient-{patient}", _describe(patient, series))
    patterns = series["pattern"].dropna().unique()
    return PatientCard(
        patient=patient,
        pattern=label(patterns[0]) if len(patterns) else "",
        outcome=outcome(events),
        figure=figure,
        rows=tuple(_row(visit) for _, visit in series.iterrows()),
    )


def event_days(clinical: pd.DataFrame | None, patient: str) -> dict[str, float]:
    """Days since surgery of `surgery`, `recurrence`, `death` and `last_contact`, as far as they are known."""
    if clinical is None or patient not in set(clinical["patient_id"]):
        return {}
    row = clinical[clinical["patient_id"] == patient].iloc[0]
    if pd.isna(row["surgery_date"]):
        return {}
    dates = {name: row[f"{name}_date"] for name in ("surgery", "recurrence", "death", "last_contact")}
    return {name: float((date - row["surgery_date"]).days) for name, date in dates.items() if not pd.isna(date)}


def outcome(events: dict[str, float]) -> str:
    """Say in a sentence what became of the patient."""
    if not events:
        return "No clinical data."
    parts = []
    if "recurrence" in events:
        parts.append(f"recurrence on day {events['recurrence']:.0f}")
    elif "death" not in events:
        seen = f" (day {events['last_contact']:.0f})" if "last_contact" in events else ""
        parts.append(f"no recurrence known at last contact{seen}")
    if "death" in events:
        parts.append(f"death on day {events['death']:.0f}")
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _describe(patient: str, series: pd.DataFrame) -> str:
    done = series[series["visit_status"] == "done"]
    gaps = series["visit_status"].isin(["missed", "not_assessable"]).sum()
    return (
        f"CTCs per mL of patient {patient}: {plural(len(done), 'count')}, {plural(int(gaps), 'visit')} without a count"
    )


def _row(visit: pd.Series) -> dict[str, Any]:
    counted = visit["visit_status"] == "done"
    return {
        "day": MISSING if is_missing(visit["day"]) else f"{visit['day']:.0f}".replace("-", "−"),
        "visit": label(visit["visit_status"]),
        "ctc": f"{whole(visit['ctc'])} in {number(visit['assessed_volume_ml'])} mL" if counted else MISSING,
        "per_ml": per_ml(visit) if counted else MISSING,
        "status": label(visit["status"]) if counted else MISSING,
        "change": label(visit["change"]) if counted else MISSING,
        "remark": remark(visit) if visit["visit_status"] == "not_assessable" else "",
        "counted": counted and not is_missing(visit["ctc"]),
    }
