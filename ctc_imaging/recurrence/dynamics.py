"""How the CTC status moved, told apart by what came of it: early or late recurrence and its site, death, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import TableError
from ctc_imaging.recurrence.competing import DEATH, RECURRENCE, recurrence_causes
from ctc_imaging.timeline import PATTERNS, SIGNIFICANCE, before_and_after, change_p_value, patterns_at, status_by_cutoff

if TYPE_CHECKING:
    from ctc_imaging.panel import CutOff

EARLY_DAYS = 730.0
EARLY, LATE, NONE, DIED, LOST = "early", "late", "none", "death_without_recurrence", "lost"
OUTCOMES = (EARLY, LATE, NONE, DIED, LOST)
CHANGES = ("rise", "fall", "not_distinguishable")
NO_PATTERN, NOT_COMPARABLE, SITE_UNKNOWN, ALL_SITES = "no_pattern", "not_comparable", "not stated", "all"


@dataclass(frozen=True)
class Dynamics:
    """How counts and status moved up to a landmark, by outcome.

    Parameters
    ----------
    landmark_day : float
    patients : DataFrame
        Index `patient_id`, those still free of recurrence and followed after the landmark: `pattern` and `change`
        (last sample before surgery against the latest up to the landmark; missing where either is), `outcome`, `site`.
    table : DataFrame
        One row an outcome and site (`all` first): `outcome`, `site`, `patients`, a column a pattern, `no_pattern`,
        a column a change, `not_comparable`.
    notes : tuple of str
    """

    landmark_day: float
    patients: pd.DataFrame
    table: pd.DataFrame
    notes: tuple[str, ...]


def recurrence_outcomes(clinical: pd.DataFrame, early_days: float = EARLY_DAYS) -> pd.DataFrame:
    """Tell what came of each patient.

    Parameters
    ----------
    clinical : DataFrame
        As of `cohort.load_clinical`.
    early_days : float
        Recurrence up to this day since surgery is early.

    Returns
    -------
    DataFrame
        Index `patient_id`; `outcome`: `early` or `late` recurrence, `death_without_recurrence`, `none` (free of it for
        at least `early_days`), `lost` (contact ended before: it may yet have come early); `days` to it or to the last
        contact; `site` of the recurrence in lower case, `not stated` where it is missing, None without recurrence.
    """
    causes = recurrence_causes(clinical)
    recurred, early = causes["cause"] == RECURRENCE, causes["days"] <= early_days
    followed = causes["days"] >= early_days
    outcome = np.select(
        [recurred & early, recurred, causes["cause"] == DEATH, followed], [EARLY, LATE, DIED, NONE], LOST
    )
    return pd.DataFrame(
        {"outcome": outcome, "days": causes["days"].astype(float), "site": _sites(clinical, recurred)},
        index=causes.index,
    )


def outcome_counts(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Count patients by outcome and site.

    Parameters
    ----------
    outcomes : DataFrame
        As of `recurrence_outcomes`.

    Returns
    -------
    DataFrame
        `outcome`, `site`, `patients`; site `all` for each outcome, then each site of a recurrence, most common first.
    """
    return pd.DataFrame(
        [(outcome, site, len(rows)) for outcome, site, rows in _groups(outcomes)],
        columns=["outcome", "site", "patients"],
    )


def with_cutoff(timeline: pd.DataFrame, cutoff: CutOff) -> pd.DataFrame:
    """Read the status anew by another cut-off.

    Parameters
    ----------
    timeline : DataFrame
        As of `timeline.build_timeline`. Changes stand as they are: they need no cut-off.
    cutoff : CutOff
        It gives a status to assessable samples of its own blood volume; missed and unassessable ones have none.

    Returns
    -------
    DataFrame
        With `status` anew, and without `pattern`, which was fixed by the old one.

    Raises
    ------
    TableError
        If the timeline lacks counts or volumes.
    """
    needed = {"ctc", "assessable", "blood_volume_ml", "assessed_volume_ml"}
    if missing := sorted(needed - set(timeline.columns)):
        raise TableError("timeline", f"{', '.join(missing)} is missing", "give the timeline of a run")
    numbers = {name: pd.to_numeric(timeline[name]) for name in needed - {"assessable"}}
    samples = timeline.assign(assessable=timeline["assessable"].fillna(False).astype(bool), **numbers)
    return timeline.assign(status=status_by_cutoff(samples, cutoff)).drop(columns="pattern", errors="ignore")


