"""What is known of each patient: the days and results of blood samples, and between which scans relapse came."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MODEL = "lead time"


@dataclass(frozen=True)
class Observations:
    """Samples and relapse intervals of the same patients.

    Parameters
    ----------
    patients : Index
    left, right : ndarray of float64, shape (patients,)
        Relapse lies in (left, right], days since surgery; `right` is infinite where none was found.
    sample_days : ndarray of float64, shape (patients, samples)
        In order of time, infinite where a patient has fewer samples.
    positive : ndarray of bool, shape (patients, samples)
        Results; False where there is no sample.
    """

    patients: pd.Index
    left: Floats
    right: Floats
    sample_days: Floats
    positive: NDArray[np.bool_]

    @property
    def relapsed(self) -> NDArray[np.bool_]:
        """Whose relapse was found."""
        return np.isfinite(self.right)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Observations:
        """Keep some patients, by place or by mask; a patient may be there several times."""
        parts = {name: getattr(self, name)[rows] for name in ("left", "right", "sample_days", "positive")}
        return replace(self, patients=self.patients[rows], **parts)


def observe(samples: pd.DataFrame, intervals: pd.DataFrame) -> Observations:
    """Lay samples beside relapse intervals.

    Parameters
    ----------
    samples : DataFrame
        One row a sample: `patient_id`, `day` (since surgery), `positive` (bool). Only those with a result, after
        surgery; samples after the scan that found the relapse are left out here.
    intervals : DataFrame
        Index `patient_id`; `left`, `right`, as of `interval_censored.recurrence_intervals`.

    Returns
    -------
    Observations
        Of all patients with an interval. One without a sample before relapse still tells when relapses come: without
        those who relapse before their first sample, relapse would seem to be late, and the lead long.

    Raises
    ------
    StatisticsError
        If nobody has both samples and an interval.
    """
    known = samples[samples["patient_id"].isin(intervals.index)]
    right = known["patient_id"].map(intervals["right"])
    known = known[known["day"].astype(float) <= right].sort_values(["patient_id", "day"], kind="stable")
    if known.empty:
        raise StatisticsError(MODEL, "no patient has both samples and scans", "give the samples' and scans' tables")
    place = known.groupby("patient_id").cumcount().to_numpy()
    patients = pd.Index(sorted(intervals.index), name="patient_id")
    row = patients.get_indexer(known["patient_id"])
    days = np.full((len(patients), place.max() + 1), np.inf)
    positive = np.zeros(days.shape, dtype=bool)
    days[row, place], positive[row, place] = known["day"].astype(float), known["positive"].astype(bool)
    chosen = intervals.loc[patients]
    return Observations(patients, chosen["left"].to_numpy(float), chosen["right"].to_numpy(float), days, positive)
