"""Readers are strict: what a file says is read, and every fault is one line naming file, fault and remedy."""

import struct
import traceback
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.folder import channel_names
from ctc_imaging.readers.tiff_metadata import clean_names
from ctc_imaging.slide import open_slide

IMAGE = np.random.default_rng(2).integers(0, 4000, (4, 60, 70)).astype(np.uint16)
NAMES = ("DAPI", "CK", "Vimentin", "CD45")


def write(path, image=IMAGE, **options):
    tifffile.imwrite(path, image, photometric="minisblack", **options)
    return path


def write_ome(path, image=IMAGE, metadata=None, **options):
    return write(path, image, ome=True, metadata={"axes": "CYX", **(metadata or {})}, **options)


def write_pages(path, image=IMAGE, **options):
    with tifffile.TiffWriter(path) as writer:
        for plane in image:
            writer.write(plane, contiguous=False, metadata=None, photometric="minisblack", **options)
    return path


def write_described(path, xml, planes=IMAGE):
    """Write pages of which the first carries this OME-XML."""
    with tifffile.TiffWriter(path) as writer:
        for index, plane in enumerate(planes):
            text = xml if index == 0 else None
            writer.write(plane, contiguous=False, metadata=None, description=text, photometric="minisblack")
    return path


def ome_xml(folder, **metadata):
    with tifffile.TiffFile(write_ome(folder / "template.ome.tif", metadata=metadata)) as tif:
        return tif.ome_metadata


def seen(path):
    with open_slide(path) as slide:
        return slide.pixel_size_um, slide.channel_names


def refusal(path, match, pixel_size_um=None):
    """Open what must be refused, whole: the pixels too."""
    with pytest.raises(SlideError, match=match) as caught, open_slide(path, pixel_size_um) as slide:
        slide.read(range(slide.shape[0]), 0, slide.shape[1], 0, slide.shape[2])
    message = str(caught.value)
    assert message.startswith(caught.value.where)
    assert "\n" not in message
    assert caught.value.remedy
    return message


def directories(raw):
    """Offsets of a classic little-endian TIFF's directories and of the links that follow them."""
    offset, found = struct.unpack("<I", raw[4:8])[0], []
    while offset:
        link = offset + 2 + 12 * struct.unpack("<H", raw[offset : offset + 2])[0]
        found.append((offset, link))
        offset = struct.unpack("<I", raw[link : link + 4])[0]
    return found


# What a file says


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [(0.5, "µm", 0.5), (500, "nm", 0.5), (0.00065, "mm", 0.65), (0.325, "\u03bcm", 0.325), (1, "pixel", None)],
)
def test_pixel_size_from_ome_in_any_unit(tmp_path, size, unit, expected):
    metadata = {f"PhysicalSize{axis}{end}": value for axis in "XY" for end, value in (("", size), ("Unit", unit))}
    found = seen(write_ome(tmp_path / "scan.tif", metadata=metadata))[0]
    assert found == (expected if expected is None else pytest.approx(expected))


