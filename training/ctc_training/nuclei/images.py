"""Labelled images of nuclei, real and simulated, brought to one size of nucleus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import tifffile

from ctc_imaging.errors import ModelError

BASE_DIAMETER_PX = 24.0
"""Median diameter of a nucleus in the images as they are kept; augmentation shrinks or grows them from here."""

SIMULATED_SETTINGS = ("standard", "dense", "weak-stain", "dying", "defocus")


@dataclass(frozen=True)
class LabelledImage:
    """One plane with its nuclei.

    Attributes
    ----------
    name : str
    source : str
        What it shares its look with: never part images of one source between training and validation.
    image : float32 ndarray, shape (Y, X)
    labels : int32 ndarray, shape (Y, X)
    ignore : bool ndarray, shape (Y, X)
        Where the truth isn't known.
    """

    name: str
    source: str
    image: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray

    @property
    def diameter_px(self) -> float:
        """Median diameter of the circles with the areas of the nuclei."""
        areas = np.bincount(self.labels.ravel())[1:]
        areas = areas[areas > 0]
        return float(np.sqrt(4 / np.pi * np.median(areas))) if len(areas) else BASE_DIAMETER_PX


def read_dsb2018(folder: Path) -> list[LabelledImage]:
    """Read ``dsb2018_fluo``; a source is a cluster of look-alikes, or an image that looks like no other."""
    index = pd.read_csv(folder / "index.csv").sort_values("file")
    clusters = index["cluster"].fillna(index["file"])
    return [
        _read(folder, str(name), str(cluster), folder / "none")
        for name, cluster in zip(index["file"], clusters, strict=True)
    ]


def read_sbsst265(folder: Path) -> list[LabelledImage]:
    """Read ``sbsst265_cytospin``, in the order of its index; every image is a source of its own."""
    index = pd.read_csv(folder / "index.csv")
    return [_read(folder, name, name, folder / "ignore" / f"{name}.png") for name in index["file"]]


def _read(folder: Path, name: str, source: str, ignore: Path) -> LabelledImage:
    image = _grey(folder / "images" / f"{name}.png").astype(np.float32)
    labels = tifffile.imread(folder / "labels" / f"{name}.tif").astype(np.int32)
    mask = _grey(ignore) > 0 if ignore.is_file() else np.zeros(labels.shape, bool)
    return LabelledImage(name, source, image, labels, mask)


def _grey(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ModelError(path, "can't be read as a picture", "copy the labelled images anew")
    return np.asarray(pixels)


def simulate_images(seeds: Iterable[int], shape_px: tuple[int, int] = (768, 768)) -> list[LabelledImage]:
    """Simulate DAPI planes of blood, settings in turn, with the nuclei that were drawn."""
    from ctc_imaging.simulation import simulate_slide

    images = []
    for seed in seeds:
        setting = SIMULATED_SETTINGS[seed % len(SIMULATED_SETTINGS)]
        density = (120, 280, 480)[seed // len(SIMULATED_SETTINGS) % 3]
        leukocytes = round(density * shape_px[0] * shape_px[1] / 768**2)
        slide = simulate_slide(shape_px, ctc=leukocytes // 12, leukocytes=leukocytes, setting=setting, seed=seed)
        plane = slide.image[slide.channel_names.index("DAPI")].astype(np.float32)
        unknown = np.zeros(plane.shape, bool)
        images.append(LabelledImage(f"simulated {setting} {seed}", "simulated", plane, slide.nuclei, unknown))
    return images


def held_out(images: Iterable[LabelledImage], step: int = 4) -> set[str]:
    """Return every `step`-th of the clusters, sorted by name, from the first."""
    return set(sorted({item.source for item in images if item.source != item.name})[::step])


def rescaled(item: LabelledImage, diameter_px: float = BASE_DIAMETER_PX) -> LabelledImage:
    """Resample an image so that its median nucleus has a diameter."""
    ratio = diameter_px / item.diameter_px
    size = max(round(item.image.shape[1] * ratio), 32), max(round(item.image.shape[0] * ratio), 32)
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    return LabelledImage(
        item.name,
        item.source,
        cv2.resize(item.image, size, interpolation=method),
        cv2.resize(item.labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.int32),
        cv2.resize(item.ignore.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0,
    )
