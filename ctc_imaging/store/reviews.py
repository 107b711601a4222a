"""Reviews as tables: imported all or none, added to the ledger."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctc_imaging.errors import TableError
from ctc_imaging.files import write_csv, write_parquet
from ctc_imaging.store.ledger import Ledger, utc_now, utc_text
from ctc_imaging.store.record import ADD, CALL, MERGE, OUTLINE, SIGN, Cell, Review
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.store.signatures import as_amendment, signatures_of
from ctc_imaging.tables import Row, nearest, read_table

if TYPE_CHECKING:
    pass

CALLS = ("ctc", "leukocyte", "artefact", "indeterminate")
PHENOTYPES = ("epithelial", "hybrid", "mesenchymal", "undetermined")
_ACTIONS = (CALL, ADD, MERGE, OUTLINE)
_SYNONYMS = {"unsure": "indeterminate", "artifact": "artefact"}
_REQUIRED = ("slide_id", "cell_id", "call", "reader")
_OPTIONAL = (
    *("phenotype", "time", "reason", "earlier_call", "model_hash", "run_hash", "slide_sha256"),
    *("reading", "action", "detail"),
)
# Clocks of laboratories and time zones left out make a review seem made later than now.
_CLOCK_TOLERANCE = timedelta(days=1)


@dataclass(frozen=True)
class ReviewImport:
    """What an import came to: reviews `added`, those `known` before, and what to note about them."""

    added: int
    known: int
    notes: tuple[str, ...]


def import_reviews(run: RunFolder, file: Path) -> ReviewImport:
    """Append the reviews of a table to the ledger, all of them or, if one is wrong, none.

    Parameters
    ----------
    run : RunFolder
    file : Path
        CSV or Parquet with `slide_id`, `cell_id`, `call`, `reader`, and optionally `phenotype` (of a ctc),
        `time` (ISO 8601, UTC where no zone is given; now where missing) and `reason`.

    Returns
    -------
    ReviewImport
        A file imported a second time adds nothing.

    Raises
    ------
    TableError
        At the first row that is wrong.
    RunError
        If the folder is no run.
    """
    facts = run.read()
    rows = _read(Path(file))
    with Ledger(run.ledger) as ledger:
        hashes = {slide_id: state.sha256 for slide_id, state in ledger.slides().items() if state.state == "done"}
        context = {"model_hash": facts["model"]["hash"], "run_hash": facts["hash"]}
        given = [_check(row, hashes, context) for row in rows]
        signatures = signatures_of(ledger.sealed_rows(), facts["hash"])
        machine = _machine_calls(run, rows, given, ledger.reviews())
        _check_once(rows, given)
        fresh: list[Review] = []

        def choose(existing: Sequence[Review]) -> list[Review]:
            ours = [review for review in existing if _applies(review, facts["hash"], hashes)]
            fresh.extend(as_amendment(review, signatures) for review in _fresh(given, ours, machine))
            return fresh

        ledger.merge_reviews(choose)
        ledger.record("ctc-imaging review import", "reviews imported", f"{len(fresh)} new of {len(given)}")
    return ReviewImport(len(fresh), len(given) - len(fresh), tuple(_notes(fresh, machine)))


def export_reviews(run: RunFolder, file: Path) -> int:
    """Write the reviews that apply to the run's cells to a CSV or Parquet table.

    Returns
    -------
    int
        How many there are.

    Raises
    ------
    TableError
        If the suffix is neither .csv nor .parquet.
    RunError
        If the folder is no run.
    """
    import pandas as pd

    file = Path(file)
    writers = {".csv": write_csv, ".parquet": write_parquet}
    if file.suffix.lower() not in writers:
        raise TableError(file, "not a table's suffix", "name it .csv or .parquet")
    with Ledger(run.ledger) as ledger:
        reviews = [review for of_slide in current_reviews(run, ledger).values() for review in of_slide]
    table = pd.DataFrame([asdict(review) for review in reviews], columns=list(Review.__dataclass_fields__))
    writers[file.suffix.lower()](file, table)
    return len(reviews)


def current_reviews(run: RunFolder, ledger: Ledger) -> dict[str, list[Review]]:
    """Return, by slide, the reviews of the cells as they are now: made on this run and this scan."""
    hashes = {slide_id: state.sha256 for slide_id, state in ledger.slides().items() if state.state == "done"}
    return applying(ledger.reviews(), run.read()["hash"], hashes)


def applying(rows: Iterable[Review], run_hash: str, hashes: Mapping[str, str]) -> dict[str, list[Review]]:
    """Return, by slide, the rows that were made on a run and on scans of these hashes, and are no signatures."""
    found: dict[str, list[Review]] = defaultdict(list)
    for review in rows:
        if review.action != SIGN and _applies(review, run_hash, hashes):
            found[review.slide_id].append(review)
    return dict(found)


def _applies(review: Review, run_hash: str, hashes: Mapping[str, str]) -> bool:
    return review.run_hash == run_hash and hashes.get(review.slide_id) == review.slide_sha256


def _read(file: Path) -> list[Row]:
    if file.suffix.lower() == ".parquet":
        return _read_parquet(file)
    return list(read_table(file, _REQUIRED, _OPTIONAL).rows)


def _read_parquet(file: Path) -> list[Row]:
    import pandas as pd
    import pyarrow

    try:
        table = pd.read_parquet(file)
    except FileNotFoundError as error:
        raise TableError(file, "no such file", "check the path") from error
    except (OSError, pyarrow.ArrowException) as error:
        raise TableError(file, "not a Parquet table", "export it again") from error
    unknown = [name for name in table.columns if name not in (*_REQUIRED, *_OPTIONAL)]
    missing = [name for name in _REQUIRED if name not in table.columns]
    if unknown or missing:
        fault = f"the column {unknown[0]} isn't known" if unknown else f"the column {missing[0]} is missing"
        raise TableError(file, fault, f"use the columns {', '.join((*_REQUIRED, *_OPTIONAL))}")
    texts = table.astype(object).where(table.notna(), "").astype(str).to_dict("records")
    return [
        Row(file, line, {str(name): text.strip() for name, text in row.items()}) for line, row in enumerate(texts, 2)
    ]


def _check(row: Row, hashes: Mapping[str, str], context: Mapping[str, str]) -> Review:
    """Make a review of a row that is right in itself; its time stays empty where the row has none."""
    slide_id = row.required("slide_id")
    if slide_id not in hashes:
        guess = nearest(slide_id, hashes)
        remedy = f"did you mean {guess}?" if guess else "only slides that are done can be reviewed"
        raise row.error("slide_id", f"{slide_id!r} isn't a slide with results in this run", remedy)
    row.required("cell_id")
    call = _SYNONYMS.get(row.required("call"), row.required("call"))
    if call not in CALLS:
        raise row.error("call", f"{call!r} isn't known", f"use one of {', '.join(CALLS)}")
    phenotype = row.choice("phenotype", PHENOTYPES) or ""
    if phenotype and call != "ctc":
        raise row.error("phenotype", f"a cell called {call} has no phenotype", "leave it empty")
    review = Review(
        slide_id=slide_id,
        cell_id=row.count("cell_id") or 0,
        call=call,
        phenotype=phenotype,
        reader=row.required("reader"),
        time=_time(row),
        reason=row.text("reason") or "",
        earlier_call="",
        reading=row.text("reading") or "",
        action=row.choice("action", _ACTIONS) or CALL,
        detail=_detail(row),
        slide_sha256=hashes[slide_id],
        **context,
    )
    for name in ("run_hash", "slide_sha256"):
        if row.text(name) not in (None, getattr(review, name)):
            raise row.error(name, "the review was made on another run or scan", "its cells may be others: review anew")
    return review


def _detail(row: Row) -> str:
    text = row.text("detail") or ""
    try:
        if text and not isinstance(json.loads(text), dict):
            raise ValueError
    except ValueError as error:
        raise row.error("detail", f"{text!r} is no JSON object", "export the table anew") from error
    return text


def _time(row: Row) -> str:
    text = row.text("time")
    if text is None:
        return ""
    try:
        time = utc_text(datetime.fromisoformat(text))
    except ValueError as error:
        raise row.error("time", f"{text!r} isn't a time", "write it like 2024-03-05T14:30:00+01:00") from error
    if time > utc_text(datetime.now(UTC) + _CLOCK_TOLERANCE):
        raise row.error("time", f"{text!r} lies in the future", "correct it")
    return time


def _machine_calls(
    run: RunFolder, rows: Sequence[Row], given: Sequence[Review], existing: Sequence[Review]
) -> dict[Cell, str]:
    """Read the machine's calls of the slides concerned, and check that every cell exists, or was added by a reader."""
    import pandas as pd

    calls: dict[Cell, str] = {}
    for slide_id in dict.fromkeys(review.slide_id for review in given):
        cells = pd.read_parquet(run.slide(slide_id) / "cells.parquet", columns=["cell_id", "call"])
        calls |= {(slide_id, int(cell)): str(call) for cell, call in zip(cells["cell_id"], cells["call"], strict=True)}
    calls |= {review.cell: "" for review in (*existing, *given) if review.action == ADD}
    for row, review in zip(rows, given, strict=True):
        if review.cell not in calls:
            raise row.error("cell_id", f"slide {review.slide_id} has no cell {review.cell_id}", "check the ids")
    return calls


