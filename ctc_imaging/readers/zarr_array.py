"""One array of a Zarr group (format 2, or 3 with or without shards), decoded chunk by chunk, strictly.

Zarr itself takes a chunk that isn't there for one full of zeros, and so a half-copied scan for a black one.
Here every chunk's bytes are found and checked first, and zarr only decodes them.
"""

from __future__ import annotations

import json
import lzma
import warnings
import zlib
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ctc_imaging.errors import SlideError
from ctc_imaging.readers.pixels import as_read, check_chunk_size, type_read
from ctc_imaging.readers.remote import file_sizes, read_bytes
from ctc_imaging.readers.zarr_layout import Layout, parse_layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# What malformed metadata raise where they are looked into.
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

# What codecs raise on damaged bytes, or where a codec isn't known.
_UNDECODABLE = (*MALFORMED, EOFError, ImportError, OSError, RuntimeError, lzma.LZMAError, zlib.error)

_AGAIN = "copy it from the scanner again"
_MAX_CHUNKS = 2**22
_NOT_WRITTEN = 2**64 - 1
_BLOSC_HEADER_BYTES = 16


class ZarrArray:
    """An array that is read by chunks, each of which must be there.

    Attributes
    ----------
    shape, chunk_shape : tuple of int
        Of all axes. The chunks of a shard are chunks of their own.
    files : tuple of str
        The array's files relative to the slide, in the order of their names' parts.

    Raises
    ------
    SlideError
        When made: if metadata are missing or malformed, the type of pixels isn't that of a scan, or a chunk's
        file is missing or empty.
    """

    def __init__(self, slide: Path, name: str) -> None:
        self._slide = slide
        self._name = name
        metadata, document = _document(slide, name)
        try:
            self._layout = parse_layout(document)
        except MALFORMED as error:
            raise SlideError(slide, f"the metadata of its array {metadata} are malformed", _AGAIN) from error
        self.shape = self._layout.shape
        self.chunk_shape = self._layout.chunk
        self.stored_dtype = self._decoder.dtype
        check_chunk_size(slide, self.chunk_shape, self.stored_dtype)
        keys = list(_keys(slide, self._layout))
        self._check_there(keys)
        self.files = tuple(sorted([metadata, *(f"{name}/{key}" for key in keys)], key=lambda file: file.split("/")))
        self._tables: dict[str, NDArray[np.uint64]] = {}
        self._last: tuple[tuple[int, ...], NDArray] | None = None

    def read_chunk(self, index: tuple[int, ...]) -> NDArray:
        """Decode one chunk, of which the part beyond the array's border has no meaning.

        Parameters
        ----------
        index : tuple of int
            Its place in the grid of chunks, by axis.

        Returns
        -------
        numpy.ndarray
            Of `chunk_shape`, in the type as stored.

        Raises
        ------
        SlideError
            If it was never written, is cut off or damaged.
        """
        if self._last is None or self._last[0] != index:
            # One chunk may hold several channels, which are read one after another.
            self._last = (index, self._decode(index))
        return self._last[1]

    @cached_property
    def _decoder(self) -> Any:
        """A zarr array of one chunk in memory, into which each chunk's bytes are put to be decoded."""
        import zarr
        from zarr.storage import MemoryStore

        file = ".zarray" if self._layout.document["zarr_format"] == 2 else "zarr.json"
        self._memory = {file: _buffer(json.dumps(self._layout.document).encode())}
        try:
            # Writers' small sins against the specification, which zarr warns about, change no pixel.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return zarr.open_array(MemoryStore(self._memory), mode="r")
        except _UNDECODABLE as error:
            fault = f"its array {self._name} is of a kind that zarr can't decode"
            raise SlideError(self._slide, fault, "export it with a usual codec") from error

    def _check_there(self, keys: Sequence[str]) -> None:
        sizes = file_sizes(self._slide / self._name)
        missing = [key for key in keys if not sizes.get(key)] if sizes is not None else []
        if missing:
            raise self._never_written(missing[0], f" (nor {len(missing) - 1} more)" if missing[1:] else "")

    def _decode(self, index: tuple[int, ...]) -> NDArray:
        key, data = self._encoded(index)
        chunk = "0" + ".0" * (len(index) - 1)
        if self._layout.blosc and not _is_whole_blosc(data):
            raise SlideError(self._slide, f"chunk {key} is cut off", _AGAIN)
        decoder = self._decoder
        self._memory[chunk] = _buffer(data)
        try:
            return np.asarray(decoder[...])
        except _UNDECODABLE as error:
            raise SlideError(self._slide, f"chunk {key} can't be decoded ({type(error).__name__})", _AGAIN) from error
        finally:
            del self._memory[chunk]

    def _encoded(self, index: tuple[int, ...]) -> tuple[str, bytes]:
        """Return a chunk's name and bytes."""
        shards = self._layout.shards
        if shards is None:
            key = self._layout.file_of(index)
            return f"{self._name}/{key}", self._bytes(key)
        counts = [shard // chunk for shard, chunk in zip(shards.shape, self.chunk_shape, strict=True)]
        key = self._layout.file_of([place // count for place, count in zip(index, counts, strict=True)])
        within = tuple(place % count for place, count in zip(index, counts, strict=True))
        name = f"{self._name}/{key} [{', '.join(map(str, within))}]"
        offset, length = (int(value) for value in self._table(key, counts)[within])
        if _NOT_WRITTEN in (offset, length):
            raise self._never_written(f"{key} [{', '.join(map(str, within))}]")
        return name, self._bytes(key, offset, offset + length)

    def _table(self, key: str, counts: Sequence[int]) -> NDArray[np.uint64]:
        """Return a shard's table of offsets and lengths, shape (*counts, 2)."""
        shards = self._layout.shards
        if key not in self._tables and shards is not None:
            size, tail = prod(counts) * 16, 4 if shards.checksum else 0
            whole = self._file_bytes(key)
            start = whole - size - tail if shards.at_end else 0
            data = self._bytes(key, start, start + size + tail) if start >= 0 else b""
            intact = len(data) == size + tail and (not tail or _is_crc32c(data[:-4], data[-4:]))
            if not intact or not _lies_within(table := np.frombuffer(data[:size], "<u8").reshape(*counts, 2), whole):
                raise SlideError(self._slide, f"shard {self._name}/{key} is cut off or damaged", _AGAIN)
            self._tables[key] = table
        return self._tables[key]

    def _file_bytes(self, key: str) -> int:
        try:
            return int((self._slide / self._name / key).stat().st_size)
        except FileNotFoundError as error:
            raise self._never_written(key) from error

    def _bytes(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        try:
            return read_bytes(self._slide / self._name / key, start, end)
        except FileNotFoundError as error:
            raise self._never_written(key) from error

    def _never_written(self, key: str, more: str = "") -> SlideError:
        return SlideError(
            self._slide,
            f"chunk {self._name}/{key} was never written{more}",
            f"{_AGAIN}, or write its empty chunks too (zarr: write_empty_chunks)",
        )


@dataclass(frozen=True)
class ZarrPlane:
    """One channel at one depth of an array whose last two axes are Y and X."""

    path: Path
    array: ZarrArray
    place: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.array.shape[-2], self.array.shape[-1]

    @property
    def dtype(self) -> np.dtype:
        """Data type that pixels are read as."""
        return type_read(self.path, self.array.stored_dtype)

    @property
    def chunk_shape_px(self) -> tuple[int, int]:
        """Height and width of a chunk in px."""
        return self.array.chunk_shape[-2], self.array.chunk_shape[-1]

    def read_chunk(self, row: int, column: int) -> NDArray:
        """Decode one chunk, clipped at the plane's border."""
        (high, wide), (height, width) = self.chunk_shape_px, self.shape
        thick = self.array.chunk_shape[:-2]
        chunk = self.array.read_chunk((*(at // size for at, size in zip(self.place, thick, strict=True)), row, column))
        plane = chunk[tuple(at % size for at, size in zip(self.place, thick, strict=True))]
        return as_read(plane[: height - row * high, : width - column * wide], self.dtype)


def _document(slide: Path, name: str) -> tuple[str, Mapping[str, Any]]:
    """Return the name and content of an array's metadata file."""
    for file in ("zarr.json", ".zarray"):
        try:
            document = json.loads(read_bytes(slide / name / file))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise SlideError(slide, f"{name}/{file} is malformed", _AGAIN) from error
        return f"{name}/{file}", document
    raise SlideError(slide, f"its image {name} is missing", _AGAIN)


def _keys(slide: Path, layout: Layout) -> Iterator[str]:
    """Yield the names of all files that hold chunks."""
    counts = [-(-size // side) for size, side in zip(layout.shape, layout.stored, strict=True)]
    if prod(counts) > _MAX_CHUNKS:
        raise SlideError(slide, f"{prod(counts)} chunks, more than any scan has", "export it in larger chunks")
    return (layout.file_of(index) for index in product(*map(range, counts)))


def _buffer(data: bytes) -> Any:
    from zarr.buffer import cpu

    return cpu.Buffer.from_bytes(data)


def _is_whole_blosc(data: bytes) -> bool:
    """Compare the length with that in the header, which the codec takes on trust."""
    return len(data) >= _BLOSC_HEADER_BYTES and int.from_bytes(data[12:16], "little") == len(data)


def _lies_within(table: NDArray[np.uint64], size: int) -> bool:
    """Tell whether all chunks of a shard that were written lie within its bytes."""
    offset, length = np.moveaxis(table, -1, 0)
    fits = (offset <= size) & (length > 0) & (length <= size - np.minimum(offset, size))
    return bool((fits | (offset == _NOT_WRITTEN)).all())


def _is_crc32c(data: bytes, checksum: bytes) -> bool:
    from google_crc32c import value

    return int(value(data)) == int.from_bytes(checksum, "little")
