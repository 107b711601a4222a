"""Whether the drift alarm sounds on every setting of the simulator but the standard one, and how often on that in vain.

    python benchmarks/drift.py --cache drift-slides

Makes a reference as training does, then calls the cells of slides of unseen seeds and judges them in batches. Standard
slides differ in size, density and CTCs; those of the other settings have 2,500 leukocytes and 20 CTCs. Everything here
is SIMULATED: it says whether the alarm does what it states, nothing about a laboratory's slides.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from ctc_training.evaluate import proportion
from ctc_training.reference import FIRST_SEED, SLIDES, called_slide, reference_of, standard_plan

from ctc_imaging.classification import Classifier, load_model
from ctc_imaging.drift import FIGURES, CalledSlide, judge_drift, slide_figures
from ctc_imaging.files import write_json, write_parquet
from ctc_imaging.panel import load_panel
from ctc_imaging.report.drift_chart import title_of
from ctc_imaging.simulation import SETTINGS

PANEL = load_panel("emt-4")
UNSEEN_SEED = FIRST_SEED + 50_000
CTCS, LEUKOCYTES = 20, 2500


def main() -> None:
    """Print false alarms on standard slides, and alarms on the other settings."""
    options = _options()
    model = load_model(options.model)
    reference = _reference(model, options.cache, options.remake)
    print(f"All slides SIMULATED. Model {model.hash[:12]}; reference of {reference['slides']} standard slides.")
    plan = standard_plan(options.standard, UNSEEN_SEED)
    standard = [_slide(model, options.cache, "standard", *slide) for slide in plan]
    print("\nStandard slides, seeds that the reference hasn't: false alarms, with exact 95 % limits")
    for size in (1, 2, 4):
        print(_false_alarms(size, _alarms(standard, size, reference)))
    print(f"\nOther settings, {options.slides} slides each: alarms on slides alone, on pairs, and what sounds it")
    for place, setting in enumerate(name for name in SETTINGS if name != "standard"):
        seeds = range(UNSEEN_SEED + 1000 * (1 + place), UNSEEN_SEED + 1000 * (1 + place) + options.slides)
        slides = [_slide(model, options.cache, setting, seed, CTCS, LEUKOCYTES, (2048, 2048)) for seed in seeds]
        alone, pairs = _alarms(slides, 1, reference), _alarms(slides, 2, reference)
        told = [f"{sum(map(bool, alarms))} of {len(alarms)}" for alarms in (alone, pairs)]
        print(f"  {setting:17} {told[0]:8} {told[1]:8} {next(filter(None, pairs), '')}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("drift-slides"), help="keeps the called cells")
    parser.add_argument("--model", default="default")
    parser.add_argument("--remake", action="store_true", help="make the reference here, and keep it in the cache")
    parser.add_argument("--standard", type=int, default=96, help="standard slides for false alarms")
    parser.add_argument("--slides", type=int, default=4, help="slides of each other setting")
    return parser.parse_args()


def _reference(model: Classifier, cache: Path, remake: bool) -> dict[str, Any]:
    """The model's own reference, or one made here as training makes it."""
    known = model.description.get("reference")
    if known and not remake:
        return known
    plan = standard_plan(SLIDES, FIRST_SEED)
    made = reference_of((_slide(model, cache, "standard", *slide) for slide in plan), PANEL, simulated=True)
    write_json(cache / "reference.json", made)
    return made


def _slide(
    model: Classifier, cache: Path, setting: str, seed: int, ctc: int, leukocytes: int, shape_px: tuple[int, int]
) -> CalledSlide:
    path = cache / f"{model.hash[:12]}-{setting}-{seed}-{shape_px[0]}.parquet"
    if not path.with_suffix(".json").is_file():
        cells, quality = called_slide(model, setting, seed, ctc, leukocytes, shape_px)
        cells.attrs = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(path, cells)
        write_json(path.with_suffix(".json"), quality)
    return pd.read_parquet(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))


def _alarms(slides: Sequence[CalledSlide], size: int, reference: dict[str, Any]) -> list[str]:
    """Of each batch of so many slides, one a week, what sounds the alarm; empty for none."""
    rows = [row for number, slide in enumerate(slides) for row in _rows(number, number // size, slide)]
    table = judge_drift(rows, reference, simulated=True)
    return [_named(batch) for _, batch in table.groupby("batch", sort=True)]


def _false_alarms(size: int, alarms: Sequence[str]) -> str:
    count = sum(map(bool, alarms))
    rate = proportion(count, len(alarms))
    limits = f"{100 * rate['value']:.1f} % ({100 * rate['low']:.1f}-{100 * rate['high']:.1f})"
    return f"  batches of {size}: {count} of {len(alarms)}, {limits}  {'; '.join(filter(None, alarms))}"


def _rows(number: int, batch: int, slide: CalledSlide) -> Iterable[dict[str, Any]]:
    place = {"slide_id": f"S{number}", "sample_id": f"S{number}", "site": "", "panel": PANEL.name}
    when = (date(2026, 1, 1) + timedelta(weeks=batch)).isoformat()
    for row in slide_figures(*slide, PANEL):
        kind = FIGURES[row.figure].kind
        yield {**place, "sample_date": when, "batch": f"{batch:04}", "kind": kind, **row._asdict()}


def _named(batch: pd.DataFrame) -> str:
    off = batch[batch["alarm"] != ""].drop_duplicates(["figure", "channel"])
    return "; ".join(title_of(figure, channel) for figure, channel in zip(off["figure"], off["channel"], strict=True))


if __name__ == "__main__":
    main()
