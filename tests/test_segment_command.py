"""The command segment: any microscope image in, labels out or one line that says why not."""

from __future__ import annotations

import errno
import json
import os
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from ctc_imaging import pictures
from ctc_imaging.cli import app as app_module
from ctc_imaging.cli import main
from ctc_imaging.errors import CtcImagingError
from ctc_imaging.pictures import is_picture, read_picture
from ctc_imaging.plane import choose_channel, read_plane

UM = 0.5
FOUR = ["DAPI", "CK", "Vimentin", "CD45"]
CENTRES = ((40, 40), (40, 120), (120, 40), (120, 120))


@pytest.fixture(autouse=True)
def no_plug_ins(monkeypatch):
    monkeypatch.setattr(app_module, "GROUP", "nobody's")


def paint_nuclei(shape: tuple[int, int] = (160, 160), centres=CENTRES) -> np.ndarray:
    """Paint bright discs of 8 µm on a noisy ground (uint8)."""
    image = np.random.default_rng(0).normal(20, 2, shape).clip(0, 255).astype(np.uint8)
    for y, x in centres:
        cv2.circle(image, (x, y), 8, 140, -1)
    return image


def segment(image: Path, *options: str, labels: str = "labels.tif") -> tuple[int, Path]:
    """Run the command the classical way; return its exit code and where labels should be."""
    target = image.parent / labels
    return main(["segment", str(image), str(target), "--model", "classical", *options]), target


def write(path: Path, pixels: np.ndarray) -> Path:
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.shape[-1] == 3 else "minisblack")
    else:
        cv2.imwrite(str(path), pixels)
    return path


def write_ome(path: Path, pixels: np.ndarray, names: list[str] | None = None, **metadata) -> Path:
    channels = {"Channel": {"Name": names}} if names else {}
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "CYX", **channels, **metadata}, ome=True)
    return path


def facts(capfd) -> dict:
    return json.loads(capfd.readouterr().out)


def assert_refused(capfd, code: int, folder: Path, before: set[str], *said: str) -> None:
    """Exit 2, one line with all that is said, and the folder as it was."""
    captured = capfd.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith("ctc-imaging: error: ")
    assert captured.err.count("\n") == 1
    assert captured.err.count("; ") >= 1, "no remedy"
    for words in said:
        assert words in captured.err
    assert {path.name for path in folder.rglob("*")} == before


def assert_refuses(capfd, image: Path, *said: str, options: tuple[str, ...] = (), labels: str = "labels.tif") -> None:
    before = {path.name for path in image.parent.rglob("*")}
    code, _ = segment(image, *options, labels=labels)
    assert_refused(capfd, code, image.parent, before, *said)


# What comes out


def test_labels_are_a_compressed_map_with_the_scale(tmp_path, capfd):
    image = write(tmp_path / "image.png", paint_nuclei())
    code, labels = segment(image, "--pixel-size", "0.5", "--json", labels="out/labels.tif")
    assert code == 0
    assert facts(capfd) == {
        "labels": str(labels),
        "nuclei": 4,
        "channel": 0,
        "channel_name": None,
        "pixel_size_um": 0.5,
        "pixel_size_from": "option",
        "model": "classical",
    }
    with tifffile.TiffFile(labels) as tif:
        found, page = tif.asarray(), tif.pages.first
        assert (found.dtype, found.shape) == (np.uint32, (160, 160))
        assert [found[y, x] for y, x in CENTRES] == [1, 2, 3, 4]
        assert page.compression != tifffile.COMPRESSION.NONE
        assert page.tags["XResolution"].value == (20000, 1)
        assert page.tags["ResolutionUnit"].value == 3
    assert [path.name for path in labels.parent.iterdir()] == ["labels.tif"]


def test_a_person_is_told_how_many_and_at_which_scale(tmp_path, capfd):
    image = write(tmp_path / "image.png", paint_nuclei())
    _, labels = segment(image, "--pixel-size", "0.5")
    captured = capfd.readouterr()
    assert captured.out == f"4 nuclei, 0.5 µm a pixel, as given\n{labels}\n"
    assert captured.err == ""


