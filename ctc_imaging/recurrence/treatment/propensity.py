"""Who was treated, by what was known before: weights that make treated and untreated alike, and how alike they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

Population = Literal["overlap", "whole"]
# Enough to keep coefficients finite where a covariate tells the treatment completely, too little to be seen elsewhere.
RIDGE = 1e-3
TRUNCATED_SHARE = 0.01
# Austin and Stuart, Stat Med 2015;34:3661-79: below this, a difference is held to be of no importance.
LARGEST_DIFFERENCE = 0.1
# Outside these, next to nobody with the same covariates had the other treatment.
POSITIVITY = (0.05, 0.95)
_STEPS = 60
_DECREMENT = 1e-10
_ROUNDING = 1e-12


def logistic_probability(design: Floats, outcome: Bools, frequency: Floats) -> Floats:
    """Fit a logistic regression, and return each row's fitted probability.

    Parameters
    ----------
    design : ndarray of float64, shape (n, k)
        Without a column for the intercept.
    outcome : ndarray of bool, shape (n,)
    frequency : ndarray of float64, shape (n,)
        How often each row counts.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    terms = np.column_stack([np.ones(len(outcome)), _standardised(design)])
    penalty = RIDGE * np.diag([0.0, *np.ones(design.shape[1])])
    share = float(frequency @ outcome / frequency.sum()) if frequency.any() else 0.0
    if share in (0.0, 1.0):
        return np.full(len(outcome), share)
    coefficients = np.append(np.log(share / (1 - share)), np.zeros(design.shape[1]))
    value = _penalised(coefficients, terms, outcome, frequency, penalty)
    for _ in range(_STEPS):
        fitted = _expit(terms @ coefficients)
        score = terms.T @ (frequency * (outcome - fitted)) - penalty @ coefficients
        information = (terms * (frequency * fitted * (1 - fitted))[:, None]).T @ terms + penalty
        step = np.linalg.lstsq(information, score, rcond=None)[0]
        if score @ step < _DECREMENT:
            break
        # Full steps may overshoot where a covariate all but tells the treatment.
        while (climbed := _penalised(coefficients + step, terms, outcome, frequency, penalty)) < value - abs(
            value
        ) * _ROUNDING:
            step = step / 2
        coefficients, value = coefficients + step, climbed
    return _expit(terms @ coefficients)


def by_group(design: Floats, outcome: Bools, frequency: Floats, group: NDArray[np.intp]) -> Floats:
    """Fit `logistic_probability` in each group apart.

    With weights for the overlap this balances the covariates' means within each group (Yang et al., Stat Med
    2021;40:4294-309).
    """
    probability = np.empty(len(outcome))
    for label in np.unique(group):
        rows = group == label
        probability[rows] = logistic_probability(design[rows], outcome[rows], frequency[rows])
    return probability


def balancing_weights(probability: Floats, treated: Bools, population: Population, frequency: Floats) -> Floats:
    """Weigh treated and untreated so that their covariates are alike.

    Parameters
    ----------
    probability : ndarray of float64, shape (n,)
        Of being treated.
    treated : ndarray of bool, shape (n,)
    population : {'overlap', 'whole'}
        Whose effect is asked for: of patients who might as well have had the other treatment (overlap weights; Li,
        Morgan and Zaslavsky, J Am Stat Assoc 2018;113:390-400), or of all (stabilised inverse probabilities,
        truncated at their 1st and 99th centile; Cole and Hernan, Am J Epidemiol 2008;168:656-64).
    frequency : ndarray of float64, shape (n,)
        How often each row counts.

    Returns
    -------
    ndarray of float64, shape (n,)
        0 or more.
    """
    if population == "overlap":
        return np.where(treated, 1 - probability, probability)
    share = np.average(treated, weights=frequency)
    of_own = np.where(treated, probability, 1 - probability)
    return truncated(np.where(treated, share, 1 - share) / np.maximum(of_own, 1e-12))


def truncated(weights: Floats) -> Floats:
    """Hold weights between their 1st and their 99th centile."""
    return np.clip(weights, *np.quantile(weights, [TRUNCATED_SHARE, 1 - TRUNCATED_SHARE]))


def effective_sample_size(weights: Floats) -> float:
    """Say how many patients of equal weight carry as much (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum()) if weights.any() else 0.0


def balance(covariates: pd.DataFrame, treated: Bools, weights: Floats) -> pd.DataFrame:
    """Compare treated and untreated by standardised differences.

    Parameters
    ----------
    covariates : DataFrame of float64
        One row a patient.
    treated : ndarray of bool, shape (n,)
    weights : ndarray of float64, shape (n,)

    Returns
    -------
    DataFrame
        `covariate`, `before`, `after`: differences of means in standard deviations, unweighted and weighted; the
        deviation is that of both groups before weighting (Austin, Stat Med 2009;28:3083-107).
    """
    values = covariates.to_numpy(dtype=float)
    spread = np.sqrt((values[treated].var(axis=0, ddof=1) + values[~treated].var(axis=0, ddof=1)) / 2)
    before, after = (_difference(values, treated, given) for given in (np.ones(len(values)), weights))
    spread = np.where(spread > 0, spread, np.nan)
    return pd.DataFrame({"covariate": list(covariates), "before": before / spread, "after": after / spread})


def positivity_warnings(probability: Floats, where: str = "") -> list[str]:
    """Say how many patients had all but no chance of the one or the other treatment."""
    low, high = (probability < POSITIVITY[0]), (probability > POSITIVITY[1])
    return [
        f"{int(outside.sum())} of {len(outside)} patients{where} were all but certain to be {fate} (probability of "
        f"treatment {sign} {limit:g}): nobody like them tells what the other choice does."
        for outside, fate, sign, limit in (
            (low, "left untreated", "below", POSITIVITY[0]),
            (high, "treated", "above", POSITIVITY[1]),
        )
        if outside.any()
    ]


def _difference(values: Floats, treated: Bools, weights: Floats) -> Floats:
    means = [np.average(values[rows], axis=0, weights=weights[rows]) for rows in (treated, ~treated)]
    return means[0] - means[1]


def _standardised(design: Floats) -> Floats:
    spread = design.std(axis=0)
    return (design - design.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _penalised(coefficients: Floats, terms: Floats, outcome: Bools, frequency: Floats, penalty: Floats) -> float:
    predictor = terms @ coefficients
    fits = frequency @ (np.where(outcome, predictor, 0.0) - np.logaddexp(0.0, predictor))
    return float(fits - coefficients @ penalty @ coefficients / 2)


def _expit(values: Floats) -> Floats:
    return np.exp(-np.logaddexp(0.0, -values))
