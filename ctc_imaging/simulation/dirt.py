"""What lies on a slide besides cells: dye aggregates, debris, fibres, fragments, platelets, naked nuclei."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctc_imaging.simulation.cells import Look, to_mean
from ctc_imaging.simulation.population import MARKERS, expected_count
from ctc_imaging.simulation.settings import LogNormal, Setting
from ctc_imaging.simulation.shapes import Grid, Plane, draw_outline

_AGGREGATE_CHANNELS = (1, 2, 3, 4)
_AGGREGATE_CHANNEL_WEIGHTS = (0.5, 0.25, 0.15, 0.1)


def draw_naked_nuclei(setting: Setting, leukocytes: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw nuclei that have lost their cell: DAPI and nothing else.

    Returns
    -------
    DataFrame
        Columns as of `ctc_imaging.simulation.population.draw_cells`, `kind` ``naked_nucleus``.
    """
    count = expected_count(setting.naked_nuclei, leukocytes, rng)
    table = _empty_rows("naked_nucleus", count)
    table["diameter_um"] = rng.uniform(6.0, 9.5, count)
    table["nucleus_ratio"] = 1.0
    table["snr_dapi"] = setting.snr_factor * LogNormal(setting.nucleus_snr.median * 0.8, 0.35).draw(count, rng)
    return table


