r"""How often would independent samples look as related as these? Chances down to 1e-300, exact or by tilting.

Under independence each mutation is shared, or not, on its own. Where mutations have few different frequencies, all
numbers of shared ones are listed and their chances added up: the p-value is exact. Elsewhere we draw from clonal pairs
instead: the likelihood ratio at a fixed signal xi is itself the exponential tilt of the independent distribution, so a
draw from signal xi counts exp(-log ratio). Draws come from a mixture of signals, independence among them; a draw then
counts at most (number of signals) x exp(-statistic), which bounds the error wherever the tail lies (importance sampling
with a defensive mixture: Hesterberg, Technometrics 1995;37:185-94).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, logsumexp

from ctc_imaging.clonality.pair_likelihood import SIGNALS, PairEvidence, log_likelihood

_MOST_LISTED = 100_000
_BLOCK = 2_000
_TIE = 1e-9
_PROPOSALS = np.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
_GRID = np.concatenate([SIGNALS, _PROPOSALS])
_AT_PROPOSALS = np.arange(len(SIGNALS), len(_GRID))


class TailProbability(NamedTuple):
    """A p-value, its standard error (0 where exact), and whether it is exact."""

    p_value: float
    standard_error: float
    exact: bool


def tail_probability(
    evidence: PairEvidence, *, draws: int = 20_000, seed: int = 0, exact: bool | None = None
) -> TailProbability:
    """Chance that independent samples have as large a likelihood ratio.

    Parameters
    ----------
    evidence : PairEvidence
    draws : int
        Draws where the chance isn't exact.
    seed : int
        The same seed gives the same p-value.
    exact : bool, optional
        List everything, or draw; default whichever is feasible.

    Returns
    -------
    TailProbability
        1 where nothing speaks for a common origin. The statistic is maximised over the grid
        `pair_likelihood.SIGNALS`, for the data and for what might have been alike.
    """
    observed = _statistic(evidence)
    if observed <= _TIE:
        return TailProbability(1.0, 0.0, True)
    groups = _groups(evidence)
    if exact is None:
        exact = bool(evidence.independent.shape[1] == 2 and np.prod(groups.sizes + 1.0) <= _MOST_LISTED)
    return _listed(groups, observed) if exact else _drawn(groups, observed, draws, np.random.default_rng(seed))


def drawn_statistics(evidence: PairEvidence, signal: float, draws: int, seed: int) -> np.ndarray:
    """Draw what two samples might have shown at a clonality signal; the log likelihood ratio of each draw.

    Parameters
    ----------
    evidence : PairEvidence
        Its chances count, not what came about.
    signal : float
        0 for independent samples.
    draws, seed : int

    Returns
    -------
    float ndarray, shape (draws,)
    """
    groups = _groups(evidence)
    grid = np.append(SIGNALS, signal)
    return _ratios(groups, grid, len(grid) - 1, draws, np.random.default_rng(seed))[:, : len(SIGNALS)].max(axis=1)


class _Groups(NamedTuple):
    """Mutations with the same chances, taken together."""

    sizes: np.ndarray
    each: PairEvidence

    def log_chances(self, signals: np.ndarray) -> np.ndarray:
        """Shape (n_signals, n_groups, n_outcomes)."""
        return np.stack([np.log(np.maximum(self.each.chances(xi), 1e-300)) for xi in signals])


def _statistic(evidence: PairEvidence) -> float:
    if len(evidence) == 0:
        return 0.0
    ratios = log_likelihood(evidence, SIGNALS)
    return float(np.max(ratios - ratios[0]))


def _groups(evidence: PairEvidence) -> _Groups:
    both = np.column_stack([evidence.independent, evidence.same])
    _, first, sizes = np.unique(both.round(12), axis=0, return_index=True, return_counts=True)
    each = PairEvidence(evidence.independent[first], evidence.same[first], evidence.outcome[first])
    return _Groups(sizes, each)


def _listed(groups: _Groups, observed: float) -> TailProbability:
    """Add up the chances of all numbers of shared mutations, group by group, that are as extreme."""
    logs = groups.log_chances(SIGNALS)
    parts = [_of_block(groups.sizes, logs, shared, observed) for shared in _blocks(groups.sizes)]
    return TailProbability(min(float(np.exp(logsumexp(parts))), 1.0), 0.0, True)


def _blocks(sizes: np.ndarray) -> Iterator[np.ndarray]:
    listed = itertools.product(*(range(size + 1) for size in sizes))
    while block := list(itertools.islice(listed, _BLOCK)):
        yield np.array(block)


def _of_block(sizes: np.ndarray, logs: np.ndarray, shared: np.ndarray, observed: float) -> float:
    private = sizes - shared
    likelihoods = shared @ logs[..., 0].T + private @ logs[..., 1].T
    ways = (gammaln(sizes + 1) - gammaln(shared + 1) - gammaln(private + 1)).sum(axis=1)
    extreme = likelihoods.max(axis=1) - likelihoods[:, 0] >= observed - _TIE
    return float(logsumexp((ways + likelihoods[:, 0])[extreme])) if extreme.any() else -np.inf


def _drawn(groups: _Groups, observed: float, draws: int, rng: np.random.Generator) -> TailProbability:
    """Draw from clonal pairs of several signals and weigh each draw back to independence."""
    per_signal = -(-draws // len(_PROPOSALS))
    strata = np.stack([_weights(groups, observed, place, per_signal, rng) for place in _AT_PROPOSALS.tolist()])
    # Each proposal has the same number of draws, so the variance is that of the strata, not of the whole.
    error = np.sqrt((strata.var(axis=1, ddof=1) / per_signal).sum()) / len(_PROPOSALS)
    return TailProbability(min(float(strata.mean()), 1.0), float(error), False)


def _weights(groups: _Groups, observed: float, place: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    ratios = _ratios(groups, _GRID, place, draws, rng)
    weights = np.exp(-(logsumexp(ratios[:, _AT_PROPOSALS], axis=1) - np.log(len(_PROPOSALS))))
    return np.where(ratios[:, : len(SIGNALS)].max(axis=1) >= observed - _TIE, weights, 0.0)


def _ratios(groups: _Groups, grid: np.ndarray, place: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Log likelihood ratios, shape (draws, n_grid), of draws from the signal at a place of the grid."""
    logs = groups.log_chances(grid)
    chances = groups.each.chances(float(grid[place]))
    counts = [
        rng.multinomial(size, _whole(of_group), size=draws)
        for size, of_group in zip(groups.sizes.tolist(), chances, strict=True)
    ]
    # One product of two matrices: a row a draw, a column an outcome of a group.
    relative = (logs - logs[0]).reshape(len(grid), -1)
    return np.asarray(np.concatenate(counts, axis=1).astype(np.float64) @ relative.T)


def _whole(chances: np.ndarray) -> np.ndarray:
    """Chances that sum to 1 to the last digit, as the generator asks for."""
    clipped = np.clip(chances, 0, None)
    return np.asarray(clipped / clipped.sum())
