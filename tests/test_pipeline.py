"""One slide, start to end: the contract's files and columns, the same bytes for any tile size, typed refusals."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from ctc_imaging.cohort import SlideEntry
from ctc_imaging.config import Settings
from ctc_imaging.errors import PanelError, SlideError
from ctc_imaging.pipeline import process_slide
from ctc_imaging.simulation import simulate_slide, write_slide

COLUMNS = """
cell_id y_um x_um y_px x_px area_um2 diameter_um nucleus_area_um2 eccentricity solidity
dapi_mean dapi_snr ck_mean ck_snr vim_mean vim_snr cd45_mean cd45_snr
call p_ctc p_leukocyte p_artefact phenotype cluster_id cluster_kind focus at_edge edges assessed
""".split()  # noqa: SIM905 (a list literal would be thirty lines)


def entry(slide: Path, **changes) -> SlideEntry:
    plain = SlideEntry(
        slide=slide,
        patient_id="P1",
        sample_date=datetime.date(2026, 1, 1),
        blood_volume_ml=5.0,
        slide_id="S1",
        sample_id="P1-2026-01-01",
        sample_kind="patient",
        spiked_cells=None,
        volume_on_slide_ml=5.0,
        rescan_of=None,
        batch=None,
        site=None,
        panel=None,
        pixel_size_um=None,
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slide")
    slide = simulate_slide((700, 900), ctc=25, leukocytes=250, seed=424242)
    write_slide(slide, folder)
    return folder / "slide.ome.tif", slide.truth


@pytest.fixture(scope="module")
def done(simulated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    summary = process_slide(entry(simulated[0]), folder, Settings())
    return folder, pd.read_parquet(folder / "cells.parquet"), summary


def test_all_of_the_contracts_files_and_columns_are_there(done):
    folder, cells, summary = done
    assert {path.name for path in folder.iterdir()} == {
        *("cells.parquet", "labels.ome.zarr", "crops.zarr", "quality.json", "overview.png", "quality.png")
    }
    assert list(cells.columns) == COLUMNS
    assert cells["at_edge"].dtype == bool
    assert summary["cells"] == len(cells)
    assert json.loads((folder / "quality.json").read_text(encoding="utf-8"))["assessable"] is True


def test_the_planted_ctcs_are_found(done, simulated):
    _, cells, _ = done
    truth = simulated[1]
    planted = truth.loc[truth["class"] == "ctc", ["y_um", "x_um"]].to_numpy()
    called = cells.loc[cells["call"] == "ctc", ["y_um", "x_um"]].to_numpy()
    away = np.linalg.norm(planted[:, None] - called[None], axis=2)
    assert (away.min(axis=1) < 4).mean() >= 0.9
    assert (away.min(axis=0) < 6).mean() >= 0.9


def test_probabilities_add_up_and_only_ctcs_have_a_phenotype(done):
    _, cells, _ = done
    assert np.allclose(cells[["p_ctc", "p_leukocyte", "p_artefact"]].sum(axis=1), 1, atol=1e-5)
    assert set(cells["call"]) <= {"ctc", "leukocyte", "artefact", "indeterminate"}
    ctc = cells["call"] == "ctc"
    assert set(cells.loc[ctc, "phenotype"]) <= {"epithelial", "hybrid", "mesenchymal"}
    assert (cells.loc[~ctc, "phenotype"] == "").all()


def test_labels_crops_and_table_name_the_same_cells(done):
    folder, cells, _ = done
    labels = zarr.open_group(folder / "labels.ome.zarr", mode="r")
    assert labels.attrs["multiscales"][0]["version"] == "0.4"
    assert set(np.unique(labels["0"][0])) - {0} == set(cells["cell_id"])
    crops = zarr.open_group(folder / "crops.zarr", mode="r")
    candidates = cells.loc[cells["call"].isin(["ctc", "indeterminate"]), "cell_id"]
    assert crops["cell_id"][:].tolist() == candidates.tolist()
    assert crops["crops"].shape[1:] == (4, 48, 48)


@pytest.mark.parametrize("tile_px", [256, 500])
def test_the_tile_size_changes_no_byte(done, simulated, tmp_path, tile_px):
    process_slide(entry(simulated[0]), tmp_path, Settings(tile_px=tile_px))
    assert (tmp_path / "cells.parquet").read_bytes() == (done[0] / "cells.parquet").read_bytes()


def test_a_three_marker_panel_leaves_the_phenotype_undetermined(tmp_path):
    write_slide(simulate_slide((600, 600), ctc=15, leukocytes=100, seed=7, panel="epithelial-3"), tmp_path)
    folder = tmp_path / "done"
    folder.mkdir()
    process_slide(entry(tmp_path / "slide.ome.tif"), folder, Settings(panel="epithelial-3"))
    cells = pd.read_parquet(folder / "cells.parquet")
    assert set(cells.loc[cells["call"] == "ctc", "phenotype"]) == {"undetermined"}
    assert (cells["call"] == "ctc").sum() >= 12


def test_a_slide_of_another_panel_is_refused(simulated, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        'name: own\nchannels: [{short: dna, role: nucleus, colour: "#0000ff", aliases: [SYTOX]}]\n'
        "clusters: {name: near, min_ctc: 2, max_gap_um: 1}\n",
        encoding="utf-8",
    )
    with pytest.raises(PanelError, match="dna"):
        process_slide(entry(simulated[0], panel=str(own)), tmp_path, Settings())


def test_a_slide_without_a_scale_needs_one(tmp_path):
    path = tmp_path / "plain.tif"
    image = simulate_slide((300, 300), ctc=2, leukocytes=20, seed=1).image
    tifffile.imwrite(path, image, photometric="minisblack", metadata=None)
    with pytest.raises(SlideError, match="pixel_size_um"):
        process_slide(entry(path), tmp_path / "a", Settings())
    (tmp_path / "b").mkdir()
    assert process_slide(entry(path, pixel_size_um=0.5), tmp_path / "b", Settings())["cells"] > 10


def test_an_empty_slide_has_zero_cells_and_says_why_it_is_not_assessable(tmp_path):
    write_slide(simulate_slide((300, 300), ctc=0, leukocytes=0, seed=1), tmp_path)
    folder = tmp_path / "done"
    folder.mkdir()
    process_slide(entry(tmp_path / "slide.ome.tif"), folder, Settings())
    cells = pd.read_parquet(folder / "cells.parquet")
    assert list(cells.columns) == COLUMNS
    assert not (cells["call"] == "ctc").any()
    assert json.loads((folder / "quality.json").read_text(encoding="utf-8"))["reasons"]


def test_where_cells_cannot_be_told_apart_less_blood_counts_as_assessed(tmp_path):
    slide = simulate_slide((700, 700), ctc=5, leukocytes=80, seed=11)
    slide.image[0, 200:500, 50:650] = 60_000  # a fold: stained without a gap over 300 µm, brighter than any raise
    write_slide(slide, tmp_path)
    folder = tmp_path / "done"
    folder.mkdir()
    summary = process_slide(entry(tmp_path / "slide.ome.tif"), folder, Settings())
    quality = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    assert any("can't be told apart" in reason for reason in quality["reasons"])
    assert summary["assessed_fraction"] < 0.7
