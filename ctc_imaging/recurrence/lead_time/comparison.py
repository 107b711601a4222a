"""Lead time of CTCs beside that of a serum marker on the same patients, with alarms and prompted scans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.interval_censored import recurrence_intervals
from ctc_imaging.recurrence.lead_time.alarms import WINDOW_DAYS, FalseAlarms, ObservedLead, false_alarms, observed_lead
from ctc_imaging.recurrence.lead_time.estimate import HORIZON_DAYS, LeadTime, estimate_lead_time
from ctc_imaging.recurrence.lead_time.observations import observe
from ctc_imaging.recurrence.lead_time.prompted import PROMPTED_WITHIN_DAYS, Prompted, prompted_scans, until_prompted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctc_imaging.recurrence.lead_time.observations import Observations


@dataclass(frozen=True)
class MarkerLead:
    """One marker's lead; `estimate` is None, with the `reason`, where the data can't carry one.

    `patients` are all that were followed, `samples` how many samples of the marker they had after surgery.
    """

    marker: str
    rule: str
    patients: int
    samples: int
    seen: ObservedLead
    alarms: FalseAlarms
    estimate: LeadTime | None
    reason: str = ""


@dataclass(frozen=True)
class LeadTimes:
    """All that is said of lead time.

    Parameters
    ----------
    ctc : MarkerLead
        Of all patients with CTC samples.
    prompted : Prompted or None
        Scans that a positive CTC sample seems to have prompted; None where single scans aren't known.
    without_prompted : MarkerLead or None
        CTCs, with follow-up ended before each patient's first prompted scan; None without any.
    same_patients : tuple of MarkerLead
        CTCs and the other marker, on the patients who are in both tables; empty without another marker.
    horizon_days : float
    notes : tuple of str
    """

    ctc: MarkerLead
    prompted: Prompted | None
    without_prompted: MarkerLead | None
    same_patients: tuple[MarkerLead, ...]
    horizon_days: float
    notes: tuple[str, ...]


def marker_lead(
    marker: str,
    rule: str,
    samples: pd.DataFrame,
    intervals: pd.DataFrame,
    horizon_days: float = HORIZON_DAYS,
    window_days: float = WINDOW_DAYS,
) -> MarkerLead:
    """Tell one marker's lead: as seen, as estimated, and its false alarms.

    Parameters
    ----------
    marker, rule : str
        Its name, and from when it is positive, in words.
    samples : DataFrame
        `patient_id`, `day` after surgery, `positive`.
    intervals : DataFrame
        As of `interval_censored.recurrence_intervals`: everybody of whom samples were to be taken, also those who
        relapsed before the first. Leaving these out would make relapses seem late and the lead long.
    horizon_days, window_days : float
        For the estimate, and for false alarms.

    Returns
    -------
    MarkerLead

    Raises
    ------
    StatisticsError
        If nobody has both samples and an interval.
    """
    own = samples[samples["day"].notna() & (samples["day"].astype(float) > 0)]
    observed = observe(own, intervals)
    estimate, reason = _estimated(observed, horizon_days)
    taken = int(np.isfinite(observed.sample_days).sum())
    seen, alarms = observed_lead(observed), false_alarms(observed, window_days)
    return MarkerLead(marker, rule, len(observed.patients), taken, seen, alarms, estimate, reason)


def lead_times(
    timeline: pd.DataFrame,
    clinical: pd.DataFrame,
    imaging: pd.DataFrame,
    markers: pd.DataFrame | None = None,
    *,
    marker: str = "AFP",
    positive_from: float = 20.0,
    rule: str = "status of the timeline",
    horizon_days: float = HORIZON_DAYS,
    window_days: float = WINDOW_DAYS,
    prompted_days: float = PROMPTED_WITHIN_DAYS,
) -> LeadTimes:
    """Tell how much earlier than imaging CTCs turn positive, from a run's tables.

    Parameters
    ----------
    timeline : DataFrame
        As of `timeline.build_timeline`; samples without a status tell nothing.
    clinical, imaging : DataFrame
        As of `cohort.load_clinical` and `clinical.load_imaging`.
    markers : DataFrame or None
        As of `clinical.load_markers`.
    marker, positive_from : str, float
        The other marker, in any spelling of case, and the value from which it is positive.
    rule : str
        The CTC cut-off in words.
    horizon_days : float
        Relapses by this day are meant.
    window_days : float
        An alarm is false where no relapse is found for so long.
    prompted_days : float
        A scan made early within so many days of a positive sample counts as prompted by it.

    Returns
    -------
    LeadTimes

    Raises
    ------
    StatisticsError
        If nobody has both samples with a status and scans.
    """
    judged = timeline[timeline["status"].isin(["negative", "positive"])]
    ctc = judged[["patient_id", "day"]].assign(positive=judged["status"] == "positive")
    intervals, notes = recurrence_intervals(clinical, imaging)
    intervals = intervals[intervals.index.isin(timeline["patient_id"])]
    scans = _days(imaging, clinical, "imaging_date")[["patient_id", "day", "result"]]
    scans = scans[scans["day"] > 0]

    def lead(name: str, words: str, samples: pd.DataFrame, spans: pd.DataFrame) -> MarkerLead:
        return marker_lead(name, words, samples, spans, horizon_days, window_days)

    found = prompted_scans(ctc[ctc["day"].astype(float) > 0], scans, prompted_days)
    everybody = lead("CTC", rule, ctc, intervals)
    without = _without_prompted(lead, rule, ctc, scans, intervals, found) if len(found.scans) else None
    other = None if markers is None else _marker_samples(markers, clinical, marker, positive_from)
    if other is not None and not (other["day"] > 0).any():
        notes, other = [*notes, f"The table of markers has no {marker} after surgery."], None
    pair: tuple[MarkerLead, ...] = ()
    if other is not None:
        spans = intervals[intervals.index.isin(other["patient_id"])]
        named = (("CTC", rule, ctc), (marker, f"{marker} {positive_from:g} or more", other))
        pair = tuple(lead(name, words, table, spans) for name, words, table in named)
    return LeadTimes(everybody, found, without, pair, horizon_days, tuple(notes))


def _estimated(observed: Observations, horizon_days: float) -> tuple[LeadTime | None, str]:
    try:
        found = estimate_lead_time(observed, horizon_days)
    except StatisticsError as error:
        return None, error.fault
    return (found, "") if found.converged else (None, "the search for the most likely lead didn't come to an end")


def _without_prompted(
    lead: Callable[[str, str, pd.DataFrame, pd.DataFrame], MarkerLead],
    rule: str,
    ctc: pd.DataFrame,
    scans: pd.DataFrame,
    intervals: pd.DataFrame,
    found: Prompted,
) -> MarkerLead:
    samples, kept, ends = until_prompted(ctc, scans, found)
    ended = intervals.index.isin(ends.index)
    last = kept[kept["result"] == "negative"].groupby("patient_id")["day"].max().reindex(intervals.index).fillna(0.0)
    shortened = intervals.assign(
        left=intervals["left"].where(~ended, np.minimum(intervals["left"], last.astype(float))),
        right=intervals["right"].where(~ended, np.inf),
    )
    return lead("CTC", rule, samples, shortened)


def _marker_samples(markers: pd.DataFrame, clinical: pd.DataFrame, marker: str, positive_from: float) -> pd.DataFrame:
    own = markers[markers["marker"].str.strip().str.lower() == marker.strip().lower()]
    dated = _days(own, clinical, "date")
    return dated.assign(positive=dated["value"] >= positive_from).loc[
        dated["day"] > 0, ["patient_id", "day", "positive"]
    ]


def _days(table: pd.DataFrame, clinical: pd.DataFrame, column: str) -> pd.DataFrame:
    surgery = pd.to_datetime(clinical.set_index("patient_id")["surgery_date"])
    return table.assign(day=(pd.to_datetime(table[column]) - table["patient_id"].map(surgery)).dt.days)
