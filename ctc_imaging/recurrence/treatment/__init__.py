"""What adjuvant treatment does in marker-positive and -negative patients, from observation: a hypothesis, no proof."""

from ctc_imaging.recurrence.treatment.dates import mark_on_treatment, split_at_start, treatment_start
from ctc_imaging.recurrence.treatment.decision_cohort import DecisionCohort, decision_cohort
from ctc_imaging.recurrence.treatment.interaction import STATEMENT, TreatmentEffect, treatment_effect

__all__ = [
    "STATEMENT",
    "DecisionCohort",
    "TreatmentEffect",
    "decision_cohort",
    "mark_on_treatment",
    "split_at_start",
    "treatment_effect",
    "treatment_start",
]
