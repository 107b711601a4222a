"""What a scheme would have said in a cohort: whom it names, how they fared, how often it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.survival import Curve, kaplan_meier, logrank_p_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.scheme import Scheme

    Floats = NDArray[np.float64]

STATEMENT = "evaluated only: nobody was treated or advised by it"
GROUPS = {1.0: "named", 0.0: "not named"}
UNJUDGED = "can't be judged"
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)
_QUANTITIES = ("sensitivity", "specificity", "positive predictive value", "negative predictive value")


@dataclass(frozen=True)
class SchemeEvaluation:
    """A scheme beside what came of the patients.

    `groups` has a row each for named, not named and can't be judged: `patients`, `events`, `rfs` at the horizon with
    `low` and `high`, and how many were `treated_before` the decision and `treated_after` it (NA: not known). `accuracy`
    has `quantity`, `estimate`, `low`, `high`, for the event by the horizon among patients at risk at the decision;
    `net_benefit` has `threshold`, `scheme`, `low`, `high`, and `everybody` for naming all.
    """

    scheme: Scheme
    at_risk: int
    excluded: dict[str, int]
    groups: pd.DataFrame
    curves: tuple[Curve, ...]
    logrank_p: float | None
    accuracy: pd.DataFrame
    net_benefit: pd.DataFrame
    notes: tuple[str, ...]
    statement: str = STATEMENT


def evaluate_scheme(
    scheme: Scheme,
    follow_up: FollowUp,
    start: pd.Series | None = None,
    risks: pd.Series | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    replicates: int = 1000,
    seed: int = 0,
) -> SchemeEvaluation:
    """Evaluate a scheme on the patients at risk at its decision day.

    Parameters
    ----------
    scheme : Scheme
    follow_up : FollowUp
    start : Series of float64, optional
        Start of adjuvant treatment by subject, as of `treatment.treatment_start`.
    risks : Series of float64, optional
        Predicted risk by subject, for schemes that ask for it; it must come from patients other than these.
    thresholds : sequence of float
        Risks of the event from which treatment would be worth its burden, for the net benefit.
    replicates, seed : int
        Of the bootstrap behind the limits, which weighs patients at random (Rubin, Ann Stat 1981;9:130-4).

    Returns
    -------
    SchemeEvaluation

    Raises
    ------
    StatisticsError
        If no patient at risk can be judged.
    """
    answers = scheme.names(follow_up, risks)
    events = follow_up.events.set_index(follow_up.id)
    at_risk = events.loc[answers.index]
    days, event = at_risk[follow_up.event_time].astype(float), at_risk[follow_up.event].astype(bool)
    judged = answers.notna()
    if not judged.any():
        fault = f"none of {len(answers)} patients at risk on day {scheme.decision_day:g} can be judged"
        raise StatisticsError(
            f"scheme {scheme.name}", fault, "check that its samples, columns and days are the cohort's"
        )
    curves = {
        label: kaplan_meier(days[answers == value], event[answers == value], label, *_span(scheme))
        for value, label in GROUPS.items()
        if (answers == value).any()
    }
    labels = answers.map(GROUPS).fillna(UNJUDGED)
    groups = _groups(labels, event, curves, start, scheme)
    logrank_p = logrank_p_value(days[judged], event[judged], labels[judged])
    told, had = np.asarray(days[judged], dtype=np.float64), event[judged].to_numpy(dtype=bool)
    named = (answers[judged] == 1.0).to_numpy(dtype=bool)
    accuracy, net_benefit = _accuracy(told, had, named, scheme.horizon_day, thresholds, replicates, seed)
    lost = events[follow_up.event_time] <= scheme.decision_day
    excluded = {
        "event by the decision": int((lost & events[follow_up.event]).sum()),
        "lost by the decision": int((lost & ~events[follow_up.event]).sum()),
    }
    notes = (*follow_up.notes, *_notes(groups, scheme, start is None))
    return SchemeEvaluation(
        scheme, len(answers), excluded, groups, tuple(curves.values()), logrank_p, accuracy, net_benefit, notes
    )


def survival_at(days: Floats, event: NDArray[np.bool_], frequency: Floats, horizon: float) -> Floats:
    """Kaplan-Meier survival at a horizon, for many weightings of the same patients at once.

    Parameters
    ----------
    days : ndarray of float64, shape (n,)
    event : ndarray of bool, shape (n,)
    frequency : ndarray of float64, shape (m, n)
        How often each patient counts.
    horizon : float
        An event at this time counts.

    Returns
    -------
    ndarray of float64, shape (m,)
        NaN where follow-up ends before the horizon.
    """
    if not len(days):
        return np.full(len(frequency), np.nan)
    # One after the other in this order, tied events multiply to the usual factor.
    order = np.lexsort((~event, days))
    counts, died = frequency[:, order], event[order] & (days[order] <= horizon)
    at_risk = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    share = np.divide(counts * died, at_risk, out=np.zeros_like(counts), where=at_risk > 0)
    survival = np.prod(1 - np.minimum(share, 1.0), axis=1)
    return np.where((days.max() >= horizon) | (survival <= 1e-12), survival, np.nan)


def _accuracy(
    days: Floats,
    event: NDArray[np.bool_],
    named: NDArray[np.bool_],
    horizon: float,
    thresholds: Sequence[float],
    replicates: int,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Estimate accuracy from survival in both groups (Heagerty, Lumley and Pepe, Biometrics 2000;56:337-44)."""
    drawn = np.random.default_rng(seed).dirichlet(np.ones(len(days)), replicates) * len(days)
    frequency = np.vstack([np.ones(len(days)), drawn])
    share = frequency[:, named].sum(axis=1) / frequency.sum(axis=1)
    risks = [1 - survival_at(days[rows], event[rows], frequency[:, rows], horizon) for rows in (named, ~named)]
    # A group that nobody is in has no survival, and adds nothing.
    hit, missed = share * np.where(share > 0, risks[0], 0.0), (1 - share) * np.where(share < 1, risks[1], 0.0)
    false, spared = share - hit, (1 - share) - missed
    with np.errstate(divide="ignore", invalid="ignore"):
        figures = (hit / (hit + missed), spared / (spared + false), risks[0], 1 - risks[1])
    rows = [(name, *_limits(values)) for name, values in zip(_QUANTITIES, figures, strict=True)]
    accuracy = pd.DataFrame(rows, columns=["quantity", "estimate", "low", "high"])
    benefits = []
    for threshold in thresholds:
        odds = threshold / (1 - threshold)
        everybody = (hit + missed)[0] - (false + spared)[0] * odds
        benefits.append((threshold, *_limits(hit - false * odds), everybody))
    return accuracy, pd.DataFrame(benefits, columns=["threshold", "scheme", "low", "high", "everybody"])


