"""Planes put together from fields of view: every pixel from exactly one field, by a rule of geometry.

A pixel that several fields show belongs to the one whose centre is nearest; where two are equally near, to the
upper one, or else the left one. The rule knows positions only, so it is the same for all channels, whatever is
read first, and no cell is there twice. A pixel that no field shows is 0 in all channels: never scanned.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ctc_imaging.readers.regions import Box, chunk_box, chunks_under

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ctc_imaging.readers.base import Plane

# Fields stored in small pieces are put together in chunks near this side.
CHUNK_PX = 512

# Decoded pixels that lie in chunks not yet asked for. Row by row these are at most the overlaps below a row.
WAITING_BYTES = 256 * 2**20

# Positions nearer than this share of a field are one row, or one column, with the error of the stage.
_SAME_LINE = 0.25


class FieldPlanes(Protocol):
    """Gives the planes of single fields, opening their files when needed."""

    def plane(self, field: int, channel: int) -> Plane:
        """Return one channel of one field."""

    def stored_px(self, field: int, channel: int) -> tuple[int, int]:
        """Height and width of the chunks in which it is stored, without opening it."""


class Share(NamedTuple):
    """The pixels of a chunk that belong to a field: those in `box` (on the mosaic), or only those of `mask`."""

    field: int
    box: Box
    mask: NDArray[np.bool_] | None


class Mosaic:
    """Fields at their places on a slide.

    Parameters
    ----------
    corners : sequence of (int, int)
        Top and left of each field in px, from the top-left of the mosaic.
    field_shape : tuple of int
        Height and width of every field in px.
    fields : FieldPlanes
    dtype : numpy.dtype
    """

    def __init__(
        self,
        corners: Sequence[tuple[int, int]],
        field_shape: tuple[int, int],
        fields: FieldPlanes,
        dtype: np.dtype,
    ) -> None:
        (height, width), self.field_shape, self.dtype, self.fields = field_shape, field_shape, dtype, fields
        stored = fields.stored_px(0, 0)
        self.boxes = [Box(top, top + height, left, left + width) for top, left in corners]
        self.shape = (max(box.y1 for box in self.boxes), max(box.x1 for box in self.boxes))
        self.chunk_shape_px = (
            _chunk_side([box.y0 for box in self.boxes], height, stored[0]),
            _chunk_side([box.x0 for box in self.boxes], width, stored[1]),
        )
        self.touching: dict[tuple[int, int], list[int]] = {}
        for field in sorted(range(len(self.boxes)), key=lambda field: self.boxes[field][::2]):
            for chunk in chunks_under(self.boxes[field], self.chunk_shape_px):
                self.touching.setdefault(chunk, []).append(field)
        self.shares = lru_cache(maxsize=64)(self._shares)
        self._waiting: OrderedDict[tuple[int, int, tuple[int, int], tuple[int, int]], NDArray] = OrderedDict()
        self._waiting_bytes = 0

    def read_chunk(self, channel: int, row: int, column: int) -> NDArray:
        """Put one chunk of a channel together."""
        chunk = chunk_box(row, column, self.chunk_shape_px, self.shape)
        pixels = np.zeros((chunk.y1 - chunk.y0, chunk.x1 - chunk.x0), self.dtype)
        for field, box, mask in self.shares(row, column):
            target = pixels[box.moved(-chunk.y0, -chunk.x0).slices]
            np.copyto(target, self._read(channel, field, box, (row, column)), where=True if mask is None else mask)
        return pixels

    def forget(self) -> None:
        """Drop what was decoded for chunks not yet asked for."""
        self._waiting.clear()
        self._waiting_bytes = 0

    def _shares(self, row: int, column: int) -> tuple[Share, ...]:
        """Part a chunk among the fields that show it."""
        chunk = chunk_box(row, column, self.chunk_shape_px, self.shape)
        fields = self.touching.get((row, column), [])
        if len(fields) == 1:
            return (Share(fields[0], self.boxes[fields[0]] & chunk, None),)
        owner = np.full((chunk.y1 - chunk.y0, chunk.x1 - chunk.x0), -1, np.int32)
        nearest = np.full(owner.shape, np.iinfo(np.int64).max)
        for field in fields:
            box = self.boxes[field] & chunk
            inner = box.moved(-chunk.y0, -chunk.x0).slices
            distance = _distance(box, self.boxes[field])
            nearer = distance < nearest[inner]
            owner[inner][nearer] = field
            nearest[inner][nearer] = distance[nearer]
        shares = (_share(owner, field, chunk) for field in fields)
        return tuple(share for share in shares if share is not None)

    def _read(self, channel: int, field: int, box: Box, chunk: tuple[int, int]) -> NDArray:
        """Read a part of a field that lies in one chunk of the mosaic, from the field's stored chunks."""
        place = self.boxes[field]
        stored = self.fields.stored_px(field, channel)
        pixels = np.empty((box.y1 - box.y0, box.x1 - box.x0), self.dtype)
        for unit in chunks_under(box.moved(-place.y0, -place.x0), stored):
            unit_box = chunk_box(*unit, stored, self.field_shape).moved(place.y0, place.x0)
            within = unit_box & chunk_box(*chunk, self.chunk_shape_px, self.shape)
            piece = self._waiting.pop((channel, field, unit, chunk), None)
            if piece is None:
                piece = self._decode(channel, field, unit, unit_box, chunk)
            else:
                self._waiting_bytes -= piece.nbytes
            wanted = within & box
            pixels[wanted.moved(-box.y0, -box.x0).slices] = piece[wanted.moved(-within.y0, -within.x0).slices]
        return pixels

    def _decode(
        self, channel: int, field: int, unit: tuple[int, int], unit_box: Box, chunk: tuple[int, int]
    ) -> NDArray:
        """Decode a stored chunk of a field, and keep what lies in other chunks of the mosaic until these are read."""
        decoded = self.fields.plane(field, channel).read_chunk(*unit)
        for other in chunks_under(unit_box, self.chunk_shape_px):
            within = unit_box & chunk_box(*other, self.chunk_shape_px, self.shape)
            piece = decoded[within.moved(-unit_box.y0, -unit_box.x0).slices]
            if other == chunk:
                wanted = piece
            elif (channel, field, unit, other) not in self._waiting and self._may_own(field, within, other):
                # A view would keep the whole of what was decoded alive.
                self._waiting[channel, field, unit, other] = piece.copy()
                self._waiting_bytes += piece.nbytes
        while self._waiting_bytes > WAITING_BYTES:
            self._waiting_bytes -= self._waiting.popitem(last=False)[1].nbytes
        return wanted

    def _may_own(self, field: int, box: Box, chunk: tuple[int, int]) -> bool:
        """Tell whether no single other field is nearer to a whole box: nearer to its corners is nearer to all of it."""
        mine = _corner_distance(box, self.boxes[field])
        return not any(
            self.boxes[other] & box == box and (_corner_distance(box, self.boxes[other]) < mine).all()
            for other in self.touching[chunk]
        )


