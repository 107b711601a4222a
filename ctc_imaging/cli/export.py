"""The command export, which writes a run's cells for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result
from ctc_imaging.errors import ConfigError

if TYPE_CHECKING:
    from ctc_imaging.store.run_folder import RunFolder

FORMATS = {"geojson": (".geojson", ".json"), "h5ad": (".h5ad",), "spatialdata": (".zarr",), "plate": (".png",)}
"""What an export can be, and by which suffix of the target it is known."""


def register(app: options.App) -> None:
    """Add the command."""
    app.command(epilog="Example: ctc-imaging export run cells.h5ad")(export)


def export(
    run: options.Run,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="File or folder to write.", show_default=False)],
    format_name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="geojson, h5ad, spatialdata or plate; by default by suffix.")
    ] = "",
    slide: Annotated[list[str] | None, typer.Option(metavar="ID", help="Just this slide; may be repeated.")] = None,
    calls: Annotated[
        str, typer.Option(metavar="A,B", help="Just cells with these calls; all, or ctc for a plate, by default.")
    ] = "",
    cells: Annotated[
        Path | None, typer.Option(metavar="FILE", help="For a plate: just the cells of this table, in its order.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Write cells with the calls in force: GeoJSON for QuPath, AnnData, SpatialData, or a plate for a paper.

    As geojson, TARGET is a file for one slide, else a folder that gets a file a slide.
    """
    from ctc_imaging.store.run_folder import RunFolder

    chosen = _format(format_name, target)
    if cells and chosen != "plate":
        raise ConfigError("--cells", "only a plate is made of chosen cells", "leave it out, or use --slide and --calls")
    wanted = tuple(call.strip() for call in calls.split(",") if call.strip())
    write = {"geojson": _geojson, "h5ad": _table, "spatialdata": _table, "plate": _plate}[chosen]
    facts = write(RunFolder(run), target, tuple(slide or ()), wanted, cells)
    files = facts["files"]
    text = f"{facts['cells']} cells\n" + "\n".join(str(file) for file in files)
    result({"run": run, "format": chosen, **facts}, text, as_json)


def _format(name: str, target: Path) -> str:
    if name and name not in FORMATS:
        raise ConfigError("--as", f"{name!r} isn't known", f"use one of {', '.join(FORMATS)}")
    suffix = target.suffix.lower()
    by_suffix = next((format_name for format_name, suffixes in FORMATS.items() if suffix in suffixes), None)
    found = name or by_suffix
    if found is None:
        raise ConfigError("--as", f"{target.name} doesn't tell the format", f"give --as {'|'.join(FORMATS)}")
    if found in ("h5ad", "plate") and by_suffix != found:
        raise ConfigError(str(target), f"{found} isn't named so", f"name it {FORMATS[found][0]}")
    return found


def _geojson(
    run: RunFolder, target: Path, slides: tuple[str, ...], calls: tuple[str, ...], _: Path | None
) -> dict[str, Any]:
    from ctc_imaging.export.cells import read_slides, slide_ids_of
    from ctc_imaging.export.geojson import write_geojson

    ids, run_hash = slide_ids_of(run, slides), run.read()["hash"]
    as_file = target.suffix.lower() in FORMATS["geojson"]
    if as_file and len(ids) > 1:
        raise ConfigError(
            str(target), f"one file can't hold {len(ids)} slides", "name a folder, or one slide by --slide"
        )
    counts = {}
    for cells in read_slides(run, slides, calls):
        file = target if as_file else target / f"{cells.slide_id}.geojson"
        counts[file] = write_geojson(cells, file, run_hash)
    return {"cells": sum(counts.values()), "slides": len(counts), "files": [str(file) for file in counts]}


def _table(
    run: RunFolder, target: Path, slides: tuple[str, ...], calls: tuple[str, ...], _: Path | None
) -> dict[str, Any]:
    from ctc_imaging.export import read_slides, write_h5ad, write_spatialdata

    facts = run.read()
    write = write_h5ad if target.suffix.lower() == ".h5ad" else write_spatialdata
    read = list(read_slides(run, slides, calls))
    return {"cells": write(read, target, facts), "slides": len(read), "files": [str(target)]}


def _plate(
    run: RunFolder, target: Path, slides: tuple[str, ...], calls: tuple[str, ...], cells: Path | None
) -> dict[str, Any]:
    from ctc_imaging.export import read_slides, write_plate
    from ctc_imaging.readings import cells_of_table

    chosen = cells_of_table(cells) if cells else None
    wanted = calls or (() if chosen else ("ctc",))
    read = list(read_slides(run, slides, wanted))
    plate = write_plate(read, target, run.read(), chosen)
    if plate.without_crop:
        slide_id, cell_id = plate.without_crop[0]
        note(f"{len(plate.without_crop)} cell(s) left out, without a crop or call of these, as {cell_id} of {slide_id}")
    return {"cells": plate.cells, "slides": len(read), "files": [str(file) for file in plate.files]}
