"""OME-Zarr reads as the same pixels in any layout, and a chunk that isn't there is never taken for a black one."""

import json
import shutil
from contextlib import suppress

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import SlideError
from ctc_imaging.slide import open_slide

IMAGE = np.random.default_rng(3).integers(1, 4000, (3, 100, 130)).astype(np.uint16)
NAMES = ("DAPI", "CK", "CD45")
KINDS = {"t": "time", "c": "channel"}
CHUNK = {"t": 1, "c": 1, "z": 1, "y": 32, "x": 48}
SHARD = {"t": 1, "c": 1, "z": 1, "y": 64, "x": 96}


def axes_of(names, unit="micrometer"):
    spatial = {"type": "space"} | ({"unit": unit} if unit else {})
    return [{"name": name} | ({"type": KINDS[name]} if name in KINDS else spatial) for name in names]


def multiscales(axes="cyx", scale=0.5, unit="micrometer", path="0", whole=None):
    sides = [scale if axis in "yx" else 1.0 for axis in axes]
    level = {"path": path, "coordinateTransformations": [{"type": "scale", "scale": sides}]}
    half = {"path": "1", "coordinateTransformations": [{"type": "scale", "scale": sides}]}
    image = {"version": "0.4", "axes": axes_of(axes, unit), "datasets": [level, half]}
    if whole:
        sides = [whole if axis in "yx" else 1.0 for axis in axes]
        image["coordinateTransformations"] = [{"type": "scale", "scale": sides}]
    return image


def write(folder, image=IMAGE, axes="cyx", version="0.4", described=None, shards=False, chunk=CHUNK, **options):
    """Write level 0 (and an empty level 1, which nobody may ask for) as a scanner's converter would."""
    described = described or multiscales(axes)
    omero = {"channels": [{"label": name} for name in NAMES]}
    attributes = {"multiscales": [described], "omero": omero}
    if version == "0.5":
        described.pop("version")
        attributes = {"ome": {"version": "0.5", **attributes}}
    group = zarr.open_group(folder, mode="w", zarr_format=2 if version == "0.4" else 3, attributes=attributes)
    if shards:
        options["shards"] = tuple(SHARD[axis] for axis in axes)
    array = group.create_array(
        "0",
        shape=image.shape,
        dtype=image.dtype,
        chunks=tuple(chunk[axis] for axis in axes),
        config={"write_empty_chunks": True},
        **options,
    )
    array[...] = image
    return folder


LAYOUTS = {
    "0.4": {},
    "0.4 nested": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "0.4 big-endian zlib": {"compressors": "zlib"},
    "0.4 uncompressed": {"compressors": None},
    "0.5": {"version": "0.5"},
    "0.5 dots": {"version": "0.5", "chunk_key_encoding": {"name": "default", "separator": "."}},
    "0.5 uncompressed": {"version": "0.5", "compressors": None},
    "0.5 sharded": {"version": "0.5", "shards": True},
    "0.5 blosc shards": {"version": "0.5", "shards": True, "compressors": zarr.codecs.BloscCodec()},
    "all channels in a chunk": {"chunk": {**CHUNK, "c": 3}},
    "two channels in a chunk": {"chunk": {**CHUNK, "c": 2}, "version": "0.5"},
    "chunks larger than the image": {"chunk": {**CHUNK, "y": 256, "x": 256}},
}


def make(folder, layout):
    options = dict(LAYOUTS[layout])
    if options.get("compressors") == "zlib":
        import numcodecs

        options["compressors"] = numcodecs.Zlib()
        return write(folder, IMAGE.astype(">u2"), **options)
    return write(folder, **options)


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request, tmp_path_factory):
    return make(tmp_path_factory.mktemp("zarr ü") / "scan one.ome.zarr", request.param)


def whole(path):
    with open_slide(path) as slide:
        return slide.read(range(slide.shape[0]), 0, slide.shape[1], 0, slide.shape[2])


