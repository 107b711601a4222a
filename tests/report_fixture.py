"""Write a small RUN folder by hand, as the contract describes it, for the tests of the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import zarr

from ctc_imaging.clinical import Schedule, Visit, load_clinical
from ctc_imaging.counting import COUNT_COLUMNS, poisson_limits
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.timeline import build_timeline

VISITS = {"before surgery": -3, "1 week": 7, "1 month": 30, "3 months": 91, "6 months": 183, "12 months": 365}
SURGERY = date(2024, 1, 15)
COUNTS = list(COUNT_COLUMNS)
SLIDES = ["slide_id", "state", "reason", *COUNTS, "rescan_of"]
SCHEDULE = Schedule(tuple(Visit(name, day, 2, 2) for name, day in VISITS.items()))


def write_run(
    folder: Path,
    patients: int = 3,
    clinical: bool = True,
    ctc: Callable[[np.random.Generator], int] = lambda random: int(random.negative_binomial(0.6, 0.15)),
    fail_all: bool = False,
    panel: str = "emt-4",
    overview_px: int = 120,
    simulated: bool = True,
) -> Path:
    """Write a run of `patients` over six visits; by default one visit is missed, one slide failed, one is poor."""
    random = np.random.default_rng(7)
    samples = [
        _sample(random, patient, visit, day, ctc)
        for patient in range(1, patients + 1)
        for visit, (_, day) in enumerate(VISITS.items())
        if (patient, day) != (1, 91)
    ]
    for place, sample in enumerate(samples):
        if fail_all or place == 1:
            _spoil(sample, "failed", "truncated file: page 3 of 4 ends early")
        elif place == 3:
            _spoil(sample, "done", "out of focus on 71 % of the slide; nuclear stain weak")
    chosen = load_panel(panel)
    if panel == "epithelial-3":
        for sample in samples:
            if sample["state"] == "done":
                sample.update(ctc_epithelial=0, ctc_hybrid=0, ctc_mesenchymal=0, ctc_undetermined=sample["ctc"])
    folder.mkdir(parents=True, exist_ok=True)
    _write_facts(folder, chosen, simulated)
    blank = _sample(random, 0, 0, -3, lambda _: 0) | {
        "sample_id": "blank-1", "slide_id": "blank-1", "patient_id": "", "sample_kind": "blank",
    }  # fmt: skip
    table = pd.DataFrame([*samples, *([] if fail_all else [blank])])
    table.reindex(columns=SLIDES).to_csv(folder / "slides.csv", index=False)
    table.reindex(columns=COUNTS).to_csv(folder / "counts.csv", index=False)
    known = None
    if clinical:
        (folder / "tables").mkdir()
        _clinical(patients).to_csv(folder / "tables" / "clinical.csv", index=False)
        known = load_clinical(folder / "tables" / "clinical.csv")
    counts = table.reindex(columns=COUNTS)
    build_timeline(counts, known, SCHEDULE, chosen.cutoff).to_csv(folder / "timeline.csv", index=False)
    for row in table[table["state"] == "done"].to_dict("records"):
        write_slide(folder / "slides" / row["slide_id"], row, chosen, random, overview_px)
    return folder


def write_slide(
    folder: Path, row: dict[str, Any], panel: Panel, random: np.random.Generator, overview_px: int = 120
) -> None:
    """Write one slide's cells, crops, quality and overview; its CTCs are discs of light."""
    folder.mkdir(parents=True, exist_ok=True)
    count = int(row["ctc"]) if row["assessable"] else 0
    ids = np.arange(1, count + 6)
    cells = pd.DataFrame({
        "cell_id": ids,
        "call": ["ctc"] * count + ["leukocyte"] * 5,
        "p_ctc": np.r_[random.uniform(0.7, 0.999, count), np.zeros(5)],
        "phenotype": ([*["hybrid", "epithelial", "mesenchymal"] * count][:count]) + [""] * 5,
        "edges": "", "at_edge": False, "assessed": True,
        "cluster_id": [1, 1, *[0] * (count + 3)] if count > 1 else [0] * (count + 5),
        "cluster_kind": ["ctc", "ctc", *[""] * (count + 3)] if count > 1 else [""] * (count + 5),
    })  # fmt: skip
    cells.to_parquet(folder / "cells.parquet", index=False)
    crops = np.stack([draw_crop(random, len(panel.channels)) for _ in ids])
    group = zarr.open_group(folder / "crops.zarr", mode="w", zarr_format=2)
    group.create_array("crops", data=crops, chunks=(16, *crops.shape[1:]))
    group.create_array("cell_id", data=ids)
    channels = len(panel.channels)
    limits = {
        "low": [120.0] * channels,
        "high": [1500.0] * channels,
        "scale": [1.0] * channels,
        "offset": [0.0] * channels,
    }
    group.attrs.update({"pixel_size_um": 0.5, "channels": list(panel.shorts), "slide_id": row["slide_id"], **limits})
    quality = {"assessable": row["assessable"], "assessed_fraction": row["assessed_fraction"], "reasons": []}
    (folder / "quality.json").write_text(json.dumps(quality))
    overview = random.integers(0, 60, (overview_px, overview_px, 3), dtype=np.uint8)
    for y, x in random.integers(4, overview_px - 4, (overview_px, 2)):
        cv2.circle(overview, (int(x), int(y)), 2, (255, 120, 60), -1)
    cv2.imwrite(str(folder / "overview.png"), overview)


