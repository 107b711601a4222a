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


# Stands for the logarithm of no time at all: finite, so that products with 0 are 0.
LOG_OF_NOTHING = -700.0


class Lead(Protocol):
    """A lead's distribution; both parameters are logarithms, `log_scale` in log days."""

    def cdf_and_slopes(self, log_days: Floats, log_scale: float, log_shape: float) -> tuple[Floats, Floats, Floats]:
        """Chance that the lead is at most so many days, and its derivatives to the two parameters."""


@dataclass(frozen=True)
class WeibullLead:
    """1 - exp(-(days / scale) ^ shape)."""

    def cdf_and_slopes(self, log_days: Floats, log_scale: float, log_shape: float) -> tuple[Floats, Floats, Floats]:
        """Chance that the lead is at most so many days, and its derivatives to the two parameters."""
        power = np.minimum(np.exp(log_shape) * (log_days - log_scale), 30.0)
        hazard = np.exp(power)
        beyond = np.exp(-hazard)
        density = beyond * hazard
        return 1 - beyond, -np.exp(log_shape) * density, density * power


@dataclass(frozen=True)
class LogNormalLead:
    """The logarithm of the lead is normal, with mean `log_scale` and standard deviation 1 / shape."""

    def cdf_and_slopes(self, log_days: Floats, log_scale: float, log_shape: float) -> tuple[Floats, Floats, Floats]:
        """Chance that the lead is at most so many days, and its derivatives to the two parameters."""
        score = np.exp(log_shape) * (log_days - log_scale)
        density = np.exp(-(score**2) / 2) / np.sqrt(2 * np.pi)
        return ndtr(score), -np.exp(log_shape) * density, density * score


def log_days(days: Floats) -> Floats:
    """Logarithm of the days, and of none or fewer what the distributions take for it."""
    late = days > 0
    return np.where(late, np.log(np.where(late, days, 1.0)), LOG_OF_NOTHING)


LEADS: dict[str, Lead] = {"weibull": WeibullLead(), "lognormal": LogNormalLead()}
