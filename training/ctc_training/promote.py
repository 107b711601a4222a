"""A new model into use: held against the current one on a frozen set of cells, refused if worse, else installed."""

from __future__ import annotations

import getpass
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ctc_imaging
from ctc_imaging.classification.model import Classifier, list_models, read_model
from ctc_imaging.errors import ModelError
from ctc_imaging.files import sync_folder, sync_tree, write_json, write_text
from ctc_imaging.model_folders import user_models
from ctc_training.card_reviewed import card_of
from ctc_training.compare import LEAST, RULE, compare
from ctc_training.dataset_folder import Dataset, open_dataset
from ctc_training.errors import DatasetError
from ctc_training.outputs import Outputs
from ctc_training.part_outputs import outputs_of_part
from ctc_training.start import model_folder, seen_by

RECORD = "promotion.json"
# Two levels down, where nothing is taken for a model.
_GROWING = ".promoting"
_UNSAFE = set('/\\:*?"<>|')


@dataclass(frozen=True)
class Promotion:
    """A model in use: where it lies, the record of how it got there, and what it replaced."""

    classifier: Classifier
    folder: Path
    record: dict[str, Any]
    kept: Path | None


def promote(folder: Path, consensus: Path, name: str, current: str | None = None) -> Promotion:
    """Install a model for the user, if it isn't worse than the current one.

    Parameters
    ----------
    folder : Path
        The new model's.
    consensus : Path
        A training set; the cells of its part `test` decide.
    name : str
        What the model shall be called.
    current : str, optional
        The model to compare with; by default that of the same name or, if there is none, ``default``.

    Returns
    -------
    Promotion
        A model of that name in the user's folder is kept beside it, under its name and hash.

    Raises
    ------
    ModelError
        If the new model is worse, or isn't whole; then nothing has changed.
    DatasetError
        If the cells can't decide: too few, not as they were, or known to the new model from training.
    """
    _check_name(name)
    new = read_model(folder)
    cells = open_dataset(consensus)
    check_unseen(folder, new, cells)
    before_folder = model_folder(current or (name if name in list_models() else "default"))
    before = read_model(before_folder)
    outputs = tuple(outputs_of_part(model, cells, "test") for model in (before, new))
    _check_enough(outputs[0], cells)
    compared = compare(before, new, *outputs)
    if compared.faults:
        remedy = "train on more reviewed cells; nothing was changed"
        raise ModelError(folder, f"worse than {before.name}: {'; '.join(compared.faults)}", remedy)
    seen_before = _overlap(before_folder, before, cells)
    record = {
        "promoted": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": getpass.getuser(),
        "name": name,
        "new": {"hash": new.hash, "folder": folder.name},
        "current": {"name": before.name, "hash": before.hash, "trained_on_cells_of_the_set": seen_before},
        "consensus": {"folder": consensus.name, "sha256": cells.hash, "part": "test"},
        "rule": RULE,
        "figures": compared.figures,
        "ctc_imaging": ctc_imaging.__version__,
    }
    installed, kept = install(folder, name, record)
    return Promotion(read_model(installed), installed, record, kept)


def check_unseen(folder: Path, model: Classifier, cells: Dataset) -> None:
    """Refuse to judge a model on cells it was trained or calibrated on.

    Raises
    ------
    DatasetError
        If a scan or an image of the part `test` was among them.
    """
    count = _overlap(folder, model, cells)
    if count:
        fault = f"{count} cells of its part test are of scans or images that {model.name} was trained on"
        raise DatasetError(
            cells.folder, fault, "compare on cells of other patients (dataset --without keeps them back)"
        )


def install(folder: Path, name: str, record: dict[str, Any]) -> tuple[Path, Path | None]:
    """Lay a model and its record into the user's model folder.

    It is copied beside its place and moved there whole. A model that lay there is moved aside first, in the moment
    before, and stays usable as NAME-HASH, so that runs made with it can be made again.

    Returns
    -------
    Path, Path or None
        Where it lies, and where the one before lies now.
    """
    target = user_models() / name
    growing = user_models() / _GROWING / f"{name}-{os.getpid()}"
    shutil.rmtree(growing, ignore_errors=True)
    try:
        shutil.copytree(folder, growing)
        write_json(growing / RECORD, record)
        write_text(growing / "CARD.md", _renamed_card(growing, name, record))
        read_model(growing)
        sync_tree(growing)
        kept = _move_aside(target)
        try:
            growing.replace(target)
        except OSError:
            if kept is not None:
                kept.replace(target)
            raise
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    sync_folder(user_models())
    return target, kept


def _move_aside(target: Path) -> Path | None:
    """Move a model that lies there to its name and hash; one without a readable hash goes by the time."""
    if not target.exists():
        return None
    try:
        mark = read_model(target).hash[:8]
    except ModelError:
        mark = f"damaged-{datetime.now(UTC):%Y%m%d%H%M%S}"
    kept = target.with_name(f"{target.name}-{mark}")
    if kept.exists():
        # The very same model, promoted once before and kept then.
        shutil.rmtree(kept)
    return target.replace(kept)


def _renamed_card(folder: Path, name: str, record: dict[str, Any]) -> str:
    """Write the card under the model's new name, with how it was promoted."""
    from dataclasses import replace

    figures, current = record["figures"], record["current"]
    lines = [
        card_of(replace(read_model(folder), name=name)).rstrip(),
        "",
        "## Promotion",
        f"By {record['by']}, {record['promoted']}, against model {current['name']} (`{current['hash']}`), on the part "
        f"`test` of `{record['consensus']['folder']}` (SHA-256 `{record['consensus']['sha256']}`).",
        "",
        "| Model | CTCs found | False CTCs | Calibration error |",
        "|---|---|---|---|",
        *(
            f"| {what} | {figures['found'][which]} of {figures['ctc']} | {figures['false_ctc'][which]} "
            f"of {figures['other']} | {figures['ece'][which]:.4f} |"
            for which, what in (("current", "before"), ("new", "this one"))
        ),
        "",
        f"The rule: a model is {record['rule']}.",
        "",
    ]
    return "\n".join(lines)


def _overlap(folder: Path, model: Classifier, cells: Dataset) -> int:
    """How many cells of the part `test` a model was trained on, by scan or image."""
    seen, rows = seen_by(folder, model), cells.rows("test")
    known = [rows[f"{kind}_sha256"].isin(set(own["sha256"])) for kind, own in seen.groupby("kind")]
    return int(sum(known).clip(upper=1).sum()) if known else 0  # type: ignore[union-attr]


def _check_enough(outputs: Outputs, cells: Dataset) -> None:
    ctc = int((outputs.target == 0).sum())
    for kind, count in (("ctc", ctc), ("other", len(outputs) - ctc)):
        if count < LEAST[kind]:
            what = "CTCs" if kind == "ctc" else "other cells"
            fault = f"its part test holds {count} {what} that readers agree on, too few to tell models apart"
            raise DatasetError(cells.folder, fault, f"review more: at least {LEAST[kind]} are needed")


def _check_name(name: str) -> None:
    if not name or name != name.strip() or name.startswith(".") or set(name) & _UNSAFE:
        raise ModelError("--name", f"{name!r} can't be a folder's name", "use letters, digits, - and _")
