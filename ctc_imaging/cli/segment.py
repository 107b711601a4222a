"""The command segment: nuclei of one image of any microscope as a label map."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result
from ctc_imaging.errors import ConfigError, SegmentationError

if TYPE_CHECKING:
    import numpy as np

Image = Annotated[
    Path, typer.Argument(metavar="IMAGE", help="TIFF, PNG, JPEG or any slide; nuclei bright.", show_default=False)
]
Labels = Annotated[Path, typer.Argument(metavar="LABELS.tif", help="Where the labels go.", show_default=False)]
Channel = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Channel of the nuclei, counted from 0; by default the nuclear stain's by its name."
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(metavar="UM", help="Side of a pixel in um; by default as the file says, else estimated."),
]
NucleusModel = Annotated[
    str, typer.Option(metavar="NAME", help="A nucleus network, or classical, which needs no weights.")
]


def segment(
    image: Image,
    labels: Labels,
    channel: Channel = None,
    pixel_size: PixelSize = None,
    model: NucleusModel = "nuclei",
    as_json: options.AsJson = False,
) -> None:
    """Write the nuclei of one image as a label map (uint32)."""
    from ctc_imaging.plane import check_target, choose_scale, read_plane, write_labels

    _check_pixel_size(pixel_size)
    check_target(labels, [image])
    plane = read_plane(image, channel)
    check_target(labels, plane.files)
    scale_um, remark = choose_scale(image, plane.pixel_size_um, pixel_size)
    for said in (*plane.warnings, *([remark] if remark else [])):
        note(said)
    found, guess_um = _segment(image, plane.pixels, scale_um, model)
    write_labels(labels, found, scale_um)
    facts = {
        "labels": labels,
        "nuclei": int(found.max(initial=0)),
        "channel": plane.channel,
        "channel_name": plane.channel_name,
        "pixel_size_um": guess_um if scale_um is None else scale_um,
        "pixel_size_from": "option" if pixel_size else "file" if scale_um else "estimate" if guess_um else None,
        "model": model,
    }
    result(facts, f"{facts['nuclei']} nuclei, {_scale(facts)}\n{labels}", as_json)


def _check_pixel_size(pixel_size_um: float | None) -> None:
    from ctc_imaging.readers.base import MAX_PIXEL_SIZE_UM, MIN_PIXEL_SIZE_UM, is_plausible_pixel_size

    if pixel_size_um is not None and not is_plausible_pixel_size(pixel_size_um):
        raise ConfigError(
            "--pixel-size",
            f"{pixel_size_um:g} µm isn't a pixel of a light microscope",
            f"give micrometres, between {MIN_PIXEL_SIZE_UM:g} and {MAX_PIXEL_SIZE_UM:g}",
        )


def _segment(
    image: Path, pixels: np.ndarray, pixel_size_um: float | None, model: str
) -> tuple[np.ndarray, float | None]:
    """Segment a plane; return the labels and the scale that was estimated, if one was.

    Warnings become notes, and errors name the image.
    """
    from ctc_imaging.segmentation import segment_nuclei

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        try:
            labels = segment_nuclei(pixels, pixel_size_um, model)
        except SegmentationError as error:
            raise SegmentationError(image, error.fault, error.remedy) from error
        except MemoryError as error:
            remedy = "cut out a part, or use a machine with more"
            raise SegmentationError(image, "not enough memory to segment it in one piece", remedy) from error
    for warning in told:
        note(str(warning.message))
    guesses = (getattr(warning.message, "pixel_size_um", None) for warning in told)
    return labels, next((guess for guess in guesses if guess), None)


def _scale(facts: dict[str, Any]) -> str:
    """Say for a person at which scale nuclei were looked for, and who told it."""
    told = {"option": "as given", "file": "as the file says", "estimate": "estimated from the image"}
    size_um, source = facts["pixel_size_um"], told.get(facts["pixel_size_from"])
    return "scale unknown" if size_um is None else f"{size_um:.3g} µm a pixel, {source}"
