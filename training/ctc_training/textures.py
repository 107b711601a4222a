"""Real nuclei for simulated cells: their shape and chromatin, cut from labelled images and scaled to the cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from ctc_imaging.simulation.shapes import Grid, Plane
from ctc_training.nuclei.build import read_sources
from ctc_training.nuclei.images import LabelledImage

LEAST_DIAMETER_PX = 14.0
"""A nucleus of 7 um at the scale of crops: smaller ones would bring no more than a blob."""

LEAST_CONTRAST = 2.0
"""Mean of a nucleus over its surroundings, in units of their spread."""

MARGIN_PX = 3
SHARE = 0.7
"""Share of a slide's nuclei that are real; the others stay the simulator's, lobed and kidney-shaped ones too."""


@dataclass(frozen=True)
class RealNucleus:
    """One nucleus: how much of each pixel it covers, its stain there (mean 1), and the radius of its area."""

    cover: Plane
    stain: Plane
    radius_px: float


@dataclass(frozen=True)
class NucleusBank:
    """Real nuclei to draw from; takes the part of a `NucleusSource` in the simulator.

    Attributes
    ----------
    nuclei : tuple of RealNucleus
    images_sha256 : str
        Of the images they were cut from.
    share : float
        Share of nuclei that are drawn from here.
    """

    nuclei: tuple[RealNucleus, ...]
    images_sha256: str
    share: float = SHARE

    def draw(
        self, radius_um: float, centre_um: tuple[float, float], grid: Grid, rng: np.random.Generator
    ) -> tuple[Plane, Plane] | None:
        """Draw a nucleus of the area of a circle, turned and flipped at random; None where the simulator's own stays.

        Parameters
        ----------
        radius_um : float
        centre_um : tuple of float
        grid : Grid
        rng : numpy.random.Generator

        Returns
        -------
        cover, stain : ndarray of float32, in the grid's shape
        """
        if rng.random() >= self.share:
            return None
        nucleus = self.nuclei[int(rng.integers(len(self.nuclei)))]
        turn, flip = rng.uniform(0, 2 * np.pi), rng.choice([-1.0, 1.0])
        to_px = nucleus.radius_px / radius_um
        y, x = (grid.y - centre_um[0]) * to_px, (grid.x - centre_um[1]) * to_px
        middle_y, middle_x = ((side - 1) / 2 for side in nucleus.cover.shape)
        rows = (middle_y + np.sin(turn) * x + np.cos(turn) * y).astype(np.float32)
        columns = (middle_x + flip * (np.cos(turn) * x - np.sin(turn) * y)).astype(np.float32)
        # Where a nucleus has more pixels than the grid, what is between the grid's would be passed over.
        blur = 0.5 * to_px * grid.pixel_um
        planes = (nucleus.cover, nucleus.stain)
        if blur > 1:
            planes = tuple(cv2.GaussianBlur(plane, (0, 0), blur / 2) for plane in planes)
        cover, stain = (cv2.remap(plane, columns, rows, cv2.INTER_LINEAR) for plane in planes)
        return cover, stain


def read_bank(images: Path) -> NucleusBank:
    """Cut the nuclei of labelled images (``dsb2018_fluo`` and ``sbsst265_cytospin`` in a folder).

    Raises
    ------
    ModelError
        If a folder isn't there.
    """
    from ctc_imaging.files import sha256_json

    cultured, cytospins = read_sources(images)
    nuclei = tuple(cut_nuclei([*cultured, *cytospins]))
    return NucleusBank(nuclei, sha256_json([(n.cover.shape, float(n.stain.sum()), n.radius_px) for n in nuclei]))


def cut_nuclei(images: Iterable[LabelledImage]) -> Iterable[RealNucleus]:
    """Yield the nuclei that are large and clear enough and that no edge cuts, neighbours taken out."""
    for item in images:
        for label, place in enumerate(ndimage.find_objects(item.labels), 1):
            if place is not None and (nucleus := _cut(item, label, place)) is not None:
                yield nucleus


def _cut(item: LabelledImage, label: int, place: tuple[slice, slice]) -> RealNucleus | None:
    rows, columns = (slice(part.start - MARGIN_PX, part.stop + MARGIN_PX) for part in place)
    height, width = item.labels.shape
    if rows.start < 0 or columns.start < 0 or rows.stop > height or columns.stop > width:
        return None
    own, free = item.labels[rows, columns] == label, item.labels[rows, columns] == 0
    radius_px = float(np.sqrt(own.sum() / np.pi))
    if 2 * radius_px < LEAST_DIAMETER_PX or free.sum() < 20 or item.ignore[rows, columns].any():
        return None
    image = item.image[rows, columns].astype(np.float32)
    ground = float(np.median(image[free]))
    stain = np.where(own, np.maximum(image - ground, 0), 0).astype(np.float32)
    mean = float(stain[own].mean())
    if mean < LEAST_CONTRAST * float(image[free].std() + 1):
        return None
    return RealNucleus(own.astype(np.float32), stain / np.float32(mean), radius_px)