def draw_dirt(setting: Setting, leukocytes: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw everything on a slide that has no nucleus of its own.

    Parameters
    ----------
    setting : Setting
    leukocytes : int
        Rates are per 1,000 of these.
    rng : numpy.random.Generator

    Returns
    -------
    DataFrame
        One row an object: `kind`, `diameter_um` (a fibre's is its length), `snr_MARKER`.
    """
    rates: dict[str, tuple[float, Callable[[int, np.random.Generator], pd.DataFrame]]] = {
        "dye_aggregate": (setting.dye_aggregates, _draw_aggregates),
        "debris": (setting.debris, _draw_debris),
        "fibre": (setting.fibres, _draw_fibres),
        "ck_fragment": (setting.ck_fragments, _draw_fragments),
        "platelet": (setting.platelets, _draw_platelets),
    }
    return pd.concat(
        [draw(expected_count(rate, leukocytes, rng), rng) for rate, draw in rates.values()], ignore_index=True
    )


def _empty_rows(kind: str, count: int) -> pd.DataFrame:
    zeros = {f"snr_{marker}": np.zeros(count) for marker in MARKERS}
    fixed = {"diameter_um": np.zeros(count), "nucleus": ["round"] * count, "nucleus_ratio": np.ones(count)}
    return pd.DataFrame({"kind": [kind] * count, **fixed, "dying": np.zeros(count, bool), **zeros})


def _draw_aggregates(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Clumps of dye, in one channel or in several, often brighter than the camera can tell."""
    table = _empty_rows("dye_aggregate", count)
    table["diameter_um"] = LogNormal(5.0, 0.45).draw_within(count, 1.5, 16.0, rng)
    channels = rng.choice(_AGGREGATE_CHANNELS, count, p=_AGGREGATE_CHANNEL_WEIGHTS)
    carried = rng.random((count, len(MARKERS))).argsort(axis=1).argsort(axis=1) < channels[:, None]
    brightness = LogNormal(60.0, 0.8).draw(count, rng)[:, None] * rng.uniform(0.3, 1.0, carried.shape)
    table[[f"snr_{marker}" for marker in MARKERS]] = np.where(carried, brightness, 0.0)
    return table


def _draw_debris(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Dim crumbs, with or without DNA."""
    table = _empty_rows("debris", count)
    table["diameter_um"] = rng.uniform(1.5, 5.5, count)
    table["snr_dapi"] = LogNormal(7.0, 0.4).draw(count, rng) * (rng.random(count) < 0.75)
    for marker in MARKERS[1:]:
        table[f"snr_{marker}"] = LogNormal(3.0, 0.6).draw(count, rng) * (rng.random(count) < 0.35)
    return table


def _draw_fibres(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Threads of cloth or paper that glow in every channel."""
    table = _empty_rows("fibre", count)
    table["diameter_um"] = LogNormal(90.0, 0.5).draw_within(count, 30.0, 250.0, rng)
    brightness = LogNormal(14.0, 0.5).draw(count, rng)
    for marker in MARKERS:
        table[f"snr_{marker}"] = brightness * rng.uniform(0.6, 1.3, count)
    return table


def _draw_fragments(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """CK-positive pieces of cells without a nucleus."""
    table = _empty_rows("ck_fragment", count)
    table["diameter_um"] = rng.uniform(2.5, 8.0, count)
    table["snr_ck"] = LogNormal(10.0, 0.4).draw(count, rng)
    return table


def _draw_platelets(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Specks that take up some antibody."""
    table = _empty_rows("platelet", count)
    table["diameter_um"] = rng.uniform(1.5, 3.2, count)
    for marker, share in (("vim", 0.8), ("cd45", 0.4)):
        table[f"snr_{marker}"] = LogNormal(4.0, 0.4).draw(count, rng) * (rng.random(count) < share)
    return table


def scatter(
    dirt: pd.DataFrame,
    bodies: pd.DataFrame,
    centres_um: NDArray[np.float64],
    size_um: tuple[float, float],
    setting: Setting,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Scatter dirt over the slide, the setting's share of dye aggregates against leukocytes.

    Parameters
    ----------
    dirt, bodies : DataFrame
        What to scatter, and the cells that lie there already.
    centres_um : ndarray of float64, shape (n, 2)
        Centres (y, x) of the cells.
    size_um : tuple of float
        Height and width of the slide.
    setting : Setting
    rng : numpy.random.Generator

    Returns
    -------
    ndarray of float64, shape (m, 2)
        Centres (y, x) of the dirt.
    """
    spots = rng.uniform((0.0, 0.0), size_um, (len(dirt), 2))
    hosts = np.flatnonzero(bodies["kind"] == "leukocyte")
    touching = (dirt["kind"] == "dye_aggregate").to_numpy()
    touching &= rng.random(len(dirt)) < setting.aggregates_touching_fraction
    if len(hosts) and touching.any():
        host = rng.choice(hosts, int(touching.sum()))
        angle = rng.uniform(0, 2 * np.pi, len(host))
        reach = 0.5 * bodies["diameter_um"].to_numpy()[host] + 0.4 * dirt["diameter_um"].to_numpy()[touching]
        spots[touching] = centres_um[host] + reach[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return np.clip(spots, 0.0, size_um)


def render_dirt(
    look: Look, fraction_px: tuple[float, float], pixel_um: float, rng: np.random.Generator
) -> dict[str, Plane]:
    """Render a piece of dirt in perfect focus; parameters and result as of `render_cell`."""
    grid = Grid.around(0.75 * look.diameter_um, fraction_px, pixel_um)
    form = _FORMS.get(look.kind, _crumb)(look.diameter_um, grid, rng)
    inside = (form > 0.1 * form.max(initial=0)).astype(np.float32)
    return {marker: to_mean(form, inside, level) for marker, level in look.snr.items() if level > 0}


def _crumb(diameter_um: float, grid: Grid, rng: np.random.Generator) -> Plane:
    outline = draw_outline(
        diameter_um / 2, rng, aspect=rng.uniform(1, 1.8), angle=rng.uniform(0, np.pi), roughness=0.12
    )
    return outline.cover(grid)


def _clump(diameter_um: float, grid: Grid, rng: np.random.Generator) -> Plane:
    """Grains of dye stuck together, sharp at the edge and uneven inside."""
    total = np.zeros(grid.shape, np.float32)
    for _ in range(int(rng.integers(3, 10))):
        away, angle = 0.33 * diameter_um * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        centre = float(away * np.sin(angle)), float(away * np.cos(angle))
        grain = draw_outline(diameter_um * rng.uniform(0.1, 0.26), rng, centre_um=centre, roughness=0.15)
        total = np.maximum(total, np.float32(rng.uniform(0.5, 1.0)) * grain.cover(grid))
    return total


def _thread(length_um: float, grid: Grid, rng: np.random.Generator) -> Plane:
    """A bent thread through the patch's middle, twisted so that it is bright and broad by turns, not quite in focus."""
    steps = 60
    along = np.linspace(-0.5, 0.5, steps + 1)
    heading = rng.uniform(0, 2 * np.pi) + rng.normal(0, 1.0) * along
    heading += rng.normal(0, 0.35) * np.sin(2 * np.pi * along * rng.uniform(0.5, 2.5))
    path = np.cumsum(length_um / steps * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    path_px = (path - path[steps // 2]) / grid.pixel_um + np.array([grid.shape[1] // 2, grid.shape[0] // 2])
    twist = np.sin(2 * np.pi * (along * length_um / rng.uniform(15, 50) + rng.random()))
    width_px = np.maximum(np.round(rng.uniform(1.2, 3.0) * (1 + 0.4 * twist) / grid.pixel_um), 1).astype(int).tolist()
    grey = (170 - 70 * twist + 15 * rng.standard_normal(steps + 1)).clip(40, 255).tolist()
    canvas = np.zeros(grid.shape, np.uint8)
    points = np.round(path_px * 16).astype(int).tolist()
    for k in range(steps):
        cv2.line(canvas, points[k], points[k + 1], grey[k], width_px[k], cv2.LINE_AA, 4)
    return cv2.GaussianBlur(canvas.astype(np.float32), (0, 0), rng.uniform(0.3, 1.2) / grid.pixel_um)


_FORMS: dict[str, Callable[[float, Grid, np.random.Generator], Plane]] = {"dye_aggregate": _clump, "fibre": _thread}
