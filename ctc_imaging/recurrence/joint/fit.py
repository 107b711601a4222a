"""Fitting a joint model by maximum likelihood, with everything that speaks against the fit said."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ctc_imaging.errors import ConfigError, StatisticsError
from ctc_imaging.recurrence.joint.climb import climb, climb_roughly
from ctc_imaging.recurrence.joint.design import MODEL, make_design
from ctc_imaging.recurrence.joint.likelihood import Layout, Likelihood
from ctc_imaging.recurrence.joint.model import JointModel, parameter_names
from ctc_imaging.recurrence.joint.people import People
from ctc_imaging.recurrence.joint.separation import separated

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint.climb import Top
    from ctc_imaging.recurrence.joint.design import JointDesign
    from ctc_imaging.recurrence.joint.rows import MarkerRows, Rows
    from ctc_imaging.recurrence.joint.spec import JointSpec

# Quadrature points a random effect by the number of these: the first leave an error below .001 on textbook data.
_POINTS = {1: (15, 31), 2: (7, 11, 17), 3: (5, 7, 9), 4: (3, 5)}
_SAME = 0.02
_ROUGH_POINTS = 3
_MORE, _MOST_NODES = 4, 7_000
# Points in time that show whether those used were enough, and standard errors that tell so.
_FINER_TIMES, _FINE_TIMES, _SAME_ERRORS = 20, 40, 0.03
# Of the spread that a random effect would have if it made all of the difference between subjects.
_LEAST_SPREAD, _LARGEST_SPREAD = 1e-4, 1e3
_ROUGH_DESCENT = 1.5
_FEW_EVENTS = 10


def fit_joint(spec: JointSpec, follow_up: FollowUp) -> JointModel:
    """Fit a joint model of markers and an event by exact maximum likelihood.

    Parameters
    ----------
    spec : JointSpec
    follow_up : FollowUp

    Returns
    -------
    JointModel
        `converged` tells whether the top was reached; where it wasn't, `notes` say why.

    Raises
    ------
    ConfigError
        If the specification doesn't fit the tables.
    StatisticsError
        If the data can't carry the model: nobody had the event, an effect is separated, one visit each, ...
    """
    begun = time.perf_counter()
    design, usable, notes = make_design(spec, follow_up)
    tries = _points(design)
    people = People(usable)
    rows = design.rows(people)
    layout = make_layout(design)
    notes += _warned(design, people)
    likelihood = Likelihood(layout, rows)
    start, low, high = _start(design, layout, rows, people)
    # Rough steps may let a spread vanish, from where Newton's would take long to come back.
    floor = low.copy()
    floor[layout.spreads] = start[layout.spreads] - _ROUGH_DESCENT
    begin = climb_roughly(lambda theta: likelihood(theta, _ROUGH_POINTS), start, floor, high)
    top, points = _top(likelihood, begin, low, high, tries)
    finer = _in_time(design, _FINER_TIMES)
    if spec.time_points is None and _moved_by_time(top, finer, people, layout, points):
        design, likelihood = finer, Likelihood(layout, finer.rows(people))
        top = climb(partial(likelihood, points=points), top.theta, low, high, top.information)
    notes += _reservations(top, design, likelihood, people, points)
    return JointModel(
        design,
        layout,
        top,
        tuple(notes),
        people.end.max(),
        len(people.end),
        int(people.event.sum()),
        tuple(len(marker.y) for marker in rows.markers),
        points,
        time.perf_counter() - begun,
    )


def make_layout(design: JointDesign) -> Layout:
    """Say where each parameter of a design stands."""
    return Layout(
        tuple(marker.family for marker in design.markers),
        tuple(len(marker.names) for marker in design.markers),
        tuple(len(marker.random_names) for marker in design.markers),
        tuple(number for number, _ in design.association_names),
        len(design.baseline.names) + len(design.event_names),
    )


def _points(design: JointDesign) -> tuple[int, ...]:
    """Return the quadrature points a random effect to try, from few to many."""
    nodes = design.spec.nodes
    if nodes is not None and nodes < _ROUGH_POINTS:
        raise ConfigError("--nodes", f"{nodes} are too few", f"give at least {_ROUGH_POINTS}, or leave it out")
    effects = sum(len(marker.random_names) for marker in design.markers)
    return (nodes,) if nodes else _POINTS.get(effects, (_ROUGH_POINTS,))


def _top(
    likelihood: Likelihood,
    theta: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    points: tuple[int, ...],
) -> tuple[Top, int]:
    """Climb with few points, and on with more of them where these tell another likelihood."""
    information = None
    for number in points:
        top = climb(partial(likelihood, points=number), theta, low, high, information)
        if number == points[-1] or (not top.fault and _agrees(likelihood, top, number)):
            return top, number
        theta, information = top.theta, None if top.fault else top.information
    raise AssertionError(points)


def _agrees(likelihood: Likelihood, top: Top, points: int) -> bool:
    finer = _finer(likelihood, top, points)
    return finer is None or abs(finer - top.log_likelihood) < _SAME


def _finer(likelihood: Likelihood, top: Top, points: int) -> float | None:
    """Log-likelihood by more points, None where these would be too many."""
    if (points + _MORE) ** sum(likelihood.layout.effects) > _MOST_NODES:
        return None
    return float(likelihood(top.theta, points + _MORE)[0].sum())


def _warned(design: JointDesign, people: People) -> list[str]:
    """Name what stands against a fit before it is tried."""
    if fault := separated(design.event_names, design.covariates(people), people.event):
        raise StatisticsError(MODEL, fault, "leave the term out, or join it with another")
    events = int(people.event.sum())
    terms = len(design.event_names) + len(design.association_names)
    few = f"there are {events} events for {terms} effects on the hazard: trust no standard error."
    return [few] if events < _FEW_EVENTS * terms else []


def _start(
    design: JointDesign, layout: Layout, rows: Rows, people: People
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Guess where to start, with wide bounds: random effects of moderate spread, a constant hazard."""
    start: list[float] = []
    low: list[float] = []
    high: list[float] = []
    for marker, own in zip(design.markers, rows.markers, strict=True):
        terms, mean = _crude(own, marker.family.counts)
        extra = marker.family.start(own.y, mean)
        spread = np.std(own.y - mean) if not marker.family.counts else 1.0
        effects = _crude_spread(own.random, float(spread))
        rows_of, columns_of = np.tril_indices(len(effects))
        diagonal = rows_of == columns_of
        factor = np.where(diagonal, np.log(0.5 * effects[rows_of]), 0.0)
        start += [*terms, *extra, *factor]
        low += [*np.full(len(terms), -np.inf), *(bound[0] for bound in marker.family.bounds)]
        high += [*np.full(len(terms), np.inf), *(bound[1] for bound in marker.family.bounds)]
        low += [*np.where(diagonal, np.log(_LEAST_SPREAD * effects[rows_of]), -np.inf)]
        high += [*np.where(diagonal, np.log(_LARGEST_SPREAD * effects[rows_of]), np.inf)]
    rate = max(int(people.event.sum()), 1) / people.end.sum()
    fixed = [*design.baseline.start(rate), *np.zeros(len(design.event_names))]
    start += [*fixed, *np.zeros(len(layout.associated))]
    low += [-np.inf] * (len(start) - len(low))
    high += [np.inf] * (len(start) - len(high))
    # A Weibull's shape below .02 would put all events at time zero.
    if design.baseline.kind == "weibull":
        low[layout.places[-2].start + 1] = -0.98
    return np.array(start), np.array(low), np.array(high)


