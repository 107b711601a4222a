"""From counts to each patient's course: days since surgery, status, change, and the pattern fixed at a landmark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import bdtr, bdtrc

from ctc_imaging.counting import COUNT_COLUMNS, typed_counts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ctc_imaging.cohort import Schedule
    from ctc_imaging.panel import CutOff

TIMELINE_COLUMNS: tuple[str, ...] = (
    "patient_id",
    "day",
    "visit_status",
    *(name for name in COUNT_COLUMNS if name != "patient_id"),
    "status",
    "change",
    "pattern",
)
# (status before surgery, last status up to the landmark) to the pattern's name.
PATTERNS = {
    ("negative", "negative"): "persistently_negative",
    ("positive", "negative"): "turned_negative",
    ("negative", "positive"): "turned_positive",
    ("positive", "positive"): "persistently_positive",
}
SIGNIFICANCE = 0.05
# With less blood assessed than this share of the cut-off's volume, few CTCs prove nothing.
LEAST_SHARE_OF_CUTOFF_VOLUME = 0.5


def build_timeline(
    counts: pd.DataFrame,
    clinical: pd.DataFrame | None,
    schedule: Schedule | None,
    cutoff: CutOff | None,
    landmark_day: float = 30,
    landmark_window_days: float = 0,
) -> pd.DataFrame:
    """Lay the patients' samples out over days since surgery.

    Parameters
    ----------
    counts : DataFrame
        As of `counting.count_samples`, or counts.csv. Controls are left out.
    clinical : DataFrame or None
        As of `cohort.load_clinical`. Without it day 0 is each patient's first sample.
    schedule : Schedule or None
        Planned visits; those without a sample become rows, `missed` or, if planned after recurrence,
        death or last contact, `not_due`.
    cutoff : CutOff or None
        It gives a status to samples of its own blood volume only.
    landmark_day : float
        Day since surgery at which the pattern is fixed, from samples up to it.
    landmark_window_days : float
        How late a sample may be and still count for the pattern. Survival by a pattern that used it must
        start at `landmark_day` plus this, or it looks ahead.

    Returns
    -------
    DataFrame
        `TIMELINE_COLUMNS`, by patient and day; `day` is Int64, missing values are NA. ``attrs["notes"]``
        is a list of sentences on what the table can't say.
    """
    samples = typed_counts(counts[counts["sample_kind"] == "patient"].reindex(columns=list(COUNT_COLUMNS)))
    dates = pd.to_datetime(samples["sample_date"])
    samples["day"] = (dates - _day_zero(samples, dates, clinical)).dt.days.astype("Int64")
    samples["visit_status"] = np.where(samples["assessable"], "done", "not_assessable")
    samples["status"] = status_by_cutoff(samples, cutoff)
    samples = samples.sort_values(["patient_id", "sample_date", "sample_id"], kind="stable", ignore_index=True)
    samples["change"] = _changes(samples)
    judged = schedule if clinical is not None else None
    timeline = _with_unvisited(samples, clinical, judged).reindex(columns=list(TIMELINE_COLUMNS))
    if clinical is not None:
        patterns = patterns_at(timeline, landmark_day + landmark_window_days)
        timeline["pattern"] = timeline["patient_id"].map(patterns).astype(object)
    timeline.attrs["notes"] = _notes(samples, clinical, schedule, cutoff)
    return timeline


def patterns_at(timeline: pd.DataFrame, day: float) -> pd.Series:
    """Name each patient's pattern from the samples up to a day.

    Samples without a status (missed, not assessable, of another volume than the cut-off's) are passed over.

    Parameters
    ----------
    timeline : DataFrame
        `patient_id`, `day`, `status`, in order of time.
    day : float
        Days since surgery.

    Returns
    -------
    Series of str
        By `patient_id`, only patients with a status before surgery and one after it.
    """
    judged = timeline[timeline["status"].isin(["negative", "positive"])]
    both = before_and_after(judged, "status", day)
    return pd.Series(list(zip(both["before"], both["after"], strict=True)), index=both.index, dtype=object).map(
        PATTERNS
    )


def before_and_after(visits: pd.DataFrame, column: str, day: float) -> pd.DataFrame:
    """Take each patient's last value before surgery and the latest one after it, up to a day.

    A sample of the day of surgery stands in for one before it where there is none earlier.

    Parameters
    ----------
    visits : DataFrame
        `patient_id`, `day` and the column, in order of time.
    column : str
        The column to take.
    day : float
        Days since surgery.

    Returns
    -------
    DataFrame
        Index `patient_id`; `before` and `after`, only patients with both.
    """
    timed = visits[visits["day"].notna()]
    before = timed[timed["day"] <= 0]
    # Puts the day of surgery first, so that it is the last one only where nothing else is there.
    before = before.assign(earlier=before["day"] < 0).sort_values(["patient_id", "earlier"], kind="stable")
    after = timed[(timed["day"] > 0) & (timed["day"] <= day)]
    values = [half.groupby("patient_id")[column].last() for half in (before, after)]
    return pd.concat(values, axis=1, join="inner", keys=["before", "after"])


def change_p_value(
    count_before: ArrayLike, volume_before_ml: ArrayLike, count: ArrayLike, volume_ml: ArrayLike
) -> NDArray[np.float64]:
    """Test whether two Poisson counts are of one rate, exactly and two-sided.

    Given their sum, the second count is binomial with its share of the volume (Przyborowski and Wilenski,
    Biometrika 1940;31:313-23). The p-value is twice the smaller tail.

    Parameters
    ----------
    count_before, count : array_like of int
        CTCs found.
    volume_before_ml, volume_ml : array_like of float
        Blood assessed for them.

    Returns
    -------
    ndarray of float64
        Counts of 0 and 5 in equal volumes have p = 0.0625, 0 and 6 have p = 0.031.
    """
    before, after = np.asarray(count_before, dtype=np.int64), np.asarray(count, dtype=np.int64)
    share = np.asarray(volume_ml, dtype=float) / (np.asarray(volume_before_ml, dtype=float) + volume_ml)
    total = before + after
    fewer = bdtr(after, total, share)
    more = np.where(after > 0, bdtrc(np.maximum(after - 1, 0), total, share), 1.0)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(fewer, more)))


def _day_zero(samples: pd.DataFrame, dates: pd.Series, clinical: pd.DataFrame | None) -> pd.Series:
    if clinical is None:
        return dates.groupby(samples["patient_id"]).transform("min")
    surgery = pd.to_datetime(clinical.set_index("patient_id")["surgery_date"])
    return samples["patient_id"].map(surgery)


def status_by_cutoff(samples: pd.DataFrame, cutoff: CutOff | None) -> pd.Series:
    """Say of each sample whether it is positive.

    Parameters
    ----------
    samples : DataFrame
        `assessable`, `ctc`, `blood_volume_ml`, `assessed_volume_ml`.
    cutoff : CutOff or None
        It holds for samples of its own blood volume only.

    Returns
    -------
    Series of str
        positive or negative; missing where the cut-off can't tell, or too little blood was assessed.
    """
    status = pd.Series(np.nan, index=samples.index, dtype=object)
    if cutoff is None:
        return status
    fits = samples["assessable"] & _has_volume(samples, cutoff)
    positive = fits & (samples["ctc"] >= cutoff.ctc).fillna(False)
    enough = samples["assessed_volume_ml"] >= LEAST_SHARE_OF_CUTOFF_VOLUME * cutoff.volume_ml
    return status.mask(fits & enough, "negative").mask(positive.astype(bool), "positive")


def _has_volume(samples: pd.DataFrame, cutoff: CutOff) -> pd.Series:
    return pd.Series(np.isclose(samples["blood_volume_ml"], cutoff.volume_ml), index=samples.index)


def _changes(samples: pd.DataFrame) -> pd.Series:
    """Compare each done sample with the patient's done sample before it."""
    done = samples[samples["assessable"]]
    before = done.groupby("patient_id")[["ctc", "assessed_volume_ml"]].shift().dropna()
    now = done.loc[before.index]
    counts = [frame["ctc"].to_numpy(dtype=np.int64) for frame in (before, now)]
    volumes = [frame["assessed_volume_ml"].to_numpy(dtype=float) for frame in (before, now)]
    distinct = change_p_value(counts[0], volumes[0], counts[1], volumes[1]) < SIGNIFICANCE
    rises = counts[1] * volumes[0] > counts[0] * volumes[1]
    named = np.where(distinct, np.where(rises, "rise", "fall"), "not_distinguishable")
    return pd.Series(named, index=before.index, dtype=object).reindex(samples.index)


def _with_unvisited(samples: pd.DataFrame, clinical: pd.DataFrame | None, schedule: Schedule | None) -> pd.DataFrame:
    """Add a row for each planned visit that no sample stands for."""
    if schedule is None or clinical is None:
        return samples
    last_due = _last_due_day(clinical)
    rows = [
        {
            "patient_id": patient,
            "day": visit.day,
            "visit_status": "missed" if visit.day <= last_due[patient] else "not_due",
        }
        for patient, days in samples.groupby("patient_id")["day"]
        if patient in last_due.index
        for visit in schedule.visits
        if not any(visit.covers(day) for day in days)
    ]
    if not rows:
        return samples
    planned = pd.DataFrame(rows).assign(assessable=False).reindex(columns=samples.columns).astype(samples.dtypes)
    everything = pd.concat([samples, planned])
    return everything.sort_values(["patient_id", "day", "sample_date", "sample_id"], kind="stable", ignore_index=True)


def _last_due_day(clinical: pd.DataFrame) -> pd.Series:
    """Day since surgery up to which a patient owed samples."""
    dates = clinical.set_index("patient_id")[["surgery_date", "recurrence_date", "death_date", "last_contact_date"]]
    dates = dates.apply(pd.to_datetime)
    return (dates.iloc[:, 1:].min(axis=1) - dates["surgery_date"]).dt.days


def _notes(
    samples: pd.DataFrame, clinical: pd.DataFrame | None, schedule: Schedule | None, cutoff: CutOff | None
) -> list[str]:
    notes = []
    if clinical is None:
        notes.append("Day 0 is each patient's first sample, as no clinical table tells the day of surgery.")
        if schedule is not None:
            notes.append("Missed visits aren't shown: the schedule counts days from surgery, which isn't known.")
    if unknown := samples.loc[samples["day"].isna(), "patient_id"].nunique():
        notes.append(f"{unknown} patient(s) with samples aren't in the clinical table and have no day.")
    if cutoff is None:
        return [*notes, "Samples have no status: the panel has no cut-off."]
    done = samples[samples["assessable"]]
    if other := int((~_has_volume(done, cutoff)).sum()):
        notes.append(
            f"{other} sample(s) have no status: the cut-off, {cutoff.ctc} CTC in {cutoff.volume_ml:g} mL "
            f"({cutoff.assay}, {cutoff.source}), holds for that blood volume only."
        )
    if small := int((done["status"].isna() & _has_volume(done, cutoff)).sum()):
        notes.append(
            f"{small} sample(s) below the cut-off have no status: too little of their blood was assessed to call "
            "them negative."
        )
    return notes
