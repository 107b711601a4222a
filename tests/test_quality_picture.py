"""The quality picture: readable, the same bytes for the same verdict, for any slide."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from ctc_imaging.panel import load_panel
from ctc_imaging.quality import Quality, assess
from ctc_imaging.quality_picture import quality_picture
from ctc_imaging.simulation import simulate_slide
from ctc_imaging.slide import open_slide

PANEL = load_panel("emt-4")


@pytest.fixture(scope="module")
def image():
    image = simulate_slide((512, 700), ctc=3, leukocytes=120, seed=2).image
    image[1, :200, :200] = 4095
    return image


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    def judge(image, panel=PANEL):
        path = tmp_path_factory.mktemp("scan") / "scan.tif"
        tifffile.imwrite(path, image, photometric="minisblack")
        with open_slide(path, 0.5) as slide:
            return assess(slide, panel.assign(slide.channel_names, slide.path), panel)

    return judge


@pytest.fixture(scope="module")
def quality(judge, image):
    return judge(image)


def test_the_picture_is_the_same_for_the_same_verdict(quality, judge, image):
    picture = quality_picture(quality, 0.5)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    np.testing.assert_array_equal(quality_picture(judge(image), 0.5), picture)


def test_what_is_wrong_shows_in_the_picture(quality):
    clean = replace(quality, blocks_ok=np.ones_like(quality.blocks_ok), faults={}, reasons=())
    assert (quality_picture(quality) != quality_picture(clean)).mean() > 0.01


def test_more_channels_need_more_rows(quality, judge, image):
    five = replace(PANEL, channels=(*PANEL.channels, replace(PANEL.channels[1], short="epcam", position=4)))
    assert quality_picture(judge(image[[0, 1, 2, 3, 1]], five), 0.5).shape[0] > quality_picture(quality, 0.5).shape[0]


@pytest.mark.parametrize("shape", [(2, 3), (300, 30)])
def test_a_slide_of_any_size_can_be_drawn(judge, image, shape):
    assert quality_picture(judge(image[:, : shape[0], : shape[1]]), 0.5).size


def test_a_verdict_without_maps_can_be_drawn():
    bare = Quality((500, 512), 256, np.ones((2, 2), bool), np.full((2, 2), np.nan), {}, 0.0, False, ("long " * 300,))
    assert quality_picture(bare).size


# The same maps as numbers


def rows(lines):
    return np.array([[float(value) for value in line.split(" ")] for line in lines])


def test_the_json_has_every_map_as_rows(quality):
    record = quality.to_json()
    maps = record["maps"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(maps) == {"blur_um", "nuclei_fraction", "light", "saturated_fraction"}
    assert set(maps["light"]) == set(maps["saturated_fraction"]) == set(PANEL.shorts)
    for lines in (maps["blur_um"], maps["nuclei_fraction"], *maps["light"].values()):
        assert rows(lines).shape == quality.blocks_ok.shape
    assert rows(maps["saturated_fraction"]["ck"])[0, 0] == pytest.approx(200 * 200 / 256**2, abs=1e-3)
    np.testing.assert_allclose(rows(maps["light"]["dapi"]), 1, atol=0.2)


def test_what_was_never_scanned_is_unknown_in_every_map(judge, image):
    cut = image.copy()
    cut[:, 256:, :256] = 0
    maps = judge(cut).to_json()["maps"]
    assert [lines[1].split(" ")[0] for lines in (maps["blur_um"], maps["nuclei_fraction"])] == ["nan", "nan"]
    assert maps["light"]["vim"][1].startswith("nan ")


def test_the_maps_can_be_left_out(quality):
    assert "maps" not in quality.to_json(maps=False)
    assert quality.to_json(maps=False)["left_out"]["is saturated"] == pytest.approx(256**2 / (512 * 700), rel=1e-4)


def test_the_density_is_the_share_under_nuclei(quality, judge):
    density = quality.to_json()["density"]
    assert 0.02 < density["nuclei_fraction_median"] < 0.2
    crowded = simulate_slide((512, 512), ctc=0, leukocytes=250, seed=1).image
    assert judge(crowded).to_json()["density"]["nuclei_fraction_median"] > density["nuclei_fraction_median"]


def test_where_cells_overlap_is_a_remark(judge):
    image = np.full((4, 512, 512), 100, np.uint16)
    image[:, ::2] += 5
    y, x = np.mgrid[:512, :512]
    image[0, np.hypot(y % 24 - 12, x % 24 - 12) < 9] += 400
    assert any("cover more than a third of the area" in reason for reason in judge(image).reasons)