def refusal(path, match):
    with pytest.raises(SlideError, match=match) as caught:
        whole(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert caught.value.remedy
    return message


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def spans(size):
    return st.tuples(st.integers(0, size - 1), st.integers(1, size)).filter(lambda span: span[0] < span[1])


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=4), spans(100), spans(130))
def test_any_region_is_the_slice_of_the_whole(written, channels, rows, columns):
    with open_slide(written) as slide:
        assert (slide.reader, slide.shape, slide.dtype) == ("ome-zarr", IMAGE.shape, np.dtype("uint16"))
        assert (slide.channel_names, slide.pixel_size_um, slide.warnings) == (NAMES, 0.5, ())
        region = slide.read(channels, *rows, *columns)
    assert region.dtype.isnative
    np.testing.assert_array_equal(region, IMAGE[channels, slice(*rows), slice(*columns)])


def test_only_the_chunks_beneath_a_region_are_decoded(tmp_path):
    for layout in ("0.4", "0.5 sharded"):
        with open_slide(make(tmp_path / layout, layout)) as slide:
            assert slide.chunk_shape_px == (32, 48)
            slide.read([1], 31, 33, 47, 49)
            assert slide.chunks_read == 4


def test_files_are_those_that_were_read(written):
    with open_slide(written) as slide:
        found = {path for path in written.rglob("*") if path.is_file()}
        unread = {path.relative_to(written).as_posix() for path in found - set(slide.files)}
        assert list(slide.files) == sorted(slide.files)
    assert set(slide.files) <= found
    assert unread <= {"0/.zattrs"}


@pytest.mark.parametrize("axes", ["yx", "cyx", "tcyx", "czyx", "tczyx", "tyx", "zyx"])
def test_every_legal_set_of_axes_is_read(tmp_path, axes):
    image = IMAGE if "c" in axes else IMAGE[0]
    image = image.reshape([image.shape[0] if axis == "c" else 1 for axis in axes[:-2]] + list(IMAGE.shape[1:]))
    np.testing.assert_array_equal(whole(write(tmp_path / "scan.zarr", image, axes)), image.reshape(-1, 100, 130))


def test_of_focal_planes_the_sharpest_is_read(tmp_path):
    flat = np.full_like(IMAGE, 100)
    write(tmp_path / "scan.zarr", np.stack([flat, IMAGE, flat], axis=1), "czyx")
    np.testing.assert_array_equal(whole(tmp_path / "scan.zarr"), IMAGE)
    with open_slide(tmp_path / "scan.zarr") as slide:
        assert "3 focal planes (Z)" in slide.warnings[0]


def test_time_series_are_refused_by_name(tmp_path):
    refusal(write(tmp_path / "t.zarr", IMAGE, "tyx"), "3 time points")
    refusal(write(tmp_path / "tz.zarr", np.stack([IMAGE, IMAGE]), "tzyx"), "2 time points")


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ({"scale": 0.325}, 0.325),
        ({"scale": 325.0, "unit": "nanometer"}, 0.325),
        ({"scale": 0.000325, "unit": "millimeter"}, 0.325),
        ({"scale": 1.0, "whole": 0.65}, 0.65),
        ({"scale": 2.0, "whole": 0.325}, 0.65),
        ({"scale": 1.0, "unit": None}, None),
        ({"scale": 0.5, "unit": "parsec"}, None),
        ({"scale": 400.0}, None),
    ],
)
def test_pixel_size_in_any_unit(tmp_path, described, expected):
    with open_slide(write(tmp_path / "scan.zarr", described=multiscales(**described))) as slide:
        assert slide.pixel_size_um == expected
        assert bool(slide.warnings) == (described["scale"] == 400)


def test_a_scale_without_unit_is_taken_as_micrometres_and_said(tmp_path):
    with open_slide(write(tmp_path / "scan.zarr", described=multiscales(scale=0.325, unit=None))) as slide:
        assert slide.pixel_size_um == 0.325
        assert "no unit" in slide.warnings[0]


def test_pixels_that_are_not_square_are_refused(tmp_path):
    write(tmp_path / "scan.zarr")
    edit(
        tmp_path / "scan.zarr" / ".zattrs",
        lambda attributes: attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"][0].update(
            scale=[1, 0.5, 0.7]
        ),
    )
    refusal(tmp_path / "scan.zarr", "0.7 by 0.5 µm")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "float16"])
