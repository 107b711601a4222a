"""What of a slide is shown: markers read on demand, outlines, cells, and all but the pixels without the scan."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from matplotlib.colors import to_rgba

from ctc_imaging.errors import CtcImagingError, RunError
from ctc_imaging.slide import open_slide
from ctc_imaging.store.labels import open_labels
from ctc_imaging.store.run_folder import RunFolder

from .napari_fixture import write_run

pytest.importorskip("napari")
from napari_ctc.crops import CropSource
from napari_ctc.far_view import FarFill, empty_far_view, sampled_limits
from napari_ctc.layers import BLIND_COLOUR, CALL_COLOURS, CELLS, OUTLINES, Scan, open_view, slide_layers
from napari_ctc.queue import ReviewQueue
from napari_ctc.reader import get_reader, read

SLIDE = "P1-before"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("made"), (SLIDE,))


@pytest.fixture
def without_scan(run, tmp_path) -> RunFolder:
    shutil.copytree(run.path, tmp_path / "run")
    table = tmp_path / "run" / "tables" / "cohort.csv"
    table.write_text(table.read_text().replace(str(run.path.parent), str(tmp_path)))
    return RunFolder(tmp_path / "run")


def layers_of(run: RunFolder, blinded: bool = False) -> dict[str, tuple]:
    described = slide_layers(run, open_view(run, SLIDE), blinded)
    return {metadata["name"]: (data, metadata, kind) for data, metadata, kind in described}


def scan_path(run: RunFolder) -> Path:
    return run.path.parent / "scans" / SLIDE / "slide.ome.tif"


def test_each_marker_is_a_layer_in_its_colour_with_the_slides_own_pixels(run):
    layers = layers_of(run)
    assert list(layers)[:4] == ["DAPI", "CK", "VIM", "CD45"]
    with open_slide(scan_path(run)) as slide:
        pixels = slide.read([1], 0, 512, 0, 512)[0]
    data, metadata, kind = layers["CK"]
    np.testing.assert_array_equal(np.asarray(data), pixels)
    assert (kind, metadata["colormap"], metadata["blending"]) == ("image", "#2ee65a", "additive")
    assert metadata["scale"] == (0.5, 0.5)
    low, high = metadata["contrast_limits"]
    assert abs(low - np.median(pixels)) < 0.1 * np.median(pixels)
    assert low < high < pixels.max()


def test_describing_a_slide_reads_no_pixel_and_a_region_only_its_own(run, monkeypatch):
    reads = []
    original = Scan.read
    monkeypatch.setattr(Scan, "read", lambda self, *region: reads.append(region[1:]) or original(self, *region))
    data, _, _ = layers_of(run)["DAPI"]
    assert not reads
    np.asarray(data[:10, :10])
    assert len(reads) == 1


class BigSlide:
    """A slide too large to hold, that counts what is read of it."""

    shape, dtype, pixel_size_um = (1, 20000, 9000), np.dtype(np.uint16), 0.5

    def __init__(self) -> None:
        self.read_px = 0

    def read(self, channels, y0, y1, x0, x1):
        self.read_px += (y1 - y0) * (x1 - x0)
        return np.broadcast_to(
            (np.arange(y0, y1)[:, None] + np.arange(x0, x1)).astype(np.uint16), (1, y1 - y0, x1 - x0)
        )

    def close(self) -> None:
        self.closed = True


def test_a_large_slide_gets_coarser_levels_and_a_look_reads_little():
    slide = BigSlide()
    levels = Scan(slide, {"dapi": 0}).levels("dapi")
    assert [level.shape for level in levels] == [(20000, 9000), (10000, 4500), (5000, 2250), (2500, 1125)]
    np.testing.assert_array_equal(levels[0][19000:19010, 50:60], slide.read([0], 19000, 19010, 50, 60)[0])
    coarse = np.asarray(levels[1][5000:5100, 2000:2100])
    assert coarse[0, 0] == 10000 + 4000 + 1
    assert slide.read_px < 10 * 1024**2


def test_a_scan_closes_when_no_layer_holds_it_any_more():
    slide = BigSlide()
    level = Scan(slide, {"dapi": 0}).levels("dapi")[0]
    assert not hasattr(slide, "closed")
    del level
    assert slide.closed


def test_outlines_are_the_label_planes_and_cells_lie_on_their_labels(run):
    layers = layers_of(run)
    labels = open_labels(run.slide(SLIDE) / "labels.ome.zarr")
    np.testing.assert_array_equal(np.asarray(layers[OUTLINES][0]), labels[0])
    points, metadata, _ = layers[CELLS]
    y_px, x_px = np.rint(points / 0.5).astype(int).T
    on_label = labels[0][y_px, x_px] == metadata["metadata"]["cell_id"]
    assert on_label.mean() > 0.9


def test_cells_have_the_colour_of_the_call_in_force_and_none_where_blinded(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    copy = RunFolder(tmp_path / "run")
    queue = ReviewQueue(copy, "A")
    cell = queue.current
    assert cell.call in ("ctc", "indeterminate")
    queue.call("leukocyte")
    _, metadata, _ = layers_of(copy)[CELLS]
    place = list(metadata["metadata"]["cell_id"]).index(cell.cell_id)
    np.testing.assert_allclose(metadata["border_color"][place], to_rgba(CALL_COLOURS["leukocyte"]), rtol=1e-6)
    assert len(np.unique(metadata["border_color"], axis=0)) > 1
    blinded = np.unique(layers_of(copy, blinded=True)[CELLS][1]["border_color"], axis=0)
    np.testing.assert_allclose(blinded, [to_rgba(BLIND_COLOUR)], rtol=1e-6)


def test_without_the_scan_outlines_and_cells_still_open(without_scan):
    view = open_view(without_scan, SLIDE)
    assert view.scan is None
    assert "slide.ome.tif: no such file" in view.fault
    described = slide_layers(without_scan, view)
    assert [kind for _, _, kind in described] == ["labels", "labels", "points"]


def test_another_scan_in_the_place_of_the_one_that_was_processed_is_not_shown(without_scan):
    other = without_scan.path.parent / "scans" / SLIDE / "slide.ome.tif"
    other.parent.mkdir(parents=True)
    tifffile.imwrite(other, np.zeros((4, 100, 90), np.uint16), ome=True, metadata={"axes": "CYX"})
    view = open_view(without_scan, SLIDE)
    assert view.scan is None
    assert view.fault


def test_crops_come_from_the_run_or_the_scan_and_are_the_same(run, without_scan):
    candidate = ReviewQueue(run, "A").current
    stored = CropSource(without_scan, open_view(without_scan, SLIDE)).pictures(*candidate[1:4])
    source = CropSource(run, open_view(run, SLIDE))
    source._place.clear()
    fresh = source.pictures(*candidate[1:4])
    assert list(stored) == ["composite", "dapi", "ck", "vim", "cd45"]
    assert stored["composite"].shape == (240, 240, 3)
    for name, picture in stored.items():
        # The run keeps whole grey levels.
        np.testing.assert_allclose(picture.astype(int), fresh[name], atol=2)


def test_a_cell_that_is_no_candidate_has_no_picture_without_the_scan(run, without_scan):
    queue = ReviewQueue(run, "A")
    queue.step(len(queue))
    last = queue.current
    assert CropSource(without_scan, open_view(without_scan, SLIDE)).pictures(*last[1:4]) == {}
    assert CropSource(run, open_view(run, SLIDE)).pictures(*last[1:4])


def test_the_reader_takes_runs_and_slides_and_nothing_else(run, tmp_path):
    for path in (run.path, run.description, run.slide(SLIDE), scan_path(run)):
        assert get_reader(str(path)) is read
    for path in (tmp_path, run.slides, tmp_path / "nothing", tmp_path / "nothing.tif"):
        assert get_reader(str(path)) is None
    assert get_reader([str(run.path)]) is None
    names = [metadata["name"] for _, metadata, _ in read(str(run.slide(SLIDE)))]
    assert names == ["DAPI", "CK", "VIM", "CD45", "Nucleus outlines", OUTLINES, CELLS]
    with pytest.raises(RunError, match="neither a run nor a slide"):
        read(str(tmp_path))


def test_a_scan_alone_opens_with_its_markers(run):
    layers = read(str(scan_path(run)))
    assert [metadata["name"] for _, metadata, _ in layers] == ["DAPI", "CK", "VIM", "CD45"]
    for _, metadata, _ in layers:
        low, high = metadata["contrast_limits"]
        assert 0 < low < high
        assert metadata["scale"] == (0.5, 0.5)


def test_a_large_slide_is_seen_from_afar_without_reading_all_of_it_first():
    slide = SimpleNamespace(shape=(2, 3000, 2600), dtype=np.dtype(np.uint16), pixel_size_um=0.5, close=lambda: None)
    pixels = np.random.default_rng(0).integers(0, 999, slide.shape).astype(np.uint16)
    read_px = []

    def window(channels, y0, y1, x0, x1):
        read_px.append((y1 - y0) * (x1 - x0))
        return pixels[list(channels), y0:y1, x0:x1]

    slide.read = window
    scan = Scan(slide, {"dapi": 0, "ck": 1})
    limits = sampled_limits(scan)
    assert limits["dapi"] == (pytest.approx(500, abs=20), pytest.approx(997, abs=5))
    assert sum(read_px) < 0.04 * 3000 * 2600
    far = empty_far_view(scan)
    assert far.shape == (2, 1000, 867)
    fill = FarFill(scan, far)
    fill.start()
    while not fill.is_done:
        pass
    whole = pixels[:, :, :2598].reshape(2, 1000, 3, 866, 3).mean((2, 4), np.float32).astype(np.uint16)
    np.testing.assert_allclose(far[:, :, :866], whole, atol=1)
    levels = scan.levels("dapi", far[0])
    assert [level.shape for level in levels] == [(3000, 2600), (1500, 1300), (1000, 867)]


def test_a_slide_without_results_says_so(run):
    with pytest.raises(CtcImagingError, match="results aren't there"):
        open_view(run, "P9")
