"""Predictions for subjects that a model hasn't seen: the same folds, landmarks and horizons for every model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.predictor import PredictorFit

    Told = Callable[[str], None]

FOLDS = 5
MODEL = "cross-validation"


@dataclass(frozen=True)
class Points:
    """From when, and to when, is predicted: every horizon of its landmark, on the follow-up's clock."""

    landmarks: tuple[float, ...]
    horizons: tuple[tuple[float, ...], ...]


def by_window(landmarks: Sequence[float], windows: Sequence[float]) -> Points:
    """Predict so long ahead of each landmark."""
    return Points(tuple(landmarks), tuple(tuple(one + width for width in sorted(windows)) for one in landmarks))


def by_horizon(landmarks: Sequence[float], horizons: Sequence[float]) -> Points:
    """Predict to fixed times, each from the landmarks before it."""
    ahead = [tuple(sorted(to for to in horizons if to > one)) for one in landmarks]
    return Points(tuple(landmarks), tuple(ahead))


@dataclass(frozen=True)
class Predictions:
    """Risks told of subjects in folds that the model wasn't fitted to.

    Parameters
    ----------
    table : DataFrame
        One row a repeat, subject, landmark and horizon: `repeat`, `fold`, `id`, `landmark`, `horizon`, `time`,
        `event` (how follow-up ended), and a column of risks a model, NaN where it couldn't say.
    models : tuple of str
    notes : tuple of str
        Which fits failed, and why.
    """

    table: pd.DataFrame
    models: tuple[str, ...]
    notes: tuple[str, ...]


def folds(follow_up: FollowUp, count: int = FOLDS, seed: int = 0) -> NDArray[np.intp]:
    """Deal subjects into folds, as many events in each as in any other.

    Parameters
    ----------
    follow_up : FollowUp
    count, seed : int

    Returns
    -------
    ndarray of int, shape (n,)
        Each subject's fold, in the order of the event table.

    Raises
    ------
    StatisticsError
        If there are fewer events than folds.
    """
    event = follow_up.events[follow_up.event].to_numpy(dtype=bool)
    if event.sum() < count or count < 2:
        raise StatisticsError(MODEL, f"{count} folds can't be made of {int(event.sum())} events", "choose fewer folds")
    rng = np.random.default_rng(seed)
    dealt = np.empty(len(event), np.intp)
    for kind in (True, False):
        own = rng.permutation(np.flatnonzero(event == kind))
        dealt[own] = np.arange(len(own)) % count
    return dealt


def cross_validate(
    fits: Mapping[str, PredictorFit],
    follow_up: FollowUp,
    points: Points,
    count: int = FOLDS,
    repeats: int = 1,
    seed: int = 0,
    told: Told | None = None,
) -> Predictions:
    """Fit each model to all folds but one, and predict in that one, in turns.

    A model is handed no more than what was known at the landmark: how a subject's follow-up went on stays here.

    Parameters
    ----------
    fits : mapping of str to PredictorFit
        The models, by name.
    follow_up : FollowUp
    points : Points
    count, repeats, seed : int
        Folds, how often they are dealt anew, and from which seed.
    told : callable, optional
        Told of each fold.

    Returns
    -------
    Predictions

    Raises
    ------
    StatisticsError
        If there are fewer events than folds, or nobody is at risk at any landmark.
    """
    tables, notes = [], []
    for repeat in range(repeats):
        dealt = folds(follow_up, count, seed + repeat)
        for fold in range(count):
            training, test = (follow_up.subset(follow_up.subjects[chosen]) for chosen in (dealt != fold, dealt == fold))
            frame = _questions(test, points)
            for name, fit in fits.items():
                frame[name], fault = _answers(fit, training, test, points, frame)
                notes += [f"{name}, fold {fold + 1}: {fault}"] if fault else []
            tables.append(frame.assign(repeat=repeat, fold=fold))
            if told is not None:
                told(f"fold {repeat * count + fold + 1} of {repeats * count}")
    table = pd.concat(tables, ignore_index=True)
    if table.empty:
        raise StatisticsError(MODEL, "nobody is at risk at any landmark", "choose earlier landmarks")
    return Predictions(table, tuple(fits), tuple(notes))


def _questions(test: FollowUp, points: Points) -> pd.DataFrame:
    """One row a subject at risk, landmark and horizon."""
    rows = []
    for landmark, horizons in zip(points.landmarks, points.horizons, strict=True):
        at_risk = test.events[test.events[test.event_time] > landmark]
        own = {"id": at_risk[test.id], "time": at_risk[test.event_time], "event": at_risk[test.event]}
        rows += [pd.DataFrame({**own, "landmark": landmark, "horizon": horizon}) for horizon in horizons]
    columns = ["id", "time", "event", "landmark", "horizon"]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


def _answers(
    fit: PredictorFit, training: FollowUp, test: FollowUp, points: Points, frame: pd.DataFrame
) -> tuple[NDArray[np.float64], str]:
    risks = np.full(len(frame), np.nan)
    try:
        predictor = fit(training)
        for landmark, horizons in zip(points.landmarks, points.horizons, strict=True):
            known = blinded(test.at(landmark), landmark)
            if not horizons or known.events.empty:
                continue
            told = predictor.risk(known, landmark, horizons)
            for horizon in horizons:
                own = ((frame["landmark"] == landmark) & (frame["horizon"] == horizon)).to_numpy()
                risks[own] = told[horizon].reindex(frame.loc[own, "id"]).to_numpy()
    except StatisticsError as error:
        return risks, str(error)
    return risks, ""


def blinded(known: FollowUp, landmark: float) -> FollowUp:
    """Hide how follow-up went on: everybody is only known to be free of the event just after the landmark."""
    if known.events.empty:
        return known
    after = float(np.nextafter(landmark, np.inf))
    return replace(known, events=known.events.assign(**{known.event_time: after, known.event: False}), notes=())
