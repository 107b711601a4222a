"""Effect of adjuvant treatment on SIMULATED cohorts whose truth is known: bias, coverage, and the immortal-time trap.

    nice -n 19 python benchmarks/treatment.py --cohorts 200 --patients 300

Treatment is chosen by microvascular invasion and tumour size, both of which bring recurrence forward, and halves the
hazard of CTC-positive patients only. What a naive comparison of ever with never treated says stands beside.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ctc_imaging.recurrence.follow_up import FollowUp
from ctc_imaging.recurrence.treatment import decision_cohort, treatment_effect, treatment_start
from ctc_imaging.recurrence.treatment.interaction import METHODS, Method, TreatmentEffect
from ctc_imaging.recurrence.treatment.weighted_survival import Counted

LANDMARK, GRACE, HORIZON = 30.0, 60.0, 730.0
QUANTITIES = ("rfs_difference", "restricted_mean_difference", "hazard_ratio")
TRUTH_PATIENTS = 400_000


@dataclass(frozen=True)
class Truth:
    """How hazards depend on treatment: a hazard ratio in marker-positive and in marker-negative patients."""

    positive: float = 0.5
    negative: float = 1.0

    def hazard_ratio(self, positive: np.ndarray) -> np.ndarray:
        """Of treatment, for each patient."""
        return np.where(positive, self.positive, self.negative)


def draw(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw patients: covariates, marker, when treatment would begin (inf: never), and a clock that runs by hazard."""
    mvi = rng.random(count) < 0.4
    size = rng.normal(0, 1, count)
    positive = rng.random(count) < 1 / (1 + np.exp(0.6 - 0.8 * mvi))
    chosen = rng.random(count) < 1 / (1 + np.exp(0.8 - 1.0 * mvi - 0.5 * size))
    within = rng.integers(LANDMARK - 5, LANDMARK + GRACE + 1, count)
    late = np.where(rng.random(count) < 0.05, rng.integers(LANDMARK + GRACE + 1, 400, count), np.inf)
    rate = 0.45 / 365.25 * np.exp(0.7 * mvi + 0.4 * size + 0.6 * positive)
    return pd.DataFrame(
        {
            "MVI": mvi.astype(float),
            "size_cm": size,
            "positive": positive,
            "start": np.where(chosen, within, late),
            "late": late,
            "rate": rate,
            "clock": rng.exponential(1.0, count),
        }
    )


def event_day(people: pd.DataFrame, start: np.ndarray, truth: Truth) -> np.ndarray:
    """Day of recurrence if treatment began on these days: the hazard changes at the start."""
    before = people["clock"] / people["rate"]
    left = people["clock"] - people["rate"] * start
    after = start + left / (people["rate"] * truth.hazard_ratio(people["positive"].to_numpy()))
    return np.where(before <= start, before, after).astype(float)


def follow_up(people: pd.DataFrame, truth: Truth, rng: np.random.Generator) -> FollowUp:
    """Observe patients as a clinic does, to at most six years."""
    event = event_day(people, people["start"].to_numpy(), truth)
    lost = day_lost(len(people), rng)
    stop = np.ceil(np.minimum(event, lost))
    given = people["start"].where(people["start"] < stop)
    events = people[["MVI", "size_cm"]].assign(id=people.index, stop=stop, event=event <= lost, begun=given)
    long = pd.DataFrame(
        {"id": people.index, "day": 25.0, "status": np.where(people["positive"], "positive", "negative")}
    )
    return FollowUp(long[long["day"] <= stop], events, "id", "day", "stop", "event")


def day_lost(count: int, rng: np.random.Generator) -> np.ndarray:
    """Day at which the study closes or the patient is lost."""
    return np.minimum(rng.uniform(900, 2200, count), rng.exponential(365.25 / 0.03, count))


def true_effects(truth: Truth, seed: int = 1) -> dict[tuple[str, str], np.ndarray]:
    """Effects in many patients followed under both strategies, by method and stratum, weighed by overlap."""
    rng = np.random.default_rng(seed)
    people = draw(TRUTH_PATIENTS, rng)
    end = LANDMARK + GRACE
    start = people["start"].to_numpy()
    never = np.where(start <= end, people["late"], start)
    natural = event_day(people, start, truth)
    # Before the window's end the strategy "start within it" is natural care: see clone_censor_weight.py.
    treated = event_day(people, np.minimum(start, end), truth)
    # At the window's end everybody goes on from there, with what is left on the own clock.
    ratio = truth.hazard_ratio(people["positive"].to_numpy())
    passed = people["rate"] * (np.minimum(start, end) + ratio * (end - np.minimum(start, end)))
    from_end = people.assign(clock=people["clock"] - passed)
    untreated_from_end = end + event_day(from_end, never - end, truth)
    treated_from_end = end + event_day(from_end, np.zeros(len(people)), truth)
    share = 1 / (1 + np.exp(0.8 - 1.0 * people["MVI"] - 0.5 * people["size_cm"])).to_numpy()
    tilt, lost = share * (1 - share), day_lost(len(people), rng)
    found = {}
    for stratum in ("negative", "positive"):
        rows = (people["positive"] == (stratum == "positive")).to_numpy()
        at_landmark, at_end = rows & (natural > LANDMARK), rows & (natural > end)
        untreated = event_day(people, never, truth)
        found["clone-censor-weight", stratum] = _effects(untreated, treated, at_landmark, tilt, LANDMARK, lost)
        found["landmark", stratum] = _effects(untreated_from_end, treated_from_end, at_end, tilt, end, lost)
    return found


