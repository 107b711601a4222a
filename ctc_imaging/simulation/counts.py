"""Simulated counts of samples, with no pixels behind them, for survival at scale."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ctc_imaging.counting import COUNT_COLUMNS, poisson_limits, typed_counts
from ctc_imaging.simulation.population import draw_continuum, phenotypes
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
    table["assessed_volume_ml"] = (table["blood_volume_ml"] * table["assessed_fraction"]).round(4)
    table = table.assign(**_draw_cells(table["ctc"].to_numpy(), leukocytes, setting, rng))
    low, high = poisson_limits(table["ctc"])
    for name, value in (("ctc_per_ml", table["ctc"]), ("ctc_per_ml_low", low), ("ctc_per_ml_high", high)):
        table[name] = value / table["assessed_volume_ml"]
    table["reviewed"] = 0
    table["quality_reasons"] = np.where(table["assessable"], "", "out of focus")
    kept = set(samples.columns) - {"ctc"} | {"slides", "assessable", "quality_reasons", "assessed_fraction"}
    table = table.reindex(columns=list(COUNT_COLUMNS))
    counted = [name for name in COUNT_COLUMNS if name not in kept]
    table[counted] = table[counted].where(table["assessable"])
    return typed_counts(table)


def _draw_cells(ctc: np.ndarray, leukocytes: int, setting: Setting, rng: np.random.Generator) -> dict[str, np.ndarray]:
    total = int(ctc.sum())
    ck, vimentin = draw_continuum(setting, total, rng)
    named = pd.crosstab(
        np.repeat(np.arange(len(ctc)), ctc), phenotypes(ck * setting.snr_factor, vimentin * setting.snr_factor)
    )
    white, dirt, unsure = (
        rng.poisson(leukocytes * share, len(ctc))
        for share in (1, _ARTEFACTS_PER_LEUKOCYTE, _INDETERMINATE_PER_LEUKOCYTE)
    )
    return {
        "leukocyte": white,
        "artefact": dirt,
        "indeterminate": unsure,
        "cells": white + dirt + unsure + ctc,
        "ctc_machine": ctc,
        **{
            f"ctc_{name}": named.get(name, pd.Series(dtype=int)).reindex(range(len(ctc)), fill_value=0).to_numpy()
            for name in ("epithelial", "hybrid", "mesenchymal", "undetermined")
        },
        "ctc_clusters": rng.binomial(ctc // 2, setting.ctc_clustered_fraction / 2),
        "ctc_leukocyte_clusters": rng.binomial(ctc, setting.ctc_leukocyte_cluster_fraction),
    }
