"""One plane of any microscope image in, its label map out."""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctc_imaging.errors import ConfigError, SlideError
from ctc_imaging.files import atomic_path
from ctc_imaging.panel import Role, load_panel, shipped_panels
from ctc_imaging.pictures import COLOURS, Picture, check_size, is_picture, read_picture
from ctc_imaging.slide import PIXEL_SIZE_TOLERANCE, open_slide

_UM_PER_CM = 1e4


@dataclass(frozen=True)
class Plane:
    """One channel of an image.

    Attributes
    ----------
    pixels : ndarray, shape (Y, X)
        Of any integer or floating type.
    channel : int
        Which of the image's it is, counted from 0.
    channel_name : str or None
    pixel_size_um : float or None
        As the file tells.
    files : tuple of Path
        All files that the image lies in.
    warnings : tuple of str
        What is odd about the image, but readable.
    """

    pixels: NDArray
    channel: int
    channel_name: str | None
    pixel_size_um: float | None
    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()


def read_plane(path: Path, channel: int | None = None) -> Plane:
    """Read one channel of a picture (PNG, JPEG, BMP, any TIFF) or of a slide in any format that `open_slide` knows.

    Parameters
    ----------
    path : Path
    channel : int, optional
        Counted from 0; of a colour picture 0 is red. By default the only one, that with the name of a nuclear
        stain, or any of three colours that are all the same.

    Returns
    -------
    Plane

    Raises
    ------
    SlideError
        If the image is missing, damaged, or too large to be held whole.
    ConfigError
        If it has no such channel, or none is given and it isn't plain which holds the nuclei.
    """
    if not path.exists():
        raise SlideError(path, "no such file or folder", "check the path")
    if is_picture(path):
        picture = read_picture(path)
        return _of_picture(path, picture, _colour_of_grey(picture) if channel is None else channel)
    with open_slide(path) as slide:
        _, height, width = slide.shape
        check_size(path, height, width)
        chosen = choose_channel(path, slide.channel_names, channel)
        name = slide.channel_names[chosen]
        pixels = slide.read([chosen], 0, height, 0, width)[0]
        return Plane(pixels, chosen, name, slide.pixel_size_um, slide.files, slide.warnings)


def choose_channel(path: Path, names: Sequence[str | None], channel: int | None) -> int:
    """Choose the channel of the nuclei.

    Parameters
    ----------
    path : Path
        The image, for error messages.
    names : sequence of (str or None)
        Of its channels.
    channel : int or None
        The one the user wants.

    Returns
    -------
    int
        Counted from 0.

    Raises
    ------
    ConfigError
        If there is no such channel, or none is given and not exactly one bears the name of a nuclear stain.
    """
    listed = ", ".join(f"{index} {name or '(no name)'}" for index, name in enumerate(names))
    if channel is not None:
        if not 0 <= channel < len(names):
            raise ConfigError(path, f"no channel {channel} among: {listed}", f"use --channel 0 to {len(names) - 1}")
        return channel
    nuclear = [index for index, name in enumerate(names) if len(names) == 1 or _is_nuclear(name or "")]
    if len(nuclear) == 1:
        return nuclear[0]
    several = "more than one" if nuclear else "none"
    raise ConfigError(path, f"of its channels {several} is named as a nuclear stain: {listed}", "choose by --channel")


def choose_scale(path: Path, found_um: float | None, given_um: float | None) -> tuple[float | None, str | None]:
    """Choose between the scale that a file tells and the one that the user gives, who is believed.

    Parameters
    ----------
    path : Path
        The image, for the remark.
    found_um, given_um : float or None

    Returns
    -------
    scale : float or None
        In µm per pixel.
    remark : str or None
        Where the two differ.
    """
    if given_um is None or found_um is None or math.isclose(given_um, found_um, rel_tol=PIXEL_SIZE_TOLERANCE):
        return given_um or found_um, None
    return given_um, f"{path} says {found_um:g} µm a pixel; --pixel-size {given_um:g} is used"


def check_target(path: Path, images: Sequence[Path]) -> None:
    """Check, before any work is done, that a label map can be written to a path, and harms no image there.

    Parameters
    ----------
    path : Path
    images : sequence of Path
        Files and folders to be left as they are.

    Raises
    ------
    ConfigError
        If it isn't named .tif or .tiff, is a folder, or is one of the images or within one.
    OSError
        If its folder can't be written to.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(path, "labels are written as TIFF", "name the file .tif")
    if path.is_dir():
        raise ConfigError(path, "a folder of this name is there", "choose another name for the labels")
    if any(path.resolve().is_relative_to(image.resolve()) for image in images):
        raise ConfigError(path, "the labels would overwrite or change the image", "choose another place for them")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ConfigError(path, f"{folder} isn't a folder", "choose another place for the labels")
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "permission denied", str(path))


def write_labels(path: Path, labels: NDArray, pixel_size_um: float | None) -> None:
    """Write a label map as a compressed TIFF of uint32, atomically.

    Parameters
    ----------
    path : Path
    labels : ndarray, shape (Y, X)
    pixel_size_um : float or None
        Becomes the TIFF's resolution where it is known.

    Raises
    ------
    OSError
        If the disk is full, fails or can't be written to; it names `path`.
    """
    import tifffile

    resolution = None if pixel_size_um is None else (_UM_PER_CM / pixel_size_um, _UM_PER_CM / pixel_size_um)
    try:
        with atomic_path(path) as temporary:
            tifffile.imwrite(
                temporary,
                labels.astype(np.uint32, copy=False),
                compression="zlib",
                resolution=resolution,
                resolutionunit=None if resolution is None else "CENTIMETER",
                metadata={"axes": "YX"},
            )
    except OSError as error:
        # The user knows nothing of the temporary file.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _of_picture(path: Path, picture: Picture, channel: int | None) -> Plane:
    chosen = choose_channel(path, picture.channel_names, channel)
    pixels, name = picture.pixels[chosen], picture.channel_names[chosen]
    return Plane(np.ascontiguousarray(pixels), chosen, name, picture.pixel_size_um, (path,))


def _colour_of_grey(picture: Picture) -> int | None:
    """Return the first colour of a picture whose three are the same."""
    if picture.channel_names != COLOURS:
        return None
    red, green, blue = picture.pixels
    return 0 if np.array_equal(red, green) and np.array_equal(red, blue) else None


def _is_nuclear(name: str) -> bool:
    """Tell whether a word of a channel's name is a nuclear stain's, as in ``Hoechst 33342`` or ``DAPI_405``."""
    words = re.findall(r"[a-z]+", name.lower())
    return not _nuclear_words().isdisjoint(words)


@cache
def _nuclear_words() -> frozenset[str]:
    """What shipped panels call their nuclear stain."""
    nuclear = [load_panel(name).channel(Role.NUCLEUS) for name in shipped_panels()]
    return frozenset(alias.lower() for channel in nuclear if channel for alias in (channel.short, *channel.aliases))
