"""Sets of cells for blinded reading: all candidates and a weighted random sample of what the model rejected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.classification.classes import CANDIDATES
from ctc_imaging.errors import ConfigError, RunError, TableError
from ctc_imaging.files import sha256_file, write_csv
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.tables import read_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ctc_imaging.store.run_folder import RunFolder

BLINDED = "blinded"
"""The set that a blinded reader gets where none is named."""
REJECTED_CELLS = 200
COLUMNS = ("slide_id", "cell_id", "kind", "inclusion_probability")
"""Of a set's table; `kind` is "candidate", "rejected" or "chosen"."""

_MADE = "reading set made"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,39}")
_RESERVED = ("adjudication",)
# Half of a rejected cell's chance to be drawn is everybody's, half follows its probability to be a CTC after all.
_EVEN_SHARE = 0.5
_SMALLEST_P = 1e-6


@dataclass(frozen=True)
class ReadingSet:
    """A set of cells that several readers read, or one reader several times.

    Attributes
    ----------
    name : str
        One that begins with "test" is an exercise: its calls count for nothing.
    cells : DataFrame
        With `COLUMNS`; a candidate's inclusion probability is 1.
    """

    name: str
    cells: pd.DataFrame

    def reading(self, round_number: int = 1) -> str:
        """Return the name of a reading of this set; a repeat is a reading of its own."""
        return self.name if round_number == 1 else f"{self.name}, round {round_number}"


def set_path(run: RunFolder, name: str) -> Path:
    """Return where a set's table lies."""
    return run.path / "readings" / f"{name}.csv"


def reading_set(run: RunFolder, name: str) -> ReadingSet:
    """Read a set.

    Raises
    ------
    RunError
        If there is none of this name, or its table isn't the one that was made.
    """
    path = set_path(run, name)
    if not path.is_file():
        raise RunError(path, "there is no such set of cells", f"make it with ctc-imaging review set {run.path} {name}")
    with Ledger(run.ledger) as ledger:
        made = [event.detail for event in ledger.events() if event.event == _MADE]
    if f"{name} {sha256_file(path)}" not in made:
        raise RunError(path, "it isn't the set that was made", "restore it from a copy, or make one of another name")
    rows = read_table(path, COLUMNS, ()).rows
    table = pd.DataFrame(
        {
            "slide_id": [row.required("slide_id") for row in rows],
            "cell_id": [row.count("cell_id") for row in rows],
            "kind": [row.required("kind") for row in rows],
            "inclusion_probability": [float(row.required("inclusion_probability")) for row in rows],
        }
    )
    return ReadingSet(name, table)


def make_set(
    run: RunFolder,
    name: str = BLINDED,
    rejected: int = REJECTED_CELLS,
    seed: int = 0,
    chosen: Sequence[tuple[str, int]] | None = None,
) -> ReadingSet:
    """Make a set of cells to be read, once and for all.

    Parameters
    ----------
    run : RunFolder
    name : str
        Letters, digits, blanks, hyphens; one that begins with "test" is an exercise.
    rejected : int
        How many of the cells that the model called neither CTC nor indeterminate are drawn, without replacement,
        with probability proportional to size (systematic sampling from a random start over a random order): half of
        a cell's size is the same for all, half its `p_ctc`.
    seed : int
    chosen : sequence of (slide_id, cell_id), optional
        Just these cells instead, for a gallery that tests proficiency.

    Returns
    -------
    ReadingSet

    Raises
    ------
    ConfigError
        If the name can't be one.
    RunError
        If there is a set of this name already, a chosen cell doesn't exist, or there is no cell at all.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise ConfigError(
            "name", f"{name!r} can't name a set of cells", "use up to 40 letters, digits, blanks, hyphens"
        )
    path = set_path(run, name)
    if path.exists():
        raise RunError(path, "there is a set of this name already", "take another name: its readers go by this one")
    cells = _cells(run)
    table = _chosen(run, cells, chosen) if chosen is not None else _drawn(cells, rejected, seed)
    if table.empty:
        raise RunError(run.path, "there is no cell to read", "finish the run, and look at its report")
    path.parent.mkdir(exist_ok=True)
    write_csv(path, table[list(COLUMNS)])
    with Ledger(run.ledger) as ledger:
        ledger.record("ctc-imaging review set", _MADE, f"{name} {sha256_file(path)}")
    return ReadingSet(name, table)


def cells_of_table(file: Path) -> list[tuple[str, int]]:
    """Read the cells of a table with `slide_id` and `cell_id`, each once.

    Raises
    ------
    TableError
        If it isn't such a table, or a cell stands twice.
    """
    rows = read_table(file, ("slide_id", "cell_id"), ("kind", "inclusion_probability", "call", "reader")).rows
    cells = [(row.required("slide_id"), row.count("cell_id") or 0) for row in rows]
    if twice := next((cell for place, cell in enumerate(cells) if cell in cells[:place]), None):
        raise TableError(file, f"cell {twice[1]} of {twice[0]} stands twice", "keep one row of the two")
    return cells


def inclusion_probabilities(sizes: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return each unit's chance to be in a sample of so many, proportional to its size but at most 1.

    Parameters
    ----------
    sizes : ndarray of float64, shape (n,)
        Above 0.
    count : int

    Returns
    -------
    ndarray of float64, shape (n,)
        Sums to `count`, or to n where that is less.
    """
    chances = np.zeros(len(sizes))
    certain = np.zeros(len(sizes), bool)
    while True:
        left = min(count, len(sizes)) - certain.sum()
        chances = np.where(certain, 1.0, left * sizes / max(sizes[~certain].sum(), np.finfo(float).tiny))
        if not (beyond := (chances > 1) & ~certain).any():
            return np.minimum(chances, 1.0)
        certain |= beyond