def _crude(rows: MarkerRows, counts: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the terms as if there were no random effects: least squares, or Poisson by weighted least squares."""
    if not counts:
        terms = np.linalg.lstsq(rows.terms, rows.y, rcond=None)[0]
        return np.asarray(terms), np.asarray(rows.terms @ terms)
    mean = rows.y + 0.5
    terms = np.zeros(rows.terms.shape[1])
    for _ in range(8):
        eta = np.log(mean)
        weight = np.sqrt(mean)
        working = eta - rows.offset + (rows.y - mean) / mean
        terms = np.linalg.lstsq(weight[:, None] * rows.terms, weight * working, rcond=None)[0]
        mean = np.exp(np.clip(rows.offset + rows.terms @ terms, -20, 20))
    return np.asarray(terms), np.asarray(mean)


def _crude_spread(functions: NDArray[np.float64], spread: float) -> NDArray[np.float64]:
    """Spread of each random effect that would make a difference of `spread` over the times measured."""
    reach = np.sqrt((functions**2).mean(axis=0))
    return np.asarray(spread / np.maximum(reach, 1e-12))


def _reservations(top: Top, design: JointDesign, likelihood: Likelihood, people: People, points: int) -> list[str]:
    """Say what speaks against the fit."""
    names = parameter_names(design)
    flat = " and ".join(names[place] for place in top.flat)
    apart = " apart" if len(top.flat) > 1 else ""
    why = [top.fault] * bool(top.fault) + [f"the data can't tell {flat}{apart}"] * bool(flat)
    notes = [f"The fit didn't converge: {'; '.join(why)}."] if why else []
    notes += [
        f"{name} lies at the bound of what can be told apart; it is held there, without a standard error."
        for name, at_bound in zip(names, top.at_bound, strict=True)
        if at_bound
    ]
    if (finer := _finer(likelihood, top, points)) is None:
        notes.append(f"So many random effects are integrated by {points} points each, which is approximate.")
    elif abs(finer - top.log_likelihood) > _SAME:
        notes.append(
            f"{points} quadrature points a random effect are too few: with {points + _MORE} the log-likelihood is "
            f"{finer:.3f}, not {top.log_likelihood:.3f}. More can be had by --nodes."
        )
    fine = _in_time(design, _FINE_TIMES)
    if design.spec.time_points is not None and _moved_by_time(top, fine, people, likelihood.layout, points):
        notes.append(
            f"{design.spec.time_points} points in time are too few for a hazard that bends so sharply. "
            "More can be had by --time-points."
        )
    return notes


def _in_time(design: JointDesign, time_points: int) -> JointDesign:
    return replace(design, baseline=replace(design.baseline, time_points=time_points))


def _moved_by_time(top: Top, finer: JointDesign, people: People, layout: Layout, points: int) -> bool:
    """Say whether integrating the hazard at more points in time would move a sum of estimates noticeably.

    The scores by the finer rule tell how far it would, in standard errors, along the direction that moves most.
    """
    if finer.baseline.kind == "piecewise" or top.fault or len(top.flat):
        return False
    gradient = Likelihood(layout, finer.rows(people))(top.theta, points)[1].sum(axis=0)[~top.at_bound]
    information = top.information[np.ix_(~top.at_bound, ~top.at_bound)]
    return bool(gradient @ np.linalg.solve(information, gradient) > _SAME_ERRORS**2)
