r"""The evidence of two samples of which at least one is of few cells: mutations get lost, and some calls are false.

A mutation that a cell has is missed where its allele drops out; one that it doesn't have is called by mistake now and
then. Each outcome of a pair (seen in both, in the first, in the second) is then a sum over what may be so, and stays
linear in the clonality signal. In a pool or cluster of k cells that has the mutation at all, any number of the cells
from 1 to k may carry it, each number as likely, and it is missed where the alleles of all of them drop out. Where few
reads lie over a site, the mutated allele may be there and not be among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.pair_likelihood import PairEvidence

BOTH, FIRST_ONLY, SECOND_ONLY = 0, 1, 2
"""Columns of the evidence."""


@dataclass(frozen=True)
class Detection:
    """How well a sample tells its mutations.

    Attributes
    ----------
    seen : float ndarray, shape (n_mutations,)
        Chance that a mutation it has is called.
    false : float
        Chance that one it doesn't have is called.
    """

    seen: np.ndarray
    false: float


def of_tissue(count: int) -> Detection:
    """A sample whose calls are taken at their word."""
    return Detection(np.ones(count), 0.0)


def of_cells(errors: CellErrors, cells: int, depth: np.ndarray) -> Detection:
    """A single cell, or a pool or cluster of several that were amplified as one.

    Parameters
    ----------
    errors : CellErrors
        Of one cell.
    cells : int
    depth : float ndarray, shape (n_mutations,)
        Reads over each site; NaN where it isn't known, which is taken as enough.
    """
    carriers = np.arange(1, cells + 1)
    kept = float(np.mean(1 - errors.drop_out**carriers))
    # The mutated allele is half of a carrier's alleles; n reads miss it with a chance of (1 - share)^n.
    share = float(np.mean(carriers)) / cells / 2 if cells > 1 else 0.5
    by_reads = np.where(np.isnan(depth), 1.0, 1 - (1 - share) ** np.nan_to_num(depth))
    # To two digits: mutations of the same chances are then told together, which makes p-values quick.
    return Detection(np.clip(kept * by_reads, 0.01, None).round(2), 1 - (1 - errors.false_discovery) ** cells)


def with_errors(
    first: np.ndarray, second: np.ndarray, frequencies: np.ndarray, detections: tuple[Detection, Detection]
) -> PairEvidence:
    """Set up the evidence of two samples that may miss mutations and call false ones.

    Parameters
    ----------
    first, second : bool ndarray, shape (n_mutations,)
        Which mutations were called in each; only those called in either are evidence.
    frequencies : float ndarray, shape (n_mutations,)
        Marginal frequencies.
    detections : tuple of Detection
        Of the first sample and the second.

    Returns
    -------
    PairEvidence
        Its outcomes are `BOTH`, `FIRST_ONLY` and `SECOND_ONLY`.
    """
    called = first | second
    p = frequencies[called]
    seen = [np.stack([np.full(len(p), one.false), one.seen[called]]) for one in detections]
    independent, same = _chances(p, *seen)
    outcome = np.where(first & second, BOTH, np.where(first, FIRST_ONLY, SECOND_ONLY))[called]
    return PairEvidence(independent, same, outcome.astype(np.int64))


def _chances(p: np.ndarray, seen_first: np.ndarray, seen_second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chance of each outcome if the mutation arose twice, and if it arose once, shape (n, 3) each.

    `seen` has shape (2, n): the chance to be called where the sample doesn't have it, and where it has.
    """
    independent, same = np.zeros((len(p), 3)), np.zeros((len(p), 3))
    has = np.stack([1 - p, p])
    for one in (0, 1):
        for other in (0, 1):
            a, b = seen_first[one], seen_second[other]
            outcomes = np.column_stack([a * b, a * (1 - b), (1 - a) * b])
            independent += (has[one] * has[other])[:, None] * outcomes
            if one == other:
                same += has[one][:, None] * outcomes
    return independent, same
