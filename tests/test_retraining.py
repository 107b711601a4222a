"""From a reviewed run to a model in use, by the commands a researcher has; a sabotaged model never gets there."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from ctc_training.dataset_folder import open_dataset
from ctc_training.part_outputs import outputs_of_part
from ctc_training.reviewed import UNREVIEWED_WEIGHT, reviewed_run
from ctc_training.start import load_start

from ctc_imaging.classification import load_model, read_model
from ctc_imaging.classification.model import save_model
from ctc_imaging.cli import main
from ctc_imaging.files import sha256_file
from ctc_imaging.store.reviews import import_reviews
from ctc_imaging.store.run_folder import RunFolder

from .reviewed_fixture import make_run, truth_of, write_reviews

CONFIG = "epochs: 2\ncrops_per_epoch: 256\nbatch: 64\nthreads: 1\nlearning_rate: 1e-4\n"


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory) -> Path:
    """A run of three patients in three batches, and two readers' reviews of every cell."""
    folder = tmp_path_factory.mktemp("reviewed")
    run = make_run(folder)
    # Through the command line, as a laboratory would.
    assert main(["review", "import", str(run), str(write_reviews(run, folder / "reviews.csv"))]) == 0
    return run


@pytest.fixture(scope="module")
def user(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.fixture(autouse=True)
def at_home(user, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda name: str(user / name))
    monkeypatch.delenv("CTC_IMAGING_MODELS", raising=False)


@pytest.fixture(scope="module")
def retrained(reviewed, user, tmp_path_factory) -> tuple[Path, dict]:
    """What one command made of the run, and what it said."""
    work = tmp_path_factory.mktemp("work")
    (work / "train.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("platformdirs.user_data_dir", lambda name: str(user / name))
        said = io.StringIO()
        patch.setattr("sys.stdout", said)
        command = ["retrain", str(reviewed), "--name", "mine", "--out", str(work / "mine-training"), "--json"]
        more = ["--config", str(work / "train.yaml"), "--simulated", "none", "--unreviewed", "0", "--device", "cpu"]
        assert main([*command, *more]) == 0
    return work / "mine-training", json.loads(said.getvalue())


def test_one_command_leads_from_reviews_to_a_model_in_use(retrained, user):
    work, said = retrained
    installed = user / "ctc_imaging" / "models" / "mine"
    assert Path(said["folder"]) == installed
    assert load_model("mine").hash == said["new"]["hash"] == read_model(work / "mine").hash
    record = json.loads((installed / "promotion.json").read_text())
    assert record["consensus"]["sha256"] == open_dataset(work / "dataset").hash
    assert record["current"]["hash"] == load_model("default").hash
    assert record["figures"]["found"]["new"] >= 0.9 * record["figures"]["ctc"]
    assert (work / "errors.png").is_file()
    assert json.loads((work / "evaluation.json").read_text()).keys() >= {"sensitivity_at_fp", "ece", "coverage"}


def test_the_card_says_who_labelled_what_and_how_it_was_promoted(retrained, user, capsys):
    card = (user / "ctc_imaging" / "models" / "mine" / "CARD.md").read_text()
    for words in ("# Model card: mine", "Readers: A", "run `run`", "started from model default", "## Promotion"):
        assert words in card
    assert "who disagreed on" in card
    assert main(["card", "mine"]) == 0
    assert capsys.readouterr().out.rstrip() == card.partition("\n## Promotion")[0].rstrip()


def test_the_crops_are_those_the_model_saw_in_the_run(reviewed, retrained):
    """Cut again from the scans, they give the probabilities that stand in cells.parquet."""
    dataset = open_dataset(retrained[0] / "dataset")
    default = load_model("default")
    rows = dataset.rows("test")
    p = default.calibration.probabilities(outputs_of_part(default, dataset, "test").logits)
    sure = rows[~rows["disputed"]].reset_index(drop=True)
    cells = pd.read_parquet(reviewed / "slides" / sure["slide_id"][0] / "cells.parquet").set_index("cell_id")
    # Kept in half precision, they differ a little.
    expected = cells.loc[sure["cell_id"], ["p_ctc", "p_leukocyte", "p_artefact"]].to_numpy()
    assert np.abs(p - expected).max() < 0.02


def test_labels_are_the_readers_and_their_disagreement_is_kept(reviewed, retrained):
    dataset = open_dataset(retrained[0] / "dataset")
    cells = dataset.cells
    cohort = reviewed.with_name("run-cohort")
    truth = pd.concat([truth_of(reviewed, slide, cohort) for slide in ("S0", "S1", "S2")])
    both = cells.merge(truth, on=["slide_id", "cell_id"])
    assert len(both) == len(cells) == len(truth)
    agreed = both[both["agreement"] == 1]
    assert (agreed["target"] == agreed["call"]).all()
    apart = both[both["agreement"] < 1]
    assert len(apart) > 0
    assert (apart[["leukocyte", "artefact"]] == 1).all(axis=None)
    assert dataset.facts["cells_disagreed_on"] == len(apart)
    crops = dataset.part("train")
    disputed = dataset.rows("train")["disputed"].to_numpy()
    np.testing.assert_allclose(crops.soft[disputed], np.tile([0, 0.5, 0.5], (disputed.sum(), 1)))


def sabotaged(folder: Path, retrained: Path) -> Path:
    """The retrained model with the outputs for CTCs and leukocytes exchanged, saved as any model is."""
    good = load_start(retrained / "mine")
    weights = {name: tensor.clone() for name, tensor in good.weights.items()}
    for name in ("classes.weight", "classes.bias"):
        weights[name] = weights[name][[1, 0, 2]]
    network = replace_weights(good, weights)
    own = good.classifier
    save_model(
        folder, network, good.architecture, own.calibration, own.thresholds, own.positivity,
        {"training": own.description["training"], "metrics": own.description["metrics"]},
    )  # fmt: skip
    shutil.copy(retrained / "mine" / "seen.csv", folder / "seen.csv")
    return folder


def replace_weights(start, weights):
    from ctc_imaging.classification.network import CellNetwork

    network = CellNetwork(**start.architecture)
    network.load_state_dict(weights)
    return network.eval()


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def test_a_sabotaged_model_is_refused_and_nothing_changes(retrained, user, tmp_path, capsys):
    work, _ = retrained
    bad = sabotaged(tmp_path / "bad", work)
    assert read_model(bad).hash != read_model(work / "mine").hash
    before = tree(user)
    assert main(["promote", str(bad), "--consensus", str(work / "dataset"), "--name", "mine"]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert "worse than mine: finds 0 of 24 CTCs, the current model" in error
    assert tree(user) == before
    assert load_model("mine").hash == read_model(work / "mine").hash


def test_a_model_with_weights_that_are_not_its_own_is_refused(retrained, user, tmp_path, capsys):
    work, _ = retrained
    shutil.copytree(work / "mine", tmp_path / "tampered")
    weights = tmp_path / "tampered" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(bytes(data))
    before = tree(user)
    assert main(["promote", str(tmp_path / "tampered"), "--consensus", str(work / "dataset")]) == 2
    assert "not the weights that model.json describes" in capsys.readouterr().err
    assert tree(user) == before


def test_a_model_is_not_judged_on_cells_it_was_trained_on(reviewed, retrained, tmp_path, capsys):
    work, _ = retrained
    frozen = tmp_path / "frozen"
    assert main(["dataset", str(frozen), "--run", str(reviewed), "--frozen"]) == 0
    capsys.readouterr()
    assert main(["promote", str(work / "mine"), "--consensus", str(frozen)]) == 2
    assert "that mine was trained on" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(work / "mine"), "--data", str(frozen)]) == 2
    capsys.readouterr()
    # Without the list of what it has seen, nobody can tell.
    shutil.copytree(work / "mine", tmp_path / "silent")
    (tmp_path / "silent" / "seen.csv").write_text("kind,sha256\n")
    assert main(["promote", str(tmp_path / "silent"), "--consensus", str(work / "dataset")]) == 2
    assert "not the list of cells" in capsys.readouterr().err


def test_a_set_keeps_back_what_another_needs(reviewed, tmp_path, capsys):
    """Of a frozen set's patients none comes into a training set; here that leaves none at all."""
    frozen = tmp_path / "frozen"
    assert main(["dataset", str(frozen), "--run", str(reviewed), "--frozen"]) == 0
    assert main(["dataset", str(tmp_path / "rest"), "--run", str(reviewed), "--without", str(frozen)]) == 2
    error = capsys.readouterr().err
    assert "cells left out, for they share a patient, batch or scan" in error
    assert "nothing to learn from" in error
    assert not (tmp_path / "rest").exists()


def test_a_better_known_name_is_kept_when_it_is_replaced(retrained, user, tmp_path):
    """Promoted once more, the model that lay there stays usable under its name and hash."""
    work, _ = retrained
    start = load_start(work / "mine")
    weights = {name: tensor.clone() for name, tensor in start.weights.items()}
    weights["classes.bias"] += torch.tensor([1e-3, 0, 0])
    own = start.classifier
    other = tmp_path / "other"
    save_model(
        other, replace_weights(start, weights), start.architecture, own.calibration,
        replace(own.thresholds), own.positivity, {"training": {**own.description["training"]}, "metrics": {}},
    )  # fmt: skip
    shutil.copy(work / "mine" / "seen.csv", other / "seen.csv")
    shutil.copytree(user / "ctc_imaging" / "models" / "mine", tmp_path / "kept")
    before = load_model("mine").hash
    assert main(["promote", str(other), "--consensus", str(work / "dataset"), "--name", "mine"]) == 0
    assert load_model("mine").hash == read_model(other).hash != before
    assert load_model(f"mine-{before[:8]}").hash == before
    assert not list((user / "ctc_imaging" / "models" / ".promoting").glob("*"))


def test_a_slide_whose_scan_is_gone_is_named_and_left_out(reviewed, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(reviewed, run)
    scan = reviewed.with_name("run-cohort") / "S1" / "slide.ome.tif"
    scan.rename(scan.with_suffix(".away"))
    try:
        assert main(["dataset", str(tmp_path / "cells"), "--run", str(run), "--frozen", "--json"]) == 0
    finally:
        scan.with_suffix(".away").rename(scan)
    said = capsys.readouterr()
    assert "slide S1 of run left out: the scan isn't where it was" in said.err
    assert open_dataset(tmp_path / "cells").facts["runs"][0]["slides_left_out"].keys() == {"S1"}


def test_unreviewed_cells_are_marked_weigh_less_and_stand_for_many(reviewed, tmp_path):
    """Of a fully reviewed slide no cell is left to add; here only the CTCs were reviewed."""
    assert all((slide.table["origin"] == "reviewed").all() for slide in reviewed_run(reviewed, unreviewed=5).slides)
    fresh = make_partial(reviewed, tmp_path)
    tables = [slide.table for slide in reviewed_run(fresh, unreviewed=5).slides]
    own = pd.concat(tables)
    unseen = own[own["origin"] == "unreviewed"]
    assert len(unseen) == 5 * len(tables)
    assert (unseen["target"] == "leukocyte").all()
    assert (unseen["weight"] == UNREVIEWED_WEIGHT).all()
    assert (unseen["stands_for"] > 5).all()
    assert set(zip(unseen["slide_id"], unseen["cell_id"], strict=True)).isdisjoint(
        zip(
            own.loc[own["origin"] == "reviewed", "slide_id"],
            own.loc[own["origin"] == "reviewed", "cell_id"],
            strict=True,
        )
    )


def make_partial(reviewed: Path, folder: Path) -> Path:
    """The same run with reviews of its CTCs only."""
    import sqlite3

    run = folder / "partial"
    shutil.copytree(reviewed, run)
    # The ledger is append-only: its table of reviews is emptied behind its back.
    with sqlite3.connect(run / "ledger.sqlite") as ledger:
        for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            ledger.execute(f"DROP TRIGGER {name}")
        ledger.execute("DELETE FROM reviews WHERE call != 'ctc'")
    ledger.close()
    return run


def test_only_the_latest_word_of_each_reader_counts(reviewed, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(reviewed, run)
    slide = reviewed_run(run).slides[0]
    cell = int(slide.table.loc[slide.table["target"] == "ctc", "cell_id"].iloc[0])
    rows = [{"slide_id": slide.entry.slide_id, "cell_id": cell, "call": "artefact", "reader": who} for who in "AB"]
    pd.DataFrame(rows).to_csv(tmp_path / "second.csv", index=False)
    import_reviews(RunFolder(run), tmp_path / "second.csv")
    table = reviewed_run(run).slides[0].table.set_index("cell_id")
    assert table.loc[cell, "target"] == "artefact"
    assert table.loc[cell, ["ctc", "artefact"]].tolist() == [0, 2]
