"""Slides: any region of any layout reads as the same pixels, and only its own chunks are decoded."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import PanelError, SlideError
from ctc_imaging.inspection import inspect_slide
from ctc_imaging.panel import load_panel
from ctc_imaging.readers import open_source
from ctc_imaging.slide import Slide, open_slide

SHAPE = (4, 150, 203)
NAMES = ("DAPI", "CK", "Vimentin", "CD45")


def pixels(dtype="uint16"):
    values = np.random.default_rng(5).random(SHAPE) * 250
    return values.astype(dtype)


def write_ome(path, image, **options):
    metadata = {"axes": "CYX", "Channel": {"Name": NAMES}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, image, photometric="minisblack", ome=True, metadata=metadata, **options)


def write_pyramid(path, image):
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"photometric": "minisblack", "tile": (32, 48), "compression": "zlib"}
        writer.write(image, subifds=2, metadata={"axes": "CYX", "Channel": {"Name": NAMES}}, **options)
        writer.write(image[:, ::2, ::2], subfiletype=1, **options)
        writer.write(image[:, ::4, ::4], subfiletype=1, **options)


def write_pages(path, image, **options):
    with tifffile.TiffWriter(path) as writer:
        for plane in image:
            writer.write(plane, contiguous=False, metadata=None, photometric="minisblack", **options)


def write_folder(path, image):
    path.mkdir()
    # Written in another order than their names sort in, and not all stored alike.
    for index, name in ((3, "d_CD45"), (0, "a_DAPI"), (2, "c_vim"), (1, "b_CK")):
        options = {"compression": "zlib", "rowsperstrip": 7} if index % 2 else {}
        tifffile.imwrite(path / f"scan {name}.tif", image[index], photometric="minisblack", **options)


WRITERS = {
    "raw": write_ome,
    "big-endian": lambda path, image: write_ome(path, image, byteorder=">"),
    "strips": lambda path, image: write_ome(path, image, compression="lzw", rowsperstrip=11),
    "predictor": lambda path, image: write_ome(path, image, compression="zlib", predictor=True, rowsperstrip=40),
    "tiles": lambda path, image: write_ome(path, image, tile=(32, 48)),
    "zlib": lambda path, image: write_ome(path, image, tile=(32, 48), compression="zlib"),
    "zstd": lambda path, image: write_ome(path, image, tile=(64, 16), compression="zstd"),
    "jpeg2000": lambda path, image: write_ome(path, image, tile=(64, 64), compression="jpeg2000"),
    "bigtiff": lambda path, image: write_ome(path, image, tile=(32, 48), bigtiff=True),
    "pyramid": write_pyramid,
    "pages": write_pages,
    "page strips": lambda path, image: write_pages(path, image, compression="lzw", rowsperstrip=9),
    "one directory": lambda path, image: tifffile.imwrite(path, image, photometric="minisblack", truncate=True),
    "imagej": lambda path, image: tifffile.imwrite(path, image, imagej=True, metadata={"axes": "CYX"}),
    "separate samples": lambda path, image: tifffile.imwrite(
        path, image, photometric="minisblack", planarconfig="separate", tile=(32, 48), compression="zlib"
    ),
    "interleaved raw": lambda path, image: tifffile.imwrite(
        path, np.moveaxis(image, 0, -1), photometric="minisblack", planarconfig="contig"
    ),
    "interleaved tiles": lambda path, image: tifffile.imwrite(
        path, np.moveaxis(image, 0, -1), photometric="minisblack", planarconfig="contig", tile=(32, 48)
    ),
    "folder": write_folder,
}


@pytest.fixture(scope="module", params=WRITERS)
def written(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("slide ü") / "scan one.tif"
    WRITERS[request.param](path, pixels())
    return path


def spans(size):
    return st.tuples(st.integers(0, size - 1), st.integers(1, size)).filter(lambda span: span[0] < span[1])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), spans(SHAPE[1]), spans(SHAPE[2]))
def test_any_region_is_the_slice_of_the_whole(written, channels, rows, columns):
    with open_slide(written) as slide:
        assert slide.shape == SHAPE
        region = slide.read(channels, *rows, *columns)
    assert region.dtype == np.uint16
    np.testing.assert_array_equal(region, pixels()[channels, slice(*rows), slice(*columns)])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pixels_keep_their_type(tmp_path, dtype):
    for name, options in {"raw": {}, "zlib": {"compression": "zlib", "tile": (16, 16), "byteorder": ">"}}.items():
        write_ome(tmp_path / f"{name}.tif", pixels(dtype), **options)
        with open_slide(tmp_path / f"{name}.tif") as slide:
            assert slide.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(slide.read([2], 0, 150, 0, 203)[0], pixels(dtype)[2])


@pytest.mark.parametrize(("region", "chunks"), [((0, 1, 0, 1), 1), ((31, 33, 47, 49), 4), ((0, 150, 0, 203), 25)])
def test_a_region_touches_only_its_chunks(tmp_path, region, chunks):
    write_ome(tmp_path / "scan.tif", pixels(), tile=(32, 48), compression="zlib")
    with open_slide(tmp_path / "scan.tif") as slide:
        assert slide.chunk_shape_px == (32, 48)
        slide.read([1, 3], *region)
        assert slide.chunks_read == 2 * chunks


def test_strips_are_read_by_the_rows_wanted(tmp_path):
    write_ome(tmp_path / "scan.tif", pixels(), compression="zlib", rowsperstrip=10)
    with open_slide(tmp_path / "scan.tif") as slide:
        slide.read([0], 95, 105, 0, 203)
        assert slide.chunks_read == 2


def test_uncompressed_pixels_are_not_read_whole(tmp_path):
    image = np.random.default_rng(0).integers(0, 9999, (1, 1100, 1300)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "scan.tif", image, photometric="minisblack")
    with open_slide(tmp_path / "scan.tif") as slide:
        np.testing.assert_array_equal(slide.read([0], 500, 600, 1000, 1300), image[:, 500:600, 1000:1300])
        assert slide.chunks_read == 4
        np.testing.assert_array_equal(slide.read([0], 1020, 1100, 0, 1300), image[:, 1020:, :])


def test_overlapping_regions_decode_once(tmp_path):
    write_ome(tmp_path / "scan.tif", pixels(), tile=(32, 48), compression="zlib")
    with open_slide(tmp_path / "scan.tif") as slide:
        slide.read([0], 0, 150, 0, 203)
        before = slide.chunks_read
        slide.read([0], 20, 90, 30, 140)
        assert slide.chunks_read == before


def test_the_cache_is_bounded_and_keeps_what_was_used_last(tmp_path):
    cache_bytes = 3 * 32 * 48 * 2
    path = tmp_path / "scan.tif"
    write_ome(path, pixels(), tile=(32, 48), compression="zlib")
    with Slide(path, open_source(path), 0.5, cache_bytes) as slide:
        whole = slide.read([0], 0, 150, 0, 203)
        np.testing.assert_array_equal(whole[0], pixels()[0])
        assert sum(chunk.nbytes for chunk in slide._cache.values()) <= cache_bytes
        before = slide.chunks_read
        slide.read([0], 149, 150, 202, 203)
        assert slide.chunks_read == before
        slide.read([0], 0, 1, 0, 1)
        assert slide.chunks_read == before + 1


@pytest.mark.parametrize(
    "region", [(-1, 5, 0, 5), (0, 151, 0, 5), (5, 5, 0, 5), (9, 5, 0, 5), (0, 5, 0, 204), (0, 5, -3, 5)]
)
def test_regions_off_the_slide_are_an_index_error(tmp_path, region):
    write_ome(tmp_path / "scan.tif", pixels())
    with open_slide(tmp_path / "scan.tif") as slide, pytest.raises(IndexError, match="150 x 203"):
        slide.read([0], *region)


@pytest.mark.parametrize("channel", [-1, 4])
def test_channels_off_the_slide_are_an_index_error(tmp_path, channel):
    write_ome(tmp_path / "scan.tif", pixels())
    with open_slide(tmp_path / "scan.tif") as slide, pytest.raises(IndexError, match="slide of 4"):
        slide.read([channel], 0, 5, 0, 5)


def test_the_given_pixel_size_fills_in_for_a_missing_one(tmp_path):
    tifffile.imwrite(tmp_path / "scan.tif", pixels(), photometric="minisblack")
    with open_slide(tmp_path / "scan.tif") as slide:
        assert slide.pixel_size_um is None
    with open_slide(tmp_path / "scan.tif", 0.65) as slide:
        assert slide.pixel_size_um == 0.65


def test_a_scale_is_the_same_number_however_it_is_told(tmp_path):
    resolution = (10_000 / 0.325, 10_000 / 0.325)
    options = {"resolution": resolution, "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(tmp_path / "ratio.tif", pixels(), photometric="minisblack", **options)
    with open_slide(tmp_path / "ratio.tif") as slide:
        assert slide.pixel_size_um == 0.325
    with open_slide(tmp_path / "ratio.tif", 0.3250001) as slide:
        assert slide.pixel_size_um == 0.325
    tifffile.imwrite(tmp_path / "none.tif", pixels(), photometric="minisblack")
    with open_slide(tmp_path / "none.tif", 0.32500000001) as slide:
        assert slide.pixel_size_um == 0.325


def test_a_slide_names_its_files(tmp_path):
    write_ome(tmp_path / "scan.tif", pixels())
    with open_slide(tmp_path / "scan.tif") as slide:
        assert slide.files == (tmp_path / "scan.tif",)
    write_folder(tmp_path / "folder", pixels())
    (tmp_path / "folder" / "notes.txt").write_text("not part of the scan")
    with open_slide(tmp_path / "folder") as slide:
        assert slide.files == tuple(sorted((tmp_path / "folder").glob("*.tif")))


def test_pixel_sizes_that_disagree_are_refused_with_both(tmp_path):
    write_ome(tmp_path / "scan.tif", pixels())
    with open_slide(tmp_path / "scan.tif", 0.509) as slide:
        assert slide.pixel_size_um == 0.5
    with pytest.raises(SlideError, match=r"0\.5 µm a pixel.*0\.52 µm"):
        open_slide(tmp_path / "scan.tif", 0.52)


@pytest.mark.parametrize("size", [0, -0.5, 500, float("nan"), float("inf")])
def test_a_pixel_size_without_meaning_is_refused(tmp_path, size):
    write_ome(tmp_path / "scan.tif", pixels())
    with pytest.raises(SlideError, match="isn't that of a cell scan"):
        open_slide(tmp_path / "scan.tif", size)


def test_values_that_are_not_finite_are_refused_when_read(tmp_path):
    image = pixels("float32")
    image[2, 140, 200] = np.nan
    write_ome(tmp_path / "scan.tif", image, tile=(32, 48))
    with open_slide(tmp_path / "scan.tif") as slide:
        slide.read([2], 0, 100, 0, 100)
        with pytest.raises(SlideError, match="channel 2 holds values that aren't finite"):
            slide.read([2], 100, 150, 150, 203)


def test_inspection_tells_what_the_reader_sees(tmp_path):
    write_ome(tmp_path / "scan.tif", pixels(), tile=(32, 48))
    facts = inspect_slide(tmp_path / "scan.tif", load_panel("emt-4"))
    assert facts["reader"] == "tiff"
    assert facts["axes"] == "CYX"
    assert facts["shape"] == list(SHAPE)
    assert facts["dtype"] == "uint16"
    assert facts["pixel_size_um"] == 0.5
    assert facts["channel_names"] == list(NAMES)
    assert facts["roles"]["vim"] == {"channel": 2, "role": "mesenchymal"}
    assert facts["quality"]["assessable"] is False
    assert facts["warnings"] == []


def test_inspection_says_when_the_panel_does_not_fit(tmp_path):
    tifffile.imwrite(tmp_path / "scan.tif", pixels()[:3], photometric="minisblack")
    facts = inspect_slide(tmp_path / "scan.tif", load_panel("emt-4"))
    assert facts["roles"] is None
    assert facts["quality"] is None
    assert "3 unnamed channel(s)" in facts["panel_error"]
    assert any("pixel size" in warning for warning in facts["warnings"])


def test_a_panel_is_assigned_by_the_names_in_the_file(tmp_path):
    write_ome(tmp_path / "scan.tif", pixels())
    with open_slide(tmp_path / "scan.tif") as slide:
        assert load_panel("epithelial-3").assign(slide.channel_names, slide.path) == {"dapi": 0, "ck": 1, "cd45": 3}
    with pytest.raises(PanelError, match="no channel is vim"):
        load_panel("emt-4").assign(["DAPI", "CK", "CD45"], "scan")


def test_a_real_float_image_opens_lazily(shared_data):
    path = shared_data / "vectra_lymphocytes" / "components_float32_cyx.tif"
    with open_slide(path, 0.5) as slide:
        assert slide.shape == (5, 260, 348)
        assert slide.dtype == np.float32
        top = slide.read([3], 0, 100, 0, 348)
        assert slide.chunks_read == 1
    np.testing.assert_array_equal(top[0], tifffile.imread(path)[3, :100])
