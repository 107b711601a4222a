"""The likelihood of a joint model: each subject's random effects integrated out about their mode, and its gradient.

Adaptive Gauss-Hermite quadrature (Pinheiro and Bates, J Comput Graph Stat 1995;4:12-35; for joint models
Rizopoulos, Comput Stat Data Anal 2012;56:491-501). The gradient is the posterior mean of the complete data's
(Fisher's identity), worked out by hand for every parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from ctc_imaging.recurrence.joint.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.joint.families import Density, Family
    from ctc_imaging.recurrence.joint.rows import HazardRows

_LOG_2PI = float(np.log(2 * np.pi))
# Doubles of one array that fit a processor's cache: parts of so many subjects are worked through at once.
_CACHED = 60_000
_NEWTON_STEPS, _CONVERGED = 60, 1e-9
# Hazards above this stand still, so that their squares stay numbers.
_STEEPEST = 200.0


@dataclass(frozen=True)
class Layout:
    """Where each parameter stands: by marker terms, family's extras, Cholesky factor of the random effects; hazard.

    A covariance is ``L @ L.T``; its parameters are the lower triangle of L, diagonal as logarithms.
    """

    families: tuple[Family, ...]
    terms: tuple[int, ...]
    effects: tuple[int, ...]
    associated: tuple[int, ...]
    fixed: int

    @cached_property
    def sizes(self) -> list[int]:
        """Sizes of the blocks, in order."""
        by_marker = [
            size
            for family, terms, effects in zip(self.families, self.terms, self.effects, strict=True)
            for size in (terms, len(family.extra), effects * (effects + 1) // 2)
        ]
        return [*by_marker, self.fixed, len(self.associated)]

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(self.sizes)

    @cached_property
    def effect_slices(self) -> tuple[slice, ...]:
        """Each marker's place among a subject's random effects."""
        ends = np.cumsum([0, *self.effects])
        return tuple(slice(low, high) for low, high in pairwise(ends))

    @cached_property
    def places(self) -> list[slice]:
        """Each block's place among the parameters, in the order of `sizes`."""
        ends = np.cumsum([0, *self.sizes])
        return [slice(low, high) for low, high in pairwise(ends)]

    @cached_property
    def spreads(self) -> NDArray[np.intp]:
        """Places of the diagonals of the Cholesky factors, the logarithms among their parameters."""
        blocks = [self.places[3 * number + 2].start for number in range(len(self.effects))]
        own = [start + np.cumsum(np.arange(1, size + 1)) - 1 for start, size in zip(blocks, self.effects, strict=True)]
        return np.concatenate(own)

    def unpack(self, theta: NDArray[np.float64]) -> Parameters:
        """Name the parts of a vector of parameters."""
        blocks = [theta[place] for place in self.places]
        factors = tuple(factor_of(blocks[3 * number + 2], size) for number, size in enumerate(self.effects))
        return Parameters(tuple(blocks[0:-2:3]), tuple(blocks[1:-2:3]), factors, blocks[-2], blocks[-1])


@dataclass(frozen=True)
class Parameters:
    """A vector of parameters by its parts; see `Layout`."""

    terms: tuple[NDArray[np.float64], ...]
    extra: tuple[NDArray[np.float64], ...]
    factors: tuple[NDArray[np.float64], ...]
    fixed: NDArray[np.float64]
    association: NDArray[np.float64]

    @cached_property
    def precision(self) -> NDArray[np.float64]:
        """Inverse covariance of all random effects."""
        return np.asarray(np.linalg.inv(self.covariance))

    @cached_property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance of all random effects: a block a marker."""
        from scipy.linalg import block_diag

        return np.asarray(block_diag(*(factor @ factor.T for factor in self.factors)))

    @property
    def half_log_determinant(self) -> float:
        """Half of the logarithm of the covariance's determinant."""
        return float(sum(np.log(np.diag(factor)).sum() for factor in self.factors))


@dataclass(frozen=True)
class Centres:
    """Where each subject's integrand peaks, (n, q), and Cholesky factors of its spread there, (n, q, q)."""

    modes: NDArray[np.float64]
    spread: NDArray[np.float64]

    def part(self, low: int, high: int) -> Centres:
        """Return those of some subjects."""
        return Centres(self.modes[low:high], self.spread[low:high])


