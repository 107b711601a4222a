"""Limit of blank and limit of detection of a count, for each sample by its own leukocytes.

CLSI EP17-A2 (Pierson-Perry 2012) defines them: the limit of blank is the highest result that a blank gives with a
chance of 95 %, the limit of detection the least true amount whose results exceed it with a chance of 95 %. Its formulas
(Armbruster and Pry, Clin Biochem Rev 2008;29 Suppl 1:S49-52) are for results of a continuous scale, normal or many
enough to rank. Counts of 0, 1, 2 are neither, so the definitions are computed from their distribution instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainccinv

from ctc_imaging.assay.error_rates import FalseCalls, Recovery
from ctc_imaging.assay.interval import Calls, decreasing_root

Array = NDArray[np.float64]
ALPHA = BETA = 0.05
_HIGHEST = 100_000


def limit_of_blank(leukocytes: ArrayLike, false_calls: FalseCalls) -> NDArray[np.int64]:
    """Return the least count that a sample without CTCs exceeds with a chance of at most 5 %.

    The chance takes in what isn't known of the rate of false calls: it is that of the next sample, negative binomial,
    as the limit of a further result that is computed from those so far.

    Parameters
    ----------
    leukocytes : array_like, shape (n,)
        Of each sample: false calls grow with them.
    false_calls : FalseCalls

    Returns
    -------
    ndarray of int64, shape (n,)
        Cells called CTC in the sample.

    Examples
    --------
    >>> limit_of_blank([5_000, 75_000, 750_000], FalseCalls(1e-6)).tolist()
    [0, 1, 2]
    """
    cells = np.atleast_1d(np.asarray(leukocytes, dtype=float))
    least, most = np.full(cells.shape, -1), np.full(cells.shape, _HIGHEST)
    while (most - least > 1).any():
        middle = (least + most) // 2
        enough = false_calls.at_most(middle, cells) >= 1 - ALPHA
        least, most = np.where(enough, least, middle), np.where(enough, middle, most)
    return most.astype(np.int64)


def limit_of_detection(blank: ArrayLike, leukocytes: ArrayLike, false_calls: FalseCalls, recovery: Recovery) -> Array:
    """Return the least mean number of CTCs of which a sample's count exceeds the limit of blank with a chance of 95 %.

    Parameters
    ----------
    blank : array_like of int, shape (n,)
        The samples' limits of blank.
    leukocytes : array_like, shape (n,)
    false_calls, recovery
        The chance is the mean over what they may be.

    Returns
    -------
    ndarray of float64, shape (n,)
        True CTCs in the sample's assessed blood.

    Examples
    --------
    >>> limit_of_detection([0, 1, 2], [0, 0, 0], FalseCalls(0.0), Recovery(1.0)).round(2).tolist()
    [3.0, 4.74, 6.3]
    """
    limits, cells = (np.atleast_1d(np.asarray(value, dtype=float)) for value in (blank, leukocytes))
    calls = Calls(limits, cells, false_calls, recovery)
    most = gammainccinv(limits + 1, BETA / 4) / recovery.points()[0].min()
    offset = np.array([[BETA], [0.0]])
    return decreasing_root(lambda ctcs: calls.at_most(ctcs) - offset, np.zeros(len(cells)), most)
