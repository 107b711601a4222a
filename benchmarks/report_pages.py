"""How heavy are the pages of a large cohort, how soon do they open, and how long does writing them take?

Simulated, not evidence about patients. Without --run a cohort of --patients is simulated (its tables) and laid out as
`ctc-imaging run` would, with pictures of noise for its slides and CTCs, which are heavier than real ones. A page's time
is that of a headless Chromium that loads it, lays it out and draws it as a picture at 1280 px, less that of an empty
page; the median of --repeats.

    python benchmarks/report_pages.py --patients 200
    python benchmarks/report_pages.py --run RUN
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import zarr

from ctc_imaging.clinical import load_clinical, load_schedule
from ctc_imaging.files import sha256_json, write_json
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.report import write_report
from ctc_imaging.simulation import simulate_cohort
from ctc_imaging.timeline import build_timeline

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_LIMITS = {"low": 100.0, "high": 2000.0, "scale": 1.0, "offset": 0.0}
_LINE = "{:<38} {:>8} {:>9}"


def main() -> None:
    """Write the pages and print their size and times."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--patients", type=int, default=200)
    arguments.add_argument("--run", type=Path, help="measure this RUN instead; its pages are written anew")
    arguments.add_argument("--repeats", type=int, default=5)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = asked.run or make_run(Path(folder) / "run", asked.patients)
        for words, pages in (("report.html alone", False), ("with all pages", True)):
            took, worked = _seconds(run, pages)
            print(f"{words}: {took:.1f} s, {worked:.1f} s of processor")
        tell_pages(run, asked.repeats)


def make_run(run: Path, patients: int) -> Path:
    """Lay a simulated cohort's tables out as a RUN of slides that were all counted."""
    simulate_cohort(run / "tables", patients, seed=1, tables_only=True, controls=False)
    counts = pd.read_csv(run / "tables" / "counts.csv", dtype={"signed_by": str})
    (run / "tables" / "counts.csv").rename(run / "counts.csv")
    panel = load_panel("emt-4")
    clinical = load_clinical(run / "tables" / "clinical.csv")
    schedule = load_schedule(run / "tables" / "schedule.yaml")
    build_timeline(counts, clinical, schedule, panel.cutoff).to_csv(run / "timeline.csv", index=False)
    slides = counts.assign(slide_id=counts["sample_id"] + "-1", state="done")
    slides.to_csv(run / "slides.csv", index=False)
    random = np.random.default_rng(0)
    for row in slides[slides["assessable"].astype(str) == "True"].to_dict("records"):
        _write_slide(run / "slides" / row["slide_id"], int(row["ctc"]), panel, random)
    facts = {
        "schema": 3, "pseudonymised": False, "pseudonym_key": None, "version": "benchmark", "simulated": True,
        "created": "2026-01-01T00:00:00+00:00", "configuration": {"landmark_day": 30, "horizon_days": 730},
        "panel": {**asdict(panel), "hash": panel.hash}, "panels": {}, "identity": {}, "nuclei": None,
        "model": {"name": "none", "hash": "0" * 64},
    }  # fmt: skip
    write_json(run / "run.json", {**facts, "hash": sha256_json(facts)})
    return run


def _write_slide(folder: Path, ctc: int, panel: Panel, random: np.random.Generator) -> None:
    """Write an overview, and cells and crops of the CTCs only."""
    folder.mkdir(parents=True)
    ids, channels = np.arange(1, ctc + 1), len(panel.shorts)
    cells = pd.DataFrame({"cell_id": ids, "call": "ctc", "p_ctc": 0.9, "phenotype": "hybrid", "edges": ""})
    cells = cells.assign(at_edge=False, assessed=True, cluster_id=0, cluster_kind="")
    cells.to_parquet(folder / "cells.parquet", index=False)
    group = zarr.open_group(folder / "crops.zarr", mode="w", zarr_format=2)
    group.create_array("crops", data=random.integers(100, 2000, (max(ctc, 1), channels, 48, 48), dtype=np.uint16))
    group.create_array("cell_id", data=np.arange(1, max(ctc, 1) + 1))
    limits = {name: [value] * channels for name, value in _LIMITS.items()}
    group.attrs.update({"pixel_size_um": 0.5, "channels": list(panel.shorts), **limits})
    overview = cv2.GaussianBlur(random.integers(0, 255, (512, 512, 3), dtype=np.uint8), (0, 0), 1.5)
    cv2.imwrite(str(folder / "overview.png"), overview)


def tell_pages(run: Path, repeats: int) -> None:
    """Print the size of the pages, and how soon they open where there is a Chromium."""
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    empty = _opened(browser, "about:blank", repeats) if browser else 0.0
    print(_LINE.format("page", "MB", "opens, s" if browser else ""))
    pages = run / "pages"
    heaviest = [max((pages / kind).glob("*.html"), key=lambda path: path.stat().st_size, default=None)
                for kind in ("patients", "samples")]  # fmt: skip
    for page in (run / "report.html", pages / "batch.html", pages / "cohort.html", *filter(None, heaviest)):
        opens = f"{_opened(browser, page.resolve().as_uri(), repeats) - empty:.2f}" if browser else ""
        print(_LINE.format(page.relative_to(run).as_posix(), f"{page.stat().st_size / 1e6:.2f}", opens))
    sizes = [path.stat().st_size for path in pages.rglob("*.html")]
    print(_LINE.format(f"all {len(sizes)} pages", f"{sum(sizes) / 1e6:.1f}", ""))


def _seconds(run: Path, pages: bool) -> tuple[float, float]:
    start, worked = time.perf_counter(), time.process_time()
    write_report(run, pages=pages)
    return time.perf_counter() - start, time.process_time() - worked


def _opened(browser: str, address: str, repeats: int) -> float:
    times = []
    with tempfile.TemporaryDirectory() as folder:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"]
        for _ in range(repeats):
            start = time.perf_counter()
            subprocess.run([*command, f"--screenshot={folder}/page.png", address], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
