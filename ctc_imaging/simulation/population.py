"""Who is on a slide: cells with their sizes, shapes and stains, drawn before any pixel."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr

from ctc_imaging.simulation.settings import Setting

MARKERS = ("dapi", "ck", "vim", "cd45")
"""Short names of the stains the simulator knows, from short to long wavelength."""

POSITIVE_SNR = 3.0
"""A CTC is positive for a marker when its true SNR reaches this."""

PHENOTYPES = ("epithelial", "hybrid", "mesenchymal", "undetermined")
"""Names of a CTC's phenotypes."""

_CONTINUUM_BETA = (0.7, 1.0)
_CK_SCORE_ON_CONTINUUM = -0.4


def draw_cells(setting: Setting, ctc: int, leukocytes: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the cells of a slide, CTCs first.

    Parameters
    ----------
    setting : Setting
    ctc, leukocytes : int
        How many of each.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        One row a cell: `kind` (``ctc`` or ``leukocyte``), `diameter_um` (of the circle of equal area),
        `nucleus` (``oval``, ``round``, ``kidney``, ``lobed``), `nucleus_ratio` (nuclear over cell
        diameter), `dying`, and `snr_MARKER` for each of `MARKERS`.
    """
    cells = pd.concat([_draw_ctcs(setting, ctc, rng), _draw_leukocytes(setting, leukocytes, rng)], ignore_index=True)
    cells["dying"] = rng.random(len(cells)) < setting.dying_fraction
    cells["snr_dapi"] = setting.nucleus_snr.draw(len(cells), rng)
    cells[[f"snr_{marker}" for marker in MARKERS]] *= setting.snr_factor
    return cells


def _draw_ctcs(setting: Setting, count: int, rng: np.random.Generator) -> pd.DataFrame:
    ck, vimentin = draw_continuum(setting, count, rng)
    return pd.DataFrame(
        {
            "kind": ["ctc"] * count,
            "diameter_um": setting.ctc_diameter_um.draw_within(count, *setting.ctc_diameter_range_um, rng),
            "nucleus": ["oval"] * count,
            "nucleus_ratio": rng.uniform(0.68, 0.88, count),
            "snr_ck": ck,
            "snr_vim": vimentin,
            "snr_cd45": np.zeros(count),
        }
    )


def draw_continuum(
    setting: Setting, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw CK and vimentin SNR of CTCs along the epithelial (0) to mesenchymal (1) continuum.

    Vimentin's median is proportional to the place on the continuum. CK keeps its pinned distribution
    over all CTCs, and is the weaker the more mesenchymal a cell is (a Gaussian copula).

    Parameters
    ----------
    setting : Setting
    count : int
    rng : numpy.random.Generator

    Returns
    -------
    ck, vimentin : ndarray of float64, shape (count,)
    """
    score, own = rng.standard_normal((2, count))
    place = np.ones(count) if setting.ctc_all_mesenchymal else betaincinv(*_CONTINUUM_BETA, ndtr(score))
    vimentin = setting.ctc_vimentin_snr.draw(count, rng) * place
    if setting.ctc_ck_max_snr is not None:
        return rng.uniform(0, setting.ctc_ck_max_snr, count), vimentin
    rho = _CK_SCORE_ON_CONTINUUM
    return setting.ctc_ck_snr.at(rho * score + np.sqrt(1 - rho**2) * own), vimentin


def _draw_leukocytes(setting: Setting, count: int, rng: np.random.Generator) -> pd.DataFrame:
    mean, sd = setting.leukocyte_diameter_um
    kinds = rng.random(count)
    lobed, kidney = kinds < setting.lobed_fraction, kinds >= 1 - setting.kidney_fraction
    nucleus = np.where(lobed, "lobed", np.where(kidney, "kidney", "round"))
    ratio = np.where(lobed, rng.uniform(0.58, 0.68, count), rng.uniform(0.70, 0.88, count))
    stray = np.zeros(count)
    stray[: expected_count(setting.nonspecific_ck, count, rng)] = 1
    return pd.DataFrame(
        {
            "kind": ["leukocyte"] * count,
            "diameter_um": mean + sd * np.clip(rng.standard_normal(count), -2.5, 2.5),
            "nucleus": nucleus,
            "nucleus_ratio": ratio,
            "snr_ck": stray * setting.nonspecific_ck_snr.draw(count, rng),
            "snr_vim": setting.leukocyte_vimentin_snr.draw(count, rng),
            "snr_cd45": setting.leukocyte_cd45_snr.draw(count, rng),
        }
    )


def expected_count(per_thousand: float, leukocytes: int, rng: np.random.Generator) -> int:
    """How many objects a rate per 1,000 leukocytes makes: the whole part, and Poisson for the rest."""
    expected = per_thousand * leukocytes / 1000
    return int(expected) + int(rng.poisson(expected % 1))


def phenotypes(ck_snr: NDArray[np.float64], vimentin_snr: NDArray[np.float64]) -> NDArray[np.str_]:
    """Phenotype of CTCs by their true SNRs.

    Parameters
    ----------
    ck_snr, vimentin_snr : ndarray of float64, shape (n,)

    Returns
    -------
    ndarray of str, shape (n,)
        ``epithelial`` (CK only), ``hybrid`` (both), ``mesenchymal`` (vimentin only), ``undetermined``
        (neither is bright enough to tell, or the panel has no vimentin: SNR missing).
    """
    ck, vimentin = ck_snr >= POSITIVE_SNR, vimentin_snr >= POSITIVE_SNR
    named = np.select([ck & vimentin, ck, vimentin], ["hybrid", "epithelial", "mesenchymal"], "undetermined")
    return np.where(np.isnan(vimentin_snr), "undetermined", named)
