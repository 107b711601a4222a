"""Arguments and options of the training commands, which come from a package that doesn't know typer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NewDataset = Annotated[
    Path, typer.Argument(metavar="OUT", help="A new folder for the training set.", show_default=False)
]
ModelFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A model's folder.", show_default=False)]
AnyModel = Annotated[str, typer.Argument(metavar="MODEL", help="A model's name or folder.", show_default=False)]
OnnxFile = Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.", show_default=False)]
ReviewedRuns = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs with reviews.", show_default=False)]
Images = Annotated[
    Path, typer.Option(metavar="DIR", help="Holds dsb2018_fluo and sbsst265_cytospin.", show_default=False)
]
NucleiImages = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Real nuclei for simulated cells: dsb2018_fluo, sbsst265_cytospin.")
]

Runs = Annotated[list[Path] | None, typer.Option("--run", metavar="RUN", help="A run with reviews; may be repeated.")]
Crops = Annotated[
    list[Path] | None, typer.Option(metavar="DIR", help="A folder of crops sorted by class; may be repeated.")
]
Simulated = Annotated[str, typer.Option(metavar="SIZE", help="Simulated slides: none, small or full (14 GB).")]
SplitBy = Annotated[str, typer.Option(metavar="WHAT", help="What isn't parted: batch (and patient), or patient only.")]
Frozen = Annotated[bool, typer.Option("--frozen", help="All into the part test: a set to compare models on.")]
Unreviewed = Annotated[
    int, typer.Option(metavar="N", help="Unreviewed leukocytes to add of each slide, with less weight.")
]
Without = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A training set whose patients, batches and scans are left out.")
]
Cache = Annotated[Path | None, typer.Option(metavar="DIR", help="Keeps simulated crops for another time.")]

Data = Annotated[Path | None, typer.Option(metavar="DIR", help="A training set, made by ctc-imaging dataset.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="The model's folder, named after it.")]
TrainConfig = Annotated[Path | None, typer.Option(metavar="FILE", help="How to learn, as YAML: docs/training.md.")]
Start = Annotated[
    str | None, typer.Option(metavar="MODEL", help="A model to go on from, or none; with --data it is default.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, or auto: a GPU if there is one.")]
Resume = Annotated[bool, typer.Option(help="Go on with a training that was stopped.")]
Epochs = Annotated[int | None, typer.Option(metavar="N", help="How long to learn.")]

Gallery = Annotated[Path | None, typer.Option(metavar="FILE.png", help="A picture of the worst errors to write.")]
Settings = Annotated[str, typer.Option(metavar="NAMES", help="The simulator's, parted by commas, or all.")]
Slides = Annotated[int, typer.Option(metavar="N", help="Simulated slides of each setting, 9,000 leukocytes each.")]
Consensus = Annotated[
    Path, typer.Option(metavar="DIR", help="A training set whose part test decides.", show_default=False)
]
OwnConsensus = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A training set whose part test decides; by default the new one's.")
]
Name = Annotated[str, typer.Option(metavar="NAME", help="What the model shall be called.", show_default=False)]
NewName = Annotated[str | None, typer.Option(metavar="NAME", help="What it shall be called; by default as its folder.")]
Current = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="The current model; by default that of the same name, or default."),
]
Work = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Where all of it lies; by default NAME-training.")
]
Write = Annotated[bool, typer.Option("--write", help="Also write it into the model's folder.")]
