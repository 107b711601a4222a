"""The landmark super-model: all landmarks in one Cox model whose ratios change smoothly from landmark to landmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.cox_prediction import event_probability
from ctc_imaging.recurrence.design import Design, build_design, used_columns
from ctc_imaging.recurrence.fitting import Z_95, CoxFit, fit_cox
from ctc_imaging.recurrence.landmark_terms import Summary, default_terms, known_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp

MODEL = "landmark super-model"
_LANDMARK, _START, _STOP, _EVENT, _ID = "landmark", "start", "stop", "event", "subject"


@dataclass(frozen=True)
class SuperModel:
    """How a super-model is made (van Houwelingen, Scand J Stat 2007;34:70-85, model ipl*); call it to fit.

    Parameters
    ----------
    markers : tuple of str
        Columns of the longitudinal table.
    landmarks : tuple of float
        Times, ascending, at which subjects still at risk are lined up.
    window : float
        How far from a landmark predictions go.
    formula : str, optional
        Over the markers' last values and baseline covariates; without it the last values.
    summaries : tuple of {'last', 'slope', 'mean'}
        Of each marker.
    degree : int
        Of the polynomial in the landmark that each log hazard ratio, and the baseline, follows.
    """

    markers: tuple[str, ...]
    landmarks: tuple[float, ...]
    window: float
    formula: str | None = None
    summaries: tuple[Summary, ...] = ("last",)
    degree: int = 2

    def __call__(self, training: FollowUp) -> SuperModelFit:
        """Fit to all subjects at risk at each landmark, with errors robust to one subject standing in many rows.

        Parameters
        ----------
        training : FollowUp

        Returns
        -------
        SuperModelFit

        Raises
        ------
        StatisticsError
            If there are too few landmarks for the degree, or the data can't carry the terms.
        """
        if len(set(self.landmarks)) <= self.degree:
            fault = f"{len(set(self.landmarks))} landmark(s) can't carry a polynomial of degree {self.degree}"
            raise StatisticsError(MODEL, fault, "give more landmarks, or a lower degree")
        rows = stack_landmarks(training, self)
        design = build_design(rows, default_terms(rows, self.markers, self.formula), MODEL)
        smooth = self.smooth(design.matrix, design.names, rows[_LANDMARK].to_numpy(dtype=np.float64))
        smooth.index = rows.index
        columns = [str(name) for name in smooth]
        stacked = pd.concat([rows[[_ID, _START, _STOP, _EVENT]], smooth], axis=1)
        fit = fit_cox(stacked, columns, start=_START, stop=_STOP, event=_EVENT, cluster=_ID, model=MODEL)
        return SuperModelFit(self, fit, design, rows[_ID].nunique())

    def smooth(self, matrix: NDArray[np.float64], names: Sequence[str], landmark: NDArray[np.float64]) -> pd.DataFrame:
        """Multiply each covariate by the powers of the landmark, and add the powers themselves.

        Parameters
        ----------
        matrix : ndarray of float64, shape (n, k)
        names : sequence of str
            Of the k covariates.
        landmark : ndarray of float64, shape (n,)

        Returns
        -------
        DataFrame
            Columns ``NAME``, ``NAME x s``, ``NAME x s^2``, ..., ``s``, ``s^2``; s goes from 0 at the first landmark to
            1 at the last.
        """
        place = self.place(landmark)
        powers = range(1, self.degree + 1)
        columns = {
            f"{name} x {_power(power)}" if power else name: column * place**power
            for name, column in zip(names, matrix.T, strict=True)
            for power in (0, *powers)
        }
        return pd.DataFrame(columns | {_power(power): place**power for power in powers})

    def place(self, landmark: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scale landmarks from 0 at the first to 1 at the last."""
        first, last = min(self.landmarks), max(self.landmarks)
        return (landmark - first) / ((last - first) or 1.0)


