"""The commands on models that are there: promote, card, export-onnx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctc_imaging.cli import options
from ctc_imaging.cli import training_options as own
from ctc_imaging.cli.output import note, result

if TYPE_CHECKING:
    from ctc_training.promote import Promotion


def register(app: options.App) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Example: ctc-imaging promote trained --consensus agreed --name mine")(promote)
    app.command(epilog="Example: ctc-imaging card default")(card)
    app.command("export-onnx", epilog="Example: ctc-imaging export-onnx default default.onnx")(export_onnx)


def promote(
    folder: own.ModelFolder,
    consensus: own.Consensus,
    name: own.NewName = None,
    current: own.Current = None,
    as_json: options.AsJson = False,
) -> None:
    """Install a model for use, unless it is worse than the current one.

    Both are compared on the test part of a training set that the new one wasn't trained on. The model that had
    the name before is kept under its name and hash.
    """
    from ctc_training.promote import promote as install

    tell_promotion(install(folder, consensus, name or folder.resolve().name, current), {}, as_json)


def card(model: own.AnyModel, write: own.Write = False, as_json: options.AsJson = False) -> None:
    """Print a model's card: who made it from what, with what figures, and where its limits are."""
    from ctc_imaging.classification import read_model
    from ctc_imaging.files import write_text
    from ctc_training.card_reviewed import card_of
    from ctc_training.start import model_folder

    folder = model_folder(model)
    classifier = read_model(folder)
    text = card_of(classifier)
    if write:
        write_text(folder / "CARD.md", text)
    result({"model": classifier.name, "hash": classifier.hash, "card": text}, text.rstrip(), as_json)


def export_onnx(model: own.AnyModel, out: own.OnnxFile, data: own.Data = None, as_json: options.AsJson = False) -> None:
    """Write a model as ONNX, for other programs, after checking that it gives what torch gives.

    It is checked on random crops and, with --data, on those of a training set's test part.
    """
    from ctc_imaging.classification import read_model
    from ctc_training.dataset_folder import open_dataset
    from ctc_training.export_onnx import TOLERANCE, check_installed
    from ctc_training.export_onnx import export_onnx as export
    from ctc_training.start import model_folder

    check_installed()
    crops = None if data is None else open_dataset(data).part("test")
    classifier = read_model(model_folder(model))
    difference = export(classifier, out, crops)
    facts = {"model": classifier.name, "hash": classifier.hash, "onnx": str(out), "largest_difference": difference}
    text = f"logits differ from torch by at most {difference:.1e} (allowed: {TOLERANCE:g})"
    result(facts, f"{text}\n{out}", as_json)


def tell_promotion(promotion: Promotion, more: dict[str, Any], as_json: bool) -> None:
    """Say what was installed, and whether it is what its name now stands for."""
    from ctc_imaging.classification import list_models

    record, figures = promotion.record, promotion.record["figures"]
    first = list_models().get(record["name"])
    if first != promotion.folder:
        note(f"{first} goes before it: unset CTC_IMAGING_MODELS to use the new model")
    if record["current"]["trained_on_cells_of_the_set"]:
        note(f"{record['current']['name']} was trained on some of the cells compared, which favours it")
    if promotion.kept is not None:
        note(f"the model before is kept as {promotion.kept.name}")
    found, false = figures["found"], figures["false_ctc"]
    text = (
        f"model {record['name']} ({record['new']['hash'][:12]}) is in use: {found['new']} of {figures['ctc']} CTCs "
        f"found, {record['current']['name']} before it {found['current']}; false CTCs {false['new']}, before "
        f"{false['current']}"
    )
    facts = {**more, "model": record["name"], "folder": str(promotion.folder), "kept": promotion.kept, **record}
    result(facts, f"{text}\n{promotion.folder}", as_json)
