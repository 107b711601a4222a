"""Ordinary images in and label images out, for the command `segment`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctc_imaging.errors import ConfigError, SlideError
from ctc_imaging.files import atomic_path

if TYPE_CHECKING:
    import numpy as np

_UM_PER_CM = 1e4
_TIFF = (".tif", ".tiff")


@dataclass(frozen=True)
class Plane:
    """One channel of an image: pixels (Y, X), which of how many, and the side of a pixel where it is known."""

    pixels: np.ndarray
    channel: int
    channels: int
    pixel_size_um: float | None


def read_plane(path: Path, channel: int, pixel_size_um: float | None) -> Plane:
    """Read one channel of a TIFF, PNG, JPEG or whatever else OpenCV reads.

    Parameters
    ----------
    path : Path
    channel : int
        Counted from 0; of a colour picture 0 is red.
    pixel_size_um : float or None
        For files that don't tell.

    Returns
    -------
    Plane

    Raises
    ------
    SlideError
        If the file can't be read.
    ConfigError
        If it has no such channel.
    """
    from ctc_imaging.slide import open_slide

    if path.suffix.lower() not in _TIFF and not path.is_dir():
        picture = _read_picture(path)
        channels = picture.shape[2]
        _check_channel(path, channel, channels)
        return Plane(picture[:, :, channel], channel, channels, pixel_size_um)
    with open_slide(path, pixel_size_um) as slide:
        channels, height, width = slide.shape
        _check_channel(path, channel, channels)
        return Plane(slide.read([channel], 0, height, 0, width)[0], channel, channels, slide.pixel_size_um)


def write_labels(path: Path, labels: np.ndarray, pixel_size_um: float | None) -> None:
    """Write a label image as a TIFF of uint32, with its resolution where it is known.

    Raises
    ------
    ConfigError
        If the path isn't named .tif or .tiff.
    """
    import tifffile

    check_labels_path(path)
    resolution = None if pixel_size_um is None else (_UM_PER_CM / pixel_size_um, _UM_PER_CM / pixel_size_um)
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            labels.astype("uint32", copy=False),
            compression="zlib",
            resolution=resolution,
            resolutionunit=None if resolution is None else "CENTIMETER",
            metadata={"axes": "YX"},
        )


def check_labels_path(path: Path) -> None:
    """Check that a path can be a label image's.

    Raises
    ------
    ConfigError
        If it isn't named .tif or .tiff.
    """
    if path.suffix.lower() not in _TIFF:
        raise ConfigError(path, "labels are written as TIFF", "name the file .tif")


def _read_picture(path: Path) -> np.ndarray:
    import cv2
    import numpy as np

    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError as error:
        raise SlideError(path, "no such file", "check the path") from error
    picture = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    if picture is None:
        raise SlideError(path, "not an image that can be read", "use TIFF, PNG or JPEG")
    # OpenCV has colours as blue, green, red, and an alpha channel last.
    return picture[:, :, None] if picture.ndim == 2 else picture[:, :, 2::-1]


def _check_channel(path: Path, channel: int, channels: int) -> None:
    if not 0 <= channel < channels:
        raise ConfigError("--channel", f"{path} has no channel {channel}", f"use 0 to {channels - 1}")
