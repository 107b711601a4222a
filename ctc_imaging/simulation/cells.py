"""How cells look: nuclei with chromatin, cytoplasm with filaments, CD45 on the rim, and how they die."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ctc_imaging.simulation.shapes import Grid, Outline, Plane, chromatin, dome, dots, draw_outline, filaments, window

# Over the cell's radius: chance, elongation and wobble of CTCs (irregular) and of leukocytes (nearly round).
_ELONGATION = {"ctc": 0.09, "leukocyte": 0.03, "naked_nucleus": 0.06}
_ROUGHNESS = {"ctc": 0.055, "leukocyte": 0.02, "naked_nucleus": 0.04}
_PUNCTATE_CK = 0.12


@dataclass(frozen=True)
class Look:
    """What a cell shall look like; see `ctc_imaging.simulation.population.draw_cells`."""

    kind: str
    diameter_um: float
    nucleus: str
    nucleus_ratio: float
    dying: bool
    snr: Mapping[str, float]


class NucleusSource(Protocol):
    """Where nuclei come from that the simulator doesn't draw itself, for example cut from real images."""

    def draw(
        self, radius_um: float, centre_um: tuple[float, float], grid: Grid, rng: np.random.Generator
    ) -> tuple[Plane, Plane] | None:
        """Return cover and stain of a nucleus of the area of a circle, or None to let the simulator draw it."""


@dataclass(frozen=True)
class _Form:
    """A body or nucleus on a grid: share of each pixel it covers, and its relative thickness there."""

    cover: Plane
    thickness: Plane

    @classmethod
    def of(cls, outlines: list[Outline], grid: Grid) -> _Form:
        """The union of outlines."""
        depths = [outline.depth(grid) for outline in outlines]
        covers = [outline.cover(grid, depth) for outline, depth in zip(outlines, depths, strict=True)]
        if len(outlines) == 1:
            return cls(covers[0], dome(depths[0]))
        return cls(np.maximum.reduce(covers), dome(np.minimum.reduce(depths)))


def render_cell(
    look: Look,
    fraction_px: tuple[float, float],
    pixel_um: float,
    rng: np.random.Generator,
    source: NucleusSource | None = None,
) -> dict[str, Plane]:
    """Render a cell in perfect focus.

    Parameters
    ----------
    look : Look
    fraction_px : tuple of float
        Where its centre (y, x) lies off the patch's middle pixel.
    pixel_um : float
    rng : numpy.random.Generator
    source : NucleusSource, optional
        Of nuclei that aren't broken.

    Returns
    -------
    dict of str to ndarray of float32
        SNR of each stain the cell carries, pixel by pixel: the mean over its own compartment (the
        nucleus for DAPI, the whole cell for the others) is the SNR asked for.
    """
    grid = Grid.around(0.72 * look.diameter_um, fraction_px, pixel_um)
    broken = look.dying and rng.random() < 0.5
    outline = _draw_outline(look, rng)
    body = _Form.of([outline, *(_draw_blebs(outline, rng) if look.dying and not broken else [])], grid)
    nucleus = _draw_fragments(outline, grid, rng) if broken else _draw_nucleus(look, outline, grid, rng)
    found = None if source is None or broken else _from_source(look, outline, grid, source, rng)
    nucleus = _Form((found[0] if found else nucleus.cover) * body.cover, nucleus.thickness)
    stains = {}
    for marker, snr in look.snr.items():
        if marker == "dapi":
            dna = _dna(look, nucleus, grid, rng) if found is None else found[1] * body.cover
            stains[marker] = to_mean(dna, nucleus.cover, snr)
        elif snr > 0:
            stains[marker] = to_mean(_PAINTS[marker](body, nucleus, grid, rng), body.cover, snr)
    return stains


def to_mean(pattern: Plane, compartment: Plane, mean: float) -> Plane:
    """Scale a pattern so that its mean over a compartment is `mean`."""
    inside = float(np.vdot(pattern, compartment))
    return pattern * np.float32(mean * float(compartment.sum()) / inside) if inside > 0 else np.zeros_like(pattern)


def _draw_outline(look: Look, rng: np.random.Generator) -> Outline:
    radius = look.diameter_um / 2 * (0.9 if look.dying else 1.0)
    aspect = 1 + rng.gamma(2.0, _ELONGATION[look.kind])
    return draw_outline(
        radius, rng, aspect=min(aspect, 1.6), angle=rng.uniform(0, np.pi), roughness=_ROUGHNESS[look.kind]
    )


def _draw_blebs(body: Outline, rng: np.random.Generator) -> list[Outline]:
    """Round bulges on the rim of a dying cell."""
    angles = rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8)))
    sizes = body.radius_um * rng.uniform(0.16, 0.36, len(angles))
    return [Outline(s, _polar(0.95 * body.radius_um, a)) for s, a in zip(sizes.tolist(), angles, strict=True)]


def _polar(radius: float, angle: float) -> tuple[float, float]:
    return float(radius * np.sin(angle)), float(radius * np.cos(angle))


