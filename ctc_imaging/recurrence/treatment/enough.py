"""Are there enough patients? Who is in each stratum and arm, what can be estimated, and what is said where not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError
from ctc_imaging.recurrence.treatment.decision_cohort import MODEL, DecisionCohort
from ctc_imaging.recurrence.treatment.estimates import STRATA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_PATIENTS = 5
# With fewer patients a covariate in the smallest group, the choice of treatment is modelled in both strata together.
PATIENTS_PER_TERM = 5


def arm_numbers(cohort: DecisionCohort, grace: float) -> pd.DataFrame:
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


def estimable_strata(numbers: pd.DataFrame) -> list[bool]:
    """Say which of `STRATA` have patients enough in both arms; raises StatisticsError if none has."""
    enough = [bool((numbers.loc[numbers["stratum"] == name, "patients"] >= LEAST_PATIENTS).all()) for name in STRATA]
    if not any(enough):
        counts = "; ".join(
            f"{row.stratum}, {'treated' if row.treated else 'untreated'}: {row.patients}"
            for row in numbers.itertuples()
        )
        fault = f"too few patients to compare ({counts})"
        raise StatisticsError(MODEL, fault, f"at least {LEAST_PATIENTS} treated and untreated are needed in a stratum")
    return enough


def model_of_choice(cohort: DecisionCohort, grace: float) -> tuple[NDArray[np.intp], Floats, list[str]]:
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


def remarks(
    numbers: pd.DataFrame, estimable: list[bool], seen: NDArray[np.bool_], horizon: float, time_unit: str
) -> list[str]:
    """Say in words what isn't given and why, and how many were treated after the window."""
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
