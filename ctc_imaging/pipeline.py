"""One slide, start to end: pixels → quality → cells → calls → clusters, into the slide's own folder."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from ctc_imaging.classification import Classifier, call_cells, load_model, write_crops, write_far_view
from ctc_imaging.clusters import find_clusters
from ctc_imaging.cohort import SlideEntry
from ctc_imaging.config import Settings
from ctc_imaging.errors import SlideError
from ctc_imaging.exposure import check_exposure
from ctc_imaging.files import write_json, write_parquet
from ctc_imaging.intake import take_in
from ctc_imaging.overview import far_view, overview, write_png
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.parts import current_map
from ctc_imaging.quality import Quality, assess
from ctc_imaging.quality_picture import quality_picture
from ctc_imaging.segmentation import Background, measure_background, segment_slide
from ctc_imaging.slide import Slide, open_slide
from ctc_imaging.staining import check_stains
from ctc_imaging.store.labels import create_labels, finish_labels
from ctc_imaging.working_copy import open_copy

WORKING_COPY = ".pixels"
"""Where in a slide's folder its decoded pixels lie while it is processed."""


def process_slide(entry: SlideEntry, folder: Path, settings: Settings) -> dict[str, Any]:
    """Process one slide of a cohort.

    Parameters
    ----------
    entry : SlideEntry
        The slide's row of the cohort.
    folder : Path
        An empty folder; gets ``cells.parquet``, ``labels.ome.zarr``, ``crops.zarr``,
        ``quality.json``, ``overview.png`` and ``quality.png``.
    settings : Settings

    Returns
    -------
    dict
        ``cells``, ``ctc``, ``assessable`` and ``assessed_fraction``, for the log.

    Raises
    ------
    CtcImagingError
        If the slide can't be read, its scale isn't known, or the panel doesn't fit its channels or what they show.
    """
    panel = load_panel(entry.panel or settings.panel)
    copy = folder / WORKING_COPY
    with open_slide(entry.slide, entry.pixel_size_um) as scan:
        if scan.pixel_size_um is None:
            raise SlideError(scan.path, "its pixel size isn't known", "give it in the cohort's column pixel_size_um")
        channels = panel.assign(scan.channel_names, entry.slide)
        check_exposure(scan.path, channels, take_in(scan, channels, copy), scan.dtype)
        warnings = scan.warnings
    with open_copy(copy, entry.slide, warnings) as slide:
        summary = _process(slide, panel, entry, folder, settings)
    shutil.rmtree(copy)
    return summary


def _process(slide: Slide, panel: Panel, entry: SlideEntry, folder: Path, settings: Settings) -> dict[str, Any]:
    """Go from a slide's working copy to its results."""
    channels = {short: index for index, short in enumerate(panel.shorts)}
    quality = assess(slide, channels, panel, entry.sample_kind)
    check_stains(quality.overlap, panel, entry.sample_kind, entry.slide)
    background = measure_background(slide, channels)
    classifier = _classifier(settings.model)
    cells = find_and_call_cells(
        slide, channels, panel, background, classifier, folder, settings.tile_px, settings.nuclei
    )
    quality = quality.without(cells.attrs["unresolved_fraction"]).noting(slide.warnings)
    cells["assessed"] = quality.contains(cells["y_px"].to_numpy(), cells["x_px"].to_numpy())
    write_parquet(folder / "cells.parquet", _in_order(cells, panel))
    write_crops(folder / "crops.zarr", slide, channels, panel, cells, background, entry.slide_id)
    write_json(folder / "quality.json", quality.to_json())
    view = far_view(slide, channels)
    write_png(folder / "overview.png", overview(slide, channels, panel, quality, view=view))
    write_far_view(folder / "crops.zarr", view)
    write_png(folder / "quality.png", quality_picture(quality, slide.pixel_size_um))
    return _summary(cells, quality)


def find_and_call_cells(
    slide: Slide,
    channels: dict[str, int],
    panel: Panel,
    background: Background,
    classifier: Classifier,
    folder: Path,
    tile_px: int,
    finder: str,
) -> pd.DataFrame:
    """Segment, measure, call and cluster the cells of a slide, writing its label image.

    Returns
    -------
    DataFrame
        The columns of ``cells.parquet`` but ``assessed``; ``attrs["unresolved_fraction"]`` is the share of the
        slide in which cells can't be told apart.

    Raises
    ------
    SlideError
        If the pixel size isn't known.
    """
    pixel_size_um = slide.pixel_size_um
    if pixel_size_um is None:
        raise SlideError(slide.path, "the pixel size isn't in the file", "give it in the cohort's column pixel_size_um")
    labels = create_labels(folder / "labels.ome.zarr", *slide.shape[1:])
    cells = segment_slide(slide, channels, panel, background, labels, pixel_size_um, tile_px, current_map(), finder)
    unresolved = cells.attrs["oversized_um2"] / (slide.shape[1] * slide.shape[2] * pixel_size_um**2)
    cells = call_cells(slide, channels, panel, background, labels, cells, classifier, current_map())
    cells = find_clusters(cells, labels, panel.clusters, pixel_size_um)
    finish_labels(folder / "labels.ome.zarr", pixel_size_um)
    cells.attrs["unresolved_fraction"] = unresolved
    return cells


@lru_cache(maxsize=1)
def _classifier(name: str) -> Classifier:
    """Load a model once per process."""
    return load_model(name)


def _in_order(cells: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Put the columns in the order of the contract."""
    signals = [f"{short}_{measure}" for short in panel.shorts for measure in ("mean", "snr")]
    return cells[
        [
            *("cell_id", "y_um", "x_um", "y_px", "x_px", "area_um2", "diameter_um", "nucleus_area_um2"),
            *("eccentricity", "solidity", *signals),
            *("call", "p_ctc", "p_leukocyte", "p_artefact", "phenotype", "cluster_id", "cluster_kind"),
            *("focus", "at_edge", "edges", "assessed"),
        ]
    ]


def _summary(cells: pd.DataFrame, quality: Quality) -> dict[str, Any]:
    return {
        "cells": len(cells),
        "ctc": int((cells["call"] == "ctc").sum()),
        "assessable": quality.assessable,
        "assessed_fraction": quality.assessed_fraction,
    }
