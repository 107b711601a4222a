"""Crops as they are kept: half precision, masks in 255ths, and a hash that tells the same image again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ctc_imaging.classification.crops import CROP_PX, ROLES, CropBatch

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class CropArrays:
    """Crops of some cells.

    Attributes
    ----------
    roles : ndarray of float16, shape (n, 4, 48, 48)
    masks : ndarray of uint8, shape (n, 2, 48, 48)
        In 255ths.
    present : ndarray of float32, shape (n, 4)
    snr : ndarray of float32, shape (n, 3)
        True signal-to-noise of the markers; NaN where unknown.
    """

    roles: np.ndarray
    masks: np.ndarray
    present: np.ndarray
    snr: np.ndarray

    def __len__(self) -> int:
        return len(self.roles)


def stack(batches: Iterable[CropBatch], cell_ids: Sequence[int] | np.ndarray) -> CropArrays:
    """Stack batches of one slide in the order of the given cells, with nothing known of their markers."""
    batches = list(batches)
    if not batches:
        return empty()
    found = np.concatenate([batch.cell_ids for batch in batches])
    order = np.argsort(found)[np.searchsorted(np.sort(found), np.asarray(cell_ids, np.int64))]
    roles = np.concatenate([batch.roles.clip(-_LARGEST, _LARGEST).astype(np.float16) for batch in batches])
    masks = np.concatenate([(batch.masks * 255).round().astype(np.uint8) for batch in batches])
    present = np.tile(batches[0].present.astype(np.float32), (len(order), 1))
    snr = np.full((len(order), len(ROLES) - 1), np.nan, np.float32)
    return CropArrays(roles[order], masks[order], present, snr)


def empty() -> CropArrays:
    """Return no crops at all."""
    side = (CROP_PX, CROP_PX)
    return CropArrays(
        np.empty((0, len(ROLES), *side), np.float16),
        np.empty((0, 2, *side), np.uint8),
        np.empty((0, len(ROLES)), np.float32),
        np.empty((0, len(ROLES) - 1), np.float32),
    )


def image_hashes(roles: np.ndarray) -> list[str]:
    """SHA-256 of each crop's pixels, as hex."""
    return [hashlib.sha256(np.ascontiguousarray(crop).data).hexdigest() for crop in roles]
