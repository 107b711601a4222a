"""How many CTCs the model rejected, from a weighted random sample of the rejected cells that was read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import gamma

from ctc_imaging.agreement.estimate import Array, plain
from ctc_imaging.errors import StatisticsError

_TAIL = 0.025


@dataclass(frozen=True)
class MissedCtcs:
    """CTCs among the cells that the model rejected.

    Attributes
    ----------
    value, low, high : float
        Estimate and its 95 % limits; 0 with an upper limit where none was found.
    found, read : int
        CTCs among the rejected cells that were read, and how many were read.
    """

    value: float
    low: float
    high: float
    found: int
    read: int

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: plain(value) for name, value in asdict(self).items()}


def missed_ctcs(
    is_ctc: ArrayLike,
    inclusion_probability: ArrayLike,
    smallest_probability: float | None = None,
    cells: int | None = None,
) -> MissedCtcs:
    """Estimate the CTCs that the model rejected (Horvitz and Thompson, J Am Stat Assoc 1952;47:663-85).

    Each CTC found stands for as many as the inverse of the chance its cell had to be read. The limits are those of a
    weighted sum of Poisson counts (Fay and Feuer, Stat Med 1997;16:791-801), which keep their 95 % also with few found,
    with 1 - chance for the variance of each, as a cell that was sure to be read adds no doubt. Where none was found
    the upper limit is the number of CTCs, each as hard to draw as any cell, that all escape with a chance of 2.5 %:
    Clopper and Pearson's, where the chances are equal.

    Parameters
    ----------
    is_ctc : array_like of bool, shape (n,)
        Whether a reader called the cell CTC, of rejected cells that were drawn and read.
    inclusion_probability : array_like, shape (n,)
        Chance of each to be drawn, above 0, at most 1.
    smallest_probability : float, optional
        The least chance of any rejected cell, by default of any that was read.
    cells : int, optional
        How many cells the model rejected: no limit lies above it.

    Returns
    -------
    MissedCtcs

    Raises
    ------
    StatisticsError
        If no cell was read, or a chance can't be one.

    Examples
    --------
    >>> missed_ctcs([False] * 200, [0.01] * 200, cells=20_000)
    MissedCtcs(value=0.0, low=0.0, high=367.0, found=0, read=200)
    """
    hits, chances = np.asarray(is_ctc, bool), np.asarray(inclusion_probability, float)
    least = float(chances.min(initial=np.inf)) if smallest_probability is None else smallest_probability
    _check(hits, chances, least)
    weights = 1 / chances[hits]
    found, value = int(hits.sum()), float(weights.sum())
    variance = float(((1 - chances[hits]) * weights**2).sum())
    low, high = _limits(value, variance, least)
    return MissedCtcs(
        value=value,
        low=max(low, float(found)),
        high=min(high, float(cells)) if cells is not None else high,
        found=found,
        read=len(hits),
    )


def _limits(value: float, variance: float, least: float) -> tuple[float, float]:
    if least == 1:
        return value, value
    if value == 0:
        return 0.0, float(np.floor(np.log(_TAIL) / np.log1p(-least)))
    # The next CTC to be found might have been the hardest to draw of all.
    weight, more = 1 / least, (1 - least) / least**2
    return _gamma(_TAIL, value, variance), _gamma(1 - _TAIL, value + weight, variance + more)


def _gamma(tail: float, mean: float, variance: float) -> float:
    if variance == 0:
        return mean
    return float(gamma.ppf(tail, mean**2 / variance, scale=variance / mean))


def _check(hits: Array, chances: Array, least: float) -> None:
    if len(hits) == 0 or len(hits) != len(chances):
        fault = f"{len(hits)} rejected cells were read, with {len(chances)} chances of being drawn"
        raise StatisticsError("missed CTCs", fault, "read some of the rejected cells of a set made by review set")
    if not ((chances > 0) & (chances <= 1)).all() or not 0 < least <= chances.min():
        raise StatisticsError(
            "missed CTCs", "a chance of being drawn isn't above 0 and at most 1", "use the set's own table"
        )
