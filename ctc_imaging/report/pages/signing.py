"""How far reading and signing of each sample have come, from sign_off.csv and the record of reviews."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ctc_imaging.report.source import Run
from ctc_imaging.report.words import MISSING, is_missing, label, plural
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.signatures import amendments, in_force, signatures_of


@dataclass(frozen=True)
class Signing:
    """Of one sample; `state` is signed, ready or reading."""

    sample: str
    state: str
    sentence: str
    begun: bool = False
    read: str = MISSING
    readers: str = ""
    machine: str = MISSING
    added: int = 0
    disputed: int = 0
    overruled: int = 0
    signed_by: str = ""
    signed_on: str = ""
    signed_ctc: str = ""
    amended: tuple[dict[str, str], ...] = ()


def signing_of(run: Run) -> dict[str, Signing]:
    """Tell of every sample with a result how far its reading has come.

    Parameters
    ----------
    run : Run
        Without sign_off.csv (a run of an older version) only the counts' own `signed_by` is known.

    Returns
    -------
    dict of str to Signing
        By sample; samples without a result have nothing to sign and aren't there.
    """
    rows = {str(row["sample_id"]): row for row in run.sign_off.to_dict("records")}
    amended = _amendments(run) if run.sign_off["signed_by"].notna().any() else {}
    counted = run.counts[run.counts["assessable"].astype(bool)]
    return {
        str(row["sample_id"]): _signing(row, rows.get(str(row["sample_id"])), amended)
        for row in counted.to_dict("records")
    }


def _signing(
    counts: dict[Any, Any], row: dict[Any, Any] | None, amended: dict[str, tuple[dict[str, str], ...]]
) -> Signing:
    sample = str(counts["sample_id"])
    if row is None:
        return _from_counts(sample, counts)
    signed = not is_missing(row["signed_by"])
    lacking = lacking_of(row)
    since = amended.get(sample, ()) if signed else ()
    state = "signed" if signed else "ready" if str(row["ready"]).lower() == "true" else "reading"
    sentence = {
        "signed": f"signed by {row['signed_by']} on {str(row['signed_on'])[:10]}",
        "ready": "read to the end: it can be signed",
        "reading": lacking or "not ready to be signed",
    }[state]
    if signed and row["amendments"]:
        sentence += f", {plural(int(row['amendments']), 'amendment')} since"
    return Signing(
        sample=sample,
        state=state,
        sentence=sentence,
        begun=int(row["candidates_read"]) > 0,
        read=f"{int(row['candidates_read'])} of {int(row['candidates'])}",
        readers="" if is_missing(row["readers"]) else str(row["readers"]).replace(";", ", "),
        machine=f"{int(row['ctc_machine'])}",
        added=int(row["added"]),
        disputed=int(row["disputed"]),
        overruled=int(row["overruled"]),
        signed_by=str(row["signed_by"]) if signed else "",
        signed_on=str(row["signed_on"])[:16].replace("T", " ") if signed else "",
        signed_ctc=f"{int(row['ctc_signed'])}" if signed and not is_missing(row["ctc_signed"]) else "",
        amended=since,
    )


def _from_counts(sample: str, counts: dict[Any, Any]) -> Signing:
    if is_missing(counts["signed_by"]):
        return Signing(sample, "reading", "how much was read isn't known: ctc-imaging counts RUN works it out")
    name = str(counts["signed_by"])
    return Signing(sample, "signed", f"signed by {name}", signed_by=name)


def lacking_of(row: dict[Any, Any]) -> str:
    """Say what must be done before a sample can be signed; empty where nothing is."""
    unread = int(row["candidates"]) - int(row["candidates_read"])
    points = (
        (unread, f"{plural(unread, 'candidate')} to be read"),
        (int(row["disputed"]), f"{plural(int(row['disputed']), 'disagreement')} to be settled"),
        (int(row["overruled_without_reason"]), f"{int(row['overruled_without_reason'])} overruled without a reason"),
    )
    return ", ".join(words for count, words in points if count)


def _amendments(run: Run) -> dict[str, tuple[dict[str, str], ...]]:
    """What was changed in signed samples since, by sample."""
    if not run.folder.ledger.is_file():
        return {}
    with Ledger(run.folder.ledger) as ledger:
        rows = ledger.sealed_rows()
    signatures = in_force(signatures_of(rows, run.facts["hash"]))
    return {
        sample: tuple(
            {
                "time": row.review.time[:16].replace("T", " "),
                "reader": row.review.reader,
                "cell": f"{row.review.slide_id}, cell {row.review.cell_id}",
                "change": f"{label(row.review.earlier_call)} → {label(row.review.call)}",
                "reason": row.review.reason or MISSING,
            }
            for row in amendments(rows, signature)
        )
        for sample, signature in signatures.items()
    }


def waiting(run: Run, signing: dict[str, Signing]) -> pd.DataFrame:
    """List the patients' samples that wait for a signature: those that can be signed now come first."""
    rows = [
        {**row, "signing": signing[str(row["sample_id"])]}
        for row in run.patients.to_dict("records")
        if str(row["sample_id"]) in signing and signing[str(row["sample_id"])].state != "signed"
    ]
    table = pd.DataFrame(rows, columns=[*run.counts.columns, "signing"])
    order = table["signing"].map(lambda one: one.state != "ready")
    return table.assign(order=order).sort_values(["order", "sample_date", "sample_id"], kind="stable")
