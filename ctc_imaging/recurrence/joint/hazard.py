"""The baseline hazard: its logarithm as a sum of functions of time, and the points of time to integrate it at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import BSpline

from ctc_imaging.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BASELINES = ("weibull", "piecewise", "spline")
PIECES = 7
SPLINE_FUNCTIONS = 6
_DEGREE = 3
KRONROD_POINTS = 15
_POINTS_A_PIECE = 7
_FEWEST_TIME_POINTS = 3
# Of any unit; earlier times have no logarithm once rounded.
_EARLIEST = 1e-300
# The 15-point Gauss-Kronrod rule on (-1, 1), its right half (Piessens, QUADPACK 1983): joint models' usual rule.
_KRONROD_PLACES = (
    0.0,
    0.207784955007898467600689403773245,
    0.405845151377397166906606412076961,
    0.586087235467691130294144691258380,
    0.741531185599394439863864773280788,
    0.864864423359769072789712788640926,
    0.949107912342758524526189684047851,
    0.991455371120812639206854697526329,
)
_KRONROD_WEIGHTS = (
    0.209482141084727828012999174891714,
    0.204432940075298892414161999234649,
    0.190350578064785409913256402421014,
    0.169004726639267902826583426598550,
    0.140653259715525918745189590510238,
    0.104790010322250183839876322541518,
    0.063092092629978553290700663189204,
    0.022935322010529224963732008058970,
)


@dataclass(frozen=True)
class Baseline:
    """Log baseline hazard as basis functions times coefficients.

    Parameters
    ----------
    kind : str
        weibull: intercept and log time (shape - 1); piecewise: a level between knots; spline: cubic B-splines.
    knots : ndarray of float64
        Inner knots of piecewise; all knots of spline; none of weibull.
    time_points : int
        Points of time that the hazard is integrated at, of weibull and spline: 15 by Gauss and Kronrod, as joint
        models usually do; any other number by Gauss and Legendre in the fourth root of time, in which a Weibull hazard
        that bends sharply near time zero is smooth: 20 are exact in practice.
    """

    kind: str
    knots: NDArray[np.float64]
    time_points: int = KRONROD_POINTS

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the coefficients."""
        if self.kind == "weibull":
            return "log_rate", "log_time"
        stem = "log_hazard" if self.kind == "piecewise" else "spline"
        return tuple(f"{stem}_{number}" for number in range(1, self._size + 1))

    @property
    def _size(self) -> int:
        return len(self.knots) + 1 if self.kind == "piecewise" else len(self.knots) - _DEGREE - 1

    def basis(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate the functions.

        Parameters
        ----------
        times : ndarray of float64, shape (n,)
            Above zero.

        Returns
        -------
        ndarray of float64, shape (n, len(names))
        """
        if self.kind == "weibull":
            return np.column_stack([np.ones_like(times), np.log(np.maximum(times, _EARLIEST))])
        if self.kind == "piecewise":
            return np.eye(self._size)[np.searchsorted(self.knots, times, side="left")]
        inside = times.clip(self.knots[0], np.nextafter(self.knots[-1], 0))
        return BSpline.design_matrix(inside, self.knots, _DEGREE).toarray()

    def start(self, rate: float) -> NDArray[np.float64]:
        """Return coefficients of a constant hazard."""
        flat = np.full(len(self.names), np.log(rate))
        return np.array([np.log(rate), 0.0]) if self.kind == "weibull" else flat

    def points(
        self, start: NDArray[np.float64], stop: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Lay points over stretches of time to integrate at; a stretch is cut where the hazard jumps.

        Parameters
        ----------
        start, stop : ndarray of float64, shape (n,)

        Returns
        -------
        stretch : ndarray of int
            The stretch that each point belongs to, in order.
        times, weights : ndarray of float64
        """
        owner, low, high = self._cut(start, stop)
        unit, weight = self._rule()
        length = (high - low)[:, None]
        times = low[:, None] + length * unit
        return np.repeat(owner, len(unit)), times.ravel(), (length * weight).ravel()

    def _rule(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Places and weights on (0, 1)."""
        if self.kind == "piecewise":
            return _gauss_legendre(_POINTS_A_PIECE)
        if self.time_points != KRONROD_POINTS:
            root, weight = _gauss_legendre(self.time_points)
            return root**4, 4 * root**3 * weight
        places, weights = (np.array(half) for half in (_KRONROD_PLACES, _KRONROD_WEIGHTS))
        places, weights = np.concatenate([-places[:0:-1], places]), np.concatenate([weights[:0:-1], weights])
        return (places + 1) / 2, weights / 2

    def _cut(
        self, start: NDArray[np.float64], stop: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        owner = np.arange(len(start))
        if self.kind != "piecewise":
            some = stop > start
            return owner[some], start[some], stop[some]
        edges = np.concatenate([[-np.inf], self.knots, [np.inf]])
        low = np.maximum(start[:, None], edges[None, :-1])
        high = np.minimum(stop[:, None], edges[None, 1:])
        row, piece = np.nonzero(high > low)
        return row, low[row, piece], high[row, piece]


def make_baseline(
    kind: str,
    event_times: NDArray[np.float64],
    longest: float,
    knots: tuple[float, ...] | None,
    time_points: int = KRONROD_POINTS,
) -> Baseline:
    """Choose the knots.

    Parameters
    ----------
    kind : str
        One of `BASELINES`.
    event_times : ndarray of float64
        Times of events, whose quantiles are the knots where none are given.
    longest : float
        Longest follow-up.
    knots : tuple of float or None
        Inner knots, for piecewise and spline.
    time_points : int
        See `Baseline`.

    Returns
    -------
    Baseline

    Raises
    ------
    ConfigError
        If the kind isn't known, the time points are too few, or the knots don't lie within the follow-up in rising
        order with events between them.
    """
    if time_points < _FEWEST_TIME_POINTS:
        fault = f"{time_points} are too few"
        raise ConfigError("--time-points", fault, f"give at least {_FEWEST_TIME_POINTS}, or leave it out")
    if kind not in BASELINES:
        raise ConfigError("--baseline", f"{kind!r} isn't known", f"choose one of {', '.join(BASELINES)}")
    if kind == "weibull":
        if knots:
            raise ConfigError("--knots", "a Weibull hazard has none", "choose piecewise or spline, or leave them out")
        return Baseline(kind, np.empty(0), time_points)
    inner = np.array(knots, dtype=float) if knots else _default_knots(kind, event_times, longest)
    if not ((inner > 0) & (inner < longest)).all() or (np.diff(inner) <= 0).any():
        raise ConfigError("--knots", "they don't rise from 0 to the longest follow-up", f"stay below {longest:g}")
    if kind == "piecewise" and not _counts(inner, event_times).all():
        empty = int(np.argmin(_counts(inner, event_times)))
        stretch = f"from {inner[empty - 1] if empty else 0:g} to {inner[empty] if empty < len(inner) else longest:g}"
        raise ConfigError("--knots", f"nobody had the event {stretch}", "leave out a knot there")
    ends = np.zeros(_DEGREE + 1), np.full(_DEGREE + 1, longest)
    return Baseline(kind, inner if kind == "piecewise" else np.concatenate([ends[0], inner, ends[1]]), time_points)


def _default_knots(kind: str, event_times: NDArray[np.float64], longest: float) -> NDArray[np.float64]:
    """Quantiles of the events' times; for pieces as many as leave none without events."""
    count = PIECES - 1 if kind == "piecewise" else SPLINE_FUNCTIONS - _DEGREE - 1
    knots = np.unique(np.quantile(event_times, np.arange(1, count + 1) / (count + 1)))
    knots = knots[(knots > 0) & (knots < longest)]
    while kind == "piecewise" and not (counts := _counts(knots, event_times)).all():
        knots = np.delete(knots, min(int(np.argmin(counts)), len(knots) - 1))
    return knots


def _counts(knots: NDArray[np.float64], event_times: NDArray[np.float64]) -> NDArray[np.intp]:
    """Events in each piece."""
    return np.bincount(np.searchsorted(knots, event_times, side="left"), minlength=len(knots) + 1)


def _gauss_legendre(points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    place, weight = np.polynomial.legendre.leggauss(points)
    return (place + 1) / 2, weight / 2