def _effects(
    untreated: np.ndarray, treated: np.ndarray, rows: np.ndarray, tilt: np.ndarray, entry: float, lost: np.ndarray
) -> np.ndarray:
    """Differences of survival and of restricted means, and the hazard ratio that a Cox model of both arms finds."""
    weights = tilt[rows] / tilt[rows].mean()
    days = np.ceil(np.stack([untreated[rows], treated[rows]]))
    times = np.arange(entry + 1, days[np.isfinite(days)].max() + 1)
    free, seen = (_counted(entry, days, end, weights, times) for end in (np.inf, lost[rows]))
    survival, means = free.survival_at(HORIZON), free.restricted_mean(HORIZON)
    return np.array([survival[1] - survival[0], means[1] - means[0], np.exp(seen.log_hazard_ratio())])


def _counted(
    entry: float, days: np.ndarray, lost: np.ndarray | float, weights: np.ndarray, times: np.ndarray
) -> Counted:
    stop = np.minimum(np.minimum(days, np.ceil(lost)), times[-1])
    place = (stop - times[0]).astype(int).clip(0)
    ends, events = (
        np.stack([np.bincount(arm, weights * flag, len(times)) for arm, flag in zip(place, flags, strict=True)])
        for flags in (np.ones_like(stop), days <= stop)
    )
    return Counted(entry, times, ends[:, ::-1].cumsum(axis=1)[:, ::-1], events)


def naive_hazard_ratio(observed: FollowUp) -> float:
    """Ever against never treated from the day of surgery on, adjusted: who lives long enough is treated."""
    from lifelines import CoxPHFitter

    data = observed.events[["MVI", "size_cm", "stop", "event"]].assign(
        treated=observed.events["begun"].notna().astype(float),
        positive=(observed.long.set_index("id")["status"].reindex(observed.subjects) == "positive").to_numpy(float),
    )
    return float(np.exp(CoxPHFitter().fit(data, "stop", "event").params_["treated"]))


def replicate(count: int, truth: Truth, method: Method, seed: int, draws: int) -> tuple[TreatmentEffect, FollowUp]:
    """Analyse one cohort."""
    rng = np.random.default_rng(seed)
    observed = follow_up(draw(count, rng), truth, rng)
    cohort = decision_cohort(observed, LANDMARK, treatment_start(observed, "begun"), covariates=["MVI", "size_cm"])
    return treatment_effect(cohort, GRACE, HORIZON, method, replicates=draws, seed=seed), observed


def main() -> None:
    """Print bias and coverage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=200)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    print(
        f"SIMULATED: {options.cohorts} cohorts of {options.patients} patients, {options.draws} bootstrap draws each",
        flush=True,
    )
    truth = Truth()
    exact = true_effects(truth)
    for method in METHODS:
        began = time.perf_counter()
        effects = [
            replicate(options.patients, truth, method, seed, options.draws)[0].strata for seed in range(options.cohorts)
        ]
        table = pd.concat(effects)
        print(f"\n{method} ({(time.perf_counter() - began) / options.cohorts:.2f} s a cohort)")
        for stratum in ("negative", "positive"):
            for name, true in zip(QUANTITIES, exact[method, stratum], strict=True):
                _print_row(table[(table["stratum"] == stratum) & (table["quantity"] == name)], name, stratum, true)
    _immortal_time(options)


def _print_row(rows: pd.DataFrame, name: str, stratum: str, true: float) -> None:
    covered = ((rows["low"] <= true) & (true <= rows["high"])).mean()
    log = np.log if name == "hazard_ratio" else np.asarray
    mean = rows["estimate"].mean() if name != "hazard_ratio" else np.exp(log(rows["estimate"]).mean())
    error = 100 * np.sqrt(covered * (1 - covered) / len(rows))
    print(
        f"  {stratum:9}{name:28}truth {true:8.3f}  mean {mean:8.3f}  "
        f"95 % limits cover {100 * covered:5.1f} % (+- {error:.1f})"
    )


def _immortal_time(options: argparse.Namespace) -> None:
    """A treatment that does nothing, by each method."""
    nothing = Truth(1.0, 1.0)
    naive, found = [], {method: [] for method in METHODS}
    for seed in range(options.cohorts):
        for method in METHODS:
            effect, observed = replicate(options.patients, nothing, method, seed, 2)
            rows = effect.strata.query("quantity == 'hazard_ratio'")["estimate"]
            found[method].append(np.log(rows).mean())
        naive.append(np.log(naive_hazard_ratio(observed)))
    print("\nA treatment that does nothing: mean hazard ratio (truth 1)")
    print(f"  ever against never treated from surgery on, adjusted for all covariates: {np.exp(np.mean(naive)):.3f}")
    for method, values in found.items():
        print(f"  {method}: {np.exp(np.nanmean(values)):.3f}")


if __name__ == "__main__":
    main()
