"""Training sets: nothing is seen twice, readers are kept, files are whole; and folders of crops become such a set."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from ctc_training.collect import Choice, make_dataset
from ctc_training.crop_arrays import CropArrays
from ctc_training.dataset_folder import COLUMNS, open_dataset, write_dataset
from ctc_training.errors import DatasetError
from ctc_training.labelled import labelled_folder, rim_background
from ctc_training.plan import Plan, slides
from ctc_training.split import PARTS, assign_parts, check_images, check_scans, groups_of
from ctc_training.votes import soft_labels, votes_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.cli import main
from ctc_imaging.simulation import simulate_slide
from ctc_imaging.store.record import Review

CELLS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 9), st.sampled_from(["ctc", "leukocyte", "artefact"])),
    min_size=1,
    max_size=150,
)


def table_of(cells) -> pd.DataFrame:
    """Cells of patients; every patient's slides are of one or two batches, some of none."""
    rows = [
        {
            "patient_id": f"P{patient}",
            "batch": "" if slide == 9 else f"/B{(patient + slide // 5) % 7}",
            "scan_sha256": f"{patient}-{slide}",
            "target": target,
        }
        for patient, slide, target in cells
    ]
    return pd.DataFrame(rows)


@given(CELLS, st.integers(0, 5), st.sampled_from(["batch", "patient"]))
def test_no_patient_scan_or_batch_is_in_two_parts(cells, seed, by):
    table = table_of(cells)
    try:
        parts = assign_parts(table, seed, by)
    except DatasetError:
        kinds = table.assign(group=groups_of(table, by), is_ctc=table["target"] == "ctc")
        # Refused only where three parts can't each have a CTC and another cell, or hardly.
        assert kinds.groupby("is_ctc")["group"].nunique().reindex([True, False], fill_value=0).min() < 5
        return
    told = table.assign(part=parts)
    for column in ("patient_id", "scan_sha256", *(("batch",) if by == "batch" else ())):
        known = told[told[column] != ""]
        assert (known.groupby(column)["part"].nunique() == 1).all()
    for part in PARTS:
        own = told[told["part"] == part]
        assert (own["target"] == "ctc").any()
        assert (own["target"] != "ctc").any()


@given(CELLS, st.integers(0, 5))
def test_the_same_cells_and_seed_give_the_same_parts(cells, seed):
    table = table_of(cells)
    try:
        first = assign_parts(table, seed, "patient")
    except DatasetError:
        return
    np.testing.assert_array_equal(first, assign_parts(table.copy(), seed, "patient"))


def test_many_patients_are_parted_in_the_stated_shares():
    rng = np.random.default_rng(0)
    cells = [(patient, 9, "ctc" if rng.random() < 0.2 else "leukocyte") for patient in range(100) for _ in range(30)]
    parts = pd.Series(assign_parts(table_of(cells), 0)).value_counts(normalize=True)
    assert parts["train"] == pytest.approx(0.7, abs=0.03)
    assert parts["test"] == pytest.approx(0.15, abs=0.03)


def test_one_batch_can_only_be_parted_by_patient():
    """A laboratory's first run has one batch: that is said, and how to go on."""
    cells = [(patient, slide, target) for patient in range(6) for slide, target in enumerate(["ctc", "leukocyte"])]
    table = table_of(cells).assign(batch="/B1")
    with pytest.raises(DatasetError, match="use --split-by patient"):
        assign_parts(table)
    assert set(assign_parts(table, by="patient")) == set(PARTS)
    with pytest.raises(DatasetError, match="fewer than three patients"):
        assign_parts(table[table["patient_id"] < "P2"], by="patient")


def test_one_scan_under_two_names_is_refused():
    rows = pd.DataFrame({"run": ["a", "b"], "slide_id": ["S1", "S9"], "patient_id": ["P1", "P2"], "scan_sha256": "f"})
    with pytest.raises(DatasetError, match="a/S1 of P1: the very scan of b/S9 of P2"):
        check_scans(rows)
    check_scans(rows.assign(scan_sha256=["f", "g"]))


@pytest.mark.parametrize(("column", "what"), [("patient_id", "patients"), ("part", "parts")])
def test_one_image_of_two_patients_or_in_two_parts_is_refused(column, what):
    rows = pd.DataFrame(
        {"source": ["x", "y"], "cell_id": [1, 2], "patient_id": "P", "part": "test", "crop_sha256": "f"}
    )
    check_images(rows)
    with pytest.raises(DatasetError, match=f"in two {what}"):
        check_images(rows.assign(**{column: ["A", "B"]}))


def review(cell_id, call, reader, time="2026-01-01", phenotype="") -> Review:
    return Review(
        slide_id="S1", cell_id=cell_id, call=call, phenotype=phenotype, reader=reader, time=time, reason="",
        earlier_call="", model_hash="m", run_hash="r", slide_sha256="s",
    )  # fmt: skip


