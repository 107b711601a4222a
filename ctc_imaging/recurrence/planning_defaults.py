"""What a plan assumes until told otherwise, each figure with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Assumption:
    """A figure and its source."""

    value: float
    source: str


_OURS = "an assumption of ours"
_RISE_AND_FALL = "BMC Cancer 2025 (PMC12210763), 90 patients"

RFS_POSITIVE = Assumption(0.425, f"2-year RFS where the count rose after surgery, {_RISE_AND_FALL}")
RFS_NEGATIVE = Assumption(0.678, f"2-year RFS where the count fell after surgery, {_RISE_AND_FALL}")
PREVALENCE = Assumption(
    0.43, "positive before surgery, 2 or more per 7.5 mL, Yu 2018 (s12885-018-4744-4), 139 patients"
)
HAZARD_RATIO = Assumption(
    0.58, "1 / 1.724, RFS without adjuvant TACE against with, J Gastrointest Surg 2021 (PMID 32748340), 261 patients"
)
HAZARD_RATIO_NEGATIVE = Assumption(1.0, "no effect in CTC-negative patients, Wang PX 2020 (Clin Transl Med 10:e137)")
SENSITIVITY = Assumption(1.0, "the RFS above are by tested status, so that what the test misses is in them already")
SPECIFICITY = Assumption(1.0, "as for the sensitivity")
SHAPE = Assumption(
    0.68, "Weibull through RFS of 73.1 % at 6 and 45.0 % at 24 months after HCC resection, Li 2014 (PLoS ONE 9:e110064)"
)
DROPOUT_PER_YEAR = Assumption(0.05, _OURS)
ACCRUAL_MONTHS = Assumption(24, _OURS)
FOLLOW_UP_MONTHS = Assumption(24, "the primary outcome is RFS at 2 years")
ALPHA = Assumption(0.05, "usual, two-sided")
