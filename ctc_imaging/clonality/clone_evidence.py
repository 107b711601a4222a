"""What a sample's calls or reads say of the fraction of its cancer cells that carry each mutation.

Every function gives log likelihoods, one row a mutation, one column a fraction of the grid; rows of zeros say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, logsumexp

from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.errors import StatisticsError

BULK_GRID = np.linspace(0.0, 1.0, 101)
"""Cancer-cell fractions that a bulk sample may have."""

CELL_GRID = np.array([0.0, 1.0])
"""A single cell has a mutation or hasn't."""

SEQUENCING_ERROR = 0.001
READ_PRECISION = 200.0
"""Of the beta-binomial: reads of one site scatter as if the allele fraction had been measured on 200 alleles."""

_AMPLIFIED = 2.0
"""Of the symmetric beta of a single cell's allele fraction: amplification favours one allele by chance."""

_ABSENT, _WHOLE = 0.25, 0.25
"""Chance, before the data, that a clone isn't in a sample at all, and that it is all of its cancer cells."""


@dataclass(frozen=True)
class BulkErrors:
    """How often presence in a bulk sample is called wrongly, where only presence is known."""

    false_present: float = 0.001
    missed: float = 0.05


@dataclass(frozen=True)
class CopyNumbers:
    """Copies of each mutation's site, and the share of cancer cells in the sample; scalars or shape (n_mutations,)."""

    major: np.ndarray | int = 1
    minor: np.ndarray | int = 1
    normal: np.ndarray | int = 2
    purity: np.ndarray | float = 1.0


def log_prior(grid: np.ndarray) -> np.ndarray:
    """Log chance of each fraction before the data: a clone is absent, all of the sample, or in between.

    Parameters
    ----------
    grid : float64 ndarray, shape (n_grid,)
        `BULK_GRID` or `CELL_GRID`.
    """
    if len(grid) == len(CELL_GRID):
        return np.log([0.5, 0.5])
    between = (1 - _ABSENT - _WHOLE) / (len(grid) - 2)
    return np.log(np.r_[_ABSENT, np.full(len(grid) - 2, between), _WHOLE])


def from_reads(
    ref_count: np.ndarray, alt_count: np.ndarray, copies: CopyNumbers, *, grid: np.ndarray = BULK_GRID
) -> np.ndarray:
    """Log likelihood of reads given the cancer-cell fraction.

    The mutation may lie on 1 to `major` copies, and the change of copy number may be in all cancer cells or only in
    those with the mutation; the likelihood is the mean over these cases (as PyClone does, Roth et al., Nature
    Methods 2014;11:396). Reads are beta-binomial.

    Parameters
    ----------
    ref_count, alt_count : int or float ndarray, shape (n_mutations,)
        NaN, or no reads at all, says nothing.
    copies : CopyNumbers
    grid : float64 ndarray, shape (n_grid,)

    Returns
    -------
    float64 ndarray, shape (n_mutations, n_grid)

    Raises
    ------
    StatisticsError
        Negative reads, a purity outside (0, 1], or a site without copies in the cancer.
    """
    ref, alt = (np.asarray(count, float) for count in (ref_count, alt_count))
    known = ~(np.isnan(ref) | np.isnan(alt))
    ref, alt = np.where(known, ref, 0.0), np.where(known, alt, 0.0)
    major, minor, normal, purity = _checked_copies(copies, ref, alt)
    return _over_copies(ref, alt, major, major + minor, normal, purity, grid)


def _over_copies(
    ref: np.ndarray,
    alt: np.ndarray,
    major: np.ndarray,
    total: np.ndarray,
    normal: np.ndarray,
    purity: np.ndarray,
    grid: np.ndarray,
) -> np.ndarray:
    # Sites of one kind share their allele fractions, so these and the gamma functions of their grid are made once.
    kinds, kind = np.unique(np.column_stack([major, total, normal, purity]), axis=0, return_inverse=True)
    result = np.empty((len(ref), len(grid)))
    for number, (most, copies, healthy, share) in enumerate(kinds.tolist()):
        rows = np.flatnonzero(kind.ravel() == number)
        fractions = _allele_fractions(int(most), copies, healthy, share, grid)
        per_case = [_beta_binomial(ref[rows], alt[rows], fraction) for fraction in fractions]
        result[rows] = logsumexp(per_case, axis=0) - np.log(len(per_case))
    return result


def _allele_fractions(major: int, total: float, normal: float, purity: float, grid: np.ndarray) -> list[np.ndarray]:
    """Expected share of mutated reads on the grid, one array a case of copies."""
    healthy = (1 - purity) * normal
    everywhere = np.full_like(grid, healthy + purity * total)
    alleles = [everywhere]
    if total != normal:
        # Only the cells with the mutation have the other copy number.
        alleles.append(healthy + purity * (grid * total + (1 - grid) * normal))
    return [
        np.clip(purity * grid * mutated / among, SEQUENCING_ERROR, 1 - SEQUENCING_ERROR)
        for mutated in range(1, major + 1)
        for among in alleles
    ]