def test_votes_keep_every_readers_latest_word():
    said = [
        review(1, "leukocyte", "A", "2026-01-01"),
        review(1, "ctc", "A", "2026-01-03", "hybrid"),
        review(1, "ctc", "B", "2026-01-02", "hybrid"),
        review(1, "indeterminate", "C"),
        review(2, "artefact", "A"),
        review(2, "leukocyte", "B"),
        review(3, "indeterminate", "A"),
    ]
    votes = votes_of(said).set_index("cell_id")
    assert votes.loc[1, ["ctc", "leukocyte", "indeterminate"]].tolist() == [2, 0, 1]
    assert votes.loc[1, ["readers", "target", "phenotype"]].tolist() == ["A;B;C", "ctc", "hybrid"]
    assert not votes.loc[1, "disputed"]
    assert votes.loc[1, "agreement"] == pytest.approx(2 / 3)
    assert votes.loc[2, ["target", "disputed"]].tolist() == ["leukocyte", True]
    assert votes.loc[3, "target"] == ""
    np.testing.assert_allclose(soft_labels(votes.iloc[:2]), [[7 / 9, 1 / 9, 1 / 9], [0, 0.5, 0.5]], atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["ctc", "leukocyte", "artefact", "indeterminate"]),
                          st.sampled_from("ABCD")), min_size=1, max_size=30))  # fmt: skip
def test_soft_labels_sum_to_one_and_lean_to_the_majority(said):
    votes = votes_of(
        [review(cell, call, reader, f"2026-01-{day + 1:02}") for day, (cell, call, reader) in enumerate(said)]
    )
    soft = soft_labels(votes)
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)
    sure = ~votes["disputed"].to_numpy()
    named = np.array(["ctc", "leukocyte", "artefact"])[soft.argmax(axis=1)]
    assert (named[sure] == votes["target"][sure]).all()


def arrays(count: int, seed: int = 0) -> CropArrays:
    rng = np.random.default_rng(seed)
    return CropArrays(
        rng.normal(0, 5, (count, 4, 48, 48)).astype(np.float16),
        rng.integers(0, 256, (count, 2, 48, 48), np.uint8),
        np.ones((count, 4), np.float32),
        np.full((count, 3), np.nan, np.float32),
    )


def rows_of(count: int, **changes) -> pd.DataFrame:
    texts = dict.fromkeys(COLUMNS, "x")
    numbers = {"ctc": 1, "leukocyte": 0, "artefact": 0, "indeterminate": 0, "agreement": 1.0, "disputed": False}
    fixed = {**texts, **numbers, "weight": 1.0, "stands_for": 1, "target": "ctc", "origin": "reviewed", **changes}
    return pd.DataFrame([{**fixed, "cell_id": number} for number in range(count)])


@settings(max_examples=8)
@given(st.lists(st.tuples(st.sampled_from(PARTS), st.integers(0, 4)), max_size=6))
def test_what_was_added_comes_back_in_its_order(tmp_path_factory, added):
    folder = tmp_path_factory.mktemp("sets") / "set"
    expected: dict[str, list[np.ndarray]] = {part: [] for part in PARTS}
    with write_dataset(folder) as writer:
        for number, (part, count) in enumerate(added):
            crops = arrays(count, number)
            writer.add(part, crops, rows_of(count, source=f"s{number}"))
            expected[part].append(crops.roles)
        writer.finish({"simulated_truth": {}})
    found = open_dataset(folder)
    for part in PARTS:
        crops = found.part(part)
        together = np.concatenate([np.empty((0, 4, 48, 48), np.float16), *expected[part]])
        np.testing.assert_array_equal(crops.roles, together)
        assert isinstance(crops.roles, np.memmap) or not len(crops)
        assert len(found.rows(part)) == len(crops)


def small_set(folder):
    with write_dataset(folder) as writer:
        writer.add("test", arrays(3), rows_of(3))
        writer.finish({"simulated_truth": {}})
    return folder


@pytest.mark.parametrize("name", ["cells.csv", "test/roles.npy", "train/snr.npy"])
def test_a_changed_training_set_is_refused(tmp_path, name):
    folder = small_set(tmp_path / "set")
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(DatasetError, match="not as it was made"):
        open_dataset(folder)


