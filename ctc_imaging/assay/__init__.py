"""What controls say of an assay: false calls, recovery, limits of blank and detection, and a count's total limits."""

from __future__ import annotations

from ctc_imaging.assay.blank import limit_of_blank, limit_of_detection
from ctc_imaging.assay.error_rates import FalseCalls, Recovery, model_error_rates
from ctc_imaging.assay.interval import total_limits
from ctc_imaging.assay.recovery import MIN_RECOVERY, PooledRecovery, pool_recovery
from ctc_imaging.assay.samples import LIMIT_COLUMNS, RATE_COLUMNS, RATES_CSV, assess_samples
from ctc_imaging.assay.spread import estimate_false_calls, estimate_recovery

__all__ = [
    "LIMIT_COLUMNS",
    "MIN_RECOVERY",
    "RATES_CSV",
    "RATE_COLUMNS",
    "FalseCalls",
    "PooledRecovery",
    "Recovery",
    "assess_samples",
    "estimate_false_calls",
    "estimate_recovery",
    "limit_of_blank",
    "limit_of_detection",
    "model_error_rates",
    "pool_recovery",
    "total_limits",
]
