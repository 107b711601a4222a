"""What the tables show without a model: the lead that was seen, and alarms that no relapse followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.lead_time.observations import Observations

    Floats = NDArray[np.float64]

WINDOW_DAYS = 365.0
DAYS_A_YEAR = 365.25
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class ObservedLead:
    """Days from the first positive sample to the scan that found the relapse, as seen, corrected for nothing.

    `relapses` splits into `positive_first`, `never_seen_positive` and `without_sample`. Days are NaN without any.
    """

    relapses: int
    positive_first: int
    never_seen_positive: int
    without_sample: int
    median_days: float
    quartile_days: tuple[float, float]
    mean_days: float


@dataclass(frozen=True)
class FalseAlarms:
    """Positive episodes that no relapse followed within the window, over the years in which that could be seen.

    Limits (95 %) are robust against several alarms of one patient. `unresolved` alarms came later than `window_days`
    before the last scan: nobody can tell yet, and neither they nor the time they came in are in the rate.
    """

    window_days: float
    alarms: int
    false: int
    patients: int
    unresolved: int
    patient_years: float
    per_patient_year: float
    low: float
    high: float


def observed_lead(observed: Observations) -> ObservedLead:
    """Take the lead as it was seen.

    Parameters
    ----------
    observed : Observations

    Returns
    -------
    ObservedLead
    """
    relapsed = observed.take(observed.relapsed)
    sampled = np.isfinite(relapsed.sample_days).any(axis=1)
    ever = relapsed.positive.any(axis=1)
    first = np.where(relapsed.positive, relapsed.sample_days, np.inf).min(axis=1)
    leads = relapsed.right[ever] - first[ever]
    quarters = np.quantile(leads, [0.25, 0.5, 0.75]) if len(leads) else np.full(3, np.nan)
    return ObservedLead(
        len(relapsed.patients),
        int(ever.sum()),
        int((sampled & ~ever).sum()),
        int((~sampled).sum()),
        float(quarters[1]),
        (float(quarters[0]), float(quarters[2])),
        float(leads.mean()) if len(leads) else float("nan"),
    )


def false_alarms(observed: Observations, window_days: float = WINDOW_DAYS) -> FalseAlarms:
    """Count positive episodes after which no relapse was found within the window.

    An episode begins at a positive sample that follows a negative one or none. A patient's years end at the last
    sample, at relapse, or `window_days` before the last scan, whichever is first.

    Parameters
    ----------
    observed : Observations
    window_days : float
        How long an alarm may wait for its relapse.

    Returns
    -------
    FalseAlarms
        The rate is NaN where no time could be judged.
    """
    before = np.concatenate([np.zeros((len(observed.positive), 1), bool), observed.positive[:, :-1]], axis=1)
    alarm = observed.positive & ~before
    known_until = np.where(observed.relapsed, observed.right, observed.left - window_days)
    resolved = alarm & (observed.sample_days <= known_until[:, None])
    begun = np.where(np.isfinite(observed.sample_days), observed.sample_days, 0.0)
    false = resolved & (observed.right[:, None] - begun > window_days)
    last = begun.max(axis=1, initial=0.0)
    years = np.maximum(np.minimum(last, known_until), 0.0) / DAYS_A_YEAR
    low, high = _rate_limits(false.sum(axis=1), years)
    total = float(years.sum())
    return FalseAlarms(
        window_days,
        int(alarm.sum()),
        int(false.sum()),
        int(false.any(axis=1).sum()),
        int((alarm & ~resolved).sum()),
        total,
        float(false.sum() / total) if total else float("nan"),
        low,
        high,
    )


def _rate_limits(events: NDArray[np.intp], years: Floats) -> tuple[float, float]:
    """Limits of events a year: by patient on the log scale, exact for a Poisson count where there are none."""
    total, count = float(years.sum()), int(events.sum())
    if not total:
        return float("nan"), float("nan")
    if not count:
        return 0.0, float(chi2.ppf(0.975, 2) / 2 / total)
    rate = count / total
    spread = np.sqrt(((events - rate * years) ** 2).sum()) / count
    # One event has no spread of its own; a Poisson count's is the least.
    factor = np.exp(_Z_95 * max(float(spread), count**-0.5))
    return float(rate / factor), float(rate * factor)
