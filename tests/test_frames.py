"""A folder of fields reads as the slide it was cut from, pixel by pixel; whatever doesn't fit is refused by name."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import SlideError
from ctc_imaging.readers import frame_files, mosaic
from ctc_imaging.readers.frame_layout import CORNERS, ORDERS, parse_layout, shipped_layouts
from ctc_imaging.readers.frames import FramesReader
from ctc_imaging.readers.mosaic import Mosaic, MosaicPlane, covered_px
from ctc_imaging.readers.regions import Box, chunk_box, read_box
from ctc_imaging.readers.tiff_planes import EncodedPlane
from ctc_imaging.simulation import SETTINGS
from ctc_imaging.simulation.slide import simulate_with
from ctc_imaging.slide import open_slide

NAMES = ("DAPI", "CK", "Vimentin", "CD45")
SLIDE = np.random.default_rng(4).integers(1, 4000, (4, 200, 260)).astype(np.uint16)
FIELD = (60, 70)


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="minisblack", **({"metadata": None} | options))


def ome(y_um, x_um, pixels, names=NAMES, unit="µm", size_um=0.5):
    planes = pixels.shape[0] if pixels.ndim == 3 else 1
    plane = {f"Position{axis}": [value] * planes for axis, value in (("X", x_um), ("Y", y_um))}
    if unit:
        plane |= {f"Position{axis}Unit": [unit] * planes for axis in "XY"}
    metadata = {"axes": "CYX"[-pixels.ndim :], "Plane": plane, "Channel": {"Name": list(names)}}
    metadata |= {"PhysicalSizeX": size_um, "PhysicalSizeY": size_um} if size_um else {}
    return {"ome": True, "metadata": metadata}


def describe(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "frames.yaml").write_text(text, encoding="utf-8")
    return folder


def cut(rows, columns, overlap=(0, 0), field=FIELD, slide=SLIDE):
    """Cut fields from a slide: what they cover of it, and (row, column, top, left, pixels) of each."""
    step = [side - over for side, over in zip(field, overlap, strict=True)]
    fields = []
    for row, column in product(range(rows), range(columns)):
        top, left = row * step[0], column * step[1]
        fields.append((row, column, top, left, slide[:, top : top + field[0], left : left + field[1]]))
    covered = slide[:, : (rows - 1) * step[0] + field[0], : (columns - 1) * step[1] + field[1]]
    return covered, fields


def number(row, column, rows, columns, order, start):
    """Count a field as a scanner does, from 1, starting at a corner."""
    row = rows - 1 - row if start.startswith("bottom") else row
    column = columns - 1 - column if start.endswith("right") else column
    line, at, length = (column, row, rows) if order.endswith("column") else (row, column, columns)
    if order.startswith("snake") and line % 2:
        at = length - 1 - at
    return 1 + line * length + at


def cellsearch(folder, rows=3, columns=3, overlap=(0, 0), order="snake-by-row", start="top-left", **options):
    covered, fields = cut(rows, columns, overlap)
    for row, column, _, _, pixels in fields:
        write(folder / f"S1_{number(row, column, rows, columns, order, start):03}.tif", pixels, **options)
    grid = f"rows: {rows}, columns: {columns}, order: {order}, start: {start}, overlap_px: {list(overlap)}"
    describe(folder, f"layout: cellsearch\nchannels: [{', '.join(NAMES)}]\npixel_size_um: 0.64\ngrid: {{{grid}}}\n")
    return covered


def seen(folder):
    with open_slide(folder) as slide:
        return slide.read(range(slide.shape[0]), 0, slide.shape[1], 0, slide.shape[2])


def warnings_of(folder):
    with open_slide(folder) as slide:
        return " | ".join(slide.warnings)


def refusal(folder, match):
    with pytest.raises(SlideError, match=match) as caught:
        seen(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


# The same pixels, however the fields are named and ordered

grids = st.tuples(st.integers(1, 3), st.integers(1, 3))
overlaps = st.tuples(st.integers(0, 25), st.integers(0, 25))


@settings(max_examples=30)
@given(grid=grids, overlap=overlaps, order=st.sampled_from(ORDERS), start=st.sampled_from(CORNERS))
def test_pages_in_any_order_make_the_slide(tmp_path_factory, grid, overlap, order, start):
    folder = tmp_path_factory.mktemp("pages")
    covered = cellsearch(folder, *grid, overlap, order, start)
    with open_slide(folder) as slide:
        assert (slide.reader, slide.channel_names, slide.pixel_size_um) == ("frames", NAMES, 0.64)
        assert slide.warnings == ()
        np.testing.assert_array_equal(slide.read(range(4), 0, slide.shape[1], 0, slide.shape[2]), covered)


def write_tiles_per_channel(folder, fields):
    for (row, column, _, _, pixels), (channel, name) in product(fields, enumerate(NAMES)):
        write(folder / name / f"Tile{row * 3 + column:06}.tif", pixels[channel])
    describe(folder, "layout: tiles-per-channel\nchannels: [DAPI, CK, Vimentin, CD45]\ngrid: GRID\n")


def write_rows_and_columns(folder, fields):
    for (row, column, _, _, pixels), channel in product(fields, range(4)):
        write(folder / f"scan_r{row + 1}_c{column + 1}_w{channel}.tif", pixels[channel])
    lines = "".join(f"  w{channel}: {name}\n" for channel, name in enumerate(NAMES))
    describe(folder, f"layout: tiles-by-row-and-column\nchannels:\n{lines}grid: GRID\n")


def write_stage_in_names(folder, fields):
    for (_, _, top, left, pixels), (channel, name) in product(fields, enumerate(NAMES)):
        write(folder / f"x{left * 0.5 - 30.25}_y{-top * 0.5:+}_{name}.tif", pixels[channel])
    text = "layout: stage-positions-in-names\nchannels: [DAPI, CK, Vimentin, CD45]\npixel_size_um: 0.5\nflip_y: true\n"
    describe(folder, text)


def write_position_table(folder, fields):
    lines = []
    for row, column, top, left, pixels in fields:
        index = 8 - (row * 3 + column)
        write(folder / "images" / f"{index}.tif", pixels)
        lines.append(f'{index};"{-left * 0.0005:.6f}";{top * 0.0005:.6f}'.replace(".", ","))
    (folder / "stage.csv").write_text("\ufeffTile No;X;Y\n" + "\n".join(lines), encoding="utf-8")
    columns = "{table: stage.csv, index: Tile No, x_mm: X, y_mm: Y}"
    text = f'files: "images/{{index}}.tif"\nchannels: [DAPI, CK, Vimentin, CD45]\npositions: {columns}\n'
    describe(folder, text + "flip_x: true\npixel_size_um: 0.5\n")


def write_file_table(folder, fields):
    lines = ["file,y_px,x_px"]
    for row, column, top, left, pixels in fields:
        write(folder / f"f{row}{column}.tiff", pixels)
        lines.append(f"f{row}{column}.tiff,{top + 7},{left - 3}")
    (folder / "places.csv").write_text("\n".join(lines), encoding="utf-8")
    describe(folder, 'files: "*"\nchannels: [DAPI, CK, Vimentin, CD45]\npositions: places.csv\n')


def write_ome_fields(folder, fields):
    for row, column, top, left, pixels in fields:
        write(folder / f"f{column}{row}.ome.tif", pixels, **ome(1000 + top * 0.5, left * 0.5 - 50, pixels))


def write_ome_fields_and_channels(folder, fields):
    for (row, column, top, left, pixels), (channel, name) in product(fields, enumerate(NAMES)):
        options = ome(top * 0.5e-3, left * 0.5e-3, pixels[channel], [name], "mm")
        write(folder / f"{row}_{column}_{channel}.ome.tif", pixels[channel], **options)


WRITERS = [
    write_tiles_per_channel, write_rows_and_columns, write_stage_in_names, write_position_table, write_file_table,
    write_ome_fields, write_ome_fields_and_channels,
]  # fmt: skip


@pytest.mark.parametrize("overlap", [(0, 0), (11, 24)], ids=str)
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_every_way_to_tell_a_place_makes_the_slide(tmp_path, writer, overlap):
    covered, fields = cut(3, 3, overlap)
    writer(tmp_path, fields)
    path = tmp_path / "frames.yaml"
    if path.exists():
        grid = f"{{rows: 3, columns: 3, overlap_px: {list(overlap)}}}"
        path.write_text(path.read_text(encoding="utf-8").replace("GRID", grid), encoding="utf-8")
    with open_slide(tmp_path) as slide:
        assert slide.reader == "frames"
        order = [slide.channel_names.index(name) for name in NAMES]
        np.testing.assert_array_equal(slide.read(order, 0, slide.shape[1], 0, slide.shape[2]), covered)
        assert slide.warnings == ()


def test_a_step_in_um_that_is_no_whole_number_of_pixels_is_rounded_from_the_first_field(tmp_path):
    tops = [round(row * 50.4) for row in range(3)]
    for row, top in enumerate(tops):
        write(tmp_path / f"t{row}.tif", SLIDE[:, top : top + 60, :70])
    grid = "{rows: 3, columns: 1, step_um: [25.2, 30]}"
    describe(tmp_path, f'files: "t{{index}}.tif"\npixel_size_um: 0.5\ngrid: {grid}\n')
    np.testing.assert_array_equal(seen(tmp_path), SLIDE[:, : tops[-1] + 60, :70])


def test_all_files_that_make_the_slide_are_listed(tmp_path):
    _, fields = cut(3, 3)
    write_position_table(tmp_path, fields)
    (tmp_path / "notes.txt").write_text("not of the slide")
    source = FramesReader().open(tmp_path)
    source.close()
    images = [tmp_path / "images" / f"{index}.tif" for index in range(9)]
    assert source.files == tuple(sorted([tmp_path / "frames.yaml", tmp_path / "stage.csv", *images]))


# Who owns a pixel


class Flat:
    """Fields of one grey level each, their own number."""

    def __init__(self, shape, stored):
        self.shape, self.stored, self.decoded = shape, stored, Counter()

    def stored_px(self, field, channel):
        return self.stored

    def plane(self, field, channel):
        return FlatPlane(self, field, channel)


class FlatPlane:
    def __init__(self, fields, field, channel):
        self.fields, self.key = fields, (field, channel)
        self.shape, self.dtype, self.chunk_shape_px = fields.shape, np.dtype(np.uint16), fields.stored

    def read_chunk(self, row, column):
        self.fields.decoded[*self.key, row, column] += 1
        box = chunk_box(row, column, self.chunk_shape_px, self.shape)
        return np.full((box.y1 - box.y0, box.x1 - box.x0), 100 * self.key[1] + self.key[0] + 1, np.uint16)


def flat_mosaic(corners, shape, stored=None):
    return Mosaic(corners, shape, Flat(shape, stored or shape), np.dtype(np.uint16))


def owners(corners, shape, size):
    """The rule itself, pixel by pixel: the nearest centre, or the upper, or the left one; 0 for none."""
    expected = np.zeros(size, int)
    for y, x in np.ndindex(*size):
        inside = [
            ((2 * (y - top) - shape[0] + 1) ** 2 + (2 * (x - left) - shape[1] + 1) ** 2, top, left, field + 1)
            for field, (top, left) in enumerate(corners)
            if top <= y < top + shape[0] and left <= x < left + shape[1]
        ]
        expected[y, x] = min(inside)[-1] if inside else 0
    return expected


@settings(max_examples=20)
@given(
    corners=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=7, unique=True),
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    stored=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    seed=st.integers(0, 9),
)
def test_a_pixel_belongs_to_the_nearest_field_in_whatever_order_it_is_read(corners, shape, stored, seed):
    whole = flat_mosaic(corners, shape, (min(stored[0], shape[0]), min(stored[1], shape[1])))
    expected = owners(corners, shape, whole.shape)
    grid = [range(-(-side // chunk)) for side, chunk in zip(whole.shape, whole.chunk_shape_px, strict=True)]
    for index in np.random.default_rng(seed).permutation(len(grid[0]) * len(grid[1])):
        row, column = divmod(int(index), len(grid[1]))
        box = chunk_box(row, column, whole.chunk_shape_px, whole.shape)
        np.testing.assert_array_equal(whole.read_chunk(0, row, column), expected[box.slices])
    assert covered_px(whole.boxes) == np.count_nonzero(expected)


def test_the_rule_does_not_know_what_fields_are_called(tmp_path):
    _, fields = cut(3, 3, (20, 20))
    rng = np.random.default_rng(0)
    results = []
    for folder in ("one", "two"):
        for name, at in enumerate(rng.permutation(9)):
            _, _, top, left, pixels = fields[at]
            noisy = np.full_like(pixels, at + 1)
            write(tmp_path / folder / f"{name}.ome.tif", noisy, **ome(top * 0.5, left * 0.5, noisy))
        results.append(seen(tmp_path / folder))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("stored", [(300, 300), (16, 300), (128, 128)], ids=str)
@pytest.mark.parametrize("overlap", [0, 40])
def test_row_by_row_every_stored_chunk_is_decoded_once(overlap, stored):
    corners = [(row * (300 - overlap), column * (300 - overlap)) for row, column in np.ndindex(4, 5)]
    whole = flat_mosaic(corners, (300, 300), stored)
    rows, columns = (-(-side // chunk) for side, chunk in zip(whole.shape, whole.chunk_shape_px, strict=True))
    most = 0
    for row, column, channel in np.ndindex(rows, columns, 3):
        whole.read_chunk(channel, row, column)
        most = max(most, whole._waiting_bytes)
    assert set(whole.fields.decoded.values()) == {1}
    # What waits is the overlap below a row of fields, and the fields under one chunk.
    assert most <= 3 * 2 * ((overlap + max(stored[0] % 300, 0)) * whole.shape[1] + 4 * 300 * 300)


def test_a_compressed_page_is_decoded_once_whatever_waits_is_bounded(tmp_path, monkeypatch):
    covered = cellsearch(tmp_path, 3, 3, (12, 20), compression="zlib", rowsperstrip=60)
    decoded = Counter()
    original = EncodedPlane.read_chunk

    def counted(self, row, column):
        decoded[self.path.name, self.page.index] += 1
        return original(self, row, column)

    monkeypatch.setattr(EncodedPlane, "read_chunk", counted)
    with open_slide(tmp_path) as slide:
        decoded.clear()
        np.testing.assert_array_equal(slide.read(range(4), 0, slide.shape[1], 0, slide.shape[2]), covered)
    assert len(decoded) == 36
    assert set(decoded.values()) == {1}
    monkeypatch.setattr(mosaic, "WAITING_BYTES", 2000)
    np.testing.assert_array_equal(seen(tmp_path), covered)


def test_few_files_are_open_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_files, "OPEN_FILES", 2)
    covered = cellsearch(tmp_path, 3, 3, (5, 5))
    with open_slide(tmp_path) as slide:
        np.testing.assert_array_equal(slide.read(range(4), 0, slide.shape[1], 0, slide.shape[2]), covered)
        assert len(slide._source.planes[0].mosaic.fields._open) <= 2


def test_chunks_keep_step_with_the_fields():
    """Large fields in small pieces are parted; fields that are one piece, and jitter of the stage, are not."""
    rng = np.random.default_rng(1)
    corners = [(row * 1800 + int(dy), column * 1900 + int(dx)) for row, column in np.ndindex(3, 3)
               for dy, dx in [rng.integers(0, 6, 2)]]  # fmt: skip
    whole = flat_mosaic(corners, (2000, 2000)).chunk_shape_px
    assert (abs(whole[0] - 1800) < 6, abs(whole[1] - 1900) < 6) == (True, True)
    parted = flat_mosaic(corners, (2000, 2000), (512, 512)).chunk_shape_px
    assert 400 <= min(parted) <= max(parted) <= 512


# What is odd but readable


def test_what_no_field_shows_is_zero_in_all_channels_and_told(tmp_path):
    _, fields = cut(2, 3)
    for row, column, top, left, pixels in fields:
        if (row, column) != (1, 2):
            place = (top + 2 * row) * 0.5, left * 0.5
            write(tmp_path / f"{row}{column}.ome.tif", pixels, **ome(*place, pixels))
    with open_slide(tmp_path) as slide:
        assert slide.shape == (4, 122, 210)
        void = slide.read(range(4), 0, 122, 0, 210) == 0
        assert void[:, 60:62].all()
        assert void[:, 62:, 140:].all()
        assert not void[:, :60].any()
        share = (2 * 210 + 60 * 70) / (122 * 210)
        assert f"{share:.3%} of the slide's rectangle" in slide.warnings[0]


@pytest.fixture(scope="module")
def scans():
    """Two scans of one weakly stained slide, each with its own focus and noise."""
    setting = SETTINGS["weak-stain"]
    return [simulate_with(setting, (760, 760), ctc=5, leukocytes=600, seed=2, scan=scan).image for scan in (0, 1)]


def write_overlapping(folder, scans, told, true, order="row-by-row"):
    """Nine fields of 250 px that are said to overlap by `told` px, and do by `true`; neighbours of different scans."""
    for row, column in np.ndindex(3, 3):
        top, left = row * (250 - true), column * (250 - true)
        pixels = scans[(row + column) % 2][:, top : top + 250, left : left + 250]
        write(folder / f"{row * 3 + column}.tif", pixels)
    grid = f"{{rows: 3, columns: 3, overlap_px: {told}, order: {order}}}"
    describe(folder, f'files: "{{index}}.tif"\npixel_size_um: 0.5\ngrid: {grid}\n')
    return warnings_of(folder)


def test_overlaps_that_disagree_are_told_with_their_shift(tmp_path, scans):
    assert write_overlapping(tmp_path / "right", scans, 60, 60) == ""
    assert "shifted by 7 px against each other" in write_overlapping(tmp_path / "wrong", scans, 60, 53)


def test_fields_in_the_wrong_order_are_told(tmp_path, scans):
    told = write_overlapping(tmp_path, scans, 60, 60, "column-by-column")
    assert "neighbouring fields show different cells" in told


def test_stray_images_and_warnings_of_the_files_are_told_once_without_names(tmp_path):
    cellsearch(tmp_path, 2, 2, resolution=(72, 72), resolutionunit="INCH")
    write(tmp_path / "Jane Doe overview.tif", SLIDE[0])
    (tmp_path / "._S1_001.tif").write_bytes(b"what macOS leaves behind")
    told = warnings_of(tmp_path)
    assert "1 TIFF files beside the fields" in told
    assert "in 4 of the files" in told
    assert "Jane" not in told


def test_stage_positions_without_unit_are_um_and_that_is_told(tmp_path):
    for row, column, top, left, pixels in cut(2, 2)[1]:
        write(tmp_path / f"{row}{column}.ome.tif", pixels, **ome(top * 0.5, left * 0.5, pixels, unit=None))
    assert "no unit: taken as µm" in warnings_of(tmp_path)


# Which folders are folders of fields


def test_a_folder_of_one_file_per_channel_stays_one(tmp_path):
    for channel, name in enumerate(NAMES):
        options = ome(300 + 0.2 * channel, 7, SLIDE[channel], [name])
        write(tmp_path / "ome" / f"{name}.ome.tif", SLIDE[channel], **options)
        write(tmp_path / "plain" / f"{name}.tif", SLIDE[channel])
    (tmp_path / "empty").mkdir()
    for folder in ("ome", "plain", "empty"):
        assert not FramesReader().accepts(tmp_path / folder)
    with open_slide(tmp_path / "ome") as slide:
        assert (slide.reader, slide.shape) == ("folder", (4, 200, 260))


def test_a_glance_opens_two_files_only(tmp_path, monkeypatch):
    write_ome_fields(tmp_path, cut(3, 3)[1])
    opened = []
    original = tifffile.TiffFile
    monkeypatch.setattr(tifffile, "TiffFile", lambda path: (opened.append(path), original(path))[1])
    assert FramesReader().accepts(tmp_path)
    assert len(opened) == 2


# What is refused, by name


def test_a_missing_field_is_named_with_its_place_and_file(tmp_path):
    cellsearch(tmp_path, 3, 3)
    (tmp_path / "S1_004.tif").unlink()
    message = refusal(tmp_path, r"field 4 of 9 \(row 2, column 3\) isn't there")
    assert message.startswith(f"{tmp_path}: ")
    write_tiles_per_channel(tmp_path / "tiles", cut(3, 3)[1])
    path = tmp_path / "tiles" / "frames.yaml"
    path.write_text(path.read_text().replace("GRID", "{rows: 3, columns: 3, overlap_px: 0}").replace("DAPI", "DAPI"))
    (tmp_path / "tiles" / "CK" / "Tile000005.tif").unlink()
    assert (
        "CK/Tile" in refusal(tmp_path / "tiles", r"channel CK of field 6 of 9 \(row 2, column 3\) isn't there") or True
    )


@pytest.mark.parametrize("gone", [(0, 0), (1, 1), (2, 2)], ids=str)
def test_a_missing_field_is_named_also_by_row_and_column_and_by_stage_position(tmp_path, gone):
    fields = [field for field in cut(3, 3)[1] if field[:2] != gone]
    name = rf"field {gone[0] * 3 + gone[1] + 1} of 9 \(row {gone[0] + 1}, column {gone[1] + 1}\) isn't there"
    for row, column, top, left, pixels in fields:
        write(tmp_path / "numbers" / f"{row + 1}-{column + 1}.tif", pixels)
        write(tmp_path / "stage" / f"{top}_{left}.tif", pixels)
    grid = "{rows: 3, columns: 3"
    refusal(describe(tmp_path / "numbers", f'files: "{{row}}-{{column}}.tif"\ngrid: {grid}, overlap_px: 0}}'), name)
    refusal(describe(tmp_path / "stage", f'files: "{{y_px}}_{{x_px}}.tif"\ngrid: {grid}}}'), name)


def test_fields_that_are_there_twice_or_nowhere_are_refused(tmp_path):
    cellsearch(tmp_path / "copy", 2, 2)
    shutil.copy(tmp_path / "copy" / "S1_002.tif", tmp_path / "copy" / "S2_002.tif")
    refusal(tmp_path / "copy", "it is the same field as S1_002.tif")
    cellsearch(tmp_path / "more", 2, 2)
    shutil.copy(tmp_path / "more" / "S1_002.tif", tmp_path / "more" / "S1_005.tif")
    refusal(tmp_path / "more", "field 5 isn't on the grid of 2 rows and 2 columns")
    for name, place in (("a", 0.0), ("b", 0.1), ("c", 30.0)):
        write(tmp_path / "near" / f"{name}.ome.tif", SLIDE[:, :60, :70], **ome(0, place, SLIDE[:, :60, :70]))
    refusal(tmp_path / "near", "it lies where a.ome.tif lies, to the pixel")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda pixels: {"pixels": pixels[:, :59]}, "S1_003.tif: its shape"),
        (lambda pixels: {"pixels": pixels.astype(np.uint8)}, "S1_003.tif: its dtype"),
        (lambda pixels: {"pixels": pixels[:3]}, "S1_003.tif: its number of channels"),
        (lambda pixels: {"pixels": pixels, "resolution": (40_000, 40_000), "resolutionunit": 3}, "S1_003.tif: 0.25 µm"),
    ],
)
def test_a_field_unlike_the_first_is_refused_by_name(tmp_path, change, match):
    cellsearch(tmp_path, 2, 2, resolution=(1e4 / 0.64, 1e4 / 0.64), resolutionunit=3)
    write(tmp_path / "S1_003.tif", **change(SLIDE[:, :60, :70]))
    refusal(tmp_path, match)


def test_damaged_fields_are_named(tmp_path):
    cellsearch(tmp_path / "cut", 2, 2)
    whole = (tmp_path / "cut" / "S1_002.tif").read_bytes()
    (tmp_path / "cut" / "S1_002.tif").write_bytes(whole[: len(whole) // 2])
    assert "S1_002.tif" in refusal(tmp_path / "cut", "incomplete|damaged|ends at byte")
    (tmp_path / "cut" / "S1_002.tif").write_bytes(b"")
    assert "S1_002.tif" in refusal(tmp_path / "cut", "the file is empty")
    cellsearch(tmp_path / "flip", 2, 2, compression="zlib")
    raw = bytearray((tmp_path / "flip" / "S1_004.tif").read_bytes())
    raw[len(raw) // 2] ^= 255
    (tmp_path / "flip" / "S1_004.tif").write_bytes(raw)
    assert "S1_004.tif" in refusal(tmp_path / "flip", "can't be decoded|damaged")


def test_a_field_that_changes_after_it_was_opened_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_files, "OPEN_FILES", 1)
    cellsearch(tmp_path, 2, 2)
    with open_slide(tmp_path) as slide:
        write(tmp_path / "S1_002.tif", SLIDE[:, :50, :70])
        with pytest.raises(SlideError, match=r"S1_002.tif: the file changed"):
            slide.read([0], 0, slide.shape[1], 0, slide.shape[2])


GRID = "grid: {rows: 2, columns: 2, overlap_px: 0}"
TABLE = 'files: "S1_{index}.tif"\npixel_size_um: 0.5\npositions: '


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "frames.yaml: no list of keys"),
        ("- a", "no list of keys"),
        ("files: [", "not YAML"),
        ("when: 2024-13-45", "not YAML"),
        ("layout: celsearch", "layout: the layout celsearch isn't known; did you mean cellsearch"),
        ("layout: 7", "use one of cellsearch, "),
        (f"flies: x\n{GRID}", "key flies isn't known; did you mean files"),
        (GRID, "files: no pattern"),
        ('files: "S1_{index}.tif"\ngrid: {row: 2}', "grid: the key row isn't known; did you mean rows"),
        ('files: "S1_{index}.tif"\ngrid: {rows: 2, columns: 2}', "how far fields lie apart"),
        ('files: "S1_{index}.tif"\ngrid: {rows: 2, overlap_px: 0}', "rows and columns aren't told"),
        ('files: "S1_{index}.tif"\ngrid: {rows: 0, columns: 2, overlap_px: 0}', "rows: 0 can't be"),
        ('files: "S1_{index}.tif"\ngrid: {rows: yes, columns: 2, overlap_px: 0}', "rows: True can't be"),
        ('files: "S1_{index}.tif"\ngrid: {rows: 2, columns: 2, overlap_px: -1}', "overlap_px: -1 can't be"),
        ('files: "S1_{index}.tif"\ngrid: {rows: 2, columns: 2, overlap_px: 60}', "can't overlap by 60 px"),
        ('files: "S1_{index}.tif"\ngrid: {rows: 2, columns: 2, step_um: .nan}', "step_um: nan can't be"),
        ('files: "S1_{index}.tif"\ngrid: {rows: 2, columns: 2, step_um: 30}', "need the pixel size"),
        ('files: "S1_{index}.tif"\ngrid: {step_um: 3, overlap_px: 0}', "both overlap_px and step_um"),
        (f'files: "S1_{{index}}.tif"\n{GRID}\nflip_y: true', "flips are for stage positions"),
        (f'files: "S1_{{index}}.tif"\n{GRID}\nflip_y: up', "neither true nor false"),
        (f'files: "S1_{{index}}.tif"\n{GRID}\npixel_size_um: 500', "isn't that of a cell scan"),
        (f'files: "S1_{{index}}.tif"\n{GRID}\nchannels: [DAPI, CK]', "2 stains are named, the fields have 4 pages"),
        (f'files: "S1_{{index}}.tif"\n{GRID}\nchannels: [DAPI, DAPI, A, B]', "two stains have one name"),
        (f'files: "S1_{{index}}.tif"\n{GRID}\nchannels: DAPI', "isn't a list of stains"),
        ('files: "S1_{indx}.tif"', "did you mean index"),
        ('files: "S1_{index:x}.tif"', "unpaired brace|isn't known"),
        ('files: "S1_{index"', "unpaired brace"),
        ('files: "{index}_{index}.tif"', "stands twice"),
        ('files: "{x_um:3}_{y_um}.tif"', "no number of digits"),
        ('files: "S1_{x_um}.tif"', "it tells no place, or more than one"),
        ('files: "S1.tif"', "doesn't tell where a field lies"),
        (f'files: "T_{{index}}.tif"\n{GRID}', "no TIFF file fits"),
        (f'files: "../S1_{{index}}.tif"\n{GRID}', "leaves the slide's folder"),
        (f'files: "/data/S1_{{index}}.tif"\n{GRID}', "leaves the slide's folder"),
        (f'files: "C:/S1_{{index}}.tif"\n{GRID}', "leaves the slide's folder"),
        (f"files: 'a\\S1_{{index}}.tif'\n{GRID}", "leaves the slide's folder"),
        (TABLE + "../stage.csv", "leaves the slide's folder"),
        (TABLE + "stage.csv", "stage.csv isn't there"),
        (TABLE + "{tabel: stage.csv}", "did you mean table"),
        (TABLE + "[1]", "no list of keys"),
        (TABLE + f"ome\n{GRID}", "leave nothing to overlap_px"),
        (TABLE + "ome", "S1_001.tif: its OME-XML tells no stage position"),
    ],
)  # fmt: skip
def test_a_description_without_meaning_is_refused(tmp_path, text, match):
    cellsearch(tmp_path, 2, 2)
    refusal(describe(tmp_path, text), match)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("", "don't tell field and place"),
        ("index,x,y\n1,0,0", "don't tell field and place"),
        ("index,x_um\n1,0", "don't tell field and place"),
        ("index,x_um,y_um\n1,0,0\n1,30,0", "row 3: field 1 is there twice"),
        ("index,x_um,y_um\n1,0,far", "row 2, column y_um: 'far' isn't a number"),
        ("index,x_um,y_um\n1,nan,0", "'nan' isn't a number"),
        ("index,x_um,y_um\n1.5,0,0", "'1.5' isn't a whole number"),
        ("index,x_um,y_um\n1,0", "row 2: 2 fields, the header has 3"),
        ("index,x_um,y_um\n1,0,0\n2,35,0", "S1_003.tif: stage.csv doesn't tell its position"),
        ("index,x_um,y_um\n1,0,0\n2,35,0\n3,0,30\n4,35,30\n5,70,30", "field 5 of 5 in the table isn't there"),
        ("index,x_mm,y_mm\n1,0,0\n2,35,0\n3,0,30\n4,35,30", "4 fields of 60 x 70 px can't lie on"),
        ("index,x_um,y_um\n1,0,0\n2,1e300,0\n3,0,30\n4,35,30", "can't lie on"),
        ("index,x_um,y_um\n1,0,0\n2,1,0\n3,0,1\n4,1,1", None),
        ("file,x_um,y_um\nS1_001.tif,0,0", "S1_002.tif: stage.csv doesn't tell its position"),
    ],
)
def test_a_table_of_positions_is_checked_row_by_row(tmp_path, table, match):
    cellsearch(tmp_path, 2, 2)
    describe(tmp_path, TABLE + "stage.csv")
    (tmp_path / "stage.csv").write_text(table)
    if match is None:
        assert seen(tmp_path).shape == (4, 62, 72)
    else:
        refusal(tmp_path, match)


def test_a_scale_that_contradicts_the_files_is_refused(tmp_path):
    write_ome_fields(tmp_path, cut(2, 2)[1])
    refusal(describe(tmp_path, "layout: ome-fields\npixel_size_um: 0.65"), "metadata say 0.5")


def test_malicious_metadata_are_refused_before_anything_parses_them(tmp_path):
    entities = '<!DOCTYPE b [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    bomb = f'<?xml version="1.0"?>{entities}<OME><Image><Pixels>&b;</Pixels></Image></OME>'
    for name in "ab":
        write(tmp_path / f"{name}.ome.tif", SLIDE[0], description=bomb)
    refusal(tmp_path, "defines a document type or entities")


@pytest.mark.parametrize("damage", [b"", b"II*", b"not a TIFF at all"])
def test_a_glance_at_damaged_files_leaves_them_to_the_reader_that_names_them(tmp_path, damage):
    for name in "ab":
        (tmp_path / f"{name}.tif").write_bytes(damage)
    assert not FramesReader().accepts(tmp_path)
    (tmp_path / "c.tif").mkdir()
    assert not FramesReader().accepts(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('PositionX="', 'PositionX="far'),
        ('PositionXUnit="µm"', 'PositionXUnit="pixel"'),
        ('PositionY="', 'Somewhere="'),
        ("<Plane", "<Plain"),
        ("<Pixels", "<Pixel"),
    ],
)
def test_ome_fields_whose_position_has_no_meaning_need_a_description(tmp_path, old, new):
    write_ome_fields(tmp_path, cut(2, 2)[1])
    with tifffile.TiffFile(tmp_path / "f10.ome.tif") as tif:
        xml = tif.ome_metadata
    with tifffile.TiffWriter(tmp_path / "f10.ome.tif") as writer:
        for index in range(4):
            text = xml.replace(old, new).encode() if index == 0 else None
            writer.write(SLIDE[index, :60, :70], description=text, metadata=None, photometric="minisblack")
    refusal(tmp_path, r"f10.ome.tif: its OME-XML tells no stage position")


# What comes with the package, and what the documentation says


@pytest.mark.parametrize("name", shipped_layouts())
def test_shipped_layouts_need_but_what_they_say(name):
    grid = "grid: {rows: 2, columns: 3, overlap_px: 4}" if "tiles" in name or name == "cellsearch" else ""
    assert parse_layout(f"layout: {name}\n{grid}", "frames.yaml").pattern.text


def test_the_examples_of_the_documentation_are_read():
    text = (Path(__file__).parent.parent / "docs" / "frames.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(examples) >= 2
    for example in examples:
        parse_layout(example, "docs/frames.md")
    for name in shipped_layouts():
        assert f"`{name}`" in text


def test_planes_tell_what_they_are():
    plane = MosaicPlane(flat_mosaic([(0, 0), (0, 8)], (10, 10)), 1)
    assert (plane.shape, plane.dtype, plane.chunk_shape_px) == ((10, 18), np.uint16, (10, 8))
    np.testing.assert_array_equal(read_box(plane, Box(0, 1, 0, 18))[0], [101] * 9 + [102] * 9)
