"""The Cox model: from rows and a formula to hazard ratios, with what can't be fitted named first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import ndtr

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.concordance import concordance
from ctc_imaging.recurrence.cox_checks import check_intervals, check_terms
from ctc_imaging.recurrence.design import Design, build_design, check_complete
from ctc_imaging.recurrence.partial_likelihood import PartialLikelihood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.design import Terms
    from ctc_imaging.recurrence.partial_likelihood import Evaluation, Maximum, Ties

    Floats = NDArray[np.float64]

MODEL = "Cox model"
Z_95 = 1.959963984540054
# A log hazard ratio per standard deviation of its covariate known no better than this says nothing: it ran away.
LARGEST_STANDARD_ERROR = 10.0


@dataclass(frozen=True)
class CoxFit:
    """A fitted Cox model.

    `coefficients` (k,) and `covariance` (k, k) are on the scale of the covariates; `covariance` is the robust one
    where the fit was given clusters. `centre` is the covariates' mean, which `baseline` hazards hold for;
    `strata` names the strata by code.
    """

    model: str
    coefficients: Floats
    covariance: Floats
    naive_covariance: Floats
    log_likelihood: float
    log_likelihood_zero: float
    iterations: int
    design: Design
    centre: Floats
    scale: Floats
    likelihood: PartialLikelihood
    maximum: Evaluation
    clusters: NDArray[np.intp] | None = None
    strata: tuple[object, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The covariates' names."""
        return self.design.names

    @property
    def events(self) -> int:
        """How many events there were."""
        return len(self.likelihood.dead)

    @property
    def standard_errors(self) -> Floats:
        """Standard errors of the log hazard ratios, of shape (k,)."""
        return np.sqrt(np.diag(self.covariance))

    def table(self) -> pd.DataFrame:
        """Tabulate hazard ratios: `term`, `hazard_ratio`, `low`, `high` (95 %, Wald), `p`, and what they come from."""
        errors = self.standard_errors
        return pd.DataFrame(
            {
                "term": self.names,
                "hazard_ratio": np.exp(self.coefficients),
                "low": np.exp(self.coefficients - Z_95 * errors),
                "high": np.exp(self.coefficients + Z_95 * errors),
                "p": 2 * ndtr(-np.abs(self.coefficients) / errors),
                "coefficient": self.coefficients,
                "standard_error": errors,
            }
        )

    def predictor(self, data: pd.DataFrame) -> Floats:
        """Compute the log hazard ratio of each row against the mean of the covariates.

        Parameters
        ----------
        data : DataFrame
            With the columns of the formula.

        Returns
        -------
        ndarray of float64, shape (m,)
        """
        return (self.design.of(data) - self.centre) @ self.coefficients

    def concordance(self) -> float:
        """Harrell's C on the rows that the model was fitted to; higher than in new patients."""
        own = self.likelihood
        ends = np.zeros(len(own.design), bool)
        ends[own.dead] = True
        return concordance(self.design.matrix @ self.coefficients, own.last, ends, own.first)


def fit_cox(
    data: pd.DataFrame,
    terms: Terms,
    *,
    stop: str,
    event: str,
    start: str | None = None,
    id: str | None = None,
    cluster: str | None = None,
    strata: Sequence[str] = (),
    weights: str | None = None,
    ties: Ties = "efron",
    model: str = MODEL,
) -> CoxFit:
    """Fit a Cox model to rows of follow-up (Andersen and Gill, Ann Stat 1982;10:1100-20).

    Newton's method from zero on centred and scaled covariates, halving steps that don't climb; the likelihood is
    concave, so it ends at the maximum wherever there is one. One pass over the rows an iteration.

    Parameters
    ----------
    data : DataFrame
        One row an interval (start, stop] with its covariates, or one row a subject.
    terms : str or sequence of str
        A formula as of formulaic, for example ``"log(afp) + C(stage)"``, or names of columns.
    stop, event : str
        Columns: end of the interval, and whether the event happened then.
    start : str, optional
        Column: start of the interval. Without it all are at risk from the beginning.
    id : str, optional
        Column: the subject, whose intervals may not overlap.
    cluster : str, optional
        Column: rows that belong together; gives robust standard errors (Lin and Wei 1989).
    strata : sequence of str
        Columns: every combination of their values has a baseline hazard of its own.
    weights : str, optional
        Column: case weights, positive.
    ties : {'efron', 'breslow'}
        How events at the same time are treated.
    model : str
        The model's name, for errors.

    Returns
    -------
    CoxFit

    Raises
    ------
    StatisticsError
        If something is missing, intervals overlap, nobody has the event, a covariate is constant, follows from
        others or separates, or the covariates together do.
    """
    columns = [name for name in (stop, event, start, id, cluster, weights, *strata) if name is not None]
    if not len(data):
        raise StatisticsError(model, "there are no rows", "give it at least one event")
    design = build_design(data, terms, model)
    check_complete(data, columns, model)
    stops, happened = data[stop].to_numpy(dtype=np.float64), data[event].to_numpy().astype(bool)
    starts = None if start is None else data[start].to_numpy(dtype=np.float64)
    check_intervals(starts, stops, happened, None if id is None else data[id], model)
    codes, levels = _strata(data, strata)
    case_weights = None if weights is None else _positive(data[weights], model)
    clusters = None if cluster is None else pd.factorize(data[cluster])[0]
    centre, spread = _moments(design.matrix)
    scaled = (design.matrix - centre) / np.where(spread > 0, spread, 1.0)
    likelihood = PartialLikelihood(scaled, stops, happened, starts, case_weights, codes, ties)
    check_terms(likelihood, spread, design.names, model)
    return _fitted(likelihood, design, centre, spread, clusters, levels, model)