def test_labels_of_before_are_replaced(tmp_path):
    image = write(tmp_path / "image.png", paint_nuclei())
    (tmp_path / "labels.tif").write_text("of yesterday")
    assert segment(image, "--pixel-size", "0.5")[0] == 0
    assert tifffile.imread(tmp_path / "labels.tif").max() == 4


def test_the_same_image_gives_the_same_bytes(tmp_path):
    image = write(tmp_path / "image.png", paint_nuclei())
    first, second = (segment(image, "--pixel-size", "0.5", labels=name)[1] for name in ("a.tif", "b.tif"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint32", "int64", "float32", "float64"])
def test_labels_do_not_depend_on_the_type_of_the_pixels(dtype, tmp_path):
    pixels = paint_nuclei()
    of_bytes = write(tmp_path / "bytes.tif", pixels)
    other = write(tmp_path / f"{dtype}.tif", pixels.astype(dtype))
    found = [tifffile.imread(segment(image, "--pixel-size", "0.5")[1]) for image in (of_bytes, other)]
    assert found[0].max() == 4
    assert np.array_equal(*found)


@pytest.mark.parametrize("name", ["image.png", "wide.png", "image.jpg", "image.bmp", "image.tif", "png_named.tif"])
def test_formats_of_pictures(name, tmp_path, capfd):
    pixels = np.uint16(paint_nuclei()) * 100 if name == "wide.png" else paint_nuclei()
    if name == "png_named.tif":
        write(tmp_path / "image.png", pixels).rename(tmp_path / name)
    else:
        write(tmp_path / name, pixels)
    assert segment(tmp_path / name, "--pixel-size", "0.5", "--json")[0] == 0
    assert facts(capfd)["nuclei"] == 4


def test_a_folder_of_a_file_a_channel_is_an_image_too(tmp_path, capfd):
    folder = tmp_path / "slide"
    folder.mkdir()
    write(folder / "scan_DAPI.tif", paint_nuclei())
    write(folder / "scan_CK.tif", paint_nuclei(centres=()))
    assert segment(folder, "--pixel-size", "0.5", "--json")[0] == 0
    assert (said := facts(capfd))["nuclei"] == 4
    assert said["channel_name"] == "DAPI"


# Scale


def png_with_scale(path: Path, pixels: np.ndarray, per_m: int) -> Path:
    """Write a PNG with the chunk pHYs, which OpenCV doesn't write."""
    encoded = cv2.imencode(".png", pixels)[1].tobytes()
    body = b"pHYs" + struct.pack(">IIB", per_m, per_m, 1)
    path.write_bytes(encoded[:33] + struct.pack(">I", 9) + body + struct.pack(">I", zlib.crc32(body)) + encoded[33:])
    return path


def jpeg_with_scale(path: Path, pixels: np.ndarray, per_cm: int) -> Path:
    encoded = bytearray(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes())
    encoded[13:18] = struct.pack(">BHH", 2, per_cm, per_cm)
    path.write_bytes(encoded)
    return path


def tiff_with_scale(path: Path, pixels: np.ndarray) -> Path:
    tifffile.imwrite(path, pixels, resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    return path


def file_with_scale(kind: str, folder: Path) -> Path:
    pixels = paint_nuclei()
    if kind == "png":
        return png_with_scale(folder / "image.png", pixels, 2_000_000)
    if kind == "jpeg":
        return jpeg_with_scale(folder / "image.jpg", pixels, 20_000)
    if kind == "ome":
        return write_ome(folder / "image.ome.tif", pixels[None], PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    return tiff_with_scale(folder / "image.tif", pixels.astype(np.int32 if kind == "odd tiff" else np.uint8))


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "odd tiff", "ome"])
def test_the_scale_in_the_file_is_used(kind, tmp_path, capfd):
    assert segment(file_with_scale(kind, tmp_path), "--json")[0] == 0
    captured = capfd.readouterr()
    said = json.loads(captured.out)
    assert (said["nuclei"], said["pixel_size_um"], said["pixel_size_from"]) == (4, 0.5, "file")
    assert captured.err == ""


def test_who_gives_a_scale_is_believed_and_told_of_another_in_the_file(tmp_path, capfd):
    image = file_with_scale("ome", tmp_path)
    assert segment(image, "--pixel-size", "0.4", "--json")[0] == 0
    captured = capfd.readouterr()
    assert (said := json.loads(captured.out))["pixel_size_um"] == 0.4
    assert said["pixel_size_from"] == "option"
    assert captured.err == f"ctc-imaging: note: {image} says 0.5 µm a pixel; --pixel-size 0.4 is used\n"


@pytest.mark.parametrize("kind", ["none", "a printer's"])
def test_a_scale_nobody_tells_is_estimated_and_said_so_in_one_line(kind, tmp_path, capfd):
    pixels = paint_nuclei()
    image = write(tmp_path / "image.png", pixels) if kind == "none" else tmp_path / "image.png"
    if kind != "none":
        png_with_scale(image, pixels, 2835)  # 72 dpi
    code, labels = segment(image)
    captured = capfd.readouterr()
    assert code == 0
    assert captured.out.startswith("4 nuclei")
    assert captured.err.startswith("ctc-imaging: note: pixel size unknown")
    assert captured.err.count("\n") == 1
    with tifffile.TiffFile(labels) as tif:  # what was guessed doesn't become metadata
        assert tif.pages.first.tags["ResolutionUnit"].value == 1


def test_every_warning_of_the_segmentation_becomes_a_note(tmp_path, capfd, monkeypatch):
    def warn(pixels, pixel_size_um, model):
        warnings.warn("first", UserWarning, stacklevel=2)
        warnings.warn("second", UserWarning, stacklevel=2)
        return np.zeros(pixels.shape, np.uint32)

    monkeypatch.setattr("ctc_imaging.segmentation.segment_nuclei", warn)
    assert segment(write(tmp_path / "image.png", paint_nuclei()))[0] == 0
    assert capfd.readouterr().err == "ctc-imaging: note: first\nctc-imaging: note: second\n"


def test_the_scale_that_was_estimated_is_in_the_result(tmp_path, capfd, monkeypatch):
    class Guessed(UserWarning):
        pixel_size_um = 0.42

    def guess(pixels, pixel_size_um, model):
        warnings.warn(Guessed("pixel size unknown"), stacklevel=2)
        return np.zeros(pixels.shape, np.uint32)

    monkeypatch.setattr("ctc_imaging.segmentation.segment_nuclei", guess)
    image = write(tmp_path / "image.png", paint_nuclei())
    assert segment(image, "--json")[0] == 0
    assert ((said := facts(capfd))["pixel_size_um"], said["pixel_size_from"]) == (0.42, "estimate")
    assert segment(image)[0] == 0
    assert "0.42 µm a pixel, estimated from the image" in capfd.readouterr().out


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "0.001", "300"])
def test_an_implausible_scale_is_refused(size, tmp_path, capfd):
    image = write(tmp_path / "image.png", paint_nuclei())
    assert_refuses(capfd, image, "--pixel-size", "give micrometres", options=("--pixel-size", size))


