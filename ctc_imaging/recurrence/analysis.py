"""The whole first analysis of recurrence: what the data can't carry becomes a note, never a crash."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.competing import MODEL as INCIDENCE
from ctc_imaging.recurrence.competing import LandmarkIncidence, landmark_incidence
from ctc_imaging.recurrence.cox import MODEL as COX
from ctc_imaging.recurrence.cox import TimeVaryingCox, time_varying_cox
from ctc_imaging.recurrence.landmark import MODEL as RISK
from ctc_imaging.recurrence.landmark import LandmarkRisk, landmark_risk
from ctc_imaging.recurrence.survival import MODEL as SURVIVAL
from ctc_imaging.recurrence.survival import LandmarkSurvival, landmark_survival

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Analysis:
    """Survival by pattern, time-varying Cox, landmark risk and incidence; None, and a note, where data don't carry it.

    Survival counts recurrence and death of any cause; `incidence` keeps recurrence apart from death without it.
    """

    survival: LandmarkSurvival | None
    cox: TimeVaryingCox | None
    risk: LandmarkRisk | None
    notes: tuple[str, ...]
    incidence: LandmarkIncidence | None = None


def analyse(
    timeline: pd.DataFrame, clinical: pd.DataFrame, landmark_day: float = 30, horizon_days: float = 730
) -> Analysis:
    """Analyse recurrence-free survival (recurrence or death of any cause; censored at last contact) and recurrence.

    Parameters
    ----------
    timeline : DataFrame
        As of `timeline.build_timeline`, or timeline.csv.
    clinical : DataFrame
        As of `cohort.load_clinical`.
    landmark_day : float
        Day since surgery at which patterns and risks are fixed, and from which curves start.
    horizon_days : float
        Day since surgery to which survival and risk are given; an event on this day counts.

    Returns
    -------
    Analysis
    """
    notes: list[str] = []
    days = (landmark_day, horizon_days)
    survival = _attempt(SURVIVAL, lambda: landmark_survival(timeline, clinical, *days), notes)
    cox = _attempt(COX, lambda: time_varying_cox(timeline, clinical), notes)
    risk = _attempt(RISK, lambda: landmark_risk(timeline, clinical, *days), notes)
    incidence = _attempt(INCIDENCE, lambda: landmark_incidence(timeline, clinical, *days), notes)
    if risk is not None:
        notes.append(f"{RISK}: the model is judged by nobody but the patients it was fitted to.")
    return Analysis(survival, cox, risk, tuple(notes), incidence)


def _attempt(model: str, fit: Callable[[], tuple[_Result, list[str]]], notes: list[str]) -> _Result | None:
    """Fit a model, adding to the notes what it left out, or why there is none."""
    try:
        result, remarks = fit()
    except StatisticsError as error:
        notes.append(f"{error}.")
        return None
    notes.extend(f"{model}: {remark}" for remark in remarks)
    return result
