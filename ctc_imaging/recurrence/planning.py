"""How many patients a trial of 2-year recurrence-free survival needs: it is simulated until its power is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from ctc_imaging.errors import ConfigError
from ctc_imaging.recurrence.trial_plan import Plan
from ctc_imaging.recurrence.trial_tests import TESTS, Trials, interaction_test

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Progress = Callable[[int, int], None]

LARGEST_TRIAL = 20_000
# Trials are simulated this many cells at a time: patients times trials.
_CELLS = 1_000_000
_MOST_TRIALS_AT_ONCE = 500
_VARIABLES = 6


@dataclass(frozen=True)
class Power:
    """Power of a trial of `patients` in it, for whom `screened` must be tested; `error` is the simulation's (1 SE)."""

    patients: int
    screened: int
    power: float
    error: float
    events: float
    replicates: int


@dataclass(frozen=True)
class SampleSize:
    """The smallest trial found of at least the wanted power, all sizes tried, and Schoenfeld's formula beside it.

    `formula` is (events, patients) by the formula, None where it doesn't hold for the design.
    """

    plan: Plan
    target: float
    found: Power
    tried: tuple[Power, ...]
    formula: tuple[float, float] | None


def schoenfeld_events(hazard_ratio: float, power: float, alpha: float = 0.05, treated_share: float = 0.5) -> float:
    """Events that a log-rank test needs (Schoenfeld, Biometrics 1983;39:499-503).

    Examples
    --------
    >>> round(schoenfeld_events(0.5, 0.8), 1)
    65.3
    """
    quantiles = norm.isf(alpha / 2) + norm.ppf(power)
    return float(quantiles**2 / (treated_share * (1 - treated_share) * np.log(hazard_ratio) ** 2))