def dynamics(timeline: pd.DataFrame, outcomes: pd.DataFrame, landmark_day: float) -> Dynamics:
    """Lay patterns and changes up to a landmark beside what came after it.

    Parameters
    ----------
    timeline : DataFrame
        As of `timeline.build_timeline` or `with_cutoff`.
    outcomes : DataFrame
        As of `recurrence_outcomes`.
    landmark_day : float
        Nothing after it is looked at, and whoever recurred, died or left before it is left out.

    Returns
    -------
    Dynamics
    """
    there = outcomes[outcomes["days"] > landmark_day]
    patients = there.assign(
        pattern=patterns_at(timeline, landmark_day).reindex(there.index),
        change=changes_at(timeline, landmark_day).reindex(there.index),
    )
    rows = [{"outcome": outcome, "site": site, **_moves(group)} for outcome, site, group in _groups(patients)]
    notes = []
    if gone := len(outcomes) - len(there):
        notes.append(f"{gone} patient(s) recurred, died or left by day {landmark_day:g} and are left out.")
    if unknown := int(patients["pattern"].isna().sum()):
        notes.append(
            f"{unknown} patient(s) have no pattern: no sample with a status before surgery or none from then to day "
            f"{landmark_day:g}. They aren't counted as negative."
        )
    return Dynamics(landmark_day, patients, pd.DataFrame(rows), tuple(notes))


def changes_at(timeline: pd.DataFrame, landmark_day: float) -> pd.Series:
    """Compare each patient's last count before surgery with the latest up to a landmark.

    Parameters
    ----------
    timeline : DataFrame
        As of `timeline.build_timeline`.
    landmark_day : float
        Days since surgery.

    Returns
    -------
    Series of str
        By `patient_id`: `rise`, `fall` or `not_distinguishable`, by the exact two-sided test at 5 % with the volumes
        assessed (at equal volumes it takes 0 to 6, 1 to 8 or 5 to 15). Only patients with both samples.
    """
    done = timeline[timeline["visit_status"] == "done"]
    counts, volumes = (before_and_after(done, name, landmark_day) for name in ("ctc", "assessed_volume_ml"))
    before, after = (counts[side].to_numpy(dtype=np.int64) for side in ("before", "after"))
    ml_before, ml_after = (volumes[side].to_numpy(dtype=float) for side in ("before", "after"))
    distinct = change_p_value(before, ml_before, after, ml_after) < SIGNIFICANCE
    named = np.where(distinct, np.where(after * ml_before > before * ml_after, "rise", "fall"), "not_distinguishable")
    return pd.Series(named, index=counts.index, dtype=object)


def _sites(clinical: pd.DataFrame, recurred: pd.Series) -> pd.Series:
    stated = clinical.set_index("patient_id").reindex(columns=["recurrence_site"])["recurrence_site"]
    named = stated.astype(object).where(stated.notna(), "").astype(str).str.strip().str.lower()
    return named.where(named != "", SITE_UNKNOWN).reindex(recurred.index).astype(object).where(recurred, None)


def _groups(patients: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Everybody of each outcome, then those of each site."""
    found = []
    for outcome in OUTCOMES:
        rows = patients[patients["outcome"] == outcome]
        found.append((outcome, ALL_SITES, rows))
        found += [(outcome, site, rows[rows["site"] == site]) for site in rows["site"].value_counts().index]
    return found


def _moves(group: pd.DataFrame) -> dict[str, int]:
    counts = {"patients": len(group)}
    counts |= {name: int((group["pattern"] == name).sum()) for name in PATTERNS.values()}
    counts[NO_PATTERN] = int(group["pattern"].isna().sum())
    counts |= {name: int((group["change"] == name).sum()) for name in CHANGES}
    return counts | {NOT_COMPARABLE: int(group["change"].isna().sum())}
