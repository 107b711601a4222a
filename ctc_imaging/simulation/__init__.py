"""Simulated slides and cohorts with the truth beside them."""

from __future__ import annotations

from ctc_imaging.simulation.cohort import simulate_cohort
from ctc_imaging.simulation.settings import SETTINGS, Setting
from ctc_imaging.simulation.slide import SimulatedSlide, simulate_slide, write_slide

__all__ = ["SETTINGS", "Setting", "SimulatedSlide", "simulate_cohort", "simulate_slide", "write_slide"]