def test_pixel_size_from_resolution_tags(tmp_path):
    write(tmp_path / "cm.tif", metadata=None, resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    write(tmp_path / "inch.tif", metadata=None, resolution=(50_800, 50_800), resolutionunit="INCH")
    write(tmp_path / "none.tif", metadata=None, resolution=(2, 2), resolutionunit="NONE")
    assert seen(tmp_path / "cm.tif")[0] == pytest.approx(0.5)
    assert seen(tmp_path / "inch.tif")[0] == pytest.approx(0.5)
    assert seen(tmp_path / "none.tif")[0] is None


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m"])
def test_pixel_size_and_labels_from_imagej(tmp_path, unit):
    metadata = {"axes": "CYX", "unit": unit, "Labels": list(NAMES)}
    write(tmp_path / "scan.tif", imagej=True, resolution=(2, 2), metadata=metadata)
    assert seen(tmp_path / "scan.tif") == (pytest.approx(0.5), NAMES)


def test_a_screen_resolution_is_no_pixel_size(tmp_path):
    write(tmp_path / "scan.tif", metadata=None, resolution=(72, 72), resolutionunit="INCH")
    with open_slide(tmp_path / "scan.tif", 0.5) as slide:
        assert slide.pixel_size_um == 0.5
        assert "352.778 µm" in slide.warnings[0]


def test_channel_names_lose_byte_order_marks_and_blanks(tmp_path):
    write_ome(tmp_path / "scan.tif", metadata={"Channel": {"Name": ["\ufeffDAPI ", " CK", "Channel:0:2", "CD45"]}})
    assert seen(tmp_path / "scan.tif")[1] == ("DAPI", "CK", None, "CD45")


@pytest.mark.parametrize("name", ["Channel:0:1", "c:1/4 - scan.tif", "Channel 3", "ch0", "C=2", "7", "", " ", "\ufeff"])
def test_numbers_are_no_names(name):
    assert clean_names([name], 1) == (None,)


@pytest.mark.parametrize("name", ["CD45", "CK8/18/19", "CK", "DAPI", "C3d", "Cy5"])
def test_stains_keep_their_names(name):
    assert clean_names([name], 1) == (name,)


def test_names_that_do_not_match_the_channels_are_dropped():
    assert clean_names(["DAPI", "CK"], 3) == (None, None, None)


def test_the_slide_is_the_largest_image_of_the_file(tmp_path):
    with tifffile.TiffWriter(tmp_path / "scan.ome.tif", ome=True) as writer:
        writer.write(np.zeros((20, 30, 3), np.uint8), photometric="rgb", metadata={"Name": "label"})
        metadata = {"axes": "CYX", "Name": "scan", "PhysicalSizeX": 0.25, "Channel": {"Name": NAMES}}
        writer.write(IMAGE, photometric="minisblack", metadata=metadata)
    assert seen(tmp_path / "scan.ome.tif") == (0.25, NAMES)


def test_an_ome_tiff_in_several_files_reads_as_one(tmp_path):
    xml = ome_xml(tmp_path, Channel={"Name": NAMES})
    head, data, tail = xml.partition("<TiffData")[0], [], xml[xml.rindex("</Pixels>") :]
    for index in range(4):
        uuid = f'<UUID FileName="c{index}.ome.tif">urn:uuid:0000000{index}-aaaa-bbbb-cccc-dddddddddddd</UUID>'
        data.append(f'<TiffData IFD="0" PlaneCount="1" FirstC="{index}">{uuid}</TiffData>')
    for index in range(4):
        write_described(tmp_path / f"c{index}.ome.tif", head + "".join(data) + tail, IMAGE[index : index + 1])
    with open_slide(tmp_path / "c0.ome.tif") as slide:
        np.testing.assert_array_equal(slide.read(range(4), 0, 60, 0, 70), IMAGE)
        assert slide.channel_names == NAMES
        assert slide.files == tuple(tmp_path / f"c{index}.ome.tif" for index in range(4))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.ome.tif").symlink_to(tmp_path / "c0.ome.tif")
    refusal(tmp_path / "elsewhere" / "link.ome.tif", "outside its folder")
    (tmp_path / "c2.ome.tif").unlink()
    refusal(tmp_path / "c0.ome.tif", "only 3 of its 4 planes are there")


def test_uncompressed_strips_may_lie_anywhere_in_the_file(tmp_path):
    path = write_pages(tmp_path / "scan.tif", rowsperstrip=20)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tags = tif.pages[2].tags
        first, second, third = tags["StripOffsets"].value
        tags["StripOffsets"].overwrite([third, second, first])
    expected = IMAGE.copy()
    expected[2] = np.concatenate([IMAGE[2, 40:], IMAGE[2, 20:40], IMAGE[2, :20]])
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(range(4), 0, 60, 0, 70), expected)


