"""A Cox model of baseline covariates alone: what is known at the start, against which markers must show their worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from ctc_imaging.recurrence.cox_prediction import event_probability
from ctc_imaging.recurrence.fitting import fit_cox
from ctc_imaging.recurrence.product_limit import product_limit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctc_imaging.recurrence.fitting import CoxFit
    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.predictor import Predictor
    from ctc_imaging.recurrence.product_limit import ProductLimit

MODEL = "Cox model of baseline covariates"


@dataclass(frozen=True)
class BaselineCoxFit:
    """Fits a Cox model of a formula; a `predictor.PredictorFit`. Without covariates it is the Kaplan-Meier estimate."""

    formula: str

    def __call__(self, training: FollowUp) -> Predictor:
        """Fit from the start of follow-up on."""
        if self.formula.strip() in ("", "1"):
            return _Everybody(product_limit(training.events[training.event_time], training.events[training.event]))
        stop, event = training.event_time, training.event
        return _BaselineCox(fit_cox(training.events, self.formula, stop=stop, event=event, model=MODEL))


@dataclass(frozen=True)
class _BaselineCox:
    fit: CoxFit

    def risk(self, history: FollowUp, landmark: float, horizons: Sequence[float]) -> pd.DataFrame:
        rows = history.events.set_index(history.id)
        risks = {to: event_probability(self.fit, rows, landmark, to)["risk"] for to in horizons}
        return pd.DataFrame(risks, index=rows.index)


@dataclass(frozen=True)
class _Everybody:
    free: ProductLimit

    def risk(self, history: FollowUp, landmark: float, horizons: Sequence[float]) -> pd.DataFrame:
        now = float(self.free.at(landmark))
        return pd.DataFrame({to: 1 - float(self.free.at(to)) / now for to in horizons}, index=history.subjects)
