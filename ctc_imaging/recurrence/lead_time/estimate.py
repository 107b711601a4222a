"""The mean lead of CTC positivity over imaging, corrected for both visit grids, with limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.lead_time.distributions import LEADS, log_days
from ctc_imaging.recurrence.lead_time.likelihood import (
    FALSE,
    LOG_SCALE,
    LOG_SHAPE,
    SEEN,
    SHARE,
    SINCE_SURGERY,
    exposures,
    lay_out,
)
from ctc_imaging.recurrence.lead_time.observations import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.lead_time.distributions import Shape
    from ctc_imaging.recurrence.lead_time.likelihood import Likelihood
    from ctc_imaging.recurrence.lead_time.observations import Observations

    Floats = NDArray[np.float64]

HORIZON_DAYS = 730.0
FEWEST_RELAPSES = 10
_RELAPSES_PER_RATE = 15
_MOST_RATES = 4
_Z_95 = 1.959963984540054
_STEP = 1e-4
_SLOPE_LEFT = 0.05
_GRID = 731
# Half a sample or relapser of either kind is added, which keeps shares of 0 and 1 finite.
_PSEUDO = 0.5
# Where the grids are too sparse to tell the lead's shape it is held near this, softly: normal on the log scale.
_SHAPE_CENTRE, _SHAPE_SD = np.log(1.4), 0.5


@dataclass(frozen=True)
class Limited:
    """An estimate with its 95 % limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LeadTime:
    """The lead of positivity over imaging.

    Parameters
    ----------
    mean_days, median_days : Limited
        Of the time from the onset of positivity, or from surgery where that is later, to the day imaging could first
        have seen the relapse, among relapses by `horizon_days` that positivity precedes.
    never_positive : Limited
        Share of relapses that positivity doesn't precede.
    since_surgery : Limited
        Of the others, the share that is positive from surgery on whatever their lead (residual disease).
    false_positive, true_positive : Limited
        Chance of a sample to be positive before the onset (or without one) and after it.
    patients, relapses : int
    horizon_days : float
    converged : bool
    parameters : ndarray of float64
        As `Likelihood.by_patient` takes them.
    knots : ndarray of float64
        Days at which the hazard of relapse changes.
    shape : str
        Shape of the lead's distribution.
    log_likelihood : float
    """

    mean_days: Limited
    median_days: Limited
    never_positive: Limited
    since_surgery: Limited
    false_positive: Limited
    true_positive: Limited
    patients: int
    relapses: int
    horizon_days: float
    converged: bool
    parameters: Floats
    knots: Floats
    shape: str
    log_likelihood: float


def estimate_lead_time(
    observed: Observations, horizon_days: float = HORIZON_DAYS, shape: Shape = "weibull"
) -> LeadTime:
    """Estimate the lead by maximum likelihood, softly penalised.

    Parameters
    ----------
    observed : Observations
    horizon_days : float
        Relapses by this day since surgery are meant.
    shape : {"weibull", "lognormal"}
        Of the lead's distribution.

    Returns
    -------
    LeadTime

    Raises
    ------
    StatisticsError
        If there are fewer than 10 relapses, or none of them was preceded by a positive sample.
    """
    _check(observed)
    likelihood = lay_out(observed, _knots(observed), LEADS[shape])
    theta, converged = _climb(likelihood, _start(likelihood, observed))
    spreads = _covariances(likelihood, theta)
    at = likelihood.rates

    def days(place: int) -> Limited:
        return _limits(lambda values: _summary(likelihood, values, horizon_days)[place], theta, spreads)

    turning, since, false, seen = (
        _share_limits(theta, at + place, spreads) for place in (SHARE, SINCE_SURGERY, FALSE, SEEN)
    )
    return LeadTime(
        mean_days=days(0),
        median_days=days(1),
        never_positive=Limited(1 - turning.value, 1 - turning.high, 1 - turning.low),
        since_surgery=since,
        false_positive=false,
        true_positive=seen,
        patients=len(observed.patients),
        relapses=int(observed.relapsed.sum()),
        horizon_days=horizon_days,
        converged=converged,
        parameters=theta,
        knots=likelihood.knots,
        shape=shape,
        log_likelihood=likelihood.value_and_gradient(theta)[0],
    )


def lead_survival(likelihood: Likelihood, parameters: Floats, horizon_days: float) -> tuple[Floats, Floats]:
    """Share of leads longer than so many days, among relapses by the horizon that positivity precedes.

    The lead min(L, R) exceeds x if L does and relapse comes after x, so it is (1 - (1 - s) G(x)) (F(h) - F(x)) / F(h)
    where a share s is positive since surgery.
    """
    days = np.linspace(0.0, horizon_days, _GRID)
    rates = np.exp(parameters[: likelihood.rates])
    free = np.exp(-exposures(days, likelihood.knots) @ rates)
    own = parameters[likelihood.rates :]
    early = likelihood.lead.cdf_and_slopes(log_days(days), own[LOG_SCALE], own[LOG_SHAPE])[0]
    longer = 1 - early * (1 - expit(own[SINCE_SURGERY]))
    return days, longer * (free - free[-1]) / (1 - free[-1])


