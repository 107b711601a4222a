"""The gallery of called CTCs, chosen so that every slide with one is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.counting import counted_cells
from ctc_imaging.report.pictures import data_uri, strip
from ctc_imaging.report.sections import slide_verdicts
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import label, marker
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.record import Review
from ctc_imaging.store.reviews import current_reviews
from ctc_imaging.store.standing import apply_reviews

SHOWN = 48
CLUSTERS = {"ctc": "in a CTC cluster", "ctc_leukocyte": "in a cluster with leukocytes"}
COLUMNS = ["cell_id", "call", "p_ctc", "phenotype", "cluster_kind", "edges", "assessed"]


@dataclass(frozen=True)
class Portrait:
    """One called CTC: its picture and what stands beneath it."""

    picture: str
    alt: str
    title: str
    lines: tuple[str, ...]
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """The CTCs shown, out of `total` that were called and `slides` that had any."""

    portraits: tuple[Portrait, ...]
    total: int
    slides: int


def make_gallery(run: Run, called: pd.DataFrame) -> Gallery:
    """Show the called CTCs, at most 48, the most certain of every slide before the next of any.

    Parameters
    ----------
    run : Run
    called : DataFrame
        As of `called_ctcs`: slides whose state isn't ``done`` have no cells to show.
    """
    chosen = choose(called, SHOWN)
    portraits = [
        portrait
        for slide_id, cells in chosen.groupby("slide_id", sort=True)
        for portrait in portraits_of(run, str(slide_id), cells)
    ]
    return Gallery(tuple(portraits), len(called), called["slide_id"].nunique())


def called_ctcs(run: Run) -> pd.DataFrame:
    """List the cells called CTC on all slides that were counted, after the reviews so far, with their `slide_id`."""
    reviews = _reviews(run)
    tables = [pd.DataFrame(columns=[*COLUMNS, "slide_id"])]
    for slide_id in sorted(run.slides.loc[slide_verdicts(run.slides) == "counted", "slide_id"]):
        cells = pd.read_parquet(run.folder.slide(slide_id) / "cells.parquet", columns=COLUMNS)
        final = apply_reviews(cells, reviews.get(slide_id, []))
        tables.append(final[counted_cells(final) & (final["call"] == "ctc")].assign(slide_id=slide_id))
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _reviews(run: Run) -> dict[str, list[Review]]:
    if not run.folder.ledger.is_file():
        return {}
    with Ledger(run.folder.ledger) as ledger:
        return current_reviews(run.folder, ledger)


def choose(called: pd.DataFrame, count: int) -> pd.DataFrame:
    """Take at most `count` cells: each slide's surest first, then each slide's next, until full."""
    ordered = called.sort_values(["slide_id", "p_ctc", "cell_id"], ascending=[True, False, True], kind="stable")
    if len(ordered) <= count:
        return ordered
    turn = ordered.groupby("slide_id").cumcount()
    kept = turn.sort_values(kind="stable").index[:count]
    return ordered.loc[ordered.index.isin(kept)]


def portraits_of(run: Run, slide_id: str, cells: pd.DataFrame) -> list[Portrait]:
    """Draw the cells of one slide that have a crop, in the order of the table."""
    import zarr

    path = run.folder.slide(slide_id) / "crops.zarr"
    if not path.is_dir():
        return []
    group: Any = zarr.open_group(path, mode="r")
    place = {int(cell_id): index for index, cell_id in enumerate(group["cell_id"][:])}
    colours = {channel["short"]: channel["colour"] for channel in run.panel["channels"]}
    shorts = list(group.attrs["channels"])
    # Limits are in the slide's values, crops as stored: scale and offset lead from these to those.
    scale, offset, low, high = (np.array(group.attrs[name], dtype=float) for name in ("scale", "offset", "low", "high"))
    limits = (low - offset) / scale, (high - offset) / scale
    stains = [colours.get(short, "#ffffff") for short in shorts]
    # A cell that only a reader called CTC was no candidate of the classifier and has no crop.
    shown = [(place[cell["cell_id"]], cell) for cell in cells.to_dict("records") if cell["cell_id"] in place]
    pixel_size_um = float(group.attrs["pixel_size_um"])
    pictures = [data_uri(strip(group["crops"][index], *limits, stains, pixel_size_um)) for index, _ in shown]
    return [_portrait(slide_id, cell, picture, shorts) for (_, cell), picture in zip(shown, pictures, strict=True)]


def _portrait(slide_id: str, cell: dict[Any, Any], picture: str, shorts: list[str]) -> Portrait:
    said = f"called by {cell['reader']}" if cell["reviewed"] else f"CTC probability {cell['p_ctc']:.3f}"
    cluster = CLUSTERS.get(cell["cluster_kind"], "")
    names = ("composite", *(marker(short) for short in shorts))
    return Portrait(
        picture=picture,
        alt=f"CTC {cell['cell_id']} of slide {slide_id}: {', '.join(names)}",
        title=f"{slide_id}, cell {cell['cell_id']}",
        lines=(said, label(cell["phenotype"]), *([cluster] if cluster else [])),
        channels=names,
    )
