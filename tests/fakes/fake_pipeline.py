"""A stand-in for the pipeline: slides are text files that say what shall happen to them."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from ctc_imaging.config import Settings
from ctc_imaging.files import sha256_file, write_json, write_parquet
from ctc_imaging.inputs import load_inputs, save_tables
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.run_folder import RunFolder

CALLS = ("ctc", "leukocyte", "artefact", "indeterminate")


def cells_of(text: str) -> pd.DataFrame:
    """Make cells that depend on a slide's text alone."""
    random = np.random.default_rng(list(text.encode()))
    count = int(random.integers(20, 40))
    call = random.choice(CALLS, count, p=[0.2, 0.6, 0.1, 0.1]).astype(object)
    y_px, x_px = random.uniform(10, 50, (2, count))
    return pd.DataFrame(
        {
            "cell_id": np.arange(1, count + 1),
            "y_um": y_px * 0.5,
            "x_um": x_px * 0.5,
            "y_px": y_px,
            "x_px": x_px,
            "diameter_um": 10.0,
            "nucleus_area_um2": 40.0,
            **dict.fromkeys(("dapi_snr", "ck_snr", "vim_snr", "cd45_snr"), 5.0),
            "call": call,
            "p_ctc": random.random(count),
            "phenotype": np.where(call == "ctc", "hybrid", "").astype(object),
            "cluster_id": 0,
            "cluster_kind": "",
        }
    )


def process(entry, folder, settings):
    """Do what the slide's text says: raise, crash, crash once, exit, wait; else write results."""
    text = entry.slide.read_text()
    if "FAKE_PIDS" in os.environ:
        (Path(os.environ["FAKE_PIDS"]) / str(os.getpid())).touch()
    if "wait" in text:
        time.sleep(float(os.environ.get("FAKE_WAIT", "0.2")))
    if "raise" in text:
        raise ValueError("no cells\nin this text")
    if "exit" in text:
        sys.exit(3)
    if "crash" in text:
        flag = entry.slide.with_suffix(".crashed")
        if "once" not in text or not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if "rewrite" in text:
        entry.slide.write_text(text + "!")
    if "print" in text:
        sys.stdout.write("printed by a worker\n")
        sys.stdout.flush()
    write_results(folder, cells_of(text))
    if "lacking" in text:
        (folder / "overview.png").unlink()
    return {"cells": len(cells_of(text))}


def in_parts(count):
    """Have a cluster number some parts of a task; each says which process did it."""
    from ctc_imaging.cluster import map_by_all

    return list(map_by_all(number_and_pid, range(count)))


def number_and_pid(number):
    time.sleep(0.02)
    return number, os.getpid()


def write_results(folder: Path, cells: pd.DataFrame) -> None:
    """Write a slide's folder as the pipeline does, with empty pictures."""
    write_parquet(folder / "cells.parquet", cells)
    write_json(folder / "quality.json", {"assessable": True, "assessed_fraction": 1.0, "reasons": []})
    (folder / "overview.png").write_bytes(b"")
    for part in ("labels.ome.zarr", "crops.zarr"):
        (folder / part).mkdir()


def write_cohort(folder: Path, texts: dict[str, str]) -> Path:
    """Write a cohort of one slide a sample, two samples a patient, from slide ids and texts."""
    (folder / "slides").mkdir(parents=True)
    rows = ["slide,patient_id,sample_date,blood_volume_ml,slide_id"]
    for index, (slide_id, text) in enumerate(texts.items()):
        (folder / "slides" / f"{slide_id}.tif").write_text(text)
        day = date(2024, 1, 1) + timedelta(days=30 * (index % 2))
        rows.append(f"slides/{slide_id}.tif,P{index // 2},{day},7.5,{slide_id}")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder / "cohort.csv"


def without_heavy_parts(monkeypatch) -> None:
    """Leave out the model and the report, which the batch only calls."""
    import ctc_imaging.inputs

    report = ModuleType("ctc_imaging.report")
    report.write_report = write_report
    monkeypatch.setitem(sys.modules, "ctc_imaging.report", report)
    monkeypatch.setattr(ctc_imaging.inputs, "model_hash", lambda name: "0" * 64)


def make_run(folder: Path, texts: dict[str, str]) -> RunFolder:
    """Make a RUN as a batch would, in this process; call `without_heavy_parts` first."""
    inputs = load_inputs(write_cohort(folder / "input", texts), Settings())
    run = RunFolder(folder / "run")
    run.prepare()
    save_tables(run, inputs)
    run.describe(inputs.identity, inputs.facts())
    with Ledger(run.ledger, create=True) as ledger:
        ledger.set_slides(list(texts))
        for entry in inputs.entries:
            partial = run.partial(entry.slide_id)
            partial.mkdir()
            process(entry, partial, inputs.settings)
            run.publish(entry.slide_id)
            ledger.finish(entry.slide_id, 1.0, sha256_file(entry.slide), "")
    return run


def write_report(run: Path) -> Path:
    """Write an empty report."""
    page = Path(run) / "report.html"
    page.touch()
    return page


def use_in_commands(monkeypatch) -> None:
    """Have the command `run` use this stand-in."""
    import fake_pipeline

    from ctc_imaging import batch

    without_heavy_parts(monkeypatch)
    monkeypatch.setattr(batch, "run_cohort", partial(batch.run_cohort, process=fake_pipeline.process))


if __name__ == "__main__":
    import pytest

    from ctc_imaging.cli import main

    with pytest.MonkeyPatch.context() as patched:
        use_in_commands(patched)
        sys.exit(main())
