"""A fitted joint model: its parameters by name, with standard errors and limits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import norm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.joint.climb import Top
    from ctc_imaging.recurrence.joint.design import JointDesign
    from ctc_imaging.recurrence.joint.likelihood import Layout

_Z_95 = 1.959963984540054
_STEP = 1e-6
_UNBOUNDED = 700.0


@dataclass(frozen=True)
class JointModel:
    """A fitted joint model.

    Parameters
    ----------
    design : JointDesign
    layout : Layout
    top : Top
        The parameters on unbounded scales, scores and information.
    notes : tuple of str
        What was left out, and what speaks against the fit, a sentence each.
    longest : float
        Longest follow-up of those it was fitted to: nothing is known beyond it.
    subjects, events : int
    measurements : tuple of int
        Of each marker.
    points : int
        Quadrature points a random effect.
    seconds : float
        The fit took, with its standard errors.
    """

    design: JointDesign
    layout: Layout
    top: Top
    notes: tuple[str, ...]
    longest: float
    subjects: int
    events: int
    measurements: tuple[int, ...]
    points: int
    seconds: float

    @property
    def log_likelihood(self) -> float:
        """The log-likelihood at its top."""
        return self.top.log_likelihood

    @cached_property
    def converged(self) -> bool:
        """Whether the top was reached, and curves down in every direction."""
        return not self.top.fault and not len(self.top.flat)

    @cached_property
    def covariance(self) -> NDArray[np.float64]:
        """Covariance of the parameters' estimates on unbounded scales; zero for those held at a bound."""
        free = ~self.top.at_bound
        covariance = np.zeros_like(self.top.information)
        inverse = np.linalg.pinv if len(self.top.flat) else np.linalg.inv
        covariance[np.ix_(free, free)] = inverse(self.top.information[np.ix_(free, free)])
        return covariance

    @cached_property
    def robust_covariance(self) -> NDArray[np.float64]:
        """The same by the sandwich of the scores (White 1982), right also where the family is not."""
        spread = self.top.scores.T @ self.top.scores
        return np.asarray(self.covariance @ spread @ self.covariance)

    @cached_property
    def table(self) -> pd.DataFrame:
        """Estimates as people read them: index `parameter`; `estimate`, `se`, `robust_se`, `low`, `high` (95 %), `p`.

        Terms and association are on the linear predictor's scale; spreads, dispersion and shares of zeros on
        their own, with standard errors by the delta method and limits from the unbounded scale; p is Wald's.
        """
        return pd.DataFrame(
            [row for block in self._blocks() for row in block],
            columns=["parameter", "estimate", "se", "robust_se", "low", "high", "p"],
        ).set_index("parameter")

    def summary(self) -> dict[str, Any]:
        """Return the fit as one object of plain values, as of ``recurrence fit --json``."""
        parameters = {
            str(name): {column: _plain(row[column]) for column in ("estimate", "se", "robust_se", "low", "high", "p")}
            for name, row in self.table.iterrows()
        }
        return {
            "log_likelihood": self.log_likelihood,
            "aic": 2 * int((~self.top.at_bound).sum()) - 2 * self.log_likelihood,
            "converged": self.converged,
            "seconds": round(self.seconds, 3),
            "subjects": self.subjects,
            "events": self.events,
            "measurements": sum(self.measurements),
            "parameters": parameters,
            "notes": list(self.notes),
        }

    def _blocks(self) -> list[list[tuple[Any, ...]]]:
        several = len(self.design.markers) > 1
        blocks = []
        for number, marker in enumerate(self.design.markers):
            prefix = f"{marker.spec.name}:" if several else ""
            terms, extra, factor = self.layout.places[3 * number : 3 * number + 3]
            blocks.append(
                [self._row(f"long:{prefix}{name}", at) for name, at in zip(marker.names, _each(terms), strict=True)]
            )
            blocks.append(
                [self._extra(prefix, name, at) for name, at in zip(marker.family.extra, _each(extra), strict=True)]
            )
            blocks.append(self._spreads(prefix, marker.random_names, factor))
        fixed, association = self.layout.places[-2:]
        names = [f"baseline:{name}" for name in self.design.baseline.names]
        names += [f"event:{name}" for name in self.design.event_names]
        rows = [self._row(name, at) for name, at in zip(names, _each(fixed), strict=True)]
        if self.design.baseline.kind == "weibull":
            rows[1] = self._row("baseline:shape", fixed.start + 1, lambda value: value + 1)
        blocks.append(rows)
        kinds = [f"association:{name}" for _, name in self.design.association_names]
        blocks.append([self._row(name, at) for name, at in zip(kinds, _each(association), strict=True)])
        return blocks

    def _extra(self, prefix: str, name: str, at: int) -> tuple[Any, ...]:
        if name == "logit_zero":
            return self._row(f"residual:{prefix}zero_share", at, lambda value: 1 / (1 + np.exp(-value)))
        plain = {"log_sd": "sd", "log_k": "k"}[name]
        return self._row(f"residual:{prefix}{plain}", at, np.exp)

    def _row(self, name: str, at: int, onto: Callable[[Any], Any] | None = None) -> tuple[Any, ...]:
        value = self.top.theta[at]
        errors = [np.sqrt(max(matrix[at, at], 0.0)) for matrix in (self.covariance, self.robust_covariance)]
        if self.top.at_bound[at]:
            errors = [np.nan, np.nan]
        limits = value - _Z_95 * errors[0], value + _Z_95 * errors[0]
        if onto is None:
            p = 2 * norm.sf(abs(value) / errors[0]) if errors[0] else np.nan
            return name, value, *errors, *limits, p
        slope = abs(onto(value + _STEP) - onto(value - _STEP)) / (2 * _STEP)
        with np.errstate(over="ignore"):
            limits = onto(limits[0]), onto(limits[1])
        return name, onto(value), *(slope * error for error in errors), *limits, np.nan

    def _spreads(self, prefix: str, names: tuple[str, ...], place: slice) -> list[tuple[Any, ...]]:
        """Standard deviations and correlations of random effects, by the delta method."""
        labels = [f"random:{prefix}sd({name})" for name in names]
        pairs = [(one, two) for one in range(len(names)) for two in range(one)]
        labels += [f"random:{prefix}corr({names[two]},{names[one]})" for one, two in pairs]
        values = self.top.theta[place]
        slopes = np.array(
            [
                (_spread_values(values + shift, len(names)) - _spread_values(values - shift, len(names))) / (2 * _STEP)
                for shift in _STEP * np.eye(len(values))
            ]
        )
        rows = []
        for label, value, slope in zip(labels, _spread_values(values, len(names)), slopes.T, strict=True):
            held = (self.top.at_bound[place] & (slope != 0)).any()
            errors = [
                np.nan if held else float(np.sqrt(max(slope @ matrix[place, place] @ slope, 0.0)))
                for matrix in (self.covariance, self.robust_covariance)
            ]
            rows.append((label, value, *errors, *_spread_limits(label, value, errors[0]), np.nan))
        return rows


