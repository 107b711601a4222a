"""Simulated trials whose lead is known, drawn by a model that shares no code with the one that estimates it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq
from scipy.special import gamma, ndtr

from ctc_imaging.recurrence.lead_time.observations import Observations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FIVE_VISITS = (7.0, 30.0, 90.0, 180.0, 365.0)
EIGHT_VISITS = (*FIVE_VISITS, 540.0, 730.0, 910.0)
QUARTERLY = tuple(float(day) for day in range(90, 1081, 90))
_DRAWS = 400_000


@dataclass(frozen=True)
class Trial:
    """Truth of a simulated trial; days, and rates a day.

    `lead` is drawn as weibull, lognormal, gamma or uniform, with the mean `lead_days` and the spread `lead_cv`
    (standard deviation / mean; the uniform's is always .58). `tie` is the correlation of the normal scores of lead and
    relapse time; a share `since_surgery` of those who turn positive is so from surgery on. `true_alike` is how alike a
    patient's samples after the onset are: 0 where everybody's are positive with the chance `true_positive`, near 1
    where in each patient nearly all or nearly none are (intraclass correlation of a beta distributed chance).
    """

    name: str
    visits: tuple[float, ...] = FIVE_VISITS
    lead: str = "gamma"
    lead_days: float = 150.0
    lead_cv: float = 0.7
    turning_share: float = 0.65
    since_surgery: float = 0.0
    false_positive: float = 0.03
    true_positive: float = 0.9
    true_alike: float = 0.0
    patients: int = 200
    relapse_shape: float = 0.9
    relapse_scale: float = 1400.0
    death_rate: float = 0.04 / 365
    followed: tuple[float, float] = (730.0, 1460.0)
    scan_every: float = 90.0
    missed: float = 0.1
    scan_after_positive: float = 0.0
    tie: float = 0.0

    def hidden(self, rng: np.random.Generator, size: int) -> tuple[Floats, Floats]:
        """Draw relapse times and onsets of positivity (infinite in those who never turn positive before relapse)."""
        score = rng.standard_normal((2, size))
        score[1] = self.tie * score[0] + np.sqrt(1 - self.tie**2) * score[1]
        share = np.clip(ndtr(score), 1e-12, 1 - 1e-12)
        relapse = self.relapse_scale * (-np.log1p(-share[0])) ** (1 / self.relapse_shape)
        onset = np.maximum(relapse - self._leads(share[1]), 0.0)
        onset = np.where(rng.random(size) < self.since_surgery, 0.0, onset)
        return relapse, np.where(rng.random(size) < self.turning_share, onset, np.inf)

    def truth(self, horizon_days: float) -> dict[str, float]:
        """Mean and median lead of relapses by the horizon that CTCs precede, and the share they don't, by draws."""
        relapse, onset = self.hidden(np.random.default_rng(0), _DRAWS)
        early = relapse <= horizon_days
        leads = (relapse - onset)[early & np.isfinite(onset)]
        never = float(np.isinf(onset[early]).mean())
        return {"mean_days": float(leads.mean()), "median_days": float(np.median(leads)), "never_positive": never}

    def draw(self, seed: int) -> Observations:
        """Draw a trial.

        Parameters
        ----------
        seed : int

        Returns
        -------
        Observations
        """
        rng = np.random.default_rng(seed)
        relapse, onset = self.hidden(rng, self.patients)
        end = np.minimum(
            rng.uniform(*self.followed, self.patients), rng.exponential(1 / self.death_rate, self.patients)
        )
        patients = [self._patient(rng, *one) for one in zip(relapse, onset, end, strict=True)]
        width = max(len(days) for _, _, days, _ in patients)
        days = np.full((self.patients, width), np.inf)
        positive = np.zeros(days.shape, dtype=bool)
        for row, (_, _, own, results) in enumerate(patients):
            days[row, : len(own)], positive[row, : len(own)] = own, results
        left, right = (np.array([patient[side] for patient in patients]) for side in (0, 1))
        told = (left > 0) | np.isfinite(right)
        names = pd.Index([f"P{number:03d}" for number in range(self.patients)], name="patient_id")
        return Observations(names, left, right, days, positive).take(told)

    def _leads(self, share: Floats) -> Floats:
        mean, cv = self.lead_days, self.lead_cv
        if self.lead == "gamma":
            return np.asarray(stats.gamma.ppf(share, cv**-2, scale=mean * cv**2))
        if self.lead == "lognormal":
            spread = np.sqrt(np.log1p(cv**2))
            return np.asarray(mean * np.exp(spread * stats.norm.ppf(share) - spread**2 / 2))
        if self.lead == "weibull":
            shape = brentq(lambda k: gamma(1 + 2 / k) / gamma(1 + 1 / k) ** 2 - 1 - cv**2, 0.3, 20.0)
            return np.asarray(mean / gamma(1 + 1 / shape) * (-np.log1p(-share)) ** (1 / shape))
        return np.asarray(2 * mean * share)

    def _sensitivity(self, rng: np.random.Generator) -> float:
        """Chance of one patient's samples to be positive after the onset."""
        if not self.true_alike:
            return self.true_positive
        size = 1 / self.true_alike - 1
        return float(rng.beta(size * self.true_positive, size * (1 - self.true_positive)))

    def _patient(
        self, rng: np.random.Generator, relapse: float, onset: float, end: float
    ) -> tuple[float, float, Floats, NDArray[np.bool_]]:
        """Last scan before relapse, first one after it, and the samples up to that."""
        days = np.sort(np.maximum(np.array(self.visits) + rng.normal(0, 5, len(self.visits)), 1.0))
        days = days[(rng.random(len(days)) > self.missed) & (days <= end)]
        chance = np.where(days >= onset, self._sensitivity(rng), self.false_positive)
        positive = rng.random(len(days)) < chance
        scans = np.arange(self.scan_every, end, self.scan_every)
        scans = scans + rng.uniform(-10, 10, len(scans))
        scans = scans[(rng.random(len(scans)) > self.missed / 2) & (scans <= end)]
        asked = positive & (rng.random(len(days)) < self.scan_after_positive)
        prompted = days[asked] + rng.uniform(3, 21, int(asked.sum()))
        scans = np.sort(np.concatenate([scans, prompted[prompted <= end]]))
        found = scans[scans >= relapse]
        right = float(found[0]) if len(found) else np.inf
        before = scans[scans < relapse]
        left = float(before[-1]) if len(before) else 0.0
        kept = days <= right
        return left, right, days[kept], positive[kept]
