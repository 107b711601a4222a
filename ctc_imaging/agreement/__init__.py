"""How well readers agree: on calls, on CTCs, on counts, with themselves, and how many CTCs the model rejected."""

from ctc_imaging.agreement.differences import CountDifference, Repeatability, limits_of_agreement, repeatability
from ctc_imaging.agreement.estimate import Estimate
from ctc_imaging.agreement.kappa import cohen_kappa, fleiss_kappa, positive_agreement, specific_agreement
from ctc_imaging.agreement.missed import MissedCtcs, missed_ctcs
from ctc_imaging.agreement.readers import Agreement, Pair, agreement_of, count_difference, count_table

__all__ = [
    "Agreement",
    "CountDifference",
    "Estimate",
    "MissedCtcs",
    "Pair",
    "Repeatability",
    "agreement_of",
    "cohen_kappa",
    "count_difference",
    "count_table",
    "fleiss_kappa",
    "limits_of_agreement",
    "missed_ctcs",
    "positive_agreement",
    "repeatability",
    "specific_agreement",
]
