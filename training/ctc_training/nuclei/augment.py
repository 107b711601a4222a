"""Crops for training: turned, scaled, crowded, blurred, hazed, noisy, saturated, in any unit."""

from __future__ import annotations

import cv2
import numpy as np

from ctc_imaging.segmentation.background import level_and_noise
from ctc_training.nuclei.images import BASE_DIAMETER_PX, LabelledImage

CROP_PX = 160
DIAMETERS_PX = (9.0, 34.0)
"""Median nuclei of a crop are drawn between these, evenly on a logarithmic scale."""

GENTLE_DIAMETERS_PX = (13.0, 26.0)
"""The same for gentle crops: what an image is brought to before a finder sees it, and its errors."""

Patch = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_crop(item: LabelledImage, rng: np.random.Generator, gentle: bool = False) -> Patch:
    """Draw one training crop.

    Parameters
    ----------
    item : LabelledImage
        At `BASE_DIAMETER_PX`.
    rng : Generator
    gentle : bool
        Nearer to the image as it is: for the end of training, when outlines are sharpened.

    Returns
    -------
    signal : float32 ndarray, shape (160, 160)
        Stain over background in noise units, as in use.
    labels : int32 ndarray, shape (160, 160)
    ignore : bool ndarray, shape (160, 160)
    """
    diameter_px = float(np.exp(rng.uniform(*np.log(GENTLE_DIAMETERS_PX if gentle else DIAMETERS_PX))))
    image, labels, ignore = _warp(item, diameter_px, rng)
    image = image - np.float32(np.percentile(image, 5))
    bright = float(np.percentile(image[labels > 0], 90)) if (labels > 0).any() else float(image.max())
    image = image / np.float32(max(bright, 1e-6))
    if gentle and rng.random() < 0.6:
        return _in_noise_units(image.astype(np.float32), rng), labels, ignore
    if rng.random() < 0.35:
        image, labels = _crowd(image, labels, item, diameter_px, rng)
    if rng.random() < 0.4:
        image = _uneven_stain(image, labels, rng)
    image = _photograph(image, diameter_px, rng)
    return _in_noise_units(image, rng), labels, ignore


def _warp(item: LabelledImage, diameter_px: float, rng: np.random.Generator) -> Patch:
    """Cut a crop at a random place, angle, mirror image and slight shear."""
    zoom = diameter_px / BASE_DIAMETER_PX
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.7 else rng.integers(4) * np.pi / 2
    stretch = np.exp(rng.normal(0, 0.08))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([stretch, 1 / stretch]) @ np.diag([rng.choice([-1, 1]), 1]) / zoom
    centre = _centre(item, rng)
    half = np.array([CROP_PX / 2, CROP_PX / 2])
    affine = np.column_stack([matrix, centre - matrix @ half])
    image = item.image
    if zoom < 0.8:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 / zoom)
    size, inverse = (CROP_PX, CROP_PX), cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REFLECT_101
    warped = cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR | inverse, borderMode=border)
    labels = cv2.warpAffine(
        item.labels.astype(np.float32), affine, size, flags=cv2.INTER_NEAREST | inverse, borderMode=border
    )
    # What the mirror shows beyond the image's edge is seen, but teaches nothing: its nuclei are cut in two.
    known = cv2.warpAffine(
        (~item.ignore).astype(np.uint8), affine, size, flags=cv2.INTER_NEAREST | inverse, borderMode=cv2.BORDER_CONSTANT
    )
    outside = (
        cv2.warpAffine(
            np.ones_like(item.ignore, np.uint8),
            affine,
            size,
            flags=cv2.INTER_NEAREST | inverse,
            borderMode=cv2.BORDER_CONSTANT,
        )
        == 0
    )
    return warped, np.where(outside, 0, np.rint(labels).astype(np.int32)), known == 0


def _centre(item: LabelledImage, rng: np.random.Generator) -> np.ndarray:
    """Centre (x, y) of a crop; mostly on a nucleus, for much of a slide is empty."""
    if rng.random() < 0.7:
        for _ in range(20):
            y, x = rng.integers(item.labels.shape[0]), rng.integers(item.labels.shape[1])
            if item.labels[y, x]:
                return np.array([x, y], float) + rng.normal(0, 0.3 * BASE_DIAMETER_PX, 2)
    return np.array([rng.uniform(0, side) for side in item.labels.shape[::-1]])


