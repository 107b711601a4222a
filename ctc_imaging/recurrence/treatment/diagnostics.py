"""Can the comparison be trusted? Balance of covariates, effective numbers and positivity, and warnings in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.recurrence.treatment.estimates import STRATA
from ctc_imaging.recurrence.treatment.landmark_interaction import landmark_probability
from ctc_imaging.recurrence.treatment.propensity import (
    LARGEST_DIFFERENCE,
    balance,
    effective_sample_size,
    positivity_warnings,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.recurrence.treatment.decision_cohort import DecisionCohort
    from ctc_imaging.recurrence.treatment.weighted_survival import Arms

    Floats = NDArray[np.float64]

# Weights that leave less than this share of the patients make an estimate rest on a few.
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Diagnostics:
    """How alike the arms are.

    `balance` has a row a stratum and covariate: standardised differences `before` and `after` weighting, at the end
    of the window. `effective` has a row a stratum and arm: `patients` and `effective` ones. `probability` is each
    patient's probability of treatment (NaN: no longer followed at the end of the window).
    """

    balance: pd.DataFrame
    effective: pd.DataFrame
    probability: pd.Series
    warnings: tuple[str, ...]


def diagnose(cohort: DecisionCohort, arms: Arms, grace: float, group: NDArray[np.intp], design: Floats) -> Diagnostics:
    """Judge the weights at the end of the window, when all patients still followed are in one arm only.

    Parameters
    ----------
    cohort : DecisionCohort
    arms : Arms
        As of `landmark_arms` or `clone_arms`.
    grace, group, design
        See `landmark_interaction.landmark_arms`.

    Returns
    -------
    Diagnostics
    """
    end = cohort.landmark + grace
    followed, treated = cohort.stop > end, cohort.start <= end
    weights = np.where(treated, arms.weights[1], arms.weights[0])
    probability = landmark_probability(cohort, grace, np.ones(len(cohort)), group, design)
    balances, effective = [], []
    for stratum in STRATA:
        rows = followed & (cohort.positive == (stratum == "positive"))
        arms_rows = [rows & (treated == arm) for arm in (False, True)]
        effective += [
            (stratum, arm, int(members.sum()), effective_sample_size(weights[members]))
            for arm, members in zip((False, True), arms_rows, strict=True)
        ]
        if all(members.sum() > 1 for members in arms_rows) and cohort.covariates.shape[1]:
            found = balance(cohort.covariates[rows], treated[rows], weights[rows])
            balances.append(found.assign(stratum=stratum))
    columns = ["stratum", "covariate", "before", "after"]
    balanced = pd.concat(balances)[columns].reset_index(drop=True) if balances else pd.DataFrame(columns=columns)
    sizes = pd.DataFrame(effective, columns=["stratum", "treated", "patients", "effective"])
    warnings = [*positivity_warnings(probability[followed]), *_unbalanced(balanced), *_few(sizes)]
    return Diagnostics(balanced, sizes, pd.Series(probability, index=cohort.ids), tuple(warnings))


def _unbalanced(table: pd.DataFrame) -> list[str]:
    worst = table[table["after"].abs() > LARGEST_DIFFERENCE]
    return [
        f"{row.covariate} still differs between treated and untreated marker-{row.stratum} patients after weighting "
        f"(standardised difference {row.after:.2f})."
        for row in worst.itertuples()
    ]


def _few(sizes: pd.DataFrame) -> list[str]:
    thin = sizes[(sizes["patients"] > 0) & (sizes["effective"] < LEAST_SHARE * sizes["patients"])]
    return [
        f"The {row.patients} {'treated' if row.treated else 'untreated'} marker-{row.stratum} patients carry as much "
        f"as {row.effective:.0f} after weighting: the estimate rests on a few."
        for row in thin.itertuples()
    ]
