"""What a measurement is drawn from, given its linear predictor: log density and derivatives, for each family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from scipy.special import digamma, expit, gammaln

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG_2PI = float(np.log(2 * np.pi))
# Beyond these a negative binomial can't be told from a Poisson, nor a share of extra zeros from none.
_DISPERSION = (np.log(1e-3), np.log(1e4))
_ZEROS = (-9.0, 9.0)
# Beyond these a linear predictor's exponential stands still, so that its squares stay numbers.
_SMALLEST, _LARGEST = -200.0, 200.0


@dataclass(frozen=True)
class Density:
    """Log density of rows at nodes, shape (rows, nodes), with its derivatives.

    `d_eta` and `d2_eta` are by the linear predictor, `d_extra` has one array a further parameter.
    """

    log: NDArray[np.float64]
    d_eta: NDArray[np.float64]
    d2_eta: NDArray[np.float64]
    d_extra: tuple[NDArray[np.float64], ...]


class Family(Protocol):
    """A distribution with one linear predictor and a few further parameters on unbounded scales."""

    name: ClassVar[str]
    counts: ClassVar[bool]
    extra: ClassVar[tuple[str, ...]]
    bounds: ClassVar[tuple[tuple[float, float], ...]]

    def start(self, y: NDArray[np.float64], mean: NDArray[np.float64]) -> list[float]:
        """Guess the further parameters from values and their crude means."""
        ...

    def density(self, y: NDArray[np.float64], eta: NDArray[np.float64], extra: NDArray[np.float64]) -> Density:
        """Evaluate at values `y` (rows, 1) and linear predictors `eta` (rows, nodes).

        `extra` holds the further parameters, each one number or one a node.
        """
        ...


class Gaussian:
    """Normal with identity link; the further parameter is the logarithm of the residual's standard deviation."""

    name: ClassVar[str] = "gaussian"
    counts: ClassVar[bool] = False
    extra: ClassVar[tuple[str, ...]] = ("log_sd",)
    bounds: ClassVar[tuple[tuple[float, float], ...]] = ((-20.0, 20.0),)

    def start(self, y: NDArray[np.float64], mean: NDArray[np.float64]) -> list[float]:
        """Guess half of the variance about the mean."""
        return [float(np.log(np.std(y - mean) * np.sqrt(0.5) + 1e-12))]

    def density(self, y: NDArray[np.float64], eta: NDArray[np.float64], extra: NDArray[np.float64]) -> Density:
        """Evaluate; see `Family.density`."""
        precision = np.exp(-2 * extra[0])
        residual = y - eta
        scaled = residual * precision
        square = residual * scaled
        log = -0.5 * square - (0.5 * _LOG_2PI + extra[0])
        return Density(log, scaled, np.broadcast_to(-precision, eta.shape), (square - 1,))


class Poisson:
    """Poisson with log link."""

    name: ClassVar[str] = "poisson"
    counts: ClassVar[bool] = True
    extra: ClassVar[tuple[str, ...]] = ()
    bounds: ClassVar[tuple[tuple[float, float], ...]] = ()

    def start(self, y: NDArray[np.float64], mean: NDArray[np.float64]) -> list[float]:
        """Guess nothing."""
        return []

    def density(self, y: NDArray[np.float64], eta: NDArray[np.float64], extra: NDArray[np.float64]) -> Density:
        """Evaluate; see `Family.density`."""
        mean = _exp(eta)
        return Density(y * eta - mean - gammaln(y + 1), y - mean, -mean, ())


