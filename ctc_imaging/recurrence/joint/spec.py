"""What joint model is wanted."""

from __future__ import annotations

from dataclasses import dataclass

ASSOCIATIONS = ("value", "slope", "area", "random")


@dataclass(frozen=True)
class MarkerSpec:
    """The submodel of a marker measured again and again.

    Parameters
    ----------
    formula : str
        Outcome and terms by formulaic, like ``ctc ~ day + day:arm``.
    family : str
        One of `families.FAMILIES`.
    random_effects : tuple of str
        Of each subject: ``intercept``, ``slope`` (of time), ``spline`` (three cubic B-splines of time).
    exposure : str or None
        Column that expected counts are proportional to, such as a volume of blood.
    """

    formula: str
    family: str = "gaussian"
    random_effects: tuple[str, ...] = ("intercept", "slope")
    exposure: str | None = None

    @property
    def name(self) -> str:
        """The outcome as the formula writes it."""
        return self.formula.partition("~")[0].strip()


@dataclass(frozen=True)
class JointSpec:
    """A joint model of markers and an event.

    Parameters
    ----------
    markers : tuple of MarkerSpec
        Random effects of different markers are independent; with several the integral is approximate, by three
        points a random effect, unless `nodes` says otherwise.
    event_formula : str
        Baseline covariates of the hazard, like ``arm + age``; 1 for none.
    association : tuple of str
        What of each marker the hazard depends on: value, slope, area (each of its linear predictor without
        the exposure), or random (the random effects themselves).
    baseline : str
        weibull, piecewise or spline.
    knots : tuple of float or None
        Inner knots of piecewise or spline; by default at quantiles of the events' times.
    nodes : int or None
        Gauss-Hermite points a random effect; by default as many as make the likelihood exact in practice.
    time_points : int or None
        Points of time that the hazard is integrated at, see `hazard.Baseline`; by default 15 by Gauss and Kronrod,
        and 20 by the exact rule where these move an estimate.
    """

    markers: tuple[MarkerSpec, ...]
    event_formula: str = "1"
    association: tuple[str, ...] = ("value",)
    baseline: str = "weibull"
    knots: tuple[float, ...] | None = None
    nodes: int | None = None
    time_points: int | None = None
