"""Commands that look at something without making a run: segment, inspect, models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import result
from ctc_imaging.cli.segment import segment

Slide = Annotated[Path, typer.Argument(metavar="SLIDE", help="A file or folder.", show_default=False)]


def register(app: options.App) -> None:
    """Add the commands."""
    app.command(epilog="Example: ctc-imaging segment dapi.png labels.tif --pixel-size 0.5")(segment)
    app.command(epilog="Example: ctc-imaging inspect slide.ome.tif --panel emt-4")(inspect)
    app.command(epilog="Example: ctc-imaging models")(models)


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
