"""The headline, the samples and the slides: what was done and whether the night went well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ctc_imaging.report.pictures import thumbnail, whole_picture
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import MISSING, is_missing, label, number, per_ml, percent, plural, whole

THUMBNAILS = 300  # above this many slides only the first in the table carry a picture, to keep the page light

# Maps of quality have writing on them and are 40 kB each: those of the slides with something to see come first.
MAPS = 40

PHENOTYPES = ("epithelial", "hybrid", "mesenchymal", "undetermined")
TONES = {"failed": "failed", "not assessable": "poor", "counted": "counted"}


@dataclass(frozen=True)
class Tile:
    """One figure of the headline strip; `tone` is good, attention or bad."""

    value: str
    name: str
    note: str = ""
    tone: str = "good"


@dataclass(frozen=True)
class Headline:
    """One sentence and a few figures that say how the run went."""

    sentence: str
    tone: str
    tiles: tuple[Tile, ...]


def slide_verdicts(slides: pd.DataFrame) -> pd.Series:
    """Verdict of every slide: ``replaced``, ``failed``, ``not assessable``, ``counted``, or its unfinished state."""
    done = slides["state"] == "done"
    verdict = slides["state"].map(str).mask(done, "counted")
    verdict = verdict.mask(done & ~slides["assessable"].astype(bool), "not assessable")
    return verdict.mask(slides["slide_id"].isin(slides["rescan_of"].dropna()), "replaced")


def headline(run: Run, controls: pd.DataFrame) -> Headline:
    """Say in a sentence and a few figures how the run went; slides replaced by a rescan are left out.

    Parameters
    ----------
    run : Run
    controls : DataFrame
        As from `batch_quality.judge_controls`.
    """
    verdicts = slide_verdicts(run.slides)
    total = int((verdicts != "replaced").sum())
    counted, failed, poor = (int((verdicts == name).sum()) for name in ("counted", "failed", "not assessable"))
    samples = run.patients
    lacking = int((~samples["assessable"].astype(bool)).sum())
    tiles = (
        Tile(f"{counted} of {total}", "slides counted", tone="good" if counted else "bad"),
        Tile(f"{failed}", "slides failed", "", "bad" if failed else "good"),
        Tile(f"{poor}", "slides not assessable", "", "attention" if poor else "good"),
        Tile(
            f"{len(samples) - lacking} of {len(samples)}",
            "samples with a result",
            f"from {plural(samples['patient_id'].nunique(), 'patient')}",
            "attention" if lacking or not len(samples) else "good",
        ),
        _control_tile(controls),
        _positive_tile(run),
    )
    sentence, tone = _verdict(total, counted, failed, poor)
    lost = int((controls["verdict"] == "failed").sum())
    if lost and tone != "bad":
        sentence, tone = f"{sentence} {plural(lost, 'control').capitalize()} failed.", "attention"
    return Headline(sentence, tone, tiles)


def _verdict(total: int, counted: int, failed: int, poor: int) -> tuple[str, str]:
    unfinished = total - counted - failed - poor
    if not total:
        return "This run has no slides.", "bad"
    if unfinished:
        return (
            f"This run isn't finished: {plural(unfinished, 'slide')} still to do. The figures will change.",
            "attention",
        )
    if not counted:
        return "No slide could be counted. There are no results in this report.", "bad"
    if not failed and not poor:
        return f"All slides were counted, {total} of {total}.", "good"
    parts = [f"{plural(failed, 'slide')} failed"] * bool(failed) + [f"{poor} couldn't be assessed"] * bool(poor)
    return f"{counted} of {plural(total, 'slide')} were counted; {' and '.join(parts)}.", "attention"


def _control_tile(controls: pd.DataFrame) -> Tile:
    if controls.empty:
        return Tile("0", "controls", "nothing tells what blanks give", "plain")
    failed = controls[controls["verdict"] == "failed"]
    passed = int((controls["verdict"] == "passed").sum())
    named = ", ".join(dict.fromkeys(failed["batch_name"].where(failed["batch"] != "", failed["sample_id"])))
    note = f"failed in {named}" if len(failed) else ""
    return Tile(f"{passed} of {len(controls)}", "controls passed", note, "bad" if len(failed) else "good")


def _positive_tile(run: Run) -> Tile:
    judged = run.timeline[run.timeline["status"].isin(["positive", "negative"])]
    if len(judged) and run.cutoff:
        note = f"cut-off {run.cutoff['ctc']} CTC per {number(run.cutoff['volume_ml'])} mL"
        return Tile(f"{(judged['status'] == 'positive').sum()} of {len(judged)}", "samples CTC-positive", note, "plain")
    counted = run.patients[run.patients["assessable"].astype(bool)]
    value = f"{(counted['ctc'].astype(float) > 0).sum()} of {len(counted)}"
    return Tile(value, "samples with a CTC", "at least one; no cut-off applied", "plain")


def sample_rows(counts: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the table of samples, by patient and date; unassessable ones keep dashes, never zeros."""
    ordered = counts.sort_values(["patient_id", "sample_date", "sample_id"], kind="stable")
    return [_sample_row(row) for _, row in ordered.iterrows()]


