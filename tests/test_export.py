"""Exports hold the cells as they are counted: outlines to the pixel, calls after reviews, and what they came from."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ctc_imaging.cli import main
from ctc_imaging.errors import ConfigError, CtcImagingError, RunError
from ctc_imaging.export import read_slides, write_geojson, write_plate, write_spatialdata
from ctc_imaging.export.polygons import outlines_of
from ctc_imaging.export.spatial import element_names
from ctc_imaging.store.labels import open_labels
from ctc_imaging.store.outline_marks import ADDED_FROM
from ctc_imaging.store.reviews import import_reviews
from ctc_imaging.store.run_folder import RunFolder

from .reviewed_fixture import make_run

PIXEL_UM = 0.5


@pytest.fixture(scope="module")
def machine(tmp_path_factory) -> RunFolder:
    """A run of two simulated slides, nobody has reviewed it."""
    return RunFolder(make_run(tmp_path_factory.mktemp("export"), patients=2, batches=0))


@pytest.fixture(scope="module")
def reviewed(machine, tmp_path_factory) -> tuple[RunFolder, dict[str, int]]:
    """The same run; on S0 a reader overruled a CTC, drew one outline, marked one wrong, merged a cell, added one."""
    folder = tmp_path_factory.mktemp("reviewed")
    run = RunFolder(shutil.copytree(machine.path, folder / "run"))
    cells = pd.read_parquet(run.slide("S0") / "cells.parquet")
    ctc, leukocytes = (list(cells.loc[cells["call"] == call, "cell_id"]) for call in ("ctc", "leukocyte"))
    ids = {"overruled": ctc[0], "drawn": ctc[1], "wrong": ctc[2], "merged": leukocytes[0], "added": ADDED_FROM}
    rows = [
        ("overruled", "artefact", "call", {}),
        ("drawn", "", "outline", {"polygon_um": [[10, 20], [10, 30], [20, 30], [20, 20]]}),
        ("wrong", "", "outline", {"wrong": True}),
        ("merged", "", "merge", {"into": int(ctc[0])}),
        ("added", "", "add", {"point_um": [50.0, 60.0]}),
        ("added", "ctc", "call", {}),
    ]
    table = pd.DataFrame(
        [
            {
                "slide_id": "S0",
                "cell_id": int(ids[name]),
                "call": call or "leukocyte",
                "reader": "A. Reader",
                "reason": "dust" if name == "overruled" else "",
                "action": action,
                "detail": json.dumps(detail) if detail else "",
                "time": f"2026-01-06T10:00:0{second}+00:00",
            }
            for second, (name, call, action, detail) in enumerate(rows)
        ]
    )
    table.to_csv(folder / "reviews.csv", index=False)
    import_reviews(run, folder / "reviews.csv")
    return run, {name: int(cell) for name, cell in ids.items()}


def cells_of(run: RunFolder, slide_id: str) -> pd.DataFrame:
    return pd.read_parquet(run.slide(slide_id) / "cells.parquet").set_index("cell_id")


# Outlines


def painted(polygons, shape) -> np.ndarray:
    """Fill rings by the even-odd rule, a pixel being inside where its centre is."""
    y, x = np.indices(shape) + 0.5
    inside = np.zeros(shape, bool)
    for polygon in polygons:
        for ring in polygon:
            assert ring[0] == ring[-1]
            for (x0, y0), (x1, y1) in pairwise(ring):
                assert (x0 == x1) != (y0 == y1)
                inside ^= (x0 == x1) & (x < x0) & (min(y0, y1) < y) & (y < max(y0, y1))
    return inside


@given(arrays.arrays(np.uint32, (2, 9, 11), elements=st.sampled_from([0, 0, 1, 7])), st.integers(1, 10))
def test_outlines_painted_again_are_the_labels(labels, rows):
    found = {outline.cell_id: outline for outline in outlines_of(labels, rows)}
    assert set(found) == set(np.unique(labels)) - {0}
    for cell_id, outline in found.items():
        for plane, polygons in enumerate((outline.cell, outline.nucleus)):
            assert (painted(polygons, labels.shape[1:]) == (labels[plane] == cell_id)).all()


@given(arrays.arrays(np.uint32, (2, 9, 11), elements=st.sampled_from([0, 1, 7])), st.integers(1, 10))
def test_bands_change_nothing(labels, rows):
    assert sorted(outlines_of(labels, rows)) == sorted(outlines_of(labels))


def test_a_ring_that_touches_itself_at_a_corner_is_a_hole_and_not_a_knot():
    ring = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]], np.uint32)
    (outline,) = outlines_of(np.stack([ring, np.zeros_like(ring)]))
    ((outer, *holes),) = outline.cell
    assert len(holes) == 2
    for corners in (outer, *holes):
        assert len({tuple(corner) for corner in corners[:-1]}) == len(corners) - 1


def test_a_cell_over_many_bands_is_one():
    labels = np.zeros((2, 300, 20), np.uint32)
    labels[0, 5:290, 3:9] = 4
    (outline,) = outlines_of(labels, rows=16)
    assert outline.cell == [[[[3, 5], [9, 5], [9, 290], [3, 290], [3, 5]]]]


# GeoJSON


def features_of(run: RunFolder, slide_id: str, target: Path, calls=()) -> dict[int, dict]:
    (slide,) = read_slides(run, [slide_id], calls)
    count = write_geojson(slide, target, run.read()["hash"])
    collection = json.loads(target.read_text(), parse_constant=pytest.fail)
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == count
    return {int(feature["properties"]["name"]): feature for feature in collection["features"]}


def ring_area(ring) -> float:
    x, y = np.array(ring, float).T
    return abs(np.dot(x[:-1], y[1:]) - np.dot(y[:-1], x[1:])) / 2


def parts_of(geometry) -> list:
    return [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]


def test_geojson_has_every_cell_with_its_area_class_and_measurements(machine, tmp_path):
    features, cells = features_of(machine, "S0", tmp_path / "S0.geojson"), cells_of(machine, "S0")
    assert set(features) == set(cells.index)
    labels = np.asarray(open_labels(machine.slide("S0") / "labels.ome.zarr"))
    for cell_id, feature in features.items():
        row, properties = cells.loc[cell_id], feature["properties"]
        geometry = feature["geometry"]
        areas = sum(ring_area(outer) - sum(map(ring_area, holes)) for outer, *holes in parts_of(geometry))
        assert areas * PIXEL_UM**2 == pytest.approx(row["area_um2"])
        assert (painted(parts_of(geometry), labels.shape[1:]) == (labels[0] == cell_id)).all()
        assert ("nucleusGeometry" in feature) == (row["nucleus_area_um2"] > 0)
        assert properties["objectType"] == ("cell" if row["nucleus_area_um2"] > 0 else "detection")
        assert properties["classification"]["name"] == row["call"] + (
            f": {row['phenotype']}" if row["phenotype"] else ""
        )
        assert len(properties["classification"]["color"]) == 3
        assert properties["measurements"]["p_ctc"] == pytest.approx(row["p_ctc"], rel=1e-5)
        assert properties["measurements"]["ck_snr"] == pytest.approx(row["ck_snr"], rel=1e-5)
        assert properties["metadata"]["reviewed"] == "no"


def test_geojson_follows_the_reviews(reviewed, tmp_path):
    run, ids = reviewed
    features = features_of(run, "S0", tmp_path / "S0.geojson")
    overruled = features[ids["overruled"]]["properties"]
    assert overruled["classification"]["name"] == "artefact"
    assert overruled["metadata"]["machine_call"] == "ctc"
    assert overruled["metadata"]["reader"] == "A. Reader"
    assert ids["merged"] not in features
    # 10 µm are 20 pixels; QuPath counts from the first pixel's corner, a run from its centre.
    drawn = features[ids["drawn"]]
    assert drawn["geometry"]["coordinates"] == [[[40.5, 20.5], [60.5, 20.5], [60.5, 40.5], [40.5, 40.5], [40.5, 20.5]]]
    assert drawn["properties"]["metadata"]["outline"] == "drawn"
    assert features[ids["wrong"]]["properties"]["metadata"]["outline"] == "marked wrong"
    added = features[ids["added"]]
    assert added["geometry"] == {"type": "Point", "coordinates": [120.5, 100.5]}
    assert added["properties"]["classification"]["name"] == "ctc: undetermined"
    assert "ck_snr" not in added["properties"]["measurements"]


def test_the_same_cell_has_the_same_id_each_time_and_no_other_cell_has_it(machine, reviewed, tmp_path):
    first = features_of(machine, "S0", tmp_path / "a.geojson")
    again = features_of(reviewed[0], "S0", tmp_path / "b.geojson")
    other = features_of(machine, "S1", tmp_path / "c.geojson")
    assert all(first[cell]["id"] == again[cell]["id"] for cell in set(first) & set(again))
    assert len({feature["id"] for slide in (first, other) for feature in slide.values()}) == len(first) + len(other)


def test_calls_choose_after_the_reviews(reviewed, tmp_path):
    run, ids = reviewed
    features = features_of(run, "S0", tmp_path / "S0.geojson", calls=["ctc"])
    assert ids["overruled"] not in features
    assert ids["added"] in features
    assert all(feature["properties"]["classification"]["name"].startswith("ctc") for feature in features.values())


# AnnData


def test_h5ad_is_the_table_of_cells(reviewed, tmp_path, capsys):
    anndata = pytest.importorskip("anndata")
    run, ids = reviewed
    assert main(["export", str(run.path), str(tmp_path / "cells.h5ad"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    table = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert (told["cells"], told["slides"], told["format"]) == (table.n_obs, 2, "h5ad")
    s1, cells = table[table.obs["slide_id"] == "S1"], cells_of(run, "S1")
    assert list(table.var_names) == list(run.panel().shorts)
    assert list(s1.obs["cell_id"]) == list(cells.index)
    assert list(s1.obs["call"].astype(str)) == list(cells["call"])
    np.testing.assert_array_equal(s1[:, "ck"].X.ravel(), cells["ck_snr"].to_numpy(np.float32))
    np.testing.assert_array_equal(s1[:, "ck"].layers["mean"].ravel(), cells["ck_mean"].to_numpy(np.float32))
    np.testing.assert_array_equal(s1.obsm["spatial"], cells[["x_um", "y_um"]])
    overruled = table.obs.loc[f"S0:{ids['overruled']}"]
    assert (overruled["call"], overruled["machine_call"], overruled["reader"]) == ("artefact", "ctc", "A. Reader")
    assert np.isnan(table[f"S0:{ids['added']}"].X).all()
    origin = table.uns["ctc_imaging"]
    assert origin["run_hash"] == run.read()["hash"]
    assert origin["simulated"] == run.read()["simulated"]
    assert json.loads(origin["panels"])[run.panel().name]["channels"][1]["short"] == "ck"
    assert len(table.uns["call_colors"]) == len(table.obs["call"].cat.categories)


def test_without_anndata_the_error_says_what_to_install(machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "anndata", None)
    assert main(["export", str(machine.path), str(tmp_path / "cells.h5ad")]) == 2
    assert "pip install 'ctc-imaging[export]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# SpatialData


@pytest.fixture(scope="module")
def store(reviewed, tmp_path_factory) -> Path:
    pytest.importorskip("anndata")
    target = tmp_path_factory.mktemp("spatial") / "run.zarr"
    assert main(["export", str(reviewed[0].path), str(target)]) == 0
    return target


def test_label_images_are_those_of_the_run(reviewed, store):
    run, _ = reviewed
    root = zarr.open_group(store, mode="r")
    assert root.attrs["spatialdata_attrs"]["version"] == "0.1"
    assert root["labels"].attrs["labels"] == ["S0_cells", "S0_nuclei", "S1_cells", "S1_nuclei"]
    for slide_id in ("S0", "S1"):
        labels = np.asarray(open_labels(run.slide(slide_id) / "labels.ome.zarr"))
        for plane, kind in enumerate(("cells", "nuclei")):
            group = root[f"labels/{slide_id}_{kind}"]
            (scale,) = group.attrs["multiscales"]
            assert scale["version"] == "0.4"
            assert scale["coordinateTransformations"][0]["scale"] == [PIXEL_UM, PIXEL_UM]
            assert scale["coordinateTransformations"][0]["output"]["name"] == slide_id
            np.testing.assert_array_equal(group[scale["datasets"][0]["path"]][:], labels[plane])


def test_rows_of_the_table_name_their_label(reviewed, store):
    import anndata

    run, ids = reviewed
    table = anndata.io.read_elem(zarr.open_group(store, mode="r")["tables/cells"])
    keys = table.uns["spatialdata_attrs"]
    assert (keys["region_key"], keys["instance_key"]) == ("region", "cell_id")
    assert list(keys["region"]) == ["S0_cells", "S1_cells"]
    labels = np.asarray(open_labels(run.slide("S0") / "labels.ome.zarr")[0])
    named = set(table.obs.loc[table.obs["region"] == "S0_cells", "cell_id"])
    assert set(np.unique(labels)) - {0} == named - {ids["added"]} | {ids["merged"]}
    # Places count from the corner of the first pixel, as the labels' coordinates do.
    place = table.obsm["spatial"][list(table.obs_names).index("S1:1")]
    rows, columns = np.nonzero(open_labels(run.slide("S1") / "labels.ome.zarr")[0] == 1)
    assert place == pytest.approx([(columns.mean() + 0.5) * PIXEL_UM, (rows.mean() + 0.5) * PIXEL_UM])


def test_spatialdata_opens_it(store):
    spatialdata = pytest.importorskip("spatialdata")
    opened = spatialdata.read_zarr(store)
    assert set(opened.labels) == {"S0_cells", "S0_nuclei", "S1_cells", "S1_nuclei"}
    assert set(opened.coordinate_systems) == {"S0", "S1"}


def test_a_store_that_exists_is_not_touched(machine, store):
    before = sorted(store.rglob("*"))
    with pytest.raises(ConfigError, match="exists already"):
        write_spatialdata(read_slides(machine), store, machine.read())
    assert sorted(store.rglob("*")) == before


def test_a_store_is_there_whole_or_not_at_all(machine, tmp_path, monkeypatch):
    pytest.importorskip("anndata")
    monkeypatch.setattr("ctc_imaging.export.spatial.sync_tree", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_spatialdata(read_slides(machine), tmp_path / "run.zarr", machine.read())
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.text(min_size=1, max_size=8), max_size=8, unique=True))
def test_names_of_elements_are_all_different_and_allowed(slide_ids):
    names = list(element_names(slide_ids).values())
    assert len({name.lower() for name in names}) == len(slide_ids)
    assert all(character.isalnum() or character in "_.-" for name in names for character in name)
    assert not any(name.startswith(("_", ".")) for name in names)


# Plates


def test_a_plate_has_a_row_a_ctc_at_300_dpi(machine, tmp_path):
    from PIL import Image

    cells = pd.concat([cells_of(machine, slide_id).assign(slide_id=slide_id) for slide_id in ("S0", "S1")])
    counted = cells[(cells["call"] == "ctc") & ~cells["edges"].str.contains("bottom|right")]
    plate = write_plate(read_slides(machine, calls=["ctc"]), tmp_path / "plate.png", machine.read())
    assert plate.cells == len(counted)
    assert plate.without_crop == ()
    assert [file.name for file in plate.files][:2] == ["plate.png", "plate-2.png"]
    assert sorted(tmp_path.iterdir()) == sorted(plate.files)
    with Image.open(plate.files[0]) as picture:
        assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert picture.info["Comment"] == f"run {machine.read()['hash']}"
        # As wide as the two columns of a page, 180 mm.
        assert picture.width / 300 * 25.4 < 180


def test_chosen_cells_come_in_their_order(machine, tmp_path, capsys):
    ctcs = [int(cell) for cell in cells_of(machine, "S0").query("call == 'ctc'").index[:2]]
    (leukocyte,) = cells_of(machine, "S1").query("call == 'leukocyte'").index[:1]
    table = pd.DataFrame({"slide_id": ["S0", "S0", "S1"], "cell_id": [ctcs[1], ctcs[0], leukocyte]})
    table.to_csv(tmp_path / "cells.csv", index=False)
    arguments = ["export", str(machine.path), str(tmp_path / "a.png"), "--cells", str(tmp_path / "cells.csv")]
    assert main(arguments) == 0
    assert f"1 cell(s) left out, without a crop or call of these, as {leukocyte} of S1" in capsys.readouterr().err
    table.iloc[[1, 0]].to_csv(tmp_path / "cells.csv", index=False)
    arguments[2] = str(tmp_path / "b.png")
    assert main(arguments) == 0
    first, second = (cv2.imread(str(tmp_path / name)).astype(int) for name in ("a.png", "b.png"))
    assert first.shape == second.shape
    # The tiles of the two rows, without the words beside them: what stood above now stands below.
    tiles = [picture[59 + row * 149 : 59 + row * 149 + 141, 240:950] for picture in (first, second) for row in (0, 1)]
    assert np.abs(tiles[0] - tiles[3]).mean() < 1 < np.abs(tiles[0] - tiles[2]).mean()


def test_a_plate_of_simulated_slides_says_so_in_full(machine, tmp_path):
    chosen = [("S0", int(cells_of(machine, "S0").query("call == 'ctc'").index[0]))]
    pictures = []
    for simulated in (False, True):
        file = tmp_path / f"{simulated}.png"
        write_plate(read_slides(machine, ["S0"]), file, {**machine.read(), "simulated": simulated}, chosen)
        pictures.append(cv2.imread(str(file)))
    changed = np.argwhere((pictures[0] != pictures[1]).any(2))
    # Only below the cell, and with room to the right.
    assert changed[:, 0].min() > pictures[0].shape[0] - 75
    assert changed[:, 1].max() < pictures[0].shape[1] - 20


def test_a_plate_of_nothing_is_refused(machine, tmp_path):
    with pytest.raises(RunError, match="no such cell has a crop"):
        write_plate(read_slides(machine, ["S0"], ["leukocyte"]), tmp_path / "plate.png", machine.read())
    assert list(tmp_path.iterdir()) == []


# The command


def test_geojson_of_a_run_is_a_folder_with_a_file_a_slide(machine, tmp_path, capsys):
    assert main(["export", str(machine.path), str(tmp_path / "qupath"), "--as", "geojson"]) == 0
    assert sorted(file.name for file in (tmp_path / "qupath").iterdir()) == ["S0.geojson", "S1.geojson"]
    assert "cells\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        ("cells.txt", [], "cells.txt doesn't tell the format; give --as geojson|h5ad|spatialdata|plate"),
        ("cells.h5ad", ["--as", "csv"], "'csv' isn't known"),
        ("cells.png", ["--as", "h5ad"], "h5ad isn't named so; name it .h5ad"),
        ("cells.geojson", [], "one file can't hold 2 slides; name a folder, or one slide by --slide"),
        ("cells.h5ad", ["--slide", "S9"], "'S9' isn't a slide with results in this run; name one that is done"),
        ("cells.h5ad", ["--calls", "ctc,dust"], "'dust' isn't known; use some of ctc,leukocyte,artefact"),
        ("cells.h5ad", ["--cells", "cells.csv"], "only a plate is made of chosen cells"),
    ],
)
def test_bad_use_is_told_in_one_line(machine, tmp_path, capsys, target, options, told):
    assert main(["export", str(machine.path), str(tmp_path / target), *options]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_slide_is_named(machine, tmp_path):
    run = RunFolder(shutil.copytree(machine.path, tmp_path / "run"))
    (run.slide("S1") / "cells.parquet").write_bytes(b"no table")
    with pytest.raises(CtcImagingError, match=r"slides/S1: its results are damaged"):
        list(read_slides(run))
