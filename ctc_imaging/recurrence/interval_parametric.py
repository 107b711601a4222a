"""Interval-censored survival with a shape: Weibull or piecewise constant hazard, hazard ratios, and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import ndtr

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.design import Design, build_design, check_complete
from ctc_imaging.recurrence.interval_censored import MODEL, _checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from ctc_imaging.recurrence.design import Terms

    Floats = NDArray[np.float64]

Baseline = Literal["weibull", "piecewise"]
_Z_95 = 1.959963984540054
_STEP = 1e-5
_NEWTON_STEPS = 20
_DECREMENT = 1e-12
_LARGEST_STANDARD_ERROR = 10.0


@dataclass(frozen=True)
class Weibull:
    """Cumulative hazard (t / scale) ^ shape; parameters are the logarithms of scale and shape."""

    size: int = 2

    def cumulative(self, times: Floats, parameters: Floats) -> tuple[Floats, Floats]:
        """Cumulative hazard (m,), and its derivatives to the parameters (m, 2)."""
        shape, since = self._since(times, parameters)
        value = np.where(times > 0, np.exp(shape * since), 0.0)
        return value, np.column_stack([-shape * value, shape * since * value])

    def log_hazard(self, times: Floats, parameters: Floats) -> tuple[Floats, Floats]:
        """Log hazard (m,), and its derivatives (m, 2)."""
        shape, since = self._since(times, parameters)
        value = parameters[1] - np.log(np.where(times > 0, times, 1.0)) + shape * since
        return value, np.column_stack([np.full(len(times), -shape), 1 + shape * since])

    def _since(self, times: Floats, parameters: Floats) -> tuple[float, Floats]:
        return float(np.exp(parameters[1])), np.log(np.where(times > 0, times, 1.0)) - parameters[0]


@dataclass(frozen=True)
class Piecewise:
    """Hazard constant between knots; parameters are the logarithms of the rates."""

    knots: Floats

    @property
    def size(self) -> int:
        """How many rates there are."""
        return len(self.knots) + 1

    def cumulative(self, times: Floats, parameters: Floats) -> tuple[Floats, Floats]:
        """Cumulative hazard (m,), and its derivatives to the parameters (m, knots + 1)."""
        begins, ends = np.append(0.0, self.knots), np.append(self.knots, np.inf)
        passed = np.clip(times[:, None], begins, ends) - begins
        slopes = passed * np.exp(parameters)
        return slopes.sum(axis=1), slopes

    def log_hazard(self, times: Floats, parameters: Floats) -> tuple[Floats, Floats]:
        """Log hazard (m,), and its derivatives (m, knots + 1)."""
        place = np.searchsorted(self.knots, times, side="left")
        return parameters[place], np.eye(self.size)[place]


@dataclass(frozen=True)
class IntervalFit:
    """A fitted curve with hazard ratios.

    `parameters` are those of the baseline (log scale and log shape of the Weibull, or the log rate between knots, for
    time counted in units of `unit`), then the log hazard ratios.
    """

    shape: Weibull | Piecewise
    unit: float
    parameters: Floats
    covariance: Floats
    log_likelihood: float
    design: Design | None
    centre: Floats

    def table(self) -> pd.DataFrame:
        """Tabulate hazard ratios: `term`, `hazard_ratio`, `low`, `high` (95 %), `p`, and what they come from."""
        names = self.design.names if self.design is not None else ()
        first = len(self.parameters) - len(names)
        values, errors = self.parameters[first:], np.sqrt(np.diag(self.covariance))[first:]
        limits = {"hazard_ratio": values, "low": values - _Z_95 * errors, "high": values + _Z_95 * errors}
        ratios = {name: np.exp(column) for name, column in limits.items()}
        p = 2 * ndtr(-np.abs(values) / errors)
        return pd.DataFrame({"term": names, **ratios, "p": p, "coefficient": values, "standard_error": errors})

    def survival(self, times: ArrayLike, row: pd.DataFrame | None = None) -> pd.DataFrame:
        """Survival at times, with 95 % limits on the scale log(-log).

        Parameters
        ----------
        times : array_like of float, shape (m,)
            After 0.
        row : DataFrame, optional
            One row with the covariates; without it their means.

        Returns
        -------
        DataFrame
            Index `time`; `survival`, `low`, `high`.
        """
        when = np.asarray(times, dtype=float)
        covariates = np.zeros(len(self.centre))
        if self.design is not None and row is not None:
            covariates = self.design.of(row)[0] - self.centre
        rows = np.broadcast_to(covariates, (len(when), len(covariates)))
        cumulative, slopes = _cumulative(self.shape, when / self.unit, rows, self.parameters)
        logarithm = slopes / cumulative[:, None]
        half = _Z_95 * np.sqrt(np.einsum("ij,jk,ik->i", logarithm, self.covariance, logarithm))
        values = {"survival": cumulative, "low": cumulative * np.exp(half), "high": cumulative * np.exp(-half)}
        return pd.DataFrame({name: np.exp(-value) for name, value in values.items()}, index=pd.Index(when, name="time"))


def fit_interval_censored(
    data: pd.DataFrame,
    *,
    left: str,
    right: str,
    terms: Terms | None = None,
    baseline: Baseline = "weibull",
    knots: Sequence[float] = (),
) -> IntervalFit:
    """Fit a curve, and hazard ratios, to events known to lie in (left, right] by maximum likelihood.

    Parameters
    ----------
    data : DataFrame
        One row a subject.
    left, right : str
        Columns: bounds of each event, as of `turnbull`.
    terms : str or sequence of str, optional
        Covariates, as of `fit_cox`.
    baseline : {'weibull', 'piecewise'}
    knots : sequence of float
        Where the piecewise constant hazard changes.

    Returns
    -------
    IntervalFit

    Raises
    ------
    StatisticsError
        If the intervals make no sense, or the fit doesn't converge.
    """
    check_complete(data, [left, right], MODEL)
    lower, upper = _checked(data[left], data[right])
    times = np.concatenate([lower, upper])
    unit = float(np.median(times[(times > 0) & np.isfinite(times)]))
    shape = Weibull() if baseline == "weibull" else Piecewise(np.asarray(sorted(knots), dtype=np.float64) / unit)
    design = None if terms is None else build_design(data, terms, MODEL)
    matrix = np.zeros((len(data), 0)) if design is None else design.matrix
    centre = matrix.mean(axis=0)
    likelihood = _Likelihood(shape, lower / unit, upper / unit, matrix - centre)
    parameters, covariance = likelihood.maximise()
    value = -likelihood.downhill(parameters)[0] - float(np.log(unit) * (lower == upper).sum())
    return IntervalFit(shape, unit, parameters, covariance, value, design, centre)


@dataclass(frozen=True)
class _Likelihood:
    """Of events in (lower, upper], in units of time of about 1; covariates are centred."""

    shape: Weibull | Piecewise
    lower: Floats
    upper: Floats
    covariates: Floats

    def downhill(self, parameters: Floats) -> tuple[float, Floats]:
        """Minus the log-likelihood, and its derivatives."""
        exact, seen = self.lower == self.upper, np.isfinite(self.upper)
        between = seen & ~exact
        at_lower, slope_lower = _cumulative(self.shape, self.lower, self.covariates, parameters)
        value, slope = -at_lower.sum(), -slope_lower.sum(axis=0)
        at_upper, slope_upper = _cumulative(self.shape, self.upper[between], self.covariates[between], parameters)
        gap = at_upper - at_lower[between]
        value += np.log(-np.expm1(-gap)).sum()
        slope += ((slope_upper - slope_lower[between]) / np.expm1(gap)[:, None]).sum(axis=0)
        hazard, slope_hazard = self.shape.log_hazard(self.lower[exact], parameters[: self.shape.size])
        value += (hazard + self.covariates[exact] @ parameters[self.shape.size :]).sum()
        slope += np.concatenate([slope_hazard.sum(axis=0), self.covariates[exact].sum(axis=0)])
        return float(-value), -slope

    def information(self, parameters: Floats) -> Floats:
        """Second derivatives, by central differences of the first."""
        steps = _STEP * np.eye(len(parameters))
        columns = [self.downhill(parameters + step)[1] - self.downhill(parameters - step)[1] for step in steps]
        matrix = np.array(columns) / (2 * _STEP)
        return (matrix + matrix.T) / 2

    def maximise(self) -> tuple[Floats, Floats]:
        """Find the maximum and the covariance there."""
        start = np.zeros(self.shape.size + self.covariates.shape[1])
        with np.errstate(all="ignore"):
            found = minimize(self.downhill, start, jac=True, method="BFGS", options={"gtol": 1e-6}).x
            for _ in range(_NEWTON_STEPS):
                covariance = _inverse(self.information(found))
                step = covariance @ self.downhill(found)[1]
                found = found - step
                if abs(step @ self.downhill(found)[1]) < _DECREMENT and _is_known(covariance):
                    return found, covariance
        fault = "the curve's parameters can't be estimated"
        raise StatisticsError(MODEL, fault, "use fewer knots or covariates, or follow more patients for longer")


def _cumulative(
    shape: Weibull | Piecewise, times: Floats, covariates: Floats, parameters: Floats
) -> tuple[Floats, Floats]:
    """Cumulative hazard of each row, and its derivatives to all parameters."""
    baseline, slopes = shape.cumulative(times, parameters[: shape.size])
    ratio = np.exp(covariates @ parameters[shape.size :])
    value = baseline * ratio
    return value, np.column_stack([slopes * ratio[:, None], covariates * value[:, None]])


def _inverse(matrix: Floats) -> Floats:
    try:
        return np.linalg.inv(matrix).astype(np.float64)
    except np.linalg.LinAlgError:
        return np.full_like(matrix, np.nan)


def _is_known(covariance: Floats) -> bool:
    variances = np.diag(covariance)
    return bool(((variances > 0) & (variances < _LARGEST_STANDARD_ERROR**2)).all())