def _draw_nucleus(look: Look, body: Outline, grid: Grid, rng: np.random.Generator) -> _Form:
    radius = body.radius_um * look.nucleus_ratio * (0.8 if look.dying else 1.0)
    if look.nucleus == "lobed":
        return _Form.of(_draw_lobes(radius, body.radius_um, rng), grid)
    centre = _polar(0.6 * (body.radius_um - radius) * rng.random(), rng.uniform(0, 2 * np.pi))
    extra = 0.12 * rng.random() if look.nucleus == "oval" else 0.0
    roughness = 1.3 * _ROUGHNESS[look.kind]
    outline = draw_outline(
        radius, rng, aspect=body.aspect + extra, angle=body.angle, roughness=roughness, centre_um=centre
    )
    form = _Form.of([outline], grid)
    if look.nucleus != "kidney":
        return form
    notch_at = _polar(radius * rng.uniform(0.8, 1.05), rng.uniform(0, 2 * np.pi))
    notch = Outline(radius * rng.uniform(0.42, 0.6), (centre[0] + notch_at[0], centre[1] + notch_at[1]))
    return _Form(form.cover * (1 - notch.cover(grid)), form.thickness)


def _from_source(
    look: Look, body: Outline, grid: Grid, source: NucleusSource, rng: np.random.Generator
) -> tuple[Plane, Plane] | None:
    radius = body.radius_um * look.nucleus_ratio * (0.8 if look.dying else 1.0)
    centre = _polar(0.6 * (body.radius_um - radius) * rng.random(), rng.uniform(0, 2 * np.pi))
    return source.draw(radius, centre, grid, rng)


def _draw_lobes(radius_um: float, body_um: float, rng: np.random.Generator) -> list[Outline]:
    """Two to five lobes in a chain bent along the cell's rim, of a joint area of a circle of `radius_um`."""
    count = int(rng.choice([2, 3, 4, 5], p=[0.25, 0.4, 0.25, 0.1]))
    lobe = 1.08 * radius_um / np.sqrt(count)
    bend = body_um - 1.02 * lobe if count == 2 else max(body_um - 1.1 * lobe, 0.45 * body_um)
    bend = min(bend, 0.55 * body_um)
    angles = rng.uniform(0, 2 * np.pi) + 1.55 * lobe / bend * np.arange(count)
    sizes = lobe * rng.uniform(0.85, 1.12, count)
    return [
        draw_outline(s, rng, aspect=1 + 0.25 * rng.random(), angle=a, centre_um=_polar(bend, a))
        for s, a in zip(sizes.tolist(), angles.tolist(), strict=True)
    ]


def _draw_fragments(body: Outline, grid: Grid, rng: np.random.Generator) -> _Form:
    """The round crumbs of a nucleus that has broken up."""
    count = int(rng.integers(3, 8))
    sizes = body.radius_um * rng.uniform(0.12, 0.30, count)
    away = 0.65 * body.radius_um * np.sqrt(rng.random(count))
    angles = rng.uniform(0, 2 * np.pi, count)
    return _Form.of([Outline(s, _polar(d, a)) for s, d, a in zip(sizes.tolist(), away, angles, strict=True)], grid)


def _dna(look: Look, nucleus: _Form, grid: Grid, rng: np.random.Generator) -> Plane:
    """DAPI: clumped chromatin in leukocytes, finer with nucleoli in CTCs, none to see in a condensed nucleus."""
    contrast = 0.05 if look.dying else 0.13 if look.kind == "ctc" else 0.2
    grain = window(chromatin(grid.pixel_um), grid.shape, rng)
    pattern: Plane = (
        nucleus.cover * (0.45 + 0.55 * nucleus.thickness) * np.maximum(1 + np.float32(contrast) * grain, 0.2)
    )
    if look.kind == "ctc" and not look.dying:
        reach = 0.3 * look.diameter_um * look.nucleus_ratio
        for _ in range(int(rng.integers(0, 4))):
            spot = Outline(rng.uniform(0.5, 1.0), _polar(reach * rng.random(), rng.uniform(0, 2 * np.pi)))
            pattern = pattern * (1 - 0.35 * spot.cover(grid))
    return pattern


def _keratin(body: _Form, nucleus: _Form, grid: Grid, rng: np.random.Generator) -> Plane:
    """CK: a cage of filaments around the nucleus, in some cells dots."""
    sheet = dots if rng.random() < _PUNCTATE_CK else filaments
    network = 0.45 + 0.55 * window(sheet(grid.pixel_um), grid.shape, rng)
    return _cytoplasm(body, grid, rng) * (1 - 0.45 * nucleus.cover) * network


def _vimentin(body: _Form, nucleus: _Form, grid: Grid, rng: np.random.Generator) -> Plane:
    """Vimentin: a finer network, denser towards the nucleus."""
    network = 0.65 + 0.35 * window(filaments(grid.pixel_um, 0.7), grid.shape, rng)
    return _cytoplasm(body, grid, rng) * (1 - 0.3 * nucleus.cover) * network


def _cytoplasm(body: _Form, grid: Grid, rng: np.random.Generator) -> Plane:
    """The cell's thickness, heavier on one side."""
    lean = rng.uniform(0, 0.06)
    toward_y, toward_x = _polar(lean, rng.uniform(0, 2 * np.pi))
    tilt = np.clip(1 + np.float32(toward_y) * grid.y + np.float32(toward_x) * grid.x, 0.3, 1.7)
    return body.cover * (0.35 + 0.65 * body.thickness) * tilt


def _membrane(body: _Form, nucleus: _Form, grid: Grid, rng: np.random.Generator) -> Plane:
    """CD45: a sphere's surface seen from above, so a bright patchy rim."""
    patches = np.maximum(1 + 0.25 * window(chromatin(grid.pixel_um, 0.8), grid.shape, rng), 0.2)
    return body.cover * (0.45 + 0.85 * np.exp(-(((body.thickness - 0.45) / 0.28) ** 2))) * patches


_PAINTS = {"ck": _keratin, "vim": _vimentin, "cd45": _membrane}
