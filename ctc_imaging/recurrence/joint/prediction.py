"""Dynamic prediction: the risk of the event by each horizon, given the history so far and no later visit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.joint.design import MODEL
from ctc_imaging.recurrence.joint.fit import fit_joint
from ctc_imaging.recurrence.joint.likelihood import factor_of, find_centres, gauss_hermite, integrand, rates
from ctc_imaging.recurrence.joint.people import People, known_covariates
from ctc_imaging.recurrence.joint.rows import Rows, sum_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint.likelihood import Centres, Layout, Parameters
    from ctc_imaging.recurrence.joint.model import JointModel
    from ctc_imaging.recurrence.joint.rows import HazardRows
    from ctc_imaging.recurrence.joint.spec import JointSpec

DRAWS = 400
_LIMITS = (0.025, 0.975)
# Draws come from a Student distribution, whose tails are heavier than those of what it stands for.
_DEGREES = 4.0
_STEEPEST = 200.0
_FEWEST_DRAWS = 40
# Subjects predicted for together: more would only fill memory.
_AT_ONCE = 500


@dataclass(frozen=True)
class JointPredictor:
    """A joint model as a `predictor.Predictor`."""

    model: JointModel

    def risk(self, history: FollowUp, landmark: float, horizons: Sequence[float]) -> pd.DataFrame:
        """Predict for all subjects at risk; see `predictor.Predictor.risk`."""
        table = pd.DataFrame(np.nan, index=history.subjects, columns=list(horizons))
        at_risk = history.events[history.event_time].to_numpy() > landmark
        usable = table.index[at_risk & known_covariates(_cut(history, landmark), _needed(self.model))]
        for low in range(0, len(usable), _AT_ONCE):
            known = history.subset(usable[low : low + _AT_ONCE]).at(landmark)
            table.loc[known.subjects] = _expected_risk(self.model, known, landmark, horizons)
        return table


@dataclass(frozen=True)
class JointPredictorFit:
    """Fits a joint model to training subjects; a `predictor.PredictorFit`."""

    spec: JointSpec

    def __call__(self, training: FollowUp) -> JointPredictor:
        """Fit.

        Raises
        ------
        StatisticsError
            If the fit doesn't converge.
        """
        model = fit_joint(self.spec, training)
        if not model.converged:
            raise StatisticsError(MODEL, " ".join(model.notes) or "the fit didn't converge", "try a simpler model")
        return JointPredictor(model)


def predict_patient(
    model: JointModel,
    history: FollowUp,
    landmark: float,
    horizons: Sequence[float],
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Predict one subject's risk with limits.

    The risk is the mean over the subject's random effects given the history, at the fitted parameters. The limits
    hold what isn't known: the subject's random effects and the parameters, drawn together and weighted by how well
    they tell the history (self-normalised importance sampling from about the mode).

    Parameters
    ----------
    model : JointModel
    history : FollowUp
        Of one subject; measurements after the landmark aren't looked at.
    landmark : float
        The subject is known to be free of the event until then.
    horizons : sequence of float
        After the landmark, on the model's clock.
    draws : int
        Draws for the limits.
    seed : int

    Returns
    -------
    DataFrame
        Index `horizon`; `risk`, `low`, `high` (95 %), 0 to 1.

    Raises
    ------
    StatisticsError
        If there isn't one subject, a covariate isn't known at the landmark, this lies before time 0, a horizon
        isn't after it or lies beyond what the model was fitted to, or the draws are too few.
    """
    _check(model, history, landmark, horizons, draws)
    rows, ahead, count = _rows(model, history, landmark, horizons)
    theta = model.top.theta
    parameters = layout_parameters(model)
    centres = find_centres(parameters, model.layout, rows, np.zeros((1, sum(model.layout.effects))))
    risk = _risk_at_nodes(model, parameters, rows, ahead, centres, count)[0]
    rng = np.random.default_rng(seed)
    thetas = theta + _draw_normal(model.covariance, draws, rng)
    effects, log_density = _draw_effects(centres, draws, rng)
    log_weight, drawn = _weigh(model, thetas, effects, rows, ahead, count)
    low, high = _quantiles(drawn, np.exp(log_weight - log_density - logsumexp(log_weight - log_density)))
    index = pd.Index(list(horizons), name="horizon")
    return pd.DataFrame({"risk": risk, "low": np.minimum(low, risk), "high": np.maximum(high, risk)}, index=index)


