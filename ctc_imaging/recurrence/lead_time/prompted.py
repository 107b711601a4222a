"""Scans that were made because a sample was positive: who knew the result found the relapse sooner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

PROMPTED_WITHIN_DAYS = 30.0
# A scan counts as early where less than this share of the usual time since the one before has passed.
EARLY_SHARE = 0.67


@dataclass(frozen=True)
class Prompted:
    """Scans that look prompted by a positive sample.

    `scans` has one row each: `patient_id`, `day`, `result`, `sample_day`. `found` of them were positive.
    `usual_days` is the median time between scans; NaN where there are too few to tell what is early.
    """

    scans: pd.DataFrame
    usual_days: float
    within_days: float

    @property
    def found(self) -> int:
        """How many found a relapse."""
        return int((self.scans["result"] == "positive").sum())


def prompted_scans(samples: pd.DataFrame, scans: pd.DataFrame, within_days: float = PROMPTED_WITHIN_DAYS) -> Prompted:
    """Find scans soon after a positive sample and earlier than was due.

    Parameters
    ----------
    samples : DataFrame
        `patient_id`, `day`, `positive`, after surgery.
    scans : DataFrame
        `patient_id`, `day`, `result`, after surgery.
    within_days : float
        How soon after the sample.

    Returns
    -------
    Prompted
        A sample of the day of the scan prompts nothing: its result isn't there yet.
    """
    ordered = scans.sort_values(["patient_id", "day"], kind="stable").drop_duplicates(
        ["patient_id", "day"], keep="last"
    )
    day = ordered["day"].astype(float)
    before = day.groupby(ordered["patient_id"]).shift().fillna(0.0)
    gap = day - before
    usual = float(gap[before > 0].median()) if (before > 0).any() else float("nan")
    positive = samples[samples["positive"].astype(bool)]
    known = {patient: np.sort(days.to_numpy(float)) for patient, days in positive.groupby("patient_id")["day"]}
    latest = [
        _latest(known.get(patient), *span) for patient, *span in zip(ordered["patient_id"], before, day, strict=True)
    ]
    rows = ordered[["patient_id", "day", "result"]].assign(sample_day=np.array(latest, dtype=float))
    soon = (day - rows["sample_day"] <= within_days) & (gap < EARLY_SHARE * usual)
    return Prompted(rows[soon].reset_index(drop=True), usual, within_days)


def until_prompted(
    samples: pd.DataFrame, scans: pd.DataFrame, prompted: Prompted
) -> tuple[pd.DataFrame, pd.DataFrame, pd.Series]:
    """Follow patients only up to the sample that prompted their first early scan, whatever that scan said.

    Leaving out patients whose relapse was found so would leave out the leads that were long enough to act on; ending
    follow-up at the sample, before the scan's result, selects nobody by outcome.

    Parameters
    ----------
    samples, scans : DataFrame
        As given to `prompted_scans`.
    prompted : Prompted

    Returns
    -------
    samples, scans : DataFrame
        Those up to each patient's end.
    ends : Series of float
        By `patient_id`, of the patients who have one.
    """
    ends = prompted.scans.groupby("patient_id")["sample_day"].min()
    kept = [
        table[table["day"].astype(float) <= table["patient_id"].map(ends).fillna(np.inf)] for table in (samples, scans)
    ]
    return kept[0], kept[1], ends


def _latest(days: np.ndarray | None, after: float, before: float) -> float:
    """Latest positive sample between two scans, NaN without one."""
    if days is None:
        return float("nan")
    between = days[(days > after) & (days < before)]
    return float(between[-1]) if len(between) else float("nan")