def _sample_row(row: pd.Series) -> dict[str, Any]:
    return {
        "sample": label_id(row["sample_id"]),
        "patient": label_id(row["patient_id"]),
        "date": label_id(row["sample_date"])[:10],
        "kind": label(row["sample_kind"]),
        "volume": _volume(row),
        "leukocytes": whole(row["leukocyte"]),
        "indeterminate": whole(row["indeterminate"]),
        "ctc": whole(row["ctc"]),
        **{name: whole(row[f"ctc_{name}"]) for name in PHENOTYPES},
        "clusters": whole(row["ctc_clusters"]),
        "mixed_clusters": whole(row["ctc_leukocyte_clusters"]),
        "per_ml": per_ml(row),
        "assessable": bool(row["assessable"]),
        "remark": remark(row),
    }


def _volume(row: pd.Series) -> str:
    if is_missing(row["assessed_volume_ml"]):
        return MISSING
    return f"{number(row['assessed_volume_ml'])} of {number(row['blood_volume_ml'])}"


def remark(row: pd.Series) -> str:
    """Say why a row has no result, or what to know about it."""
    reasons = "" if is_missing(row["quality_reasons"]) else str(row["quality_reasons"])
    if not row["assessable"]:
        return f"not assessable: {reasons or 'no reason given'}"
    signed = "" if is_missing(row.get("signed_by")) else f"signed by {row['signed_by']}"
    return "; ".join(part for part in (reasons, signed) if part)


def label_id(value: Any) -> str:
    """An identifier or date as it stands, a dash where it is missing."""
    return MISSING if is_missing(value) else str(value)


def shown_phenotypes(run: Run) -> list[str]:
    """Phenotypes with a column of their own: those the panel can tell apart, and any that was counted."""
    roles = {channel["role"] for channel in run.panel["channels"]}
    known = PHENOTYPES[:3] if "mesenchymal" in roles else ()
    return [
        name for name in PHENOTYPES if name in known or (run.counts[f"ctc_{name}"].fillna(0).astype(float) > 0).any()
    ]


def summary(run: Run) -> list[tuple[str, str]]:
    """Name and value of the figures that sum up the patients' samples."""
    samples = run.patients
    counted = samples[samples["assessable"].astype(bool)]
    values = counted["ctc_per_ml"].astype(float)
    facts = [
        ("Patients", whole(samples["patient_id"].nunique())),
        ("Samples", f"{len(samples)}, {len(counted)} of them with a result"),
        ("CTCs found", whole(counted["ctc"].astype(float).sum())),
        ("Cells looked at", whole(counted["cells"].astype(float).sum())),
    ]
    if len(counted):
        none = int((counted["ctc"].astype(float) == 0).sum())
        facts.append(("CTC per mL", f"median {number(values.median())}, highest {number(values.max())}"))
        facts.append(("Samples without any CTC", f"{none} ({percent(none / len(counted))})"))
    blank = counted["limit_of_blank"].astype(float)
    if (known := blank.notna()).any():
        above = int((counted["ctc"].astype(float) > blank)[known].sum())
        facts.append(("Above the limit of blank", f"{above} of {int(known.sum())}"))
    return facts


def slide_rows(run: Run) -> list[dict[str, Any]]:
    """Rows of the table of slides: failed ones first, then those not assessable, those with a remark, the rest."""
    slides = run.slides.assign(verdict=slide_verdicts(run.slides))
    remark = slides["quality_reasons"].notna() & (slides["quality_reasons"] != "")
    order = slides["verdict"].map({"failed": 0, "not assessable": 1, "counted": 4}).fillna(2)
    slides = slides.assign(order=order.mask((order == 4) & remark, 3))
    ordered = slides.sort_values(["order", "slide_id"], kind="stable")
    return [
        {
            "slide": label_id(row["slide_id"]),
            "sample": label_id(row["sample_id"]),
            "verdict": row["verdict"],
            "tone": TONES.get(row["verdict"], "other"),
            "assessed": percent(row["assessed_fraction"]) if row["state"] == "done" else MISSING,
            "cells": whole(row["cells"]) if row["state"] == "done" else MISSING,
            "reason": _slide_reason(row),
            "plain": row["verdict"] == "counted" and not _slide_reason(row),
            "thumbnail": thumbnail(run.folder.slide(str(row["slide_id"])) / "overview.png")
            if place < THUMBNAILS
            else None,
            "maps": whole_picture(run.folder.slide(str(row["slide_id"])) / "quality.png") if place < MAPS else None,
        }
        for place, (_, row) in enumerate(ordered.iterrows())
    ]


def _slide_reason(row: pd.Series) -> str:
    reasons = [row["reason"], row["quality_reasons"]]
    return "; ".join(dict.fromkeys(str(reason) for reason in reasons if not is_missing(reason)))