# Channels


def test_the_nuclear_stain_is_found_by_its_name(tmp_path, capfd):
    nuclei, empty = paint_nuclei(), paint_nuclei(centres=())
    image = write_ome(tmp_path / "image.ome.tif", np.stack([empty, empty, nuclei]), ["CK", "CD45", "Hoechst 33342"])
    assert segment(image, "--pixel-size", "0.5", "--json")[0] == 0
    said = facts(capfd)
    assert (said["nuclei"], said["channel"], said["channel_name"]) == (4, 2, "Hoechst 33342")


@pytest.mark.parametrize(
    "name", ["DAPI", "dapi", "Hoechst 33342", "DAPI_405", "DAPI405", "W1-DAPI", "SiR-DNA", "Nucleus"]
)
def test_names_of_nuclear_stains(name):
    assert choose_channel(Path("image"), ["CK", name, None], None) == 1


def test_channels_of_odd_integers(tmp_path, capfd):
    pixels = np.stack([paint_nuclei(centres=()), paint_nuclei()]).astype(np.int16)
    image = write_ome(tmp_path / "image.ome.tif", pixels, ["CK", "DAPI"])
    assert segment(image, "--pixel-size", "0.5", "--json")[0] == 0
    said = facts(capfd)
    assert (said["nuclei"], said["channel"], said["channel_name"]) == (4, 1, "DAPI")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([None, None], "none is named as a nuclear stain: 0 (no name), 1 (no name)"),
        (["CK", "CD45"], "none is named as a nuclear stain: 0 CK, 1 CD45"),
        (["DNA_1", "DNA_2", "CK"], "more than one is named as a nuclear stain: 0 DNA_1, 1 DNA_2, 2 CK"),
    ],
)
def test_where_names_leave_a_doubt_the_user_is_asked(names, said, tmp_path, capfd):
    pixels = np.stack([paint_nuclei()] * len(names))
    image = write_ome(tmp_path / "image.ome.tif", pixels, None if None in names else names)
    assert_refuses(capfd, image, image.name, said, "choose by --channel")


