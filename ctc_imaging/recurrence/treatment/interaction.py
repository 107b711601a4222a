"""Does adjuvant treatment help some patients only? Its effect in marker-positive and -negative ones, with limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.treatment.clone_censor_weight import clone_arms
from ctc_imaging.recurrence.treatment.decision_cohort import MODEL, DecisionCohort
from ctc_imaging.recurrence.treatment.diagnostics import Diagnostics, diagnose
from ctc_imaging.recurrence.treatment.enough import arm_numbers, estimable_strata, model_of_choice, remarks
from ctc_imaging.recurrence.treatment.estimates import QUANTITIES, STRATA, by_stratum, interaction, quantities
from ctc_imaging.recurrence.treatment.landmark_interaction import landmark_arms
from ctc_imaging.recurrence.treatment.propensity import Population
from ctc_imaging.recurrence.treatment.weighted_survival import TREATED, UNTREATED, Arms, Counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Progress = Callable[[int, int], None]

Method = Literal["landmark", "clone-censor-weight"]
METHODS = {"landmark": landmark_arms, "clone-censor-weight": clone_arms}
STATEMENT = "observational, a hypothesis"


@dataclass(frozen=True)
class TreatmentEffect:
    """Effect of treatment by marker, each figure with 95 % limits.

    `strata` has a row a stratum and quantity: `stratum`, `quantity`, `estimate`, `low`, `high`. Quantities are
    survival free of the event at the horizon in both arms, its difference, the difference of restricted means from
    `entry` to the horizon, and the hazard ratio, treated to untreated. `interaction` holds the same columns and `p`:
    the ratio of hazard ratios and the differences of differences, positive to negative. `curves` has `stratum`,
    `treated`, `time`, `survival`. `statement` belongs beside every figure.
    """

    method: Method
    population: Population
    landmark: float
    grace: float
    entry: float
    horizon: float
    time_unit: str
    patients: int
    strata: pd.DataFrame
    interaction: pd.DataFrame
    numbers: pd.DataFrame
    curves: pd.DataFrame
    diagnostics: Diagnostics
    excluded: dict[str, int]
    notes: tuple[str, ...]
    statement: str = STATEMENT


def treatment_effect(
    cohort: DecisionCohort,
    grace: float,
    horizon: float,
    method: Method = "clone-censor-weight",
    population: Population = "overlap",
    replicates: int = 500,
    seed: int = 0,
    time_unit: str = "days",
    progress: Progress | None = None,
) -> TreatmentEffect:
    """Estimate what treatment started within a window does, by marker.

    Parameters
    ----------
    cohort : DecisionCohort
    grace : float
        The window: treatment that begins within this time after the landmark counts as given at the decision.
    horizon : float
        On the follow-up's clock; an event at this time counts.
    method : {'clone-censor-weight', 'landmark'}
        From the landmark, with clones; or from the end of the window, among those free of the event then.
    population : {'overlap', 'whole'}
        See `propensity.balancing_weights`.
    replicates : int
        Of the bootstrap behind the limits, which draws patients with replacement and models the choice of treatment
        each time anew.
    seed : int
    time_unit : str
    progress : callable, optional
        Told how many replicates are done, and of how many.

    Returns
    -------
    TreatmentEffect

    Raises
    ------
    StatisticsError
        If treated or untreated patients are too few in both strata, or the horizon lies before the window's end.
    """
    _check(cohort, grace, horizon)
    numbers = arm_numbers(cohort, grace)
    estimable = estimable_strata(numbers)
    group, design, notes = model_of_choice(cohort, grace)
    analysis = _Analysis(cohort, float(grace), float(horizon), method, population, group, design)
    everybody = np.ones(len(cohort))
    arms = analysis.arms(everybody)
    counted = analysis.counted(arms, everybody)
    estimates = np.stack([quantities(counts, horizon) for counts in counted])
    drawn = analysis.drawn(replicates, seed, progress)
    seen = np.stack([_seen(arms, rows, horizon) for rows in analysis.strata])
    for index in range(len(STRATA)):
        blank = _blank(estimable[index], seen[index])
        estimates[index, blank], drawn[:, index, blank] = np.nan, np.nan
    smallest = numbers.groupby("stratum")["patients"].min().reindex(list(STRATA)).to_numpy()
    diagnostics = diagnose(cohort, arms, grace, group, design)
    notes = [*cohort.notes, *notes, *remarks(numbers, estimable, seen, horizon, time_unit), *diagnostics.warnings]
    return TreatmentEffect(
        method,
        population,
        cohort.landmark,
        float(grace),
        arms.entry,
        float(horizon),
        time_unit,
        len(cohort),
        by_stratum(estimates, drawn, smallest),
        interaction(estimates, drawn, smallest),
        numbers,
        _curves(counted),
        diagnostics,
        cohort.excluded,
        tuple(notes),
    )


@dataclass(frozen=True)
class _Analysis:
    """One way of weighing a cohort, for the cohort as it is and as a bootstrap draws it."""

    cohort: DecisionCohort
    grace: float
    horizon: float
    method: Method
    population: Population
    group: NDArray[np.intp]
    design: Floats

    @property
    def strata(self) -> list[NDArray[np.bool_]]:
        """Who is in each of `STRATA`."""
        return [self.cohort.positive == (stratum == "positive") for stratum in STRATA]

    def arms(self, frequency: Floats) -> Arms:
        return METHODS[self.method](self.cohort, self.grace, self.population, frequency, self.group, self.design)

    def counted(self, arms: Arms, frequency: Floats) -> list[Counted]:
        return [arms.counted(rows, frequency) for rows in self.strata]

    def drawn(self, replicates: int, seed: int, progress: Progress | None) -> Floats:
        """Compute the quantities of each bootstrap draw (Efron, Ann Stat 1979;7:1-26)."""
        rng, size = np.random.default_rng(seed), len(self.cohort)
        drawn = np.full((replicates, len(STRATA), len(QUANTITIES)), np.nan)
        for replicate in range(replicates):
            frequency = rng.multinomial(size, np.full(size, 1 / size)).astype(np.float64)
            counted = self.counted(self.arms(frequency), frequency)
            drawn[replicate] = [quantities(counts, self.horizon) for counts in counted]
            if progress is not None:
                progress(replicate + 1, replicates)
        return drawn


def _check(cohort: DecisionCohort, grace: float, horizon: float) -> None:
    if grace < 0:
        raise StatisticsError(MODEL, f"the window of {grace:g} is negative", "give 0 or more")
    if horizon <= cohort.landmark + grace:
        raise StatisticsError(MODEL, f"the horizon {horizon:g} lies before the window's end", "choose a later one")


def _seen(arms: Arms, rows: NDArray[np.bool_], horizon: float) -> NDArray[np.bool_]:
    """Whether survival at the horizon is known in each arm: somebody is followed to it, or nobody is left."""
    reach = arms.stop[:, rows].max(axis=1, initial=-np.inf)
    return (reach >= horizon) | (arms.counted(rows, np.ones(len(rows))).curves().min(axis=1, initial=1.0) <= 0)


def _blank(estimable: bool, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the quantities that the data can't give."""
    untreated, treated = ~seen
    either = untreated or treated
    return np.array([untreated, treated, either, either, False]) | (not estimable)


def _curves(counted: list[Counted]) -> pd.DataFrame:
    tables = [
        pd.DataFrame(
            {
                "stratum": stratum,
                "treated": arm == TREATED,
                "time": np.append(counts.entry, counts.times),
                "survival": np.append(1.0, counts.curves()[arm]),
            }
        )
        for stratum, counts in zip(STRATA, counted, strict=True)
        for arm in (UNTREATED, TREATED)
    ]
    return pd.concat(tables, ignore_index=True)
