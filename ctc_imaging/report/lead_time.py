"""How much earlier than imaging the counts spoke: the answer, a picture, and all sentences."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.figures import to_svg
from ctc_imaging.report.limits_chart import Panel, draw_limits
from ctc_imaging.report.source import Run
from ctc_imaging.report.survival import is_separate, survival_tables
from ctc_imaging.report.words import interval, percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ctc_imaging.recurrence.lead_time import LeadTimes, Limited, MarkerLead

_NOTHING = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class LeadTimePage:
    """The section: the answer and sentences in paragraphs, or the reason why there are none."""

    answer: str = ""
    figure: str = ""
    csv: str = ""
    flag: str = ""
    paragraphs: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""


def lead_time_page(run: Run) -> LeadTimePage:
    """Estimate the lead time over imaging by the panel's cut-off.

    Parameters
    ----------
    run : Run

    Returns
    -------
    LeadTimePage
    """
    if run.cutoff is None:
        return LeadTimePage(reason="The panel has no cut-off, so no sample is positive")
    try:
        timeline, clinical = survival_tables(run)
        if clinical is None:
            return LeadTimePage(reason="The run was given no clinical table (--clinical)")
        own = run.folder.survival / "imaging.csv" if is_separate(run) else run.folder.table("imaging")
        if not own.is_file():
            return LeadTimePage(reason="The run was given no table of scans (--imaging)")
        return _page(_found(run, timeline, clinical))
    except CtcImagingError as error:
        return LeadTimePage(reason=str(error))


def _found(run: Run, timeline: pd.DataFrame, clinical: pd.DataFrame) -> LeadTimes:
    from ctc_imaging.clinical import load_imaging, load_markers
    from ctc_imaging.recurrence.lead_time import lead_times

    cutoff = run.cutoff or {}
    rule = f"{cutoff['ctc']} CTC or more in {cutoff['volume_ml']:g} mL ({cutoff['assay']}, {cutoff['source']})"
    imaging, markers = (
        run.folder.survival / f"{name}.csv" if is_separate(run) else run.folder.table(name)
        for name in ("imaging", "markers")
    )
    others = load_markers(markers) if markers.is_file() else None
    return lead_times(timeline, clinical, load_imaging(imaging), others, rule=rule)


def _page(found: LeadTimes) -> LeadTimePage:
    from ctc_imaging.recurrence.lead_time.words import lead_lines

    parts = _spaced("\n".join(lead_lines(found))).split("\n\n")
    paragraphs = tuple(tuple(line.strip() for line in part.splitlines()) for part in parts)
    flags = [line for part in paragraphs for line in part if line.startswith("FLAG")]
    told = any(lead.estimate is not None for _, lead in _leads(found))
    figure = to_svg(_figure(found), "lead-time", "Lead over imaging, with 95 % limits") if told else ""
    return LeadTimePage(_answer(found), figure, csv_link(_table(found)), " ".join(flags), paragraphs, found.notes)


def _table(found: LeadTimes) -> pd.DataFrame:
    """What the picture shows, a row a marker and quantity."""
    import pandas as pd

    rows = [
        (name, panel.name, *panel.values[place])
        for panel in _panels(found)
        for place, (name, _) in enumerate(_leads(found))
    ]
    return pd.DataFrame(rows, columns=["marker", "quantity", "estimate", "low", "high"])


def _spaced(text: str) -> str:
    """Set per cents as the rest of the page does."""
    return re.sub(r"(\d)%", r"\1 %", text)


def _answer(found: LeadTimes) -> str:
    lead = found.ctc.estimate
    if lead is None:
        return f"It can't be told: {found.ctc.reason}."
    mean, never = lead.mean_days, lead.never_positive
    return (
        f"On average {mean.value:.0f} days earlier ({mean.low:.0f} to {mean.high:.0f}), in those relapses by "
        f"{interval(lead.horizon_days)} after surgery that CTC positivity precedes; it doesn't precede "
        f"{percent(never.value)} of them ({percent(never.low)} to {percent(never.high)})."
    )


def _leads(found: LeadTimes) -> list[tuple[str, MarkerLead]]:
    rows = [("CTC", found.ctc)]
    if found.without_prompted is not None:
        rows.append(("CTC, no prompted scans", found.without_prompted))
    return rows + [(f"{one.marker}, same patients", one) for one in found.same_patients]


def _limited(found: Limited) -> tuple[float, float, float]:
    return found.value, found.low, found.high


def _figure(found: LeadTimes) -> Figure:
    return draw_limits([name for name, _ in _leads(found)], _panels(found))


def _panels(found: LeadTimes) -> tuple[Panel, ...]:
    means, never, alarms = [], [], []
    for _, lead in _leads(found):
        told = lead.estimate
        means.append(_NOTHING if told is None else _limited(told.mean_days))
        never.append(_NOTHING if told is None else _limited(told.never_positive))
        alarms.append((lead.alarms.per_patient_year, lead.alarms.low, lead.alarms.high))
    return (
        Panel("Mean lead, days", means),
        Panel("Relapses never preceded", never, "share"),
        Panel("False alarms a year", alarms),
    )
