"""A slide of a run as napari layers: its markers read on demand, outlines, and cells coloured by call."""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import dask.array as da
import numpy as np
import pandas as pd
import zarr

from ctc_imaging.cohort import SlideEntry, load_cohort
from ctc_imaging.errors import CtcImagingError, RunError, SlideError
from ctc_imaging.panel import Panel
from ctc_imaging.slide import Slide, open_slide
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.reviews import apply_reviews, current_reviews
from ctc_imaging.store.run_folder import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

LayerData = tuple[Any, dict[str, Any], str]
Limits = dict[str, tuple[float, float]]

CALL_COLOURS = {"ctc": "#ff4fd8", "indeterminate": "#27e0f0", "leukocyte": "#8b93a1", "artefact": "#c2884f"}
"""None of these is a stain's colour in the shipped panels."""

BLIND_COLOUR = "#e6e6e6"
OVERVIEW, OUTLINES, NUCLEI, CELLS = "Overview", "Cell outlines", "Nucleus outlines", "Cells"
UNITS = ("um", "um")

# Where a layer's metadata say what it is, whatever napari or the reader call it.
_PART = "ctc_imaging"
_CHUNK_PX = 1024
# A plane of up to this side is shown whole; a larger one gets coarser levels for the view from afar.
_WHOLE_PX = 4096
# A ring this much wider than the cell leaves its outline free.
_RING = 1.6
RING_UM = 0.3
"""How thick the rings around cells are."""


