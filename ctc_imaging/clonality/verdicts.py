"""The verdict on a pair of samples: what the test of relatedness says, and then the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import binom

from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.mutations import Sample
from ctc_imaging.clonality.origin import CANNOT_TELL, COMMON_ORIGIN, DEFAULT_ERRORS, SURE, UNRELATED, Origin
from ctc_imaging.clonality.records import records

CONTRADICTION = "contradiction"
RELATED_P = 0.01
"""p-value up to which two samples are called related where no population model says more."""

_NOT_SHOWN_P, _LEAST_SIGNAL, _MISSED = 0.05, 0.2, 0.05


def verdicts_of(
    related: pd.DataFrame, samples: Sequence[Sample], origin: Origin | None, errors: Mapping[str, CellErrors]
) -> pd.DataFrame:
    """Give each pair of a patient its verdict: the test goes first, the tree speaks of related pairs only.

    Parameters
    ----------
    related : DataFrame
        As from `relatedness_of`, with `by_breakpoints`.
    samples : sequence of Sample
    origin : Origin or None
    errors : mapping of str to CellErrors

    Returns
    -------
    DataFrame
        With `verdict`, which is `CONTRADICTION` where test and tree say opposite things, and `support`.
    """
    known = {sample.sample_id: sample for sample in samples}
    by_tree = {} if origin is None else {
        frozenset((row["sample_a"], row["sample_b"])): (row["verdict"], row["support"]) for row in records(origin.pairs)
    }  # fmt: skip
    verdicts, supports = [], []
    for row in records(related):
        pair = row["sample_a"], row["sample_b"]
        kept = np.prod([1 - _lost(known[name], errors) for name in pair])
        tested = COMMON_ORIGIN if row["by_breakpoints"] else relation(row, float(kept))
        tree, support = (None, np.nan) if row["by_breakpoints"] else by_tree.get(frozenset(pair), (None, np.nan))
        verdict, decided = _combined(tested, tree)
        verdicts.append(verdict)
        supports.append(support if decided else np.nan)
    return related.assign(verdict=verdicts, support=supports)


def relation(pair: Mapping[str, object], kept: float = 1.0) -> str:
    """Say by the test alone whether two samples are related.

    Parameters
    ----------
    pair : mapping
        A row of `relatedness_of`.
    kept : float
        Share of shared mutations that drop-out leaves visible in both.

    Returns
    -------
    str
        `common_origin`: the population model gives 0.9 or more, or p is at most 0.01 without it. `unrelated`: the
        model gives 0.1 or less; without it, p is above 0.05 and so few are shared that a pair with a fifth of its
        mutations in common would share as few with a chance below 0.05. Else `cannot_tell`.
    """
    p_value, p_clonal = (float(str(pair[name])) for name in ("p_value", "p_clonal"))
    shared, private_a, private_b = (int(str(pair[name])) for name in ("shared", "private_a", "private_b"))
    seen = shared + private_a + private_b
    if np.isfinite(p_clonal):
        told = COMMON_ORIGIN if p_clonal >= SURE else UNRELATED if p_clonal <= 1 - SURE else CANNOT_TELL
        # The model knows nothing of drop-out or of how few mutations there are: it can't say unrelated alone.
        return CANNOT_TELL if told == UNRELATED and not _would_show(shared, seen, kept) else told
    if p_value <= RELATED_P:
        return COMMON_ORIGIN
    return UNRELATED if p_value > _NOT_SHOWN_P and _would_show(shared, seen, kept) else CANNOT_TELL


def _would_show(shared: int, seen: int, kept: float) -> bool:
    return seen > 0 and float(binom.cdf(shared, seen, _LEAST_SIGNAL * kept)) < _MISSED


def _lost(sample: Sample, errors: Mapping[str, CellErrors]) -> float:
    if not sample.is_few_cells:
        return 0.0
    return float(errors.get(sample.sample_id, DEFAULT_ERRORS).drop_out ** sample.cells)


def _combined(tested: str, tree: str | None) -> tuple[str, bool]:
    """Put test and tree together; the second says whether the tree decided."""
    if tree is None or tested != COMMON_ORIGIN:
        return tested, False
    return (CONTRADICTION if tree == UNRELATED else tree), tree != UNRELATED
