"""From a slide's cells to calls: class, phenotype, focus, and the crops a person looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import ndimage

from ctc_imaging.classification.classes import CANDIDATES, CLASSES, INDETERMINATE
from ctc_imaging.classification.crops import (
    CROP_PX,
    UM_PER_PX,
    CropBatch,
    ScaledPixels,
    crop_order,
    iterate_crops,
    iterate_raw_crops,
)
from ctc_imaging.classification.model import BATCH
from ctc_imaging.classification.rarity import BALANCED, at_prevalence
from ctc_imaging.panel import Panel, Role
from ctc_imaging.positivity import positivity, unmarked
from ctc_imaging.segmentation import Background, measure_background

if TYPE_CHECKING:
    from ctc_imaging.classification.model import Classifier, Thresholds
    from ctc_imaging.overview import FarView

POSITIVE = 0.5
TUMOUR_POSITIVE_SNR = 3.0
# Contrast limits of candidates: from the background to this many units of its noise above it.
CONTRAST_SNR = 30.0
CONTRAST_GRID = 8
# A slide up to this side is quickly read whole.
SMALL_PX = 4096
# Eight full batches of the network: a cell has the same company however a slide's cells are shared out.
CELLS_A_RUN = 8 * BATCH

Readings = tuple[np.ndarray, np.ndarray, np.ndarray]
MapRuns = Callable[[Callable[[pd.DataFrame], Readings], Sequence[pd.DataFrame]], Iterable[Readings]]


def call_cells(
    slide: ScaledPixels,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    labels: Any,
    cells: pd.DataFrame,
    classifier: Classifier,
    map_runs: MapRuns = map,
) -> pd.DataFrame:
    """Call every cell of a slide.

    Parameters
    ----------
    slide : Slide
    channels : mapping of str to int
        Short names of the panel to the slide's channels.
    panel : Panel
    background : Background
    labels : array of uint32, shape (2, Y, X)
        Cell and nucleus labels; values are cell ids.
    cells : DataFrame
        As from `segment_slide`.
    classifier : Classifier
    map_runs : callable
        Calls a function on each run of cells, as the builtin `map` does, here or in other processes; then all
        other arguments must be picklable, and the labels be seen by all.

    Returns
    -------
    DataFrame
        `cells` with `p_ctc`, `p_leukocyte`, `p_artefact` (float64), `call` (an object without a nucleus is an
        artefact), `phenotype` (text, empty for all but CTCs), `p_epithelial`, `p_mesenchymal` (float64, the chance
        that the marker is positive, NaN without such a marker) and `focus` (see `edge_sharpness`).
    """
    order = crop_order(cells)
    runs = [order[start : start + CELLS_A_RUN] for start in range(0, len(order), CELLS_A_RUN)]
    places = cells[["cell_id", "y_px", "x_px"]]
    read = partial(read_cells, slide, channels, panel, background, labels, classifier)
    p, markers, focus = np.empty((len(cells), 3)), np.empty((len(cells), 3), np.float32), np.empty(len(cells))
    for rows, readings in zip(runs, map_runs(read, [places.iloc[rows] for rows in runs]), strict=True):
        p[rows], markers[rows], focus[rows] = readings
    calls = decide(p, classifier.thresholds, classifier.calibration.prevalence)
    # Whatever its markers, by every definition of a CTC and of a leukocyte it has a nucleus.
    calls[cells["nucleus_area_um2"].to_numpy() == 0] = "artefact"
    p_markers = positivity(classifier.positivity, markers, cells.assign(call=calls), panel)
    chances = np.stack(list(p_markers.values()), axis=1)
    positive = np.nan_to_num(chances) >= POSITIVE
    calls[(calls == "ctc") & (unmarked(chances) | _unsupported(cells, panel, positive))] = INDETERMINATE
    columns = {
        **{f"p_{name}": p[:, index] for index, name in enumerate(CLASSES)},
        "call": calls,
        "phenotype": phenotypes(calls, positive, panel.channel(Role.MESENCHYMAL) is not None),
        **p_markers,
        "focus": focus,
    }
    # Unlike `assign`, this copies none of the columns that are there.
    kept = {str(name): cells[name] for name in cells}
    called = pd.DataFrame({**kept, **columns}, index=cells.index, copy=False)
    called.attrs.update(cells.attrs)
    return called


def read_cells(
    slide: ScaledPixels,
    channels: Mapping[str, int],
    panel: Panel,
    background: Background,
    labels: Any,
    classifier: Classifier,
    cells: pd.DataFrame,
) -> Readings:
    """Read class, markers and focus of some cells off their crops.

    Parameters
    ----------
    slide, channels, panel, background, labels, classifier
        As for `call_cells`.
    cells : DataFrame
        With `cell_id`, `y_px`, `x_px`, in the order of `crop_order`.

    Returns
    -------
    p, positivity : ndarray of float64 and float32, shape (n, 3)
        See `Classifier.predict`.
    focus : ndarray of float64, shape (n,)
        See `edge_sharpness`.
    """
    readings = [
        (*classifier.predict(batch), edge_sharpness(batch))
        for batch in iterate_crops(slide, channels, panel, background, labels, cells)
    ]
    p, markers, focus = (np.concatenate(parts) for parts in zip(*readings, strict=True))
    return p, markers, focus


def decide(p: np.ndarray, thresholds: Thresholds, prevalence: tuple[float, float, float]) -> np.ndarray:
    """Turn probabilities into calls.

    A cell is a CTC only from the threshold for rare cells on. Below it, a cell whose prediction set holds the CTC
    is indeterminate, and so is one that is liker to a CTC than to anything else, if all were equally common. Any
    other is the likelier of leukocyte and artefact, for a doubt between these two changes no count of CTCs.

    Parameters
    ----------
    p : ndarray of float64, shape (n, 3)
        Probabilities in the order of `CLASSES`.
    thresholds : Thresholds
    prevalence : tuple of float
        At which `p` holds.

    Returns
    -------
    ndarray of str objects, shape (n,)
    """
    sets = prediction_sets(p, thresholds, prevalence)
    others = np.array(CLASSES, object)[1:]
    calls = others[p[:, 1:].argmax(axis=1)]
    likest = at_prevalence(p, prevalence, BALANCED).argmax(axis=1) == 0
    calls[sets[:, 0] | likest] = INDETERMINATE
    calls[p[:, 0] >= thresholds.ctc] = CLASSES[0]
    return calls


def prediction_sets(p: np.ndarray, thresholds: Thresholds, prevalence: tuple[float, float, float]) -> np.ndarray:
    """Tell which classes a cell can't be denied: of each class, at most 1 - coverage of its cells are.

    Parameters and shapes as of `decide`; the result is bool, shape (n, 3).
    """
    return at_prevalence(p, prevalence, BALANCED) >= np.array(thresholds.sets)


def phenotypes(calls: np.ndarray, positive: np.ndarray, has_mesenchymal: bool) -> np.ndarray:
    """Name the phenotype of each CTC from its markers.

    Parameters
    ----------
    calls : ndarray of str, shape (n,)
    positive : ndarray of bool, shape (n, 2)
        Epithelial and mesenchymal marker.
    has_mesenchymal : bool
        Whether the panel has a mesenchymal marker; without one every CTC is undetermined.

    Returns
    -------
    ndarray of str objects, shape (n,)
        Empty for cells that aren't CTCs; ``undetermined`` too where neither marker is positive.
    """
    epithelial, mesenchymal = positive[:, 0], positive[:, 1] & has_mesenchymal
    names = np.full(len(calls), "undetermined", object)
    names[epithelial & has_mesenchymal] = "epithelial"
    names[mesenchymal] = "mesenchymal"
    names[mesenchymal & epithelial] = "hybrid"
    names[calls != "ctc"] = ""
    return names


def edge_sharpness(batch: CropBatch) -> np.ndarray:
    """Sharpness of each cell's own nuclear outline, per um.

    The mean gradient of the nuclear stain within one pixel (0.5 um) of the outline, divided by the
    mean stain inside it: a boundary blurred over a width w (um) reads about 1 / w, whatever the
    stain's strength. NaN where there is no nucleus or no stain. For nuclei of SNR below about 5 the
    noise's own gradient shows.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    stain, nucleus = batch.roles[:, 0], batch.masks[:, 1] >= 0.5
    square = np.ones((1, 3, 3), bool)
    edge = ndimage.binary_dilation(nucleus, square) & ~ndimage.binary_erosion(nucleus, square)
    gradient = np.hypot(*np.gradient(stain, UM_PER_PX, axis=(1, 2)))
    with np.errstate(invalid="ignore", divide="ignore"):
        steepness = (gradient * edge).sum((1, 2), dtype=np.float64) / edge.sum((1, 2))
        strength = (stain * nucleus).sum((1, 2), dtype=np.float64) / nucleus.sum((1, 2))
        return np.where(strength > 0, steepness / strength, np.nan)


