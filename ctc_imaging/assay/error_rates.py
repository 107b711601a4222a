"""The two error rates behind a count, with their uncertainty: false CTCs per leukocyte, and the share recovered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.special import betainc, pdtr

Array = NDArray[np.float64]
_POINTS = 12


@dataclass(frozen=True)
class FalseCalls:
    """Cells falsely called CTC, per leukocyte of a sample: Gamma with a mean and a shape, known exactly at shape inf.

    `source` says where it was measured, if that matters.
    """

    per_leukocyte: float
    shape: float = inf
    source: str = ""

    def expected(self, leukocytes: ArrayLike) -> Array:
        """Return the mean number of false CTCs among so many leukocytes."""
        return self.per_leukocyte * np.asarray(leukocytes, dtype=float)

    def at_most(self, count: ArrayLike, leukocytes: ArrayLike) -> Array:
        """Return the chance of at most so many false CTCs among so many leukocytes: negative binomial, or Poisson.

        Parameters
        ----------
        count : array_like of int
            Below 0 the chance is 0.
        leukocytes : array_like
        """
        counts, mean = np.asarray(count, dtype=float), self.expected(leukocytes)
        floor = np.maximum(counts, 0)
        if self.per_leukocyte == 0 or self.shape == inf:
            # Beyond this they are as impossible, and would only leave the range of floats.
            return pdtr(floor, np.minimum(mean, floor + 600)) * (counts >= 0)
        return betainc(self.shape, floor + 1, self.shape / (self.shape + mean)) * (counts >= 0)


@dataclass(frozen=True)
class Recovery:
    """Share of a sample's CTCs that is found: Beta with a mean and a precision (a + b), known exactly at inf.

    Measured on spiked samples it holds all that is lost from the tube to the call; on a model's test slides, what is
    lost in the call alone. `source` says where it was measured, if that matters.
    """

    share: float
    precision: float = inf
    source: str = ""

    def points(self) -> tuple[Array, Array]:
        """Return shares and weights: a mean over the distribution is their weighted sum."""
        if self.precision == inf:
            return np.array([self.share]), np.ones(1)
        return beta_points(self.share * self.precision, (1 - self.share) * self.precision)


def beta_points(a: float, b: float) -> tuple[Array, Array]:
    """Return Gauss's points and weights for a Beta distribution (Golub and Welsch, Math Comp 1969;23:221-30).

    Examples
    --------
    >>> points, weights = beta_points(3.0, 1.0)
    >>> round(float((weights * points).sum()), 6), round(float((weights * points**2).sum()), 6)
    (0.75, 0.6)
    """
    k = np.arange(1, _POINTS)
    s = 2 * k + a + b - 2
    diagonal = np.append((a - b) / (a + b), (a - b) * (a + b - 2) / (s * (s + 2)))
    squares = 4 * k * (k + b - 1) * (k + a - 1) * (k + a + b - 2) / (s**2 * (s + 1) * np.where(k == 1, 1, s - 1))
    squares[0] = 4 * a * b / ((a + b) ** 2 * (a + b + 1))
    points, vectors = eigh_tridiagonal(diagonal, np.sqrt(squares))
    return (1 + points) / 2, vectors[0] ** 2


def model_error_rates(description: Mapping[str, Any]) -> dict[str, Any] | None:
    """Take from a model's description what it was measured to do, as a run keeps it in run.json.

    Parameters
    ----------
    description : mapping
        ``model.json``: `metrics` with `ctc`, `leukocytes`, `false_ctc`, `sensitivity.value`, the same in `by_source`.

    Returns
    -------
    dict or None
        `simulated` (bool) and `sources`, a list of `ctc`, `found`, `leukocytes`, `false_ctc`, without any names.
        None where the model came without these figures.
    """
    try:
        metrics = description["metrics"]
        parts = list(metrics.get("by_source", {}).values()) or [metrics]
        sources = [
            {
                "ctc": int(part["ctc"]),
                "found": round(part["ctc"] * part["sensitivity"]["value"]),
                "leukocytes": int(part["leukocytes"]),
                "false_ctc": int(part["false_ctc"]),
            }
            for part in parts
        ]
        data = str(description["training"]["data"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return {"simulated": data.lower().startswith("simulated"), "sources": sources}