@pytest.mark.parametrize("name", ["scan.dat", "scan.czi", "scan"])
def test_a_tiff_is_known_by_its_bytes(tmp_path, name):
    write(tmp_path / name)
    with open_slide(tmp_path / name) as slide:
        assert slide.shape == IMAGE.shape


# Folders


def test_folder_channels_are_named_by_their_files(tmp_path):
    for plane, name in zip(IMAGE, NAMES, strict=True):
        write(tmp_path / f"Patient 3_{name}_20x.ome.tiff", plane)
    (tmp_path / "._Patient 3_DAPI_20x.ome.tiff").write_bytes(b"left by a Mac")
    (tmp_path / "notes.txt").write_text("not a channel")
    with open_slide(tmp_path) as slide:
        assert slide.channel_names == ("CD45", "CK", "DAPI", "Vimentin")
        np.testing.assert_array_equal(slide.read([2], 0, 60, 0, 70)[0], IMAGE[0])


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["s_CD45.tif", "s_CK.tif"], ["CD45", "CK"]),
        (["s-CD-45-x.tif", "s-CK-x.tif"], ["CD-45", "CK"]),
        (["DAPI.tif"], ["DAPI"]),
        (["slide_1 DAPI.OME.TIF", "slide_1 CK.ome.tif"], ["DAPI", "CK"]),
        (["a.tif", "a_CK.tif"], ["a", "_CK"]),
        (["e\u0301_CK.tif", "\u00e9_DAPI.tif"], ["CK", "DAPI"]),
    ],
)
def test_file_names_lose_what_they_share(files, names):
    assert channel_names(files) == names


def test_folders_of_unlike_channels_are_refused(tmp_path):
    write(tmp_path / "a.tif", IMAGE[0])
    write(tmp_path / "b.tif", IMAGE[1, :50])
    refusal(tmp_path, r"b\.tif: its shape is \(50, 70\)")
    write(tmp_path / "b.tif", IMAGE[1].astype(np.uint8))
    refusal(tmp_path, r"b\.tif: its dtype is uint8")
    write(tmp_path / "b.tif", IMAGE[:2])
    refusal(tmp_path, r"b\.tif: it holds 2 channels")


def test_folders_of_unlike_scales_are_refused(tmp_path):
    for name, size in (("a", 0.5), ("b", 0.52)):
        metadata = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size}
        write(tmp_path / f"{name}.tif", IMAGE[0], ome=True, metadata=metadata)
    refusal(tmp_path, "0.5 and 0.52 µm a pixel")


def test_a_folder_of_fields_that_nobody_described_is_refused(tmp_path):
    for index in range(65):
        write(tmp_path / f"field{index:03}.tif", IMAGE[0, :8, :8])
    refusal(tmp_path, "65 TIFF files are more than a scan has channels; .* frames.yaml")


def test_warnings_of_a_folder_name_no_file(tmp_path):
    for name in ("DAPI", "CK"):
        write(tmp_path / f"MuellerAnna_{name}.tif", IMAGE[0], metadata=None, resolution=(72, 72), resolutionunit="INCH")
    with open_slide(tmp_path) as slide:
        (warning,) = slide.warnings
    assert warning.startswith("2 of 2 channels: ")
    assert "Mueller" not in warning


def test_folders_without_tiffs_are_refused(tmp_path):
    (tmp_path / "scan.png").write_bytes(b"\x89PNG")
    refusal(tmp_path, "the folder holds no TIFF files")


# What isn't a slide


def test_what_is_not_a_slide_is_refused(tmp_path):
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("not a TIFF at all")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    refusal(tmp_path / "empty.tif", "the file is empty")
    refusal(tmp_path / "text.tif", "not a TIFF file, in spite of its name")
    (tmp_path / "scan.xyz").write_bytes(b"?" * 50)
    refusal(tmp_path / "scan.xyz", "not a slide format.*OME-TIFF")
    refusal(tmp_path / "no.tif", "no such file")
    assert "segment" in refusal(tmp_path / "picture.png", "a picture, not a slide")


