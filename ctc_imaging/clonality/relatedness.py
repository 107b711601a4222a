"""Every pair of a patient's tumour samples: what they share, how likely that is by chance, how likely they are one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.clonality.cell_pair import Detection, of_cells, of_tissue, with_errors
from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.mutations import Sample, check_calls, depth, frequencies_of, presence
from ctc_imaging.clonality.origin import DEFAULT_ERRORS
from ctc_imaging.clonality.pair_likelihood import PairEvidence, likelihood_ratio, without_errors
from ctc_imaging.clonality.population import PAIRS_NEEDED, PopulationModel, fit_as_published, fit_population
from ctc_imaging.clonality.tail import tail_probability

COLUMNS = (
    *("patient_id", "sample_a", "sample_b", "shared", "private_a", "private_b", "log_likelihood_ratio", "signal"),
    *("p_value", "p_value_se", "p_clonal", "p_clonal_exact", "cell_errors"),
)


def relatedness_of(
    samples: Sequence[Sample],
    calls: pd.DataFrame,
    frequencies: pd.Series,
    *,
    errors: Mapping[str, CellErrors] | None = None,
    seed: int = 0,
    draws: int = 20_000,
) -> pd.DataFrame:
    """Test every pair of tumour samples of each patient for a common origin.

    Parameters
    ----------
    samples : sequence of Sample
    calls : DataFrame
        A row a sample and mutation, as of `mutations.check_calls`. A mutation that isn't known of one of the two, as
        no read covers it or no row tells it, says nothing of the pair.
    frequencies : Series of float
        Marginal frequency by mutation.
    errors : mapping of str to CellErrors, optional
        Of single cells, pools and clusters, by sample; `origin.DEFAULT_ERRORS` for those it doesn't name.
    seed : int
        The same seed gives the same table.
    draws : int
        Where a p-value isn't exact.

    Returns
    -------
    DataFrame
        `COLUMNS`. `log_likelihood_ratio`, natural, of clonal to independent samples, and the clonality `signal` that
        gives it (Ostrovnaya, Seshan & Begg 2015); `p_value`, with its standard error, 0 where exact; `p_clonal` as
        the published population model tells it and `p_clonal_exact` by maximum likelihood, fitted to the first pair
        of each patient and missing where there are fewer than ten; `cell_errors`, whether the pair's likelihood knows
        of drop-out and false calls.

    Raises
    ------
    TableError
        The calls or the frequencies are malformed.
    """
    check_calls(samples, calls)
    known = dict(errors or {})
    rows, pairs = [], []
    for number, (one, other, table) in enumerate(_pairs(samples, calls)):
        evidence = pair_evidence(one, other, table, frequencies, known)
        rows.append(_row(one, other, table, evidence, draws, seed + number))
        pairs.append(evidence)
    published, exact = _populations(rows, pairs)
    for row, evidence in zip(rows, pairs, strict=True):
        row["p_clonal"] = published.p_clonal(evidence) if published else np.nan
        row["p_clonal_exact"] = exact.p_clonal(evidence) if exact else np.nan
    return pd.DataFrame(rows, columns=list(COLUMNS))


def pair_evidence(
    one: Sample, other: Sample, table: pd.DataFrame, frequencies: pd.Series, errors: Mapping[str, CellErrors]
) -> PairEvidence:
    """Set up the evidence of a pair, with errors where one of the two is of few cells.

    Parameters
    ----------
    one, other : Sample
    table : DataFrame
        By mutation: `first` and `second` (1 or 0, none missing), `depth_first` and `depth_second`.
    frequencies : Series of float
    errors : mapping of str to CellErrors
    """
    first, second = (table[name].to_numpy() > 0 for name in ("first", "second"))
    p = frequencies_of(pd.Index(table.index), frequencies)
    if not (one.is_few_cells or other.is_few_cells):
        return without_errors(p[first & second], p[first ^ second])
    detections = (
        _detection(one, table["depth_first"].to_numpy(float), errors),
        _detection(other, table["depth_second"].to_numpy(float), errors),
    )
    return with_errors(first, second, p, detections)


def _detection(sample: Sample, reads: np.ndarray, errors: Mapping[str, CellErrors]) -> Detection:
    if not sample.is_few_cells:
        return of_tissue(len(reads))
    return of_cells(errors.get(sample.sample_id, DEFAULT_ERRORS), sample.cells, reads)


def _pairs(samples: Sequence[Sample], calls: pd.DataFrame) -> Iterator[tuple[Sample, Sample, pd.DataFrame]]:
    told = calls.assign(present=presence(calls), depth=depth(calls))
    by_sample = {str(name): rows.set_index("mutation") for name, rows in told.groupby("sample_id")}
    nothing = told.iloc[:0].set_index("mutation")
    patients = dict.fromkeys(sample.patient_id for sample in samples)
    for patient_id in patients:
        tumour = [sample for sample in samples if sample.patient_id == patient_id and sample.is_tumour]
        for one, other in combinations(tumour, 2):
            yield one, other, _joined(by_sample.get(one.sample_id, nothing), by_sample.get(other.sample_id, nothing))


def _joined(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    both = one.index.intersection(other.index)
    table = pd.DataFrame(
        {
            "first": one.loc[both, "present"],
            "second": other.loc[both, "present"],
            "depth_first": one.loc[both, "depth"],
            "depth_second": other.loc[both, "depth"],
        },
        index=both,
    )
    return table[table["first"].notna() & table["second"].notna()]


def _row(
    one: Sample, other: Sample, table: pd.DataFrame, evidence: PairEvidence, draws: int, seed: int
) -> dict[str, Any]:
    first, second = table["first"] > 0, table["second"] > 0
    found = likelihood_ratio(evidence)
    tail = tail_probability(evidence, draws=draws, seed=seed)
    return {
        "patient_id": one.patient_id,
        "sample_a": one.sample_id,
        "sample_b": other.sample_id,
        "shared": int((first & second).sum()),
        "private_a": int((first & ~second).sum()),
        "private_b": int((second & ~first).sum()),
        "log_likelihood_ratio": found.log_ratio,
        "signal": found.signal,
        "p_value": tail.p_value,
        "p_value_se": tail.standard_error,
        "cell_errors": one.is_few_cells or other.is_few_cells,
    }


def _populations(
    rows: Sequence[Mapping[str, Any]], pairs: Sequence[PairEvidence]
) -> tuple[PopulationModel | None, PopulationModel | None]:
    """Fit the population to each patient's first pair: pairs of one patient aren't independent of each other."""
    first = {row["patient_id"]: pair for row, pair in zip(reversed(rows), reversed(pairs), strict=True) if len(pair)}
    if len(first) < PAIRS_NEEDED:
        return None, None
    chosen = [first[patient] for patient in dict.fromkeys(row["patient_id"] for row in rows) if patient in first]
    return fit_as_published(chosen), fit_population(chosen)
