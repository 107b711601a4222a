"""What readers said of cells, as labels: every reader's latest word counts, and disagreement is kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ctc_imaging.classification.classes import CALLS, CLASSES, INDETERMINATE
from ctc_imaging.store.record import Review

VOTE_COLUMNS = ["cell_id", *CALLS, "readers", "target", "agreement", "disputed", "phenotype"]


def votes_of(reviews: Iterable[Review]) -> pd.DataFrame:
    """Count the votes on each cell of one slide.

    Parameters
    ----------
    reviews : iterable of Review
        In the order they were added. Of one reader's reviews of a cell the latest counts; of two of the same
        time, the later added one.

    Returns
    -------
    DataFrame
        `VOTE_COLUMNS`, a row a cell in the order of ids: votes by call; `readers`, joined by semicolons; `target`, the
        class with the most votes (of equals the first of `CLASSES`, so that no possible CTC is lost), empty where
        nobody named a class; `agreement`, the share of readers for it; `disputed`, whether no class has more
        votes than any other; `phenotype`, of a CTC, where all readers who gave one agree.
    """
    latest: dict[tuple[int, str], Review] = {}
    for review in sorted(reviews, key=lambda review: review.time):
        latest[review.cell_id, review.reader] = review
    by_cell: dict[int, list[Review]] = {}
    for (cell_id, _), review in sorted(latest.items()):
        by_cell.setdefault(cell_id, []).append(review)
    return pd.DataFrame([_row(cell_id, said) for cell_id, said in by_cell.items()], columns=VOTE_COLUMNS)


def soft_labels(table: pd.DataFrame) -> np.ndarray:
    """Share of the readers for each class; who couldn't decide is shared out evenly.

    Parameters
    ----------
    table : DataFrame
        With a column of votes for each of `CALLS`.

    Returns
    -------
    ndarray of float32, shape (n, 3)
        Rows sum to 1.
    """
    votes = table[list(CLASSES)].to_numpy(float) + table[[INDETERMINATE]].to_numpy(float) / len(CLASSES)
    return (votes / votes.sum(axis=1, keepdims=True)).astype(np.float32)


def _row(cell_id: int, said: list[Review]) -> dict[str, object]:
    votes = {call: sum(review.call == call for review in said) for call in CALLS}
    most = max(votes[name] for name in CLASSES)
    winners = [name for name in CLASSES if votes[name] == most > 0]
    phenotypes = {review.phenotype for review in said if review.phenotype}
    return {
        "cell_id": cell_id,
        **votes,
        "readers": ";".join(sorted({review.reader.replace(";", ",") for review in said})),
        "target": winners[0] if winners else "",
        "agreement": most / len(said),
        "disputed": len(winners) != 1,
        "phenotype": next(iter(phenotypes)) if len(phenotypes) == 1 and winners[:1] == ["ctc"] else "",
    }