def write_crops(
    path: Path,
    slide: ScaledPixels,
    channels: Mapping[str, int],
    panel: Panel,
    cells: pd.DataFrame,
    background: Background | None = None,
    slide_id: str | None = None,
) -> None:
    """Write the raw crops of all candidates (called ctc or indeterminate) as a Zarr group.

    The group (Zarr format 2) has `crops`, uint16 (N, C, 48, 48) at 0.5 um a pixel with channels in
    panel order, and `cell_id`, int64 (N,). Its attributes are `pixel_size_um`, `channels`, `low` and
    `high` (contrast limits per channel, from the background), `scale`, `offset` and, if given,
    `slide_id`. The slide's own value is ``crops * scale + offset``, per channel: 1 and 0 for uint8
    and uint16 slides; for other types the range from a third of the contrast below `low` to four
    times the contrast is kept, and what lies outside it is clipped.

    Parameters
    ----------
    path : Path
        The group's folder, replaced if it exists.
    slide : Slide
    channels : mapping of str to int
    panel : Panel
    cells : DataFrame
        With `cell_id`, `y_px`, `x_px`, `call`.
    background : Background, optional
        Measured anew when not given.
    slide_id : str, optional
    """
    import zarr

    background = background or measure_background(slide, channels)
    candidates = cells[cells["call"].isin(CANDIDATES)]
    low, high = _contrast(slide, background)
    scale, offset = _storage(slide, channels, low, high)
    shape = (len(candidates), len(panel.channels), CROP_PX, CROP_PX)
    group = zarr.open_group(path, mode="w", zarr_format=2)
    crops = group.create_array("crops", shape=shape, chunks=(64, *shape[1:]), dtype="uint16")
    ids = group.create_array("cell_id", shape=shape[:1], chunks=(max(shape[0], 1),), dtype="int64")
    start = 0
    for cell_ids, pixels in iterate_raw_crops(slide, channels, candidates):
        stop = start + len(cell_ids)
        stored = (pixels - offset[:, None, None]) / scale[:, None, None]
        crops[start:stop] = stored.round().clip(0, np.iinfo(np.uint16).max).astype(np.uint16)
        ids[start:stop] = cell_ids
        start = stop
    attributes = {"low": low.tolist(), "high": high.tolist(), "scale": scale.tolist(), "offset": offset.tolist()}
    group.attrs.update({"pixel_size_um": UM_PER_PX, "channels": list(panel.shorts), **attributes})
    if slide_id is not None:
        group.attrs["slide_id"] = slide_id


