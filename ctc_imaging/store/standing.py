"""The calls in force: the machine's, with what readers said put in its place."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ctc_imaging.store.history import histories, in_order
from ctc_imaging.store.outline_marks import apply_marks
from ctc_imaging.store.record import CALL, Review
from ctc_imaging.store.signatures import is_exercise

if TYPE_CHECKING:
    import pandas as pd

OPEN, ADJUDICATION = "", "adjudication"
"""Names of readings: the open review, and the settling of disagreements with all calls in sight."""
UNSETTLED = "indeterminate"
"""What a cell is on which blinded readers disagree and nobody has settled it."""


class Standing(NamedTuple):
    """What readers make of a cell: the call in force, whose it is, who has read it, and whether they disagree."""

    call: str
    phenotype: str
    deciders: tuple[str, ...]
    readers: tuple[str, ...]
    disputed: bool


def words_of(reviews: Iterable[Review]) -> dict[int, list[Review]]:
    """Return, by cell of one slide, each reader's latest word in each reading, in the order of their times.

    Parameters
    ----------
    reviews : iterable of Review
        In the order they were added. What was undone, and exercises, are left out.
    """
    rows = list(reviews)
    latest: dict[tuple[str, str, int], Review] = {}
    for (reader, reading), history in histories(rows).items():
        if not is_exercise(reading):
            latest |= {(reader, reading, row.cell_id): row for row in history.standing if row.action == CALL}
    found: dict[int, list[Review]] = defaultdict(list)
    for row in in_order(latest.values(), rows):
        found[row.cell_id].append(row)
    return dict(found)


def settle(words: Sequence[Review]) -> Standing:
    """Settle one cell.

    The latest word said with all in sight, in the open review or in an adjudication, decides. Where there are only
    blinded words, the call of most readers does, each reader's latest word counting once; where no call has most,
    the cell is `UNSETTLED`. A cell is disputed while readers' calls differ and no adjudication came after them.

    Parameters
    ----------
    words : sequence of Review
        As of `words_of`, at least one.
    """
    if len(words) == 1:
        (word,) = words
        return Standing(word.call, word.phenotype, (word.reader,), (word.reader,), False)
    readers = tuple(sorted({row.reader for row in words}))
    latest = {row.reader: row for row in words if row.reading != ADJUDICATION}
    adjudicated = [row for row in words if row.reading == ADJUDICATION]
    since = adjudicated[-1].time if adjudicated else ""
    calls = {row.call for row in latest.values()}
    disputed = len(calls) > 1 and (not since or any(row.time > since for row in latest.values()))
    seeing = [row for row in words if row.reading in (OPEN, ADJUDICATION)]
    if seeing:
        word = seeing[-1]
        # An open review of a single reader after another's is an overruling, made with that other call in sight.
        overruled = not adjudicated and all(row.reading == OPEN for row in latest.values())
        return Standing(word.call, word.phenotype, (word.reader,), readers, disputed and not overruled)
    return _vote(list(latest.values()), readers, disputed)


def apply_reviews(cells: pd.DataFrame, reviews: Iterable[Review]) -> pd.DataFrame:
    """Put what readers said in the place of the machine's calls.

    Parameters
    ----------
    cells : DataFrame
        A slide's cells.parquet.
    reviews : iterable of Review
        Of that slide, in the order they were added; of two of the same time the later added one wins.

    Returns
    -------
    DataFrame
        A copy with final `call` and `phenotype`, and `machine_call`, `machine_phenotype`, `reviewed` (bool),
        `reader` (whose call it is, joined by semicolons, empty where not reviewed), `readers` (all who called it),
        `disputed` (bool). Cells that readers added stand at its end, the machine's call empty; cells merged into
        another are gone.
    """
    rows = list(reviews)
    standing = {cell_id: settle(words) for cell_id, words in words_of(rows).items()}
    cells = apply_marks(cells, rows)
    of_cell = [standing.get(int(cell_id)) for cell_id in cells["cell_id"]]
    called = list(zip(of_cell, cells["call"], cells["phenotype"], strict=True))
    final = [_final(said, call, phenotype) for said, call, phenotype in called]
    return cells.assign(
        call=_texts([call for call, _ in final], cells),
        phenotype=_texts([phenotype for _, phenotype in final], cells),
        machine_call=cells["call"],
        machine_phenotype=cells["phenotype"],
        reviewed=[said is not None for said in of_cell],
        reader=_texts([_names(said.deciders) if said else "" for said in of_cell], cells),
        readers=_texts([_names(said.readers) if said else "" for said in of_cell], cells),
        disputed=[said is not None and said.disputed for said in of_cell],
    )


def disputed_cells(reviews: Iterable[Review]) -> dict[int, list[Review]]:
    """Return the cells of one slide that wait for adjudication, with the words on each.

    Where two readers called it, these are all words but those of earlier adjudications.
    """
    words = words_of(reviews)
    return {
        cell_id: [row for row in said if row.reading != ADJUDICATION]
        for cell_id, said in words.items()
        if settle(said).disputed
    }


def _vote(words: Sequence[Review], readers: tuple[str, ...], disputed: bool) -> Standing:
    votes = Counter(row.call for row in words).most_common()
    if len(votes) > 1 and votes[0][1] == votes[1][1]:
        return Standing(UNSETTLED, "", readers, readers, disputed)
    winners = [row for row in words if row.call == votes[0][0]]
    phenotypes = {row.phenotype for row in winners if row.phenotype}
    phenotype = next(iter(phenotypes)) if len(phenotypes) == 1 else ("undetermined" if phenotypes else "")
    return Standing(votes[0][0], phenotype, tuple(sorted(row.reader for row in winners)), readers, disputed)


def _final(said: Standing | None, call: str, phenotype: str) -> tuple[str, str]:
    if said is None:
        return call, phenotype
    if said.call != "ctc":
        return said.call, ""
    return "ctc", said.phenotype or (phenotype if call == "ctc" else "undetermined")


def _names(readers: Iterable[str]) -> str:
    return ";".join(name.replace(";", ",") for name in readers)


def _texts(values: list[str], cells: pd.DataFrame) -> pd.Series:
    import pandas as pd

    return pd.Series(values, index=cells.index, dtype=object)
