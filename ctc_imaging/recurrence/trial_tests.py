"""Tests of two arms in many simulated trials at once; a statistic is standard normal where there is no difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Trials:
    """Trials by patients: follow-up, whether it ended with the event, and the arm."""

    time: Floats
    event: Bools
    treated: Bools


def log_rank(trials: Trials, strata: Sequence[Bools], horizon: float) -> Floats:
    """Log-rank test, stratified (Mantel 1966).

    Parameters
    ----------
    trials : Trials
        Of shape (m, n), without tied times.
    strata : sequence of ndarray of bool, shape (m, n)
        Who is in each; who is in none is left out.
    horizon : float
        Not used: the test takes all of the follow-up.

    Returns
    -------
    ndarray of float64, shape (m,)
        Negative where the treated do better; 0 where nothing can be said.
    """
    parts = [_score(trials, members) for members in strata]
    score, information = (np.sum([part[place] for part in parts], axis=0) for place in (0, 1))
    return _ratio(score, np.sqrt(information))


def survival_at_horizon(trials: Trials, strata: Sequence[Bools], horizon: float) -> Floats:
    """Compare survival at one time on the scale log(-log) (Klein et al., Stat Med 2007;26:4505-19).

    Strata are joined by the inverse of their variances. See `log_rank` for parameters and the result.
    """
    differences, variances = [], []
    for members in strata:
        arms = [_log_log(trials, members & (trials.treated == arm), horizon) for arm in (True, False)]
        differences.append(arms[0][0] - arms[1][0])
        variances.append(arms[0][1] + arms[1][1])
    usable = [np.isfinite(d) & np.isfinite(v) & (v > 0) for d, v in zip(differences, variances, strict=True)]
    weights = [np.where(ok, 1 / np.where(ok, v, 1.0), 0.0) for ok, v in zip(usable, variances, strict=True)]
    total = np.sum(weights, axis=0)
    summed = np.sum([w * np.where(ok, d, 0.0) for w, ok, d in zip(weights, usable, differences, strict=True)], axis=0)
    return _ratio(summed, np.sqrt(total))


def interaction_test(trials: Trials, positive: Bools) -> Floats:
    """Compare the treatment's log hazard ratio in marker-positive and -negative patients (Wald).

    Parameters
    ----------
    trials : Trials
    positive : ndarray of bool, shape (m, n)

    Returns
    -------
    ndarray of float64, shape (m,)
        Negative where the positive gain more; 0 where a hazard ratio can't be estimated.
    """
    estimates = [_log_hazard_ratio(trials, members) for members in (positive, ~positive)]
    spread = np.sqrt(np.sum([variance for _, variance in estimates], axis=0))
    return _ratio(estimates[0][0] - estimates[1][0], spread)


TESTS: dict[str, Callable[[Trials, Sequence[Bools], float], Floats]] = {
    "log-rank": log_rank,
    "rfs": survival_at_horizon,
}


def _score(trials: Trials, members: Bools, log_ratio: Floats | float = 0.0) -> tuple[Floats, Floats]:
    """Observed less expected events of the treated, and the variance, at a log hazard ratio of each trial."""
    event, treated, at_risk, at_risk_treated = _risk_sets(trials, members)
    relative = at_risk_treated * np.exp(np.asarray(log_ratio))[..., None]
    everyone = relative + (at_risk - at_risk_treated)
    share = np.divide(relative, everyone, out=np.zeros_like(relative), where=everyone > 0)
    return (event * (treated - share)).sum(axis=1), (event * share * (1 - share)).sum(axis=1)


def _log_hazard_ratio(trials: Trials, members: Bools) -> tuple[Floats, Floats]:
    """Cox's estimate by Newton's method, and its variance; NaN where an arm has no event."""
    value = np.zeros(len(trials.time))
    for _ in range(6):
        score, information = _score(trials, members, value)
        value = value + np.clip(_ratio(score, information), -1.0, 1.0)
    score, information = _score(trials, members, value)
    known = (information > 0) & (np.abs(score) < 1e-3 * np.sqrt(np.maximum(information, 1e-12)))
    return np.where(known, value, np.nan), np.where(known, 1 / np.where(known, information, 1.0), np.nan)


def _risk_sets(trials: Trials, members: Bools) -> tuple[Bools, Bools, Floats, Floats]:
    """Sort by time, and count who is at risk at each."""
    order = np.argsort(trials.time, axis=1)
    inside, event, treated = (
        np.take_along_axis(values, order, axis=1) for values in (members, trials.event, trials.treated)
    )
    at_risk, at_risk_treated = (
        flags[:, ::-1].cumsum(axis=1)[:, ::-1].astype(float) for flags in (inside, inside & treated)
    )
    return event & inside, treated, at_risk, at_risk_treated


def _log_log(trials: Trials, members: Bools, horizon: float) -> tuple[Floats, Floats]:
    """Log of minus the log of survival at the horizon, and its variance (Greenwood); NaN at survival 0 and 1."""
    event, _, at_risk, _ = _risk_sets(trials, members)
    counted = event & (np.sort(trials.time, axis=1) <= horizon)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_survival = np.where(counted, np.log1p(-1 / at_risk), 0.0).sum(axis=1)
        greenwood = np.where(counted, 1 / (at_risk * (at_risk - 1)), 0.0).sum(axis=1)
        known = (log_survival < 0) & np.isfinite(log_survival)
        return (
            np.where(known, np.log(-log_survival), np.nan),
            np.where(known, greenwood / log_survival**2, np.nan),
        )


def _ratio(above: Floats, below: Floats) -> Floats:
    usable = np.isfinite(above) & np.isfinite(below) & (below > 0)
    return np.divide(above, below, out=np.zeros_like(np.asarray(above, dtype=float)), where=usable)