def test_types_of_pixels(tmp_path, dtype):
    image = (IMAGE % 250).astype(dtype)
    read = whole(write(tmp_path / "scan.zarr", image, version="0.5"))
    assert read.dtype == (np.uint8 if dtype == "uint8" else np.float32)
    np.testing.assert_array_equal(read, image.astype(read.dtype))


@pytest.mark.parametrize("dtype", ["int16", "uint32", "bool"])
def test_other_types_of_pixels_are_refused(tmp_path, dtype):
    refusal(write(tmp_path / "scan.zarr", IMAGE.astype(dtype)), f"pixels of type {dtype}")


# Which image


def bioformats2raw(folder, images=1):
    """Lay images into series folders, as bioformats2raw does."""
    zarr.open_group(folder, mode="w", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    names = [str(index) for index in range(images)]
    zarr.open_group(folder / "OME", mode="w", zarr_format=2, attributes={"series": names})
    (folder / "OME" / "METADATA.ome.xml").write_text("<OME>SECRET-ID</OME>")
    for name in names:
        write(folder / name)
    return folder


def test_the_only_series_of_bioformats2raw_is_the_slide(tmp_path):
    path = bioformats2raw(tmp_path / "scan.zarr")
    np.testing.assert_array_equal(whole(path), IMAGE)
    with open_slide(path) as slide:
        assert path / "OME" / ".zattrs" in slide.files
        assert path / "0" / "0" / "0.0.0" in slide.files
        assert path / "OME" / "METADATA.ome.xml" not in slide.files
    np.testing.assert_array_equal(whole(path / "0"), IMAGE)


def test_several_images_are_refused(tmp_path):
    refusal(bioformats2raw(tmp_path / "series.zarr", 2), r"2 images \(series\)")
    write(tmp_path / "scans.zarr")
    edit(tmp_path / "scans.zarr" / ".zattrs", lambda all_: all_["multiscales"].append(all_["multiscales"][0]))
    refusal(tmp_path / "scans.zarr", r"2 images \(multiscales\)")


@pytest.mark.parametrize(("key", "fault"), [("plate", "a plate"), ("well", "a well"), ("image-label", "a label image")])
def test_what_is_not_a_scan_is_refused(tmp_path, key, fault):
    write(tmp_path / "scan.zarr")
    edit(tmp_path / "scan.zarr" / ".zattrs", lambda attributes: attributes.update({key: {}}))
    refusal(tmp_path / "scan.zarr", fault)


def test_labels_and_lower_levels_are_never_opened(tmp_path):
    path = write(tmp_path / "scan.zarr")
    for name in ("1", "labels"):
        (path / name).mkdir()
        (path / name / ".zarray").write_text("not even JSON")
    np.testing.assert_array_equal(whole(path), IMAGE)


def test_folders_without_ome_metadata_are_refused(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    refusal(tmp_path / "empty.zarr", "the folder lacks Zarr metadata")
    zarr.open_group(tmp_path / "group.zarr", mode="w", zarr_format=3)
    refusal(tmp_path / "group.zarr", "without OME metadata")
    zarr.create_array(tmp_path / "array.zarr", shape=(9, 9), dtype="u2")
    refusal(tmp_path / "array.zarr", "a bare Zarr array")


@pytest.mark.parametrize("name", ["../other", "/etc", "0/../../other", "..\\other", "file:///etc", ".."])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, name):
    write(tmp_path / "other")
    refusal(write(tmp_path / "scan.zarr", described=multiscales(path=name)), "outside the slide")
    path = bioformats2raw(tmp_path / "series.zarr")
    edit(path / "OME" / ".zattrs", lambda attributes: attributes.update(series=[name]))
    refusal(path, "outside the slide")


def test_other_versions_are_refused_by_name(tmp_path):
    path = write(tmp_path / "scan.zarr")
    edit(path / ".zattrs", lambda attributes: attributes["multiscales"][0].update(version="0.3"))
    refusal(path, r"OME-Zarr 0\.3; convert it to 0\.4 or 0\.5")
    edit(path / ".zattrs", lambda attributes: attributes["multiscales"][0].update(version="SECRET-ID"))
    assert "SECRET" not in refusal(path, "unknown version")


# Half-copied and damaged


def chunk_files(path):
    return sorted(
        file for file in (path / "0").rglob("*") if file.is_file() and not file.name.startswith((".z", "zarr"))
    )


def test_a_chunk_that_is_missing_is_never_read_as_black(written, tmp_path):
    for index in (0, -1):
        path = shutil.copytree(written, tmp_path / f"scan{index}.zarr")
        chunk_files(path)[index].unlink()
        message = refusal(path, "was never written")
        assert chunk_files(written)[index].relative_to(written).as_posix() in message
        assert "write_empty_chunks" in message


def test_a_chunk_that_was_never_written_into_its_shard_is_refused(tmp_path):
    path = make(tmp_path / "scan.zarr", "0.5 sharded")
    image = IMAGE.copy()
    image[1, :32, :48] = 0
    zarr.open_group(path, mode="r+")["0"][...] = image
    with open_slide(path) as slide:
        slide.read([0, 2], 0, 100, 0, 130)
        with pytest.raises(SlideError, match=r"0/c/1/0/0 \[0, 0, 0\] was never written"):
            slide.read([1], 0, 9, 0, 9)


def test_a_chunk_cut_short_is_refused(written, tmp_path):
    for lost in (1, 20):
        path = shutil.copytree(written, tmp_path / f"lost{lost}.zarr")
        file = chunk_files(path)[1]
        file.write_bytes(file.read_bytes()[:-lost])
        refusal(path, "is cut off|can't be decoded|cut off or damaged")
    file.write_bytes(b"")
    refusal(path, "never written")


def test_a_chunk_that_vanishes_while_the_slide_is_open_is_refused(tmp_path):
    path = make(tmp_path / "scan.zarr", "0.4")
    with open_slide(path) as slide:
        slide.read([0], 0, 9, 0, 9)
        chunk_files(path)[-1].unlink()
        with pytest.raises(SlideError, match="was never written"):
            slide.read([2], 90, 100, 120, 130)


@pytest.mark.parametrize("file", [".zgroup", ".zattrs", "0/.zarray"])
def test_missing_or_broken_metadata_are_refused(tmp_path, file):
    for text in (None, "", "{", "[]", "{}", '"SECRET-ID"'):
        path = shutil.rmtree(tmp_path / "scan.zarr", ignore_errors=True) or make(tmp_path / "scan.zarr", "0.4")
        (path / file).unlink()
        if text is not None:
            (path / file).write_text(text)
        if (file, text) != (".zgroup", "{}"):
            assert "SECRET" not in refusal(path, "malformed|lacks|is missing|without OME")


def values():
    leaves = st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats(allow_nan=False) | st.text(max_size=4)
    return leaves | st.lists(leaves, max_size=3) | st.dictionaries(st.text(max_size=3), leaves, max_size=2)


def places(document, at=()):
    yield at
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from places(value, (*at, key))


@pytest.mark.parametrize(("layout", "file"), [("0.4", ".zattrs"), ("0.4", "0/.zarray"), ("0.5 sharded", "0/zarr.json")])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_mutated_metadata_never_raise_anything_else(tmp_path_factory, layout, file, data):
    path = make(tmp_path_factory.mktemp("mutated") / "scan.zarr", layout)
    document = json.loads((path / file).read_text())
    *way, last = data.draw(st.sampled_from([place for place in places(document) if place]))
    target = document
    for key in way:
        target = target[key]
    target[last] = data.draw(values())
    (path / file).write_text(json.dumps(document))
    with suppress(SlideError), open_slide(path) as slide:
        slide.read([0], 0, min(slide.shape[1], 200), 0, min(slide.shape[2], 200))


@pytest.mark.parametrize("layout", ["0.4", "0.5", "0.5 sharded", "0.5 blosc shards"])
@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_flipped_bytes_never_raise_anything_else(tmp_path_factory, layout, flips):
    path = make(tmp_path_factory.mktemp("flipped") / "scan.zarr", layout)
    file = chunk_files(path)[0]
    raw = bytearray(file.read_bytes())
    for position, value in flips:
        raw[position % len(raw)] = value
    file.write_bytes(raw)
    with suppress(SlideError):
        whole(path)
