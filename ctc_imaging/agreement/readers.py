"""A table of readers' calls → how well they agree with each other and with themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.agreement.differences import CountDifference, Repeatability, limits_of_agreement, repeatability
from ctc_imaging.agreement.estimate import Estimate, plain
from ctc_imaging.agreement.kappa import call_counts, cohen_kappa, fleiss_kappa, positive_agreement, specific_agreement
from ctc_imaging.agreement.missed import MissedCtcs, missed_ctcs
from ctc_imaging.errors import StatisticsError

COLUMNS = ("sample_id", "slide_id", "cell_id", "reader", "call")
"""Of a table of calls; further `round` (1 where it has none) and `inclusion_probability` (1)."""
CTC = "ctc"
MAJORITY = "majority"
"""Stands in `Agreement.missed` for what more than half of a cell's readers said."""

_CELL = ["sample_id", "slide_id", "cell_id"]
_ALL = [*_CELL, "reader", "round", "call", "inclusion_probability"]


@dataclass(frozen=True)
class Pair:
    """Two readings of the same cells: by two readers or, in two rounds, by one.

    Attributes
    ----------
    a, b : str
        The readers, or the rounds of one.
    cells, samples, same : int
        Cells that both called, in so many samples, and how many of them alike.
    kappa, positive : Estimate
        Cohen's kappa over all calls; agreement on CTCs.
    classes : dict of str to Estimate
        Agreement on each class.
    difference : CountDifference
        CTCs of `a` less those of `b`, a sample.
    """

    a: str
    b: str
    cells: int
    samples: int
    same: int
    kappa: Estimate
    positive: Estimate
    classes: Mapping[str, Estimate]
    difference: CountDifference

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {name: _plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Agreement:
    """How well readers agree; what takes two readers, or two rounds, is empty where there is but one.

    Attributes
    ----------
    readers : tuple of str
    cells, samples : int
        Read by at least one.
    pairs : tuple of Pair
        Each two readers, in their first round.
    fleiss : Estimate or None
        Kappa of all readers together.
    classes : dict of str to Estimate
        Agreement of all readers on each class.
    rounds : dict of str to tuple of Pair
        Each reader's first round beside each later one.
    repeatability : dict of str to Repeatability
        By reader.
    counts : DataFrame
        CTCs by sample (rows) and reader (columns), first round.
    missed : dict of str to MissedCtcs
        CTCs that the model rejected, as each reader sees it, and by majority; empty where no such cells were read.
    """

    readers: tuple[str, ...]
    cells: int
    samples: int
    pairs: tuple[Pair, ...]
    fleiss: Estimate | None
    classes: Mapping[str, Estimate]
    rounds: Mapping[str, tuple[Pair, ...]]
    repeatability: Mapping[str, Repeatability]
    counts: pd.DataFrame
    missed: Mapping[str, MissedCtcs] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; `counts` is a list, a sample each."""
        return {name: _plain(value) for name, value in vars(self).items()}


def agreement_of(
    calls: pd.DataFrame, smallest_probability: float | None = None, rejected_cells: int | None = None
) -> Agreement:
    """Compare readers.

    Parameters
    ----------
    calls : DataFrame
        With `COLUMNS`, a row a cell and reader: the reader's last call of it. `round` counts repeat reads from 1;
        `inclusion_probability` is below 1 for cells that were drawn from those the model rejected. Such cells are
        left out of counts a sample: they stand for many.
    smallest_probability, rejected_cells : optional
        For `missed_ctcs`.

    Returns
    -------
    Agreement

    Raises
    ------
    StatisticsError
        If there are no calls, a column is missing, or a reader called a cell twice in one round.
    """
    table = _checked(calls)
    first = table[table["round"] == table.groupby("reader")["round"].transform("min")]
    readers = sorted(table["reader"].unique())
    wide = _wide(first, "reader")
    fleiss, classes = _all_together(wide)
    by_reader = {reader: table[table["reader"] == reader] for reader in readers}
    repeats = {reader: rows for reader, rows in by_reader.items() if rows["round"].nunique() > 1}
    return Agreement(
        readers=tuple(readers),
        cells=table[_CELL].drop_duplicates().shape[0],
        samples=table["sample_id"].nunique(),
        pairs=tuple(_pair(wide, a, b) for a, b in combinations(wide.columns, 2) if len(_both(wide[[a, b]]))),
        fleiss=fleiss,
        classes=classes,
        rounds={reader: _rounds(rows) for reader, rows in repeats.items()},
        repeatability={reader: repeatability(_ctcs(_both(_wide(rows, "round")))) for reader, rows in repeats.items()},
        counts=count_table(first),
        missed=_missed(wide, smallest_probability, rejected_cells),
    )


def count_table(calls: pd.DataFrame) -> pd.DataFrame:
    """Count each reader's CTCs a sample.

    Parameters
    ----------
    calls : DataFrame
        As for `agreement_of`, of one round.

    Returns
    -------
    DataFrame
        A row a sample, a column a reader; missing where a reader has read nothing of the sample. Where readers have
        not read the same cells, `count_difference` compares what both read.
    """
    return _ctcs(_wide(_checked(calls), "reader"))


def count_difference(calls: pd.DataFrame, a: str, b: str) -> CountDifference:
    """Compare two readers' CTC counts a sample, over the cells that both read.

    Parameters
    ----------
    calls : DataFrame
        As for `agreement_of`, of one round.
    a, b : str
        Readers; the difference is that of `a` less `b`.
    """
    return _pair(_wide(_checked(calls), "reader"), a, b).difference


def _checked(calls: pd.DataFrame) -> pd.DataFrame:
    if missing := [name for name in COLUMNS if name not in calls]:
        raise StatisticsError("agreement", f"the column {missing[0]} is missing", f"give {', '.join(COLUMNS)}")
    if calls.empty:
        raise StatisticsError("agreement", "nobody has read any cell", "read the set, then compare the readers")
    table = calls.assign(
        round=calls.get("round", 1),
        inclusion_probability=calls.get("inclusion_probability", 1.0),
    )[_ALL]
    twice = table.duplicated(["slide_id", "cell_id", "reader", "round"])
    if twice.any():
        row = table[twice].iloc[0]
        fault = f"{row['reader']} has called cell {row['cell_id']} of {row['slide_id']} twice in round {row['round']}"
        raise StatisticsError("agreement", fault, "give the last call of each reader of each cell")
    return table


def _wide(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Calls by cell (rows: sample, slide, cell, inclusion probability) and reader or round (columns)."""
    return table.pivot(index=[*_CELL, "inclusion_probability"], columns=by, values="call").sort_index()


def _samples(wide: pd.DataFrame) -> np.ndarray:
    return wide.index.get_level_values("sample_id").to_numpy()


def _both(wide: pd.DataFrame) -> pd.DataFrame:
    return wide.dropna()


def _ctcs(wide: pd.DataFrame) -> pd.DataFrame:
    """CTCs a sample, of cells that were all read; missing where nothing of the sample was read."""
    counted = wide[wide.index.get_level_values("inclusion_probability") >= 1]
    hits = (counted == CTC).astype(float).where(counted.notna())
    return hits.groupby(level="sample_id").sum(min_count=1)


def _pair(wide: pd.DataFrame, a: Any, b: Any) -> Pair:
    both = _both(wide[[a, b]])
    first, second, samples = both[a].to_numpy(), both[b].to_numpy(), _samples(both)
    if not len(both):
        raise StatisticsError(
            "agreement", f"{a} and {b} have read no cell in common", "let both read the same set of cells"
        )
    counts = _ctcs(both)
    names = sorted({*first, *second})
    classes = {str(name): positive_agreement(first, second, name, samples) for name in names}
    return Pair(
        a=str(a),
        b=str(b),
        cells=len(both),
        samples=len(set(samples)),
        same=int((first == second).sum()),
        kappa=cohen_kappa(first, second, samples),
        positive=positive_agreement(first, second, CTC, samples),
        classes=classes,
        difference=limits_of_agreement(counts[a], counts[b]),
    )


def _rounds(rows: pd.DataFrame) -> tuple[Pair, ...]:
    wide = _wide(rows, "round")
    return tuple(_pair(wide, wide.columns[0], later) for later in wide.columns[1:])


def _all_together(wide: pd.DataFrame) -> tuple[Estimate | None, dict[str, Estimate]]:
    shared = wide[wide.notna().sum(axis=1) >= 2]
    if shared.empty:
        return None, {}
    names = sorted({name for name in shared.to_numpy().ravel() if isinstance(name, str)})
    numbers = {name: number for number, name in enumerate(names)}
    counts = call_counts(shared.map(lambda name: numbers.get(name, -1)), len(names))
    samples = _samples(shared)
    classes = {name: specific_agreement(counts[:, number], counts.sum(1), samples) for name, number in numbers.items()}
    return fleiss_kappa(counts, samples), classes


def _missed(wide: pd.DataFrame, smallest: float | None, cells: int | None) -> dict[str, MissedCtcs]:
    drawn = wide[wide.index.get_level_values("inclusion_probability") < 1]
    found = {}
    for reader in drawn.columns:
        read = drawn[reader].dropna()
        if len(read):
            chances = read.index.get_level_values("inclusion_probability")
            found[str(reader)] = missed_ctcs(read == CTC, chances, smallest, cells)
    if len(found) > 1:
        votes, readers = (drawn == CTC).sum(axis=1), drawn.notna().sum(axis=1)
        chances = drawn.index.get_level_values("inclusion_probability")
        found[MAJORITY] = missed_ctcs(votes > readers / 2, chances, smallest, cells)
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if isinstance(value, pd.DataFrame):
        return [{str(name): _plain(of) for name, of in row.items()} for row in value.reset_index().to_dict("records")]
    if isinstance(value, Mapping):
        return {str(name): _plain(of) for name, of in value.items()}
    if isinstance(value, tuple):
        return [_plain(of) for of in value]
    return plain(value)
