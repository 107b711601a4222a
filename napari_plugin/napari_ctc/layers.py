"""A slide of a run as napari layers: its markers read on demand, outlines, and cells coloured by call."""

from __future__ import annotations

import threading
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import dask.array as da
import numpy as np
import pandas as pd
import zarr
from matplotlib.colors import to_rgba

from ctc_imaging.cohort import SlideEntry, load_cohort
from ctc_imaging.errors import CtcImagingError, RunError, SlideError
from ctc_imaging.panel import Panel, load_panel, shipped_panels
from ctc_imaging.slide import Slide, open_slide
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.reviews import current_reviews
from ctc_imaging.store.run_folder import RunFolder
from ctc_imaging.store.standing import apply_reviews
from napari_ctc.far_view import empty_far_view, sampled_limits

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
# A cell that a reader added has no size yet.
_ADDED_UM = 12.0
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
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return self._slide.dtype

    @property
    def pixel_size_um(self) -> float | None:
        """Side of a pixel, or None where nobody told."""
        return self._slide.pixel_size_um

    def read(self, channels: Sequence[int], y0: int, y1: int, x0: int, x1: int) -> NDArray:
        """Read a window (channels, rows, columns); see `Slide.read`."""
        with self._lock:
            return self._slide.read(channels, y0, y1, x0, x1)

    def levels(self, short: str, far: NDArray | None = None) -> list[Any]:
        """Return one marker from full resolution to coarse, each (rows, columns).

        Parameters
        ----------
        short : str
        far : ndarray, shape (rows, columns), optional
            The marker as seen from afar, so that nobody has to read the whole slide for it; it is the coarsest level,
            and those between are each half the one before.
        """
        _, height, width = self.shape
        chunks = da.core.normalize_chunks((_CHUNK_PX, _CHUNK_PX), (height, width))
        read = partial(self._block, self.channels[short])
        dtype = self._slide.dtype
        # A name of its own spares dask the attempt to hash the slide.
        name = f"{short}-{uuid.uuid4().hex}"
        levels = [da.map_blocks(read, chunks=chunks, dtype=dtype, meta=np.empty((0, 0), dtype), name=name)]
        coarsest = _WHOLE_PX if far is None else 2 * max(far.shape)
        while max(levels[-1].shape) > coarsest:
            levels.append(da.coarsen(np.mean, levels[-1], {0: 2, 1: 2}, trim_excess=True).astype(dtype))
        return levels if far is None else [*levels, far]

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
    far : ndarray, shape (C, rows, columns), or None
        A large slide as seen from afar, channels in the panel's order; zeros until `FarFill` has filled them where
        the run doesn't keep it.
    scan : Scan or None
        None where the scan can't be read.
    fault : str
        Why there is no scan; else empty.
    """

    slide_id: str
    panel: Panel
    pixel_size_um: float
    limits: Limits
    far: Any
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
    far = None if scan is None else _stored_far_view(run, slide_id, scan)
    return SlideView(slide_id, panel, pixel_size_um, _limits(run, slide_id), far, scan, fault)


def open_bare(path: Path) -> SlideView:
    """Open a slide that belongs to no run, with the shipped panel that fits its channels.

    Raises
    ------
    CtcImagingError
        If the file isn't read as a slide, or no panel fits it.
    """
    slide = open_slide(path)
    try:
        panel, channels = _panel_of(slide, path)
    except CtcImagingError:
        slide.close()
        raise
    scan = Scan(slide, channels)
    limits = sampled_limits(scan)
    far = empty_far_view(scan) if max(scan.shape[1:]) > _WHOLE_PX else None
    return SlideView(path.stem, panel, scan.pixel_size_um or 1.0, limits, far, scan, "")


def marker_layers(view: SlideView) -> list[LayerData]:
    """Describe the markers of a slide alone."""
    return [] if view.scan is None else list(_marker_layers(view, view.scan))


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
    return [*pixels, *_outline_layers(run, view), cell_layer(run, view, blinded)]


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


def _panel_of(slide: Slide, path: Path) -> tuple[Panel, dict[str, int]]:
    """The first shipped panel that fits, those with more channels first."""
    panels = sorted((load_panel(name) for name in shipped_panels()), key=lambda panel: -len(panel.channels))
    for panel in panels[:-1]:
        try:
            return panel, panel.assign(slide.channel_names, path)
        except CtcImagingError:
            continue
    return panels[-1], panels[-1].assign(slide.channel_names, path)


def _stored_far_view(run: RunFolder, slide_id: str, scan: Scan) -> NDArray[Any] | None:
    """Read the slide as seen from afar, in the slide's values, where the run keeps it; else None, or zeros to fill."""
    crops: Any = zarr.open_group(run.slide(slide_id) / "crops.zarr", mode="r")
    if "far_view" not in crops:
        return empty_far_view(scan) if max(scan.shape[1:]) > _WHOLE_PX else None
    scale, offset = (np.array(crops.attrs[name], np.float64)[:, None, None] for name in ("scale", "offset"))
    return (crops["far_view"][:] * scale + offset).astype(scan.dtype)


