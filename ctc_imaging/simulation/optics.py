"""The microscope and its camera: illumination, focus, bleed-through, shot noise, read noise, saturation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ctc_imaging.simulation.settings import Setting
from ctc_imaging.simulation.shapes import Plane

FIELD_PX = 1024
"""Largest side of a field of view; a slide is cut into equal fields no larger than this."""

DEFOCUS_SIGMA_PER_UM = 0.25
"""Widening of the point spread per µm of focus error: half the geometric blur radius at NA 0.5."""

_HAZE_STEP_PX = 32


@dataclass(frozen=True)
class Camera:
    """A 12-bit scientific CMOS camera, as used on slide scanners (figures of its data sheet class)."""

    offset_adu: float = 100.0
    electrons_per_adu: float = 0.46
    read_noise_e: float = 1.6
    top_adu: int = 4095
    hot_pixels_per_million: float = 20.0


CAMERA = Camera()

BACKGROUND_E = {"dapi": 55.0, "ck": 70.0, "vim": 62.0, "cd45": 48.0}
"""Mean background of each stain at the centre of a field, in electrons."""


@dataclass(frozen=True)
class Field:
    """One field of view: its pixels on the slide and its focus error."""

    rows: slice
    columns: slice
    focus_um: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def lay_fields(shape_px: tuple[int, int], setting: Setting, rng: np.random.Generator) -> list[Field]:
    """Cut a slide into equal fields of view and draw the focus error of each.

    Parameters
    ----------
    shape_px : tuple of int
        Rows and columns of the slide.
    setting : Setting
    rng : numpy.random.Generator

    Returns
    -------
    list of Field
        In reading order. The error drifts smoothly over the slide, or is drawn field by field
        where the setting says so.
    """
    rows, columns = _cuts(shape_px[0]), _cuts(shape_px[1])
    count = len(rows), len(columns)
    by_field = setting.focus_field_by_field
    errors = rng.uniform(-1, 1, count) if by_field else _drift(rng.uniform(-1, 1, (3, 3)), count)
    focus = setting.focus_offset_um + setting.focus_error_um * errors
    return [Field(r, c, float(focus[i, j])) for i, r in enumerate(rows) for j, c in enumerate(columns)]


def _cuts(length: int) -> list[slice]:
    edges = np.linspace(0, length, -(-length // FIELD_PX) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


def _drift(knots: NDArray[np.float64], count: tuple[int, int]) -> NDArray[np.float64]:
    """Read a 3 × 3 mesh of knots bilinearly at the centres of the fields."""
    for axis, n in enumerate(count):
        at = (np.arange(n) + 0.5) / n * 2
        low = np.minimum(at.astype(int), 1)
        weight = np.expand_dims(at - low, 1 - axis)
        knots = knots.take(low, axis) * (1 - weight) + knots.take(low + 1, axis) * weight
    return knots


def illumination(shape: tuple[int, int], vignetting: float) -> Plane:
    """Light over a field: 1 at its centre, falling with the squared distance to 1 - `vignetting` in the corners."""
    y = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    return 1 - np.float32(vignetting / 2) * (y * y + x * x)


def draw_haze(shape_px: tuple[int, int], channels: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw the slow unevenness of the background, out-of-focus haze included.

    Returns
    -------
    ndarray of float32, shape (channels, rows, columns)
        Background relative to its mean, one value every 32 pixels; see `enlarge`.
    """
    coarse = tuple(-(-side // _HAZE_STEP_PX) + 1 for side in shape_px)
    haze = np.empty((channels, *coarse), np.float32)
    for plane in haze:
        noise = rng.standard_normal(coarse, dtype=np.float32)
        smooth = sum(weight * _unit(cv2.GaussianBlur(noise, (0, 0), s)) for s, weight in ((1.5, 0.03), (6.0, 0.06)))
        plane[:] = np.exp(smooth)
    return haze


def _unit(plane: Plane) -> Plane:
    spread = float(plane.std())
    return (plane - plane.mean()) / np.float32(spread) if spread > 0 else np.zeros_like(plane)


def haze_at(haze: Plane, y_px: NDArray[np.float64], x_px: NDArray[np.float64]) -> NDArray[np.float32]:
    """Read a coarse haze plane at pixel positions, bilinearly."""
    low_y, weight_y = _between_knots(y_px, haze.shape[0])
    low_x, weight_x = _between_knots(x_px, haze.shape[1])
    upper = _mix(haze[low_y, low_x], haze[low_y, low_x + 1], weight_x)
    lower = _mix(haze[low_y + 1, low_x], haze[low_y + 1, low_x + 1], weight_x)
    return _mix(upper, lower, weight_y)


def enlarge(haze: Plane, field: Field) -> Plane:
    """The haze over one field, pixel by pixel."""
    low_y, weight_y = _between_knots(np.arange(field.rows.start, field.rows.stop), haze.shape[0])
    low_x, weight_x = _between_knots(np.arange(field.columns.start, field.columns.stop), haze.shape[1])
    rows = _mix(haze[low_y], haze[low_y + 1], weight_y[:, None])
    return _mix(rows[:, low_x], rows[:, low_x + 1], weight_x)


def _mix(before: Plane, after: Plane, weight: Plane) -> Plane:
    return before + (after - before) * weight


def _between_knots(at_px: NDArray, knots: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The knot of the haze before each position, and the weight of the one after it."""
    steps = at_px / _HAZE_STEP_PX
    low = np.minimum(steps.astype(np.intp), knots - 2)
    return low, (steps - low).astype(np.float32)


def bleed_matrix(channels: int, fraction: float) -> NDArray[np.float32]:
    """Share of each stain (column) seen in each channel (row): all of its own, `fraction` of its neighbours'."""
    neighbours = np.abs(np.subtract.outer(np.arange(channels), np.arange(channels))) == 1
    return (np.eye(channels) + fraction * neighbours).astype(np.float32)


def point_spread_px(setting: Setting, focus_um: float, pixel_um: float) -> float:
    """Standard deviation of the point spread at a focus error, in pixels."""
    return float(np.hypot(setting.psf_sigma_um, DEFOCUS_SIGMA_PER_UM * focus_um)) / pixel_um


def noise_e(background_e: NDArray[np.float32] | float) -> NDArray[np.float32]:
    """Standard deviation of a pixel that receives `background_e` electrons on average."""
    return np.sqrt(np.asarray(background_e, np.float32) + np.float32(CAMERA.read_noise_e**2))


@dataclass(frozen=True)
class Sensor:
    """The camera's own faults, at the same place in every field."""

    hot: tuple[NDArray[np.intp], NDArray[np.intp]]
    dark_e: NDArray[np.float32]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Sensor:
        """Draw where the hot pixels are and how much they glow."""
        count = int(rng.poisson(CAMERA.hot_pixels_per_million * 1e-6 * FIELD_PX**2))
        y, x = rng.integers(0, FIELD_PX, (2, count))
        return cls((y, x), rng.exponential(300.0, count).astype(np.float32))

    def expose(self, light_e: Plane, rng: np.random.Generator) -> NDArray[np.uint16]:
        """Turn the mean number of electrons in each pixel into grey values.

        Shot noise is drawn as Gaussian, which the backgrounds' tens of electrons allow.
        """
        inside = (self.hot[0] < light_e.shape[0]) & (self.hot[1] < light_e.shape[1])
        np.add.at(light_e, (self.hot[0][inside], self.hot[1][inside]), self.dark_e[inside])
        noise = rng.standard_normal(light_e.shape, dtype=np.float32)
        noise *= noise_e(light_e)
        noise += light_e
        noise *= np.float32(1 / CAMERA.electrons_per_adu)
        noise += np.float32(CAMERA.offset_adu + 0.5)
        return np.clip(noise, 0, CAMERA.top_adu, out=noise).astype(np.uint16)


def photograph(
    signal_e: NDArray[np.float32],
    background_e: NDArray[np.float32],
    haze: NDArray[np.float32],
    fields: list[Field],
    setting: Setting,
    pixel_um: float,
    seed: np.random.SeedSequence,
) -> NDArray[np.uint16]:
    """Photograph a slide field by field.

    Parameters
    ----------
    signal_e : ndarray of float32, shape (channels, rows, columns)
        Electrons from each stain at full light, in perfect focus.
    background_e : ndarray of float32, shape (channels,)
        Mean background of each channel at full light.
    haze : ndarray of float32, shape (channels, coarse rows, coarse columns)
        See `draw_haze`.
    fields : list of Field
    setting : Setting
    pixel_um : float
    seed : numpy.random.SeedSequence
        Each field has its own stream, so the order of the fields doesn't matter.

    Returns
    -------
    ndarray of uint16, shape (channels, rows, columns)
    """
    sensor_seed, *field_seeds = seed.spawn(1 + len(fields))
    sensor = Sensor.draw(np.random.default_rng(sensor_seed))
    bleed = bleed_matrix(len(signal_e), setting.bleed_through)
    image = np.empty(signal_e.shape, np.uint16)
    for field, field_seed in zip(fields, field_seeds, strict=True):
        rng = np.random.default_rng(field_seed)
        light = illumination(field.shape, setting.vignetting)
        sharp = _blurred(signal_e, field, point_spread_px(setting, field.focus_um, pixel_um))
        for channel, level in enumerate(background_e):
            seen = enlarge(haze[channel], field) * level
            for weight, plane in zip(bleed[channel], sharp, strict=True):
                if weight:
                    seen = cv2.scaleAdd(plane, float(weight), seen)
            image[channel, field.rows, field.columns] = sensor.expose(cv2.multiply(seen, light), rng)
    return image


def _blurred(signal: NDArray[np.float32], field: Field, sigma_px: float) -> list[Plane]:
    """Blur the field with what lies around it, so that fields join without seams."""
    halo = int(np.ceil(4 * sigma_px))
    top, left = max(field.rows.start - halo, 0), max(field.columns.start - halo, 0)
    around = signal[:, top : field.rows.stop + halo, left : field.columns.stop + halo]
    inner_y = slice(field.rows.start - top, field.rows.start - top + field.shape[0])
    inner_x = slice(field.columns.start - left, field.columns.start - left + field.shape[1])
    return [
        cv2.GaussianBlur(plane, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)[inner_y, inner_x] for plane in around
    ]


def light_at(
    fields: list[Field], vignetting: float, y_px: NDArray[np.float64], x_px: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Illumination at pixel positions of the slide."""
    light = np.ones(len(y_px), np.float32)
    for field in fields:
        inside = (y_px >= field.rows.start - 0.5) & (y_px < field.rows.stop - 0.5)
        inside &= (x_px >= field.columns.start - 0.5) & (x_px < field.columns.stop - 0.5)
        height, width = field.shape
        y = 2 * (y_px[inside] - field.rows.start) / max(height - 1, 1) - 1
        x = 2 * (x_px[inside] - field.columns.start) / max(width - 1, 1) - 1
        light[inside] = 1 - vignetting / 2 * (y * y + x * x)
    return light
