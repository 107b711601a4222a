"""What only shows beside other slides: a stain that is off in its batch, and controls that failed."""

from __future__ import annotations

from ctc_imaging.batch_quality.batches import batch_table
from ctc_imaging.batch_quality.controls import judge_controls, mark_failed_controls
from ctc_imaging.batch_quality.staining import (
    STAIN_COLUMNS,
    STAINS_CSV,
    add_remarks,
    batch_shifts,
    stain_figures,
    stain_remarks,
    stain_rows,
    stain_table,
)

__all__ = [
    "STAINS_CSV",
    "STAIN_COLUMNS",
    "add_remarks",
    "batch_shifts",
    "batch_table",
    "judge_controls",
    "mark_failed_controls",
    "stain_figures",
    "stain_remarks",
    "stain_rows",
    "stain_table",
]
