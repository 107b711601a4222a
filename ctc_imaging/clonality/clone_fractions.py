"""Clones of a patient's bulk samples, and the fraction of each sample's cancer cells that belongs to each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ctc_imaging.clonality.clone_evidence import BULK_GRID, CopyNumbers, from_reads, log_prior
from ctc_imaging.clonality.clone_mixture import Evidence, fit_mixture
from ctc_imaging.errors import StatisticsError

COUNTS = ("mutation", "sample_id", "ref_count", "alt_count")
COPIES = {"major_cn": 1, "minor_cn": 1, "normal_cn": 2}
"""Columns of copy number, and what is taken where they aren't given: two copies, one mutated."""


@dataclass(frozen=True)
class CloneFractions:
    """Mutations in groups, with their cancer-cell fractions.

    Attributes
    ----------
    clones : DataFrame
        A row a clone and sample: `clone` (0 the one of most mutations), `sample_id`, `mutations` (their number),
        `fraction` (posterior mean), `low`, `high` (95 % credible limits).
    mutations : DataFrame
        A row a mutation: `mutation`, `clone`, `chance` that it belongs there.
    """

    clones: pd.DataFrame
    mutations: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Fractions as a table, a row a clone, a column a sample."""
        return self.clones.pivot(index="clone", columns="sample_id", values="fraction")


def fit_clone_fractions(
    reads: pd.DataFrame, *, clones: int = 20, restarts: int = 5, seed: int = 0, purity: float | None = None
) -> CloneFractions:
    """Group mutations by their cancer-cell fractions in all samples at once.

    A finite mixture with beta-binomial reads and a fraction per clone and sample, fitted by variational Bayes as
    PyClone-VI is (Gillis & Roth, BMC Bioinformatics 2020;21:571), after which clones are merged two by two while
    the exact marginal likelihood gains. Of several fits the grouping of highest marginal likelihood is kept.

    Parameters
    ----------
    reads : DataFrame
        A row a mutation and sample: `mutation`, `sample_id`, `ref_count`, `alt_count`; optional `major_cn`,
        `minor_cn`, `normal_cn` (defaults 1, 1, 2) and `purity`. A mutation without a row, without reads or at a
        site without copies in some sample is grouped by the others.
    clones : int
        Most clones to begin with.
    restarts : int
    seed : int
        The same seed gives the same clones.
    purity : float, optional
        For rows without `purity`.

    Returns
    -------
    CloneFractions

    Raises
    ------
    StatisticsError
        A column or a purity is missing, a mutation stands twice in a sample, or a number has no meaning.
    """
    reads = _checked(reads, purity)
    mutations, samples = reads["mutation"].unique(), reads["sample_id"].unique()
    likelihoods = [reads_likelihood(reads[reads["sample_id"] == sample], mutations) for sample in samples]
    n = len(samples)
    evidence = Evidence.of(likelihoods, [BULK_GRID] * n, [log_prior(BULK_GRID)] * n)
    labels = fit_mixture(evidence, clones=clones, restarts=restarts, seed=seed)
    return CloneFractions(_clone_rows(evidence, labels, list(samples)), _mutation_rows(evidence, labels, mutations))


def reads_likelihood(reads: pd.DataFrame, mutations: np.ndarray, grid: np.ndarray = BULK_GRID) -> np.ndarray:
    """Log likelihood of one sample's reads for each fraction, in the order of `mutations`; zeros where none."""
    rows = reads.set_index("mutation").reindex(mutations)
    copies = {name: _number(rows, name).fillna(default).to_numpy() for name, default in COPIES.items()}
    lost = copies["major_cn"] < 1
    alt = np.where(lost, np.nan, _number(rows, "alt_count"))
    pieces = CopyNumbers(
        np.maximum(copies["major_cn"], 1),
        copies["minor_cn"],
        copies["normal_cn"],
        _number(rows, "purity").fillna(1.0).to_numpy(),
    )
    return from_reads(_number(rows, "ref_count").to_numpy(), alt, pieces, grid=grid)


def _number(rows: pd.DataFrame, name: str) -> pd.Series:
    if name not in rows:
        return pd.Series(np.nan, rows.index)
    return pd.to_numeric(rows[name], errors="coerce").astype(float)


def _checked(reads: pd.DataFrame, purity: float | None) -> pd.DataFrame:
    missing = [name for name in COUNTS if name not in reads]
    if missing:
        raise StatisticsError("reads", f"there is no column {missing[0]}", f"give {', '.join(COUNTS)}")
    if reads.empty:
        raise StatisticsError("reads", "there are no mutations", "give a row a mutation and sample")
    twice = reads.duplicated(["mutation", "sample_id"])
    if twice.any():
        mutation, sample = reads.loc[twice, ["mutation", "sample_id"]].iloc[0]
        raise StatisticsError("reads", f"{mutation} stands twice in sample {sample}", "keep one row of the two")
    given = _number(reads, "purity")
    if purity is not None:
        given = given.fillna(purity)
    if given.isna().any():
        sample = reads.loc[given.isna(), "sample_id"].iloc[0]
        remedy = "give its purity; without it only presence can be told"
        raise StatisticsError("purity", f"sample {sample} has none", remedy)
    return reads.assign(purity=given)


def _clone_rows(evidence: Evidence, labels: np.ndarray, samples: list[str]) -> pd.DataFrame:
    sizes = np.bincount(labels)
    rows = []
    posteriors = evidence.per_sample(evidence.posterior_of(labels))
    for clone, size in enumerate(sizes):
        for sample, posterior in zip(samples, posteriors, strict=True):
            low, high = credible_limits(posterior[clone], BULK_GRID)
            rows.append((clone, sample, int(size), float(posterior[clone] @ BULK_GRID), low, high))
    return pd.DataFrame(rows, columns=["clone", "sample_id", "mutations", "fraction", "low", "high"])


def credible_limits(posterior: np.ndarray, grid: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Equal-tailed limits of a fraction from its posterior on a grid."""
    below = np.cumsum(posterior)
    last = len(grid) - 1
    low, high = np.searchsorted(below, [(1 - level) / 2, 1 - (1 - level) / 2])
    return float(grid[min(low, last)]), float(grid[min(high, last)])


def _mutation_rows(evidence: Evidence, labels: np.ndarray, mutations: np.ndarray) -> pd.DataFrame:
    log_share = evidence.log_likelihood @ evidence.posterior_of(labels).T + np.log(np.bincount(labels))
    share = np.exp(log_share - log_share.max(axis=1, keepdims=True))
    chance = share[np.arange(len(labels)), labels] / share.sum(axis=1)
    return pd.DataFrame({"mutation": mutations, "clone": labels, "chance": chance})