@dataclass(frozen=True, eq=False)
class MosaicPlane:
    """One channel of a mosaic."""

    mosaic: Mosaic
    channel: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in px."""
        return self.mosaic.shape

    @property
    def dtype(self) -> np.dtype:
        """Data type of the pixels."""
        return self.mosaic.dtype

    @property
    def chunk_shape_px(self) -> tuple[int, int]:
        """Height and width of a chunk in px."""
        return self.mosaic.chunk_shape_px

    def read_chunk(self, row: int, column: int) -> NDArray:
        """Put one chunk together, clipped at the mosaic's border."""
        return self.mosaic.read_chunk(self.channel, row, column)


def covered_px(boxes: Sequence[Box]) -> int:
    """Count the pixels that at least one of several boxes of one size shows."""
    tops, bottoms, lefts, rights = (np.array([box[at] for box in boxes]) for at in range(4))
    total = 0
    for y0, y1 in pairwise(np.unique(np.concatenate([tops, bottoms]))):
        across = np.sort(lefts[(tops <= y0) & (bottoms >= y1)])
        if across.size:
            width = int(rights[0] - lefts[0])
            total += int(y1 - y0) * (width + int(np.minimum(np.diff(across), width).sum()))
    return total


def _distance(box: Box, field: Box) -> NDArray[np.int64]:
    """Squared distance of every pixel of a box from the field's centre, in quarters of a px²."""
    return _distance_of(np.arange(box.y0, box.y1), np.arange(box.x0, box.x1), field)


def _corner_distance(box: Box, field: Box) -> NDArray[np.int64]:
    return _distance_of(np.array([box.y0, box.y1 - 1]), np.array([box.x0, box.x1 - 1]), field)


def _distance_of(y: NDArray[np.int64], x: NDArray[np.int64], field: Box) -> NDArray[np.int64]:
    across, down = 2 * x - (field.x0 + field.x1 - 1), 2 * y - (field.y0 + field.y1 - 1)
    return np.add.outer(down * down, across * across)


def _share(owner: NDArray[np.int32], field: int, chunk: Box) -> Share | None:
    mask = owner == field
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    box = Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
    tight = mask[box.slices]
    return Share(field, box.moved(chunk.y0, chunk.x0), None if tight.all() else tight.copy())


def _chunk_side(starts: Sequence[int], field_px: int, stored_px: int) -> int:
    """Choose a side that keeps step with the fields, so that a field's pixels don't wait for a later row.

    Fields stored in small chunks are parted further, to spare whoever reads a small region.
    """
    ordered = np.sort(np.asarray(starts))
    lines = ordered[np.append(True, np.diff(ordered) > _SAME_LINE * field_px)]
    step = min(field_px, round(float(np.median(np.diff(lines))))) if lines.size > 1 else field_px
    parts = max(1, round(step / max(CHUNK_PX, stored_px)))
    return -(-step // parts)
