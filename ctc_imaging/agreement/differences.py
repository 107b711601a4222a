"""By how much readers' CTC counts of the same samples differ, and one reader's from reading to reading."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit
from scipy.stats import chi2

from ctc_imaging.agreement.estimate import plain

_TAIL = 0.025
_WIDTH = 1.96


@dataclass(frozen=True)
class CountDifference:
    """CTC counts of one reader less those of another, sample by sample; NaN where samples are too few.

    Attributes
    ----------
    samples : int
    mean, mean_low, mean_high : float
        Mean difference and its 95 % limits.
    sd : float
        Standard deviation of the differences.
    low, high : float
        Limits of agreement: mean ± 1.96 SD, between which 95 % of differences lie.
    low_error, high_error : float
        Half the width of the 95 % limits of each of these.
    """

    samples: int
    mean: float
    mean_low: float
    mean_high: float
    sd: float
    low: float
    high: float
    low_error: float
    high_error: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Repeatability:
    """How far one reader's counts of the same sample lie apart from reading to reading; NaN where it isn't defined.

    Attributes
    ----------
    samples : int
        With at least two readings.
    sd, sd_low, sd_high : float
        Standard deviation within a sample, and its 95 % limits.
    coefficient : float
        Two counts of a sample differ by less in 95 %: 1.96 × √2 × SD.
    """

    samples: int
    sd: float
    sd_low: float
    sd_high: float
    coefficient: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: plain(value) for name, value in asdict(self).items()}


def limits_of_agreement(a: ArrayLike, b: ArrayLike) -> CountDifference:
    """Compare two readers' counts (Bland and Altman, Lancet 1986;327:307-10; Stat Methods Med Res 1999;8:135-60).

    Parameters
    ----------
    a, b : array_like, shape (samples,)
        Counts of the same samples.

    Returns
    -------
    CountDifference
        Of a - b. With one sample there is a mean and nothing else.

    Examples
    --------
    >>> difference = limits_of_agreement([3, 5, 0, 12], [2, 5, 1, 8])
    >>> difference.mean, round(difference.low, 2), round(difference.high, 2)
    (1.0, -3.23, 5.23)
    """
    differences = np.asarray(a, float) - np.asarray(b, float)
    count = len(differences)
    mean = float(differences.mean()) if count else np.nan
    if count < 2:
        return CountDifference(count, mean, *[np.nan] * 7)
    sd, t = float(differences.std(ddof=1)), float(stdtrit(count - 1, 1 - _TAIL))
    of_mean = t * sd / np.sqrt(count)
    of_limit = t * sd * np.sqrt(1 / count + _WIDTH**2 / (2 * (count - 1)))
    low, high = mean - _WIDTH * sd, mean + _WIDTH * sd
    return CountDifference(
        count, mean, float(mean - of_mean), float(mean + of_mean), sd, low, high, float(of_limit), float(of_limit)
    )


def repeatability(counts: ArrayLike) -> Repeatability:
    """Say how well one reader repeats counts (Bland and Altman, Stat Methods Med Res 1999;8:135-60, section 3).

    Parameters
    ----------
    counts : array_like, shape (samples, rounds)
        NaN where a sample wasn't read in a round; samples with fewer than two readings are left out.

    Returns
    -------
    Repeatability

    Examples
    --------
    >>> found = repeatability([[3, 4], [7, 7], [0, 1], [12, 10]])
    >>> round(found.sd, 2), round(found.coefficient, 2)
    (0.87, 2.4)
    """
    table = np.atleast_2d(np.asarray(counts, float))
    table = table[np.isfinite(table).sum(1) >= 2]
    if not len(table):
        return Repeatability(0, *[np.nan] * 4)
    apart = table - np.nanmean(table, axis=1, keepdims=True)
    freedom, squares = int((np.isfinite(table).sum(1) - 1).sum()), float(np.nansum(apart**2))
    sd = np.sqrt(squares / freedom)
    low, high = (float(np.sqrt(squares / chi2.ppf(tail, freedom))) for tail in (1 - _TAIL, _TAIL))
    return Repeatability(len(table), float(sd), low, high, float(_WIDTH * np.sqrt(2) * sd))
