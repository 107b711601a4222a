"""Fine and Gray's regression: what a covariate does to the share that ever has the event, other causes at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.design import check_complete
from ctc_imaging.recurrence.fitting import CoxFit, fit_cox
from ctc_imaging.recurrence.product_limit import product_limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.design import Terms
    from ctc_imaging.recurrence.partial_likelihood import Ties

    Floats = NDArray[np.float64]

MODEL = "Fine-Gray model"
_ROW, _START, _STOP, _EVENT, _WEIGHT = "fg row", "fg start", "fg stop", "fg event", "fg weight"


def fine_gray(data: pd.DataFrame, terms: Terms, *, stop: str, cause: str, of: int, ties: Ties = "breslow") -> CoxFit:
    """Fit the hazard of the subdistribution (Fine and Gray, J Am Stat Assoc 1999;94:496-509).

    Whoever has had another cause stays at risk, weighted by the chance of not having been censored since; standard
    errors are robust, by subject, and take the censoring's estimate for known, as R's survival does.

    Parameters
    ----------
    data : DataFrame
        One row a subject.
    terms : str or sequence of str
        As of `fit_cox`.
    stop, cause : str
        Columns: end of follow-up, and what ended it (0 censored).
    of : int
        The cause asked for.
    ties : {'breslow', 'efron'}
        Breslow's, as in R's cmprsk.

    Returns
    -------
    CoxFit
        ``exp(coefficients)`` are ratios of subdistribution hazards; `event_probability` gives the incidence.

    Raises
    ------
    StatisticsError
        If something is missing, nobody has the cause, or the data can't carry the terms.
    """
    if not len(data):
        raise StatisticsError(MODEL, "there are no rows", "give it at least one event")
    check_complete(data, [stop, cause], MODEL)
    rows = weighted_rows(data[stop].to_numpy(dtype=np.float64), data[cause].to_numpy(dtype=np.int64), of)
    spread = data.reset_index(drop=True).loc[rows[_ROW]].reset_index(drop=True)
    return fit_cox(
        pd.concat([spread, rows], axis=1),
        terms,
        start=_START,
        stop=_STOP,
        event=_EVENT,
        weights=_WEIGHT,
        cluster=_ROW,
        ties=ties,
        model=MODEL,
    )


def weighted_rows(stop: Floats, cause: NDArray[np.int64], of: int) -> pd.DataFrame:
    """Prolong the follow-up of those who had another cause, with weights that fall as others are censored.

    Parameters
    ----------
    stop : ndarray of float64, shape (n,)
    cause : ndarray of int64, shape (n,)
        0 is censored.
    of : int
        The cause asked for.

    Returns
    -------
    DataFrame
        `fg row` (place in `stop`), `fg start`, `fg stop`, `fg event`, `fg weight`: each subject's own follow-up
        with weight 1, then one row for every stretch over which the weight stays the same.
    """
    own = pd.DataFrame({_ROW: np.arange(len(stop)), _START: -np.inf, _STOP: stop, _EVENT: cause == of, _WEIGHT: 1.0})
    events = np.unique(stop[cause == of])
    free = _uncensored(stop, cause, events)
    # Stretches of event times over which nobody is censored; each ends with its last event.
    ends = np.flatnonzero(np.append(np.diff(free) != 0, True)) if len(events) else np.array([], dtype=int)
    others = np.flatnonzero((cause != of) & (cause != 0))
    later = np.searchsorted(events[ends], stop[others], side="right")
    row = np.repeat(others, len(ends) - later)
    stretch = np.concatenate([np.arange(first, len(ends)) for first in later] or [np.array([], dtype=int)])
    before = np.append(-np.inf, events[ends])[stretch]
    weight = free[ends][stretch] / _uncensored(stop, cause, stop)[row]
    added = {_ROW: row, _START: np.maximum(before, stop[row]), _STOP: events[ends][stretch], _EVENT: False}
    prolonged = pd.DataFrame(added | {_WEIGHT: weight})
    return pd.concat([own, prolonged[prolonged[_WEIGHT] > 0]], ignore_index=True)


def _uncensored(stop: Floats, cause: NDArray[np.int64], times: Floats) -> Floats:
    """Chance of not being censored before each time; at equal times events come before censoring."""
    moments = np.unique(stop)
    # Even codes are for events and odd ones for the censoring that follows them at the same time.
    codes = 2 * np.searchsorted(moments, stop) + (cause == 0)
    return product_limit(codes, cause == 0).before(2 * np.searchsorted(moments, times))
