"""What a bioio plug-in opens is read lazily and strictly; without one, the refusal says what to install."""

import sys
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest

bioio = pytest.importorskip("bioio")

from ctc_imaging.errors import SlideError  # noqa: E402
from ctc_imaging.slide import open_slide  # noqa: E402

IMAGE = np.random.default_rng(5).integers(0, 4000, (3, 100, 130)).astype(np.uint16)
NAMES = ("DAPI", "CK", "CD45")


class FakeImage:
    """As much of bioio.BioImage as a reader may count on; its pixels are made block by block, and counted."""

    def __init__(self, scenes, chunks=(1, 1, 1, 32, 48), size_um=0.5, unit=None, names=NAMES, order="TCZYX"):
        self._scenes = scenes
        self._chunks = chunks
        self._order = order
        self.decoded = 0
        self.channel_names = list(names)
        self.physical_pixel_sizes = SimpleNamespace(Z=None, Y=size_um, X=size_um)
        self.dimension_properties = SimpleNamespace(X=SimpleNamespace(unit=unit), Y=SimpleNamespace(unit=unit))
        self.scenes = tuple(f"SECRET-ID {index}" for index in range(len(scenes)))
        self.set_scene(0)

    def set_scene(self, index):
        self._image = self._scenes[index]
        sizes = dict(zip(self._order, self._image.shape, strict=True))
        self.dims = SimpleNamespace(order=self._order, shape=self._image.shape, Y=sizes["Y"], X=sizes["X"])

    @property
    def dask_data(self):
        return da.from_array(self._image, chunks=self._chunks).map_blocks(self._count, dtype=self._image.dtype)

    def _count(self, block):
        self.decoded += 1
        return block


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Let bioio open scan.fake as this image."""

    def use(image):
        monkeypatch.setattr("bioio.plugins.get_plugins", lambda use_cache: {".fake": [None], ".czi": [None]})
        monkeypatch.setattr(bioio, "BioImage", image if callable(image) else lambda *_, **__: image)
        (tmp_path / "scan.fake").write_bytes(b"?")
        return tmp_path / "scan.fake"

    return use


def five(image):
    return image[np.newaxis, :, np.newaxis]


def whole(path):
    with open_slide(path) as slide:
        return slide.read(range(slide.shape[0]), 0, slide.shape[1], 0, slide.shape[2])


def refusal(path, match):
    with pytest.raises(SlideError, match=match) as caught:
        whole(path)
    assert "SECRET" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "chunks",
    [
        (1, 1, 1, 32, 48),
        (1, 3, 1, 100, 130),
        (1, (1, 2), 1, 64, 64),
        (1, 1, 1, (10, 50, 40), 130),
        (1, 1, 1, 100, (20, 110)),
    ],
)
def test_blocks_of_any_shape_read_as_the_same_pixels(use, chunks):
    path = use(FakeImage([five(IMAGE)], chunks))
    np.testing.assert_array_equal(whole(path), IMAGE)
    with open_slide(path) as slide:
        assert (slide.reader, slide.channel_names, slide.pixel_size_um) == ("bioio", NAMES, 0.5)
        assert slide.files == (path,)
        assert slide.warnings == ()


def test_only_the_blocks_beneath_a_region_are_decoded(use):
    image = FakeImage([five(IMAGE)])
    with open_slide(use(image)) as slide:
        assert slide.chunk_shape_px == (32, 48)
        image.decoded = 0
        slide.read([1], 31, 33, 47, 49)
    assert image.decoded == 4


def test_a_block_of_several_channels_is_decoded_once(use):
    image = FakeImage([five(IMAGE)], (1, 3, 1, 64, 64))
    with open_slide(use(image)) as slide:
        image.decoded = 0
        slide.read([0, 1, 2], 0, 60, 0, 60)
    assert image.decoded == 1


def test_the_largest_image_is_the_slide(use):
    path = use(FakeImage([five(IMAGE[:, :20, :20]), five(IMAGE), five(IMAGE[:, :50])]))
    np.testing.assert_array_equal(whole(path), IMAGE)
    with open_slide(path) as slide:
        assert slide.warnings == ("2 smaller image(s) in the file are left out",)


def test_several_slides_in_one_file_are_refused(use):
    refusal(use(FakeImage([five(IMAGE), five(IMAGE[:, ::-1])])), "2 images of one size")


@pytest.mark.parametrize(
    ("shape", "order", "fault"),
    [
        ((2, 3, 1, 50, 130), "TCZYX", "2 time points"),
        ((1, 1, 1, 100, 130, 3), "TCZYXS", "colour"),
        ((4, 1, 3, 1, 50, 65), "MTCZYX", "tiles aren't put together"),
    ],
)
def test_what_is_not_channels_of_a_plane_is_refused(use, shape, order, fault):
    refusal(use(FakeImage([np.resize(IMAGE, shape)], chunks=-1, order=order)), fault)


def test_of_focal_planes_the_sharpest_is_read(use):
    flat = np.full_like(IMAGE, 100)
    path = use(FakeImage([np.stack([flat, IMAGE, flat], axis=1)[np.newaxis]]))
    np.testing.assert_array_equal(whole(path), IMAGE)


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [
        (0.325, None, 0.325),
        (325, "nanometer", 0.325),
        (0.5, "µm", 0.5),
        (None, None, None),
        (1.0, None, None),
        (2, "pixel", None),
    ],
)
def test_pixel_size(use, size, unit, expected):
    with open_slide(use(FakeImage([five(IMAGE)], size_um=size, unit=unit))) as slide:
        assert slide.pixel_size_um == expected


def test_types_of_pixels(use):
    assert whole(use(FakeImage([five(IMAGE.astype(">f8"))]))).dtype == np.float32
    refusal(use(FakeImage([five(IMAGE.astype(np.int16))])), "pixels of type int16")


def test_made_up_channel_names_are_none(use):
    with open_slide(use(FakeImage([five(IMAGE)], names=["Channel:0:0", "CK", "Channel:0:2"]))) as slide:
        assert slide.channel_names == (None, "CK", None)


def test_an_image_in_one_huge_block_is_refused(use):
    huge = da.zeros((1, 1, 1, 20_000, 20_000), dtype=np.uint16, chunks=-1)
    image = FakeImage([five(IMAGE)])
    type(image).dask_data, before = property(lambda _: huge), type(image).dask_data
    try:
        refusal(use(image), "one huge compressed block")
    finally:
        type(image).dask_data = before


def test_what_a_plugin_raises_is_a_refusal(use):
    def fail(*_, **__):
        raise ValueError("SECRET-ID")

    refusal(use(fail), r"bioio's reader can't open it \(ValueError\)")
    image = FakeImage([five(IMAGE)])
    with open_slide(use(image)) as slide:
        image._count = fail
        pixels = slide._source.planes[0].pixels
        object.__setattr__(pixels, "array", da.map_blocks(fail, pixels.array, dtype=np.uint16))
        with pytest.raises(SlideError, match=r"chunk 0, 0 can't be decoded \(ValueError\)"):
            slide.read([0], 0, 9, 0, 9)


@pytest.mark.parametrize(
    ("suffix", "package"),
    [
        ("nd2", r"ctc-imaging\[formats\]"),
        ("lif", r"ctc-imaging\[formats\]"),
        ("czi", "bioio-czi"),
        ("OIR", "bioformats"),
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_without_a_plugin_the_refusal_names_the_package(tmp_path, monkeypatch, suffix, package, installed):
    if installed:
        monkeypatch.setattr("bioio.plugins.get_plugins", lambda use_cache: {})
    else:
        monkeypatch.setitem(sys.modules, "bioio.plugins", None)
    path = tmp_path / f"scan.{suffix}"
    path.write_bytes(b"ZISRAWFILE")
    refusal(path, f"no reader for .{suffix.lower()} files is installed; pip install .*{package}")
    path.write_bytes(b"")
    refusal(path, "the file is empty")


def test_pictures_are_refused_whatever_is_installed(use, tmp_path, monkeypatch):
    use(FakeImage([five(IMAGE)]))
    monkeypatch.setattr("bioio.plugins.get_plugins", lambda use_cache: {".png": [None]})
    (tmp_path / "scan.png").write_bytes(b"PNG")
    refusal(tmp_path / "scan.png", "a picture, not a slide")


def test_a_folder_beside_the_file_is_part_of_the_slide(use, tmp_path, monkeypatch):
    use(FakeImage([five(IMAGE)]))
    monkeypatch.setattr("bioio.plugins.get_plugins", lambda use_cache: {".mrxs": [None]})
    (tmp_path / "scan").mkdir()
    for name in ("scan.mrxs", "scan/Data0.dat", "scan/Index.dat"):
        (tmp_path / name).write_bytes(b"?")
    with open_slide(tmp_path / "scan.mrxs") as slide:
        assert [path.relative_to(tmp_path).as_posix() for path in slide.files] == [
            "scan/Data0.dat", "scan/Index.dat", "scan.mrxs"
        ]  # fmt: skip
