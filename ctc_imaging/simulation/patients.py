"""Simulated patients: a true burden of CTCs that falls or rises, and a recurrence whose hazard depends on it.

No published text gives these quantities for hepatocellular carcinoma, so they are invented, within what is
published: counts before surgery as over-dispersed as CellSearch's (Yu 2018), recurrence-free survival near
that of 227 real resections (73, 60, 45, 39 and 34 % at 6, 12, 24, 36 and 60 months).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Days = NDArray[np.float64]


@dataclass(frozen=True)
class PlannedVisit:
    """A blood sample in the schedule: its day since surgery, the window around it, and the usual jitter."""

    name: str
    day: int
    early_days: int
    late_days: int
    jitter_days: float


VISITS = (
    PlannedVisit("pre", -3, 4, 2, 1.2),
    PlannedVisit("1w", 7, 2, 3, 1.0),
    PlannedVisit("1m", 30, 7, 10, 3.0),
    PlannedVisit("3m", 90, 15, 20, 6.0),
    PlannedVisit("6m", 180, 25, 30, 9.0),
    PlannedVisit("12m", 365, 40, 45, 14.0),
)
MISSED_FRACTION = 0.06


@dataclass(frozen=True)
class HazardModel:
    """Hazard of recurrence: a Weibull baseline that falls with time, times the effects of burden and MVI.

    ``baseline_per_year * years ** (shape - 1) * (1 + burden) ** log_hr_burden * exp(log_hr_mvi * MVI)``, where
    `burden` is the true number of CTCs per 5 mL on the same day; `log_hr_burden` is the log hazard ratio of
    one unit of ``log(1 + burden)``.
    """

    baseline_per_year: float = 0.085
    shape: float = 0.5
    log_hr_burden: float = 0.9
    log_hr_mvi: float = 0.6

    def per_year(self, days: Days, burden: NDArray[np.float64], mvi: NDArray[np.float64]) -> NDArray[np.float64]:
        """Hazard per year on days after surgery; the arguments broadcast."""
        baseline = self.baseline_per_year * (days / 365.25) ** (self.shape - 1)
        return baseline * np.exp(self.log_hr_burden * np.log1p(burden) + self.log_hr_mvi * mvi)


HAZARD = HazardModel()

BURDEN_VOLUME_ML = 5.0
"""Volume of blood that a burden is counted in."""

_CLEARANCE_DAYS = 3.5
_BURDEN_CAP = 80.0
_ADJUVANT_KEEPS = 0.6
_OBSERVED_TO = np.datetime64("2024-06-30")
_FIRST_SURGERY = np.datetime64("2019-01-07")
_ACCRUAL_DAYS = 1000
_HORIZON_DAYS = 2200
_STEP_DAYS = 5.0
_SITES = ("liver", "lung", "bone", "lymph node")
_SITE_WEIGHTS = (0.78, 0.12, 0.05, 0.05)


def draw_patients(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw patients as they are on the day of surgery, and what is left in them.

    Parameters
    ----------
    count : int
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        One row a patient: `patient_id`, `surgery_date`, `MVI` (0, 1), `AFP` (ng/mL), `BCLC`, `size_cm`,
        `residual` (disease left behind), `burden_before`, `burden_left` (CTCs per 5 mL, before surgery and
        from what is left on its day), `doubling_days`, `adjuvant_kind`, `adjuvant_day`.
    """
    mvi = rng.random(count) < 0.4
    afp = np.exp(rng.normal(np.log(60.0), 2.0, count))
    size_cm = np.exp(rng.normal(np.log(4.5), 0.5, count)).clip(1.0, 18.0)
    residual = rng.random(count) < _chance_of_residual(mvi, afp, size_cm)
    before = np.where(residual, rng.gamma(0.9, 5.5 / 0.9, count), rng.gamma(0.62, 1.13 / 0.62, count))
    left = np.where(residual, 1.0 + before * rng.uniform(0.3, 0.9, count), 0.08 * before)
    adjuvant = rng.random(count) < np.where(mvi, 0.5, 0.2)
    return pd.DataFrame(
        {
            "patient_id": [f"P{number:0{max(3, len(str(count)))}d}" for number in range(1, count + 1)],
            "surgery_date": _FIRST_SURGERY + rng.integers(0, _ACCRUAL_DAYS, count),
            "MVI": mvi.astype(int),
            "AFP": afp.round(1),
            "BCLC": np.select([size_cm < 2, size_cm < 6], ["0", "A"], "B"),
            "size_cm": size_cm.round(1),
            "residual": residual,
            "burden_before": before,
            "burden_left": left,
            "doubling_days": np.where(residual, np.exp(rng.normal(np.log(300.0), 0.5, count)), np.inf),
            "adjuvant_kind": np.where(adjuvant, "TACE", ""),
            "adjuvant_day": np.where(adjuvant, rng.integers(28, 56, count), np.nan),
        }
    )