def draw_crop(random: np.random.Generator, channels: int) -> np.ndarray:
    """Draw a cell of nucleus and ring as raw counts, uint16, shape (C, 48, 48)."""
    y, x = np.mgrid[:48, :48]
    radius = np.hypot(y - 24 + random.normal(0, 1), x - 24 + random.normal(0, 1))
    nucleus = 1100 / (1 + np.exp(radius - random.uniform(6, 8)))
    body = 1 / (1 + np.exp(radius - random.uniform(10, 12)))
    stains = [
        nucleus,
        *(random.uniform(0, 1100) * body * (1 - 0.5 * nucleus / 1100) for _ in range(channels - 2)),
        30 * body,
    ]
    return (120 + random.normal(20, 12, (channels, 48, 48)) + np.stack(stains)).clip(0, 65535).astype(np.uint16)


def write_survival(folder: Path, patients: int = 120) -> None:
    """Write RUN/survival/, a larger cohort of tables only, whose CTCs after surgery bring recurrence forward."""
    random = np.random.default_rng(11)
    rows, clinical = [], []
    for patient in range(1, patients + 1):
        burden = random.gamma(0.6, 4)
        made = [
            _sample(random, patient, v, day, lambda r, b=burden: int(r.poisson(b)))
            for v, day in enumerate(VISITS.values())
        ]
        relapse = random.exponential(900 / (1 + burden))
        last = random.uniform(730, 1500)
        rows += [row for row, day in zip(made, VISITS.values(), strict=True) if day <= min(relapse, last)]
        clinical.append({
            "patient_id": f"P{patient:03d}", "surgery_date": SURGERY, "last_contact_date": SURGERY + timedelta(last),
            "recurrence_date": SURGERY + timedelta(relapse) if 1 < relapse < last else None, "death_date": None,
        })  # fmt: skip
    (folder / "survival").mkdir()
    pd.DataFrame(rows).reindex(columns=COUNTS).to_csv(folder / "survival" / "counts.csv", index=False)
    pd.DataFrame(clinical).to_csv(folder / "survival" / "clinical.csv", index=False)


def _sample(random: np.random.Generator, patient: int, visit: int, day: int, ctc: Callable[..., int]) -> dict[str, Any]:
    found = ctc(random)
    volume = round(5 * random.uniform(0.9, 1), 3)
    low, high = poisson_limits(found)
    hybrid, mesenchymal = found // 2, found // 6
    name = f"P{patient:03d}-{visit}"
    return dict.fromkeys(COUNTS, None) | {
        "slide_id": name, "state": "done", "reason": "", "sample_id": name, "patient_id": f"P{patient:03d}",
        "sample_date": (SURGERY + timedelta(days=day)).isoformat(), "sample_kind": "patient", "slides": 1,
        "blood_volume_ml": 5.0, "assessed_volume_ml": volume, "assessed_fraction": volume / 5, "assessable": True,
        "quality_reasons": "", "cells": 900 + found, "leukocyte": 870, "artefact": 20, "indeterminate": 10,
        "ctc": found,
        "ctc_epithelial": found - hybrid - mesenchymal, "ctc_hybrid": hybrid, "ctc_mesenchymal": mesenchymal,
        "ctc_undetermined": 0, "ctc_clusters": int(found > 1), "ctc_leukocyte_clusters": 0,
        "ctc_per_ml": found / volume,
        "ctc_per_ml_low": float(low) / volume, "ctc_per_ml_high": float(high) / volume, "ctc_machine": found,
        "readers": "", "reviewed": 0, "signed_by": "",
    }  # fmt: skip


def _spoil(sample: dict[str, Any], state: str, reason: str) -> None:
    """Take a sample's result away, as a failed slide or one of poor quality has none."""
    numbers = COUNTS[COUNTS.index("cells") : COUNTS.index("readers")]
    sample.update(
        dict.fromkeys(numbers, None), state=state, assessable=False, assessed_volume_ml=None, quality_reasons=reason
    )
    sample.update(reason=reason if state == "failed" else "", assessed_fraction=None if state == "failed" else 0.29)


def _clinical(patients: int) -> pd.DataFrame:
    recurred = {1: 240, 2: 500}
    died = {1: 420}
    return pd.DataFrame([
        {
            "patient_id": f"P{patient:03d}", "surgery_date": SURGERY,
            "last_contact_date": SURGERY + timedelta(days=died.get(patient, 800)),
            "recurrence_date": SURGERY + timedelta(days=recurred[patient]) if patient in recurred else None,
            "death_date": SURGERY + timedelta(days=died[patient]) if patient in died else None,
        }
        for patient in range(1, patients + 1)
    ], columns=["patient_id", "surgery_date", "last_contact_date", "recurrence_date", "death_date"])  # fmt: skip


def _write_facts(folder: Path, panel: Panel, simulated: bool) -> None:
    facts = {
        "schema": 1,
        "hash": "9c" * 32,
        "version": "0.1.0",
        "created": "2026-11-22T06:12:44+00:00",
        "simulated": simulated,
        "configuration": {"landmark_day": 30, "horizon_days": 730},
        "panel": {**asdict(panel), "hash": panel.hash},
        "panels": {},
        "identity": {},
        "model": {"name": "default", "hash": "5b1f" * 16},
    }
    (folder / "run.json").write_text(json.dumps(facts))
