"""Build a small RUN by hand, of simulated slides with calls drawn from their truth, for the tests of the plug-in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ctc_imaging.classification.calling import write_crops
from ctc_imaging.cohort import load_cohort
from ctc_imaging.config import Settings
from ctc_imaging.files import sha256_file, write_csv, write_parquet
from ctc_imaging.inputs import Inputs, save_tables
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.segmentation import measure_background, segment_slide
from ctc_imaging.simulation import simulate_slide, write_slide
from ctc_imaging.slide import open_slide
from ctc_imaging.store.labels import create_labels, finish_labels
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.run_folder import RunFolder

MODEL_HASH = "m" * 64
REQUIRED = "CTC_IMAGING_REQUIRE_DISPLAY"


def need_display() -> None:
    """Skip the test where no window can be opened, or fail it where one must be."""
    if os.environ.get("DISPLAY") or os.environ.get("QT_QPA_PLATFORM"):
        return
    reason = "no display: run under xvfb-run"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def write_run(
    folder: Path, slides: tuple[str, ...] = ("P1-before", "P1-month1"), shape_px: tuple[int, int] = (512, 512)
) -> RunFolder:
    """Simulate slides beside the run and process them with fake calls; all are done."""
    panel = load_panel("emt-4")
    rows = [
        {"slide": f"{name}/slide.ome.tif", "slide_id": name, "patient_id": "P1", "blood_volume_ml": 5}
        | {"sample_date": f"2024-0{number}-01"}
        for number, name in enumerate(slides, start=1)
    ]
    cohort = folder / "scans" / "cohort.csv"
    cohort.parent.mkdir(parents=True)
    write_csv(cohort, pd.DataFrame(rows))
    run = RunFolder(folder / "run")
    run.prepare()
    entries = load_cohort(cohort)
    cohort_text = pd.DataFrame([row | {"slide": str(cohort.parent / row["slide"])} for row in rows]).to_csv(index=False)
    inputs = Inputs(
        entries=entries,
        settings=Settings(),
        panels={panel.name: panel},
        model_hash=MODEL_HASH,
        tables={"cohort": cohort_text},
        simulated=True,
    )
    save_tables(run, inputs)
    run.describe(inputs.identity, inputs.facts())
    with Ledger(run.ledger, create=True) as ledger:
        ledger.set_slides(slides)
        for seed, entry in enumerate(entries):
            write_slide(simulate_slide(shape_px, 6, 50, seed=seed), entry.slide.parent)
            _process(entry.slide, run.slide(entry.slide_id), panel)
            ledger.finish(entry.slide_id, 1.0, sha256_file(entry.slide), "")
    return run


def _process(scan: Path, folder: Path, panel: Panel) -> None:
    with open_slide(scan) as slide:
        channels = panel.assign(slide.channel_names, scan)
        background = measure_background(slide, channels)
        labels = create_labels(folder / "labels.ome.zarr", *slide.shape[1:])
        cells = segment_slide(slide, channels, panel, background, labels, slide.pixel_size_um)
        finish_labels(folder / "labels.ome.zarr", slide.pixel_size_um)
        cells = _called(cells, pd.read_csv(scan.parent / "truth.csv"))
        cells = cells.assign(cluster_id=np.int64(0), cluster_kind="", focus=1.0, assessed=True)
        write_parquet(folder / "cells.parquet", cells)
        write_crops(folder / "crops.zarr", slide, channels, panel, cells, background)
    (folder / "quality.json").write_text('{"assessable": true, "assessed_fraction": 1.0, "reasons": []}')
    (folder / "overview.png").write_bytes(b"")


def _called(cells: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Call each cell what the nearest object of the truth is, with some doubt about every third CTC."""
    random = np.random.default_rng(0)
    distance = np.hypot(
        cells["y_um"].to_numpy()[:, None] - truth["y_um"].to_numpy(),
        cells["x_um"].to_numpy()[:, None] - truth["x_um"].to_numpy(),
    )
    nearest = truth.iloc[distance.argmin(axis=1)].reset_index(drop=True)
    is_ctc = (nearest["class"] == "ctc").to_numpy()
    p_ctc = np.where(is_ctc, random.uniform(0.5, 1.0, len(cells)), random.uniform(0.0, 0.2, len(cells)))
    call = nearest["class"].astype(object).where(~is_ctc | (p_ctc > 0.7), "indeterminate")
    is_leukocyte = (nearest["class"] == "leukocyte").to_numpy()
    return cells.assign(
        call=call,
        p_ctc=p_ctc,
        p_leukocyte=np.where(is_leukocyte, 1 - p_ctc, 0.0),
        p_artefact=np.where(is_leukocyte, 0.0, 1 - p_ctc),
        phenotype=np.where(call == "ctc", nearest["phenotype"].fillna(""), ""),
    )