@dataclass(frozen=True)
class SuperModelFit:
    """A fitted super-model, which predicts at any landmark between its first and its last."""

    settings: SuperModel
    cox: CoxFit
    design: Design
    subjects: int

    def coefficients_at(self, landmark: float) -> pd.DataFrame:
        """Log hazard ratios as they are at a landmark, with robust 95 % limits.

        Parameters
        ----------
        landmark : float

        Returns
        -------
        DataFrame
            `term`, `coefficient`, `low`, `high`.
        """
        size = len(self.design.names)
        unit = self.settings.smooth(np.eye(size), self.design.names, np.full(size, float(landmark))).to_numpy()
        unit[:, size * (self.settings.degree + 1) :] = 0.0
        values = unit @ self.cox.coefficients
        half = Z_95 * np.sqrt(np.einsum("ij,jk,ik->i", unit, self.cox.covariance, unit))
        return pd.DataFrame(
            {"term": self.design.names, "coefficient": values, "low": values - half, "high": values + half}
        )

    def risk(self, history: FollowUp, landmark: float, horizons: Sequence[float]) -> pd.DataFrame:
        """Predict, as `Predictor.risk`.

        Parameters
        ----------
        history : FollowUp
            Subjects at risk at the landmark.
        landmark : float
        horizons : sequence of float

        Returns
        -------
        DataFrame
            Index of subjects, a column a horizon; NaN beyond the window, at a landmark that isn't between the first
            and the last, and for subjects of whom something is unknown.
        """
        return pd.DataFrame({horizon: self.limits(history, landmark, horizon)["risk"] for horizon in horizons})

    def limits(self, history: FollowUp, landmark: float, horizon: float) -> pd.DataFrame:
        """Predict for one horizon with 95 % limits: `risk`, `low`, `high`."""
        settings = self.settings
        known = known_at(history, landmark, settings.markers, settings.summaries)
        reached = min(settings.landmarks) <= landmark <= max(settings.landmarks)
        if not reached or horizon > landmark + settings.window:
            return pd.DataFrame(np.nan, index=known.index, columns=["risk", "low", "high"])
        complete = (
            known[used_columns(known, default_terms(known, settings.markers, settings.formula), MODEL)]
            .notna()
            .all(axis=1)
        )
        rows = known[complete]
        smooth = settings.smooth(self.design.of(rows), self.design.names, np.full(len(rows), float(landmark)))
        found = event_probability(self.cox, smooth.set_axis(rows.index), landmark, horizon)
        return found.reindex(known.index).astype(np.float64)


def stack_landmarks(training: FollowUp, settings: SuperModel) -> pd.DataFrame:
    """Line up at each landmark those still at risk, with what is known of them then.

    Parameters
    ----------
    training : FollowUp
    settings : SuperModel

    Returns
    -------
    DataFrame
        One row a subject and landmark: `subject`, `landmark`, `start` (the landmark), `stop` (not after the window's
        end), `event`, and the columns of `known_at`. Rows with something unknown in the formula are left out.
    """
    parts = []
    for landmark in sorted(set(settings.landmarks)):
        at_risk = training.at(landmark)
        ends = at_risk.events.set_index(at_risk.id)
        times, horizon = ends[at_risk.event_time], landmark + settings.window
        rows = known_at(at_risk, landmark, settings.markers, settings.summaries).rename_axis(_ID)
        rows[_LANDMARK] = rows[_START] = landmark
        rows[_STOP] = times.clip(upper=horizon)
        rows[_EVENT] = ends[at_risk.event] & (times <= horizon)
        parts.append(rows.reset_index())
    stacked = pd.concat(parts, ignore_index=True)
    known = (
        stacked[used_columns(stacked, default_terms(stacked, settings.markers, settings.formula), MODEL)]
        .notna()
        .all(axis=1)
    )
    return stacked[known].reset_index(drop=True)


def _power(power: int) -> str:
    return "s" if power == 1 else f"s^{power}"