class Scan:
    """The pixels of a slide as layers and crops take them; its files close when nothing holds it any more.

    Parameters
    ----------
    slide : Slide
    channels : mapping of str to int
        The panel's short names to the slide's channels.
    """

    def __init__(self, slide: Slide, channels: Mapping[str, int]) -> None:
        self.channels = dict(channels)
        self._slide = slide
        # A slide isn't made for several threads, and dask has several.
        self._lock = threading.Lock()
        weakref.finalize(self, slide.close)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return self._slide.shape

    @property
    def pixel_size_um(self) -> float | None:
        """Side of a pixel, or None where nobody told."""
        return self._slide.pixel_size_um

    def read(self, channels: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> NDArray:
        """Read a window (channels, rows, columns); see `Slide.read`."""
        with self._lock:
            return self._slide.read(channels, y0, y1, x0, x1)

    def levels(self, short: str) -> list[da.Array]:
        """Return one marker from full resolution to coarse, each (rows, columns) and half the one before."""
        _, height, width = self.shape
        chunks = da.core.normalize_chunks((_CHUNK_PX, _CHUNK_PX), (height, width))
        read = partial(self._block, self.channels[short])
        dtype = self._slide.dtype
        # A name of its own spares dask the attempt to hash the slide.
        name = f"{short}-{uuid.uuid4().hex}"
        levels = [da.map_blocks(read, chunks=chunks, dtype=dtype, meta=np.empty((0, 0), dtype), name=name)]
        while max(levels[-1].shape) > _WHOLE_PX:
            levels.append(da.coarsen(np.mean, levels[-1], {0: 2, 1: 2}, trim_excess=True).astype(dtype))
        return levels

    def _block(self, channel: int, block_info: Any = None) -> NDArray:
        (y0, y1), (x0, x1) = block_info[None]["array-location"]
        return self.read([channel], y0, y1, x0, x1)[0]


@dataclass(frozen=True)
class SlideView:
    """What of a slide can be shown.

    Attributes
    ----------
    slide_id : str
    panel : Panel
    pixel_size_um : float
        Of the labels, and so of the scan.
    limits : dict
        Darkest and brightest value shown, by marker.
    scan : Scan or None
        None where the scan can't be read.
    fault : str
        Why there is no scan; else empty.
    """

    slide_id: str
    panel: Panel
    pixel_size_um: float
    limits: Limits
    scan: Scan | None
    fault: str


def open_view(run: RunFolder, slide_id: str) -> SlideView:
    """Open a slide of a run, with or without its scan.

    Parameters
    ----------
    run : RunFolder
    slide_id : str

    Returns
    -------
    SlideView

    Raises
    ------
    CtcImagingError
        If the run has no results of this slide.
    """
    if not run.is_complete(slide_id):
        raise RunError(run.slide(slide_id), "the slide's results aren't there", "finish it with ctc-imaging run")
    entry = next((entry for entry in load_cohort(run.table("cohort")) if entry.slide_id == slide_id), None)
    if entry is None:
        raise RunError(run.table("cohort"), f"no slide {slide_id}", "make the run anew in another folder")
    panel = run.panel(entry.panel)
    labels: Any = zarr.open_group(run.slide(slide_id) / "labels.ome.zarr", mode="r")
    finest = labels.attrs["multiscales"][0]["datasets"][0]
    pixel_size_um = float(finest["coordinateTransformations"][0]["scale"][-1])
    scan, fault = None, ""
    try:
        if run.read().get("pseudonymised"):
            raise RunError(run.path, "pseudonymised, so it keeps no path to its scans", "read its crops")
        scan = _open_scan(entry, panel, labels["0"].shape[1:])
    except CtcImagingError as error:
        fault = f"{error.where}: {error.fault}"
    return SlideView(slide_id, panel, pixel_size_um, _limits(run, slide_id), scan, fault)


def slide_layers(run: RunFolder, view: SlideView, blinded: bool = False) -> list[LayerData]:
    """Describe the layers of a slide, from the lowest up, in um.

    Parameters
    ----------
    run : RunFolder
    view : SlideView
    blinded : bool
        Leave out everything that tells a call.

    Returns
    -------
    list of (data, metadata, type)
        Markers where there is a scan, else the run's small picture of it; outlines of nuclei (hidden) and cells;
        cells, ringed.
    """
    pixels = _overview_layers(run, view) if view.scan is None else _marker_layers(view, view.scan)
    return [*pixels, *_outline_layers(run, view), _cell_layer(run, view, blinded)]


def dress(layer: Any) -> None:
    """Set what a layer's metadata can't: outlines drawn as lines, and results that can't be edited by accident."""
    part = layer.metadata.get(_PART)
    if part in (OUTLINES, NUCLEI):
        layer.contour = 1
    if part in (OUTLINES, NUCLEI, CELLS):
        layer.editable = False


def _open_scan(entry: SlideEntry, panel: Panel, shape_px: tuple[int, ...]) -> Scan:
    slide = open_slide(entry.slide, entry.pixel_size_um)
    try:
        if slide.shape[1:] != tuple(shape_px):
            raise SlideError(entry.slide, "not the scan that was processed", "put that one back")
        return Scan(slide, panel.assign(slide.channel_names, entry.slide))
    except CtcImagingError:
        slide.close()
        raise


def _limits(run: RunFolder, slide_id: str) -> Limits:
    """Take the contrast that the run chose for its crops: the slide's background to 30 of its noise above it."""
    facts: Any = zarr.open_group(run.slide(slide_id) / "crops.zarr", mode="r").attrs
    triples = zip(facts["channels"], facts["low"], facts["high"], strict=True)
    return {short: (float(low), float(high)) for short, low, high in triples}


def _marker_layers(view: SlideView, scan: Scan) -> Iterator[LayerData]:
    for channel in view.panel.channels:
        levels = scan.levels(channel.short)
        yield (
            levels if len(levels) > 1 else levels[0],
            {
                **_in_um(view, channel.short.upper()),
                "multiscale": len(levels) > 1,
                "blending": "additive",
                "colormap": channel.colour,
                "contrast_limits": view.limits[channel.short],
            },
            "image",
        )


def _overview_layers(run: RunFolder, view: SlideView) -> Iterator[LayerData]:
    path = run.slide(view.slide_id) / "overview.png"
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
    if picture is None:
        return
    labels: Any = zarr.open_group(run.slide(view.slide_id) / "labels.ome.zarr", mode="r")
    # Each of its pixels is the mean of a square of whole pixels; the last ones may hang over the edge.
    factor = -(-max(labels["0"].shape[1:]) // max(picture.shape[:2]))
    metadata = {
        **_in_um(view, OVERVIEW),
        "scale": (view.pixel_size_um * factor,) * 2,
        "translate": (view.pixel_size_um * (factor - 1) / 2,) * 2,
        "rgb": True,
    }
    yield picture, metadata, "image"


def _outline_layers(run: RunFolder, view: SlideView) -> Iterator[LayerData]:
    group = zarr.open_group(run.slide(view.slide_id) / "labels.ome.zarr", mode="r")
    planes = [da.from_zarr(group[str(level)]) for level in range(len(list(group.array_keys())))]
    for plane, name, colour, visible in ((1, NUCLEI, "#9db4ff", False), (0, OUTLINES, "#ffffff", True)):
        levels = [level[plane] for level in planes]
        yield (
            levels if len(levels) > 1 else levels[0],
            {
                **_in_um(view, name),
                "multiscale": len(levels) > 1,
                "colormap": {None: colour, 0: "transparent"},
                "opacity": 0.5,
                "visible": visible,
            },
            "labels",
        )


def _cell_layer(run: RunFolder, view: SlideView, blinded: bool) -> LayerData:
    cells = pd.read_parquet(
        run.slide(view.slide_id) / "cells.parquet",
        columns=["cell_id", "y_um", "x_um", "diameter_um", "call", "phenotype"],
    )
    with Ledger(run.ledger) as ledger:
        reviews = current_reviews(run, ledger).get(view.slide_id, [])
    calls = apply_reviews(cells, reviews)["call"]
    metadata = {
        "name": CELLS,
        "units": UNITS,
        "metadata": {_PART: CELLS, "cell_id": cells["cell_id"].to_numpy()},
        "size": np.maximum(cells["diameter_um"].to_numpy(), 1.0) * _RING,
        "face_color": "transparent",
        "border_color": BLIND_COLOUR if blinded else [CALL_COLOURS[call] for call in calls] or BLIND_COLOUR,
        "border_width": RING_UM,
        "border_width_is_relative": False,
        "ndim": 2,
    }
    return cells[["y_um", "x_um"]].to_numpy(np.float64), metadata, "points"


def _in_um(view: SlideView, name: str) -> dict[str, Any]:
    return {"name": name, "scale": (view.pixel_size_um,) * 2, "units": UNITS, "metadata": {_PART: name}}
