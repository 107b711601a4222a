"""The thresholds of phenotype markers in the report: every slide's own, in the panel's order."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from ctc_imaging.batch_quality import STAIN_COLUMNS
from ctc_imaging.report.thresholds import threshold_page
from ctc_imaging.report.words import MISSING, marker

PANEL = {"channels": [{"short": short} for short in ("dapi", "ck", "vim", "cd45")]}


def run(rows):
    table = pd.DataFrame(rows, columns=["slide_id", "channel", "positive_from_snr"])
    return SimpleNamespace(stains=table.reindex(columns=list(STAIN_COLUMNS)), panel=PANEL)


def test_slides_and_markers_stand_in_their_order():
    rows = [("b", "dapi", np.nan), ("b", "vim", 3.0), ("b", "ck", 3.64), ("a", "ck", 7.1), ("a", "vim", 3.0)]
    page = threshold_page(run(rows))
    assert page.markers == (marker("ck"), marker("vim"))
    assert page.rows == (("b", "3.6", "3.0"), ("a", "7.1", "3.0"))


def test_what_a_slide_lacks_is_missing_and_never_zero():
    page = threshold_page(run([("a", "ck", 3.0), ("a", "vim", 3.0), ("b", "ck", 3.2)]))
    assert page.rows[1] == ("b", "3.2", MISSING)


def test_a_run_of_an_older_version_has_none():
    assert threshold_page(run([("a", "ck", np.nan)])).rows == ()
