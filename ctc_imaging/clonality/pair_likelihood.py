r"""How likely are the mutations that two samples share, and those they don't, if the samples are one clone?

The model is that of Ostrovnaya, Seshan and Begg (Ann Appl Stat 2015;9:1533-48). Two clonal samples had a share `xi` of
their mutations, the **clonality signal**, before they parted. A mutation that a fraction p of patients carry is

- in both samples with probability xi p + (1 - xi) p²,
- in the first only, or in the second only, with probability (1 - xi) p (1 - p) each,

and everything is conditional on its being seen in either. So a shared mutation has the likelihood
[xi p + (1 - xi) p²] / [xi p + (1 - xi)(2 p - p²)], a private one the rest to 1, and independent samples have xi = 0.
Each outcome's chance is linear in xi: (1 - xi) x its chance if the mutation arose independently in the two, plus
xi x its chance if it arose once, before they parted. That holds with errors of single cells too, where more outcomes
than two are told apart; `PairEvidence` keeps the two chances of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from ctc_imaging.errors import StatisticsError

SIGNALS = np.concatenate([[0.0], -np.expm1(-np.exp(np.linspace(-8.0, 2.5, 106)))])
"""Clonality signals to look at, from 0 on, evenly spaced on the scale log(-log(1 - xi))."""

_TINY = np.finfo(float).tiny


@dataclass(frozen=True)
class PairEvidence:
    """What two samples show of each mutation seen in either, and the chances it had.

    Attributes
    ----------
    independent, same : float ndarray, shape (n_mutations, n_outcomes)
        Chance of each outcome with something seen, if the mutation arose independently in the two samples, and if it
        arose once, before they parted. Rows needn't sum to 1: the rest is the chance of nothing seen.
    outcome : int64 ndarray, shape (n_mutations,)
        The column that came about.
    """

    independent: np.ndarray
    same: np.ndarray
    outcome: np.ndarray

    def __len__(self) -> int:
        return len(self.outcome)

    def chances(self, xi: float) -> np.ndarray:
        """Return the chance of each outcome given that something was seen, shape (n_mutations, n_outcomes)."""
        mixed = (1 - xi) * self.independent + xi * self.same
        return np.asarray(mixed / mixed.sum(axis=1, keepdims=True))


class LikelihoodRatio(NamedTuple):
    """Natural log of the likelihood ratio of clonal to independent, and the clonality signal that maximises it."""

    log_ratio: float
    signal: float


def without_errors(shared: np.ndarray, private: np.ndarray) -> PairEvidence:
    """Set up the evidence of two samples whose calls are taken at their word.

    Parameters
    ----------
    shared, private : float ndarray, shapes (n_shared,) and (n_private,)
        Marginal frequencies of the mutations in both samples, and of those in one.

    Raises
    ------
    StatisticsError
        A frequency isn't above 0 and below 1.
    """
    p = np.concatenate([np.asarray(shared, float), np.asarray(private, float)])
    if not ((p > 0) & (p < 1)).all():
        raise StatisticsError("frequencies", "one isn't above 0 and below 1", "give (carriers + 1) / (patients + 1)")
    outcome = np.repeat([0, 1], [len(shared), len(private)])
    return PairEvidence(
        np.column_stack([p**2, 2 * p * (1 - p)]), np.column_stack([p, np.zeros_like(p)]), outcome.astype(np.int64)
    )


def log_likelihood(evidence: PairEvidence, signals: np.ndarray) -> np.ndarray:
    """Log likelihood of the mutations seen, at each clonality signal.

    Parameters
    ----------
    evidence : PairEvidence
    signals : float ndarray, shape (n_signals,)
        In [0, 1].

    Returns
    -------
    float ndarray, shape (n_signals,)
    """
    rows = np.arange(len(evidence))
    seen = evidence.independent[rows, evidence.outcome], evidence.same[rows, evidence.outcome]
    anything = evidence.independent.sum(axis=1), evidence.same.sum(axis=1)
    total = np.zeros(len(signals))
    for k, xi in enumerate(signals):
        chance, of = ((1 - xi) * u + xi * v for u, v in (seen, anything))
        total[k] = np.sum(np.log(np.maximum(chance, _TINY)) - np.log(of))
    return total


def likelihood_ratio(evidence: PairEvidence) -> LikelihoodRatio:
    """Maximise the likelihood over the clonality signal and compare it with that of independent samples.

    Returns
    -------
    LikelihoodRatio
        0 at signal 0 where nothing speaks for a common origin, or nothing was seen.
    """
    ratios = log_likelihood(evidence, SIGNALS)
    ratios -= ratios[0]
    best = int(np.argmax(ratios))
    if len(evidence) == 0 or best == 0:
        return LikelihoodRatio(0.0, 0.0)
    found = minimize_scalar(
        lambda xi: -log_likelihood(evidence, np.array([xi]))[0],
        bounds=(SIGNALS[best - 1], SIGNALS[best + 1] if best + 1 < len(SIGNALS) else 1.0),
        method="bounded",
        options={"xatol": 1e-9},
    )
    at_zero = log_likelihood(evidence, np.zeros(1))[0]
    polished = float(-found.fun - at_zero)
    if polished > ratios[best]:
        return LikelihoodRatio(polished, float(found.x))
    return LikelihoodRatio(float(ratios[best]), float(SIGNALS[best]))
