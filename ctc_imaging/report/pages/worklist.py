"""The technician's page: whether the night went well, what to do next, every slide, and who waits for a signature."""

from __future__ import annotations

from typing import Any

from ctc_imaging.report.pages.signing import Signing, waiting
from ctc_imaging.report.sections import Tile, slide_verdicts
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import MISSING, is_missing, number, percent, plural, whole

_ROWS_OPEN = 40  # longer tables are folded


def batch_parts(run: Run, parts: dict[str, Any], signing: dict[str, Signing]) -> dict[str, Any]:
    """Gather what batch.html shows beside the report's own parts.

    Parameters
    ----------
    run : Run
    parts : dict
        As of `page.context`.
    signing : dict of str to Signing

    Returns
    -------
    dict
    """
    unsigned = waiting(run, signing)
    rows = [_waiting_row(row) for row in unsigned.to_dict("records")]
    ready = sum(row["ready"] for row in rows)
    signed = sum(one.state == "signed" for one in signing.values())
    return {
        "steps": next_steps(parts, len(unsigned), ready),
        "sign_tile": Tile(
            f"{len(unsigned)}", "samples wait for a signature", f"{ready} can be signed now, {signed} are signed",
            "attention" if len(unsigned) else "plain",
        ),
        "ready": [row for row in rows if row["ready"]],
        "begun": [row for row in rows if row["begun"] and not row["ready"]],
        "untouched": [row for row in rows if not row["ready"] and not row["begun"]],
        "recount": any(row["read"] == MISSING for row in rows),
        "every_slide": _every_slide(run),
        "rows_open": _ROWS_OPEN,
    }  # fmt: skip


def next_steps(parts: dict[str, Any], unsigned: int, ready: int) -> list[tuple[str, str]]:
    """Say what to do now, the most urgent first.

    Returns
    -------
    list of (str, str)
        Sentence, and the part of the page that has more of it.
    """
    failed = [one for one in parts["faults"] if one.verdict == "failed"]
    poor = len(parts["faults"]) - len(failed)
    urgent = sum(one.tone == "bad" for one in parts["notices"])
    steps = [
        (len(failed), f"See to {plural(len(failed), 'slide')} that failed: the table below says what helps.", "todo"),
        (poor, f"Scan or stain anew {plural(poor, 'slide')} that couldn't be assessed.", "todo"),
        (urgent, f"Act on {plural(urgent, 'warning')} of controls or batches before results go out.", "todo"),
        (len(parts["notices"]) - urgent, f"Look at {plural(len(parts['notices']) - urgent, 'remark')}.", "todo"),
        (
            ready,
            f"Have {plural(ready, 'sample')} signed: everything in {'it' if ready == 1 else 'them'} was read.",
            "sign",
        ),
        (
            unsigned - ready,
            f"Have {plural(unsigned - ready, 'sample')} read: ctc-imaging review RUN --reader NAME.",
            "sign",
        ),
    ]
    return [(words, anchor) for count, words, anchor in steps if count] or [("Nothing is left to do.", "slides")]


def _waiting_row(row: dict[Any, Any]) -> dict[str, Any]:
    return {
        "sample": str(row["sample_id"]),
        "patient": "" if is_missing(row["patient_id"]) else str(row["patient_id"]),
        "date": str(row["sample_date"])[:10],
        "ctc": whole(row["ctc"]),
        "read": row["signing"].read,
        "ready": row["signing"].state == "ready",
        "begun": row["signing"].begun,
        "sentence": row["signing"].sentence,
    }


def _every_slide(run: Run) -> list[dict[str, Any]]:
    """A row a slide, without pictures: those without a result first."""
    batches = dict(zip(run.batches["slide_id"], run.batches["batch_name"], strict=True)) if run.cohort else {}
    slides = run.slides.assign(verdict=slide_verdicts(run.slides))
    order = slides["verdict"].map({"failed": 0, "not assessable": 1, "counted": 3}).fillna(2)
    rows = slides.assign(order=order).sort_values(["order", "slide_id"], kind="stable")
    return [
        {
            "slide": str(row["slide_id"]),
            "sample": MISSING if is_missing(row["sample_id"]) else str(row["sample_id"]),
            "batch": str(batches.get(row["slide_id"], MISSING)).removeprefix("batch ") or MISSING,
            "verdict": row["verdict"],
            "tone": {"failed": "failed", "not assessable": "poor", "counted": "counted"}.get(row["verdict"], "other"),
            "assessed": percent(row["assessed_fraction"]) if row["state"] == "done" else MISSING,
            "cells": whole(row["cells"]) if row["state"] == "done" else MISSING,
            "ctc": whole(row["ctc"]) if row["assessable"] else MISSING,
            "volume": number(row["assessed_volume_ml"]) if row["state"] == "done" else MISSING,
        }
        for row in rows.to_dict("records")
    ]
