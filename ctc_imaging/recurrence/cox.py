"""Time-varying Cox model: the hazard of recurrence by the CTC count known the day before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from ctc_imaging.recurrence.covariates import CTC_TERM, baseline_covariates, log2_ctc, usable_terms
from ctc_imaging.recurrence.fitting import fit_cox
from ctc_imaging.recurrence.proportional import disproportion_notes
from ctc_imaging.recurrence.survival import recurrence_free_times

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ctc_imaging.recurrence.fitting import CoxFit
    from ctc_imaging.recurrence.follow_up import FollowUp

MODEL = "time-varying Cox model"


@dataclass(frozen=True)
class TimeVaryingCox:
    """Hazard ratios with 95 % limits (robust, by patient), and the size of the data they come from.

    `disproportion` says in words which ratios change over time, to be read before them.
    """

    table: pd.DataFrame
    n_patients: int
    n_events: int
    n_rows: int
    disproportion: tuple[str, ...] = ()


def time_varying_cox(timeline: pd.DataFrame, clinical: pd.DataFrame) -> tuple[TimeVaryingCox, list[str]]:
    """Relate the hazard of recurrence or death to the latest CTC count.

    Parameters
    ----------
    timeline : DataFrame
        As of `timeline.build_timeline`.
    clinical : DataFrame
        As of `cohort.load_clinical`.

    Returns
    -------
    model : TimeVaryingCox
        On the CTC count, and on covariates of the clinical table as far as the events carry them.
    notes : list of str
        What was left out, and whose ratio changes over time.

    Raises
    ------
    StatisticsError
        If there are too few events, or a ratio can't be estimated.
    """
    rows = start_stop(timeline, clinical)
    by_patient = rows.groupby("patient_id")
    candidates = by_patient[[CTC_TERM]].mean().join(baseline_covariates(clinical))
    patients, notes = usable_terms(candidates, by_patient["event"].any(), CTC_TERM, MODEL)
    rows = rows.merge(patients.drop(columns=CTC_TERM), left_on="patient_id", right_index=True)
    fit = fit_time_varying(rows, patients.columns)
    warned = disproportion_notes(fit)
    model = TimeVaryingCox(fit.table(), len(patients), fit.events, len(rows), tuple(warned))
    return model, [*notes, *warned]


def start_stop(timeline: pd.DataFrame, clinical: pd.DataFrame) -> pd.DataFrame:
    """Cut each patient's follow-up at the samples, so that each interval knows only the sample before it.

    A sample's count holds from the day after it until the next sample's day; a sample from before surgery
    holds from surgery on. Patients without one enter at their first sample.

    Parameters
    ----------
    timeline : DataFrame
        As of `timeline.build_timeline`; only done samples are used.
    clinical : DataFrame
        As of `cohort.load_clinical`.

    Returns
    -------
    DataFrame
        One row an interval (`start`, `stop`], in days since surgery: `patient_id`, `start`, `stop`, `event`
        (at `stop`) and the CTC term.
    """
    done = timeline[(timeline["visit_status"] == "done") & timeline["day"].notna()]
    rows = pd.DataFrame(
        {
            "patient_id": done["patient_id"],
            "start": done["day"].astype(float).clip(lower=0),
            CTC_TERM: log2_ctc(done["ctc_per_ml"]),
        }
    )
    rows = rows.drop_duplicates(["patient_id", "start"], keep="last").sort_values(["patient_id", "start"])
    rows = rows.merge(recurrence_free_times(clinical), left_on="patient_id", right_index=True).reset_index(drop=True)
    rows = rows[rows["start"] < rows["days"]]
    following = rows.groupby("patient_id")["start"].shift(-1)
    rows["event"] = rows["event"] & following.isna()
    rows["stop"] = following.fillna(rows["days"])
    return rows[["patient_id", "start", "stop", "event", CTC_TERM]].reset_index(drop=True)


def intervals_of(follow_up: FollowUp) -> pd.DataFrame:
    """Cut the follow-up of any two tables at the measurements, as `start_stop` does for a run.

    Parameters
    ----------
    follow_up : FollowUp
        Of two measurements at one time the later row holds. Missing values are carried forward.

    Returns
    -------
    DataFrame
        One row an interval (`start`, `stop`]: the subject, `start`, `stop`, `event` (at `stop`), the longitudinal
        table's columns as last known, and the baseline covariates. Ready for ``fit_cox(..., start="start",
        stop="stop", event="event", id=follow_up.id, cluster=follow_up.id)``.
    """
    id, time = follow_up.id, follow_up.time
    rows = follow_up.long.drop_duplicates([id, time], keep="last").reset_index(drop=True)
    measured = [str(name) for name in rows if name not in (id, time)]
    rows[measured] = rows.groupby(id)[measured].ffill()
    baseline = follow_up.events.set_index(id)
    ends, happened = (rows[id].map(baseline[name]) for name in (follow_up.event_time, follow_up.event))
    following = rows.groupby(id)[time].shift(-1)
    times = {"start": rows[time], "stop": following.fillna(ends), "event": happened.astype(bool) & following.isna()}
    own = rows.drop(columns=[time, *(name for name in times if name in rows)]).assign(**times)
    others = baseline.drop(columns=[follow_up.event_time, follow_up.event]).drop(columns=own.columns, errors="ignore")
    cut = own.join(others, on=id)
    return cut[cut["start"] < cut["stop"]].reset_index(drop=True)


def fit_time_varying(rows: pd.DataFrame, terms: Iterable[str]) -> CoxFit:
    """Fit a Cox model to start-stop data (Andersen and Gill, Ann Stat 1982;10:1100-20; Efron's ties).

    Parameters
    ----------
    rows : DataFrame
        As of `start_stop`: `patient_id`, `start`, `stop`, `event` and the terms.
    terms : iterable of str
        Columns to use, float64 without NaN.

    Returns
    -------
    CoxFit
        Standard errors are robust, by patient.

    Raises
    ------
    StatisticsError
        If a ratio can't be estimated.
    """
    return fit_cox(
        rows,
        list(terms),
        start="start",
        stop="stop",
        event="event",
        id="patient_id",
        cluster="patient_id",
        model=MODEL,
    )
