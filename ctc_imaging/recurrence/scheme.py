"""A scheme names patients (CTC-positive at 1 month: consider treatment) to be evaluated; it is never applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import ConfigError
from ctc_imaging.timeline import patterns_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp

    Floats = NDArray[np.float64]

_VOLUME = "blood_volume_ml"


@dataclass(frozen=True)
class Sample:
    """The last sample of a window has a status, or a value of at least so much.

    `day` and the days early and late it may be are on the follow-up's clock. With `volume_ml` only samples of that
    blood volume are judged: a cut-off holds for its own.
    """

    marker: str
    equals: str | None
    at_least: float | None
    volume_ml: float | None
    day: float
    early_days: float
    late_days: float


@dataclass(frozen=True)
class Pattern:
    """The pattern from before surgery to the decision is one of these."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Risk:
    """The predicted risk of the event by the horizon, as seen at the decision, is at least so much."""

    at_least: float


Condition = Sample | Pattern | Risk


@dataclass(frozen=True)
class Scheme:
    """Whom it names at `decision_day`: patients of whom all conditions hold, or, with `any_of`, at least one."""

    name: str
    suggests: str
    decision_day: float
    horizon_day: float
    conditions: tuple[Condition, ...]
    any_of: bool
    source: str

    @property
    def needs_risk(self) -> bool:
        """Whether a predicted risk is asked for."""
        return any(isinstance(condition, Risk) for condition in self.conditions)

    def names(self, follow_up: FollowUp, risks: pd.Series | None = None) -> pd.Series:
        """Say which of the patients at risk at the decision the scheme names.

        Parameters
        ----------
        follow_up : FollowUp
            Whole; nothing after the decision is looked at.
        risks : Series of float64, optional
            Predicted risk by subject, where a condition asks for it.

        Returns
        -------
        Series of float64
            By subject: 1 named, 0 not named, NaN where it can't be said, as a sample is missing.

        Raises
        ------
        ConfigError
            If the follow-up hasn't what a condition asks for.
        """
        known = follow_up.at(self.decision_day)
        answers = np.column_stack([_answer(condition, known, self, risks) for condition in self.conditions])
        # Of an unknown answer nothing follows, unless the others decide without it.
        certain, possible = (np.where(np.isnan(answers), unknown, answers) for unknown in (0.0, 1.0))
        join = np.max if self.any_of else np.min
        least, most = join(certain, axis=1), join(possible, axis=1)
        return pd.Series(np.where(least == most, least, np.nan), index=known.subjects, name=self.name)


def _answer(condition: Condition, known: FollowUp, scheme: Scheme, risks: pd.Series | None) -> Floats:
    if isinstance(condition, Sample):
        return _of_sample(condition, known)
    if isinstance(condition, Pattern):
        return _of_pattern(condition, known, scheme.decision_day)
    if risks is None:
        raise ConfigError(scheme.name, "asks for a predicted risk", "give the model that predicts it")
    values = risks.reindex(known.subjects).to_numpy(dtype=float)
    return np.where(np.isnan(values), np.nan, values >= condition.at_least)


def _of_sample(condition: Sample, known: FollowUp) -> Floats:
    long = known.long
    needed = [condition.marker] + ([_VOLUME] if condition.volume_ml is not None else [])
    if missing := [name for name in needed if name not in long]:
        raise ConfigError("scheme", f"the measurements have no column {missing[0]}", "name one they have")
    first, last = condition.day - condition.early_days, condition.day + condition.late_days
    usable = long[known.time].between(first, last) & long[condition.marker].notna()
    if condition.volume_ml is not None:
        usable &= np.isclose(long[_VOLUME].astype(float), condition.volume_ml)
    values = long.loc[usable].groupby(known.id)[condition.marker].last().reindex(known.subjects)
    holds = values == condition.equals if condition.at_least is None else values.astype(float) >= condition.at_least
    return np.where(values.isna(), np.nan, holds)


def _of_pattern(condition: Pattern, known: FollowUp, day: float) -> Floats:
    if "status" not in known.long:
        raise ConfigError("scheme", "the measurements have no column status, so there are no patterns", "use a RUN")
    long = known.long.rename(columns={known.id: "patient_id", known.time: "day"})
    patterns = patterns_at(long, day).reindex(known.subjects)
    return np.where(patterns.isna(), np.nan, patterns.isin(condition.names))
