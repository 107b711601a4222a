"""Each patient as two clones, one told to start treatment within a window, one told not to; who strays is censored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.recurrence.treatment.propensity import TRUNCATED_SHARE, Population, by_group, logistic_probability
from ctc_imaging.recurrence.treatment.weighted_survival import Arms, event_times

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.treatment.decision_cohort import DecisionCohort

    Floats = NDArray[np.float64]

INTERVALS = 6
_LEAST_PROBABILITY = 1e-6


def clone_arms(
    cohort: DecisionCohort,
    grace: float,
    population: Population,
    frequency: Floats,
    group: NDArray[np.intp],
    design: Floats,
) -> Arms:
    """Clone, censor and weigh (Hernan, BMJ 2018;360:k182; Maringe et al., Int J Epidemiol 2020;49:1719-29).

    The clone without treatment is censored when treatment begins within the window; its weight is one over the
    probability of not having begun by then. The clone with treatment is censored at the end of the window if
    treatment hasn't begun; from there on its weight is one over the probability of having begun. Before the end of
    the window an event without treatment therefore counts in both arms: nobody has to live to be treated. Treatment
    begun after the window is a part of both strategies.

    Parameters
    ----------
    cohort : DecisionCohort
    grace : float
        The window: how long after the landmark treatment may begin.
    population : {'overlap', 'whole'}
        Whose effect is asked for; 'overlap' gives each patient, in both arms, the weight p (1 - p), where p is the
        probability of treatment within the window.
    frequency, group, design
        See `landmark_interaction.landmark_arms`.

    Returns
    -------
    Arms
        Entry is the landmark; weights change at the event times up to the end of the window.
    """
    end = cohort.landmark + grace
    started = cohort.start <= end
    strays = started & (cohort.start < cohort.stop)
    stop = np.stack([np.where(strays, cohort.start, cohort.stop), np.where(started, cohort.stop, _until(cohort, end))])
    event = np.stack([cohort.event & ~strays, cohort.event & (started | (cohort.stop <= end))])
    times = event_times(stop, event, cohort.landmark)
    hazard, edges = start_hazard(cohort, end, frequency, group, design)
    early = times[times <= end]
    unstarted = _probability_of_no_start(hazard, edges, np.append(early, end))
    begun = _probability_begun(cohort, end, frequency, group, design)
    untreated, treated = 1 / unstarted, 1 / begun
    tilt = np.ones(len(cohort))
    if population == "overlap":
        begins = 1 - np.prod(1 - hazard, axis=1)
        tilt = begins * (1 - begins)
    else:
        there = cohort.stop > end
        untreated = np.minimum(untreated, _largest(untreated[there & ~started, -1]))
        treated = np.minimum(treated, _largest(treated[there & started]))
    changing = np.stack([untreated[:, :-1], np.ones((len(cohort), len(early)))]) * tilt[:, None]
    return Arms(cohort.landmark, stop, event, times, np.stack([untreated[:, -1], treated]) * tilt, changing)


def start_hazard(
    cohort: DecisionCohort, end: float, frequency: Floats, group: NDArray[np.intp], design: Floats
) -> tuple[Floats, Floats]:
    """Model the hazard of starting treatment within the window, by pooled logistic regression over short intervals.

    Returns
    -------
    hazard : ndarray of float64, shape (n, j)
        Probability of starting in each interval, of who hasn't before.
    edges : ndarray of float64, shape (j + 1,)
        The intervals, (edge, next edge]; where anybody started by the landmark, the first holds them.
    """
    edges = _edges(cohort, end)
    last = np.minimum(cohort.stop, cohort.start)
    # An interval that was cut short by an event or a loss told nothing of a start, and isn't used.
    seen = (last[:, None] > edges[:-1]) | (np.arange(len(edges) - 1) == 0)
    starts = _falls(cohort.start, edges) & seen
    used = seen & (starts | (last[:, None] > edges[1:]))
    hazard = np.zeros(used.shape)
    for label in np.unique(group):
        rows = group == label
        hazard[rows] = _pooled(design[rows], starts[rows], used[rows], frequency[rows])
    return hazard, edges


def _pooled(design: Floats, starts: NDArray[np.bool_], used: NDArray[np.bool_], frequency: Floats) -> Floats:
    """Fit all intervals together: an intercept of each, covariates of the same effect in all."""
    patient, interval = np.nonzero(np.ones_like(used))
    dummies = (interval[:, None] == np.arange(1, used.shape[1])).astype(float)
    terms = np.column_stack([dummies, design[patient]])
    # Intervals that are predicted but weren't seen count next to nothing in the fit.
    counts = np.where(used[patient, interval], frequency[patient], 0.0)
    if not counts.any():
        return np.zeros(used.shape)
    return logistic_probability(terms, starts[patient, interval], counts).reshape(used.shape)


def _probability_of_no_start(hazard: Floats, edges: Floats, times: Floats) -> Floats:
    """Chance of no start before each time, of shape (n, j): the current interval counts by its share that is over."""
    passed = np.clip((times[None, :] - edges[:-1, None]) / np.diff(edges)[:, None], 0.0, 1.0)
    survival = np.exp(np.log1p(-np.minimum(hazard, 1 - _LEAST_PROBABILITY)) @ passed)
    return np.maximum(survival, _LEAST_PROBABILITY)


def _probability_begun(
    cohort: DecisionCohort, end: float, frequency: Floats, group: NDArray[np.intp], design: Floats
) -> Floats:
    """Chance of having begun by the end of the window, of those still followed and free of the event then."""
    there = cohort.stop > end
    begun = np.ones(len(cohort))
    begun[there] = by_group(design[there], cohort.start[there] <= end, frequency[there], group[there])
    return np.maximum(begun, _LEAST_PROBABILITY)


def _largest(of_members: Floats) -> float:
    """Weight that none may exceed: the 99th centile of the arm's members'."""
    return float(np.quantile(of_members, 1 - TRUNCATED_SHARE)) if of_members.size else np.inf


def _until(cohort: DecisionCohort, end: float) -> Floats:
    return np.minimum(cohort.stop, end)


def _edges(cohort: DecisionCohort, end: float) -> Floats:
    """Cut the window where starts are as many in each interval; starts by the landmark have one of their own."""
    by_landmark = [cohort.landmark - 1.0] if (cohort.start <= cohort.landmark).any() else []
    inside = cohort.start[(cohort.start > cohort.landmark) & (cohort.start < end)]
    cuts = np.quantile(inside, np.linspace(0, 1, INTERVALS + 1)[1:-1]) if len(inside) else np.empty(0)
    return np.unique(np.concatenate([by_landmark, [cohort.landmark], cuts, [end]]))


def _falls(start: Floats, edges: Floats) -> NDArray[np.bool_]:
    place = np.maximum(np.searchsorted(edges, start, side="left") - 1, 0)
    return (place[:, None] == np.arange(len(edges) - 1)) & (start <= edges[-1])[:, None]