def _chance_of_residual(
    mvi: NDArray[np.bool_], afp: NDArray[np.float64], size_cm: NDArray[np.float64]
) -> NDArray[np.float64]:
    score = -0.45 + 1.2 * mvi + 0.2 * np.log10(afp / 60.0) + 0.6 * np.log(size_cm / 4.5)
    return 1 / (1 + np.exp(-score))


def true_burden(patients: pd.DataFrame, days: Days) -> NDArray[np.float64]:
    """True burden on given days since surgery, in CTCs per 5 mL.

    Before surgery it is steady; after it what was shed by the tumour is cleared within days, and what is
    left behind sheds on, growing by its doubling time up to a cap. Adjuvant treatment takes 40 % of it.

    Parameters
    ----------
    patients : DataFrame
        See `draw_patients`.
    days : ndarray of float64, shape (m,) or (n, m)

    Returns
    -------
    ndarray of float64, shape (n, m)
    """
    column = {name: patients[name].to_numpy(float)[:, None] for name in ("burden_before", "burden_left")}
    after = np.maximum(days, 0.0)
    growth = np.exp2(after / patients["doubling_days"].to_numpy()[:, None])
    treated = days >= patients["adjuvant_day"].to_numpy()[:, None]
    left = np.minimum(column["burden_left"] * growth, _BURDEN_CAP) * np.where(treated, _ADJUVANT_KEEPS, 1.0)
    cleared = np.maximum(column["burden_before"] - column["burden_left"], 0.0) * np.exp(-after / _CLEARANCE_DAYS)
    return np.where(days < 0, column["burden_before"], left + cleared)


