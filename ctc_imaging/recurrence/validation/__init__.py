"""How good predictions are for subjects they weren't made from: discrimination, error, calibration, benefit."""

from ctc_imaging.recurrence.validation.calibration import Calibration, calibration
from ctc_imaging.recurrence.validation.cross_validation import (
    Points,
    Predictions,
    by_horizon,
    by_window,
    cross_validate,
)
from ctc_imaging.recurrence.validation.report import (
    calibrations,
    difference_table,
    integrated_table,
    score_table,
)
from ctc_imaging.recurrence.validation.scores import auc, brier, integrated_brier

__all__ = [
    "Calibration",
    "Points",
    "Predictions",
    "auc",
    "brier",
    "by_horizon",
    "by_window",
    "calibration",
    "calibrations",
    "cross_validate",
    "difference_table",
    "integrated_brier",
    "integrated_table",
    "score_table",
]
