"""From a network's outputs on held-out slides to probabilities and thresholds fit for rare cells."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.model import Calibration, Thresholds

PREVALENCE = (0.005, 0.955, 0.04)
"""Shares of CTCs, leukocytes and artefacts at which probabilities are calibrated: CTCs are rare."""

PER = 100_000
FALSE_ALLOWED = 1.0
"""False CTCs per 100,000 leukocytes aimed at."""

LEAST_CTC = 0.5
"""A CTC must be likelier than not, also where held-out slides happen to hold nothing that looks like one."""

DOUBTFUL_ALLOWED = 100.0
"""At most this many leukocytes and artefacts per 100,000 leukocytes go to a person for a doubt."""

LEAST_DOUBT = 0.01
"""A calibrated p of less isn't worth a person's time."""

CLEAR = 0.6


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
    return Calibration(round(temperature, 6), (round(float(bias[0]), 6), round(float(bias[1]), 6), 0.0))


def choose_thresholds(p_ctc: np.ndarray, target: np.ndarray, leukocytes: int) -> Thresholds:
    """Choose the lowest thresholds that let no more false calls pass than is allowed.

    Parameters
    ----------
    p_ctc : ndarray of float64, shape (n,)
        Of all segmented cells of held-out slides.
    target : ndarray of int, shape (n,)
    leukocytes : int
        True number on the slides, segmented or not.
    """
    false = np.sort(p_ctc[target != CLASSES.index("ctc")])[::-1]
    ctc = max(threshold_for(false, FALSE_ALLOWED, leukocytes), LEAST_CTC)
    doubtful = min(max(threshold_for(false, DOUBTFUL_ALLOWED, leukocytes), LEAST_DOUBT), ctc)
    return Thresholds(ctc=round(ctc, 6), doubtful=round(doubtful, 6), clear=CLEAR)


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
