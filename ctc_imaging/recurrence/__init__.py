"""From the timeline to recurrence-free survival, time-varying hazard and landmark risk."""

from ctc_imaging.recurrence.analysis import Analysis, analyse
from ctc_imaging.recurrence.cox import TimeVaryingCox
from ctc_imaging.recurrence.landmark import LandmarkRisk
from ctc_imaging.recurrence.survival import Curve, LandmarkSurvival

__all__ = ["Analysis", "Curve", "LandmarkRisk", "LandmarkSurvival", "TimeVaryingCox", "analyse"]
