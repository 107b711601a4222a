"""What a technician has to do in the morning: slides without a result and why, then warnings, the worst first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

import pandas as pd

from ctc_imaging.report.batches import BatchPage
from ctc_imaging.report.drift import DriftPage
from ctc_imaging.report.sections import slide_verdicts
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import is_missing, marker, number, plural

# A typed error in one line: where, fault, remedy.
_ERROR = re.compile(r"(?P<where>.+?): (?P<fault>.+); (?P<remedy>[^;]+)")
_PROGRAM_FAULT = re.compile(r"[A-Z]\w*(Error|Exception|Interrupt|Warning)\b")
# A figure, and no part of a name such as cd45.
_NUMBER = re.compile(r"(?<![a-z\d])\d[\d.]*")
# What helps against the quality verdict's words.
REMEDIES = {
    "out of focus": "scan again with a new focus map",
    "saturated": "scan again with a shorter exposure",
    "never scanned": "scan the whole slide again",
    "shows no signal": "check filter and exposure of this channel; if the stain itself is missing, stain anew",
    "is constant": "check filter and exposure of this channel, and export again",
    "is missing": "check which channels were scanned, and export again",
    "told apart": "put fewer cells on a slide",
    "cells overlap": "put fewer cells on a slide",
    "bubble or fold": "mount anew without bubbles or folds, and scan again",
    "no cell shows": "see whether the batch's spiked sample or stain control shows it",
    "uneven": "check the lamp and the scanner's flat field",
    "pixel size": "give it in the cohort's column pixel_size_um",
}
_LOOK = "look at its pictures under Quality of slides"
_NAMED = 8


@dataclass(frozen=True)
class Fault:
    """A slide without a result."""

    slide: str
    sample: str
    verdict: str
    tone: str
    file: str
    folder: str
    fault: str
    remedy: str


@dataclass(frozen=True)
class Notice:
    """Something a result should be read with; `tone` is bad or attention."""

    tone: str
    where: str
    what: str
    remedy: str


def faults(run: Run) -> list[Fault]:
    """List the slides that failed and then those not assessable, with what to do about each."""
    verdicts = slide_verdicts(run.slides)
    paths = {entry.slide_id: str(entry.slide) for entry in run.cohort}
    return [
        _fault(row, verdict, paths.get(str(row["slide_id"]), ""))
        for verdict in ("failed", "not assessable")
        for _, row in run.slides[verdicts == verdict].sort_values("slide_id", kind="stable").iterrows()
    ]


def _fault(row: pd.Series, verdict: str, path: str) -> Fault:
    if verdict == "failed":
        where, fault, remedy = split_reason("" if is_missing(row["reason"]) else str(row["reason"]))
        path, tone = where or path, "failed"
    else:
        fault, tone = "" if is_missing(row["quality_reasons"]) else str(row["quality_reasons"]), "poor"
        remedy = remedy_for(fault)
    place = PurePath(path)
    folder = str(place.parent) if place.name and str(place.parent) != "." else ""
    slide, sample = str(row["slide_id"]), str(row["sample_id"])
    return Fault(slide, sample, verdict, tone, place.name, folder, fault or "no reason given", remedy)


def split_reason(reason: str) -> tuple[str, str, str]:
    """Split the ledger's reason into file, fault and remedy; what isn't a typed error is a fault without a file.

    Examples
    --------
    >>> split_reason("/scans/a.tif: not a TIFF file; export the scan as OME-TIFF")
    ('/scans/a.tif', 'not a TIFF file', 'export the scan as OME-TIFF')
    >>> split_reason("ValueError: boo")
    ('', 'ValueError: boo', 'run again; if it fails again, report it with the file run.log')
    """
    again = "run again; if it fails again, report it with the file run.log"
    if _PROGRAM_FAULT.match(reason):
        return "", reason, again
    parts = _ERROR.fullmatch(reason)
    if parts:
        return parts["where"], parts["fault"], parts["remedy"]
    if "process died" in reason:
        return "", reason, "run again, with fewer --workers if memory is short"
    return "", reason, again


def remedy_for(reasons: str) -> str:
    """Say what helps against a quality verdict's reasons.

    Examples
    --------
    >>> remedy_for("only 29% of the slide can be assessed; 71.0% of the slide is out of focus")
    'scan again with a new focus map'
    """
    found = dict.fromkeys(remedy for words, remedy in REMEDIES.items() if words in reasons)
    return "; ".join(list(found)[:2]) or _LOOK


def notices(run: Run, batches: BatchPage, drift: DriftPage) -> list[Notice]:
    """Rank what deserves a look: failed controls, batches off, positives no blank tells apart, slides off, remarks."""
    return [
        *_controls(batches),
        *_shifts(batches),
        *_drift(drift),
        *_like_blanks(run),
        *_stains(batches),
        *_remarks(run, batches),
    ]


def _controls(batches: BatchPage) -> list[Notice]:
    failed = batches.controls[batches.controls["verdict"] == "failed"]
    hold = "repeat the control; until then hold back the results of {}"
    return [
        Notice(
            tone="bad",
            where=str(row["batch_name"]) if row["batch"] else str(row["sample_id"]),
            what=f"Control {row['sample_id']} ({str(row['sample_kind']).replace('_', ' ')}) failed: {row['reason']}",
            remedy=hold.format(row["batch_name"] if row["batch"] else "what was stained with it"),
        )
        for row in failed.to_dict("records")
    ]


def _shifts(batches: BatchPage) -> list[Notice]:
    remedy = "compare reagents, exposure and lamp with those of the other batches"
    by_batch = batches.shifts.groupby("batch_name", sort=False)["text"].agg("; ".join)
    return [Notice("bad", str(name), str(text), remedy) for name, text in by_batch.items()]


def _drift(drift: DriftPage) -> list[Notice]:
    if not drift.rows:
        return []
    remedy = "see Drift; go by the batch's controls, and review more of its cells"
    return [Notice("attention", _names([str(row["batch"]) for row in drift.rows]), drift.sentence, remedy)]


def _like_blanks(run: Run) -> list[Notice]:
    """Name the samples that the cut-off calls positive, though a blank may give as many CTCs."""
    positive = run.timeline[run.timeline["status"] == "positive"]
    alike = positive[positive["ctc"].astype(float) <= positive["limit_of_blank"].astype(float)]
    if alike.empty:
        return []
    what = f"CTC-positive by the cut-off, but not above the limit of blank: {plural(len(alike), 'sample')}"
    remedy = "have a reader look at each CTC; more blanks and donors may lower the limit"
    return [Notice("attention", _names(list(alike["sample_id"].astype(str))), what, remedy)]


def _stains(batches: BatchPage) -> list[Notice]:
    """One warning a slide, the farthest from its batch first."""
    if batches.odd.empty:
        return []
    far = batches.odd.assign(far=batches.odd["ratio"].map(lambda ratio: max(ratio, 1 / ratio)))
    farthest = far.groupby("slide_id")["far"].max().sort_values(ascending=False, kind="stable")
    remedy = "check exposure and filter; if the stain itself is off, stain another slide of the sample"
    return [
        Notice("attention", str(slide), stains_off(far[far["slide_id"] == slide]), remedy) for slide in farthest.index
    ]


def stains_off(rows: pd.DataFrame) -> str:
    """Say in one sentence which stains of a slide are off, as ``DAPI 0.41, CK 0.38 times as strong as ...``."""
    parts = []
    for (figure, peers), same in rows.groupby(["figure", "peers"], sort=False):
        ratios = [
            f"{marker(short)} {number(ratio)}" for short, ratio in zip(same["channel"], same["ratio"], strict=True)
        ]
        whom = peers if str(peers).startswith("the other") else f"the rest of {peers}"
        what = f"{', '.join(ratios)} times"
        parts.append(f"{what} as strong as in {whom}" if figure == "strength" else f"{figure} of {what} that of {whom}")
    return "; ".join(parts)


def _remarks(run: Run, batches: BatchPage) -> list[Notice]:
    """Remarks on counted slides, the same remark on several slides told once, the most frequent first."""
    counted = run.slides[slide_verdicts(run.slides) == "counted"]
    known = set(batches.odd["text"])
    told: dict[str, dict[str, str]] = {}
    for row in counted.sort_values("slide_id", kind="stable").to_dict("records"):
        reasons = "" if is_missing(row["quality_reasons"]) else str(row["quality_reasons"])
        for reason in filter(None, (part.strip() for part in reasons.split(";"))):
            if reason not in known:
                told.setdefault(_NUMBER.sub("…", reason), {}).setdefault(str(row["slide_id"]), reason)
    return [
        Notice("attention", _names(list(slides)), _example(pattern, slides), remedy_for(pattern))
        for pattern, slides in sorted(told.items(), key=lambda item: -len(item[1]))
    ]


def _example(pattern: str, slides: dict[str, str]) -> str:
    if len(slides) == 1:
        return next(iter(slides.values()))
    return f"on {plural(len(slides), 'slide')}: {pattern}"


def _names(names: list[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
