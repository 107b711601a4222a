"""How often single cells lose an allele or show a false one, from sites where the patient's germline is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.mutations import Sample
from ctc_imaging.clonality.origin import DEFAULT_ERRORS

PRIOR_SITES = 20
"""A cell's own rates are drawn towards those of the patient's cells together as if by so many sites."""

_LEAST, _MOST = 1e-5, 0.95
_HETEROZYGOUS, _REFERENCE = "0/1", "0/0"


def cell_errors_of(
    samples: Sequence[Sample], calls: pd.DataFrame, germline: pd.DataFrame | None
) -> dict[str, CellErrors]:
    """Estimate drop-out and false calls of each sample of few cells.

    At a site where the germline is heterozygous a cell has both alleles. Each gets lost at the drop-out rate d, and a
    site of which both are lost isn't covered, so among covered sites the alternative allele is missing with a chance
    of d / (1 + d). Where the germline has the reference allele twice, any alternative one is a false call.

    Parameters
    ----------
    samples : sequence of Sample
    calls : DataFrame
        Not used where there are no germline sites.
    germline : DataFrame or None
        A row a sample and site: `sample_id`, `genotype` of the germline (0/0, 0/1, 1/1), `present` (whether the
        alternative allele was seen: 1, 0 or missing).

    Returns
    -------
    dict of str to CellErrors
        By sample, of single cells, pools, clusters and leukocytes; `origin.DEFAULT_ERRORS` where nothing tells them.
    """
    few = [sample for sample in samples if sample.is_few_cells]
    if germline is None or germline.empty:
        return {sample.sample_id: DEFAULT_ERRORS for sample in few}
    covered = germline[germline["present"].notna()]
    patients = {sample.sample_id: sample.patient_id for sample in samples}
    by_patient = covered.groupby(covered["sample_id"].map(patients))
    pooled = {patient: _counts(rows) for patient, rows in by_patient}
    return {
        sample.sample_id: _shrunk(_counts(covered[covered["sample_id"] == sample.sample_id]), pooled[sample.patient_id])
        if sample.patient_id in pooled
        else DEFAULT_ERRORS
        for sample in few
    }


def drop_out_of(missing_share: float) -> float:
    """Turn the share of covered heterozygous sites without the alternative allele, d / (1 + d), into d."""
    return float(np.clip(missing_share / max(1 - missing_share, 1e-9), _LEAST, _MOST))


def _counts(rows: pd.DataFrame) -> np.ndarray:
    """Heterozygous sites, those without the alternative allele, reference sites, those with one."""
    seen = rows["present"].astype(float).to_numpy() > 0
    het, ref = (rows["genotype"].to_numpy() == kind for kind in (_HETEROZYGOUS, _REFERENCE))
    return np.array([het.sum(), (het & ~seen).sum(), ref.sum(), (ref & seen).sum()], float)


def _shrunk(own: np.ndarray, pooled: np.ndarray) -> CellErrors:
    het, missing, ref, false = own
    prior_missing = _share(pooled[1], pooled[0], DEFAULT_ERRORS.drop_out / (1 + DEFAULT_ERRORS.drop_out))
    prior_false = _share(pooled[3], pooled[2], DEFAULT_ERRORS.false_discovery)
    missing_share = (missing + PRIOR_SITES * prior_missing) / (het + PRIOR_SITES)
    false_share = (false + PRIOR_SITES * prior_false) / (ref + PRIOR_SITES)
    return CellErrors(float(np.clip(false_share, _LEAST, _MOST)), drop_out_of(missing_share))


def _share(part: float, whole: float, default: float) -> float:
    """A share, drawn towards the default as if by `PRIOR_SITES` sites more."""
    return (part + PRIOR_SITES * default) / (whole + PRIOR_SITES)
