"""The probability of the event that a fitted Cox model gives, with limits that know both ratios and baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.recurrence.fitting import Z_95, CoxFit, cluster_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def baseline_hazard(fit: CoxFit, stratum: int = 0) -> tuple[Floats, Floats]:
    """Compute the hazard's increments for a subject with the mean of all covariates.

    Parameters
    ----------
    fit : CoxFit
    stratum : int
        Code of the stratum, a place in ``fit.strata``.

    Returns
    -------
    times, increments : ndarray of float64, shape (event times,)
        By Breslow's estimator, tied events as in the fit.
    """
    likelihood, at = fit.likelihood, fit.maximum
    own = likelihood.event_strata == stratum
    increments = likelihood.over_steps(at.hazard) * np.exp(-at.shift)
    return likelihood.event_times[own], increments[own]


def event_probability(fit: CoxFit, data: pd.DataFrame, after: float, until: float, stratum: int = 0) -> pd.DataFrame:
    """Predict the event in (after, until] for subjects free of it at `after`, whose covariates stay as they are.

    Limits are those of the log cumulative hazard, by the influence of each cluster (or row) on coefficients and
    baseline together (the infinitesimal jackknife), so they hold for weighted and stacked data too.

    Parameters
    ----------
    fit : CoxFit
    data : DataFrame
        With the columns of the formula.
    after, until : float
        On the clock of the fit.
    stratum : int
        Code of the stratum.

    Returns
    -------
    DataFrame
        `risk`, `low`, `high` (95 %), in the index of `data`; NaN where a covariate is missing. Limits are NaN
        where no event fell into the window, whose estimated risk is 0.
    """
    own = fit.likelihood.event_strata == stratum
    window = own & (fit.likelihood.event_times > after) & (fit.likelihood.event_times <= until)
    design = (fit.design.of(data) - fit.centre) / fit.scale
    cumulative = np.exp(design @ (fit.coefficients * fit.scale) - fit.maximum.shift)
    hazard, variance = _log_cumulative_hazard(fit, window, design)
    half = Z_95 * np.sqrt(variance)
    hazards = {"risk": cumulative * hazard}
    hazards |= {"low": hazards["risk"] * np.exp(-half), "high": hazards["risk"] * np.exp(half)}
    return pd.DataFrame({name: -np.expm1(-value) for name, value in hazards.items()}, index=data.index)


def _log_cumulative_hazard(fit: CoxFit, window: NDArray[np.bool_], design: Floats) -> tuple[float, Floats]:
    """Sum the baseline hazard over a window of event times, and give each row's variance of the log hazard sum."""
    likelihood, at = fit.likelihood, fit.maximum
    inside = window[likelihood.step_time]
    hazard = float(at.hazard[inside].sum())
    if hazard == 0:
        return 0.0, np.full(len(design), np.nan)
    each = inside * at.hazard / likelihood.step_weight
    own = -at.relative * likelihood.exposure(at, each)
    mean_each = likelihood.over_steps(each) / likelihood.deaths
    own[likelihood.dead] += likelihood.weights[likelihood.dead] * mean_each[likelihood.dead_time]
    ratios = likelihood.score_residuals(at) @ (fit.naive_covariance * np.outer(fit.scale, fit.scale))
    both = np.column_stack([own / hazard, ratios])
    if fit.clusters is not None:
        both = cluster_sums(both, fit.clusters)
    spread = both.T @ both
    mean = at.hazard[inside] @ at.step_means[inside] / hazard
    leaning = np.column_stack([np.ones(len(design)), design - mean])
    return hazard, np.einsum("ij,jk,ik->i", leaning, spread, leaning)
