"""Predicted risks for schemes that ask for them, each from a model that never saw the patient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.predictor import PredictorFit
    from ctc_imaging.recurrence.scheme import Scheme


def cross_fitted_risks(
    scheme: Scheme, follow_up: FollowUp, fit: PredictorFit, folds: int = 5, seed: int = 0
) -> pd.Series:
    """Predict each patient's risk by the scheme's horizon, as seen on its decision day, from the other folds.

    Parameters
    ----------
    scheme : Scheme
    follow_up : FollowUp
    fit : PredictorFit
        Makes the predictor, for example `landmark_cox.LandmarkCox`.
    folds : int
    seed : int

    Returns
    -------
    Series of float64
        By subject at risk on the decision day, NaN where the model can't say.

    Raises
    ------
    StatisticsError
        If a fold can't carry the model.
    """
    subjects = follow_up.subjects
    fold = pd.Series(np.random.default_rng(seed).permutation(len(subjects)) % folds, index=subjects)
    risks = []
    for number in range(folds):
        others, own = (follow_up.subset(subjects[rows]) for rows in (fold != number, fold == number))
        history = own.at(scheme.decision_day)
        risks.append(fit(others).risk(history, scheme.decision_day, [scheme.horizon_day])[scheme.horizon_day])
    return pd.concat(risks).rename("risk")