def parameter_names(design: JointDesign) -> tuple[str, ...]:
    """Names of the parameters on unbounded scales, in order."""
    names: list[str] = []
    for marker in design.markers:
        prefix = f"{marker.spec.name}:" if len(design.markers) > 1 else ""
        names += [f"long:{prefix}{name}" for name in marker.names]
        names += [f"residual:{prefix}{name}" for name in marker.family.extra]
        for one in range(len(marker.random_names)):
            for two in range(one + 1):
                both = (
                    marker.random_names[one] if one == two else f"{marker.random_names[two]},{marker.random_names[one]}"
                )
                names.append(f"random:{prefix}{'spread' if one == two else 'cross'}({both})")
    names += [f"baseline:{name}" for name in design.baseline.names]
    names += [f"event:{name}" for name in design.event_names]
    return (*names, *(f"association:{name}" for _, name in design.association_names))


def _spread_values(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    from ctc_imaging.recurrence.joint.likelihood import factor_of

    factor = factor_of(values, size)
    covariance = factor @ factor.T
    spread = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(spread, spread)
    return np.array([*spread, *(correlation[one, two] for one in range(size) for two in range(one))])


def _spread_limits(label: str, value: float, error: float) -> tuple[float, float]:
    """Limits of a spread from its logarithm, of a correlation from Fisher's z."""
    if ":sd(" in label:
        factor = np.exp(min(_Z_95 * error / max(value, 1e-300), _UNBOUNDED))
        return value / factor, value * factor
    inside = float(np.clip(value, -1 + 1e-12, 1 - 1e-12))
    width = _Z_95 * error / (1 - inside**2)
    return float(np.tanh(np.arctanh(inside) - width)), float(np.tanh(np.arctanh(inside) + width))


def _each(place: slice) -> range:
    return range(place.start, place.stop)


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
