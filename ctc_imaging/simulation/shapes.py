"""Shapes and textures of cells: outlines as wobbly ellipses, chromatin grain and filament networks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

_TEXTURE_SIDE_PX = 512
# The texture sheets are the same in every simulation; a slide's seed only picks the windows cut from them.
_TEXTURE_SEED = 20260117
_HARMONIC_FALL = np.array([1.0, 1.4, 2.4, 4.0])


@dataclass(frozen=True)
class Grid:
    """Pixel centres of a square patch, in µm from an object's centre."""

    y: Plane
    x: Plane
    pixel_um: float

    @classmethod
    def around(cls, reach_um: float, fraction_px: tuple[float, float], pixel_um: float) -> Grid:
        """A grid that holds everything within `reach_um` of a centre `fraction_px` off the middle pixel."""
        half = int(np.ceil(reach_um / pixel_um)) + 2
        steps = np.arange(-half, half + 1, dtype=np.float32)
        y = ((steps - np.float32(fraction_px[0])) * np.float32(pixel_um))[:, None]
        x = ((steps - np.float32(fraction_px[1])) * np.float32(pixel_um))[None, :]
        return cls(y, x, pixel_um)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the patch."""
        return self.y.shape[0], self.x.shape[1]


@dataclass(frozen=True)
class Outline:
    """A closed outline: an ellipse of `radius_um` (of equal area) with a wobble of low harmonics.

    `wobble[k]` is the complex amplitude of harmonic k + 2, relative to the radius.
    """

    radius_um: float
    centre_um: tuple[float, float] = (0.0, 0.0)
    aspect: float = 1.0
    angle: float = 0.0
    wobble: tuple[complex, ...] = ()

    def depth(self, grid: Grid) -> Plane:
        """Distance from the centre relative to the outline: 0 at the centre, 1 on the outline."""
        turn = np.complex64(np.exp(-1j * self.angle))
        z = (
            (grid.x - np.float32(self.centre_um[1])) + np.complex64(1j) * (grid.y - np.float32(self.centre_um[0]))
        ) * turn
        if self.aspect != 1.0:
            stretch = np.float32(np.sqrt(self.aspect))
            z = z.real / stretch + np.complex64(1j) * (z.imag * stretch)
        distance: Plane = np.abs(z)
        if not self.wobble:
            return distance / np.float32(self.radius_um)
        return distance / (np.float32(self._base_radius_um) * self._relative_radius(z, distance))

    @property
    def _base_radius_um(self) -> float:
        # A wobble adds half its squared amplitudes to the area.
        return self.radius_um / float(np.sqrt(1 + 0.5 * sum(abs(c) ** 2 for c in self.wobble)))

    def _relative_radius(self, z: NDArray[np.complex64], distance: Plane) -> Plane:
        unit = z / np.maximum(distance, np.float32(1e-6))
        total = np.zeros_like(unit)
        for amplitude in reversed(self.wobble):
            total = total * unit + np.complex64(amplitude)
        return np.maximum(1 + (total * unit * unit).real, np.float32(0.3))

    def cover(self, grid: Grid, depth: Plane | None = None) -> Plane:
        """How much of each pixel lies inside, 0 to 1."""
        depth = self.depth(grid) if depth is None else depth
        slope = np.float32(self.radius_um / grid.pixel_um)
        return np.clip((1 - depth) * slope + np.float32(0.5), 0, 1)


def draw_outline(
    radius_um: float,
    rng: np.random.Generator,
    *,
    aspect: float = 1.0,
    angle: float = 0.0,
    roughness: float = 0.03,
    centre_um: tuple[float, float] = (0.0, 0.0),
) -> Outline:
    """Draw an outline whose harmonics 2 to 5 fall in amplitude from `roughness`."""
    sizes = roughness * rng.standard_normal(4) / _HARMONIC_FALL
    wobble = tuple((sizes * np.exp(1j * rng.uniform(0, 2 * np.pi, 4))).tolist())
    return Outline(radius_um, centre_um, aspect, angle, wobble)


def dome(depth: Plane) -> Plane:
    """Relative thickness of a round body seen from above, 1 at its centre and 0 from its outline on."""
    return np.sqrt(np.clip(1 - depth * depth, 0, 1))


@lru_cache(maxsize=8)
def chromatin(pixel_um: float, grain_um: float = 0.55) -> Plane:
    """A sheet of grains with mean 0 and standard deviation 1."""
    return _smooth_noise(0, grain_um / pixel_um)


@lru_cache(maxsize=8)
def filaments(pixel_um: float, spacing_um: float = 0.9) -> Plane:
    """A sheet of crossing bright threads with mean 1."""
    threads = sum(np.exp(-((_smooth_noise(k, spacing_um / pixel_um) / 0.3) ** 2)) for k in (1, 2))
    return (threads / threads.mean()).astype(np.float32)


@lru_cache(maxsize=8)
def dots(pixel_um: float) -> Plane:
    """A sheet of bright dots with mean 1."""
    spots = np.maximum(chromatin(pixel_um), 0)
    return (spots / spots.mean()).astype(np.float32)


def window(sheet: Plane, shape: tuple[int, int], rng: np.random.Generator) -> Plane:
    """Cut a random window of `shape` out of a texture sheet, turned at random."""
    turn = int(rng.integers(8))
    rows, columns = (shape[1], shape[0]) if turn & 1 else shape
    top = int(rng.integers(max(sheet.shape[0] - rows, 1)))
    left = int(rng.integers(max(sheet.shape[1] - columns, 1)))
    cut = sheet[top : top + rows, left : left + columns]
    if turn & 1:
        cut = cut.T
    return cut[:: -1 if turn & 2 else 1, :: -1 if turn & 4 else 1]


def _smooth_noise(stream: int, sigma_px: float) -> Plane:
    rng = np.random.default_rng([_TEXTURE_SEED, stream])
    noise = rng.standard_normal((_TEXTURE_SIDE_PX, _TEXTURE_SIDE_PX), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma_px)
    return (smooth - smooth.mean()) / smooth.std()