def _crowd(
    image: np.ndarray, labels: np.ndarray, item: LabelledImage, diameter_px: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lay nuclei of another crop of the same image among those that are there, touching or overlapping a little."""
    other, donors, _ = _warp(item, diameter_px * float(np.exp(rng.normal(0, 0.15))), rng)
    other = other - np.float32(np.percentile(other, 5))
    bright = float(np.percentile(other[donors > 0], 90)) if (donors > 0).any() else 0.0
    if bright <= 0:
        return image, labels
    other = other / np.float32(bright) * np.float32(np.exp(rng.normal(0, 0.3)))
    image, labels = image.copy(), labels.copy()
    area = np.bincount(labels.ravel())
    next_label = int(labels.max()) + 1
    for donor in np.unique(donors[donors > 0])[:60]:
        mask = donors == donor
        covered = np.bincount(labels[mask], minlength=len(area))
        covered[0] = 0
        if covered.sum() > 0.3 * mask.sum() or (covered > 0.25 * np.maximum(area, 1)).any():
            continue
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
        image = np.maximum(image, soft * other) if rng.random() < 0.5 else image + soft * other
        labels[mask] = next_label
        area = np.bincount(labels.ravel())
        next_label += 1
    return image.astype(np.float32), labels


def _uneven_stain(image: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make some nuclei brighter than others."""
    gains = np.exp(rng.normal(0, rng.uniform(0.1, 0.6), int(labels.max()) + 1)).astype(np.float32)
    gains[0] = 1
    return image * cv2.GaussianBlur(gains[labels], (0, 0), 0.7)


def _photograph(image: np.ndarray, diameter_px: float, rng: np.random.Generator) -> np.ndarray:
    """Blur, haze, uneven light, noise, saturation, quantisation; `image` is 1 on a bright nucleus."""
    if rng.random() < 0.25:
        image = np.maximum(image, 0) ** np.float32(rng.uniform(0.6, 1.6))
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.02, 0.11) * diameter_px)
    if rng.random() < 0.15:
        soft = cv2.GaussianBlur(image, (0, 0), 1.0)
        image = image + np.float32(rng.uniform(0.3, 1.2)) * (image - soft)
    if rng.random() < 0.35:
        haze = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5) * diameter_px)
        image = image + np.float32(rng.uniform(0.1, 0.7)) * haze
    if rng.random() < 0.4:
        image = image + np.float32(rng.uniform(0.02, 0.4)) * _field(rng)
    if rng.random() < 0.3:
        image = image * (1 - np.float32(rng.uniform(0.1, 0.6)) * _field(rng))
    if rng.random() < 0.75:
        noise = np.exp(rng.uniform(np.log(0.004), np.log(0.25)))
        grain = rng.standard_normal(image.shape, dtype=np.float32)
        if rng.random() < 0.25:
            grain = cv2.GaussianBlur(grain, (0, 0), 0.7) * 2.3
        image = image + grain * np.float32(noise) * np.sqrt(0.3 + np.maximum(image, 0), dtype=np.float32)
    if rng.random() < 0.2:
        image = np.minimum(image, np.float32(rng.uniform(0.4, 1.0)))
    if rng.random() < 0.4:
        steps = np.float32(np.exp(rng.uniform(np.log(12), np.log(255))))
        image = np.rint(image * steps) / steps
    return image.astype(np.float32)


def _field(rng: np.random.Generator) -> np.ndarray:
    """Return a smooth field from 0 to 1."""
    coarse = rng.random((4, 4), dtype=np.float32)
    field = cv2.resize(coarse, (CROP_PX, CROP_PX), interpolation=cv2.INTER_CUBIC)
    return (field - field.min()) / max(float(np.ptp(field)), 1e-6)


def _in_noise_units(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    level, noise = level_and_noise(image[::2, ::2])
    noise = max(noise, 1e-3 * float(np.ptp(image)), 1e-6)
    # In use both are estimates, and a slide's or an image's, not a crop's.
    level += noise * rng.normal(0, 0.7)
    noise *= float(np.exp(rng.normal(0, 0.5)))
    return ((image - np.float32(level)) / np.float32(noise)).astype(np.float32)