def updates(
    model: JointModel, follow_up: FollowUp, horizon: float | None, ahead: float | None, until: float
) -> pd.DataFrame:
    """Predict one subject's risk anew at each measurement.

    Parameters
    ----------
    model : JointModel
    follow_up : FollowUp
        Of one subject.
    horizon : float or None
        A fixed time to predict to, or
    ahead : float or None
        so long after each measurement.
    until : float
        Last time to predict at; it is predicted at too.

    Returns
    -------
    DataFrame
        One row a time: `time`, `horizon`, `risk`, `low`, `high`.
    """
    times = [time for time in sorted(set(follow_up.long[follow_up.time])) if 0 <= time <= until]
    rows = []
    for time in sorted({*times, until}):
        to = horizon if horizon is not None else time + (ahead or 0.0)
        if to > time:
            found = predict_patient(model, follow_up, time, [to]).iloc[0]
            rows.append({"time": time, "horizon": to, **found})
    return pd.DataFrame(rows, columns=["time", "horizon", "risk", "low", "high"])


def layout_parameters(model: JointModel) -> Parameters:
    """Return the fitted parameters by their parts."""
    return model.layout.unpack(model.top.theta)


def _rows(
    model: JointModel, history: FollowUp, landmark: float, horizons: Sequence[float]
) -> tuple[Rows, HazardRows, int]:
    """Rows of subjects free of the event until the landmark, and of their hazards from there to each horizon."""
    known = history.at(landmark) if (history.events[history.event_time] > landmark).all() else _cut(history, landmark)
    people = People(known)
    count = len(people.events)
    # Up to the landmark and on to each horizon in one go: formulas cost more than numbers here.
    start = np.tile([0.0, *[landmark] * len(horizons)], count)
    stop = np.tile([landmark, *horizons], count)
    both = model.design.cumulative(people, np.repeat(np.arange(count), 1 + len(horizons)), start, stop)
    which, person = both.stretch % (1 + len(horizons)), both.stretch // (1 + len(horizons))
    before, after = which == 0, which > 0
    stretch = person[after] * len(horizons) + which[after] - 1
    rows = Rows(count, model.design.visits(people), both.where(before), both.where(np.zeros_like(before)))
    return rows, replace(both.where(after), stretch=stretch), len(horizons)


def _cut(history: FollowUp, landmark: float) -> FollowUp:
    """Keep measurements up to the landmark of subjects whose own follow-up may end there."""
    long = history.long[history.long[history.time] <= landmark]
    return replace(history, long=long, notes=())


def _risk_at_nodes(
    model: JointModel, parameters: Parameters, rows: Rows, ahead: HazardRows, centres: Centres, horizons: int
) -> NDArray[np.float64]:
    """Posterior mean of the risk by each horizon, (n, horizons)."""
    grid = gauss_hermite(model.points, sum(model.layout.effects))
    nodes = integrand(model.layout, parameters, rows, centres, grid)
    chance = np.exp(nodes.log - logsumexp(nodes.log, axis=1, keepdims=True))
    rate = rates(model.layout, parameters, ahead, nodes.effects)
    hazard = sum_by(ahead.stretch, rows.count * horizons) @ rate
    free = np.exp(-hazard).reshape(rows.count, horizons, -1)
    return np.asarray(1 - np.einsum("nhk,nk->nh", free, chance))


def _expected_risk(
    model: JointModel, known: FollowUp, landmark: float, horizons: Sequence[float]
) -> NDArray[np.float64]:
    rows, ahead, count = _rows(model, known, landmark, horizons)
    parameters = layout_parameters(model)
    start = np.zeros((rows.count, sum(model.layout.effects)))
    centres = find_centres(parameters, model.layout, rows, start)
    return _risk_at_nodes(model, parameters, rows, ahead, centres, count)


