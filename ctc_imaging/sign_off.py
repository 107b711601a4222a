"""Signing a sample: what must be done before, what is signed, and what has changed since."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctc_imaging.classification.classes import CALLS, CANDIDATES
from ctc_imaging.cohort import SlideEntry, load_cohort
from ctc_imaging.counting import counted_cells
from ctc_imaging.errors import RunError
from ctc_imaging.reviewed import reviewed_cells
from ctc_imaging.store.ledger import Ledger, utc_now
from ctc_imaging.store.record import SIGN, Review
from ctc_imaging.store.reviews import applying, current_reviews
from ctc_imaging.store.signatures import Signature, amendments, in_force, signatures_of
from ctc_imaging.store.standing import ADJUDICATION, OPEN, words_of

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.store.run_folder import RunFolder

SIGN_OFF_CSV = "sign_off.csv"
COLUMNS = (
    *("sample_id", "ctc_machine", "ctc", "candidates", "candidates_read", "added", "disputed", "overruled"),
    *("overruled_without_reason", "readers", "ready", "signed_by", "signed_on", "ctc_signed", "amendments"),
)
"""Of `SIGN_OFF_CSV`, one row a sample."""


@dataclass(frozen=True)
class SampleReview:
    """How far the reading of a sample has come.

    Attributes
    ----------
    sample_id : str
    ctc_machine, ctc : int
        CTCs by the model, and as they stand.
    candidates, candidates_read : int
        Cells that the model called CTC or doubted; how many of them a reader called.
    added : int
        Cells that the model's segmentation had missed.
    disputed : int
        Cells on which readers disagree and nobody has settled it.
    overruled, overruled_without_reason : int
        CTCs of the model that readers called otherwise.
    calls : dict of str to int
        Cells by the call in force.
    readers : tuple of str
    """

    sample_id: str
    ctc_machine: int
    ctc: int
    candidates: int
    candidates_read: int
    added: int
    disputed: int
    overruled: int
    overruled_without_reason: int
    calls: Mapping[str, int]
    readers: tuple[str, ...]

    @property
    def lacking(self) -> str:
        """What is still to be done before the sample can be signed; empty where nothing is."""
        open_points = (
            (self.candidates - self.candidates_read, "candidates are unread"),
            (self.disputed, "cells wait for adjudication"),
            (self.overruled_without_reason, "CTCs of the model were overruled without a reason"),
        )
        return ", ".join(f"{number} {what}" for number, what in open_points if number)


def review_of_sample(
    run: RunFolder, sample_id: str, slides: Sequence[SlideEntry], reviews: Mapping[str, Sequence[Review]]
) -> SampleReview:
    """Say how far the reading of a sample has come.

    Parameters
    ----------
    run : RunFolder
    sample_id : str
    slides : sequence of SlideEntry
        Those of the sample that are done, at least one.
    reviews : mapping of str to sequence of Review
        By slide.
    """
    import pandas as pd

    tables, bare = [], 0
    for entry in slides:
        rows = list(reviews.get(entry.slide_id, ()))
        cells = reviewed_cells(run, entry.slide_id, rows, run.panel(entry.panel))
        cells = cells[counted_cells(cells)]
        tables.append(cells)
        overruled = set(cells.loc[(cells["machine_call"] == "ctc") & (cells["call"] != "ctc"), "cell_id"])
        bare += sum(1 for cell_id, said in words_of(rows).items() if cell_id in overruled and _lacks_reason(said))
    cells = pd.concat(tables, ignore_index=True)
    candidate = cells["machine_call"].isin(CANDIDATES)
    names = {name for readers in cells["readers"] for name in readers.split(";") if name}
    return SampleReview(
        sample_id=sample_id,
        ctc_machine=int((cells["machine_call"] == "ctc").sum()),
        ctc=int((cells["call"] == "ctc").sum()),
        candidates=int(candidate.sum()),
        candidates_read=int((candidate & cells["reviewed"]).sum()),
        added=int((cells["machine_call"] == "").sum()),
        disputed=int(cells["disputed"].sum()),
        overruled=int(((cells["machine_call"] == "ctc") & (cells["call"] != "ctc")).sum()),
        overruled_without_reason=bare,
        calls={call: int((cells["call"] == call).sum()) for call in CALLS},
        readers=tuple(sorted(names)),
    )


def sign_sample(run: RunFolder, sample_id: str, reader: str) -> Signature:
    """Sign a sample as it stands; from then on its calls change by amendments only.

    Parameters
    ----------
    run : RunFolder
    sample_id : str
    reader : str
        Who signs.

    Returns
    -------
    Signature

    Raises
    ------
    RunError
        If there is no such sample with results, the reader has no name, or something is still to be done: candidates
        nobody read, disagreements, CTCs of the model overruled without a reason.
    """
    reader = reader.strip()
    if not reader:
        raise RunError("reader", "the reader has no name", "say who signs")
    facts = run.read()
    with Ledger(run.ledger) as ledger:
        hashes = {name: state.sha256 for name, state in ledger.slides().items() if state.state == "done"}
        slides = [entry for entry in _current(run) if entry.sample_id == sample_id and entry.slide_id in hashes]
        if not slides:
            raise RunError(f"sample {sample_id}", "there is no such sample with results", "look into counts.csv")

        def choose(rows: Sequence[Review]) -> list[Review]:
            by_slide = applying(rows, facts["hash"], hashes)
            state = review_of_sample(run, sample_id, slides, by_slide)
            if state.lacking:
                raise RunError(f"sample {sample_id}", state.lacking, "finish the review, then sign")
            signed = {entry.slide_id: hashes[entry.slide_id] for entry in slides}
            return [_signature_row(state, signed, reader, facts)]

        ledger.merge_reviews(choose)
        return signatures_of(ledger.sealed_rows(), facts["hash"])[-1]


def current_signatures(run: RunFolder) -> dict[str, Signature]:
    """Return the signature in force of each sample whose slides are as they were when it was signed."""
    run_hash = run.read()["hash"]
    with Ledger(run.ledger) as ledger:
        hashes = {name: state.sha256 for name, state in ledger.slides().items() if state.state == "done"}
        found = in_force(signatures_of(ledger.sealed_rows(), run_hash))
    return {
        sample_id: signature
        for sample_id, signature in found.items()
        if all(hashes.get(slide_id) == sha256 for slide_id, sha256 in signature.slides.items())
    }


def signers_of_slides(slides: pd.DataFrame, signatures: Mapping[str, Signature]) -> list[str]:
    """Return who signed each slide of slides.csv, empty where nobody did."""
    signers = {slide_id: signed.reader for signed in signatures.values() for slide_id in signed.slides}
    return [signers.get(slide_id, "") for slide_id in slides["slide_id"]]


def signers_of_samples(counts: pd.DataFrame, slides: pd.DataFrame) -> list[str]:
    """Return who signed each sample of counts.csv; a sample with a slide that wasn't signed isn't signed."""
    current = slides[~slides["slide_id"].isin(slides["rescan_of"]) & (slides["state"] == "done")]
    signed = current.groupby("sample_id")["signed_by"].agg(lambda names: names.iloc[0] if names.ne("").all() else "")
    return [signed.get(sample_id, "") for sample_id in counts["sample_id"]]


def sign_off_table(run: RunFolder, counts: pd.DataFrame, slides: pd.DataFrame) -> pd.DataFrame:
    """Say of every sample with results how far its reading has come, who signed it, and what was amended since.

    Parameters
    ----------
    run : RunFolder
    counts, slides : DataFrame
        Of counts.csv and slides.csv, with `signed_by`.

    Returns
    -------
    DataFrame
        With `COLUMNS`.
    """
    import pandas as pd

    with Ledger(run.ledger) as ledger:
        reviews, rows = current_reviews(run, ledger), ledger.sealed_rows()
    signatures = current_signatures(run)
    done = set(slides.loc[slides["state"] == "done", "slide_id"])
    by_sample: dict[str, list[SlideEntry]] = {}
    for entry in _current(run):
        if entry.slide_id in done:
            by_sample.setdefault(entry.sample_id, []).append(entry)
    table = []
    for sample_id, signer in zip(counts["sample_id"], counts["signed_by"], strict=True):
        if sample_id in by_sample:
            state = review_of_sample(run, sample_id, by_sample[sample_id], reviews)
            signature = signatures.get(sample_id) if signer else None
            table.append(_table_row(state, signature, len(amendments(rows, signature)) if signature else 0))
    return pd.DataFrame(table, columns=list(COLUMNS))


def status_lines(table: pd.DataFrame) -> list[str]:
    """Say in a line a sample how far its review has come, those to be signed first."""
    ordered = table.assign(signed=table["signed_by"] != "").sort_values(["signed", "sample_id"], kind="stable")
    return [_status(row) for row in ordered.to_dict("records")] or ["no sample has results"]


def _status(row: Mapping[Any, Any]) -> str:
    start = f"{row['sample_id']}: {row['ctc']} CTCs ({row['ctc_machine']} by the model)"
    if row["signed_by"]:
        since = f", {row['amendments']} amendments since" if row["amendments"] else ""
        return f"{start}, signed by {row['signed_by']} on {row['signed_on'][:10]}{since}"
    read = f"{row['candidates_read']} of {row['candidates']} candidates read"
    points = ((row["disputed"], "disputed"), (row["overruled_without_reason"], "overruled without a reason"))
    more = "".join(f", {number} {what}" for number, what in points if number)
    return f"{start}, {read}{more}, {'to be signed' if row['ready'] else 'not ready to be signed'}"


def _table_row(state: SampleReview, signature: Signature | None, amended: int) -> dict[str, Any]:
    return {
        **{name: getattr(state, name) for name in COLUMNS[:9]},
        "readers": ";".join(state.readers),
        "ready": not state.lacking,
        "signed_by": signature.reader if signature else "",
        "signed_on": signature.time if signature else "",
        "ctc_signed": signature.counts.get("ctc", "") if signature else "",
        "amendments": amended,
    }


def _signature_row(state: SampleReview, slides: Mapping[str, str], reader: str, facts: Mapping[str, Any]) -> Review:
    counts = {**state.calls, "reviewed": state.candidates_read, "ctc_machine": state.ctc_machine}
    detail = {"sample_id": state.sample_id, "slides": dict(slides), "counts": counts}
    return Review(
        *("", 0, "", "", reader, utc_now(), "", "", facts["model"]["hash"], facts["hash"], ""),
        action=SIGN,
        detail=json.dumps(detail, sort_keys=True),
    )


def _current(run: RunFolder) -> list[SlideEntry]:
    """The run's slides without those that a rescan replaces."""
    entries = load_cohort(run.table("cohort"))
    replaced = {entry.rescan_of for entry in entries if entry.rescan_of}
    return [entry for entry in entries if entry.slide_id not in replaced]


def _lacks_reason(said: Sequence[Review]) -> bool:
    """Whether nobody who saw that the model had called a CTC said why it is none; a blinded reader can't."""
    seeing = [row for row in said if row.reading in (OPEN, ADJUDICATION) and row.call != "ctc"]
    return bool(seeing) and not any(row.reason for row in seeing)
