"""Formats of microscope makers (CZI, ND2, LIF, ...), as far as an installed bioio plug-in opens them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.base import Source
from ctc_imaging.readers.logs import collected_log
from ctc_imaging.readers.pixels import as_read, check_chunk_size, in_focus, type_read
from ctc_imaging.readers.remote import base_name
from ctc_imaging.readers.scale import clean_names, length_um, square_pixel_size_um, um_per
from ctc_imaging.readers.tiff_planes import DAMAGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Formats of pictures, which some plug-ins open, but which tell neither stains nor scale.
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})

_EXTRA = 'pip install "ctc-imaging[formats]"'

# What to install for a suffix; bioio-czi and bioio-bioformats are under the GPL, and so in no extra.
_PACKAGES = {
    ".nd2": _EXTRA,
    ".lif": _EXTRA,
    ".czi": "pip install bioio bioio-czi",
    ".dv": "pip install bioio bioio-dv",
    ".sldy": "pip install bioio bioio-sldy",
    **dict.fromkeys((".ims", ".mrxs", ".oib", ".oir", ".vsi"), "pip install bioio bioio-bioformats"),
}

# Formats whose pixels lie in a folder beside the file, by how its name follows from that of the file.
_COMPANIONS = {".mrxs": "{}", ".sldy": "{}.dir", ".vsi": "_{}_"}

_EXPORT = "export the scan as OME-TIFF or OME-Zarr"


class BioioReader:
    """Reads whatever an installed bioio plug-in opens, if no other reader does."""

    name = "bioio"

    def accepts(self, path: Path) -> bool:
        """Tell whether it is a file of a format known to bioio, with its plug-in or not."""
        suffix = _suffix(path)
        return suffix not in PICTURES and path.is_file() and (suffix in _PACKAGES or _has_plugin(path))

    def open(self, path: Path) -> Source:
        """Open the file's largest image.

        Raises
        ------
        SlideError
            If bioio or the format's plug-in isn't installed, can't open the file, or it isn't one image of
            channels.
        """
        if path.stat().st_size == 0:
            raise SlideError(path, "the file is empty", "copy it from the scanner again")
        if not _has_plugin(path):
            remedy = f"{_PACKAGES[_suffix(path)]}, or {_EXPORT}"
            raise SlideError(path, f"no reader for {_suffix(path)} files is installed", remedy)
        try:
            with collected_log("bioio"):
                return _open(path)
        except _damage() as error:
            fault = f"bioio's reader can't open it ({type(error).__name__})"
            # Not chained to the plug-in's own error, which may quote metadata that name a patient.
            raise SlideError(path, fault, f"copy it from the scanner again, or {_EXPORT}") from None


@dataclass(frozen=True)
class _Pixels:
    """The lazy (T, C, Z, Y, X) array of an image, of which the block decoded last is kept."""

    path: Path
    array: Any
    last: dict[tuple[int, ...], NDArray]

    def block(self, index: tuple[int, ...]) -> NDArray:
        """Decode one of the array's own blocks, which may hold several channels or depths."""
        if index not in self.last:
            self.last.clear()
            try:
                self.last[index] = np.asarray(self.array.blocks[index].compute(scheduler="synchronous"))
            except _damage() as error:
                fault = f"chunk {index[-2]}, {index[-1]} can't be decoded ({type(error).__name__})"
                raise SlideError(self.path, fault, "copy it from the scanner again") from error
        return self.last[index]


@dataclass(frozen=True)
class BioioPlane:
    """One channel at one depth, in the blocks of the plug-in's lazy array."""

    pixels: _Pixels
    channel: int
    depth: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        height, width = self.pixels.array.shape[-2:]
        return int(height), int(width)

    @property
    def dtype(self) -> np.dtype:
        """Data type that pixels are read as."""
        return type_read(self.pixels.path, self.pixels.array.dtype)

    @property
    def chunk_shape_px(self) -> tuple[int, int]:
        """Height and width of a block in px."""
        rows, columns = self.pixels.array.chunks[-2:]
        return int(rows[0]), int(columns[0])

    def read_chunk(self, row: int, column: int) -> NDArray:
        """Decode one block, clipped at the plane's border as the array's blocks are."""
        (channel, in_channel), (depth, in_depth) = (
            _block_of(self.pixels.array.chunks[axis], at) for axis, at in ((1, self.channel), (2, self.depth))
        )
        return as_read(self.pixels.block((0, channel, depth, row, column))[0, in_channel, in_depth], self.dtype)