def test_time_series_are_refused_by_name(tmp_path):
    refusal(write(tmp_path / "scan.tif", ome=True, metadata={"axes": "TYX"}), "4 time points")
    refusal(write(tmp_path / "scan.tif", imagej=True, metadata={"axes": "TYX"}), "4 time points")
    image = np.stack([IMAGE, IMAGE])
    refusal(write(tmp_path / "scan.tif", image, ome=True, metadata={"axes": "TZYX"}), "2 time points")


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX"])
@pytest.mark.parametrize("options", [{"ome": True}, {"ome": True, "compression": "zlib", "tile": (32, 32)}])
def test_of_focal_planes_the_sharpest_is_read(tmp_path, axes, options):
    flat = np.full_like(IMAGE, 100)
    stack = np.stack([flat, IMAGE, flat], axis=axes.index("Z"))
    metadata = {"axes": axes, "Channel": {"Name": list(NAMES)}}
    write(tmp_path / "scan.tif", stack, metadata=metadata, **options)
    with open_slide(tmp_path / "scan.tif") as slide:
        assert slide.channel_names == NAMES
        assert any("3 focal planes (Z)" in warning for warning in slide.warnings)
        np.testing.assert_array_equal(slide.read(range(4), 0, 60, 0, 70), IMAGE)


def test_an_imagej_stack_of_focal_planes_is_read(tmp_path):
    flat = np.full_like(IMAGE, 100)
    write(tmp_path / "scan.tif", np.stack([flat, IMAGE, flat]), imagej=True, metadata={"axes": "ZCYX"})
    with open_slide(tmp_path / "scan.tif") as slide:
        np.testing.assert_array_equal(slide.read(range(4), 0, 60, 0, 70), IMAGE)


def test_other_axes_are_refused(tmp_path):
    image = IMAGE.reshape(2, 2, 60, 70)
    refusal(write(tmp_path / "scan.tif", image, metadata={"axes": "CQYX"}), "CQYX")
    refusal(write(tmp_path / "scan.tif", image[0], metadata={"axes": "HYX"}), "HYX")


def test_colour_pictures_are_refused_but_separate_planes_are_channels(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", np.moveaxis(IMAGE[:3], 0, -1), photometric="rgb")
    refusal(tmp_path / "rgb.tif", "a colour")
    tifffile.imwrite(tmp_path / "planes.tif", IMAGE[:3], photometric="rgb", planarconfig="separate")
    with open_slide(tmp_path / "planes.tif") as slide:
        np.testing.assert_array_equal(slide.read([2, 0], 0, 60, 0, 70), IMAGE[[2, 0]])


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "int64", "complex64", "bool"])
def test_other_types_of_pixels_are_refused(tmp_path, dtype):
    refusal(write(tmp_path / "scan.tif", IMAGE.astype(dtype)), f"pixels of type {dtype}")


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}, {"byteorder": ">"}])
def test_floats_of_any_width_are_read_as_float32(tmp_path, dtype, options):
    write(tmp_path / "scan.tif", IMAGE.astype(dtype), **options)
    with open_slide(tmp_path / "scan.tif") as slide:
        assert slide.dtype == np.float32
        np.testing.assert_array_equal(slide.read([1], 0, 60, 0, 70)[0], IMAGE[1].astype(dtype).astype(np.float32))


def test_floats_that_float32_cannot_hold_are_refused(tmp_path):
    image = IMAGE.astype(np.float64)
    image[2, 3, 3] = 1e300
    refusal(write(tmp_path / "scan.tif", image), "aren't finite")


def test_packed_pixels_of_12_bits_are_unpacked(tmp_path):
    bits = np.unpackbits(IMAGE[0].astype(">u2").view(np.uint8).reshape(60, 70, 2), axis=2)[:, :, 4:]
    path = write(tmp_path / "scan.tif", np.packbits(bits.reshape(60, -1), axis=1), metadata=None, rowsperstrip=20)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(70)
        tif.pages[0].tags["BitsPerSample"].overwrite(12)
    with open_slide(path) as slide:
        assert slide.dtype == np.uint16
        np.testing.assert_array_equal(slide.read([0], 0, 60, 0, 70)[0], IMAGE[0])