def _limits(run: RunFolder, slide_id: str) -> Limits:
    """Take the contrast that the run chose for its crops: the slide's background to 30 of its noise above it."""
    facts: Any = zarr.open_group(run.slide(slide_id) / "crops.zarr", mode="r").attrs
    triples = zip(facts["channels"], facts["low"], facts["high"], strict=True)
    return {short: (float(low), float(high)) for short, low, high in triples}


def _marker_layers(view: SlideView, scan: Scan) -> Iterator[LayerData]:
    for place, channel in enumerate(view.panel.channels):
        levels = scan.levels(channel.short, None if view.far is None else view.far[place])
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
        levels = [da.map_blocks(_short_labels, level[plane], dtype=np.uint16) for level in planes]
        yield (
            levels if len(levels) > 1 else levels[0],
            {
                **_in_um(view, name),
                "multiscale": len(levels) > 1,
                "colormap": _one_colour(colour),
                "opacity": 0.5,
                "visible": visible,
            },
            "labels",
        )


def _short_labels(labels: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """Labels as napari draws them at once; for wider ones it compiles a loop first, which takes seconds.

    Up to 65,535 they stay what they are; beyond they come round again, far from where they were.
    """
    return np.where(labels > 0, (labels - 1) % np.iinfo(np.uint16).max + 1, 0).astype(np.uint16)


def _one_colour(colour: str) -> Any:
    """All labels in one colour."""
    from napari.utils.colormaps import CyclicLabelColormap

    return CyclicLabelColormap(colors=np.array([to_rgba("#00000000"), to_rgba(colour)]), background_value=0)


def cell_layer(run: RunFolder, view: SlideView, blinded: bool) -> LayerData:
    """Describe the layer of a slide's cells, ringed in the colours of the calls in force, or all alike."""
    cells = pd.read_parquet(
        run.slide(view.slide_id) / "cells.parquet",
        columns=["cell_id", "y_um", "x_um", "diameter_um", "call", "phenotype"],
    )
    with Ledger(run.ledger) as ledger:
        reviews = current_reviews(run, ledger).get(view.slide_id, [])
    cells = apply_reviews(cells, reviews)
    calls = np.full(len(cells), "") if blinded else cells["call"].to_numpy()
    metadata = {
        "name": CELLS,
        "units": UNITS,
        "metadata": {_PART: CELLS, "cell_id": cells["cell_id"].to_numpy()},
        "size": np.maximum(cells["diameter_um"].fillna(_ADDED_UM).to_numpy(), 1.0) * _RING,
        "face_color": "transparent",
        "border_color": _colours_of(calls) if len(calls) else BLIND_COLOUR,
        "border_width": RING_UM,
        "border_width_is_relative": False,
        "ndim": 2,
    }
    return cells[["y_um", "x_um"]].to_numpy(np.float64), metadata, "points"


def _colours_of(calls: NDArray[Any]) -> NDArray[np.float32]:
    """Red, green, blue, alpha for each call; as an array, as napari takes thousands of names one by one."""
    colours = np.empty((len(calls), 4), np.float32)
    colours[:] = to_rgba(BLIND_COLOUR)
    for call, colour in CALL_COLOURS.items():
        colours[calls == call] = to_rgba(colour)
    return colours


def _in_um(view: SlideView, name: str) -> dict[str, Any]:
    return {"name": name, "scale": (view.pixel_size_um,) * 2, "units": UNITS, "metadata": {_PART: name}}