def power_of(
    plan: Plan, patients: int, replicates: int = 2000, seed: int = 0, progress: Progress | None = None
) -> Power:
    """Simulate trials of one size, and count those that find a difference in the right direction.

    Whatever the size, the first patients of the n-th trial are the same: so powers of different sizes can be
    compared with little noise (common random numbers).

    Parameters
    ----------
    plan : Plan
    patients : int
        In the trial: randomised, or, in a cohort, tested.
    replicates : int
        Number of trials.
    seed : int
    progress : callable, optional
        Told how many trials are done, and of how many.

    Returns
    -------
    Power
    """
    at_once = int(np.clip(_CELLS // max(patients, 1), 1, _MOST_TRIALS_AT_ONCE))
    found, events, done = 0, 0.0, 0
    while done < replicates:
        count = min(at_once, replicates - done)
        statistics, happened = _simulate(plan, patients, range(done, done + count), seed)
        found += int((statistics < norm.ppf(plan.alpha / 2)).sum())
        events += float(happened.sum())
        done += count
        if progress is not None:
            progress(done, replicates)
    power = found / replicates
    error = float(np.sqrt(max(power * (1 - power), 1 / replicates) / replicates))
    screened = patients / plan.test_positive_share if plan.design == "enrichment" else patients
    return Power(patients, int(np.ceil(screened)), power, error, events / replicates, replicates)


def sample_size(
    plan: Plan, target: float = 0.8, replicates: int = 2000, seed: int = 0, progress: Progress | None = None
) -> SampleSize:
    """Search for the smallest trial of the wanted power, by bisection to 1 % of its size.

    Parameters
    ----------
    plan : Plan
    target : float
        Wanted power.
    replicates, seed : int
        See `power_of`.
    progress : callable, optional
        Told how many sizes are tried, and of how many at most.

    Returns
    -------
    SampleSize

    Raises
    ------
    ConfigError
        If even the largest trial has less power.
    """
    if not plan.alpha < target < 1:
        raise ConfigError("power", f"{target:g} isn't between alpha and 1", "write for example 0.8")
    tried: dict[int, Power] = {}

    def enough(patients: int) -> bool:
        tried[patients] = tried.get(patients) or power_of(plan, patients, replicates, seed)
        if progress is not None:
            progress(len(tried), max(len(tried) + 1, 14))
        return tried[patients].power >= target

    low, high = _bracket(plan, enough)
    while high - low > max(1, round(0.01 * high)):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    if progress is not None:
        progress(len(tried), len(tried))
    sizes = tuple(tried[size] for size in sorted(tried))
    return SampleSize(plan, target, tried[high], sizes, _formula(plan, target, tried[high]))


def _bracket(plan: Plan, enough: Callable[[int], bool]) -> tuple[int, int]:
    """Find two sizes, of which one is too small and the other not."""
    low, high = 8, 128
    while not enough(high):
        if high >= LARGEST_TRIAL:
            fault = f"even {LARGEST_TRIAL} patients are too few for this difference"
            raise ConfigError("plan", fault, "assume a larger effect, or ask another question")
        low, high = high, min(2 * high, LARGEST_TRIAL)
    return low, high


def _formula(plan: Plan, target: float, found: Power) -> tuple[float, float] | None:
    """Schoenfeld's events, and the patients in whom as many happen; for two arms with proportional hazards only."""
    exact = plan.sensitivity == plan.specificity == 1.0
    if plan.design != "enrichment" or plan.test != "log-rank" or not exact or found.events == 0:
        return None
    events = schoenfeld_events(plan.hazard_ratio, target, plan.alpha, plan.treated_share)
    return events, events * found.patients / found.events


def _simulate(plan: Plan, patients: int, trials: range, seed: int) -> tuple[Floats, Floats]:
    """Draw trials and test each: a statistic that is standard normal without a difference, negative for a benefit."""
    uniform = np.stack([np.random.default_rng([seed, trial]).random((patients, _VARIABLES)) for trial in trials])
    truly, tested = _status(plan, uniform[..., 0], uniform[..., 1])
    treated = (uniform[..., 2] < plan.treated_share) & (plan.design != "cohort")
    ratio = np.where(treated, np.where(truly, plan.hazard_ratio, plan.hazard_ratio_negative), 1.0)
    cumulative = -np.log(np.where(truly, plan.rfs_positive, plan.rfs_negative)) * ratio
    time = plan.horizon_months * (-np.log1p(-uniform[..., 3]) / cumulative) ** (1 / plan.shape)
    lost = -12.0 * np.log1p(-uniform[..., 4]) / -np.log1p(-plan.dropout_per_year) if plan.dropout_per_year else np.inf
    closing = plan.follow_up_months + plan.accrual_months * (1 - uniform[..., 5])
    censored = np.minimum(lost, closing)
    trial = Trials(np.minimum(time, censored), time <= censored, treated)
    return _statistic(plan, trial, tested), trial.event.sum(axis=1)


def _status(plan: Plan, truth: Floats, test: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """True and tested status; an enrichment trial has only the tested positive, of whom some are so by mistake."""
    if plan.design == "enrichment":
        right = plan.prevalence * plan.sensitivity / plan.test_positive_share
        return truth < right, np.ones(truth.shape, dtype=bool)
    truly = truth < plan.prevalence
    return truly, np.where(truly, test < plan.sensitivity, test < 1 - plan.specificity)


def _statistic(plan: Plan, trial: Trials, tested: NDArray[np.bool_]) -> Floats:
    test = TESTS[plan.test]
    if plan.design == "cohort":
        # A benefit here is to be negative: the better arm stands in the treated one's place.
        return test(Trials(trial.time, trial.event, ~tested), [np.ones_like(tested)], plan.horizon_months)
    if plan.design == "enrichment" or plan.question == "positive":
        return test(trial, [tested], plan.horizon_months)
    if plan.question == "overall":
        return test(trial, [tested, ~tested], plan.horizon_months)
    return interaction_test(trial, tested)