def _beta_binomial(ref: np.ndarray, alt: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    a, b = READ_PRECISION * fraction, READ_PRECISION * (1 - fraction)
    # Without the binomial coefficient, the same for every fraction. Equal reads are worked out once.
    pairs, which = np.unique(np.column_stack([ref, alt]), axis=0, return_inverse=True)
    return (betaln(pairs[:, 1:] + a, pairs[:, :1] + b) - betaln(a, b))[which.ravel()]


def from_reads_without_purity(
    ref_count: np.ndarray, alt_count: np.ndarray, *, grid: np.ndarray = BULK_GRID
) -> np.ndarray:
    """Log likelihood of reads where purity isn't known: present or not, but not in how many of the cancer cells.

    Parameters and returns as `from_reads`.
    """
    ref, alt = (np.asarray(count, float) for count in (ref_count, alt_count))
    known = ~(np.isnan(ref) | np.isnan(alt))
    ref, alt = np.where(known, ref, 0.0), np.where(known, alt, 0.0)
    absent = _beta_binomial(ref, alt, np.array([SEQUENCING_ERROR]))[:, 0]
    # Present: any allele fraction is as likely as another.
    present = betaln(alt + 1, ref + 1)
    return np.where(grid > 0, present[:, None], absent[:, None])


def from_bulk_calls(
    present: np.ndarray, errors: BulkErrors | None = None, *, grid: np.ndarray = BULK_GRID
) -> np.ndarray:
    """Log likelihood of presence calls of a bulk sample, the same for any fraction above zero.

    Parameters
    ----------
    present : float ndarray, shape (n_mutations,)
        1, 0, or NaN where not known.
    errors : BulkErrors, optional
    grid : float64 ndarray, shape (n_grid,)
    """
    errors = errors or BulkErrors()
    return _presence(present, np.where(grid > 0, 1 - errors.missed, errors.false_present))


def from_cell_calls(present: np.ndarray, errors: CellErrors) -> np.ndarray:
    """Log likelihood of a single cell's presence calls, shape (n_mutations, 2): without the mutation, with it."""
    return _presence(present, np.array([errors.false_discovery, 1 - errors.drop_out]))


def from_cell_reads(ref_count: np.ndarray, alt_count: np.ndarray, errors: CellErrors) -> np.ndarray:
    """Log likelihood of a single cell's reads, shape (n_mutations, 2): without the mutation, with it.

    A mutated site shows both alleles, unevenly amplified, or only one, either being lost at `drop_out`. A site without
    the mutation shows it by an early copying error at `false_discovery`. Sites without reads say nothing.

    Parameters
    ----------
    ref_count, alt_count : float ndarray, shape (n_mutations,)
    errors : CellErrors
    """
    ref, alt = (np.nan_to_num(np.asarray(count, float)) for count in (ref_count, alt_count))
    only_ref, only_alt = (_beta_binomial(ref, alt, np.array([f])) for f in (SEQUENCING_ERROR, 1 - SEQUENCING_ERROR))
    both = betaln(alt + _AMPLIFIED, ref + _AMPLIFIED) - betaln(_AMPLIFIED, _AMPLIFIED)
    false, lost = errors.false_discovery, min(errors.drop_out, 0.499)
    without = np.logaddexp(np.log1p(-false) + only_ref[:, 0], np.log(false) + both)
    carrying = logsumexp(
        [np.log(lost) + only_ref[:, 0], np.log(lost) + only_alt[:, 0], np.log1p(-2 * lost) + both], axis=0
    )
    return np.column_stack([without, carrying])


def from_pool_calls(present: np.ndarray, cells: int, errors: CellErrors, *, grid: np.ndarray = BULK_GRID) -> np.ndarray:
    """Log likelihood of presence calls of a pool or cluster amplified together.

    Of `cells` cells a binomial number carries the mutation; it is missed where every carrier's allele drops out.

    Parameters
    ----------
    present : float ndarray, shape (n_mutations,)
    cells : int
    errors : CellErrors
        Of one cell.
    grid : float64 ndarray, shape (n_grid,)
    """
    missed = (1 - grid * (1 - errors.drop_out)) ** cells
    return _presence(present, 1 - missed * (1 - errors.false_discovery))


def _presence(present: np.ndarray, chance: np.ndarray) -> np.ndarray:
    seen = np.asarray(present, float)[:, None]
    # A chance of 1, all of a grid's last point, would forbid the opposite call.
    chance = np.clip(chance, 1e-9, 1 - 1e-9)
    return np.where(np.isnan(seen), 0.0, np.where(seen == 1, np.log(chance), np.log1p(-chance)))


def _checked_copies(copies: CopyNumbers, ref: np.ndarray, alt: np.ndarray) -> list[np.ndarray]:
    if (ref < 0).any() or (alt < 0).any():
        raise StatisticsError("reads", "a count below zero", "correct the table")
    parts = [
        np.broadcast_to(np.asarray(part, float), ref.shape)
        for part in (copies.major, copies.minor, copies.normal, copies.purity)
    ]
    major, minor, normal, purity = parts
    if not ((purity > 0) & (purity <= 1)).all():
        raise StatisticsError("purity", "a share outside 0 to 1", "give the share of cancer cells, above 0")
    if not ((major >= 1) & (minor >= 0) & (normal >= 0)).all():
        raise StatisticsError("copy number", "a mutated site without copies", "give major_cn of 1 or more")
    return parts
