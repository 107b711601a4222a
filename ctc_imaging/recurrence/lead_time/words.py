"""Lead time in words that a clinician understands, and as plain facts for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ctc_imaging.recurrence.lead_time.alarms import FalseAlarms, ObservedLead
    from ctc_imaging.recurrence.lead_time.comparison import LeadTimes, MarkerLead
    from ctc_imaging.recurrence.lead_time.estimate import Limited
    from ctc_imaging.recurrence.lead_time.prompted import Prompted

_LEFT_OUT = ("parameters", "knots")


def lead_lines(found: LeadTimes) -> list[str]:
    """Say what was found, one sentence a line.

    Parameters
    ----------
    found : LeadTimes

    Returns
    -------
    list of str
    """
    lines = marker_lines(found.ctc)
    if found.prompted is not None:
        lines += ["", *_prompted_lines(found.prompted, found.without_prompted)]
    if found.same_patients:
        lines += ["", f"On the {found.same_patients[0].patients} patients who have both markers:"]
        lines += [f"  {line}" for marker in found.same_patients for line in marker_lines(marker)]
    return lines


def marker_lines(lead: MarkerLead) -> list[str]:
    """Say one marker's lead: estimated, as seen, and its false alarms.

    Parameters
    ----------
    lead : MarkerLead

    Returns
    -------
    list of str
    """
    head = f"{lead.marker}, positive by: {lead.rule}. {lead.patients} patients, {lead.samples} samples after surgery, "
    return [
        f"{head}{lead.seen.relapses} relapses found.",
        *_estimate_lines(lead),
        _seen_line(lead.seen),
        _alarm_line(lead),
    ]


def lead_facts(found: LeadTimes) -> dict[str, Any]:
    """Give everything as plain values.

    Parameters
    ----------
    found : LeadTimes

    Returns
    -------
    dict
        Numbers that aren't known are None.
    """
    prompted = found.prompted
    return {
        "horizon_days": found.horizon_days,
        "ctc": marker_facts(found.ctc),
        "prompted": None
        if prompted is None
        else {
            "scans": len(prompted.scans),
            "found_relapse": prompted.found,
            "usual_days": _plain(prompted.usual_days),
            "within_days": prompted.within_days,
            "patients": sorted(set(prompted.scans["patient_id"].astype(str))),
        },
        "without_prompted": None if found.without_prompted is None else marker_facts(found.without_prompted),
        "same_patients": [marker_facts(marker) for marker in found.same_patients],
    }


def marker_facts(lead: MarkerLead) -> dict[str, Any]:
    """Give one marker's figures as plain values.

    Parameters
    ----------
    lead : MarkerLead

    Returns
    -------
    dict
    """
    facts: dict[str, Any] = _plain(asdict(lead))
    if facts["estimate"] is not None:
        facts["estimate"] = {name: value for name, value in facts["estimate"].items() if name not in _LEFT_OUT}
    return facts


def _estimate_lines(lead: MarkerLead) -> list[str]:
    if lead.estimate is None:
        return [f"Lead, corrected for both visit grids: can't be told ({lead.reason})."]
    found = lead.estimate
    return [
        f"Lead, corrected for both visit grids: in relapses by day {found.horizon_days:g} that {lead.marker} precedes, "
        f"it turns positive on average {_days(found.mean_days)} before imaging could first see the relapse; "
        f"in half of them at least {_days(found.median_days)}.",
        f"Never positive before imaging could see it: {_share(found.never_positive)} of relapses.",
        f"Positive since surgery: {_share(found.since_surgery)} of the others.",
        f"A sample is positive with a chance of {_share(found.true_positive)} once {lead.marker} has turned positive, "
        f"and of {_share(found.false_positive)} otherwise.",
    ]


def _seen_line(seen: ObservedLead) -> str:
    rest = f"{seen.never_seen_positive} never seen positive, {seen.without_sample} without a sample before"
    if not seen.positive_first:
        return f"As seen, corrected for nothing: no relapse had a positive sample before it; {rest}."
    low, high = seen.quartile_days
    return (
        f"As seen, corrected for nothing: {seen.positive_first} of {seen.relapses} relapses had a positive sample "
        f"first, a median of {seen.median_days:.0f} days before the scan that found it (middle half "
        f"{low:.0f} to {high:.0f}); {rest}."
    )


def _alarm_line(lead: MarkerLead) -> str:
    alarms: FalseAlarms = lead.alarms
    late = f"; {alarms.unresolved} more came too late to tell" if alarms.unresolved else ""
    if not alarms.patient_years:
        return f"False alarms: nobody was followed long enough after a sample to tell{late}."
    return (
        f"False alarms: {alarms.false} in {alarms.patient_years:.1f} patient-years, {alarms.per_patient_year:.2f} a "
        f"year ({alarms.low:.2f} to {alarms.high:.2f}), in {alarms.patients} patients: positive episodes that no "
        f"relapse followed within {alarms.window_days:g} days{late}."
    )


def _prompted_lines(prompted: Prompted, without: MarkerLead | None) -> list[str]:
    if not np.isfinite(prompted.usual_days):
        return ["Whether scans were made because of a positive CTC sample can't be told: too few scans."]
    if without is None:
        return ["No scan looks as if a positive CTC sample had prompted it."]
    text = (
        f"FLAG: {len(prompted.scans)} scan(s) came within {prompted.within_days:g} days of a positive CTC sample and "
        f"earlier than usual (every {prompted.usual_days:.0f} days); {prompted.found} of them found a relapse. Whoever "
        "knew the result may have looked because of it."
    )
    if without.estimate is None:
        return [text, f"Without what those scans found: the lead can't be told ({without.reason})."]
    mean = _days(without.estimate.mean_days)
    return [text, f"Without what those scans found (patients followed up to that sample only): on average {mean}."]


def _days(value: Limited) -> str:
    return f"{value.value:.0f} days ({value.low:.0f} to {value.high:.0f})"


def _share(value: Limited) -> str:
    return f"{value.value:.0%} ({value.low:.0%} to {value.high:.0%})"


def _plain(value: Any) -> Any:
    """Turn arrays and missing numbers into what JSON can hold."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