@pytest.mark.parametrize("name", ["image.png", "image.bmp", "image.tif"])
def test_a_colour_picture_needs_a_channel(name, tmp_path, capfd):
    nuclei, empty = paint_nuclei(), paint_nuclei(centres=())
    colours = [empty, empty, nuclei]
    # OpenCV writes blue first.
    image = write(tmp_path / name, np.dstack(colours if name == "image.tif" else colours[::-1]))
    assert_refuses(capfd, image, name, "0 red, 1 green, 2 blue", "choose by --channel")
    assert segment(image, "--pixel-size", "0.5", "--channel", "2", "--json")[0] == 0
    said = facts(capfd)
    assert (said["nuclei"], said["channel"], said["channel_name"]) == (4, 2, "blue")


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.tif", "alpha.png"])
def test_a_colour_picture_of_greys_is_taken_as_it_is(name, tmp_path, capfd):
    pixels = np.dstack([paint_nuclei()] * 3)
    if name == "alpha.png":
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    image = write(tmp_path / name, pixels)
    assert segment(image, "--pixel-size", "0.5", "--json")[0] == 0
    assert facts(capfd)["nuclei"] == 4


@pytest.mark.parametrize("channel", ["4", "-1"])
def test_a_channel_that_is_not_there_is_refused_with_the_list(channel, tmp_path, capfd):
    image = write_ome(tmp_path / "image.ome.tif", np.stack([paint_nuclei()] * 4), FOUR)
    said = (image.name, f"no channel {channel} among: 0 DAPI, 1 CK, 2 Vimentin, 3 CD45", "--channel 0 to 3")
    assert_refuses(capfd, image, *said, options=("--channel", channel))


# Images without nuclei


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((64, 64), np.uint8),
        np.full((64, 64), 255, np.uint8),
        np.full((64, 64), 65535, np.uint16),
        np.full((64, 64), 7.5, np.float32),
        np.zeros((1, 1), np.uint8),
        np.full((1, 1), 200, np.uint16),
        np.full((1, 1), -200, np.int32),
        np.zeros((1, 300), np.uint8),
        np.random.default_rng(0).normal(100, 5, (200, 200)).astype(np.uint16),
    ],
    ids=[
        "black",
        "white",
        "saturated",
        "constant",
        "one black pixel",
        "one bright pixel",
        "one pixel below zero",
        "one row",
        "noise",
    ],
)
def test_an_image_without_nuclei_has_labels_of_zeros(pixels, tmp_path, capfd):
    code, labels = segment(write(tmp_path / "image.tif", pixels), "--pixel-size", "0.5", "--json")
    assert code == 0
    assert facts(capfd)["nuclei"] == 0
    found = tifffile.imread(labels)
    assert found.size == pixels.size
    assert not found.any()


def test_a_large_dark_image_ends_in_labels(tmp_path, capfd):
    centres = np.random.default_rng(1).integers(20, 1980, (60, 2))
    pixels = np.zeros((2000, 2000), np.uint8)
    for y, x in centres.tolist():
        cv2.circle(pixels, (x, y), 8, 150, -1)
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, pixels, compression="zlib", tile=(512, 512))
    code, labels = segment(image, "--pixel-size", "0.5", "--json")
    assert code == 0
    assert 50 <= facts(capfd)["nuclei"] <= 60
    assert labels.stat().st_size < 1e6


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.bmp", "image.tif", "odd.tif"])
def test_an_image_too_large_for_one_piece_is_refused_before_it_is_decoded(name, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 160 * 160 - 1)
    image = write(tmp_path / name, paint_nuclei().astype(np.int32 if name == "odd.tif" else np.uint8))
    assert_refuses(capfd, image, name, "160 x 160 px are too many", "cut out a part")


