"""Treated by the end of a window after the decision or not, followed from there: nobody has to live to be treated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.recurrence.treatment.propensity import Population, balancing_weights, by_group
from ctc_imaging.recurrence.treatment.weighted_survival import Arms, event_times

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.treatment.decision_cohort import DecisionCohort

    Floats = NDArray[np.float64]


def landmark_probability(
    cohort: DecisionCohort, grace: float, frequency: Floats, group: NDArray[np.intp], design: Floats
) -> Floats:
    """Probability of treatment by the end of the window, among those free of the event then; NaN for the others."""
    late = cohort.stop > cohort.landmark + grace
    treated = cohort.start <= cohort.landmark + grace
    probability = np.full(len(cohort), np.nan)
    probability[late] = by_group(design[late], treated[late], frequency[late], group[late])
    return probability


def landmark_arms(
    cohort: DecisionCohort,
    grace: float,
    population: Population,
    frequency: Floats,
    group: NDArray[np.intp],
    design: Floats,
) -> Arms:
    """Put each patient into the arm of the treatment had by the end of the window (Anderson, J Clin Oncol 1983).

    Parameters
    ----------
    cohort : DecisionCohort
    grace : float
        How long after the landmark treatment may begin; follow-up is compared from its end.
    population : {'overlap', 'whole'}
        See `propensity.balancing_weights`.
    frequency : ndarray of float64, shape (n,)
        How often each patient counts.
    group : ndarray of int, shape (n,)
        Within which the choice of treatment is modelled.
    design : ndarray of float64, shape (n, k)
        By what it is modelled.

    Returns
    -------
    Arms
    """
    entry = cohort.landmark + grace
    late, treated = cohort.stop > entry, cohort.start <= entry
    probability = landmark_probability(cohort, grace, frequency, group, design)
    weights = np.zeros(len(cohort))
    weights[late] = balancing_weights(probability[late], treated[late], population, frequency[late])
    member = np.stack([late & ~treated, late & treated])
    stop = np.where(member, cohort.stop, -np.inf)
    event = member & cohort.event
    return Arms(entry, stop, event, event_times(stop, event, entry), np.where(member, weights, 0.0))
