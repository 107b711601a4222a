"""What the network has to say about a labelled crop."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from ctc_imaging.segmentation.network import OFFSET_UNIT_PX

GAP_WEIGHT = 6.0
"""How much a pixel between two near nuclei counts: few, and all that keeps them apart."""


def targets_of(labels: np.ndarray, ignore: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn labels into the network's maps.

    Parameters
    ----------
    labels : int32 ndarray, shape (h, w)
    ignore : bool ndarray, shape (h, w)

    Returns
    -------
    maps : float32 ndarray, shape (4, h, w)
        Foreground 0 or 1, depth 0 to 1, step to the centre in rows and columns in `OFFSET_UNIT_PX`.
    weight : float32 ndarray, shape (h, w)
        How much a pixel counts.
    """
    inside = labels > 0
    depth = _depth(labels)
    offsets = _offsets(labels, depth)
    weight = np.where(_gaps(labels), np.float32(GAP_WEIGHT), np.float32(1))
    weight[ignore & ~inside] = 0
    maps = np.stack([inside.astype(np.float32), depth, *offsets])
    return maps.astype(np.float32), weight


def _depth(labels: np.ndarray) -> np.ndarray:
    inner = (labels > 0).astype(np.uint8)
    inner[:-1][labels[:-1] != labels[1:]] = 0
    inner[1:][labels[:-1] != labels[1:]] = 0
    inner[:, :-1][labels[:, :-1] != labels[:, 1:]] = 0
    inner[:, 1:][labels[:, :-1] != labels[:, 1:]] = 0
    distance = cv2.distanceTransform(inner, cv2.DIST_L2, 5) + 0.5
    count = int(labels.max())
    deepest = np.ones(count + 1, np.float32)
    if count:
        deepest[1:] = np.maximum(ndimage.maximum(distance, labels, np.arange(1, count + 1)), 1.0)
    return np.where(labels > 0, distance / deepest[labels], 0).astype(np.float32)


def _offsets(labels: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step from each pixel to where its nucleus is deepest."""
    rows, columns = np.indices(labels.shape, np.float32)
    mass = (depth**4).ravel().astype(np.float64)
    flat = labels.ravel()
    total = np.maximum(np.bincount(flat, mass), 1e-9)
    steps = []
    for place in (rows, columns):
        centre = np.bincount(flat, mass * place.ravel()) / total
        steps.append(np.where(labels > 0, centre[labels] - place, 0) / OFFSET_UNIT_PX)
    return steps[0], steps[1]


def _gaps(labels: np.ndarray) -> np.ndarray:
    """Background within two pixels of two nuclei."""
    window = np.ones((5, 5), np.uint8)
    values = labels.astype(np.float32)
    far = np.float32(labels.max() + 1)
    highest = cv2.dilate(values, window)
    lowest = cv2.erode(np.where(labels > 0, values, far), window)
    return (labels == 0) & (highest > 0) & (lowest < far) & (highest != lowest)
