"""What every Cox fit here has in common: warnings become notes, a fit that ran away becomes an error."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from lifelines.exceptions import ConvergenceError, ConvergenceWarning

from ctc_imaging.errors import StatisticsError

if TYPE_CHECKING:
    from collections.abc import Callable

# Half Newton steps: full ones diverge on data as ordinary as the Mayo clinic's pbc.
STEP_SIZE = 0.5
# A log hazard ratio known no better than this says nothing: the fit has run away.
LARGEST_STANDARD_ERROR = 10.0


def fit_quietly(fit: Callable[[], Any], model: str) -> list[str]:
    """Run a lifelines fit without a warning escaping.

    Parameters
    ----------
    fit : callable
        Fits and returns a fitter with `standard_errors_`.
    model : str
        The model's name, for errors.

    Returns
    -------
    list of str
        What lifelines warned of, a sentence each.

    Raises
    ------
    StatisticsError
        If the fit doesn't converge.
    """
    remedy = "gather more events, or look for a covariate that tells the event apart completely"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            errors = fit().standard_errors_
        except (ConvergenceError, np.linalg.LinAlgError, ArithmeticError, ValueError) as error:
            raise StatisticsError(model, f"the fit failed ({str(error).split('.')[0]})", remedy) from error
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        raise StatisticsError(model, "the fit doesn't converge", remedy)
    if not (np.isfinite(errors) & (errors < LARGEST_STANDARD_ERROR)).all():
        raise StatisticsError(model, "the hazard ratios can't be estimated", remedy)
    return sorted({str(warning.message).strip().splitlines()[0] for warning in caught})


def hazard_ratios(fitter: Any) -> pd.DataFrame:
    """Tabulate a fitted lifelines Cox model.

    Parameters
    ----------
    fitter : CoxPHFitter or CoxTimeVaryingFitter

    Returns
    -------
    DataFrame
        `term`, `hazard_ratio`, `low`, `high` (95 %, Wald), `p`.
    """
    names = {
        "covariate": "term",
        "exp(coef)": "hazard_ratio",
        "exp(coef) lower 95%": "low",
        "exp(coef) upper 95%": "high",
        "p": "p",
    }
    return fitter.summary.reset_index().rename(columns=names)[list(names.values())].rename_axis(columns=None)
