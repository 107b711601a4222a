"""Several ways for follow-up to end: cumulative incidence of recurrence beside death without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.fitting import fit_cox
from ctc_imaging.recurrence.product_limit import Estimate, logrank_p, product_limit
from ctc_imaging.recurrence.survival import at_risk_at, recurrence_free_times
from ctc_imaging.timeline import PATTERNS, patterns_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from ctc_imaging.recurrence.design import Terms
    from ctc_imaging.recurrence.fitting import CoxFit

    Floats = NDArray[np.float64]

MODEL = "cumulative incidence of recurrence"
CENSORED, RECURRENCE, DEATH = 0, 1, 2
CAUSES = {RECURRENCE: "recurrence", DEATH: "death without recurrence"}
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Incidence:
    """Cumulative incidence of one cause: the share that has had it by each time, others having come first counted.

    `variance` is that of `incidence`. All of shape (times,); `last` is the end of follow-up.
    """

    times: Floats
    incidence: Floats
    variance: Floats
    last: float
    settled: bool

    def at(self, time: float) -> Estimate:
        """Incidence by a time, with 95 % limits on the scale log(-log); NaN after the end of follow-up.

        Limits are NaN where the incidence is 0 or 1.
        """
        if time > self.last and not self.settled:
            return Estimate(float("nan"), float("nan"), float("nan"))
        place = int(np.searchsorted(self.times, time, side="right"))
        value, variance = (float(np.append(0.0, values)[place]) for values in (self.incidence, self.variance))
        if not 0 < value < 1 or not np.isfinite(variance):
            return Estimate(value, float("nan"), float("nan"))
        half = _Z_95 * np.sqrt(variance) / abs(value * np.log(value))
        return Estimate(value, float(value ** np.exp(half)), float(value ** np.exp(-half)))


@dataclass(frozen=True)
class GroupIncidence:
    """One group's incidence of each cause by the horizon, and its numbers."""

    group: str
    n: int
    events: dict[str, int]
    by_horizon: dict[str, Estimate]


@dataclass(frozen=True)
class LandmarkIncidence:
    """Incidence by pattern at a landmark; `recurrence_p` compares the patterns' hazard of recurrence (log-rank)."""

    landmark_day: float
    horizon_days: float
    everyone: GroupIncidence
    groups: tuple[GroupIncidence, ...]
    recurrence_p: float | None

    def table(self) -> pd.DataFrame:
        """One row a group and cause: `group`, `n`, `cause`, `events`, `share`, `low`, `high` (by the horizon, 95 %)."""
        rows = [
            (group.group, group.n, cause, group.events[cause], *share)
            for group in (self.everyone, *self.groups)
            for cause, share in group.by_horizon.items()
        ]
        return pd.DataFrame(rows, columns=["group", "n", "cause", "events", "share", "low", "high"])


def recurrence_causes(clinical: pd.DataFrame) -> pd.DataFrame:
    """Days from surgery to the first of recurrence and death, and which it was.

    Parameters
    ----------
    clinical : DataFrame
        As of `cohort.load_clinical`.

    Returns
    -------
    DataFrame
        Index `patient_id`; `days` and `cause`: 0 neither by the last contact, 1 recurrence (also found on the day
        of death), 2 death without recurrence.
    """
    times = recurrence_free_times(clinical)
    dates = clinical.set_index("patient_id")[["recurrence_date", "death_date"]].apply(pd.to_datetime)
    recurred = dates["recurrence_date"].notna() & ~(dates["death_date"] < dates["recurrence_date"])
    cause = np.select([recurred, times["event"]], [RECURRENCE, DEATH], CENSORED)
    return pd.DataFrame({"days": times["days"], "cause": cause}, index=times.index)


