"""Climbing a log-likelihood to its top: damped steps by the scores' own spread, then Newton's, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Log-likelihood by subject and scores (n, p), of parameters.
Evaluate = Callable[["NDArray[np.float64]"], "tuple[NDArray[np.float64], NDArray[np.float64]]"]

_ROUGH_STEPS, _NEWTON_STEPS = 60, 25
# What a further step would gain, in units of log-likelihood: rough steps end at the first, Newton's at the second.
_NEAR, _THERE = 0.3, 1e-8
# Below this a step that doesn't rise says that numbers end, sooner than that it was too long.
_HARDLY_ANYTHING, _HALVINGS, _FEW_HALVINGS = 1e-5, 12, 2
_LARGEST_DAMPING = 1e8
_STEP_OF_ERROR = 3e-4
# Least curvature along a direction, as a part of the parameters' own: the Hessian's differences are no finer.
_FLAT, _TELLING = 1e-6, 0.3


@dataclass(frozen=True)
class Top:
    """Where the climb ended.

    `information` is minus the Hessian of the log-likelihood; `at_bound` marks parameters that lie on a bound and
    push against it; `fault` is empty where the climb converged.
    """

    theta: NDArray[np.float64]
    log_likelihood: float
    scores: NDArray[np.float64]
    information: NDArray[np.float64]
    at_bound: NDArray[np.bool_]
    fault: str

    @cached_property
    def flat(self) -> NDArray[np.intp]:
        """Parameters that can be moved together without the likelihood falling: none where it curves down."""
        free = np.flatnonzero(~self.at_bound)
        information = self.information[np.ix_(free, free)]
        size = np.abs(np.diag(information))
        scale = np.sqrt(np.where(size > 0, size, 1.0))
        values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
        if len(free) == 0 or values[0] > _FLAT:
            return np.empty(0, np.intp)
        return free[np.abs(vectors[:, 0]) > _TELLING * np.abs(vectors[:, 0]).max()]


def climb_roughly(
    evaluate: Evaluate, start: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Come near the top, by Levenberg-Marquardt steps with the outer product of scores for the information.

    Berndt, Hall, Hall and Hausman, Ann Econ Soc Meas 1974;3:653-65.

    Parameters
    ----------
    evaluate : callable
        The log-likelihood, of few quadrature points.
    start, low, high : ndarray of float64, shape (p,)
        Where to start, and the bounds.

    Returns
    -------
    ndarray of float64, shape (p,)
    """
    theta = np.clip(start, low, high)
    log, scores = evaluate(theta)
    value, damping = log.sum(), 1e-2
    for _ in range(_ROUGH_STEPS):
        gradient, outer = scores.sum(axis=0), scores.T @ scores
        free = ~_pushing(theta, gradient, low, high)
        scale = np.diag(outer) + 1e-8 * max(np.diag(outer).max(), 1e-300)
        while damping < _LARGEST_DAMPING:
            step = _solve(outer + damping * np.diag(scale), gradient, free)
            trial = np.clip(theta + step, low, high)
            trial_log, trial_scores = evaluate(trial)
            if trial_log.sum() > value:
                break
            damping *= 8
        else:
            return theta
        gain, value = trial_log.sum() - value, trial_log.sum()
        theta, scores, damping = trial, trial_scores, max(damping / 6, 1e-6)
        if gain < _NEAR:
            return theta
    return theta


def climb(
    evaluate: Evaluate,
    theta: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    information: NDArray[np.float64] | None = None,
) -> Top:
    """Climb to the top from nearby, by Newton steps that are halved where they go too far.

    Parameters
    ----------
    evaluate : callable
        The log-likelihood, of enough quadrature points.
    theta, low, high : ndarray of float64, shape (p,)
        Where to start, and the bounds.
    information : ndarray of float64, shape (p, p), optional
        About what it is there, if known from a likelihood that is much the same.

    Returns
    -------
    Top
    """
    log, scores = evaluate(theta)
    value, gradient = float(log.sum()), scores.sum(axis=0)
    fresh = information is None
    information = _information(evaluate, theta, scores) if information is None else information
    if not np.isfinite(value) or not np.isfinite(information).all():
        nothing = np.zeros_like(information)
        return Top(theta, value, scores, nothing, np.zeros(len(theta), bool), "it has no end where the climb began")
    fault = f"it still rises after {_NEWTON_STEPS} Newton steps"
    left = np.inf
    for _ in range(_NEWTON_STEPS):
        free = ~_pushing(theta, gradient, low, high)
        step = _solve(_made_positive(information, free), gradient, free)
        before, left = left, float(step @ gradient)
        if left < _THERE:
            fault = ""
            break
        tries = _HALVINGS if left > _HARDLY_ANYTHING else _FEW_HALVINGS
        trial, trial_log, trial_scores = _halved(evaluate, theta, step, value, low, high, tries)
        if trial_log is None:
            # No step rises any further: numbers end here, which is the top if hardly anything was left to gain.
            fault = "" if left < _HARDLY_ANYTHING else "no step raises it any further"
            break
        theta, scores, value, fresh = trial, trial_scores, float(trial_log.sum()), False
        gradient = scores.sum(axis=0)
        # An old Hessian serves while each step gains ten times less than the one before.
        if left > 0.1 * before:
            information, fresh = _information(evaluate, theta, scores), True
    information = information if fresh else _information(evaluate, theta, scores)
    at_bound = _pushing(theta, scores.sum(axis=0), low, high)
    return Top(theta, value, scores, information, at_bound, fault)


def _halved(
    evaluate: Evaluate,
    theta: NDArray[np.float64],
    step: NDArray[np.float64],
    value: float,
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    tries: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.float64]]:
    for halving in range(tries):
        trial = np.clip(theta + step * 0.5**halving, low, high)
        log, scores = evaluate(trial)
        if log.sum() > value:
            return trial, log, scores
    return theta, None, np.empty((0, len(theta)))


def _information(evaluate: Evaluate, theta: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Differentiate the gradient by steps that are a small part of each parameter's standard error."""
    steps = _STEP_OF_ERROR / np.sqrt(np.maximum((scores**2).sum(axis=0), 1e-12))
    steps = np.minimum(steps, 1e-2 * np.maximum(1.0, np.abs(theta)))
    gradient, rows = scores.sum(axis=0), []
    for place, step in enumerate(steps):
        shift = np.zeros_like(theta)
        shift[place] = step
        rows.append((gradient - evaluate(theta + shift)[1].sum(axis=0)) / step)
    return (np.array(rows) + np.array(rows).T) / 2


def _made_positive(information: NDArray[np.float64], free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Turn directions of no or upward curvature round, so that a Newton step climbs (Greenstadt 1967)."""
    scale = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-12))
    inside = np.outer(free, free)
    values, vectors = np.linalg.eigh(np.where(inside, information / np.outer(scale, scale), np.eye(len(scale))))
    values = np.maximum(np.abs(values), 1e-7)
    return np.asarray((vectors * values) @ vectors.T * np.outer(scale, scale))


def _pushing(
    theta: NDArray[np.float64], gradient: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.bool_]:
    return np.asarray(((theta <= low) & (gradient < 0)) | ((theta >= high) & (gradient > 0)))


def _solve(matrix: NDArray[np.float64], gradient: NDArray[np.float64], free: NDArray[np.bool_]) -> NDArray[np.float64]:
    step = np.zeros_like(gradient)
    step[free] = np.linalg.solve(matrix[np.ix_(free, free)], gradient[free])
    return step