def test_a_machine_too_small_is_told_in_one_line(tmp_path, capfd, monkeypatch):
    def fail(*_arguments):
        raise MemoryError

    monkeypatch.setattr("ctc_imaging.segmentation.segment_nuclei", fail)
    assert_refuses(capfd, write(tmp_path / "image.png", paint_nuclei()), "image.png: not enough memory")


# Images that are none


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.bmp", "image.tif", "zlib.tif", "odd.tif", "ome.tif"])
def test_a_truncated_file_is_refused(name, tmp_path, capfd):
    image, pixels = tmp_path / name, paint_nuclei()
    if name == "zlib.tif":
        tifffile.imwrite(image, pixels, compression="zlib", tile=(64, 64))
    elif name == "ome.tif":
        write_ome(image, np.stack([pixels] * 4), FOUR)
    else:
        write(image, pixels.astype(np.int32 if name == "odd.tif" else np.uint8))
    image.write_bytes(cut(image.read_bytes()))
    assert_refuses(capfd, image, name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(value, tmp_path, capfd):
    pixels = paint_nuclei().astype(np.float32)
    pixels[100, 7] = value
    assert_refuses(capfd, write(tmp_path / "image.tif", pixels), "image.tif", "finite")


@pytest.mark.parametrize("name", ["image.tif", "image.ome.tif", "image.png", "image.jpg", "image.dat"])
@pytest.mark.parametrize("content", [b"", b"these are words, not pixels\n" * 9, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_a_file_that_is_no_image_is_refused(content, name, tmp_path, capfd):
    (tmp_path / name).write_bytes(content)
    assert_refuses(capfd, tmp_path / name, name)


def test_a_folder_that_is_no_slide_and_a_missing_file_are_refused(tmp_path, capfd):
    (tmp_path / "folder").mkdir()
    assert_refuses(capfd, tmp_path / "folder", "folder")
    for name in ("none.tif", "none.png"):
        assert_refuses(capfd, tmp_path / name, f"{name}: no such file")


def test_inks_are_no_light(tmp_path, capfd):
    encoded = bytearray(cv2.imencode(".jpg", paint_nuclei())[1].tobytes())
    frame = encoded.index(b"\xff\xc0")
    encoded[frame + 9] = 4
    (tmp_path / "image.jpg").write_bytes(encoded)
    assert_refuses(capfd, tmp_path / "image.jpg", "image.jpg: a JPEG of 4 inks")


def test_a_film_is_no_plane(tmp_path, capfd):
    image = tmp_path / "film.tif"
    tifffile.imwrite(
        image, np.zeros((3, 8, 8), np.int32), photometric="minisblack", imagej=False, metadata={"axes": "TYX"}
    )
    assert_refuses(capfd, image, "film.tif", "axes TYX")


def test_a_mask_is_no_image(tmp_path, capfd):
    tifffile.imwrite(tmp_path / "mask.tif", np.eye(40, dtype=bool))
    assert_refuses(capfd, tmp_path / "mask.tif", "mask.tif", "bool")


def test_a_model_that_is_not_there_is_refused(tmp_path, capfd):
    image = write(tmp_path / "image.png", paint_nuclei())
    assert_refuses(capfd, image, "unheard-of", options=("--model", "unheard-of"))


# Where labels can't go


@pytest.mark.parametrize("labels", ["image.tif", "./image.tif", "link.tif"])
def test_the_image_itself_is_never_overwritten(labels, tmp_path, capfd):
    image = write(tmp_path / "image.tif", paint_nuclei())
    (tmp_path / "link.tif").symlink_to(image)
    before = image.read_bytes()
    assert_refuses(capfd, image, "would overwrite", labels=labels)
    assert image.read_bytes() == before


def test_labels_within_the_image_are_refused(tmp_path, capfd):
    folder = tmp_path / "slide"
    folder.mkdir()
    write(folder / "scan_DAPI.tif", paint_nuclei())
    assert_refuses(capfd, folder, "would overwrite or change the image", labels="slide/labels.tif")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("labels.png", "name the file .tif"),
        ("folder.tif", "a folder of this name"),
        ("words.txt/labels.tif", "words.txt isn't a folder"),
    ],
)
def test_a_target_that_cannot_be_is_refused_before_the_image_is_read(labels, said, tmp_path, capfd):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "words.txt").touch()
    assert_refuses(capfd, tmp_path / "none.png", labels, said, labels=labels)


