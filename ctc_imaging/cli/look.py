"""Commands that look at something without making a run: segment, inspect, models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result

Image = Annotated[Path, typer.Argument(metavar="IMAGE", help="TIFF, PNG or JPEG, nuclei bright.", show_default=False)]
Labels = Annotated[Path, typer.Argument(metavar="LABELS.tif", help="Where the labels go.", show_default=False)]
Channel = Annotated[int | None, typer.Option(metavar="N", help="Channel of the nuclei, counted from 0.")]
Slide = Annotated[Path, typer.Argument(metavar="SLIDE", help="A file or folder.", show_default=False)]


def register(app: options.App) -> None:
    """Add the commands."""
    app.command(epilog="Example: ctc-imaging segment dapi.png labels.tif --pixel-size 0.5")(segment)
    app.command(epilog="Example: ctc-imaging inspect slide.ome.tif --panel emt-4")(inspect)
    app.command(epilog="Example: ctc-imaging models")(models)


def segment(
    image: Image,
    labels: Labels,
    channel: Channel = None,
    pixel_size: options.PixelSize = None,
    as_json: options.AsJson = False,
) -> None:
    """Write the nuclei of one image as a label map (uint32)."""
    from ctc_imaging.cli.planes import check_labels_path, read_plane, write_labels
    from ctc_imaging.segmentation import segment_nuclei

    check_labels_path(labels)
    plane = read_plane(image, channel or 0, pixel_size)
    if channel is None and plane.channels > 1:
        note(f"{image} has {plane.channels} channels: 0 is used, --channel chooses another")
    found = segment_nuclei(plane.pixels, plane.pixel_size_um)
    write_labels(labels, found, plane.pixel_size_um)
    facts = {
        "labels": labels,
        "nuclei": int(found.max(initial=0)),
        "channel": plane.channel,
        "pixel_size_um": plane.pixel_size_um,
    }
    result(facts, f"{facts['nuclei']} nuclei\n{labels}", as_json)


def inspect(
    slide: Slide,
    panel: options.Panel = None,
    pixel_size: options.PixelSize = None,
    config: options.Config = None,
    as_json: options.AsJson = False,
) -> None:
    """Say what the reader sees of a slide.

    Axes, scale, roles, quality, warnings.
    """
    import yaml

    from ctc_imaging.config import load_settings
    from ctc_imaging.inspection import inspect_slide
    from ctc_imaging.panel import load_panel

    settings = load_settings(config, panel=panel)
    seen = inspect_slide(slide, load_panel(settings.panel), pixel_size)
    # The map of assessed blocks is for programs: a line a row would push all else off the screen.
    quality = seen["quality"] and {name: value for name, value in seen["quality"].items() if name != "blocks_ok"}
    text = yaml.safe_dump({**seen, "quality": quality}, sort_keys=False, allow_unicode=True)
    result(seen, text.rstrip(), as_json)


def models(as_json: options.AsJson = False) -> None:
    """List the classifiers that can be used."""
    from ctc_imaging.classification import list_models
    from ctc_imaging.classification.model import description_hash, read_description

    found = [
        {"name": name, "hash": description_hash(read_description(folder)), "folder": str(folder)}
        for name, folder in list_models().items()
    ]
    lines = [f"{model['name']}  {model['hash'][:12]}  {model['folder']}" for model in found]
    result({"models": found}, "\n".join(lines) or "no models found", as_json)
