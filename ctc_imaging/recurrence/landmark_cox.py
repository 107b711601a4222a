"""Dynamic prediction by landmark Cox models: at every landmark a model of its own, of those still at risk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.recurrence.cox_prediction import event_probability
from ctc_imaging.recurrence.design import used_columns
from ctc_imaging.recurrence.fitting import CoxFit, fit_cox
from ctc_imaging.recurrence.landmark_terms import Summary, default_terms, known_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctc_imaging.recurrence.design import Terms
    from ctc_imaging.recurrence.follow_up import FollowUp

MODEL = "landmark Cox model"
_STOP, _EVENT = "landmark stop", "landmark event"


@dataclass(frozen=True)
class LandmarkCox:
    """How a landmark Cox model is made (van Houwelingen, Scand J Stat 2007;34:70-85); call it to fit.

    Parameters
    ----------
    markers : tuple of str
        Columns of the longitudinal table.
    formula : str, optional
        Over the markers' summaries (see `known_at`) and baseline covariates, for example
        ``"log(bili) + bili_slope + age"``. Without it all summaries.
    summaries : tuple of {'last', 'slope', 'mean'}
        Of each marker.
    """

    markers: tuple[str, ...]
    formula: str | None = None
    summaries: tuple[Summary, ...] = ("last",)

    def __call__(self, training: FollowUp) -> LandmarkCoxPredictor:
        """Keep the training subjects; each landmark's model is fitted when it is first asked for."""
        return LandmarkCoxPredictor(self, training)


@dataclass(frozen=True)
class LandmarkCoxPredictor:
    """Landmark Cox models of the same training subjects, at any landmark."""

    settings: LandmarkCox
    training: FollowUp
    _fits: dict[tuple[float, float], CoxFit] = field(default_factory=dict, repr=False, compare=False)

    def fit(self, landmark: float, horizon: float) -> CoxFit:
        """Fit to the training subjects at risk at the landmark, followed to the horizon.

        Raises
        ------
        StatisticsError
            If they are too few, or can't carry the terms.
        """
        if (landmark, horizon) not in self._fits:
            training = self.training.at(landmark)
            known, terms = self._known(training, landmark)
            ends = training.events.set_index(training.id)
            times = ends[training.event_time]
            followed = {_STOP: times.clip(upper=horizon), _EVENT: ends[training.event] & (times <= horizon)}
            rows = known.assign(**followed)[_complete(known, terms)]
            self._fits[landmark, horizon] = fit_cox(rows, terms, stop=_STOP, event=_EVENT, model=MODEL)
        return self._fits[landmark, horizon]

    def risk(self, history: FollowUp, landmark: float, horizons: Sequence[float]) -> pd.DataFrame:
        """Predict, as `Predictor.risk`; NaN for subjects of whom something is unknown.

        Parameters
        ----------
        history : FollowUp
            Subjects at risk at the landmark.
        landmark : float
        horizons : sequence of float

        Returns
        -------
        DataFrame
            Index of subjects, a column a horizon: probability of the event by it.
        """
        return pd.DataFrame({horizon: self.limits(history, landmark, horizon)["risk"] for horizon in horizons})

    def limits(self, history: FollowUp, landmark: float, horizon: float) -> pd.DataFrame:
        """Predict for one horizon with 95 % limits: `risk`, `low`, `high`."""
        fit = self.fit(landmark, horizon)
        known, terms = self._known(history, landmark)
        found = event_probability(fit, known[_complete(known, terms)], landmark, horizon)
        return found.reindex(known.index).astype(np.float64)

    def _known(self, history: FollowUp, landmark: float) -> tuple[pd.DataFrame, Terms]:
        settings = self.settings
        known = known_at(history, landmark, settings.markers, settings.summaries)
        return known, default_terms(known, settings.markers, settings.formula)


def _complete(known: pd.DataFrame, terms: Terms) -> pd.Series:
    return known[used_columns(known, terms, MODEL)].notna().all(axis=1)
