"""Weighted survival of two arms: all figures come from how many are at risk and have the event at each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

UNTREATED, TREATED = 0, 1
_STEPS = 50
_LARGEST_LOG_RATIO = 20.0


@dataclass(frozen=True)
class Arms:
    """Follow-up in each of two arms; a patient may be in both (as a clone), in one, or in none.

    `stop` is of shape (2, n): the end of follow-up in the untreated and the treated arm, -inf where the patient isn't
    in the arm; `event` says whether it ended with the event. Follow-up begins at `entry`. `times` are the event times,
    of shape (j,). `weights`, of shape (2, n), hold at all of them but the first k, for which `early`, of shape
    (2, n, k), does.
    """

    entry: float
    stop: Floats
    event: Bools
    times: Floats
    weights: Floats
    early: Floats | None = None

    def counted(self, rows: Bools, frequency: Floats) -> Counted:
        """Count some of the patients, each as often as `frequency` says."""
        arms = [self._count(arm, rows, frequency) for arm in (UNTREATED, TREATED)]
        at_risk, events = (np.stack(parts) for parts in zip(*arms, strict=True))
        return Counted(self.entry, self.times, at_risk, events)

    def _count(self, arm: int, rows: Bools, frequency: Floats) -> tuple[Floats, Floats]:
        stop, event = self.stop[arm, rows], self.event[arm, rows]
        weights, size = self.weights[arm, rows] * frequency[rows], len(self.times)
        # How many event times each patient sees; the last of them is the own one.
        seen = np.searchsorted(self.times, stop, side="right")
        at_risk = np.bincount(seen, weights, size + 1)[::-1].cumsum()[::-1][1:]
        events = np.bincount(seen[event], weights[event], size + 1)[1:].astype(np.float64)
        if self.early is not None:
            changing = self.early[arm, rows] * frequency[rows, None]
            place = np.arange(changing.shape[1])
            at_risk[place] = (changing * (seen[:, None] > place)).sum(axis=0)
            events[place] = (changing * (event[:, None] & (seen[:, None] == place + 1))).sum(axis=0)
        return at_risk, events


@dataclass(frozen=True)
class Counted:
    """Weighted numbers at risk and with the event at each time, both of shape (2, j)."""

    entry: float
    times: Floats
    at_risk: Floats
    events: Floats

    def curves(self) -> Floats:
        """Estimate survival after each time in both arms (Kaplan-Meier, weighted; Xie and Liu, Stat Med 2005)."""
        share = np.divide(self.events, self.at_risk, out=np.zeros_like(self.events), where=self.at_risk > 0)
        return np.cumprod(1 - np.minimum(share, 1.0), axis=1)

    def survival_at(self, time: float) -> Floats:
        """Survival of both arms at a time; an event at this time counts."""
        place = int(np.searchsorted(self.times, time, side="right"))
        return self.curves()[:, place - 1] if place else np.ones(2)

    def restricted_mean(self, until: float) -> Floats:
        """Mean time free of the event in both arms, from entry to `until`."""
        inside = self.times < until
        edges = np.concatenate([[self.entry], self.times[inside], [until]])
        heights = np.column_stack([np.ones(2), self.curves()[:, inside]])
        return heights @ np.diff(edges)

    def log_hazard_ratio(self) -> float:
        """Log hazard ratio, treated to untreated (Cox 1972, ties by Breslow); NaN where an arm has no event."""
        if not (self.events.sum(axis=1) > 0).all():
            return float("nan")
        found, total, value = self.events[TREATED].sum(), self.events.sum(axis=0), 0.0
        for _ in range(_STEPS):
            relative = self.at_risk[TREATED] * np.exp(value)
            everyone = relative + self.at_risk[UNTREATED]
            share = np.divide(relative, everyone, out=np.zeros_like(relative), where=everyone > 0)
            information = total @ (share * (1 - share))
            if information <= 0:
                return float("nan")
            step = float(np.clip((found - total @ share) / information, -1.0, 1.0))
            value += step
            if abs(step) < 1e-10:
                return value
        return value if abs(value) < _LARGEST_LOG_RATIO else float("nan")


def event_times(stop: Floats, event: Bools, entry: float) -> Floats:
    """List the distinct times after entry at which anybody has the event in any arm."""
    return np.unique(stop[event & (stop > entry)])