def test_a_training_set_is_never_changed_and_half_of_one_never_stands(tmp_path):
    folder = small_set(tmp_path / "set")
    before = open_dataset(folder).hash
    with pytest.raises(DatasetError, match="there already"), write_dataset(folder):
        pass
    assert open_dataset(folder).hash == before

    def fail():
        with write_dataset(tmp_path / "half") as writer:
            writer.add("test", arrays(2), rows_of(2))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_is_no_training_set_is_told(tmp_path, capsys):
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "m")]) == 2
    assert "no training set here; make one with ctc-imaging dataset" in capsys.readouterr().err
    assert main(["dataset", str(tmp_path / "set")]) == 2
    assert "nothing to learn from" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sorted_crops(tmp_path_factory):
    """Crops of a simulated slide, sorted into folders as a person would, 64 px wide; one of them is empty."""
    folder = tmp_path_factory.mktemp("labelled") / "hospital"
    slide = simulate_slide((512, 512), ctc=12, leukocytes=40, seed=77)
    rng = np.random.default_rng(0)
    lines = ["file,patient_id,batch"]
    for number, thing in enumerate(slide.truth.to_dict("records")):
        y, x = (int(thing[name] / slide.pixel_size_um) for name in ("y_um", "x_um"))
        inside = 32 <= y < 480 and 32 <= x < 480
        if inside and thing["class"] in ("ctc", "leukocyte"):
            file = f"{thing['class']}/{number}.tif"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            crop = slide.image[:, y - 32 : y + 32, x - 32 : x + 32]
            tifffile.imwrite(folder / file, crop, photometric="minisblack")
            lines.append(f"{file},P{number % 9},B{number % 9}")
    (folder / "artefact").mkdir()
    nothing = rng.normal(100, 3, (4, 64, 64)).astype(np.float32)
    tifffile.imwrite(folder / "artefact" / "nothing.tif", nothing, photometric="minisblack")
    (folder / "cells.csv").write_text("\n".join([*lines, "artefact/nothing.tif,P1,B1"]) + "\n")
    (folder / "crops.yaml").write_text("panel: emt-4\npixel_size_um: 0.5\ntable: cells.csv\n")
    return folder


def test_a_folder_of_labelled_crops_becomes_a_training_set(sorted_crops, tmp_path, capsys):
    out = tmp_path / "set"
    assert main(["dataset", str(out), "--crops", str(sorted_crops), "--json"]) == 0
    said = capsys.readouterr()
    found = open_dataset(out)
    files = len(list(sorted_crops.rglob("*.tif")))
    assert f"of {files} crops of hospital left out: no cell in their middle" in said.err
    assert len(found.cells) >= 0.8 * files
    assert json.loads(said.out)["sha256"] == found.hash
    crops = found.part("train")
    middle = crops.roles[:, :, 20:28, 20:28].astype(float).mean((2, 3))
    assert np.median(middle[crops.target == 0, 1]) > 5 > np.median(middle[crops.target == 1, 1])
    assert (crops.masks[:, 0, 24, 24] > 0).mean() > 0.9
    assert found.facts["origins"] == {"labelled": len(found.cells)}


def test_the_rim_tells_level_and_noise():
    rng = np.random.default_rng(3)
    image = rng.normal(500, 8, (2, 96, 96))
    image[:, 30:66, 30:66] += 4000
    found = rim_background(image)
    np.testing.assert_allclose(found.level.ravel(), 500, atol=2)
    np.testing.assert_allclose(found.noise.ravel(), 8, rtol=0.15)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "nothing says what the crops are"),
        ("panel: emt-4\n", "panel or pixel_size_um is missing"),
        ("panel: emt-4\npixel_size_um: 5000\n", "isn't one of a light microscope"),
        ("panel: emt-4\npixel_size_um: 0.5\ncolour: red\n", "'colour' isn't known"),
        ("panel: [\n", "can't be read"),
        ("panel: emt-4\npixel_size_um: 0.5\n", "no labelled crops here"),
    ],
)
def test_a_folder_that_does_not_say_what_it_is_is_refused(tmp_path, text, said):
    if text is not None:
        (tmp_path / "crops.yaml").write_text(text)
    with pytest.raises(DatasetError, match=said):
        labelled_folder(tmp_path)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((3, 64, 64), np.uint16), r"shape \(3, 64, 64\), panel emt-4 needs \(4, Y, X\)"),
        (np.zeros((4, 8, 8), np.uint16), "no crop of a cell"),
        (None, "can't be read as TIFF"),
    ],
)
def test_a_crop_that_is_none_is_refused(tmp_path, image, said):
    (tmp_path / "ctc").mkdir()
    (tmp_path / "crops.yaml").write_text("panel: emt-4\npixel_size_um: 0.5\n")
    if image is None:
        (tmp_path / "ctc" / "a.tif").write_bytes(b"not an image")
    else:
        tifffile.imwrite(tmp_path / "ctc" / "a.tif", image, photometric="minisblack")
    folder = labelled_folder(tmp_path)
    with pytest.raises(DatasetError, match=said):
        folder.cut(folder.table["path"][0])


def test_simulated_slides_keep_their_parts_and_their_truth(tmp_path):
    own = [slides({"standard": 1}, seed, ctc=10, leukocytes=30, shape_px=(256, 256)) for seed in (1, 2001, 4001)]
    made = make_dataset(tmp_path / "set", Choice(plan=Plan(*own)))
    for part, recipes in zip(PARTS, own, strict=True):
        assert set(made.rows(part)["source"]) == {recipes[0].source}
        assert made.truth(part)[recipes[0].source] == {"ctc": 10, "leukocyte": 30}
        assert not np.isnan(made.part(part).snr[:, 0]).all()
