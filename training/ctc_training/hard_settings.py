"""Simulated slides for training only: what fools a classifier is rare on the simulator's own settings."""

from __future__ import annotations

from dataclasses import replace

from ctc_imaging.simulation import SETTINGS
from ctc_imaging.simulation.settings import LogNormal, Setting

DIRTY = replace(
    SETTINGS["standard"],
    name="dirty",
    meaning="ten times the dirt, and stains on the wrong cells, for training only",
    leukocyte_cd45_snr=LogNormal.from_fifth_centile(7.0, 1.5),
    nonspecific_ck=30.0,
    nonspecific_ck_snr=LogNormal(5.0, 0.5),
    dye_aggregates=50.0,
    debris=100.0,
    naked_nuclei=40.0,
    fibres=8.0,
    ck_fragments=60.0,
)

PALE = replace(
    SETTINGS["standard"],
    name="pale",
    meaning="leukocytes that have nearly lost their CD45 and carry much vimentin, for training only",
    leukocyte_cd45_snr=LogNormal(1.5, 0.9),
    leukocyte_vimentin_snr=LogNormal(9.0, 0.45),
    nonspecific_ck=15.0,
    nonspecific_ck_snr=LogNormal(4.0, 0.5),
)
"""A leukocyte without CD45 differs from a mesenchymal CTC by little: here the border lies, so here are many."""

TRAINING_SETTINGS: dict[str, Setting] = {**SETTINGS, DIRTY.name: DIRTY, PALE.name: PALE}
"""The simulator's settings, and those for training only, by name."""