def cumulative_incidence(stop: ArrayLike, cause: ArrayLike, of: int, start: ArrayLike | None = None) -> Incidence:
    """Estimate cumulative incidence (Aalen and Johansen, Scand J Stat 1978;5:141-50).

    One less Kaplan-Meier with other causes censored would count patients who died as if they could still recur.

    Parameters
    ----------
    stop : array_like of float, shape (n,)
        When follow-up ends.
    cause : array_like of int, shape (n,)
        What ended it; 0 is censored.
    of : int
        The cause asked for.
    start : array_like of float, shape (n,), optional
        When each comes under observation.

    Returns
    -------
    Incidence
        Variance by the delta method (Marubini and Valsecchi, Analysing Survival Data from Clinical Trials, 1995).
    """
    stop, cause = np.asarray(stop, dtype=float), np.asarray(cause, dtype=int)
    every = product_limit(stop, cause != CENSORED, start)
    _, place = np.unique(stop, return_inverse=True)
    own = np.bincount(place, cause == of, len(every.times))
    at_risk, events = every.at_risk, every.events
    surviving = every.before(every.times)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(own > 0, own / at_risk, 0.0)
        leaving = np.where(events < at_risk, events / (at_risk * (at_risk - events)), 0.0)
        binomial = np.where(own > 0, own * (at_risk - own) / at_risk**3, 0.0)
        cross = np.where(own > 0, own / at_risk**2, 0.0)
    incidence = np.cumsum(surviving * share)
    sums = [np.cumsum(term) for term in (leaving, incidence * leaving, incidence**2 * leaving)]
    variance = incidence**2 * sums[0] - 2 * incidence * sums[1] + sums[2]
    variance += np.cumsum(surviving**2 * binomial)
    variance -= 2 * (incidence * np.cumsum(surviving * cross) - np.cumsum(incidence * surviving * cross))
    last = float(stop.max()) if len(stop) else float("nan")
    return Incidence(every.times, incidence, np.maximum(variance, 0.0), last, bool(every.at(np.inf) == 0))


def landmark_incidence(
    timeline: pd.DataFrame, clinical: pd.DataFrame, landmark_day: float, horizon_days: float
) -> tuple[LandmarkIncidence, list[str]]:
    """Incidence of recurrence and of death without it by the horizon, by the pattern fixed at a landmark.

    Parameters
    ----------
    timeline : DataFrame
        `patient_id`, `day`, `status`.
    clinical : DataFrame
        As of `cohort.load_clinical`.
    landmark_day, horizon_days : float
        Days since surgery.

    Returns
    -------
    incidence : LandmarkIncidence
    notes : list of str
        What it can't say.

    Raises
    ------
    StatisticsError
        If no patient is at risk at the landmark.
    """
    causes = recurrence_causes(clinical)
    causes = causes[causes.index.isin(timeline["patient_id"])].assign(event=lambda table: table["cause"] != CENSORED)
    at_risk, _ = at_risk_at(causes, landmark_day)
    if at_risk.empty:
        fault = f"no patient of the timeline is at risk on day {landmark_day:g}"
        raise StatisticsError(MODEL, fault, "set an earlier landmark_day")
    pattern = patterns_at(timeline, landmark_day).reindex(at_risk.index)
    groups = {name: at_risk[pattern == name] for name in PATTERNS.values() if (pattern == name).any()}
    found = tuple(_group(name, rows, horizon_days) for name, rows in groups.items())
    everyone = _group("everyone", at_risk, horizon_days)
    known = at_risk[pattern.notna()]
    recurred = known["cause"] == RECURRENCE
    p = logrank_p(known["days"], recurred, pattern.dropna().astype(str)) if len(groups) > 1 else float("nan")
    incidence = LandmarkIncidence(landmark_day, horizon_days, everyone, found, None if np.isnan(p) else p)
    return incidence, _notes(everyone)


def cause_specific_cox(
    data: pd.DataFrame, terms: Terms, *, stop: str, cause: str, of: int, start: str | None = None
) -> CoxFit:
    """Fit the hazard of one cause among those still free of all: other causes are censored.

    Its ratios say what a covariate does to the rate of the cause; `fine_gray` says what it does to how many get it.

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
    start : str, optional
        Column: late entry.

    Returns
    -------
    CoxFit
    """
    rows = data.assign(**{_EVENT: data[cause] == of})
    return fit_cox(rows, terms, start=start, stop=stop, event=_EVENT, model=f"cause-specific Cox model of cause {of}")


_EVENT = "event of the cause asked for"


def _group(name: str, rows: pd.DataFrame, horizon_days: float) -> GroupIncidence:
    curves: Mapping[str, Incidence] = {
        words: cumulative_incidence(rows["days"], rows["cause"], code) for code, words in CAUSES.items()
    }
    events = {words: int((rows["cause"] == code).sum()) for code, words in CAUSES.items()}
    return GroupIncidence(name, len(rows), events, {words: curve.at(horizon_days) for words, curve in curves.items()})


def _notes(everyone: GroupIncidence) -> list[str]:
    if everyone.events[CAUSES[DEATH]] == 0:
        return ["nobody died without recurrence, so time to recurrence and recurrence-free survival are the same."]
    return []
