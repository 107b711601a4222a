"""The arguments and options that commands share, so that each means the same everywhere, also in plug-ins."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctc_imaging.errors import ConfigError

App = typer.Typer

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A folder made by ctc-imaging run.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, all else elsewhere.")]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="Settings as YAML; options go before them.")]
Model = Annotated[str | None, typer.Option(metavar="NAME", help="Classifier, see ctc-imaging models.")]
Nuclei = Annotated[
    str | None, typer.Option(metavar="NAME", help="What finds the nuclei: a nucleus model, or classical.")
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of everything random.")]
Panel = Annotated[str | None, typer.Option(metavar="P", help="A shipped panel's name, or a panel as a YAML file.")]
PixelSize = Annotated[float | None, typer.Option(metavar="UM", help="Side of a pixel in um.")]
Workers = Annotated[int | None, typer.Option(metavar="N", min=1, help="Slides at a time; by default one a processor.")]
Reader = Annotated[str, typer.Option(metavar="NAME", help="Who reads.", show_default=False)]
Blinded = Annotated[bool, typer.Option(help="Hide calls, other readers, patient and visit.")]
Order = Annotated[str, typer.Option(metavar="NAME", help="doubt, or learning: labels that teach a model most.")]
SetName = Annotated[str, typer.Option("--set", metavar="NAME", help="Set of cells for a blinded reading.")]
Round = Annotated[int, typer.Option("--round", metavar="N", min=1, help="From 2 on: the same set once more.")]
Adjudicate = Annotated[bool, typer.Option("--adjudicate", help="Settle the cells on which readers disagree.")]
Shape = Annotated[str, typer.Option(metavar="ROWS,COLUMNS", help="Size of a slide in px.")]
Setting = Annotated[str, typer.Option(metavar="NAME", help="One of the pinned settings, such as standard or dense.")]


def parse_shape(text: str) -> tuple[int, int]:
    """Read a shape like ``4096,4096`` in px.

    Raises
    ------
    ConfigError
        If it isn't two whole numbers.
    """
    try:
        rows, columns = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError("--shape", f"{text!r} isn't a shape", "write rows and columns like 4096,4096") from error
    return rows, columns