def count_rejected(run: RunFolder) -> int:
    """Return how many cells of a run the model called neither CTC nor indeterminate."""
    return int((~_cells(run)["call"].isin(CANDIDATES)).sum())


def _cells(run: RunFolder) -> pd.DataFrame:
    with Ledger(run.ledger) as ledger:
        done = [slide_id for slide_id, state in ledger.slides().items() if state.state == "done"]
    columns = ["cell_id", "call", "p_ctc"]
    tables = [
        pd.read_parquet(run.slide(slide_id) / "cells.parquet", columns=columns).assign(slide_id=slide_id)
        for slide_id in done
    ]
    tables = [table for table in tables if len(table)] or [pd.DataFrame(columns=[*columns, "slide_id"])]
    return pd.concat(tables, ignore_index=True)


def _drawn(cells: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    candidate = cells["call"].isin(CANDIDATES)
    rest = cells[~candidate].reset_index(drop=True)
    chances = _sizes(rest)
    chances = inclusion_probabilities(chances, count) if count > 0 and len(rest) else np.zeros(len(rest))
    taken = _systematic(chances, np.random.default_rng(seed))
    sample = rest.iloc[taken].assign(kind="rejected", inclusion_probability=chances[taken])
    parts = [cells[candidate].assign(kind="candidate", inclusion_probability=1.0), sample]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _sizes(rest: pd.DataFrame) -> NDArray[np.float64]:
    p = rest["p_ctc"].fillna(0).to_numpy(np.float64) + _SMALLEST_P
    return _EVEN_SHARE / max(len(p), 1) + (1 - _EVEN_SHARE) * p / max(p.sum(), _SMALLEST_P)


def _systematic(chances: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.intp]:
    """Draw each unit with exactly its chance (Madow, Ann Math Stat 1949;20:333-54)."""
    order = random.permutation(len(chances))
    steps = np.concatenate([[0.0], np.cumsum(chances[order])]) + random.random()
    # Rounding may leave the last whole number just out of reach.
    whole = np.floor(np.round(steps, 9))
    return np.sort(order[np.diff(whole) > 0])


def _chosen(run: RunFolder, cells: pd.DataFrame, chosen: Sequence[tuple[str, int]]) -> pd.DataFrame:
    known = set(zip(cells["slide_id"], cells["cell_id"].astype(int), strict=True))
    for slide_id, cell_id in chosen:
        if (slide_id, cell_id) not in known:
            raise RunError(run.path, f"slide {slide_id} has no cell {cell_id}", "check the ids")
    table = pd.DataFrame(chosen, columns=["slide_id", "cell_id"])
    return table.assign(kind="chosen", inclusion_probability=1.0)
