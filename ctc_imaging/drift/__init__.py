"""Whether the slides of a batch are still like those that the classifier learnt from."""

from __future__ import annotations

from ctc_imaging.drift.figures import FIGURES, Figure, drift_rows, slide_figures
from ctc_imaging.drift.judging import DRIFT_COLUMNS, DRIFT_CSV, FALSE_ALARMS, judge_drift
from ctc_imaging.drift.reference import CalledSlide, make_reference

__all__ = [
    "DRIFT_COLUMNS",
    "DRIFT_CSV",
    "FALSE_ALARMS",
    "FIGURES",
    "CalledSlide",
    "Figure",
    "drift_rows",
    "judge_drift",
    "make_reference",
    "slide_figures",
]