class NegativeBinomial:
    """Negative binomial with log link and variance mean + mean² / k; the further parameter is log k."""

    name: ClassVar[str] = "negative-binomial"
    counts: ClassVar[bool] = True
    extra: ClassVar[tuple[str, ...]] = ("log_k",)
    bounds: ClassVar[tuple[tuple[float, float], ...]] = (_DISPERSION,)

    def start(self, y: NDArray[np.float64], mean: NDArray[np.float64]) -> list[float]:
        """Guess k from the moments; half of the excess is left to the random effects."""
        excess = max(float(np.mean((y - mean) ** 2 - mean)), 0.1 * float(mean.mean()))
        return [float(np.clip(np.log(2 * np.mean(mean**2) / excess), -2.0, 4.0))]

    def density(self, y: NDArray[np.float64], eta: NDArray[np.float64], extra: NDArray[np.float64]) -> Density:
        """Evaluate; see `Family.density`."""
        return _negative_binomial(y, eta, np.exp(extra[0]))


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Zero with a probability, else negative binomial (Greene 1994); logit of that probability comes second."""

    name: ClassVar[str] = "zero-inflated-negative-binomial"
    extra: ClassVar[tuple[str, ...]] = ("log_k", "logit_zero")
    bounds: ClassVar[tuple[tuple[float, float], ...]] = (_DISPERSION, _ZEROS)

    def start(self, y: NDArray[np.float64], mean: NDArray[np.float64]) -> list[float]:
        """Guess k from the moments, and a fifth of the zeros as extra ones."""
        share = np.clip(0.2 * np.mean(y == 0), 0.01, 0.5)
        return [*super().start(y, mean), float(np.log(share / (1 - share)))]

    def density(self, y: NDArray[np.float64], eta: NDArray[np.float64], extra: NDArray[np.float64]) -> Density:
        """Evaluate; see `Family.density`."""
        k, share = np.exp(extra[0]), expit(extra[1])
        base, zero = _negative_binomial(y, eta, k), _zero(eta, k)
        none = y == 0
        either = np.logaddexp(np.log(share), np.log1p(-share) + zero.log)
        own = np.exp(np.log1p(-share) + zero.log - either)
        log = np.where(none, either, base.log + np.log1p(-share))
        d_eta = np.where(none, own * zero.d_eta, base.d_eta)
        d2_eta = np.where(none, own * (1 - own) * zero.d_eta**2 + own * zero.d2_eta, base.d2_eta)
        d_k = np.where(none, own * zero.d_extra[0], base.d_extra[0])
        return Density(log, d_eta, d2_eta, (d_k, np.where(none, 1 - own - share, -share)))


class HurdleNegativeBinomial(ZeroInflatedNegativeBinomial):
    """Zero with a probability, else a negative binomial above zero (Mullahy 1986)."""

    name: ClassVar[str] = "hurdle-negative-binomial"

    def start(self, y: NDArray[np.float64], mean: NDArray[np.float64]) -> list[float]:
        """Guess k from the moments; the share of zeros is what was seen."""
        share = np.clip(np.mean(y == 0), 0.01, 0.99)
        return [NegativeBinomial.start(self, y, mean)[0], float(np.log(share / (1 - share)))]

    def density(self, y: NDArray[np.float64], eta: NDArray[np.float64], extra: NDArray[np.float64]) -> Density:
        """Evaluate; see `Family.density`."""
        k, share = np.exp(extra[0]), expit(extra[1])
        base, zero = _negative_binomial(y, eta, k), _zero(eta, k)
        none = y == 0
        some = -np.expm1(zero.log)
        odds = np.exp(zero.log) / some
        log = np.where(none, np.log(share), np.log1p(-share) + base.log - np.log(some))
        d_eta = np.where(none, 0.0, base.d_eta + odds * zero.d_eta)
        d2_eta = np.where(none, 0.0, base.d2_eta + odds * (zero.d_eta**2 / some + zero.d2_eta))
        d_k = np.where(none, 0.0, base.d_extra[0] + odds * zero.d_extra[0])
        return Density(log, d_eta, d2_eta, (d_k, np.broadcast_to(np.where(none, 1 - share, -share), eta.shape)))


_ALL: tuple[Family, ...] = (
    Gaussian(),
    Poisson(),
    NegativeBinomial(),
    ZeroInflatedNegativeBinomial(),
    HurdleNegativeBinomial(),
)
FAMILIES = {family.name: family for family in _ALL}


def _negative_binomial(y: NDArray[np.float64], eta: NDArray[np.float64], k: NDArray[np.float64]) -> Density:
    mean = _exp(eta)
    total = k + mean
    log_total, share = np.log(total), mean / total
    constant = gammaln(y + k) - gammaln(k) - gammaln(y + 1) + k * np.log(k)
    d_eta = y - (y + k) * share
    d_k = (digamma(y + k) - digamma(k) + np.log(k) + 1) - log_total - (y + k) / total
    chosen = y * np.minimum(eta, _LARGEST)
    return Density(constant + chosen - (y + k) * log_total, d_eta, -(y + k) * share * (1 - share), (d_k * k,))


def _zero(eta: NDArray[np.float64], k: NDArray[np.float64]) -> Density:
    """Log probability of a zero of the negative binomial, k log(k / (k + mean))."""
    mean = _exp(eta)
    share = mean / (k + mean)
    log = -k * np.log1p(mean / k)
    return Density(log, -k * share, -k * share * (1 - share), (log + k * share,))


def _exp(eta: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(np.clip(eta, _SMALLEST, _LARGEST)))
