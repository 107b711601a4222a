"""The command simulate: slides and cohorts with the truth beside them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import result

Out = Annotated[Path, typer.Option(metavar="DIR", help="Where to write.", show_default=False)]
Seed = Annotated[int, typer.Option(metavar="N", help="The same seed gives the same bytes.")]
Ctc = Annotated[int, typer.Option(metavar="N", help="CTCs on the slide.")]
Leukocytes = Annotated[int, typer.Option(metavar="N", help="Leukocytes on a slide.")]
PixelSize = Annotated[float, typer.Option(metavar="UM", help="Side of a pixel in um.")]
PanelName = Annotated[str, typer.Option(metavar="P", help="A shipped panel.")]
Patients = Annotated[int, typer.Option(metavar="N", help="Patients in the cohort.")]
TablesOnly = Annotated[bool, typer.Option("--tables-only", help="Leave the pixels out.")]
Sequencing = Annotated[
    bool, typer.Option("--sequencing", help="Add the sequencing of tumour, CTCs and relapse of some who relapse.")
]
Controls = Annotated[bool, typer.Option(help="Add a blank, a donor and a spiked sample.")]


def register(app: options.App) -> None:
    """Add the commands."""
    simulate = typer.Typer(
        help="Simulate a slide or a cohort, with its truth.",
        epilog="Example: ctc-imaging simulate slide --out slide --seed 1",
    )
    simulate.command(epilog="Example: ctc-imaging simulate slide --out slide --seed 1 --ctc 20 --leukocytes 8000")(
        slide
    )
    simulate.command(epilog="Example: ctc-imaging simulate cohort --out cohort --patients 16 --seed 1")(cohort)
    app.add_typer(simulate, name="simulate")


def slide(
    out: Out,
    seed: Seed = 0,
    shape: options.Shape = "4096,4096",
    ctc: Ctc = 20,
    leukocytes: Leukocytes = 8000,
    setting: options.Setting = "standard",
    pixel_size: PixelSize = 0.5,
    panel: PanelName = "emt-4",
    as_json: options.AsJson = False,
) -> None:
    """Simulate one slide: slide.ome.tif and truth.csv."""
    from ctc_imaging.simulation import simulate_slide, write_slide

    simulated = simulate_slide(options.parse_shape(shape), ctc, leukocytes, setting, seed, pixel_size, panel)
    write_slide(simulated, out)
    facts = {"slide": out / "slide.ome.tif", "truth": out / "truth.csv", "seed": seed, "setting": setting}
    result(facts, f"{facts['slide']}\n{facts['truth']}", as_json)


def cohort(
    out: Out,
    patients: Patients = 16,
    seed: Seed = 0,
    shape: options.Shape = "1024,1024",
    leukocytes: Leukocytes = 400,
    setting: options.Setting = "standard",
    tables_only: TablesOnly = False,
    controls: Controls = True,
    sequencing: Sequencing = False,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
) -> None:
    """Simulate a cohort: its tables, slides/ and truth/."""
    from ctc_imaging.progress import Tally, show_progress
    from ctc_imaging.simulation import simulate_cohort
    from ctc_imaging.workers import processors

    with show_progress(sys.stderr, "slides simulated") as progress:
        simulate_cohort(
            out,
            patients=patients,
            seed=seed,
            shape_px=options.parse_shape(shape),
            leukocytes=leukocytes,
            setting=setting,
            tables_only=tables_only,
            controls=controls,
            sequencing=sequencing,
            workers=workers or processors(),
            progress=lambda done, total: progress(Tally(total, done, 0)),
        )
    result({"cohort": out / "cohort.csv", "patients": patients, "seed": seed}, str(out / "cohort.csv"), as_json)
