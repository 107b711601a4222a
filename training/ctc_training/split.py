"""Which cells train, calibrate and test: whole patients and whole batches, so that nothing is seen twice."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
import pandas as pd

from ctc_imaging.classification.classes import CLASSES
from ctc_training.errors import DatasetError

PARTS = ("train", "calibration", "test")
SHARES = {"train": 0.7, "calibration": 0.15, "test": 0.15}
SPLITS = ("batch", "patient")
"""What may not be in two parts: patients and batches, or patients only."""


def check_scans(table: pd.DataFrame) -> None:
    """Refuse one scan under two names.

    Parameters
    ----------
    table : DataFrame
        With `run`, `slide_id`, `patient_id`, `scan_sha256`.

    Raises
    ------
    DatasetError
        Naming both.
    """
    names = table[["scan_sha256", "run", "slide_id", "patient_id"]].drop_duplicates()
    for _, same in names.groupby("scan_sha256", sort=False):
        if len(same) > 1:
            one, other = (f"{row.run}/{row.slide_id} of {row.patient_id}" for row in same.iloc[:2].itertuples())
            raise DatasetError(one, f"the very scan of {other}", "leave one of them out")


def check_images(table: pd.DataFrame) -> None:
    """Refuse one image in two parts, or of two patients.

    Raises
    ------
    DatasetError
        Naming both cells.
    """
    for column, what in (("patient_id", "patients"), ("part", "parts")):
        names = table[["crop_sha256", column]].drop_duplicates()
        double = names["crop_sha256"][names["crop_sha256"].duplicated()]
        if len(double):
            same = table[table["crop_sha256"] == double.iloc[0]].drop_duplicates(column)
            one, other = (f"{row.source}, cell {row.cell_id}" for row in same.iloc[:2].itertuples())
            raise DatasetError(one, f"the very image of {other}, in two {what}", "leave one of them out")


def groups_of(table: pd.DataFrame, by: str = "batch") -> np.ndarray:
    """Number the groups that can't be parted: cells that share a patient or a scan or, by batch, a batch.

    Parameters
    ----------
    table : DataFrame
        With `patient_id`, `batch` (empty where there is none), `scan_sha256`.
    by : {'batch', 'patient'}

    Returns
    -------
    ndarray of int, shape (n,)
        From 0, in the order of their first rows.
    """
    columns = ("patient_id", "scan_sha256", *(("batch",) if by == "batch" else ()))
    parent: dict[Hashable, Hashable] = {}

    def root(key: Hashable) -> Hashable:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    rows = [[(name, value) for name, value in zip(columns, row, strict=True) if value] for row in _rows(table, columns)]
    for keys in rows:
        for key in keys[1:]:
            parent[root(key)] = root(keys[0])
    return pd.factorize(pd.Series([root(keys[0]) for keys in rows], dtype=object))[0]


def assign_parts(table: pd.DataFrame, seed: int = 0, by: str = "batch") -> np.ndarray:
    """Give every cell its part: each group goes where CTCs and other cells are most wanting.

    Parameters
    ----------
    table : DataFrame
        With `target` and the columns of `groups_of`.
    seed : int
        Orders groups of equal size.
    by : {'batch', 'patient'}

    Returns
    -------
    ndarray of str, shape (n,)
        Of `PARTS`.

    Raises
    ------
    DatasetError
        If there are too few groups with a CTC, or with another cell, for three parts.
    """
    groups = groups_of(table, by)
    ctc = (table["target"] == CLASSES[0]).to_numpy()
    counts = np.stack([np.bincount(groups, weights=ctc), np.bincount(groups, weights=~ctc)], axis=1)
    _check_enough(counts, by)
    wanted = np.array([SHARES[part] for part in PARTS])[:, None] * counts.sum(axis=0)
    have, chosen = np.zeros_like(wanted), np.full(len(counts), -1)
    order = np.random.default_rng(seed).permutation(len(counts))
    # The largest first: what is small can still even out.
    left = sorted(order.tolist(), key=lambda group: -_size(counts[group], counts))
    while left:
        group = left.pop(0)
        part = _most_wanting(wanted, have, counts[group], [counts[other] for other in left])
        chosen[group] = part
        have[part] += counts[group]
    if (have == 0).any():
        raise _too_few(by)
    return np.array(PARTS)[chosen[groups]]


def _most_wanting(wanted: np.ndarray, have: np.ndarray, own: np.ndarray, left: list[np.ndarray]) -> int:
    """Choose the part that lacks most; but parts that lack a kind of cell altogether don't go empty."""
    lacking = ((wanted - have) / np.maximum(wanted.sum(axis=0), 1)).sum(axis=1)
    for kind in range(wanted.shape[1]):
        empty = np.flatnonzero(have[:, kind] == 0)
        if own[kind] and len(empty) > sum(other[kind] > 0 for other in left):
            return int(empty[lacking[empty].argmax()])
    return int(lacking.argmax())


def _check_enough(counts: np.ndarray, by: str) -> None:
    if ((counts > 0).sum(axis=0) < len(PARTS)).any():
        raise _too_few(by)


def _too_few(by: str) -> DatasetError:
    if by == "batch":
        fault = "fewer than three sets of patients and batches, apart from each other, with a CTC and another cell each"
        remedy = "review slides of more batches, or use --split-by patient, which the model's card then says"
    else:
        fault = "fewer than three patients with a CTC and another cell each"
        remedy = "review slides of more patients, or use --frozen for a set to compare models on"
    return DatasetError("training, calibration and test", fault, remedy)


def _size(own: np.ndarray, counts: np.ndarray) -> float:
    return float((own / np.maximum(counts.sum(axis=0), 1)).sum())


def _rows(table: pd.DataFrame, columns: Iterable[str]) -> Iterable[tuple[Hashable, ...]]:
    return zip(*(table[name].tolist() for name in columns), strict=True)
