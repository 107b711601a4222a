"""Signatures: a signed sample is locked, and what is said of it afterwards is an amendment that names the signature."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ctc_imaging.errors import SignedError
from ctc_imaging.store.record import SIGN, Review, SealedRow

AMENDS = "amends"
TEST = "test"
"""Readings whose name begins with this word are exercises: they count for nothing."""


@dataclass(frozen=True)
class Signature:
    """A sample's signature.

    Attributes
    ----------
    number : int
        Of its row in the record.
    sample_id, reader, time : str
    slides : dict of str to str
        SHA-256 of the scans that were signed, by slide.
    counts : dict of str to int
        What was signed: `ctc` and the other calls, `reviewed`.
    run_hash : str
    """

    number: int
    sample_id: str
    reader: str
    time: str
    slides: Mapping[str, str]
    counts: Mapping[str, int]
    run_hash: str


def is_exercise(reading: str) -> bool:
    """Say whether a reading counts for nothing."""
    return re.match(rf"{TEST}\b", reading) is not None


def signatures_of(rows: Iterable[SealedRow], run_hash: str | None = None) -> list[Signature]:
    """Return the signatures among the rows in their order, all or those of one run."""
    return [_signature(row) for row in rows if row.review.action == SIGN and run_hash in (None, row.review.run_hash)]


def in_force(signatures: Iterable[Signature]) -> dict[str, Signature]:
    """Return each sample's latest signature."""
    return {signature.sample_id: signature for signature in signatures}


def amendments(rows: Iterable[SealedRow], signature: Signature) -> list[SealedRow]:
    """Return the rows that amend a signed sample since."""
    return [row for row in rows if row.review.details.get(AMENDS) == signature.number]


def locking(review: Review, signatures: Sequence[Signature]) -> Signature | None:
    """Return the signature that locks the cell of a row, or None."""
    for signature in reversed(signatures):
        if signature.run_hash == review.run_hash and signature.slides.get(review.slide_id) == review.slide_sha256:
            return signature
    return None


def as_amendment(review: Review, signatures: Sequence[Signature]) -> Review:
    """Let a row about a signed sample say which signature it amends; any other row stays as it is."""
    signature = None if is_exercise(review.reading) else locking(review, signatures)
    if signature is None:
        return review
    return replace(review, detail=json.dumps({**review.details, AMENDS: signature.number}, sort_keys=True))


def refuse_unmarked(review: Review, known: Sequence[SealedRow]) -> None:
    """Refuse a row about a signed sample that doesn't say that it amends it, and why.

    Raises
    ------
    SignedError
        Naming the sample and who signed it.
    """
    if review.action == SIGN or is_exercise(review.reading):
        return
    signature = locking(review, signatures_of(known))
    if signature is None:
        return
    if review.details.get(AMENDS) != signature.number or not review.reason:
        fault = f"the sample was signed by {signature.reader} on {signature.time[:10]}"
        raise SignedError(f"sample {signature.sample_id}", fault, "give a reason, and it is recorded as an amendment")


def _signature(row: SealedRow) -> Signature:
    said = row.review.details
    return Signature(
        row.number,
        str(said["sample_id"]),
        row.review.reader,
        row.review.time,
        dict(said["slides"]),  # type: ignore[call-overload]
        dict(said["counts"]),  # type: ignore[call-overload]
        row.review.run_hash,
    )
