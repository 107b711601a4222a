"""Who is on a slide: cells and dirt with their sizes, stains and neighbours, drawn before any pixel."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctc_imaging.simulation.settings import Setting

MARKERS = ("dapi", "ck", "vim", "cd45")
"""Short names of the stains the simulator knows, from short to long wavelength."""

POSITIVE_SNR = 3.0
"""A CTC is positive for a marker when its true SNR reaches this."""

_CK_TO_VIMENTIN_CORRELATION = -0.4


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
    snr = [f"snr_{marker}" for marker in MARKERS]
    cells[snr] *= setting.snr_factor
    return cells


def _draw_ctcs(setting: Setting, count: int, rng: np.random.Generator) -> pd.DataFrame:
    ck, vimentin = _draw_continuum(setting, count, rng)
    return pd.DataFrame(
        {
            "kind": "ctc",
            "diameter_um": setting.ctc_diameter_um.draw_within(count, *setting.ctc_diameter_range_um, rng),
            "nucleus": "oval",
            "nucleus_ratio": rng.uniform(0.68, 0.88, count),
            "snr_ck": ck,
            "snr_vim": vimentin,
            "snr_cd45": 0.0,
        }
    )


def _draw_continuum(
    setting: Setting, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw CK and vimentin SNR of CTCs along the epithelial (0) to mesenchymal (1) continuum.

    Vimentin's median grows with the place on the continuum; CK keeps its pinned distribution over all
    CTCs and is the weaker the more mesenchymal a cell is, by rank.
    """
    place = np.ones(count) if setting.ctc_all_mesenchymal else rng.beta(0.7, 1.0, count)
    vimentin = setting.ctc_vimentin_snr.draw(count, rng) * place
    if setting.ctc_ck_max_snr is not None:
        return rng.uniform(0, setting.ctc_ck_max_snr, count), vimentin
    # 1 - (1 - place)^1 ranks the place roughly uniformly; its normal score carries the correlation.
    score = _normal_scores(place, rng)
    own = rng.standard_normal(count)
    rho = _CK_TO_VIMENTIN_CORRELATION
    return setting.ctc_ck_snr.at(rho * score + np.sqrt(1 - rho**2) * own), vimentin
