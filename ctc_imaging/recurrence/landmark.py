"""Each patient's risk of recurrence by a horizon, from what is known at the landmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.covariates import CTC_TERM, baseline_covariates, log2_ctc, usable_terms
from ctc_imaging.recurrence.fitting import Z_95, fit_cox
from ctc_imaging.recurrence.proportional import disproportion_notes
from ctc_imaging.recurrence.survival import at_risk_at, recurrence_free_times
from ctc_imaging.timeline import before_and_after

if TYPE_CHECKING:
    from numpy.typing import NDArray

MODEL = "landmark risk"
CHANGE_TERM = f"change of {CTC_TERM} since before surgery"


@dataclass(frozen=True)
class LandmarkRisk:
    """Risk by the horizon of each patient at risk at the landmark (0 to 1, 95 % limits), and the model behind it.

    `disproportion` says in words which of its ratios change over time.
    """

    table: pd.DataFrame
    coefficients: pd.DataFrame
    n: int
    events: int
    disproportion: tuple[str, ...] = ()


def landmark_risk(
    timeline: pd.DataFrame, clinical: pd.DataFrame, landmark_day: float, horizon_days: float
) -> tuple[LandmarkRisk, list[str]]:
    """Risk of recurrence or death by the horizon, by a Cox model at the landmark.

    Patients at risk at the landmark enter there and are censored at the horizon (van Houwelingen,
    Scand J Stat 2007;34:70-85). Terms are the CTC count at the landmark, its change since before surgery
    and baseline covariates, as far as the events carry them.

    Parameters
    ----------
    timeline : DataFrame
        As of `timeline.build_timeline`; samples after the landmark aren't used.
    clinical : DataFrame
        As of `cohort.load_clinical`.
    landmark_day, horizon_days : float
        Days since surgery.

    Returns
    -------
    risk : LandmarkRisk
    notes : list of str
        What was left out, and whose ratio changes over time.

    Raises
    ------
    StatisticsError
        If there are too few events, nobody is followed to the horizon, or a ratio can't be estimated.
    """
    times, _ = at_risk_at(recurrence_free_times(clinical), landmark_day)
    candidates = _known_at_landmark(timeline, clinical, landmark_day)
    times = times[times.index.isin(candidates.index)]
    if not (times["days"] >= horizon_days).any():
        raise StatisticsError(
            MODEL, f"no patient is followed to day {horizon_days:g}", "choose an earlier horizon_days"
        )
    times = times.assign(
        event=times["event"] & (times["days"] <= horizon_days),
        days=times["days"].clip(upper=horizon_days) - landmark_day,
    )
    patients, notes = usable_terms(candidates.loc[times.index], times["event"], CTC_TERM, MODEL)
    times = times.loc[patients.index]
    fit = fit_cox(patients.join(times), list(patients.columns), stop="days", event="event", model=MODEL)
    followed = times["days"].to_numpy(), times["event"].to_numpy()
    table = absolute_risk(patients.to_numpy(), *followed, fit.coefficients, fit.covariance)
    table.insert(0, "patient_id", patients.index)
    warned = disproportion_notes(fit)
    return LandmarkRisk(table, fit.table(), len(times), fit.events, tuple(warned)), [*notes, *warned]


def absolute_risk(
    terms: NDArray[np.float64],
    days: NDArray[np.float64],
    event: NDArray[np.bool_],
    coefficients: NDArray[np.float64],
    covariance: NDArray[np.float64],
) -> pd.DataFrame:
    """Turn a fitted Cox model into each patient's risk by the end of follow-up.

    Breslow's cumulative hazard; limits by the delta method on its logarithm, with the uncertainty of both
    the coefficients and the baseline (Link, Biometrics 1984;40:601-10).

    Parameters
    ----------
    terms : ndarray of float64, shape (n, k)
        Patients by terms.
    days, event : ndarray, shape (n,)
        Follow-up of the same patients, whom the model was fitted to, and whether it ended with the event.
    coefficients, covariance : ndarray of float64, shapes (k,) and (k, k)
        Log hazard ratios and their covariance.

    Returns
    -------
    DataFrame
        `risk`, `low`, `high` (95 %), one row a patient.
    """
    centred = terms - terms.mean(axis=0)
    weight = np.exp(centred @ coefficients)
    event_days, deaths = np.unique(days[event], return_counts=True)
    at_risk = (days >= event_days[:, None]) * weight
    total = at_risk.sum(axis=1)
    mean_terms = at_risk @ centred / total[:, None]
    hazard = (deaths / total).sum()
    drift = centred * hazard - (deaths / total) @ mean_terms
    variance = (deaths / total**2).sum() + np.einsum("ij,jk,ik->i", drift, covariance, drift)
    half_width = Z_95 * np.sqrt(variance) / hazard
    cumulative = {"risk": weight * hazard}
    cumulative |= {"low": cumulative["risk"] * np.exp(-half_width), "high": cumulative["risk"] * np.exp(half_width)}
    return pd.DataFrame({name: -np.expm1(-value) for name, value in cumulative.items()})


def _known_at_landmark(timeline: pd.DataFrame, clinical: pd.DataFrame, landmark_day: float) -> pd.DataFrame:
    done = timeline[timeline["visit_status"] == "done"]
    done = done.assign(log2=log2_ctc(done["ctc_per_ml"]))
    both = before_and_after(done, "log2", landmark_day)
    terms = pd.DataFrame({CTC_TERM: both["after"], CHANGE_TERM: both["after"] - both["before"]})
    return terms.join(baseline_covariates(clinical))
