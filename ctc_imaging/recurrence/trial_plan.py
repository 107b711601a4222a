"""What a trial is, before it is simulated: its design, what it assumes, and whether that has a meaning."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np

from ctc_imaging.errors import ConfigError
from ctc_imaging.recurrence import planning_defaults as defaults
from ctc_imaging.recurrence.trial_tests import TESTS

Design = Literal["enrichment", "marker-stratified", "cohort"]
Question = Literal["positive", "interaction", "overall"]
DESIGNS = {
    "enrichment": "only CTC-positive patients are randomised to adjuvant treatment or observation",
    "marker-stratified": "all patients are randomised to adjuvant treatment or observation, within each CTC status",
    "cohort": "nobody is randomised: CTC-positive patients are compared with CTC-negative ones",
}
QUESTIONS = {
    "positive": "does treatment help CTC-positive patients?",
    "interaction": "does treatment help CTC-positive patients more than CTC-negative ones?",
    "overall": "does treatment help patients as a whole?",
}
ASSUMED = (
    "prevalence",
    "rfs_positive",
    "rfs_negative",
    "hazard_ratio",
    "hazard_ratio_negative",
    "sensitivity",
    "specificity",
    "accrual_months",
    "follow_up_months",
    "dropout_per_year",
    "shape",
    "alpha",
)


@dataclass(frozen=True)
class Plan:
    """A trial.

    Parameters
    ----------
    design, question
        See `DESIGNS` and `QUESTIONS`; the question is for the marker-stratified design.
    test : {'log-rank', 'rfs'}
        Log-rank test (stratified for the question 'overall'), or survival at `horizon_months` on the scale log(-log).
    prevalence : float
        Share of patients that are CTC-positive in truth.
    rfs_positive, rfs_negative : float
        Their RFS at `horizon_months` without treatment.
    hazard_ratio, hazard_ratio_negative : float
        Of treatment, in the truly positive and the truly negative.
    sensitivity, specificity : float
        Of the CTC test; the trial only sees its result.
    treated_share : float
        Of those randomised.
    accrual_months, follow_up_months : float
        Patients enter evenly over the first; the last one is followed for the second.
    dropout_per_year : float
        Share of patients lost in a year.
    shape : float
        Of the Weibull distribution of times: below 1 the hazard falls.
    alpha : float
        Two-sided.
    horizon_months : float

    Raises
    ------
    ConfigError
        If a value has no meaning.
    """

    design: Design = "enrichment"
    question: Question = "positive"
    test: str = "log-rank"
    prevalence: float = defaults.PREVALENCE.value
    rfs_positive: float = defaults.RFS_POSITIVE.value
    rfs_negative: float = defaults.RFS_NEGATIVE.value
    hazard_ratio: float = defaults.HAZARD_RATIO.value
    hazard_ratio_negative: float = defaults.HAZARD_RATIO_NEGATIVE.value
    sensitivity: float = defaults.SENSITIVITY.value
    specificity: float = defaults.SPECIFICITY.value
    treated_share: float = 0.5
    accrual_months: float = defaults.ACCRUAL_MONTHS.value
    follow_up_months: float = defaults.FOLLOW_UP_MONTHS.value
    dropout_per_year: float = defaults.DROPOUT_PER_YEAR.value
    shape: float = defaults.SHAPE.value
    alpha: float = defaults.ALPHA.value
    horizon_months: float = 24.0

    def __post_init__(self) -> None:
        _check(self)

    @property
    def test_positive_share(self) -> float:
        """Share of screened patients whose test is positive."""
        return self.prevalence * self.sensitivity + (1 - self.prevalence) * (1 - self.specificity)

    @property
    def sources(self) -> dict[str, str]:
        """Where each assumed figure comes from; one that was given comes from the user."""
        known = {name: getattr(defaults, name.upper()) for name in ASSUMED}
        return {
            name: assumption.source if getattr(self, name) == assumption.value else "given"
            for name, assumption in known.items()
        }


def _check(plan: Plan) -> None:
    inside = ("prevalence", "rfs_positive", "rfs_negative", "treated_share", "alpha")
    above = ("hazard_ratio", "hazard_ratio_negative", "accrual_months", "follow_up_months", "shape", "horizon_months")
    for field in fields(plan):
        value = asdict(plan)[field.name]
        if field.name in inside and not 0 < value < 1:
            raise ConfigError(field.name, f"{value:g} isn't between 0 and 1", "write a share like 0.43")
        if field.name in ("sensitivity", "specificity") and not 0 < value <= 1:
            raise ConfigError(field.name, f"{value:g} isn't above 0 and at most 1", "write a share like 0.9")
        if field.name in above and not (0 < value < np.inf):
            raise ConfigError(field.name, f"{value:g} isn't above 0", "correct it")
    if not 0 <= plan.dropout_per_year < 1:
        raise ConfigError("dropout_per_year", f"{plan.dropout_per_year:g} isn't a share below 1", "write 0.05 for 5 %")
    for name, known in (("design", DESIGNS), ("question", QUESTIONS), ("test", TESTS)):
        if getattr(plan, name) not in known:
            raise ConfigError(name, f"{getattr(plan, name)!r} isn't known", f"choose one of {', '.join(known)}")
    if plan.design == "marker-stratified" and plan.question == "interaction" and plan.test != "log-rank":
        raise ConfigError("test", "rfs can't be asked for an interaction", "choose log-rank")
    if plan.test == "rfs" and plan.follow_up_months < plan.horizon_months:
        fault = f"the last patients aren't followed to {plan.horizon_months:g} months"
        raise ConfigError("follow_up_months", fault, "follow them as long, or choose the log-rank test")
