"""From bootstrap draws to figures with limits: each stratum's own, and by how much the strata differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import t as student

from ctc_imaging.recurrence.treatment.weighted_survival import TREATED, UNTREATED, Counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

STRATA = ("negative", "positive")
QUANTITIES = ("rfs_untreated", "rfs_treated", "rfs_difference", "restricted_mean_difference", "log_hazard_ratio")
# The first is one arm's; those from here on compare two.
_CONTRASTS = 2


def quantities(counts: Counted, horizon: float) -> Floats:
    """Compute `QUANTITIES` of one stratum, an array of shape (5,)."""
    # A bootstrap draw may leave an arm without patients.
    known = np.where(counts.at_risk.max(axis=1, initial=0.0) > 0, 1.0, np.nan)
    untreated, treated = known * counts.survival_at(horizon)
    means = known * counts.restricted_mean(horizon)
    return np.array(
        [untreated, treated, treated - untreated, means[TREATED] - means[UNTREATED], counts.log_hazard_ratio()]
    )


def by_stratum(estimates: Floats, drawn: Floats, smallest: NDArray[np.intp]) -> pd.DataFrame:
    """Give each stratum's figures with 95 % limits.

    Parameters
    ----------
    estimates : ndarray of float64, shape (2, 5)
        Strata by quantities.
    drawn : ndarray of float64, shape (m, 2, 5)
        The same of each bootstrap draw.
    smallest : ndarray of int, shape (2,)
        Patients in the smaller arm of each stratum.

    Returns
    -------
    DataFrame
        `stratum`, `quantity`, `estimate`, `low`, `high`; the hazard ratio in place of its logarithm.
    """
    rows = []
    for index, stratum in enumerate(STRATA):
        for place, name in enumerate(QUANTITIES):
            figures = (estimates[index, place], drawn[:, index, place])
            found = _centiles(*figures) if place < _CONTRASTS else _limits(*figures, smallest[index])[:3]
            rows.append((stratum, *_shown(name, found)))
    return pd.DataFrame(rows, columns=["stratum", "quantity", "estimate", "low", "high"])


def interaction(estimates: Floats, drawn: Floats, smallest: NDArray[np.intp]) -> pd.DataFrame:
    """Say by how much the effect in positive patients differs from that in negative ones; see `by_stratum`.

    Returns
    -------
    DataFrame
        `quantity`, `estimate`, `low`, `high`, `p`; the ratio of hazard ratios in place of their logarithms' difference.
    """
    rows = []
    for place, name in list(enumerate(QUANTITIES))[_CONTRASTS:]:
        contrast = drawn[:, 1, place] - drawn[:, 0, place]
        *figures, p = _limits(estimates[1, place] - estimates[0, place], contrast, smallest.min())
        rows.append((*_shown(name, (figures[0], figures[1], figures[2])), p))
    return pd.DataFrame(rows, columns=["quantity", "estimate", "low", "high", "p"])


def _centiles(estimate: float, drawn: Floats) -> tuple[float, float, float]:
    found = drawn[np.isfinite(drawn)]
    if not np.isfinite(estimate) or len(found) < 2:
        return float(estimate), float("nan"), float("nan")
    low, high = np.quantile(found, [0.025, 0.975])
    return float(estimate), float(low), float(high)


def _limits(estimate: float, drawn: Floats, smallest: int) -> tuple[float, float, float, float]:
    """95 % limits and two-sided p-value by the draws' spread and Student's t, one degree below the smallest arm.

    With the normal quantile or the draws' centiles they are a little short in small arms: benchmarks/treatment.py.
    """
    found = drawn[np.isfinite(drawn)]
    if not np.isfinite(estimate) or len(found) < max(2, len(drawn) / 2):
        return float(estimate), float("nan"), float("nan"), float("nan")
    spread, freedom = float(found.std(ddof=1)), max(int(smallest) - 1, 1)
    half = float(student.isf(0.025, freedom)) * spread
    p = float(2 * student.sf(abs(estimate) / spread, freedom)) if spread > 0 else float("nan")
    return float(estimate), float(estimate) - half, float(estimate) + half, p


def _shown(name: str, figures: tuple[float, float, float]) -> tuple[str, float, float, float]:
    if name == "log_hazard_ratio":
        value, low, high = np.exp(figures)
        return "hazard_ratio", float(value), float(low), float(high)
    return name, *figures
