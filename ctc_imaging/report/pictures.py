"""Pixels for the page: overviews of slides and strips of called CTCs, as small embedded JPEGs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import ArrayLike, NDArray

QUALITY = 88
ENLARGE = 2  # crops are shown at twice their pixels, so that JPEG blocks stay small beside a cell
GAP_PX = 3
BAR_UM = 10.0


def thumbnail(path: Path, width_px: int = 160) -> str | None:
    """Shrink a picture file to a data URI no wider than `width_px`; None where it is missing or unreadable."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
    if image is None:
        return None
    scale = min(1.0, width_px / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return data_uri(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def whole_picture(path: Path) -> str | None:
    """Embed a drawing as it is, as a lossless WebP data URI: a fifth of its PNG; None where it can't be read."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if image is None:
        return None
    _, encoded = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def strip(
    crop: NDArray[np.uint16], low: ArrayLike, high: ArrayLike, colours: Sequence[str], pixel_size_um: float
) -> NDArray[np.uint8]:
    """Lay out one cell as its composite and then each channel in its own colour, each with a scale bar.

    Parameters
    ----------
    crop : ndarray, shape (C, Y, X), uint16
        Raw pixels.
    low, high : array_like, shape (C,)
        Contrast limits: black at `low`, full colour at `high`.
    colours : sequence of str, length C
        Colours of the channels, ``#rrggbb``.
    pixel_size_um : float
        Length of a pixel's side.

    Returns
    -------
    ndarray, shape (2 Y, (C + 1) 2 X + gaps, 3), uint8
        Red, green, blue.
    """
    tiles = channel_tiles(crop, low, high, colours)
    tiles = np.concatenate([np.clip(tiles.sum(0, keepdims=True), 0, 1), tiles])
    size = (crop.shape[2] * ENLARGE, crop.shape[1] * ENLARGE)
    pictures = [np.clip(cv2.resize(tile, size, interpolation=cv2.INTER_CUBIC), 0, 1) for tile in tiles]
    bytes_ = [draw_bar(np.rint(picture * 255).astype(np.uint8), pixel_size_um / ENLARGE) for picture in pictures]
    gap = np.full((size[1], GAP_PX, 3), 255, np.uint8)
    return np.concatenate([part for picture in bytes_ for part in (gap, picture)][1:], axis=1)


def channel_tiles(
    crop: NDArray[np.uint16], low: ArrayLike, high: ArrayLike, colours: Sequence[str]
) -> NDArray[np.float32]:
    """Colour each channel between its contrast limits: (C, Y, X) counts to (C, Y, X, 3) in 0 to 1."""
    floor, ceiling = (np.asarray(limit, dtype=np.float32)[:, None, None] for limit in (low, high))
    shown = np.clip((crop.astype(np.float32) - floor) / np.maximum(ceiling - floor, 1.0), 0, 1)
    return (shown[..., None] * np.array([to_rgb(colour) for colour in colours], np.float32)[:, None, None, :]).astype(
        np.float32
    )


def draw_bar(picture: NDArray[np.uint8], pixel_size_um: float) -> NDArray[np.uint8]:
    """Draw a white bar of 10 µm into the lower right corner, in place."""
    length = round(BAR_UM / pixel_size_um)
    picture[-8:-5, -6 - length : -6] = 255
    return picture


def data_uri(picture: NDArray[np.uint8]) -> str:
    """Encode a red, green, blue picture as a JPEG data URI with full colour resolution."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
