"""Whether hazard ratios stay the same over time: without that a Cox model's ratio is a mean of different ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy.special import chdtrc
from scipy.stats import rankdata

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.fitting import CoxFit
    from ctc_imaging.recurrence.partial_likelihood import PartialLikelihood

    Floats = NDArray[np.float64]

Scale = Literal["km", "rank", "identity", "log"]
GLOBAL = "global"
SIGNIFICANCE = 0.05


def proportional_hazards_test(fit: CoxFit, scale: Scale = "km") -> pd.DataFrame:
    """Test whether log hazard ratios change over time, term by term and all at once.

    The score test of adding each covariate times a function of time (Grambsch and Therneau, Biometrika
    1994;81:515-26), with the information of each risk set, not its mean, as R's survival has it since version 3.

    Parameters
    ----------
    fit : CoxFit
    scale : {'km', 'rank', 'identity', 'log'}
        The function of time: one less the Kaplan-Meier estimate just before it (even in the events, so that a few
        late ones don't decide), the rank of the event, the time, or its logarithm.

    Returns
    -------
    DataFrame
        Index `term`, last `global`; `chi_square`, `df`, `p`, NaN where too few events tell.
    """
    likelihood, at = fit.likelihood, fit.maximum
    over_time = _function_of_time(likelihood, scale)
    mean = np.average(over_time, weights=likelihood.deaths)
    change = (over_time - mean)[likelihood.step_time]
    score = (over_time - mean) @ likelihood.schoenfeld_residuals(at)
    plain, cross, square = (likelihood.information(at, multiplier) for multiplier in (1.0, change, change**2))
    tested = {**fit.design.terms, GLOBAL: tuple(range(len(score)))}
    rows = {term: _score_test(score, plain, cross, square, list(columns)) for term, columns in tested.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["chi_square", "df", "p"])
    return table.astype({"df": int}).rename_axis("term")


def disproportion_notes(fit: CoxFit) -> list[str]:
    """Say in words which hazard ratios can't be taken for constant.

    Parameters
    ----------
    fit : CoxFit

    Returns
    -------
    list of str
        Empty where neither a term nor the model as a whole shows a change at P < 0.05.
    """
    if len(fit.likelihood.event_times) < 2:
        return []
    table = proportional_hazards_test(fit)
    significant = table[table["p"] < SIGNIFICANCE]
    if significant.empty:
        return []
    named = {GLOBAL: "all terms together"}
    words = ", ".join(f"{named.get(str(term), term)} ({_p(p)})" for term, p in significant["p"].items())
    return [f"the hazard ratio changes over time: {words}. The ratio printed is a mean over follow-up."]


def smoothed_ratios(fit: CoxFit, term: str, window: float = 0.3) -> pd.DataFrame:
    """Follow a covariate's log hazard ratio over time, for a picture of how it changes.

    Scaled Schoenfeld residuals plus the coefficient (Grambsch and Therneau 1994), averaged over the nearest events.

    Parameters
    ----------
    fit : CoxFit
    term : str
        Name of a column of the design.
    window : float
        Share of the event times that each mean is taken over.

    Returns
    -------
    DataFrame
        `time`, `coefficient` (running mean) and `residual`, one row an event time.
    """
    likelihood = fit.likelihood
    scaled = likelihood.schoenfeld_residuals(fit.maximum) @ np.linalg.inv(likelihood.information(fit.maximum))
    scaled *= len(likelihood.dead) / likelihood.deaths[:, None]
    place = fit.names.index(term)
    values = scaled[:, place] / fit.scale[place] + fit.coefficients[place]
    found = pd.DataFrame({"time": likelihood.event_times, "residual": values}).sort_values("time", ignore_index=True)
    width = max(3, round(window * len(found)))
    found.insert(1, "coefficient", found["residual"].rolling(width, center=True, min_periods=1).mean())
    return found


def _function_of_time(likelihood: PartialLikelihood, scale: Scale) -> Floats:
    """Give each event time its place on the scale."""
    times = likelihood.event_times
    if scale == "identity":
        return times
    if scale == "log":
        return np.log(times)
    if scale == "rank":
        deaths = likelihood.deaths
        return np.asarray(rankdata(np.repeat(times, deaths))[np.cumsum(deaths) - deaths])
    return _lost_before(likelihood)


def _lost_before(likelihood: PartialLikelihood) -> Floats:
    """One less the Kaplan-Meier estimate of everybody, whatever the stratum, just before each event time."""
    distinct, place = np.unique(likelihood.event_times, return_inverse=True)
    deaths = np.bincount(place, likelihood.over_steps(likelihood.step_weight))
    at_risk = np.zeros(len(distinct))
    for bound, sign in ((likelihood.stop, 1), (likelihood.start, -1)):
        order = np.argsort(bound)
        total = np.append(np.cumsum(likelihood.weights[order][::-1])[::-1], 0.0)
        at_risk += sign * total[np.searchsorted(bound[order], distinct)]
    surviving = np.cumprod(1 - deaths / at_risk)
    return (1 - np.append(1.0, surviving[:-1]))[place]


def _score_test(
    score: Floats, plain: Floats, cross: Floats, square: Floats, own: list[int]
) -> tuple[float, int, float]:
    """Test the coefficients' change, with those themselves profiled out."""
    profiled = square[np.ix_(own, own)] - cross[own] @ np.linalg.solve(plain, cross[:, own])
    if np.linalg.matrix_rank(profiled, hermitian=True) < len(own):
        return float("nan"), len(own), float("nan")
    chi_square = float(score[own] @ np.linalg.solve(profiled, score[own]))
    return chi_square, len(own), float(chdtrc(len(own), chi_square))


def _p(value: float) -> str:
    return "P < 0.001" if value < 0.001 else f"P = {value:.2g}"