def test_pixels_that_are_not_square_are_refused(tmp_path):
    path = write_ome(tmp_path / "scan.tif", metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.51})
    refusal(path, "0.5 by 0.51 µm")


def test_two_slides_in_one_file_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "scan.tif", ome=True) as writer:
        for name in "ab":
            writer.write(IMAGE, photometric="minisblack", metadata={"axes": "CYX", "Name": name})
    refusal(tmp_path / "scan.tif", "2 images of one size")


# Malice and privacy


BOMB = '<!DOCTYPE lol [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize("declaration", [BOMB, '<!DOCTYPE x SYSTEM "file:///etc/passwd">', "<! doctype x>"])
def test_xml_with_entities_is_refused_before_anything_parses_it(tmp_path, monkeypatch, declaration):
    def never(*_):
        raise AssertionError("parsed")

    xml = ome_xml(tmp_path)
    path = write_described(tmp_path / "scan.ome.tif", xml.replace("<OME", f"{declaration}<OME", 1))
    monkeypatch.setattr("xml.etree.ElementTree.fromstring", never)
    refusal(path, "document type or entities")


@pytest.mark.parametrize("name", ["../other.tif", "/etc/scan.tif", "..\\other.tif", "C:other.tif", "a/../../other.tif"])
def test_planes_outside_the_folder_are_never_opened(tmp_path, name):
    (tmp_path / "scan").mkdir()
    xml = ome_xml(tmp_path)
    write(tmp_path / "other.tif")
    uuid = f'<UUID FileName="{name}">urn:uuid:00000000-aaaa-bbbb-cccc-dddddddddddd</UUID>'
    head, tail = xml.partition("<TiffData")[0], xml[xml.rindex("</Pixels>") :]
    data = f'<TiffData IFD="0" PlaneCount="4" FirstC="0">{uuid}</TiffData>'
    refusal(write_described(tmp_path / "scan" / "scan.ome.tif", head + data + tail), "files outside its folder")


def test_what_names_a_patient_is_never_passed_on(tmp_path, caplog):
    """Identifiers stand in the image's name, annotations, private tags, and broken attributes."""
    xml = ome_xml(tmp_path, Name="SECRET-ID", Description="SECRET-ID", Channel={"Name": NAMES})
    tags = [(65_000, 2, None, "SECRET-ID", True), (306, 2, None, "SECRET-ID", True)]
    paths = [tmp_path / f"{index}.ome.tif" for index in range(5)]
    broken = (
        xml,
        xml.replace('SizeX="70"', 'SizeX="SECRET-ID"'),
        xml.replace('Type="uint16"', 'Type="SECRET-ID"').replace('FirstC="0"', 'FirstC="9"'),
        xml.replace("</Image>", "<SECRET-ID>"),
        xml.replace("<TiffData", '<TiffData FirstZ="SECRET-ID"'),
    )
    for path, text in zip(paths, broken, strict=True):
        with tifffile.TiffWriter(path) as writer:
            for index, plane in enumerate(IMAGE):
                options = {} if index else {"description": text, "extratags": tags}
                writer.write(plane, contiguous=False, metadata=None, photometric="minisblack", **options)
        try:
            with open_slide(path) as slide:
                said = [*slide.warnings, *map(str, slide.channel_names)]
        except SlideError as error:
            said = traceback.format_exception(error)
        assert "SECRET" not in " ".join(said) + caplog.text


# Damage


@pytest.mark.parametrize("kept", [4, 8, 60, 300, 0.3, 0.6, 0.9, -1])
def test_half_copied_files_are_refused(tmp_path, kept):
    raw = write_pages(tmp_path / "whole.tif", compression="zlib", tile=(16, 16)).read_bytes()
    (tmp_path / "cut.tif").write_bytes(raw[: kept if isinstance(kept, int) else int(kept * len(raw))])
    refusal(tmp_path / "cut.tif", "incomplete|ends at byte|damaged")


