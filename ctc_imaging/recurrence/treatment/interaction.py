"""Does adjuvant treatment help some patients only? Its effect in marker-positive and -negative ones, with limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.treatment.clone_censor_weight import clone_arms
from ctc_imaging.recurrence.treatment.decision_cohort import MODEL, DecisionCohort
from ctc_imaging.recurrence.treatment.diagnostics import Diagnostics, diagnose
from ctc_imaging.recurrence.treatment.estimates import STRATA, by_stratum, interaction, quantities
from ctc_imaging.recurrence.treatment.landmark_interaction import landmark_arms
from ctc_imaging.recurrence.treatment.propensity import Population
from ctc_imaging.recurrence.treatment.weighted_survival import TREATED, UNTREATED, Arms, Counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Progress = Callable[[int, int], None]

Method = Literal["landmark", "clone-censor-weight"]
METHODS = {"landmark": landmark_arms, "clone-censor-weight": clone_arms}
STATEMENT = "observational, a hypothesis"
LEAST_PATIENTS = 5
# With fewer patients a covariate in the smaller group, the choice of treatment is modelled in both strata together.
PATIENTS_PER_TERM = 5


@dataclass(frozen=True)
class TreatmentEffect:
    """Effect of treatment by marker, each figure with 95 % limits.

    `strata` has a row a stratum and quantity: `stratum`, `quantity`, `estimate`, `low`, `high`. Quantities are
    survival free of the event at the horizon in both arms, its difference, the difference of restricted means from
    `entry` to the horizon, and the hazard ratio, treated to untreated. `interaction` holds the same columns and `p`:
    the ratio of hazard ratios and the differences of differences, positive to negative. `curves` has `stratum`,
    `treated`, `time`, `survival`. `statement` belongs beside every figure.
    """

    method: Method
    population: Population
    landmark: float
    grace: float
    entry: float
    horizon: float
    time_unit: str
    patients: int
    strata: pd.DataFrame
    interaction: pd.DataFrame
    numbers: pd.DataFrame
    curves: pd.DataFrame
    diagnostics: Diagnostics
    excluded: dict[str, int]
    notes: tuple[str, ...]
    statement: str = STATEMENT


def treatment_effect(
    cohort: DecisionCohort,
    grace: float,
    horizon: float,
    method: Method = "clone-censor-weight",
    population: Population = "overlap",
    replicates: int = 500,
    seed: int = 0,
    time_unit: str = "days",
    progress: Progress | None = None,
) -> TreatmentEffect:
    """Estimate what treatment started within a window does, by marker.

    Parameters
    ----------
    cohort : DecisionCohort
    grace : float
        The window: treatment that begins within this time after the landmark counts as given at the decision.
    horizon : float
        On the follow-up's clock; an event at this time counts.
    method : {'clone-censor-weight', 'landmark'}
        From the landmark, with clones; or from the end of the window, among those free of the event then.
    population : {'overlap', 'whole'}
        See `propensity.balancing_weights`.
    replicates : int
        Of the bootstrap behind the limits, which weighs patients at random (Rubin, Ann Stat 1981;9:130-4) and
        models the choice of treatment each time anew.
    seed : int
    time_unit : str
    progress : callable, optional
        Told how many replicates are done, and of how many.

    Returns
    -------
    TreatmentEffect

    Raises
    ------
    StatisticsError
        If treated or untreated patients are too few in both strata, or the horizon lies before the window's end.
    """
    if horizon <= cohort.landmark + grace:
        raise StatisticsError(MODEL, f"the horizon {horizon:g} lies before the window's end", "choose a later one")
    if grace < 0:
        raise StatisticsError(MODEL, f"the window of {grace:g} is negative", "give 0 or more")
    numbers = _numbers(cohort, grace)
    estimable = _estimable(numbers)
    group, design, notes = _model_of_choice(cohort, grace)
    groups = [cohort.positive == (stratum == "positive") for stratum in STRATA]

    def arms_of(frequency: Floats) -> Arms:
        return METHODS[method](cohort, grace, population, frequency, group, design)

    everybody = np.ones(len(cohort))
    arms = arms_of(everybody)
    counted = [arms.counted(rows, everybody) for rows in groups]
    reach = np.array([_reach(arms, rows) for rows in groups])
    estimates = np.stack([quantities(counts, horizon) for counts in counted])
    drawn = np.full((replicates, *estimates.shape), np.nan)
    rng = np.random.default_rng(seed)
    for replicate in range(replicates):
        frequency = rng.dirichlet(everybody) * len(cohort)
        resampled = arms_of(frequency)
        drawn[replicate] = [quantities(resampled.counted(rows, frequency), horizon) for rows in groups]
        if progress is not None:
            progress(replicate + 1, replicates)
    seen = (reach >= horizon) | np.array([counts.curves()[:, -1] == 0 for counts in counted])
    for index in range(len(STRATA)):
        blank = _blank(estimable[index], seen[index])
        estimates[index, blank], drawn[:, index, blank] = np.nan, np.nan
    smallest = numbers.groupby("stratum")["patients"].min().reindex(list(STRATA)).to_numpy()
    diagnostics = diagnose(cohort, arms, grace, group, design)
    notes = [*cohort.notes, *notes, *_remarks(numbers, estimable, seen, horizon, time_unit), *diagnostics.warnings]
    return TreatmentEffect(
        method,
        population,
        cohort.landmark,
        float(grace),
        arms.entry,
        float(horizon),
        time_unit,
        len(cohort),
        by_stratum(estimates, drawn, smallest),
        interaction(estimates, drawn, smallest),
        numbers,
        _curves(counted),
        diagnostics,
        cohort.excluded,
        tuple(notes),
    )


def _numbers(cohort: DecisionCohort, grace: float) -> pd.DataFrame:
    """Count patients and events by stratum and by treatment within the window, and who was treated later."""
    end = cohort.landmark + grace
    rows = []
    for stratum in STRATA:
        inside = cohort.positive == (stratum == "positive")
        begun = inside & (cohort.start <= end)
        for treated, members in ((True, begun), (False, inside & ~begun)):
            later = members & (cohort.start > end) & np.isfinite(cohort.start)
            rows.append((stratum, treated, members.sum(), (members & cohort.event).sum(), later.sum()))
    return pd.DataFrame(rows, columns=["stratum", "treated", "patients", "events", "treated_later"])


def _estimable(numbers: pd.DataFrame) -> list[bool]:
    enough = [bool((numbers.loc[numbers["stratum"] == name, "patients"] >= LEAST_PATIENTS).all()) for name in STRATA]
    if not any(enough):
        counts = "; ".join(
            f"{row.stratum}, {'treated' if row.treated else 'untreated'}: {row.patients}"
            for row in numbers.itertuples()
        )
        fault = f"too few patients to compare ({counts})"
        raise StatisticsError(MODEL, fault, f"at least {LEAST_PATIENTS} treated and untreated are needed in a stratum")
    return enough


def _model_of_choice(cohort: DecisionCohort, grace: float) -> tuple[NDArray[np.intp], Floats, list[str]]:
    """Model the choice of treatment in each stratum apart, where both groups of it are large enough."""
    group, design = cohort.positive.astype(np.intp), cohort.design
    treated = cohort.start <= cohort.landmark + grace
    smallest = min(int((cells & (group == label)).sum()) for cells in (treated, ~treated) for label in (0, 1))
    if smallest >= PATIENTS_PER_TERM * max(design.shape[1], 1):
        return group, design, []
    note = (
        "The choice of treatment is modelled in marker-positive and -negative patients together, as some of the four "
        f"groups are small (the smallest has {smallest} patients for {design.shape[1]} covariates)."
    )
    return np.zeros_like(group), np.column_stack([cohort.positive.astype(float), design]), [note]


def _reach(arms: Arms, rows: NDArray[np.bool_]) -> Floats:
    """Time to which each arm is followed."""
    return arms.stop[:, rows].max(axis=1, initial=-np.inf)


def _blank(estimable: bool, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the quantities that the data can't give."""
    untreated, treated = ~seen
    either = untreated or treated
    return np.array([untreated, treated, either, either, False]) | (not estimable)


def _curves(counted: list[Counted]) -> pd.DataFrame:
    tables = [
        pd.DataFrame(
            {
                "stratum": stratum,
                "treated": arm == TREATED,
                "time": np.append(counts.entry, counts.times),
                "survival": np.append(1.0, counts.curves()[arm]),
            }
        )
        for stratum, counts in zip(STRATA, counted, strict=True)
        for arm in (UNTREATED, TREATED)
    ]
    return pd.concat(tables, ignore_index=True)


def _remarks(
    numbers: pd.DataFrame, estimable: list[bool], seen: NDArray[np.bool_], horizon: float, time_unit: str
) -> list[str]:
    notes = [
        f"Marker-{stratum} patients: no effect is given, fewer than {LEAST_PATIENTS} are treated or untreated."
        for stratum, enough in zip(STRATA, estimable, strict=True)
        if not enough
    ]
    notes += [
        f"Marker-{stratum} patients: one arm isn't followed to {horizon:g} {time_unit}, no survival is given there."
        for stratum, both, enough in zip(STRATA, seen, estimable, strict=True)
        if enough and not both.all()
    ]
    if later := int(numbers["treated_later"].sum()):
        notes.append(f"{later} patient(s) were treated after the window; they count as untreated at the decision.")
    return notes
