"""A large slide as seen from afar, read in the background while a person already looks at it from near."""

from __future__ import annotations

import threading
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ctc.layers import Limits, Scan

FAR_PX = 1200
_STEP_PX = 2048
_SAMPLES, _SAMPLE_PX = 4, 128
_BRIGHTEST_PERCENT = 99.8


def empty_far_view(scan: Scan) -> NDArray[Any]:
    """Return zeros for a slide as seen from afar, shape (C, rows, columns), its longer side at most 1200."""
    _, height, width = scan.shape
    factor = _factor(scan)
    return np.zeros((len(scan.channels), -(-height // factor), -(-width // factor)), scan.dtype)


def sampled_limits(scan: Scan) -> Limits:
    """Choose a contrast for each marker from a few small windows: their median, and nearly their brightest pixel."""
    _, height, width = scan.shape
    side = min(_SAMPLE_PX, height, width)
    ys, xs = (np.linspace(0, length - side, _SAMPLES).astype(int).tolist() for length in (height, width))
    channels = list(scan.channels.values())
    windows = [scan.read(channels, y, y + side, x, x + side) for y, x in product(ys, xs)]
    pixels = np.stack(windows, axis=1).reshape(len(channels), -1).astype(np.float64)
    low, high = np.median(pixels, axis=1), np.percentile(pixels, _BRIGHTEST_PERCENT, axis=1)
    return {short: (float(a), float(max(b, a + 1.0))) for short, a, b in zip(scan.channels, low, high, strict=True)}


class FarFill:
    """Fills a far view region by region, in a thread of its own.

    Parameters
    ----------
    scan : Scan
    planes : ndarray, shape (C, rows, columns)
        As of `empty_far_view`, filled in place.
    """

    def __init__(self, scan: Scan, planes: NDArray[Any]) -> None:
        self._scan = scan
        self._planes = planes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Leave the rest, and wait until the thread has ended."""
        self._stop.set()
        self._thread.join()

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self._thread.is_alive()

    def _fill(self) -> None:
        _, height, width = self._scan.shape
        factor = _factor(self._scan)
        step = max(_STEP_PX // factor, 1) * factor
        channels = list(self._scan.channels.values())
        for y, x in product(range(0, height, step), range(0, width, step)):
            if self._stop.is_set():
                return
            region = self._scan.read(channels, y, min(y + step, height), x, min(x + step, width))
            small = _means(region, factor)
            self._planes[:, y // factor :, x // factor :][:, : small.shape[1], : small.shape[2]] = small


def _factor(scan: Scan) -> int:
    return -(-max(scan.shape[1:]) // FAR_PX)


def _means(region: NDArray[Any], factor: int) -> NDArray[Any]:
    """Average squares of `factor` px; those cut by the slide's edge over what there is of them."""
    small = region.astype(np.float32)
    for axis in (1, 2):
        starts = np.arange(0, region.shape[axis], factor)
        counts = np.diff(np.append(starts, region.shape[axis])).astype(np.float32)
        small = np.add.reduceat(small, starts, axis) / np.expand_dims(counts, (0, 3 - axis))
    return small.astype(region.dtype)
