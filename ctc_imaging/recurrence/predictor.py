"""What every dynamic prediction is: the risk by a horizon of whoever is free of the event at a landmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ctc_imaging.recurrence.follow_up import FollowUp


class Predictor(Protocol):
    """A fitted model that predicts."""

    def risk(self, history: FollowUp, landmark: float, horizons: Sequence[float]) -> pd.DataFrame:
        """Predict from what is known at the landmark.

        Parameters
        ----------
        history : FollowUp
            As of `FollowUp.at(landmark)`: subjects at risk, measurements up to the landmark; how their
            follow-up went on is never looked at.
        landmark : float
        horizons : sequence of float
            On the same clock, each after the landmark.

        Returns
        -------
        DataFrame
            Index of subjects, a column a horizon: probability of the event by it (0 to 1), NaN where the model
            can't say.
        """
        ...


class PredictorFit(Protocol):
    """Fits a predictor to training subjects."""

    def __call__(self, training: FollowUp) -> Predictor:
        """Fit; raises StatisticsError where the data can't carry the model."""
        ...