def _limits(values: Floats) -> tuple[float, float, float]:
    """Estimate, and its limits from the replicates after it."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or len(drawn) < 2:
        return float(values[0]), float("nan"), float("nan")
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(values[0]), float(low), float(high)


def _span(scheme: Scheme) -> tuple[float, float]:
    return scheme.decision_day, scheme.horizon_day


def _groups(
    labels: pd.Series, event: pd.Series, curves: dict[str, Curve], start: pd.Series | None, scheme: Scheme
) -> pd.DataFrame:
    rows = []
    for label in (*GROUPS.values(), UNJUDGED):
        members = labels.index[labels == label]
        rfs = curves[label].rfs_horizon if label in curves else (float("nan"),) * 3
        rows.append((label, len(members), int(event[members].sum()), *rfs, *_treated(members, start, scheme)))
    columns = ["group", "patients", "events", "rfs", "low", "high", "treated_before", "treated_after"]
    return pd.DataFrame(rows, columns=columns)


def _treated(members: pd.Index, start: pd.Series | None, scheme: Scheme) -> tuple[object, object]:
    if start is None:
        return pd.NA, pd.NA
    began = start.reindex(members)
    before = began <= scheme.decision_day
    return int(before.sum()), int((~before & np.isfinite(began)).sum())


def _notes(groups: pd.DataFrame, scheme: Scheme, untold: bool) -> list[str]:
    by_group = groups.set_index("group")
    notes = []
    if unjudged := int(groups["patients"].iloc[-1]):
        notes.append(f"{unjudged} patient(s) can't be judged, as a sample or a figure is missing.")
    if untold:
        return [*notes, "Nothing is known of adjuvant treatment, which may have changed what came of the patients."]
    if treated := int(groups[["treated_before", "treated_after"]].to_numpy().sum()):
        notes.append(f"{treated} of the patients had adjuvant treatment, which may have changed what came of them.")
    for label in GROUPS.values():
        row = by_group.loc[label]
        if row["patients"] and np.isnan(row["rfs"]):
            notes.append(f"Follow-up of the patients {label} ends before day {scheme.horizon_day:g}.")
    return notes
