"""A training set as a folder: arrays that are mapped, not read, a table of cells, and what it is made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from shutil import rmtree
from typing import IO, Any

import numpy as np
import pandas as pd

from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.files import sha256_file, sha256_json, sync_tree, write_csv, write_json
from ctc_training.crop_arrays import CropArrays, empty
from ctc_training.dataset import CropSet
from ctc_training.errors import DatasetError
from ctc_training.split import PARTS
from ctc_training.votes import soft_labels

FORMAT = "ctc-imaging-dataset/1"
DESCRIPTION = "dataset.json"
TABLE = "cells.csv"
COLUMNS = (
    *("part", "origin", "source", "setting", "run", "patient_id", "batch", "slide_id", "scan_sha256", "cell_id"),
    *("target", "ctc", "leukocyte", "artefact", "indeterminate", "readers", "agreement", "disputed", "phenotype"),
    *("kind", "weight", "stands_for", "crop_sha256"),
)
_ARRAYS = tuple(field.name for field in fields(CropArrays))
_TEXTS = ("part", "origin", "source", "setting", "run", "patient_id", "batch", "slide_id", "scan_sha256", "target")
_MORE_TEXTS = ("readers", "phenotype", "kind", "crop_sha256")


@dataclass(frozen=True)
class Dataset:
    """A training set on disk, whole and unchanged when it was opened.

    Attributes
    ----------
    folder : Path
    facts : dict
        ``dataset.json``.
    cells : DataFrame
        `COLUMNS`, a row a crop, in the order of the arrays within each part.
    """

    folder: Path
    facts: dict[str, Any]
    cells: pd.DataFrame

    @cached_property
    def hash(self) -> str:
        """SHA-256 of all arrays and the table, as hex."""
        return sha256_json(self.facts["files"])

    def rows(self, part: str) -> pd.DataFrame:
        """Return the table's rows of a part, numbered from 0 like its arrays."""
        return self.cells[self.cells["part"] == part].reset_index(drop=True)

    def part(self, part: str) -> CropSet:
        """Return the crops of a part; images are mapped from disk and read as they are drawn."""
        rows = self.rows(part)
        arrays = {name: np.load(self.folder / part / f"{name}.npy", mmap_mode="r") for name in ("roles", "masks")}
        small = {name: np.load(self.folder / part / f"{name}.npy") for name in ("present", "snr")}
        return CropSet(
            **arrays,
            **small,
            target=rows["target"].map(CLASSES.index).to_numpy(np.int64),
            kind=rows["kind"].to_numpy().astype("U32"),
            source=rows["source"].to_numpy().astype(str),
            truth=self.truth(part),
            soft=soft_labels(rows) if len(rows) else None,
            weight=rows["weight"].to_numpy(np.float32),
        )

    def truth(self, part: str) -> dict[str, dict[str, int]]:
        """Count the true CTCs and leukocytes of each source: those simulated, or those a majority of readers named."""
        rows = self.rows(part)
        sure = rows[~rows["disputed"]]
        counted = {
            str(source): {name: int((own["target"] == name).sum()) for name in ("ctc", "leukocyte")}
            for source, own in sure.groupby("source", sort=True)
        }
        return counted | self.facts["simulated_truth"].get(part, {})


def open_dataset(folder: Path) -> Dataset:
    """Open a training set, and hash all of it.

    Raises
    ------
    DatasetError
        If it isn't one, or isn't as it was made.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DatasetError(folder, "no training set here", "make one with ctc-imaging dataset")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        known, files = facts["format"] == FORMAT, dict(facts["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(path, f"damaged ({error!r})", "make the training set anew") from error
    if not known:
        raise DatasetError(path, "made by another version of ctc-imaging", "make the training set anew")
    for name, sha256 in files.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != sha256:
            raise DatasetError(folder / name, "missing, or not as it was made", "make the training set anew")
    texts = dict.fromkeys((*_TEXTS, *_MORE_TEXTS), str)
    cells = pd.read_csv(folder / TABLE, dtype=texts, keep_default_na=False, na_values={"agreement": [""]})
    return Dataset(folder, facts, cells.astype({"disputed": bool, "stands_for": int, "weight": float}))


class DatasetWriter:
    """Lays crops into the parts of a training set, one slide after the other; made by `write_dataset`."""

    def __init__(self, folder: Path, files: dict[tuple[str, str], IO[bytes]]) -> None:
        self.folder, self._files = folder, files
        self._counts = dict.fromkeys(PARTS, 0)
        self._tables: list[pd.DataFrame] = []
        for (_, name), file in files.items():
            _write_header(file, getattr(empty(), name), 0)

    def add(self, part: str, crops: CropArrays, table: pd.DataFrame) -> None:
        """Append crops, a row of the table each."""
        for name in _ARRAYS:
            self._files[part, name].write(np.ascontiguousarray(getattr(crops, name)).tobytes())
        self._counts[part] += len(crops)
        self._tables.append(table.assign(part=part))

    def table(self) -> pd.DataFrame:
        """Return all rows so far, by part, in the order of the arrays."""
        if not self._tables:
            return pd.DataFrame(columns=list(COLUMNS))
        table = pd.concat(self._tables, ignore_index=True)[[*COLUMNS]]
        order = pd.Categorical(table["part"], PARTS).codes
        return table.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)

    def finish(self, facts: dict[str, Any]) -> None:
        """Write table and description; `facts` is what they are made from."""
        for (part, name), file in self._files.items():
            _write_header(file, getattr(empty(), name), self._counts[part])
            file.flush()
        write_csv(self.folder / TABLE, self.table())
        names = [TABLE, *(f"{part}/{name}.npy" for part, name in self._files)]
        files = {name: sha256_file(self.folder / name) for name in names}
        write_json(self.folder / DESCRIPTION, {"format": FORMAT, **facts, "files": files})


@contextmanager
def write_dataset(folder: Path) -> Iterator[DatasetWriter]:
    """Let a training set grow beside its place, and move it there in one step when the block has finished it.

    Raises
    ------
    DatasetError
        If something is there already.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(folder, "there already", "name a new folder: a training set is never changed")
    partial = folder.with_name(f".{folder.name}.partial")
    rmtree(partial, ignore_errors=True)
    try:
        with ExitStack() as stack:
            files: dict[tuple[str, str], IO[bytes]] = {}
            for part in PARTS:
                (partial / part).mkdir(parents=True)
                for name in _ARRAYS:
                    files[part, name] = stack.enter_context((partial / part / f"{name}.npy").open("wb"))
            yield DatasetWriter(partial, files)
        sync_tree(partial)
        partial.replace(folder)
    finally:
        rmtree(partial, ignore_errors=True)


def _write_header(file: IO[bytes], like: np.ndarray, count: int) -> None:
    """Write the header of a .npy file at its start; NumPy leaves room for any number of rows."""
    end = file.tell()
    file.seek(0)
    shape = (count, *like.shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    file.seek(max(end, file.tell()))