def _open(path: Path) -> Source:
    import bioio

    image = bioio.BioImage(str(path), use_plugin_cache=True)
    warnings = _choose_scene(path, image)
    _check_dimensions(path, image)
    array = _regular(image.dask_data)
    type_read(path, array.dtype)
    check_chunk_size(path, array.chunksize, array.dtype)
    pixels = _Pixels(path, array, {})
    _, channels, depths = array.shape[:3]
    planes, focus = in_focus([[BioioPlane(pixels, channel, z) for z in range(depths)] for channel in range(channels)])
    size, odd = square_pixel_size_um(path, _sizes_um(image))
    return Source(
        reader=BioioReader.name,
        planes=planes,
        channel_names=clean_names([str(name) for name in image.channel_names or ()], channels),
        pixel_size_um=size,
        warnings=(*warnings, *focus, *odd),
        close=pixels.last.clear,
        files=_files(path),
    )


def _choose_scene(path: Path, image: Any) -> tuple[str, ...]:
    """Set the one scene that is the slide; others may only be smaller (labels, overviews)."""
    areas = []
    for index in range(len(image.scenes)):
        image.set_scene(index)
        areas.append(image.dims.Y * image.dims.X)
    if not areas or max(areas) == 0:
        raise SlideError(path, "it holds no image", "copy it from the scanner again")
    if areas.count(max(areas)) > 1:
        raise SlideError(
            path, f"it holds {areas.count(max(areas))} images of one size", "save each slide in its own file"
        )
    image.set_scene(areas.index(max(areas)))
    return (f"{len(areas) - 1} smaller image(s) in the file are left out",) if len(areas) > 1 else ()


def _check_dimensions(path: Path, image: Any) -> None:
    """Refuse what isn't greyscale planes of channels, at one or more depths."""
    sizes = dict(zip(image.dims.order, image.dims.shape, strict=True))
    if sizes.get("T", 1) > 1:
        raise SlideError(path, f"it has {sizes['T']} time points (T)", "export one time point")
    if sizes.get("S", 1) > 1:
        raise SlideError(path, "a colour (RGB) image, not one channel a stain", "export each stain as a grey channel")
    if any(size > 1 for axis, size in sizes.items() if axis not in "TCZYXS"):
        raise SlideError(path, f"its tiles aren't put together (axes {image.dims.order})", _EXPORT)


def _regular(array: Any) -> Any:
    """Make blocks of one size in Y and X, as planes need them, where the plug-in's aren't."""
    uneven = {
        axis: max(sizes)
        for axis, sizes in enumerate(array.chunks)
        if axis >= 3 and (len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0])
    }
    return array.rechunk(uneven) if uneven else array


def _block_of(sizes: tuple[int, ...], at: int) -> tuple[int, int]:
    """Find the block that holds an index of one axis, and the index within it."""
    ends = np.cumsum(sizes)
    block = int(np.searchsorted(ends, at, side="right"))
    return block, at - int(ends[block] - sizes[block])


def _sizes_um(image: Any) -> list[float | None]:
    """µm per pixel in X and Y; bioio gives micrometres where a plug-in names no unit, and 1 where a file tells none."""
    sizes = image.physical_pixel_sizes
    properties = getattr(image, "dimension_properties", None)
    units = [getattr(getattr(properties, axis, None), "unit", None) for axis in "XY"]
    return [
        length_um(None if value == 1 else value, 1.0 if unit is None else um_per(str(unit)))
        for value, unit in zip((sizes.X, sizes.Y), units, strict=True)
    ]


def _files(path: Path) -> tuple[Path, ...]:
    """Return the file, and those in the folder that some formats keep beside it."""
    pattern = _COMPANIONS.get(_suffix(path))
    folder = path.with_name(pattern.format(path.stem)) if pattern else None
    inner = [file for file in folder.rglob("*") if file.is_file()] if folder is not None and folder.is_dir() else []
    return tuple(sorted([path, *inner]))


def _suffix(path: Path) -> str:
    return Path(base_name(path)).suffix.lower()


def _has_plugin(path: Path) -> bool:
    try:
        from bioio.plugins import get_plugins

        suffixes = get_plugins(use_cache=True)
    except (ImportError, ValueError):
        return False  # a plug-in that doesn't fit the installed bioio raises these
    return any(base_name(path).lower().endswith(suffix) for suffix in suffixes)


def _damage() -> tuple[type[Exception], ...]:
    """Return what plug-ins raise on damaged files."""
    from bioio_base import exceptions

    of_bioio = (exceptions.UnsupportedFileFormatError, exceptions.UnexpectedShapeError)
    return (*DAMAGE, EOFError, MemoryError, SyntaxError, zlib.error, *of_bioio)
