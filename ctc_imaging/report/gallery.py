"""The gallery of called CTCs, chosen so that every slide with one is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ctc_imaging.report.pictures import data_uri, strip
from ctc_imaging.report.sections import slide_verdicts
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import label, marker
from ctc_imaging.store.ledger import Ledger, Review
from ctc_imaging.store.reviews import apply_reviews, current_reviews

SHOWN = 48
CLUSTERS = {"ctc": "in a CTC cluster", "ctc_leukocyte": "in a cluster with leukocytes"}
COLUMNS = ["cell_id", "call", "p_ctc", "phenotype", "cluster_kind", "at_edge", "edges", "assessed"]


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


def make_gallery(run: Run) -> Gallery:
    """Show the called CTCs, at most 48, the most certain of every slide before the next of any.

    Parameters
    ----------
    run : Run
        Slides whose state isn't ``done`` have no cells to show.
    """
    called = called_ctcs(run)
    chosen = choose(called, SHOWN)
    portraits = [
        portrait
        for slide_id, cells in chosen.groupby("slide_id", sort=True)
        for portrait in _portraits(run, str(slide_id), cells)
    ]
    return Gallery(tuple(portraits), len(called), called["slide_id"].nunique())


def called_ctcs(run: Run) -> pd.DataFrame:
    """List the cells called CTC on all slides that were counted, after the reviews so far, with their `slide_id`."""
    reviews = _reviews(run)
    tables = [pd.DataFrame(columns=[*COLUMNS, "slide_id"])]
    for slide_id in sorted(run.slides.loc[slide_verdicts(run.slides) == "counted", "slide_id"]):
        cells = pd.read_parquet(run.folder.slide(slide_id) / "cells.parquet", columns=COLUMNS)
        final = apply_reviews(cells, reviews.get(slide_id, []))
        tables.append(final[final["call"] == "ctc"].assign(slide_id=slide_id))
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _reviews(run: Run) -> dict[str, list[Review]]:
    if not run.folder.ledger.is_file():
        return {}
    with Ledger(run.folder.ledger) as ledger:
        return current_reviews(run.folder, ledger)


def choose(called: pd.DataFrame, count: int) -> pd.DataFrame:
    """Take at most `count` cells: each slide's surest first, then each slide's next, until full."""
    ordered = called.sort_values(["slide_id", "p_ctc", "cell_id"], ascending=[True, False, True], kind="stable")
    turn = ordered.groupby("slide_id").cumcount()
    kept = turn.sort_values(kind="stable").index[:count]
    return ordered.loc[ordered.index.isin(kept)]


def _portraits(run: Run, slide_id: str, cells: pd.DataFrame) -> list[Portrait]:
    import zarr

    path = run.folder.slide(slide_id) / "crops.zarr"
    if not path.is_dir():
        return []
    group: Any = zarr.open_group(path, mode="r")
    place = {int(cell_id): index for index, cell_id in enumerate(group["cell_id"][:])}
    colours = {channel["short"]: channel["colour"] for channel in run.panel["channels"]}
    shorts = list(group.attrs["channels"])
    made = []
    for cell in cells.itertuples():
        index = place.get(int(str(cell.cell_id)))
        if index is None:
            continue
        picture = strip(
            group["crops"][index],
            group.attrs["low"],
            group.attrs["high"],
            [colours.get(short, "#ffffff") for short in shorts],
            float(group.attrs["pixel_size_um"]),
        )
        made.append(_portrait(slide_id, cell, data_uri(picture), shorts))
    return made


def _portrait(slide_id: str, cell: Any, picture: str, shorts: list[str]) -> Portrait:
    said = f"called by {cell.reader}" if cell.reviewed else f"CTC probability {cell.p_ctc:.3f}"
    cluster = CLUSTERS.get(str(cell.cluster_kind), "")
    names = ("composite", *(marker(short) for short in shorts))
    return Portrait(
        picture=picture,
        alt=f"CTC {cell.cell_id} of slide {slide_id}: {', '.join(names)}",
        title=f"{slide_id}, cell {cell.cell_id}",
        lines=(said, label(cell.phenotype), *([cluster] if cluster else [])),
        channels=names,
    )