def _check_once(rows: Sequence[Row], given: Sequence[Review]) -> None:
    """Without times nobody could tell which of two calls is the later one."""
    seen: set[tuple[Cell, str, str, str]] = set()
    for row, review in zip(rows, given, strict=True):
        key = (review.cell, review.reader, review.reading, review.action)
        if not review.time and key in seen:
            raise row.error("time", "this reader calls this cell twice and no time says in which order", "add times")
        seen |= {key} if not review.time else set()


def _fresh(given: Sequence[Review], existing: Sequence[Review], machine: Mapping[Cell, str]) -> Iterator[Review]:
    """Yield the reviews that say something new, in the order of their times, with the call each one overrules."""
    now = utc_now()
    history: dict[Cell, list[Review]] = defaultdict(list)
    for review in existing:
        history[review.cell].append(review)
    for review in sorted(given, key=lambda review: review.time or now):
        earlier = history[review.cell]
        if _is_known(review, earlier):
            continue
        dated = replace(review, time=review.time or now)
        before = [other for other in earlier if other.time <= dated.time]
        # max returns the first of equals, and of two reviews of one time the later added one counts.
        in_force = max(reversed(before), key=lambda other: other.time).call if before else machine[review.cell]
        dated = replace(dated, earlier_call=in_force)
        earlier.append(dated)
        yield dated


def _is_known(review: Review, earlier: Sequence[Review]) -> bool:
    """Say whether the ledger has it: at its time, or, if it has none, as that reader's latest word."""
    same_reader = [other for other in earlier if (other.reader, other.reading) == (review.reader, review.reading)]
    if review.time:
        return any(_said(other) == _said(review) for other in same_reader if other.time == review.time)
    latest = max(reversed(same_reader), key=lambda other: other.time, default=None)
    return latest is not None and _said(latest) == _said(review)


def _said(review: Review) -> tuple[Any, ...]:
    return review.call, review.phenotype, review.reason, review.reading, review.action


def _notes(fresh: Sequence[Review], machine: Mapping[Cell, str]) -> Iterator[str]:
    bare = [review for review in fresh if machine[review.cell] == "ctc" != review.call and not review.reason]
    if bare:
        where = f"first cell {bare[0].cell_id} of {bare[0].slide_id}"
        yield f"{len(bare)} CTC(s) of the model overruled without a reason, {where}"
