"""Error rates of the next tube, estimated from tubes that may differ among themselves by more than chance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, gammaln

from ctc_imaging.assay.error_rates import FalseCalls, Recovery

Array = NDArray[np.float64]
# Scales of the half-normal priors of what differs from tube to tube beyond chance, which few controls can't rule out:
# the coefficient of variation of the false calls per leukocyte, and the standard deviation of the recovery in units of
# that between single cells (at a recovery of 80 % the tubes' standard deviation is then about 10 %).
SPREAD_OF_FALSE_CALLS = 0.5
SPREAD_OF_RECOVERY = 0.25
_STEPS = np.linspace(0, 4, 81)


def estimate_false_calls(false: ArrayLike, leukocytes: ArrayLike, source: str = "") -> FalseCalls | None:
    """Estimate the false calls of a further sample from samples that hold no CTC.

    The mean is that of all samples together, with Jeffreys' prior. Each sample's own rate is drawn from a Gamma
    distribution about it, so that counts are negative binomial; its coefficient of variation has a half-normal prior of
    scale 0.5.

    Parameters
    ----------
    false, leukocytes : array_like
        One value a sample: cells called CTC, and leukocytes. A sample without leukocytes says nothing.
    source : str
        Where they are from.

    Returns
    -------
    FalseCalls or None
        The Gamma distribution with the mean and variance of the next sample's rate; None where the samples hold no
        leukocyte.

    Examples
    --------
    >>> rate = estimate_false_calls([0, 1, 0, 1], [500_000] * 4)
    >>> round(100_000 * rate.per_leukocyte, 3)
    0.125
    """
    found, cells = (np.atleast_1d(np.asarray(values, dtype=float)) for values in (false, leukocytes))
    found, cells = found[cells > 0], cells[cells > 0]
    if not len(cells):
        return None
    total = float(cells.sum())
    mean = (float(found.sum()) + 0.5) / total
    variation = _STEPS * SPREAD_OF_FALSE_CALLS
    between = _mean_square(variation, _negative_binomial(found, cells * mean, variation)) * mean**2
    variance = mean / total + between * (1 + 1 / _effective(cells))
    return FalseCalls(mean, mean**2 / variance, source)


def estimate_recovery(found: ArrayLike, spiked: ArrayLike, source: str = "") -> Recovery | None:
    """Estimate the recovery of a further tube from tubes with a known number of tumour cells.

    The mean is that of all tubes together, with Jeffreys' prior. Each tube's own recovery is drawn from a Beta
    distribution about it, so that the numbers found are beta-binomial; its standard deviation has a half-normal prior
    of scale 0.25 sqrt(p (1 - p)) at the mean p.

    Parameters
    ----------
    found, spiked : array_like
        One value a tube: cells found, and cells that were in the blood assessed, not necessarily whole. More found
        than spiked counts as all.
    source : str
        Where they are from.

    Returns
    -------
    Recovery or None
        The Beta distribution with the mean and variance of the next tube's recovery; None where no cell was spiked.

    Examples
    --------
    >>> round(estimate_recovery([81] * 10, [100] * 10).share, 2)
    0.81
    """
    hits, cells = (np.atleast_1d(np.asarray(values, dtype=float)) for values in (found, spiked))
    hits, cells = np.clip(hits, 0, cells)[cells > 0], cells[cells > 0]
    if not len(cells):
        return None
    mean, within, between = recovery_variances(hits, cells)
    return Recovery(mean, mean * (1 - mean) / (within + between) - 1, source)


def recovery_variances(hits: Array, cells: Array) -> tuple[float, float, float]:
    """Return the mean recovery of tubes, the variance of that mean, and the variance between tubes."""
    total = float(cells.sum())
    mean = (float(hits.sum()) + 0.5) / (total + 1)
    spread = np.minimum(_STEPS * SPREAD_OF_RECOVERY, 0.99)
    between = _mean_square(spread, _beta_binomial(hits, cells, mean, spread)) * mean * (1 - mean)
    return mean, mean * (1 - mean) / (total + 2) + between / _effective(cells), between


def _effective(sizes: Array) -> float:
    """As many equal tubes as would settle the mean as well (Kish)."""
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _mean_square(spread: Array, log_likelihood: Array) -> float:
    logs = log_likelihood - _STEPS**2 / 2
    weight = np.exp(logs - logs.max())
    return float((weight * spread**2).sum() / weight.sum())


def _negative_binomial(found: Array, expected: Array, variation: Array) -> Array:
    """Log likelihood of each coefficient of variation (s,), less what is the same for all; 0 gives Poisson's."""
    poisson = (found * np.log(expected) - expected).sum()
    shape = variation[1:, None] ** -2.0
    mixed = gammaln(found + shape) - gammaln(shape) - found * np.log(shape)
    mixed += found * np.log(expected) - (found + shape) * np.log1p(expected / shape)
    return np.append(poisson, mixed.sum(axis=1))


def _beta_binomial(hits: Array, cells: Array, mean: float, spread: Array) -> Array:
    """Log likelihood of each root of the correlation within tubes (s,); 0 gives the binomial's."""
    binomial = hits.sum() * np.log(mean) + (cells - hits).sum() * np.log1p(-mean)
    precision = spread[1:, None] ** -2.0 - 1
    a, b = mean * precision, (1 - mean) * precision
    mixed = (betaln(hits + a, cells - hits + b) - betaln(a, b)).sum(axis=1)
    return np.append(binomial, mixed)
