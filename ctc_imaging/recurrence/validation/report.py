"""The scores of cross-validated predictions, and how models differ, each with limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.recurrence.validation.calibration import Calibration, calibration
from ctc_imaging.recurrence.validation.scores import auc, brier, integrated_brier, resampled

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.product_limit import Estimate
    from ctc_imaging.recurrence.validation.cross_validation import Predictions

    Score = Callable[[pd.DataFrame, str, float, NDArray[np.intp]], float]

SCORES = ("auc", "brier")


def score_table(predictions: Predictions, seed: int = 0) -> pd.DataFrame:
    """Score each model at each landmark and horizon.

    Only subjects count of whom every model could tell a risk. Of repeated folds each subject's mean risk is scored.

    Parameters
    ----------
    predictions : Predictions
    seed : int
        Of the bootstrap over subjects.

    Returns
    -------
    DataFrame
        `model`, `landmark`, `horizon`, `score` (auc, brier), `n`, `events` (by the horizon), `value`, `low`, `high`.
    """
    rows = []
    for (landmark, horizon), own in _comparable(predictions):
        for model in predictions.models:
            for score in SCORES:
                value = _estimate(own, model, landmark, horizon, score, seed)
                rows.append((model, landmark, horizon, score, len(own), _events(own, horizon), *value))
    return pd.DataFrame(rows, columns=["model", "landmark", "horizon", "score", "n", "events", "value", "low", "high"])


def difference_table(predictions: Predictions, model: str, than: str, seed: int = 0) -> pd.DataFrame:
    """Say how much better one model scores than another, on the same subjects.

    Parameters
    ----------
    predictions : Predictions
    model, than : str
        Names of two of its models.
    seed : int

    Returns
    -------
    DataFrame
        `landmark`, `horizon`, `score`, `n`, `events`, `value`, `low`, `high`: score of `model` less that of `than`,
        limits by the bootstrap over subjects. A higher AUC is better, a lower Brier score.
    """
    rows = []
    for (landmark, horizon), own in _comparable(predictions):
        for score in SCORES:

            def gap(
                some: NDArray[np.intp],
                own: pd.DataFrame = own,
                score: str = score,
                at: float = landmark,
                to: float = horizon,
            ) -> float:
                return _score(own, model, at, to, score, some) - _score(own, than, at, to, score, some)

            rows.append(
                (landmark, horizon, score, len(own), _events(own, horizon), *resampled(gap, len(own), seed=seed))
            )
    return pd.DataFrame(rows, columns=["landmark", "horizon", "score", "n", "events", "value", "low", "high"])


def integrated_table(predictions: Predictions, seed: int = 0) -> pd.DataFrame:
    """Score each model at each landmark over all of its horizons by the integrated Brier score.

    Parameters
    ----------
    predictions : Predictions
        With two horizons or more a landmark.
    seed : int

    Returns
    -------
    DataFrame
        `model`, `landmark`, `n`, `value`, `low`, `high`.
    """
    rows = []
    for landmark, table in predictions.table.groupby("landmark"):
        ends = {model: _wide(table, model) for model in predictions.models}
        shared = set.intersection(*(set(wide.dropna().index) for wide in ends.values()))
        follow_up = table.groupby("id")[["time", "event"]].first()
        known = [name for name in follow_up.index if name in shared]
        if not known:
            continue
        time, event = follow_up.loc[known, "time"].to_numpy(float), follow_up.loc[known, "event"].to_numpy(bool)
        for model, wide in ends.items():
            risks, horizons = wide.loc[known].to_numpy(), wide.columns.to_numpy(float)
            if len(horizons) < 2:
                continue

            def figure(
                some: NDArray[np.intp],
                risks: NDArray[np.float64] = risks,
                at: float = float(str(landmark)),
                horizons: NDArray[np.float64] = horizons,
                time: NDArray[np.float64] = time,
                event: NDArray[np.bool_] = event,
            ) -> float:
                return integrated_brier(risks[some], time[some], event[some], horizons, at)

            rows.append((model, landmark, len(known), *resampled(figure, len(known), seed=seed)))
    return pd.DataFrame(rows, columns=["model", "landmark", "n", "value", "low", "high"])


def calibrations(predictions: Predictions, model: str, seed: int = 0) -> dict[tuple[float, float], Calibration]:
    """Hold one model's risks against what happened, by landmark and horizon."""
    return {
        key: calibration(
            own[model].to_numpy(), own["time"].to_numpy(float), own["event"].to_numpy(bool), key[1], key[0], seed=seed
        )
        for key, own in _comparable(predictions)
    }


def _comparable(predictions: Predictions) -> list[tuple[tuple[float, float], pd.DataFrame]]:
    """Subjects by landmark and horizon, of whom every model could tell a risk; mean over repeats."""
    keys = ["landmark", "horizon", "id"]
    columns = {"time": "first", "event": "first", **dict.fromkeys(predictions.models, "mean")}
    means = predictions.table.groupby(keys, sort=True).agg(columns).reset_index()
    known = means.dropna(subset=list(predictions.models))
    return [
        ((float(str(landmark)), float(str(horizon))), own.reset_index(drop=True))
        for (landmark, horizon), own in known.groupby(["landmark", "horizon"])
    ]


def _estimate(own: pd.DataFrame, model: str, landmark: float, horizon: float, score: str, seed: int) -> Estimate:
    return resampled(lambda some: _score(own, model, landmark, horizon, score, some), len(own), seed=seed)


def _score(own: pd.DataFrame, model: str, landmark: float, horizon: float, score: str, some: NDArray[np.intp]) -> float:
    risk, time, event = (own[name].to_numpy()[some] for name in (model, "time", "event"))
    figure = auc if score == "auc" else brier
    return figure(risk, time.astype(float), event.astype(bool), horizon, landmark)


def _events(own: pd.DataFrame, horizon: float) -> int:
    return int((own["event"].astype(bool) & (own["time"] <= horizon)).sum())


def _wide(table: pd.DataFrame, model: str) -> pd.DataFrame:
    return table.pivot_table(index="id", columns="horizon", values=model, aggfunc="mean", dropna=False)
