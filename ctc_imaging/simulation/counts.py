"""Simulated counts of samples, with no pixels behind them, for survival at scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctc_imaging.counting import COUNT_COLUMNS, poisson_limits, typed_counts
from ctc_imaging.simulation.population import PHENOTYPES, draw_continuum, phenotypes
from ctc_imaging.simulation.settings import Setting

UNASSESSABLE_FRACTION = 0.03
_ARTEFACTS_PER_LEUKOCYTE = 0.04
_INDETERMINATE_PER_LEUKOCYTE = 0.005


def draw_count_table(
    samples: pd.DataFrame, leukocytes: int, setting: Setting, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw a counts.csv for samples whose true CTCs are known, as if all had been found and nothing else.

    Parameters
    ----------
    samples : DataFrame
        `sample_id`, `patient_id`, `sample_date`, `sample_kind`, `blood_volume_ml`, `ctc`.
    leukocytes : int
        Mean number in a sample.
    setting : Setting
        Gives the phenotypes and the clusters.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        The columns of counts.csv, one row a sample. A few samples aren't assessable: their counts are missing.
    """
    table = samples.assign(slides=1, assessable=rng.random(len(samples)) >= UNASSESSABLE_FRACTION)
    table["assessed_fraction"] = rng.beta(60, 2, len(table)).round(4)
    table["assessed_volume_ml"] = table["blood_volume_ml"] * table["assessed_fraction"]
    table["ctc"] = rng.binomial(table["ctc"], table["assessed_fraction"])
    table = table.assign(**_draw_cells(table["ctc"].to_numpy(), leukocytes, setting, rng))
    low, high = poisson_limits(table["ctc"])
    for name, value in (("ctc_per_ml", table["ctc"]), ("ctc_per_ml_low", low), ("ctc_per_ml_high", high)):
        table[name] = value / table["assessed_volume_ml"]
    table["quality_reasons"] = np.where(table["assessable"], "", "out of focus")
    table = table.reindex(columns=list(COUNT_COLUMNS))
    counted = ["assessed_volume_ml", *COUNT_COLUMNS[COUNT_COLUMNS.index("cells") :]]
    table[counted] = table[counted].where(table["assessable"])
    return typed_counts(table)


def _draw_cells(
    ctc: NDArray[np.int64], leukocytes: int, setting: Setting, rng: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    """Counts of cells by class, phenotype and cluster in samples with so many CTCs."""
    white = rng.poisson(leukocytes, len(ctc))
    dirt = rng.poisson(leukocytes * _ARTEFACTS_PER_LEUKOCYTE, len(ctc))
    unsure = rng.poisson(leukocytes * _INDETERMINATE_PER_LEUKOCYTE, len(ctc))
    sample = np.repeat(np.arange(len(ctc)), ctc)
    ck, vimentin = draw_continuum(setting, len(sample), rng)
    named = phenotypes(ck * setting.snr_factor, vimentin * setting.snr_factor)
    return {
        "cells": white + dirt + unsure + ctc,
        "leukocyte": white,
        "artefact": dirt,
        "indeterminate": unsure,
        **{f"ctc_{name}": np.bincount(sample[named == name], minlength=len(ctc)) for name in PHENOTYPES},
        "ctc_clusters": rng.binomial(ctc // 2, setting.ctc_clustered_fraction / 2),
        "ctc_leukocyte_clusters": rng.binomial(ctc, setting.ctc_leukocyte_cluster_fraction),
        "ctc_machine": ctc,
        "reviewed": np.zeros_like(ctc),
    }
