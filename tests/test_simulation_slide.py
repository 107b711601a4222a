"""A simulated slide: its truth is in its pixels, its bytes follow from its seed, its file is a proper OME-TIFF."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import ConfigError
from ctc_imaging.files import sha256_file
from ctc_imaging.panel import load_panel
from ctc_imaging.simulation import SETTINGS, simulate_slide, write_slide
from ctc_imaging.simulation.cells import Look, render_cell
from ctc_imaging.simulation.dirt import render_dirt
from ctc_imaging.simulation.slide import simulate_with

FIRST_COLUMNS = ["y_um", "x_um", "class", "phenotype", "diameter_um", "cluster_id"]
SNR = {"dapi": 30.0, "ck": 12.0, "vim": 8.0, "cd45": 5.0}
CLEAN = replace(
    SETTINGS["standard"],
    dye_aggregates=0,
    debris=0,
    naked_nuclei=0,
    fibres=0,
    ck_fragments=0,
    platelets=0,
    bleed_through=0,
    ctc_clustered_fraction=0,
    ctc_leukocyte_cluster_fraction=0,
)


@pytest.fixture(scope="module")
def slide():
    return simulate_slide((700, 600), ctc=8, leukocytes=150, seed=3)


def measured_snr(slide, channel, rows):
    """Mean over each cell's circle less its surroundings, over the noise of these: blind to the simulator's insides."""
    plane = slide.image[channel].astype(float)
    reach = 34
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    values = []
    for row in rows.itertuples():
        centre = round(row.y_um / 0.5), round(row.x_um / 0.5)
        patch = plane[centre[0] - reach : centre[0] + reach + 1, centre[1] - reach : centre[1] + reach + 1]
        if patch.shape != y.shape:
            values.append(np.nan)
            continue
        distance = np.hypot(y, x)
        around = patch[(distance > row.diameter_um + 8) & (distance < reach)]
        level = np.median(around)
        noise = 1.4826 * np.median(np.abs(around - level))
        values.append((patch[distance <= row.diameter_um].mean() - level) / noise)
    return np.array(values)


@pytest.mark.parametrize(
    ("who", "channel", "column"),
    [("ctc", 1, "snr_ck"), ("leukocyte", 2, "snr_vim"), ("leukocyte", 3, "snr_cd45")],
)
def test_the_true_snr_is_what_one_measures_on_the_slide(who, channel, column):
    slide = simulate_with(CLEAN, (1100, 1100), ctc=60, leukocytes=60, seed=1)
    rows = slide.truth[(slide.truth["class"] == who) & (slide.truth[column] > 3)]
    ratio = measured_snr(slide, channel, rows) / rows[column].to_numpy()
    # The point spread takes a little out of the cell.
    assert 0.85 < np.nanmedian(ratio) < 1.02


def test_truth_lists_every_cell_under_its_class(slide):
    counts = slide.truth["class"].value_counts()
    assert counts["ctc"] == 8
    assert counts["leukocyte"] == 150
    assert set(slide.truth["class"]) == {"ctc", "leukocyte", "artefact"}
    cells = slide.truth["kind"].isin(["ctc", "leukocyte"])
    assert (slide.truth["class"][cells] == slide.truth["kind"][cells]).all()
    assert (slide.truth["class"][~cells] == "artefact").all()
    assert list(slide.truth.columns[:6]) == FIRST_COLUMNS


def test_only_ctcs_have_a_phenotype_and_it_follows_the_true_snr(slide):
    is_ctc = slide.truth["class"] == "ctc"
    assert (slide.truth["phenotype"][~is_ctc] == "").all()
    ctc = slide.truth[is_ctc]
    hybrid = (ctc["snr_ck"] >= 3) & (ctc["snr_vim"] >= 3)
    assert ((ctc["phenotype"] == "hybrid") == hybrid).all()


def test_there_is_a_nucleus_where_the_truth_says_so(slide):
    cells = slide.truth[slide.truth["class"].isin(["ctc", "leukocyte"])]
    y, x = (cells[["y_um", "x_um"]].to_numpy() / 0.5).round().astype(int).T
    dapi = slide.image[0].astype(float)
    around = np.array([dapi[max(a - 9, 0) : a + 10, max(b - 9, 0) : b + 10].max() for a, b in zip(y, x, strict=True)])
    noise = 1.4826 * np.median(np.abs(dapi - np.median(dapi)))
    assert (around > np.median(dapi) + 6 * noise).all()


def test_channels_are_the_panels_under_names_that_the_panel_knows(slide):
    assert slide.image.shape == (4, 700, 600)
    assert slide.image.dtype == np.uint16
    assert slide.channel_names == ("DAPI", "CK", "Vimentin", "CD45")
    assert load_panel("emt-4").assign(slide.channel_names, "test") == {"dapi": 0, "ck": 1, "vim": 2, "cd45": 3}


def test_without_vimentin_no_phenotype_is_known():
    slide = simulate_slide((200, 200), ctc=3, leukocytes=5, panel="epithelial-3")
    assert slide.channel_names == ("DAPI", "CK", "CD45")
    assert slide.image.shape == (3, 200, 200)
    assert slide.truth["snr_vim"].isna().all()
    assert set(slide.truth["phenotype"]) <= {"", "undetermined"}


@settings(max_examples=6)
@given(setting=st.sampled_from(list(SETTINGS)), seed=st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_slide_in_every_setting(setting, seed):
    first, second = (simulate_slide((130, 150), ctc=2, leukocytes=8, setting=setting, seed=seed) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    pd.testing.assert_frame_equal(first.truth, second.truth)


def test_another_seed_gives_another_slide():
    first, second = (simulate_slide((130, 150), ctc=2, leukocytes=8, seed=seed) for seed in (1, 2))
    assert (first.image != second.image).mean() > 0.5


def test_a_rescan_shows_the_same_cells_in_other_noise():
    first, again = (
        simulate_with(SETTINGS["standard"], (300, 300), ctc=3, leukocytes=20, seed=5, scan=scan) for scan in (0, 1)
    )
    pd.testing.assert_frame_equal(first.truth, again.truth)
    assert (first.image != again.image).mean() > 0.5


def test_files_are_the_same_to_the_byte_and_read_back_as_written(slide, tmp_path):
    again = simulate_slide((700, 600), ctc=8, leukocytes=150, seed=3)
    write_slide(slide, tmp_path / "a")
    write_slide(again, tmp_path / "b")
    for name in ("slide.ome.tif", "truth.csv"):
        assert sha256_file(tmp_path / "a" / name) == sha256_file(tmp_path / "b" / name)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a" / "slide.ome.tif"), slide.image)
    truth = pd.read_csv(tmp_path / "a" / "truth.csv")
    assert list(truth.columns[:6]) == FIRST_COLUMNS
    np.testing.assert_allclose(truth["y_um"], slide.truth["y_um"], atol=6e-4)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["slide.ome.tif", "truth.csv"]


def test_the_file_is_a_tiled_ome_tiff_with_its_scale_and_channel_names(slide, tmp_path):
    write_slide(slide, tmp_path)
    with tifffile.TiffFile(tmp_path / "slide.ome.tif") as file:
        assert file.is_ome
        assert file.series[0].axes == "CYX"
        page = file.pages[0]
        assert (page.tilewidth, page.tilelength) == (512, 512)
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert "DateTime" not in page.tags
        xml = file.ome_metadata
    assert "UUID" not in xml
    space = {"ome": "http://www.openmicroscopy.org/Schemas/OME/2016-06"}
    pixels = ET.fromstring(xml).find("ome:Image/ome:Pixels", space)
    assert (pixels.get("PhysicalSizeX"), pixels.get("PhysicalSizeYUnit")) == ("0.5", "µm")
    assert [channel.get("Name") for channel in pixels.findall("ome:Channel", space)] == list(slide.channel_names)


@pytest.mark.parametrize(
    "wrong",
    [
        {"setting": "sandard"},
        {"shape_px": (0, 512)},
        {"shape_px": (63, 512)},
        {"shape_px": (512,)},
        {"shape_px": (512, 512, 3)},
        {"ctc": -1},
        {"leukocytes": -5},
        {"leukocytes": 5000},
        {"seed": -1},
        {"pixel_size_um": 0.0},
        {"pixel_size_um": float("nan")},
        {"panel": "no-such-panel"},
    ],
)
def test_an_option_without_meaning_is_named_in_one_line(wrong):
    options = {"shape_px": (128, 128), "ctc": 1, "leukocytes": 3} | wrong
    with pytest.raises(ConfigError) as caught:
        simulate_slide(**options)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_a_slide_without_cells_is_background_only():
    slide = simulate_slide((128, 128), ctc=0, leukocytes=0)
    assert len(slide.truth) == 0
    assert 150 < np.median(slide.image) < 350


@settings(max_examples=15)
@given(
    kind=st.sampled_from(["ctc", "leukocyte", "naked_nucleus"]),
    nucleus=st.sampled_from(["oval", "round", "kidney", "lobed"]),
    diameter=st.floats(5, 18),
    dying=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_cell_is_rendered_whole_and_never_darker_than_nothing(kind, nucleus, diameter, dying, seed):
    stains = render_cell(Look(kind, diameter, nucleus, 0.7, dying, SNR), (0.4, -0.4), 0.5, np.random.default_rng(seed))
    assert set(stains) == set(SNR)
    for plane in stains.values():
        assert plane.dtype == np.float32
        assert plane.min() >= 0
        assert plane.max() > 0
        rim = np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]])
        assert rim.max() == 0


def test_dying_cells_look_different():
    """Broken nuclei cover less than whole ones, blebs reach beyond the outline."""

    def areas(dying):
        looks = [
            render_cell(Look("ctc", 11.0, "oval", 0.75, dying, SNR), (0, 0), 0.25, np.random.default_rng(seed))
            for seed in range(60)
        ]
        return np.array([(look["dapi"] > 0).sum() for look in looks]) * 0.25**2

    assert np.median(areas(True)) < 0.8 * np.median(areas(False))


def test_a_stain_of_zero_is_not_rendered():
    stains = render_cell(
        Look("ctc", 11.0, "oval", 0.75, False, SNR | {"cd45": 0.0}), (0, 0), 0.5, np.random.default_rng()
    )
    assert "cd45" not in stains


@pytest.mark.parametrize("kind", ["dye_aggregate", "debris", "fibre", "ck_fragment", "platelet"])
def test_dirt_is_rendered_at_its_brightness(kind):
    diameter = 80.0 if kind == "fibre" else 6.0
    look = Look(kind, diameter, "round", 1.0, False, {"dapi": 0.0, "ck": 10.0})
    stains = render_dirt(look, (0.0, 0.0), 0.5, np.random.default_rng(1))
    assert list(stains) == ["ck"]
    plane = stains["ck"]
    body = plane[plane > 0.1 * plane.max()]
    assert body.mean() == pytest.approx(10, rel=0.15)


def test_a_third_of_the_aggregates_touches_leukocytes_where_pinned():
    truth = simulate_slide((1600, 1600), ctc=0, leukocytes=700, setting="aggregates").truth
    aggregates = truth[truth["kind"] == "dye_aggregate"]
    white = truth[truth["kind"] == "leukocyte"]
    apart = np.hypot(*(aggregates[["y_um", "x_um"]].to_numpy()[:, None] - white[["y_um", "x_um"]].to_numpy()).T)
    reach = white["diameter_um"].to_numpy()[:, None] / 2 + aggregates["diameter_um"].to_numpy() / 2
    touching = (apart <= reach).any(axis=0).mean()
    by_chance = 0.15
    assert 1 / 3 - 0.1 < touching < 1 / 3 + by_chance + 0.15
