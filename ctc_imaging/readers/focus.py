"""One sharp plane a channel from a stack of focal planes, chosen part by part of the slide.

The depth of a part is chosen by all its stains together, and is the same for all of them. To choose by one
channel would decode less, but a reader doesn't know which channel shows the nuclei, and in a part without
keratin a keratin channel would choose by its noise.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ctc_imaging.readers.regions import Box, chunk_box, read_box

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ctc_imaging.readers.base import Plane

# A part is judged as one: large enough to hold dozens of cells, small enough to follow a tilted slide.
PART_PX = 512

# Every square with something in it has the same say in its part, so that one bright speck of dust on the
# coverslip doesn't outvote the cells beneath it. A square holds a cell or two.
SQUARE_PX = 64

# A block is at most this long, unless the planes' chunks are longer.
_LONGEST_PX = 2048

# Pixels of a block in all channels and depths together, and blocks of other channels that wait to be read.
STACK_BYTES = 128 * 2**20
WAITING_BYTES = 128 * 2**20

# Gradients after a Gaussian of 1 px: white noise leaves a mean square of 1 / (4 pi) of its variance, and in a
# square without cells that figure varies by less than a tenth of itself.
_NOISE_ENERGY = 1 / (4 * math.pi)
_LEAST_ENERGY = 0.1

# A depth with pixels that aren't finite is sharper than any: it is shown, so that the slide is refused for it.
_NOT_FINITE = 1e30

# Rounding to grey levels is itself a noise of this many levels.
_ROUNDING = 12**-0.5


def best_focus(stacks: Sequence[Sequence[Plane]]) -> tuple[Plane, ...]:
    """Make one plane a channel that shows every part of the slide at its sharpest depth.

    Parts of 512 px lie on a fixed grid from the slide's corner, however it is stored. A part is judged by the
    energy of its gradients over the noise, in all channels; one without any signal is shown at the middle depth.
    Blocks are whole parts and whole chunks: reading block by block decodes every chunk of every depth once, unless
    a block is too large to be kept; whoever comes back to a block decodes only the depths it shows.

    Parameters
    ----------
    stacks : sequence of sequence of Plane
        ``stacks[channel][z]``, all of one shape and dtype.

    Returns
    -------
    tuple of Plane
        One a channel, their chunks being the blocks.

    Raises
    ------
    ValueError
        If there is no plane, or shapes, dtypes or numbers of depths differ.
    """
    kinds = {(plane.shape, plane.dtype) for stack in stacks for plane in stack}
    if len(kinds) != 1 or len({len(stack) for stack in stacks}) != 1:
        raise ValueError("the stacks must hold planes of one shape and dtype, and be equally deep")
    if len(stacks[0]) == 1:
        return tuple(stack[0] for stack in stacks)
    focus = _Focus(stacks)
    return tuple(_FocusedPlane(focus, channel) for channel in range(len(stacks)))


@dataclass(frozen=True, eq=False)
class _FocusedPlane:
    """One channel at the depths that all channels share."""

    focus: _Focus
    channel: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.focus.shape

    @property
    def dtype(self) -> np.dtype:
        return self.focus.dtype

    @property
    def chunk_shape_px(self) -> tuple[int, int]:
        return self.focus.block_shape_px

    def read_chunk(self, row: int, column: int) -> NDArray:
        return self.focus.read_block(self.channel, row, column)


class _Focus:
    """The depths chosen so far, and the blocks of other channels that were decoded along the way."""

    def __init__(self, stacks: Sequence[Sequence[Plane]]) -> None:
        first = stacks[0][0]
        self.shape = first.shape
        self.dtype = first.dtype
        self.block_shape_px = _block_shape(first)
        self._stacks = stacks
        self._depths: dict[tuple[int, int], NDArray[np.intp]] = {}
        self._waiting: OrderedDict[tuple[int, int, int], NDArray] = OrderedDict()

    def read_block(self, channel: int, row: int, column: int) -> NDArray:
        """Return a block of one channel; the others' are kept until they are asked for, or too many."""
        waiting = self._waiting.pop((channel, row, column), None)
        if waiting is not None:
            return waiting
        box = chunk_box(row, column, self.block_shape_px, self.shape)
        if (row, column) in self._depths:
            return self._assemble(channel, box, self._depths[row, column], {})
        decoded, depths = self._measure(box)
        self._depths[row, column] = depths
        block = self._assemble(channel, box, depths, decoded)
        for other in range(len(self._stacks)):
            if decoded and other != channel:
                self._waiting[other, row, column] = self._assemble(other, box, depths, decoded)
        while sum(kept.nbytes for kept in self._waiting.values()) > WAITING_BYTES:
            self._waiting.popitem(last=False)
        return block

    def _measure(self, box: Box) -> tuple[dict[tuple[int, int], NDArray], NDArray[np.intp]]:
        """Decode a block at all depths and choose those of its parts, each by its own pixels alone.

        The pixels are kept unless the planes' own chunks are too large for that.
        """
        channels, depths = len(self._stacks), len(self._stacks[0])
        pixels = (box.y1 - box.y0) * (box.x1 - box.x0)
        keep = pixels * self.dtype.itemsize * channels * depths <= STACK_BYTES
        decoded: dict[tuple[int, int], NDArray] = {}
        judged: dict[tuple[int, int], list[tuple[NDArray[np.float64], float]]] = {}
        for channel, depth in np.ndindex(channels, depths):
            plane = read_box(self._stacks[channel][depth], box)
            for at, part in _parts(plane.shape):
                judged.setdefault(at, []).append(_judge(plane[part]))
            if keep:
                decoded[channel, depth] = plane
        chosen = np.zeros([last + 1 for last in max(judged)], np.intp)
        for at, figures in judged.items():
            energies = np.stack([energy for energy, _ in figures])
            noises = np.reshape([noise for _, noise in figures], (channels, depths))
            chosen[at] = choose_depths(energies.reshape(channels, depths, *energies.shape[1:]), noises)[0, 0]
        return decoded, chosen

    def _assemble(
        self, channel: int, box: Box, depths: NDArray[np.intp], decoded: Mapping[tuple[int, int], NDArray]
    ) -> NDArray:
        block = np.empty((box.y1 - box.y0, box.x1 - box.x0), self.dtype)
        for depth in np.unique(depths):
            plane = decoded.get((channel, int(depth)))
            if plane is None:
                plane = read_box(self._stacks[channel][depth], box)
            for row, column in np.argwhere(depths == depth):
                part = chunk_box(int(row), int(column), (PART_PX, PART_PX), block.shape).slices
                block[part] = plane[part]
        return block


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Yield the place and the slices of every part of a block."""
    rows, columns = (-(-side // PART_PX) for side in shape)
    for row, column in np.ndindex(rows, columns):
        yield (row, column), chunk_box(row, column, (PART_PX, PART_PX), (shape[0], shape[1])).slices


def _block_shape(plane: Plane) -> tuple[int, int]:
    """Whole parts and whole chunks, so that parts lie alike on a slide however it is stored, and none is cut.

    Where chunks and parts hardly ever end together a block is one part, and chunks are decoded for each they touch.
    """
    high, wide = (
        min(common if (common := math.lcm(min(side, whole), PART_PX)) <= _LONGEST_PX else PART_PX, whole)
        if side < whole
        else whole
        for side, whole in zip(plane.chunk_shape_px, plane.shape, strict=True)
    )
    return high, wide


def choose_depths(energies: NDArray, noises: NDArray) -> NDArray[np.intp]:
    """Choose the depth of every part of a block.

    Parameters
    ----------
    energies : ndarray, shape (channels, depths, rows, columns)
        Mean squared gradient of every square of 64 px, as `gradient_energy` gives it.
    noises : ndarray, shape (channels, depths)
        Noise of a pixel, in grey levels.

    Returns
    -------
    ndarray of int, shape (rows of parts, columns of parts)
        The depth nearest to the middle where several are equally sharp, or nothing is there to judge by.
    """
    # The blurred depths tell the noise best: in the sharp one, crowded cells add to it.
    noise = noises.min(axis=1)[:, None, None, None]
    evidence = np.minimum((energies / noise**2 - _NOISE_ENERGY).sum(axis=0), _NOT_FINITE)
    highest = evidence.max(axis=0)
    votes = np.where(highest > _LEAST_ENERGY, evidence / np.maximum(highest, _LEAST_ENERGY), 0)
    for axis in (1, 2):
        votes = np.add.reduceat(votes, np.arange(0, votes.shape[axis], PART_PX // SQUARE_PX), axis)
    middle = len(votes) // 2
    nearest_first = np.array(sorted(range(len(votes)), key=lambda depth: (abs(depth - middle), depth)))
    chosen: NDArray[np.intp] = nearest_first[votes[nearest_first].argmax(axis=0)]
    return chosen


def _judge(plane: NDArray) -> tuple[NDArray[np.float64], float]:
    if plane.dtype.kind == "f" and not np.isfinite(plane).all():
        return np.full([-(-side // SQUARE_PX) for side in plane.shape], _NOT_FINITE), 1.0
    return gradient_energy(plane), noise_level(plane)


def gradient_energy(plane: NDArray) -> NDArray[np.float64]:
    """Mean squared gradient of every square of 64 px, after a Gaussian of 1 px.

    Parameters
    ----------
    plane : ndarray, shape (Y, X)

    Returns
    -------
    ndarray of float64, shape (ceil(Y / 64), ceil(X / 64))
        In squared grey levels a px².
    """
    smooth = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), 1.0)
    energy = np.zeros(plane.shape)
    for axis in (0, 1):
        if plane.shape[axis] > 1:
            energy += np.square(np.gradient(smooth, axis=axis), dtype=np.float64)
    for axis in (0, 1):
        starts = np.arange(0, plane.shape[axis], SQUARE_PX)
        counts = np.diff(np.append(starts, plane.shape[axis]))
        energy = np.add.reduceat(energy, starts, axis) / np.expand_dims(counts, 1 - axis)
    return energy


def noise_level(plane: NDArray) -> float:
    """Noise of a pixel in grey levels, never below their rounding: neighbours differ by it alone on most of a slide."""
    steps = np.abs(np.diff(plane[::4].astype(np.float32), axis=1))
    noise = 1.4826 * 0.5**0.5 * float(np.median(steps)) if steps.size else 0.0
    least = _ROUNDING if plane.dtype.kind == "u" else 1e-6 * float(np.ptp(plane))
    return max(noise, least, float(np.finfo(np.float32).tiny))