class Likelihood:
    """The likelihood of subjects' rows.

    Parameters
    ----------
    layout : Layout
    rows : Rows
    """

    def __init__(self, layout: Layout, rows: Rows) -> None:
        self.layout = layout
        self.rows = rows
        self._modes = np.zeros((rows.count, sum(layout.effects)))
        self._parts: dict[int, list[Rows]] = {}

    def centres(self, theta: NDArray[np.float64]) -> Centres:
        """Find each subject's mode, starting from the last ones found."""
        centres = find_centres(self.layout.unpack(theta), self.layout, self.rows, self._modes)
        self._modes = centres.modes
        return centres

    def __call__(self, theta: NDArray[np.float64], points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Evaluate.

        Parameters
        ----------
        theta : ndarray of float64, shape (p,)
        points : int
            Quadrature points a random effect.

        Returns
        -------
        log_likelihood : ndarray of float64, shape (n,)
            Of each subject.
        scores : ndarray of float64, shape (n, p)
            Its gradient.
        """
        try:
            centres, parameters = self.centres(theta), self.layout.unpack(theta)
        except np.linalg.LinAlgError:
            # So far out that numbers end: no place to climb to.
            return np.full(self.rows.count, -np.inf), np.zeros((self.rows.count, len(theta)))
        grid = gauss_hermite(points, sum(self.layout.effects))
        size = max(8, int(_CACHED * self.rows.count / (len(grid[1]) * max(1, len(self.rows.cumulative.subject)))))
        if size not in self._parts:
            self._parts[size] = list(self.rows.parts(size))
        results, low = [], 0
        for part in self._parts[size]:
            results.append(_integrate(self.layout, parameters, part, centres.part(low, low + part.count), grid))
            low += part.count
        return np.concatenate([log for log, _ in results]), np.concatenate([scores for _, scores in results])


def gauss_hermite(points: int, effects: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make a grid for integrals against a standard normal density's shape.

    Returns
    -------
    places : ndarray of float64, shape (points ** effects, effects)
    log_weights : ndarray of float64
        So that the integral of f is the sum of f at the places times exp(log_weights).
    """
    place, weight = np.polynomial.hermite.hermgauss(points)
    place, log_weight = np.sqrt(2) * place, np.log(weight) + place**2 + 0.5 * np.log(2)
    places = np.array(list(product(place, repeat=effects)))
    return places, np.array([sum(row) for row in product(log_weight, repeat=effects)])


def find_centres(parameters: Parameters, layout: Layout, rows: Rows, start: NDArray[np.float64]) -> Centres:
    """Climb to the mode of each subject's random effects, by Newton steps that are halved where they go too far."""
    modes, steps_left = start.copy(), np.ones(len(start))
    value, gradient, curvature = _peak(parameters, layout, rows, modes)
    for _ in range(_NEWTON_STEPS):
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        gain = (step * gradient).sum(axis=1)
        going = gain > _CONVERGED
        if not going.any():
            break
        trial = modes + np.where(going, steps_left, 0.0)[:, None] * step
        new = _peak(parameters, layout, rows, trial)
        better = going & (new[0] >= value + 1e-4 * steps_left * gain - 1e-10 * np.abs(value))
        modes[better] = trial[better]
        value, gradient, curvature = (
            np.where(better.reshape(-1, *[1] * (old.ndim - 1)), fresh, old)
            for fresh, old in zip(new, (value, gradient, curvature), strict=True)
        )
        steps_left = np.where(better, 1.0, steps_left / 2)
    return Centres(modes, np.linalg.cholesky(np.linalg.inv(curvature)))


def _peak(
    parameters: Parameters, layout: Layout, rows: Rows, effects: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Log integrand at one point of each subject, its gradient, and its negative curvature (made positive)."""
    size = effects.shape[1]
    value = -0.5 * np.einsum("ni,ij,nj->n", effects, parameters.precision, effects)
    gradient = -effects @ parameters.precision
    curvature = np.broadcast_to(parameters.precision, (rows.count, size, size)).copy()
    for number, marker in enumerate(rows.markers):
        own, total = layout.effect_slices[number], rows.marker_sums[number]
        eta = marker.offset + marker.terms @ parameters.terms[number]
        eta = eta + (marker.random * effects[marker.subject, own]).sum(axis=1)
        density = layout.families[number].density(marker.y[:, None], eta[:, None], parameters.extra[number])
        value = value + total @ density.log[:, 0]
        gradient[:, own] += total @ (density.d_eta * marker.random)
        bent = total @ (np.maximum(-density.d2_eta, 0.0) * marker.outer)
        curvature[:, own, own] += bent.reshape(rows.count, *[marker.random.shape[1]] * 2)
    fixed, random = _linear(parameters, layout, rows.cumulative)
    rate = np.exp(np.minimum(fixed + (random * effects[rows.cumulative.subject]).sum(axis=1), _STEEPEST))
    value = value - rows.cumulative_sum @ rate
    gradient -= rows.cumulative_sum @ (rate[:, None] * random)
    outer = (random[:, :, None] * random[:, None, :]).reshape(len(rate), size * size)
    curvature += (rows.cumulative_sum @ (rate[:, None] * outer)).reshape(rows.count, size, size)
    _, at_event = _linear(parameters, layout, rows.event)
    np.add.at(value, rows.event.subject, (at_event * effects[rows.event.subject]).sum(axis=1))
    np.add.at(gradient, rows.event.subject, at_event)
    return value, gradient, curvature


def _linear(
    parameters: Parameters, layout: Layout, hazard: HazardRows
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log hazard of rows without random effects, (n,), and its slopes by them, (n, q)."""
    fixed = hazard.log_weight + hazard.fixed @ parameters.fixed
    random = np.zeros((len(fixed), sum(layout.effects)))
    for strength, (marker, terms, functions) in zip(parameters.association, hazard.associated, strict=True):
        fixed = fixed + strength * (terms @ parameters.terms[marker])
        random[:, layout.effect_slices[marker]] += strength * functions
    return fixed, random


@dataclass(frozen=True)
class Nodes:
    """The integrand at the nodes of the grid: `log` (n, nodes), with the grid's weights in it.

    `effects` are (q, n, nodes); `densities` of the markers' rows; `at_points` the effects, and `rate` the weighted
    hazards, at the points of the cumulative hazard.
    """

    log: NDArray[np.float64]
    effects: NDArray[np.float64]
    densities: tuple[Density, ...]
    at_points: list[NDArray[np.float64]]
    rate: NDArray[np.float64]


def integrand(
    layout: Layout,
    parameters: Parameters,
    rows: Rows,
    centres: Centres,
    grid: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> Nodes:
    """Evaluate everything at the nodes of each subject's own grid.

    Parameters
    ----------
    layout : Layout
    parameters : Parameters
    rows : Rows
    centres : Centres
    grid : tuple of ndarray
        As of `gauss_hermite`.

    Returns
    -------
    Nodes
    """
    places, log_weights = grid
    # Effects by node, (q, n, nodes), so that each effect's slice is contiguous.
    effects = centres.modes.T[:, :, None] + np.einsum("nij,kj->ink", centres.spread, places)
    log = log_weights - 0.5 * (effects * np.tensordot(parameters.precision, effects, 1)).sum(axis=0)
    log += np.log(np.diagonal(centres.spread, axis1=1, axis2=2)).sum(axis=1)[:, None]
    log -= parameters.half_log_determinant + 0.5 * _LOG_2PI * len(effects)
    densities = []
    for number, marker in enumerate(rows.markers):
        eta = (marker.offset + marker.terms @ parameters.terms[number])[:, None]
        eta = eta + _weighted(marker.random.T, effects[layout.effect_slices[number]], marker.subject)
        density = layout.families[number].density(marker.y[:, None], eta, parameters.extra[number])
        log += rows.marker_sums[number] @ density.log
        densities.append(density)
    at_points = [effect[rows.cumulative.subject] for effect in effects]
    rate = _rate(layout, parameters, rows.cumulative, at_points)
    log -= rows.cumulative_sum @ rate
    event_fixed, event_random = _linear(parameters, layout, rows.event)
    log[rows.event.subject] += event_fixed[:, None] + _weighted(event_random.T, effects, rows.event.subject)
    return Nodes(log, effects, tuple(densities), at_points, rate)


def rates(
    layout: Layout, parameters: Parameters, hazard: HazardRows, effects: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted hazards of rows, (rows, nodes), at effects (q, n, nodes)."""
    return _rate(layout, parameters, hazard, [effect[hazard.subject] for effect in effects])


def _rate(
    layout: Layout, parameters: Parameters, hazard: HazardRows, at_rows: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    fixed, random = _linear(parameters, layout, hazard)
    return np.asarray(np.exp(np.minimum(fixed[:, None] + _summed(random.T, at_rows), _STEEPEST)))


def _integrate(
    layout: Layout,
    parameters: Parameters,
    rows: Rows,
    centres: Centres,
    grid: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Integrate over random effects: log-likelihood (n,) and scores (n, p)."""
    nodes = integrand(layout, parameters, rows, centres, grid)
    log_likelihood = logsumexp(nodes.log, axis=1)
    chance = np.exp(nodes.log - log_likelihood[:, None])
    rate = nodes.rate * chance[rows.cumulative.subject]
    by_effect = np.stack([np.einsum("rk,rk->r", rate, effect) for effect in nodes.at_points], axis=1)
    mean_effects = np.einsum("ink,nk->ni", nodes.effects, chance)
    blocks = _marker_scores(layout, parameters, rows, nodes, chance)
    hazard = _hazard_scores(layout, parameters, rows, rate.sum(axis=1), by_effect, mean_effects)
    for number, score in enumerate(hazard.by_marker):
        blocks[3 * number] += score
    return log_likelihood, np.hstack([*blocks, hazard.fixed, hazard.association])


def _marker_scores(
    layout: Layout,
    parameters: Parameters,
    rows: Rows,
    nodes: Nodes,
    chance: NDArray[np.float64],
) -> list[NDArray[np.float64]]:
    """Scores of the markers' terms, extras and covariances, as far as they don't come by the hazard."""
    blocks: list[NDArray[np.float64]] = []
    for number, (marker, density) in enumerate(zip(rows.markers, nodes.densities, strict=True)):
        total, weight = rows.marker_sums[number], chance[marker.subject]
        pull = np.einsum("rk,rk->r", weight, density.d_eta)
        blocks.append(total @ (pull[:, None] * marker.terms))
        extra = [np.einsum("rk,rk->r", weight, one) for one in density.d_extra]
        blocks.append(total @ np.stack(extra, axis=1) if extra else np.empty((rows.count, 0)))
        own = nodes.effects[layout.effect_slices[number]]
        second = np.einsum("ink,jnk->nij", own * chance, own)
        blocks.append(_factor_scores(parameters.factors[number], second))
    return blocks


@dataclass(frozen=True)
class _HazardScores:
    by_marker: list[NDArray[np.float64]]
    fixed: NDArray[np.float64]
    association: NDArray[np.float64]


def _hazard_scores(
    layout: Layout,
    parameters: Parameters,
    rows: Rows,
    expected: NDArray[np.float64],
    by_effect: NDArray[np.float64],
    mean_effects: NDArray[np.float64],
) -> _HazardScores:
    """Scores that come by the hazard: from the expected rates of its points, and from the events."""
    total, at, event = rows.cumulative_sum, rows.event.subject, rows.event
    fixed = -(total @ (expected[:, None] * rows.cumulative.fixed))
    fixed[at] += event.fixed
    by_marker = [np.zeros((rows.count, size)) for size in layout.terms]
    association = np.zeros((rows.count, len(parameters.association)))
    pairs = zip(rows.cumulative.associated, event.associated, strict=True)
    for number, ((marker, terms, functions), (_, event_terms, event_functions)) in enumerate(pairs):
        strength, own = parameters.association[number], layout.effect_slices[marker]
        by_marker[marker] -= strength * (total @ (expected[:, None] * terms))
        by_marker[marker][at] += strength * event_terms
        values = expected * (terms @ parameters.terms[marker]) + (functions * by_effect[:, own]).sum(axis=1)
        association[:, number] = -(total @ values)
        known = event_terms @ parameters.terms[marker] + (event_functions * mean_effects[at, own]).sum(axis=1)
        association[at, number] += known
    return _HazardScores(by_marker, fixed, association)


def factor_of(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Build lower triangles (..., size, size) from their parameters (..., k), the diagonal's being logarithms."""
    rows, columns = np.tril_indices(size)
    factor = np.zeros((*values.shape[:-1], size, size))
    factor[..., rows, columns] = np.where(rows == columns, np.exp(np.where(rows == columns, values, 0.0)), values)
    return factor


def _factor_scores(factor: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of a Cholesky factor's parameters from the posterior second moments (n, q, q) of the effects."""
    inverse = np.linalg.inv(factor)
    precision = inverse.T @ inverse
    scores = precision @ (second - factor @ factor.T) @ inverse.T
    rows, columns = np.tril_indices(len(factor))
    scale = np.where(rows == columns, np.diag(factor)[rows], 1.0)
    return np.asarray(scores[:, rows, columns] * scale)


def _weighted(
    weights: NDArray[np.float64], effects: NDArray[np.float64], subject: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Sum of the effects (q, n, nodes) of each row's subject times the row's weights (q, rows)."""
    return _summed(weights, [effect[subject] for effect in effects])


def _summed(weights: NDArray[np.float64], effects: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    total = weights[0][:, None] * effects[0]
    for weight, effect in zip(weights[1:], effects[1:], strict=True):
        total += weight[:, None] * effect
    return total