def _summary(likelihood: Likelihood, parameters: Floats, horizon_days: float) -> tuple[float, float]:
    days, longer = lead_survival(likelihood, parameters, horizon_days)
    return float(np.trapezoid(longer, days)), float(np.interp(-0.5, -longer, days))


def _check(observed: Observations) -> None:
    relapses = int(observed.relapsed.sum())
    if relapses < FEWEST_RELAPSES:
        fault = f"{relapses} relapse(s) with a sample before them; {FEWEST_RELAPSES} are the least"
        raise StatisticsError(MODEL, fault, "follow more patients for longer")
    if not observed.positive[observed.relapsed].any():
        raise StatisticsError(MODEL, "no relapse was preceded by a positive sample", "there is no lead to measure")


def _knots(observed: Observations) -> Floats:
    """Cut follow-up where equal shares of the relapses lie."""
    relapsed = observed.relapsed
    middle = (observed.left[relapsed] + observed.right[relapsed]) / 2
    pieces = int(np.clip(len(middle) // _RELAPSES_PER_RATE, 1, _MOST_RATES))
    return np.unique(np.quantile(middle, np.arange(1, pieces) / pieces))


def _start(likelihood: Likelihood, observed: Observations) -> Floats:
    ends = np.where(
        observed.relapsed, (observed.left + np.where(observed.relapsed, observed.right, 0)) / 2, observed.left
    )
    rate = observed.relapsed.sum() / ends.sum()
    return np.array([*[np.log(rate)] * likelihood.rates, 0.5, -1.0, -3.0, 1.5, np.log(150.0), _SHAPE_CENTRE])


def _negative(likelihood: Likelihood, theta: Floats) -> tuple[float, Floats]:
    """Penalised negative log-likelihood and its gradient."""
    value, gradient = likelihood.value_and_gradient(theta)
    gradient = gradient.copy()
    at = likelihood.rates
    for place in (SHARE, SINCE_SURGERY, FALSE, SEEN):
        share = expit(theta[at + place])
        value += _PSEUDO * (np.log(share) + np.log1p(-share))
        gradient[at + place] += _PSEUDO * (1 - 2 * share)
    away = (theta[at + LOG_SHAPE] - _SHAPE_CENTRE) / _SHAPE_SD
    value -= away**2 / 2
    gradient[at + LOG_SHAPE] -= away / _SHAPE_SD
    return -value, -gradient


def _climb(likelihood: Likelihood, start: Floats) -> tuple[Floats, bool]:
    best = minimize(
        lambda theta: _negative(likelihood, theta),
        start,
        jac=True,
        method="BFGS",
        options={"gtol": 1e-3, "maxiter": 300},
    )
    return np.asarray(best.x), bool(np.abs(best.jac).max() < _SLOPE_LEFT)


def _covariances(likelihood: Likelihood, theta: Floats) -> tuple[Floats, Floats]:
    """Covariance of the parameters if the model holds, and one that allows for a lead of another shape (sandwich)."""
    rows = [
        (_negative(likelihood, theta + step)[1] - _negative(likelihood, theta - step)[1]) / (2 * _STEP)
        for step in np.eye(len(theta)) * _STEP
    ]
    inverse = np.asarray(np.linalg.pinv((np.array(rows) + np.array(rows).T) / 2, hermitian=True), dtype=np.float64)
    scores = likelihood.by_patient(theta)[1]
    return inverse, inverse @ (scores @ scores.T) @ inverse


def _limits(measure: Callable[[Floats], float], theta: Floats, spreads: tuple[Floats, Floats]) -> Limited:
    """Delta-method limits by the larger of the two standard errors; days below 0 are cut off."""
    value = measure(theta)
    slope = np.array(
        [(measure(theta + step) - measure(theta - step)) / (2 * _STEP) for step in np.eye(len(theta)) * _STEP]
    )
    half = _Z_95 * np.sqrt(max(0.0, *(slope @ spread @ slope for spread in spreads)))
    return Limited(value, float(max(value - half, 0.0)), float(value + half))


def _share_limits(theta: Floats, place: int, spreads: tuple[Floats, Floats]) -> Limited:
    half = _Z_95 * np.sqrt(max(0.0, *(spread[place, place] for spread in spreads)))
    return Limited(*(float(expit(theta[place] + away)) for away in (0.0, -half, half)))
