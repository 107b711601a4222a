"""Mutations that go together in every sample, as a finite mixture whose clones have a fraction in each sample.

Samples may be bulk (a grid of fractions) or single cells (with or without): the evidence of all lies side by side in
one array, `spans` telling which columns belong to which sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln

from ctc_imaging.clonality.regrouping import regroup

_PSEUDO_COUNT = 1.0


@dataclass(frozen=True)
class Evidence:
    """Log likelihood of every mutation's data for every fraction in every sample.

    Attributes
    ----------
    log_likelihood : float64 ndarray, shape (n_mutations, n_columns)
    log_prior : float64 ndarray, shape (n_columns,)
    spans : int64 ndarray, shape (n_samples + 1,)
        Sample s has the columns ``spans[s]:spans[s + 1]``.
    grid : float64 ndarray, shape (n_columns,)
        The fraction each column stands for.
    """

    log_likelihood: np.ndarray
    log_prior: np.ndarray
    spans: np.ndarray
    grid: np.ndarray

    @classmethod
    def of(cls, likelihoods: list[np.ndarray], grids: list[np.ndarray], priors: list[np.ndarray]) -> Evidence:
        """Put the samples' arrays, each (n_mutations, n_grid), side by side."""
        spans = np.cumsum([0, *(len(grid) for grid in grids)])
        joined = np.ascontiguousarray(np.concatenate(likelihoods, axis=1))
        return cls(joined, np.concatenate(priors), spans, np.concatenate(grids))

    def per_sample(self, columns: np.ndarray) -> list[np.ndarray]:
        """Split the last axis of an array into its samples."""
        return [columns[..., a:b] for a, b in zip(self.spans[:-1], self.spans[1:], strict=True)]

    def posteriors(self, log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn log weights (n_clones, n_columns) into chances that sum to 1 in each sample, and their log sums."""
        starts = self.spans[:-1]
        widths = np.diff(self.spans)
        top = np.maximum.reduceat(log_weights, starts, axis=1)
        raised = np.exp(log_weights - np.repeat(top, widths, axis=1))
        sums = np.add.reduceat(raised, starts, axis=1)
        return raised / np.repeat(sums, widths, axis=1), top + np.log(sums)

    def posterior_of(self, labels: np.ndarray) -> np.ndarray:
        """Chance of each fraction for each group of mutations, shape (n_clones, n_columns)."""
        return self.posteriors(self.log_prior + self.group_sums(labels))[0]

    def group_sums(self, labels: np.ndarray) -> np.ndarray:
        """Log likelihood of each group of mutations together, shape (n_clones, n_columns)."""
        return np.eye(labels.max() + 1)[labels].T @ self.log_likelihood


def fit_mixture(evidence: Evidence, *, clones: int, restarts: int, seed: int, tolerance: float = 1e-6) -> np.ndarray:
    """Group the mutations by a variational fit of the mixture, then by merging groups while that is likelier.

    Parameters
    ----------
    evidence : Evidence
    clones : int
        Most groups to begin with; those that aren't needed empty themselves or are merged.
    restarts : int
        Fits begun from different mutations; the likeliest grouping is kept.
    seed : int
    tolerance : float
        Relative gain of the bound at which a fit ends.

    Returns
    -------
    int64 ndarray, shape (n_mutations,)
        The group of each mutation, the largest group 0.
    """
    fits = []
    for child in np.random.SeedSequence(seed).spawn(restarts):
        labels = _one_fit(evidence, clones, np.random.default_rng(child), tolerance)
        labels = merge_groups(evidence, labels)
        fits.append((partition_log_score(evidence, labels), labels))
    return settle(evidence, max(fits, key=lambda fit: fit[0])[1])


def _one_fit(evidence: Evidence, clones: int, rng: np.random.Generator, tolerance: float) -> np.ndarray:
    likelihood, prior = evidence.log_likelihood, evidence.log_prior
    fractions, _ = evidence.posteriors(prior + likelihood[_spread_seeds(evidence, clones, rng)])
    counts, before = np.full(len(fractions), len(likelihood) / len(fractions)), -np.inf
    while True:
        weights = digamma(counts + _PSEUDO_COUNT) - digamma((counts + _PSEUDO_COUNT).sum())
        log_share = likelihood @ fractions.T + weights
        top = log_share.max(axis=1, keepdims=True)
        share = np.exp(log_share - top)
        total = share.sum(axis=1, keepdims=True)
        share /= total
        bound = float((top + np.log(total)).sum()) - _divergence(evidence, fractions, counts, weights)
        if bound - before < tolerance * abs(bound):
            return _relabel(share.argmax(axis=1))
        before, counts = bound, share.sum(axis=0)
        keep = counts > 1e-3
        counts, share = counts[keep], share[:, keep]
        fractions, _ = evidence.posteriors(prior + share.T @ likelihood)


def _spread_seeds(evidence: Evidence, clones: int, rng: np.random.Generator) -> np.ndarray:
    """Pick mutations that the groups picked so far explain badly, as k-means++ does."""
    likelihood = evidence.log_likelihood
    own, _ = evidence.posteriors(evidence.log_prior + likelihood)
    best_possible = (own * likelihood).sum(axis=1)
    picked = [int(rng.integers(len(likelihood)))]
    explained = likelihood @ own[picked[0]]
    while len(picked) < min(clones, len(likelihood)):
        loss = np.clip(best_possible - explained, 0, None)
        if loss.sum() <= 0:
            break
        picked.append(int(rng.choice(len(likelihood), p=loss / loss.sum())))
        explained = np.maximum(explained, likelihood @ own[picked[-1]])
    return np.array(picked)


def _divergence(evidence: Evidence, fractions: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> float:
    """How far the fitted fractions and shares are from what was held before the data."""
    logs = np.log(np.maximum(fractions, 1e-300))
    of_fractions = float((fractions * (logs - evidence.log_prior)).sum())
    after, k = counts + _PSEUDO_COUNT, len(counts)
    of_shares = gammaln(after.sum()) - gammaln(after).sum() - gammaln(k * _PSEUDO_COUNT) + k * gammaln(_PSEUDO_COUNT)
    return of_fractions + float(of_shares + ((after - _PSEUDO_COUNT) * weights).sum())


def partition_log_score(evidence: Evidence, labels: np.ndarray, concentration: float = 1.0) -> float:
    """Log probability of a grouping and its data, the groups' fractions integrated out.

    Before the data, groupings follow the Chinese restaurant process, so their number isn't fixed.
    """
    sizes = np.bincount(labels)
    prior = len(sizes) * np.log(concentration) + gammaln(sizes).sum() - _rising(concentration, len(labels))
    _, per_sample = evidence.posteriors(evidence.log_prior + evidence.group_sums(labels))
    return float(per_sample.sum() + prior)


def _rising(concentration: float, n: int) -> float:
    return float(gammaln(concentration + n) - gammaln(concentration))


def merge_groups(evidence: Evidence, labels: np.ndarray) -> np.ndarray:
    """Merge two groups at a time, the best pair first, while the grouping becomes likelier."""
    labels = _relabel(labels)
    while labels.max() > 0:
        sums, sizes = evidence.group_sums(labels), np.bincount(labels)
        _, alone = evidence.posteriors(evidence.log_prior + sums)
        a, b = np.triu_indices(len(sizes), 1)
        _, together = evidence.posteriors(evidence.log_prior + sums[a] + sums[b])
        score = alone.sum(axis=1) + gammaln(sizes)
        gain = together.sum(axis=1) + gammaln(sizes[a] + sizes[b]) - score[a] - score[b]
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        labels = _relabel(np.where(labels == b[best], a[best], labels))
    return labels


def settle(evidence: Evidence, labels: np.ndarray) -> np.ndarray:
    """Move single mutations to the group, old or new, that makes the whole likeliest, until none gains; then merge."""
    sweeps, greedy = 30, True
    pieces = evidence.log_likelihood, evidence.log_prior, evidence.spans
    return merge_groups(evidence, regroup(*pieces, labels, 1, sweeps, 0, greedy)[0])


def sample_partitions(evidence: Evidence, labels: np.ndarray, *, draws: int, seed: int) -> np.ndarray:
    """Draw groupings from their posterior by Gibbs sampling, the groups' fractions integrated out.

    Parameters
    ----------
    evidence : Evidence
    labels : int64 ndarray, shape (n_mutations,)
        Where to begin, as `fit_mixture` gives it.
    draws, seed : int

    Returns
    -------
    int64 ndarray, shape (draws, n_mutations)
        Each draw's groups numbered by size, the largest 0.
    """
    n = len(labels)
    sweeps = int(np.clip(4_000 // n, 1, 10))
    raw = regroup(evidence.log_likelihood, evidence.log_prior, evidence.spans, labels, draws, sweeps, seed, False)
    return np.array([_relabel(draw) for draw in raw])


def _relabel(labels: np.ndarray) -> np.ndarray:
    """Number groups by size, the largest 0; of equal ones the one whose mutation comes first."""
    _, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int64)
    rank[np.lexsort([first, -sizes])] = np.arange(len(sizes))
    return rank[inverse.ravel()]