def test_pixels_cut_off_at_the_end_are_refused(tmp_path):
    path = write(tmp_path / "scan.tif", IMAGE[0], metadata=None)
    path.write_bytes(path.read_bytes()[:-200])
    refusal(path, "the file ends at byte")


def test_circular_and_lost_directories_are_refused(tmp_path):
    raw = bytearray(write_pages(tmp_path / "whole.tif").read_bytes())
    found = directories(raw)
    for link, target, fault in (
        (3, found[1][0], "in a circle"),
        (1, 10**9, "incomplete"),
        (0, 5, "incomplete|damaged"),
    ):
        broken = bytearray(raw)
        broken[found[link][1] : found[link][1] + 4] = struct.pack("<I", target)
        (tmp_path / "broken.tif").write_bytes(broken)
        refusal(tmp_path / "broken.tif", fault)


def test_fewer_planes_than_the_ome_xml_declares_are_refused(tmp_path):
    refusal(write_described(tmp_path / "scan.ome.tif", ome_xml(tmp_path), IMAGE[:3]), "only 3 of its 4 planes")


def test_malformed_ome_xml_is_refused(tmp_path):
    xml = ome_xml(tmp_path)
    for broken in (xml.replace("</Image>", ""), xml[:-30], xml.replace('DimensionOrder="', 'Order="')):
        refusal(write_described(tmp_path / "scan.ome.tif", broken), "OME-XML|damaged")


def test_chunks_that_were_never_written_are_refused(tmp_path):
    path = write(tmp_path / "scan.tif", tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tif:
        tag = tif.pages[0].tags["TileByteCounts"]
        tag.overwrite([0, *tag.value[1:]])
    refusal(path, "never written")


def test_damaged_chunks_are_refused_when_read(tmp_path):
    path = write(tmp_path / "scan.tif", tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, size = tif.pages[1].dataoffsets[7], tif.pages[1].databytecounts[7]
    raw = bytearray(path.read_bytes())
    raw[offset : offset + size] = bytes(size)
    path.write_bytes(raw)
    with open_slide(path) as slide:
        slide.read([0], 0, 60, 0, 70)
        with pytest.raises(SlideError, match="chunk 1, 2 can't be decoded"):
            slide.read([1], 0, 60, 0, 70)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path):
    path = write(tmp_path / "scan.tif", metadata=None)
    with open_slide(path) as slide:
        path.write_bytes(path.read_bytes()[:2000])
        with pytest.raises(SlideError, match="became shorter"):
            slide.read([3], 0, 60, 0, 70)


def test_blocks_too_large_to_decode_are_refused(tmp_path):
    image = np.zeros((12_000, 12_000), np.uint16)
    refusal(write(tmp_path / "scan.tif", image, compression="zstd", rowsperstrip=12_000), "one huge compressed block")


SEEDS = {
    "ome": {"ome": True, "tile": (16, 16), "compression": "zlib"},
    "imagej": {"imagej": True},
    "strips": {"compression": "lzw", "rowsperstrip": 7},
    "bigtiff": {"metadata": None, "bigtiff": True},
}


@pytest.mark.parametrize("kind", SEEDS)
@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 899), st.integers(0, 255)), min_size=1, max_size=3))
def test_flipped_bytes_never_raise_anything_else(kind, tmp_path_factory, flips):
    path = write(tmp_path_factory.mktemp("flip") / "scan.tif", IMAGE[:, :40, :30], **SEEDS[kind])
    raw = bytearray(path.read_bytes())
    for position, value in flips:
        raw[position] = value
    path.write_bytes(raw)
    with suppress(SlideError), open_slide(path) as slide:
        slide.read([0], 0, min(slide.shape[1], 500), 0, min(slide.shape[2], 500))
