"""The cells of a review, with what the model says of them, and the order in which they are read; no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ctc_imaging.classification.classes import CANDIDATES, CLASSES
from ctc_imaging.classification.next_cells import is_feature, learning_order, log_odds
from ctc_imaging.store.history import Call
from ctc_imaging.store.record import Cell as CellKey
from ctc_imaging.store.run_folder import RunFolder

DOUBT, LEARNING = "doubt", "learning"
"""Orders of reading: for the count, and for labels to train with."""

_COLUMNS = [
    *("cell_id", "y_um", "x_um", "call", "phenotype", "p_ctc", "p_leukocyte", "p_artefact"),
    *("diameter_um", "cluster_kind"),
]
# Cells of the order for learning that are read before the next slide's turn comes again: whoever stops after a round
# has read those that teach most, and turns to each slide once.
_ROUND = 100


class Cell(NamedTuple):
    """A cell of the queue with what the model says of it."""

    slide_id: str
    cell_id: int
    y_um: float
    x_um: float
    call: str
    phenotype: str
    p_ctc: float
    p_leukocyte: float
    p_artefact: float

    @property
    def key(self) -> CellKey:
        """Slide and cell."""
        return self.slide_id, self.cell_id

    @property
    def is_added(self) -> bool:
        """Whether a reader added it, so that the model says nothing of it."""
        return self.call == ""

    @property
    def machine(self) -> Call:
        """The model's call."""
        return Call(self.call, self.phenotype)

    @property
    def probabilities(self) -> dict[str, float]:
        """The model's probability of each class."""
        return dict(zip(CLASSES, (self.p_ctc, self.p_leukocyte, self.p_artefact), strict=True))


def order_cells(cells: pd.DataFrame, slides: Sequence[str], order: str = DOUBT) -> pd.DataFrame:
    """Put cells in the order of reading.

    Parameters
    ----------
    cells : DataFrame
        With `slide_id`, `cell_id`, `call` and `p_ctc`; for learning with all probabilities and features.
    slides : sequence of str
        The slides in their order.
    order : {"doubt", "learning"}

    Returns
    -------
    DataFrame
    """
    slides = list(slides)
    rest = ~cells["call"].isin(CANDIDATES).to_numpy()
    rank = doubt(cells) if order == DOUBT else _learning_rank(cells, rest)
    turn = rank // _ROUND if order == LEARNING else np.zeros(len(cells))
    place = cells["slide_id"].map({slide_id: place for place, slide_id in enumerate(slides)})
    keys = pd.DataFrame({"rest": rest, "turn": turn, "slide": place, "rank": rank, "cell_id": cells["cell_id"]})
    return cells.loc[keys.sort_values(list(keys.columns), kind="stable").index].reset_index(drop=True)


def shuffle_cells(cells: pd.DataFrame, slides: Sequence[str], seed: int) -> pd.DataFrame:
    """Put slides, and the cells of each, in an order of chance that tells nothing of any cell.

    Changing the slide costs a reader more than a cell out of order, so each slide is read in one go.
    """
    random = np.random.default_rng(seed)
    turns = dict(zip(slides, random.permutation(len(slides)).tolist(), strict=True))
    keys = pd.DataFrame({"slide": cells["slide_id"].map(turns), "rank": random.random(len(cells))})
    return cells.loc[keys.sort_values(["slide", "rank"], kind="stable").index].reset_index(drop=True)


def _learning_rank(cells: pd.DataFrame, rest: np.ndarray) -> np.ndarray:
    """Place of each cell among the candidates, or among the rest, when ordered for learning."""
    rank = np.empty(len(cells), np.int64)
    rank[learning_order(cells, first=~rest)] = np.arange(len(cells))
    return rank - np.where(rest, np.count_nonzero(~rest), 0)


def doubt(cells: pd.DataFrame) -> np.ndarray:
    """How far each cell is from where the model tells CTCs from the rest, 0 where it can't tell at all.

    That place is the lowest `p_ctc` that was still called CTC, or 0.5 where none was; the distance is one
    of log odds, in which 0.98 and 0.999 are as far apart as they are for the model.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    called = cells.loc[cells["call"] == "ctc", "p_ctc"]
    boundary = float(called.min()) if len(called) else 0.5
    return np.abs(log_odds(cells["p_ctc"].to_numpy(np.float64)) - log_odds(np.float64(boundary)))


def read_cells(run: RunFolder, slides: Sequence[str], order: str) -> pd.DataFrame:
    """Read the cells of slides, with their `slide_id`; for learning with all that was measured."""
    tables = [
        _read_table(run.slide(slide_id) / "cells.parquet", order).assign(slide_id=slide_id) for slide_id in slides
    ]
    tables = [table for table in tables if len(table)] or [pd.DataFrame(columns=[*_COLUMNS, "slide_id"])]
    return pd.concat(tables, ignore_index=True)


def _read_table(path: Path, order: str) -> pd.DataFrame:
    if order == DOUBT:
        return pd.read_parquet(path, columns=_COLUMNS)
    table = pd.read_parquet(path)
    features = [name for name in table if is_feature(str(name)) and name not in _COLUMNS]
    return table[[*_COLUMNS, *features]]
