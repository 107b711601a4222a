"""How long CTCs can be positive before imaging sees the relapse: the shapes a lead may have, with their derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from scipy.special import ndtr

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Shape = Literal["weibull", "lognormal"]


class Lead(Protocol):
    """A lead's distribution; both parameters are logarithms, `log_scale` in log days."""

    def cdf(self, days: Floats, log_scale: float, log_shape: float) -> Floats:
        """Chance that the lead is at most so many days."""

    def cdf_and_slopes(self, days: Floats, log_scale: float, log_shape: float) -> tuple[Floats, Floats, Floats]:
        """The same, and its derivatives to the two parameters."""


@dataclass(frozen=True)
class WeibullLead:
    """1 - exp(-(days / scale) ^ shape)."""

    def cdf(self, days: Floats, log_scale: float, log_shape: float) -> Floats:
        """Chance that the lead is at most so many days."""
        return np.asarray(-np.expm1(-self._hazard(days, log_scale, log_shape)[0]))

    def cdf_and_slopes(self, days: Floats, log_scale: float, log_shape: float) -> tuple[Floats, Floats, Floats]:
        """The same, and its derivatives to the two parameters."""
        hazard, power = self._hazard(days, log_scale, log_shape)
        beyond = np.exp(-hazard)
        density = beyond * hazard
        return 1 - beyond, -np.exp(log_shape) * density, density * power

    def _hazard(self, days: Floats, log_scale: float, log_shape: float) -> tuple[Floats, Floats]:
        late = days > 0
        power = np.exp(log_shape) * (np.log(np.where(late, days, 1.0)) - log_scale)
        return np.where(late, np.exp(np.minimum(power, 30.0)), 0.0), power


@dataclass(frozen=True)
class LogNormalLead:
    """The logarithm of the lead is normal, with mean `log_scale` and standard deviation 1 / shape."""

    def cdf(self, days: Floats, log_scale: float, log_shape: float) -> Floats:
        """Chance that the lead is at most so many days."""
        return np.asarray(np.where(days > 0, ndtr(self._score(days, log_scale, log_shape)), 0.0))

    def cdf_and_slopes(self, days: Floats, log_scale: float, log_shape: float) -> tuple[Floats, Floats, Floats]:
        """The same, and its derivatives to the two parameters."""
        late, score = days > 0, self._score(days, log_scale, log_shape)
        density = np.where(late, np.exp(-(score**2) / 2) / np.sqrt(2 * np.pi), 0.0)
        return np.where(late, ndtr(score), 0.0), -np.exp(log_shape) * density, density * score

    def _score(self, days: Floats, log_scale: float, log_shape: float) -> Floats:
        return np.asarray(np.exp(log_shape) * (np.log(np.where(days > 0, days, 1.0)) - log_scale))


LEADS: dict[str, Lead] = {"weibull": WeibullLead(), "lognormal": LogNormalLead()}
