"""How much earlier than imaging the counts spoke, in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.report.source import Run
from ctc_imaging.report.survival import is_separate, survival_tables

if TYPE_CHECKING:
    from ctc_imaging.recurrence.lead_time import LeadTimes


@dataclass(frozen=True)
class LeadTimePage:
    """The section: sentences in paragraphs, or the reason why there are none."""

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
    from ctc_imaging.recurrence.lead_time.words import lead_lines

    if run.cutoff is None:
        return LeadTimePage(reason="The panel has no cut-off, so no sample is positive")
    try:
        timeline, clinical = survival_tables(run)
        if clinical is None:
            return LeadTimePage(reason="The run was given no clinical table (--clinical)")
        own = run.folder.survival / "imaging.csv" if is_separate(run) else run.folder.table("imaging")
        if not own.is_file():
            return LeadTimePage(reason="The run was given no table of scans (--imaging)")
        found = _found(run, timeline, clinical)
    except CtcImagingError as error:
        return LeadTimePage(reason=str(error))
    parts = "\n".join(lead_lines(found)).split("\n\n")
    return LeadTimePage(tuple(tuple(line.strip() for line in part.splitlines()) for part in parts), found.notes)


def _found(run: Run, timeline: object, clinical: object) -> LeadTimes:
    from ctc_imaging.clinical import load_imaging, load_markers
    from ctc_imaging.recurrence.lead_time import lead_times

    cutoff = run.cutoff or {}
    rule = f"{cutoff['ctc']} CTC or more in {cutoff['volume_ml']:g} mL ({cutoff['assay']}, {cutoff['source']})"
    imaging, markers = (
        run.folder.survival / f"{name}.csv" if is_separate(run) else run.folder.table(name)
        for name in ("imaging", "markers")
    )
    others = load_markers(markers) if markers.is_file() else None
    return lead_times(timeline, clinical, load_imaging(imaging), others, rule=rule)  # type: ignore[arg-type]