def test_a_folder_without_permission_is_refused_before_the_image_is_read(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_arguments: False)  # as for a user; root may all
    assert_refuses(capfd, tmp_path / "none.png", "labels.tif: permission denied; check the permissions")


def test_a_disk_that_fills_up_leaves_nothing_and_names_the_labels(tmp_path, capfd, monkeypatch):
    def fail(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    image = write(tmp_path / "image.png", paint_nuclei())
    monkeypatch.setattr(tifffile, "imwrite", fail)
    options = ("--pixel-size", "0.5")
    assert_refuses(capfd, image, f"{tmp_path / 'labels.tif'}: the disk is full; free some space", options=options)


# Damage of any kind


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, bytes]:
    folder, pixels = tmp_path_factory.mktemp("samples"), paint_nuclei((64, 64), ((30, 30),))
    colours = np.dstack([pixels, pixels // 2, pixels])
    made = {
        "grey.png": pixels,
        "colour.png": colours,
        "grey.jpg": pixels,
        "colour.jpg": colours,
        "grey.bmp": pixels,
        "colour.tif": colours,
        "odd.tif": pixels.astype(np.int32),
    }
    files = [write(folder / name, image) for name, image in made.items()]
    tifffile.imwrite(folder / "packed.tif", pixels.astype(np.int16), compression="zlib", tile=(32, 32))
    return {path.name: path.read_bytes() for path in (*files, folder / "packed.tif")}


# Headers decide most, and lie at either end.
PLACES = st.one_of(st.integers(0, 200), st.integers(-200, -1), st.integers(0, 10_000))


@given(
    name=st.sampled_from(["grey.png", "colour.png", "grey.jpg", "grey.bmp", "colour.tif", "odd.tif", "packed.tif"]),
    damage=st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=4),
    kept=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_a_damaged_picture_is_read_or_refused_and_never_a_fault_of_ours(name, damage, kept, samples, tmp_path_factory):
    content = bytearray(samples[name])
    for place, value in damage:
        content[place % len(content)] = value
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content[: round(kept * len(content))])
    try:
        outcome = read_plane(path, 0).pixels.ndim
    except CtcImagingError as error:
        outcome = str(error)
    assert outcome == 2 or str(path) in outcome


@given(st.integers(0, 63))
def test_a_picture_cut_anywhere_among_its_pixels_is_refused(samples, tmp_path_factory, share):
    path = tmp_path_factory.mktemp("cut")
    for name, content in samples.items():
        if not name.endswith(".tif"):
            (path / name).write_bytes(content[: len(content) * share // 64])
            with pytest.raises(CtcImagingError, match=name):
                read_plane(path / name, 0)


def test_transparency_is_left_out(tmp_path):
    grey, alpha = paint_nuclei(), np.arange(160 * 160, dtype=np.uint8).reshape(160, 160)
    write(tmp_path / "image.png", np.dstack([grey, grey, grey, alpha]))
    assert is_picture(tmp_path / "image.png")
    assert read_picture(tmp_path / "image.png").pixels.shape == (3, 160, 160)
    assert np.array_equal(read_plane(tmp_path / "image.png").pixels, grey)


# Real images


@pytest.mark.parametrize("name", ["c44ed955eb2e5c8d", "00071198d059ba7f", "003cee89357d9fe1"])
def test_nuclei_of_cultured_cells_are_about_as_many_as_people_counted(name, shared_data, tmp_path, capfd):
    folder = shared_data / "dsb2018_fluo"
    image = tmp_path / "image.png"
    image.write_bytes((folder / "images" / f"{name}.png").read_bytes())
    assert segment(image, "--json")[0] == 0
    counted = len(np.unique(tifffile.imread(folder / "labels" / f"{name}.tif"))) - 1
    assert 0.6 * counted <= facts(capfd)["nuclei"] <= 1.6 * counted
