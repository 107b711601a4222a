"""Cox's partial likelihood of intervals (start, stop], its derivatives and residuals, in time linear in the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.intp]

Ties = Literal["efron", "breslow"]
MAX_ITERATIONS = 50
_MAX_HALVINGS = 40
# Newton's decrement is about the squared distance from the maximum in standard errors; one full step is still taken.
_DECREMENT = 1e-10
# Sums over risk sets smaller than this share of what they were taken from, or than this, are rounding.
_ROUNDING, _SMALLEST = 1e-11, 1e-200


@dataclass(frozen=True)
class Evaluation:
    """The likelihood at some coefficients, and the sums over risk sets that its derivatives are made of.

    Tied events are stepped through one by one. `hazard`, of shape (events,), is each step's increment of the baseline
    hazard times exp(`shift`); a row's weight times its relative risk is `relative` times exp(`shift`). `step_means`
    are the means of the covariates in each step's risk set.
    """

    log_likelihood: float
    relative: Floats
    hazard: Floats
    shift: float
    step_means: Floats
    score: Floats


@dataclass(frozen=True)
class Maximum:
    """Where the partial likelihood is largest, or where the search for it ended."""

    coefficients: Floats
    at_zero: Evaluation
    at_maximum: Evaluation
    information: Floats
    iterations: int
    converged: bool


class PartialLikelihood:
    """Partial likelihood with left truncation, ties, strata and case weights.

    A row is at risk at the event times t with start < t <= stop in its own stratum. Event times are numbered once
    over all strata, so that every row is at risk from one number to another, and every sum over risk sets is a sum
    over rows binned by these two numbers, cumulated (Therneau and Grambsch, Modeling Survival Data, 2000; Simon,
    J Stat Softw 2011;39(5)).

    Parameters
    ----------
    design : ndarray of float64, shape (n, k)
        Centred and of about unit scale, for the sake of rounding.
    stop : array_like of float, shape (n,)
        End of each interval.
    event : array_like of bool, shape (n,)
        Whether the event happened at `stop`.
    start : array_like of float, shape (n,), optional
        Without it all rows are at risk from before the first event.
    weights : array_like of float, shape (n,), optional
        Positive case weights.
    strata : array_like of int, shape (n,), optional
        Codes from 0; each stratum has a baseline hazard of its own.
    ties : {'efron', 'breslow'}
        Efron, J Am Stat Assoc 1977;72:557-65; Breslow, Biometrics 1974;30:89-99.
    """

    def __init__(
        self,
        design: Floats,
        stop: ArrayLike,
        event: ArrayLike,
        start: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        strata: ArrayLike | None = None,
        ties: Ties = "efron",
    ) -> None:
        self.design = np.asarray(design, dtype=np.float64)
        stop, event = np.asarray(stop, dtype=np.float64), np.asarray(event, dtype=bool)
        start = np.full(len(stop), -np.inf) if start is None else np.asarray(start, dtype=np.float64)
        stratum = np.zeros(len(stop), np.intp) if strata is None else np.asarray(strata, dtype=np.intp)
        self.weights = np.ones(len(stop)) if weights is None else np.asarray(weights, dtype=np.float64)
        self.start, self.stop = start, stop
        clock = np.unique(stop[event])
        # The latest event not after a time, numbered over strata: a row is at risk at numbers first..last - 1.
        starts, stops = (
            stratum * (len(clock) + 1) + np.searchsorted(clock, times, side="right") for times in (start, stop)
        )
        numbers = np.unique(stops[event])
        self.first = np.searchsorted(numbers, starts, side="right")
        self.last = np.searchsorted(numbers, stops, side="right")
        self.event_times = clock[numbers % (len(clock) + 1) - 1]
        self.event_strata = numbers // (len(clock) + 1)
        self.dead = np.flatnonzero(event)
        self._set_steps(ties)

    def _set_steps(self, ties: Ties) -> None:
        """Number the events, tied ones one after the other, each with the mean weight of those it is tied with."""
        self.dead_time = self.last[self.dead] - 1
        deaths = np.bincount(self.dead_time, minlength=len(self.event_times))
        self.deaths = deaths
        self.step_time = np.repeat(np.arange(len(deaths)), deaths)
        before = np.repeat(np.cumsum(deaths) - deaths, deaths)
        done = (np.arange(len(before)) - before) / deaths[self.step_time]
        self.step_done = done if ties == "efron" else np.zeros_like(done)
        total = np.bincount(self.dead_time, self.weights[self.dead], minlength=len(deaths))
        self.step_weight = (total / deaths)[self.step_time]

    def over_risk_sets(self, values: Floats) -> Floats:
        """Sum a value of each row over those at risk at each event time."""
        size = len(self.event_times) + 1
        net = np.bincount(self.last, values, size) - np.bincount(self.first, values, size)
        return net[::-1].cumsum()[-2::-1]

    def over_intervals(self, per_event_time: Floats) -> Floats:
        """Sum a value of each event time over the interval of each row."""
        total = np.concatenate([np.zeros((1, *per_event_time.shape[1:])), per_event_time.cumsum(axis=0)])
        return total[self.last] - total[self.first]

    def over_steps(self, per_step: Floats) -> Floats:
        """Sum a value of each step by event time."""
        return np.add.reduceat(per_step, np.cumsum(self.deaths) - self.deaths, axis=0)

    def evaluate(self, coefficients: Floats) -> Evaluation:
        """Compute the log-likelihood and score; minus infinity where rounding would decide it."""
        predictor = self.design @ coefficients
        shift = float(predictor.max())
        relative = self.weights * np.exp(predictor - shift)
        at_risk = self._less_tied(relative)
        if not self._is_exact(at_risk, relative):
            return Evaluation(-np.inf, relative, at_risk, shift, at_risk[:, None], self.design[0])
        means = np.column_stack([self._less_tied(relative * column) for column in self.design.T]) / at_risk[:, None]
        of_dead = self.weights[self.dead]
        value = of_dead @ predictor[self.dead] - self.step_weight @ (np.log(at_risk) + shift)
        score = of_dead @ self.design[self.dead] - self.step_weight @ means
        return Evaluation(float(value), relative, self.step_weight / at_risk, shift, means, score)

    def _is_exact(self, at_risk: Floats, relative: Floats) -> bool:
        """Whether what is at risk is more than the rounding of the sums that it is a difference of."""
        later = np.bincount(self.last, relative, len(self.event_times) + 1)[::-1].cumsum()[-2::-1]
        return bool((at_risk > _ROUNDING * later[self.step_time] + _SMALLEST).all())

    def _less_tied(self, values: Floats) -> Floats:
        """Sum over risk sets, step by step, with the share of tied events that is already over taken out."""
        total = self.over_risk_sets(values)[self.step_time]
        if not self.step_done.any():
            return total
        tied = np.bincount(self.dead_time, values[self.dead], minlength=len(self.event_times))
        return total - self.step_done * tied[self.step_time]

    def exposure(self, at: Evaluation, multiplier: Floats | float = 1.0) -> Floats:
        """Cumulate the baseline hazard over each row's interval, times a multiplier of each step."""
        hazard = at.hazard * multiplier
        total = self.over_intervals(self.over_steps(hazard))
        total[self.dead] -= self.over_steps(hazard * self.step_done)[self.dead_time]
        return total

    def information(self, at: Evaluation, multiplier: Floats | float = 1.0) -> Floats:
        """Compute minus the second derivative, each event weighted by a multiplier (as tests over time need it)."""
        rows = (at.relative * self.exposure(at, multiplier))[:, None] * self.design
        steps = (self.step_weight * multiplier)[:, None] * at.step_means
        return self.design.T @ rows - at.step_means.T @ steps

    def schoenfeld_residuals(self, at: Evaluation) -> Floats:
        """Compute covariates less their mean in the risk set, summed over the events of each event time."""
        size = len(self.event_times)
        weighted = self.weights[self.dead, None] * self.design[self.dead]
        found = np.column_stack([np.bincount(self.dead_time, column, minlength=size) for column in weighted.T])
        return found - self.over_steps(self.step_weight[:, None] * at.step_means)

    def score_residuals(self, at: Evaluation) -> Floats:
        """Share out the score among the rows (Lin and Wei, J Am Stat Assoc 1989;84:1074-8), of shape (n, k)."""
        weighted = at.hazard[:, None] * at.step_means
        means = self.over_intervals(self.over_steps(weighted))
        means[self.dead] -= self.over_steps(self.step_done[:, None] * weighted)[self.dead_time]
        residuals = -at.relative[:, None] * (self.design * self.exposure(at)[:, None] - means)
        expected = self.over_steps(at.step_means)[self.dead_time] / self.deaths[self.dead_time, None]
        residuals[self.dead] += self.weights[self.dead, None] * (self.design[self.dead] - expected)
        return residuals

    def maximise(self) -> Maximum:
        """Find the maximum by Newton's method from zero, halving steps that don't climb.

        Returns
        -------
        Maximum
            Not `converged` where the information is singular or steps no longer climb.
        """
        at_zero = at = self.evaluate(coefficients := np.zeros(self.design.shape[1]))
        information = self.information(at)
        for iteration in range(1, MAX_ITERATIONS + 1):
            try:
                step = np.linalg.solve(information, at.score).astype(np.float64)
            except np.linalg.LinAlgError:
                return Maximum(coefficients, at_zero, at, information, iteration, converged=False)
            close = at.score @ step < _DECREMENT
            climbed = self._climb(coefficients, step, at)
            if climbed is None:
                return Maximum(coefficients, at_zero, at, information, iteration, converged=bool(close))
            coefficients, at = climbed
            information = self.information(at)
            if close:
                return Maximum(coefficients, at_zero, at, information, iteration, converged=True)
        return Maximum(coefficients, at_zero, at, information, MAX_ITERATIONS, converged=False)

    def _climb(self, coefficients: Floats, step: Floats, at: Evaluation) -> tuple[Floats, Evaluation] | None:
        rounding = 1e-12 * (1 + abs(at.log_likelihood))
        for halving in range(_MAX_HALVINGS):
            there = coefficients + step / 2**halving
            new = self.evaluate(there)
            if new.log_likelihood >= at.log_likelihood - rounding:
                return there, new
        return None
