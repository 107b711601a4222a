"""Recovery pooled over spiked tubes, with limits that know whether the tubes differ by more than chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, chdtrc

from ctc_imaging.assay.spread import recovery_variances

# Tubes are uneven from this chance on that tubes of one recovery differ as much.
_UNEVEN = 0.05
# Below it more is lost than found.
MIN_RECOVERY = 0.5


@dataclass(frozen=True)
class PooledRecovery:
    """Cells found of those spiked into several tubes.

    Attributes
    ----------
    tubes : int
    share, low, high : float
        The share found of the cells in the assessed blood, with 95 % limits.
    uneven : bool
        Whether the tubes differ by more than chance (Pearson's test of homogeneity, p < 0.05).
    """

    tubes: int
    share: float
    low: float
    high: float
    uneven: bool

    @property
    def passed(self) -> bool:
        """Whether at least half of the cells can have been found."""
        return self.high >= MIN_RECOVERY


def pool_recovery(found: ArrayLike, spiked: ArrayLike, assessed_share: ArrayLike = 1.0) -> PooledRecovery | None:
    """Pool spiked tubes.

    Limits are Clopper and Pearson's (Biometrika 1934;26:404-13) where the tubes agree, else those of the mean of a
    beta-binomial distribution.

    Parameters
    ----------
    found, spiked : array_like
        One value a tube: cells called CTC, less the false calls to expect, and cells put in.
    assessed_share : array_like
        Share of each tube's blood that was assessed.

    Returns
    -------
    PooledRecovery or None
        None where no cell was spiked.

    Examples
    --------
    >>> pooled = pool_recovery([85, 75, 83], [100, 100, 100])
    >>> round(pooled.low, 3), round(pooled.share, 3), round(pooled.high, 3), pooled.uneven
    (0.761, 0.81, 0.853, False)
    """
    values = (np.atleast_1d(np.asarray(value, dtype=float)) for value in (found, spiked, assessed_share))
    hits, put_in, assessed = np.broadcast_arrays(*values)
    kept = put_in * assessed > 0
    if not kept.any():
        return None
    cells = (put_in * assessed)[kept]
    hits = np.clip(hits[kept], 0, cells)
    share, total = float(hits.sum() / cells.sum()), float(put_in[kept].sum())
    uneven = _differ(hits, cells, share)
    low, high = _beta_limits(hits, cells) if uneven else _exact_limits(float(hits.sum()), total)
    part = 1.0 if uneven else float(cells.sum()) / total
    return PooledRecovery(len(cells), share, min(1.0, low / part), min(1.0, high / part), uneven)


def _differ(hits: np.ndarray, cells: np.ndarray, share: float) -> bool:
    if len(cells) < 2 or share in (0.0, 1.0):
        return False
    squares = ((hits - cells * share) ** 2 / (cells * share * (1 - share))).sum()
    return bool(chdtrc(len(cells) - 1, squares) < _UNEVEN)


def _exact_limits(hits: float, cells: float) -> tuple[float, float]:
    low = betaincinv(hits, cells - hits + 1, 0.025) if hits > 0 else 0.0
    high = betaincinv(hits + 1, cells - hits, 0.975) if hits < cells else 1.0
    return float(low), float(high)


def _beta_limits(hits: np.ndarray, cells: np.ndarray) -> tuple[float, float]:
    mean, variance, _ = recovery_variances(hits, cells)
    precision = mean * (1 - mean) / variance - 1
    low, high = betaincinv(mean * precision, (1 - mean) * precision, [0.025, 0.975])
    return float(low), float(high)
