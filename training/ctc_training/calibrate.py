"""From a network's outputs on held-out slides to probabilities, prediction sets and thresholds fit for rare cells."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.model import Calibration
from ctc_imaging.classification.rarity import RARE, threshold_at
from ctc_imaging.positivity import POSITIVE_SNR, PositivityScale

PREVALENCE = (0.005, 0.955, 0.04)
"""Shares of CTCs, leukocytes and artefacts at which probabilities are calibrated: CTCs are rare."""

PER = 100_000
FALSE_ALLOWED = 1.0
"""False CTCs per 100,000 leukocytes allowed on the slides of calibration."""

COVERAGE = 0.99
"""Share of the cells of each class that its prediction set shall hold."""


def fit_calibration(logits: np.ndarray, target: np.ndarray) -> Calibration:
    """Fit temperature and bias on held-out crops, weighted to the prevalence in use.

    Bias-corrected temperature scaling by maximum likelihood (Alexandari 2020, ICML 119:222).

    Parameters
    ----------
    logits : ndarray, shape (n, 3)
    target : ndarray of int, shape (n,)
        Every class must occur.
    """
    share = np.bincount(target, minlength=len(CLASSES)) / len(target)
    weights = (np.array(PREVALENCE) / share)[target]

    def loss(parameters: np.ndarray) -> float:
        scaled = logits * np.exp(-parameters[0]) + np.append(parameters[1:], 0)
        chosen = log_softmax(scaled, axis=1)[np.arange(len(target)), target]
        return float(-(weights * chosen).sum() / weights.sum())

    start = np.append(0, np.log(PREVALENCE[:2]) - np.log(PREVALENCE[2]))
    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-4, "fatol": 1e-9})
    temperature, bias = float(np.exp(found.x[0])), np.append(found.x[1:], 0)
    return Calibration(round(temperature, 6), (round(float(bias[0]), 6), round(float(bias[1]), 6), 0.0), PREVALENCE)


def fit_positivity(logit: np.ndarray, snr: np.ndarray) -> PositivityScale:
    """Fit the chance that a marker is positive, by logistic regression on the CTCs of held-out slides.

    Parameters
    ----------
    logit : ndarray, shape (n,)
        Of the network.
    snr : ndarray, shape (n,)
        True signal-to-noise; cells where it isn't known are left out.
    """
    known = ~np.isnan(snr)
    features = np.stack([logit[known], np.ones(known.sum())], axis=1).astype(np.float64)
    sign = np.where(snr[known] >= POSITIVE_SNR, 1.0, -1.0)
    # A little ridge: where the logits part the cells perfectly there is no largest likelihood.
    ridge = np.array([1e-3, 0.0])

    def loss(weights: np.ndarray) -> float:
        return float(np.logaddexp(0, -sign * (features @ weights)).mean() + ridge @ weights**2)

    network, bias = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x.tolist()
    return PositivityScale(round(network, 6), round(bias, 6))


def conformal_sets(p: np.ndarray, target: np.ndarray, coverage: float = COVERAGE) -> tuple[float, float, float]:
    """Choose from which probability on a class belongs to a cell's prediction set.

    Class-conditional (Mondrian) conformal prediction by crepes (Boström 2024, PMLR 230:236): of new cells of each
    class from slides like these, at least `coverage` have the class in their set.

    Parameters
    ----------
    p : ndarray of float64, shape (n, 3)
        Balanced probabilities of held-out cells.
    target : ndarray of int, shape (n,)
    coverage : float
    """
    ctc, leukocyte, artefact = (_least_p(p[target == index, index], coverage) for index in range(len(CLASSES)))
    return ctc, leukocyte, artefact


def _least_p(p: np.ndarray, coverage: float) -> float:
    """Return the least probability of a class's own cells that crepes doesn't reject; 0 of too few cells to reject."""
    from crepes import ConformalClassifier

    candidates = np.unique(p)
    if not len(candidates):
        return 0.0
    fitted = ConformalClassifier()
    fitted.fit(1 - p)
    kept = fitted.predict_p((1 - candidates)[:, None], smoothing=False)[:, 0] > 1 - coverage
    # Below the least of few cells nothing is known that would speak against a class.
    if kept.all():
        return 0.0
    return round(float(candidates[kept][0]) - 5e-7, 6)


def ctc_threshold(p_ctc: np.ndarray, target: np.ndarray, leukocytes: int) -> float:
    """Choose from which p_ctc on a cell is called a CTC.

    It must be likelier than not at the prevalence `RARE`, and held-out slides must not give more false calls than
    `FALSE_ALLOWED`.

    Parameters
    ----------
    p_ctc : ndarray of float64, shape (n,)
        At `PREVALENCE`, of all segmented cells of held-out slides.
    target : ndarray of int, shape (n,)
    leukocytes : int
        True number on the slides, segmented or not.
    """
    false = np.sort(p_ctc[target != CLASSES.index("ctc")])[::-1]
    return round(max(threshold_for(false, FALSE_ALLOWED, leukocytes), threshold_at(PREVALENCE, RARE)), 6)


def threshold_for(false: np.ndarray, allowed: float, leukocytes: int) -> float:
    """Lowest threshold at which at most `allowed` false calls per 100,000 leukocytes remain.

    Parameters
    ----------
    false : ndarray of float64, shape (n,)
        Probabilities of the cells that aren't CTCs, falling.
    allowed : float
    leukocytes : int
    """
    count = int(allowed * leukocytes / PER)
    if count >= len(false):
        return 0.0
    return min(float(false[count]) + 1e-6, 1.0)