def _draw_normal(covariance: NDArray[np.float64], draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(rng.standard_normal((draws, len(values))) * np.sqrt(np.maximum(values, 0)) @ vectors.T)


def _draw_effects(
    centres: Centres, draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw random effects about the mode, and say how likely each draw was (up to a constant)."""
    size = centres.modes.shape[1]
    normal = rng.standard_normal((draws, size)) * np.sqrt(_DEGREES / rng.chisquare(_DEGREES, draws))[:, None]
    log_density = -(_DEGREES + size) / 2 * np.log1p((normal**2).sum(axis=1) / _DEGREES)
    return centres.modes[0] + normal @ centres.spread[0].T, log_density


def _weigh(
    model: JointModel,
    thetas: NDArray[np.float64],
    effects: NDArray[np.float64],
    rows: Rows,
    ahead: HazardRows,
    horizons: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log posterior weight of each draw of parameters and effects, and the risks they tell, (draws, horizons)."""
    layout = model.layout
    blocks = [thetas[:, place] for place in layout.places]
    log = np.zeros(len(thetas))
    for number, marker in enumerate(rows.markers):
        terms, extra, factors = blocks[3 * number : 3 * number + 3]
        own = effects[:, layout.effect_slices[number]]
        eta = marker.offset[:, None] + marker.terms @ terms.T + marker.random @ own.T
        log += layout.families[number].density(marker.y[:, None], eta, extra.T).log.sum(axis=0)
        log += _log_normal(own, factors)
    log -= _drawn_rates(layout, blocks, effects, rows.cumulative).sum(axis=0)
    hazard = sum_by(ahead.stretch, horizons) @ _drawn_rates(layout, blocks, effects, ahead)
    return log, -np.expm1(-hazard.T)


def _drawn_rates(
    layout: Layout, blocks: list[NDArray[np.float64]], effects: NDArray[np.float64], hazard: HazardRows
) -> NDArray[np.float64]:
    """Weighted hazards of one subject's rows, (rows, draws), each draw with parameters of its own."""
    log = hazard.log_weight[:, None] + hazard.fixed @ blocks[-2].T
    for strength, (marker, terms, functions) in zip(blocks[-1].T, hazard.associated, strict=True):
        own = effects[:, layout.effect_slices[marker]]
        log = log + strength * (terms @ blocks[3 * marker].T + functions @ own.T)
    return np.asarray(np.exp(np.minimum(log, _STEEPEST)))


def _log_normal(effects: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log density of each draw's effects (draws, q), by its own Cholesky factor's parameters, up to a constant."""
    built = factor_of(factors, effects.shape[1])
    scaled = np.linalg.solve(built, effects[:, :, None])[:, :, 0]
    diagonal = np.diagonal(built, axis1=1, axis2=2)
    return np.asarray(-0.5 * (scaled**2).sum(axis=1) - np.log(diagonal).sum(axis=1))


def _quantiles(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Weighted quantiles of each column."""
    order = np.argsort(values, axis=0)
    reached = np.cumsum(weights[order], axis=0)
    picked = [(reached < share * reached[-1]).sum(axis=0).clip(max=len(values) - 1) for share in _LIMITS]
    columns = np.arange(values.shape[1])
    return tuple(values[order[place, columns], columns] for place in picked)


def _needed(model: JointModel) -> set[str]:
    return set(map(str, model.design.event_terms.required_variables)).union(
        *(marker.needed for marker in model.design.markers)
    )


def _check(model: JointModel, history: FollowUp, landmark: float, horizons: Sequence[float], draws: int) -> None:
    if len(history.events) != 1:
        raise StatisticsError(MODEL, f"{len(history.events)} subjects are given where one is meant", "choose one")
    if landmark < 0:
        raise StatisticsError(MODEL, f"the landmark {landmark:g} lies before time 0", "choose a later one")
    if draws < _FEWEST_DRAWS:
        raise StatisticsError(MODEL, f"{draws} draws are too few for limits", f"ask for {_FEWEST_DRAWS} or more")
    if not known_covariates(_cut(history, landmark), _needed(model)).all():
        raise StatisticsError(MODEL, "a covariate of the subject isn't known", "fill it in")
    if not len(horizons) or min(horizons) <= landmark:
        raise StatisticsError(MODEL, f"a horizon isn't after {landmark:g}", "choose later ones")
    if max(horizons) > model.longest:
        raise StatisticsError(
            MODEL, f"nobody was followed to {max(horizons):g}", f"choose horizons up to {model.longest:g}"
        )