def write_far_view(path: Path, view: FarView) -> None:
    """Add the slide as seen from afar to the group of its crops, for a window that shows all of it at once.

    The array `far_view`, uint16 (C, height, width), is stored as the crops are, by their `scale` and `offset`; its
    attribute `factor` says how many px of the slide a side of each pixel stands for. A slide that isn't larger than
    `SMALL_PX` has none.
    """
    import zarr

    if max(view.planes.shape[1:]) * view.factor <= SMALL_PX:
        return
    group: Any = zarr.open_group(path, mode="r+")
    scale, offset = (np.array(group.attrs[name], np.float64)[:, None, None] for name in ("scale", "offset"))
    planes = ((view.planes - offset) / scale).round().clip(0, np.iinfo(np.uint16).max).astype(np.uint16)
    array = group.create_array("far_view", shape=planes.shape, chunks=(1, *planes.shape[1:]), dtype="uint16")
    array[:] = planes
    array.attrs["factor"] = view.factor


def _unsupported(cells: pd.DataFrame, panel: Panel, positive: np.ndarray) -> np.ndarray:
    """Cells that are only mesenchymal, where the panel asks for a tumour marker and theirs is negative."""
    only_mesenchymal = positive[:, 1] & ~positive[:, 0]
    if not panel.mesenchymal_needs_tumour_marker:
        return np.zeros_like(only_mesenchymal)
    supported = np.zeros_like(only_mesenchymal)
    for channel in panel.channels:
        if channel.role == Role.TUMOUR:
            supported |= cells[f"{channel.short}_snr"].to_numpy() >= TUMOUR_POSITIVE_SNR
    return only_mesenchymal & ~supported


def _contrast(slide: ScaledPixels, background: Background) -> tuple[np.ndarray, np.ndarray]:
    """Contrast limits per channel: the slide's median background, and `CONTRAST_SNR` of noise above it."""
    height, width = slide.shape[-2:]
    samples = [
        np.stack(background.window(y, y + 1, x, x + 1))[:, :, 0, 0]
        for y in np.linspace(0, height - 1, CONTRAST_GRID).astype(int).tolist()
        for x in np.linspace(0, width - 1, CONTRAST_GRID).astype(int).tolist()
    ]
    level, noise = np.median(samples, axis=0).astype(np.float64)
    return level, level + CONTRAST_SNR * noise


def _storage(
    slide: ScaledPixels, channels: Mapping[str, int], low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset per channel that bring the slide's values into uint16."""
    if slide.read([next(iter(channels.values()))], 0, 1, 0, 1).dtype in (np.uint8, np.uint16):
        return np.ones_like(low), np.zeros_like(low)
    contrast = high - low
    return contrast * (4 + 1 / 3) / np.iinfo(np.uint16).max, low - contrast / 3
