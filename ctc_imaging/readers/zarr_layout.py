"""How a Zarr array (format 2 or 3) lies in its files: shape, chunks, their names, and the shards that hold several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Shards:
    """How several chunks share a file: a table of their offsets and lengths stands at its start or end."""

    shape: tuple[int, ...]
    at_end: bool
    checksum: bool


@dataclass(frozen=True)
class Layout:
    """What an array's metadata say; `document` describes an array of a single chunk of the same kind."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    prefix: str
    separator: str
    shards: Shards | None
    blosc: bool
    document: dict[str, Any]

    def file_of(self, index: Sequence[int]) -> str:
        """Return the name of the file that holds a chunk or shard, relative to the array's folder."""
        return self.prefix + self.separator.join(map(str, index))

    @property
    def stored(self) -> tuple[int, ...]:
        """Shape of what one file holds: a shard, or a chunk."""
        return self.shards.shape if self.shards else self.chunk


def parse_layout(document: Mapping[str, Any]) -> Layout:
    """Parse an array's metadata.

    Parameters
    ----------
    document : mapping
        The content of zarr.json or .zarray.

    Returns
    -------
    Layout

    Raises
    ------
    KeyError, TypeError, ValueError or AttributeError
        If they are malformed, or lay out chunks in a way that isn't known here.
    """
    shape = tuple(int(size) for size in document["shape"])
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError("no pixels")
    if document["zarr_format"] == 2:
        return _layout_2(document, shape)
    return _layout_3(document, shape)


def _layout_2(document: Mapping[str, Any], shape: tuple[int, ...]) -> Layout:
    chunk = _sizes(document["chunks"], shape)
    single = {**document, "shape": chunk, "chunks": chunk, "dimension_separator": "."}
    blosc = (document["compressor"] or {}).get("id") == "blosc"
    return Layout(shape, chunk, "", document.get("dimension_separator", "."), None, blosc, single)


def _layout_3(document: Mapping[str, Any], shape: tuple[int, ...]) -> Layout:
    if document["node_type"] != "array" or document.get("storage_transformers"):
        raise ValueError("not a plain array")
    chunk = _sizes(_configured(document["chunk_grid"], "regular")["chunk_shape"], shape)
    codecs, shards = document["codecs"], None
    if codecs[0]["name"] == "sharding_indexed":
        inner = codecs[0]["configuration"]
        shards = _shards(chunk, inner)
        chunk, codecs = _sizes(inner["chunk_shape"], shape), inner["codecs"]
        if any(outer % size for outer, size in zip(shards.shape, chunk, strict=True)):
            raise ValueError("shards of broken chunks")
    names = [codec["name"] for codec in codecs]
    if "sharding_indexed" in names:
        raise ValueError("shards within shards, or behind another codec")
    encoding = document["chunk_key_encoding"]
    plain = encoding["name"] == "v2"
    if not plain and encoding["name"] != "default":
        raise ValueError("unknown names of chunks")
    separator = encoding.get("configuration", {}).get("separator", "." if plain else "/")
    grid = {"name": "regular", "configuration": {"chunk_shape": chunk}}
    keys = {"name": "v2", "configuration": {"separator": "."}}
    single = {**document, "shape": chunk, "chunk_grid": grid, "chunk_key_encoding": keys, "codecs": codecs}
    return Layout(shape, chunk, "" if plain else f"c{separator}", separator, shards, names[-1] == "blosc", single)


def _shards(shape: tuple[int, ...], configuration: Mapping[str, Any]) -> Shards:
    codecs = [codec["name"] for codec in configuration["index_codecs"]]
    if codecs not in (["bytes"], ["bytes", "crc32c"]) or (
        configuration["index_codecs"][0].get("configuration", {}).get("endian", "little") != "little"
    ):
        raise ValueError("unknown index")
    return Shards(shape, configuration.get("index_location", "end") == "end", "crc32c" in codecs)


def _configured(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if value["name"] != name:
        raise ValueError(f"not {name}")
    configuration: Mapping[str, Any] = value["configuration"]
    return configuration


def _sizes(values: Sequence[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = tuple(int(value) for value in values)
    if len(sizes) != len(shape) or min(sizes) < 1:
        raise ValueError("chunks that don't fit the array")
    return sizes