def draw_recurrence(patients: pd.DataFrame, rng: np.random.Generator, hazard: HazardModel = HAZARD) -> Days:
    """Draw the true day of recurrence, infinite where there is none within six years.

    Parameters
    ----------
    patients : DataFrame
        See `draw_patients`.
    rng : numpy.random.Generator
    hazard : HazardModel

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    days = np.arange(0.0, _HORIZON_DAYS, _STEP_DAYS) + _STEP_DAYS / 2
    per_year = hazard.per_year(days, true_burden(patients, days), patients["MVI"].to_numpy(float)[:, None])
    cumulative = np.cumsum(per_year * (_STEP_DAYS / 365.25), axis=1)
    reached = cumulative >= rng.exponential(1.0, (len(patients), 1))
    return np.where(reached.any(axis=1), days[reached.argmax(axis=1)], np.inf)


@dataclass(frozen=True)
class FollowUp:
    """What the clinic sees of the patients, in days since surgery; NaN where it sees none.

    `site` is where the recurrence was found; `imaging` has one row a scan: `patient` (row number), `day`,
    `modality`, `result`.
    """

    true_recurrence: Days
    recurrence: Days
    death: Days
    last_contact: Days
    site: NDArray[np.str_]
    imaging: pd.DataFrame


def draw_follow_up(patients: pd.DataFrame, rng: np.random.Generator) -> FollowUp:
    """Draw recurrence, death, loss and the imaging that finds a recurrence at the first scan after it.

    Parameters
    ----------
    patients : DataFrame
        See `draw_patients`.
    rng : numpy.random.Generator

    Returns
    -------
    FollowUp
    """
    count = len(patients)
    true_recurrence = draw_recurrence(patients, rng)
    death = rng.exponential(365.25 / 0.012, count)
    death = np.minimum(death, true_recurrence + 100 + rng.exponential(600.0, count)).round()
    closing = (_OBSERVED_TO - patients["surgery_date"].to_numpy("datetime64[D]")).astype(float)
    last = np.minimum(closing, 60 + rng.exponential(365.25 / 0.03, count)).round()
    died = death <= last
    last_contact = np.where(died, death, last)
    imaging = _draw_imaging(true_recurrence, last_contact, rng)
    positive = imaging[imaging["result"] == "positive"]
    recurrence = np.full(count, np.nan)
    recurrence[positive["patient"]] = positive["day"]
    site = np.where(np.isnan(recurrence), "", rng.choice(_SITES, count, p=_SITE_WEIGHTS))
    return FollowUp(true_recurrence, recurrence, np.where(died, death, np.nan), last_contact, site, imaging)


def _draw_imaging(recurrence: Days, last_contact: Days, rng: np.random.Generator) -> pd.DataFrame:
    """Scans every three months for two years, then every six, until one is positive; a few are missed."""
    planned = np.array([*range(90, 721, 90), *range(900, _HORIZON_DAYS, 180)])
    shape = len(recurrence), len(planned)
    days = np.round(planned + rng.normal(0, 8, shape))
    kept = (rng.random(shape) >= 0.04) & (days <= last_contact[:, None])
    positive = kept & (days >= recurrence[:, None])
    kept &= positive.cumsum(axis=1) <= 1
    kept &= positive | ~np.logical_or.accumulate(positive, axis=1)
    result = np.where(positive, "positive", np.where(rng.random(shape) < 0.02, "equivocal", "negative"))
    modality = np.where(rng.random(shape) < 0.6, "CT", "MRI")
    patient = np.broadcast_to(np.arange(len(recurrence))[:, None], shape)
    columns = {"patient": patient, "day": days, "modality": modality, "result": result}
    return pd.DataFrame({name: values[kept] for name, values in columns.items()})


def draw_visits(patients: pd.DataFrame, follow_up: FollowUp, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the blood samples: the planned visits with jitter, some missed, none after recurrence or death.

    Parameters
    ----------
    patients : DataFrame
        See `draw_patients`.
    follow_up : FollowUp
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        One row a patient and visit that was due: `patient` (row number), `visit`, `day`, `done`,
        `true_burden` (per 5 mL).
    """
    day = np.stack([_visit_days(visit, len(patients), rng) for visit in VISITS], axis=1)
    done = rng.random(day.shape) >= MISSED_FRACTION
    done[:, 0] = True
    end = np.fmin(follow_up.recurrence, follow_up.last_contact)
    table = pd.DataFrame(
        {
            "patient": np.repeat(np.arange(len(patients)), len(VISITS)),
            "visit": [visit.name for visit in VISITS] * len(patients),
            "day": day.ravel().astype(int),
            "done": done.ravel(),
            "true_burden": true_burden(patients, day).ravel(),
        }
    )
    return table[day.ravel() <= np.repeat(end, len(VISITS))].reset_index(drop=True)


def _visit_days(visit: PlannedVisit, count: int, rng: np.random.Generator) -> Days:
    days = visit.day + visit.jitter_days * rng.standard_normal(count)
    return np.round(days.clip(visit.day - visit.early_days, visit.day + visit.late_days))


def draw_counts(
    burden: NDArray[np.float64], volume_ml: float, rng: np.random.Generator, dispersion: float = 4.0
) -> NDArray[np.int64]:
    """Draw CTC counts of samples: negative binomial around the burden in the sample's volume.

    Over patients, whose burdens differ, the counts before surgery of those without residual disease have
    mean 1.13 and k .44 (CellSearch; Yu 2018, solved from its positive rate and mean).

    Parameters
    ----------
    burden : ndarray of float64
        CTCs per 5 mL.
    volume_ml : float
    rng : numpy.random.Generator
    dispersion : float
        k of one sample; the variance is mean + mean² / k.

    Returns
    -------
    ndarray of int64
    """
    mean = burden * (volume_ml / BURDEN_VOLUME_ML)
    return rng.poisson(mean * rng.gamma(dispersion, 1 / dispersion, np.shape(mean)))