def _fitted(
    likelihood: PartialLikelihood,
    design: Design,
    centre: Floats,
    spread: Floats,
    clusters: NDArray[np.intp] | None,
    strata: tuple[object, ...],
    model: str,
) -> CoxFit:
    """Find the maximum and bring it back to the covariates' own scale."""
    found = likelihood.maximise()
    naive = _covariance(found, design.names, model)
    covariance = naive if clusters is None else _sandwich(likelihood, found, naive, clusters)
    area = np.outer(spread, spread)
    return CoxFit(
        model=model,
        coefficients=found.coefficients / spread,
        covariance=covariance / area,
        naive_covariance=naive / area,
        log_likelihood=found.at_maximum.log_likelihood,
        log_likelihood_zero=found.at_zero.log_likelihood,
        iterations=found.iterations,
        design=design,
        centre=centre,
        scale=spread,
        likelihood=likelihood,
        maximum=found.at_maximum,
        clusters=clusters,
        strata=strata,
    )


def _moments(matrix: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column; a deviation that is only rounding is 0."""
    centre, spread = matrix.mean(axis=0), matrix.std(axis=0)
    return centre, np.where(spread > 1e-12 * (1 + np.abs(centre)), spread, 0.0)


def cluster_sums(values: Floats, clusters: NDArray[np.intp]) -> Floats:
    """Sum the rows of each cluster.

    Parameters
    ----------
    values : ndarray of float64, shape (n, k)
    clusters : ndarray of int, shape (n,)
        Codes from 0.

    Returns
    -------
    ndarray of float64, shape (clusters, k)
    """
    return np.column_stack([np.bincount(clusters, column) for column in values.T]).astype(np.float64)


def _covariance(found: Maximum, names: Sequence[str], model: str) -> Floats:
    """Invert the information, refusing a fit that ran away or didn't end."""
    remedy = "leave a covariate out, or gather more events"
    try:
        covariance = np.linalg.inv(found.information).astype(np.float64)
    except np.linalg.LinAlgError:
        covariance = np.full_like(found.information, np.inf)
    variances = np.diag(covariance)
    # Written so that a variance that is NaN is too wide as well.
    wide = ~((variances > 0) & (variances < LARGEST_STANDARD_ERROR**2))
    if wide.any():
        listed = ", ".join(name for name, bad in zip(names, wide, strict=True) if bad)
        fault = f"the hazard ratio of {listed} can't be estimated: together the covariates tell the event apart"
        raise StatisticsError(model, fault, remedy)
    if not found.converged:
        raise StatisticsError(model, f"the fit hasn't converged after {found.iterations} iterations", remedy)
    return covariance


def _sandwich(likelihood: PartialLikelihood, found: Maximum, naive: Floats, clusters: NDArray[np.intp]) -> Floats:
    influence = cluster_sums(likelihood.score_residuals(found.at_maximum) @ naive, clusters)
    return influence.T @ influence


def _strata(data: pd.DataFrame, columns: Sequence[str]) -> tuple[NDArray[np.intp] | None, tuple[object, ...]]:
    if not columns:
        return None, ()
    groups = data.groupby(list(columns), sort=True, observed=True)
    return np.asarray(groups.ngroup(), dtype=np.intp), tuple(groups.groups)


def _positive(weights: pd.Series, model: str) -> Floats:
    values = weights.to_numpy(dtype=np.float64)
    if not (values > 0).all():
        raise StatisticsError(model, f"{weights.name} isn't positive in every row", "leave rows without weight out")
    return values
