"""What is followed of every slide: strength of stains, size of cells, balance of classes, confidence of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ctc_imaging.cohort import SlideEntry
from ctc_imaging.counting import counted_cells
from ctc_imaging.drift.scales import from_scale, to_scale
from ctc_imaging.panel import Panel, Role

# Controls hold other cells, cell lines or none: what is off in them is judged with the controls.
FOLLOWED_KINDS = ("patient", "donor")
LOW_CONFIDENCE = 0.9
"""A cell whose likeliest class has a lower probability counts as one of low confidence."""

# Markers that a CTC carries; its nuclear stain goes with that of the leukocytes.
_ON_CTCS = (Role.EPITHELIAL, Role.MESENCHYMAL, Role.TUMOUR)
# Medians of fewer cells are a lottery, and so are shares.
_MIN_CELLS = 20
MIN_CTCS = 3
# Of the sum of two cells' radii: by outlines that are a little generous, cells side by side nearly touch as well.
_TOUCHING = 0.9
_P = ["p_ctc", "p_leukocyte", "p_artefact"]


@dataclass(frozen=True)
class Figure:
    """A figure of a slide.

    Attributes
    ----------
    kind : {"intensity", "size", "sharpness", "crowding", "balance", "confidence"}
    scale : str
        See `scales.to_scale`.
    ratio : float
        How many times less or more than expected still is of no consequence, however sure.
    judged : bool
        Whether it may sound the alarm.
    own_camera : bool
        In grey levels, which only slides of one camera share.
    only_more : bool
        More of it, on its scale, is an alarm, and less isn't: a sparse slide gives less to doubt.
    """

    kind: str
    scale: str
    ratio: float
    judged: bool = True
    own_camera: bool = False
    only_more: bool = False


# Ratios: training varies gain by 0.7 to 1.4 and size by 0.8 to 1.25, and half of that (as a ratio) is left alone. How
# patients' CTCs stain and how large they are is the tumour's own, so that only half and double is news there.
FIGURES: Mapping[str, Figure] = {
    "leukocyte_snr": Figure("intensity", "arcsinh", 1.2),
    "background": Figure("intensity", "log", 1.2, own_camera=True),
    "noise": Figure("intensity", "log", 1.2, own_camera=True),
    "ctc_snr": Figure("intensity", "arcsinh", 2.0),
    "ctc_diameter_um": Figure("size", "log", 1.5),
    "leukocyte_diameter_um": Figure("size", "log", 1.05),
    "leukocyte_nucleus_um2": Figure("size", "log", 1.1),
    "leukocyte_focus": Figure("sharpness", "log", 1.2),
    "touching_share": Figure("crowding", "share", 2.0, only_more=True),
    "artefact_share": Figure("balance", "share", 1.5),
    "indeterminate_share": Figure("balance", "share", 2.0, only_more=True),
    # What is to be measured is no sign of drift.
    "ctc_share": Figure("balance", "share", 2.0, judged=False),
    "mean_top_probability": Figure("confidence", "certainty", 1.5, only_more=True),
    "mean_entropy": Figure("confidence", "share", 1.5, only_more=True),
    "low_confidence_share": Figure("confidence", "share", 1.5, only_more=True),
}


class Measured(NamedTuple):
    """A figure of one slide, and how many cells it is of; 0 for those of the background."""

    figure: str
    channel: str
    role: str
    cells: int
    value: float


def slide_figures(cells: pd.DataFrame, quality: Mapping[str, Any], panel: Panel) -> list[Measured]:
    """Measure a slide, by the model's own calls.

    Parameters
    ----------
    cells : DataFrame
        Columns of cells.parquet. Where there is a `machine_call`, reviews have changed `call`, and it is used instead.
    quality : mapping
        The slide's quality.json.
    panel : Panel
        The slide's own. Of two channels with one role the first is measured, as the classifier sees that only.

    Returns
    -------
    list of Measured
        Empty for a slide that isn't assessable; without the figures that it has too few cells for.
    """
    if not quality["assessable"]:
        return []
    return [*_grounds(quality.get("channels", {}), panel), *cell_figures(cells, panel)]


def cell_figures(cells: pd.DataFrame, panel: Panel, least_ctcs: int = MIN_CTCS) -> list[Measured]:
    """Measure the cells of a slide, or of a part of it; see `slide_figures`.

    Figures of CTCs need `least_ctcs` of them. Cells that the edge of the scan cuts are left out: a small slide has
    more of them, and the model doubts them.
    """
    cut = cells["edges"].fillna("") != "" if "edges" in cells else False
    whole = cells[counted_cells(cells) & ~pd.Series(cut, index=cells.index)]
    call = whole["machine_call" if "machine_call" in whole else "call"].astype(str)
    leukocytes, ctcs = whole[call == "leukocyte"], whole[call == "ctc"]
    ctcs = ctcs if len(ctcs) >= least_ctcs else ctcs[:0]
    sizes = (*_sizes(leukocytes, ctcs), *_crowding(whole))
    return [*_stains(leukocytes, ctcs, panel), *sizes, *_shares(call), *_confidence(whole)]


def drift_rows(
    entry: SlideEntry, cells: pd.DataFrame, quality: Mapping[str, Any], panel: Panel
) -> list[dict[str, Any]]:
    """Measure a slide of a cohort: one row a figure, with the slide's place in the cohort; empty for controls.

    Parameters
    ----------
    entry : SlideEntry
        The slide as the cohort table has it.
    cells, quality, panel
        See `slide_figures`.

    Returns
    -------
    list of dict
    """
    if entry.sample_kind not in FOLLOWED_KINDS:
        return []
    place = {
        "slide_id": entry.slide_id,
        "sample_id": entry.sample_id,
        "sample_date": entry.sample_date.isoformat(),
        "site": entry.site or "",
        "batch": entry.batch or "",
        "panel": panel.name,
    }
    measured = slide_figures(cells, quality, panel)
    return [{**place, "kind": FIGURES[row.figure].kind, **row._asdict()} for row in measured]


def _grounds(grounds: Mapping[str, Any], panel: Panel) -> Iterator[Measured]:
    for short, role in _first_of_each_role(panel):
        for figure in ("background", "noise"):
            level = float(grounds.get(short, {}).get(figure, 0))
            if level > 0:
                yield Measured(figure, short, role, 0, level)


def _stains(leukocytes: pd.DataFrame, ctcs: pd.DataFrame, panel: Panel) -> Iterator[Measured]:
    for short, role in _first_of_each_role(panel):
        yield from _median("leukocyte_snr", leukocytes, f"{short}_snr", short, role)
        if role in _ON_CTCS:
            yield from _mean("ctc_snr", ctcs, f"{short}_snr", short, role)


def _first_of_each_role(panel: Panel) -> Iterator[tuple[str, str]]:
    roles = [channel.role for channel in panel.channels]
    for place, channel in enumerate(panel.channels):
        if channel.role not in roles[:place]:
            yield channel.short, str(channel.role)


def _sizes(leukocytes: pd.DataFrame, ctcs: pd.DataFrame) -> Iterator[Measured]:
    yield from _median("leukocyte_diameter_um", leukocytes, "diameter_um")
    yield from _median("leukocyte_nucleus_um2", leukocytes, "nucleus_area_um2")
    yield from _mean("ctc_diameter_um", ctcs, "diameter_um")
    yield from _median("leukocyte_focus", leukocytes, "focus")


def _crowding(cells: pd.DataFrame) -> Iterator[Measured]:
    """Tell how many cells touch another, by their centres: cells that touch are split and merged wrongly."""
    if len(cells) >= _MIN_CELLS and {"y_um", "x_um", "diameter_um"} <= set(cells):
        places, radius_um = cells[["y_um", "x_um"]].to_numpy(np.float64), cells["diameter_um"].to_numpy(np.float64) / 2
        distance_um, nearest = cKDTree(places).query(places, k=2)
        yield from _share("touching_share", distance_um[:, 1] < _TOUCHING * (radius_um + radius_um[nearest[:, 1]]))


def _shares(call: pd.Series) -> Iterator[Measured]:
    for name in ("artefact", "indeterminate", "ctc"):
        yield from _share(f"{name}_share", (call == name).to_numpy())


def _confidence(cells: pd.DataFrame) -> Iterator[Measured]:
    if len(cells) >= _MIN_CELLS and set(_P) <= set(cells):
        p = cells[_P].to_numpy(np.float64)
        top = p.max(axis=1)
        yield Measured("mean_top_probability", "", "", len(p), float(top.mean()))
        yield Measured("mean_entropy", "", "", len(p), float(entropy(p).mean()))
        yield from _share("low_confidence_share", top < LOW_CONFIDENCE)


def entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of class probabilities (n, 3) in nats, 0 where the model is certain.

    Examples
    --------
    >>> entropy(np.array([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]])).round(4).tolist()
    [0.0, 1.0986]
    """
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=1) + 0.0


def _median(figure: str, cells: pd.DataFrame, column: str, channel: str = "", role: str = "") -> Iterator[Measured]:
    known = _known(cells, column)
    if len(known) >= _MIN_CELLS:
        yield Measured(figure, channel, role, len(known), float(known.median()))


def _mean(figure: str, cells: pd.DataFrame, column: str, channel: str = "", role: str = "") -> Iterator[Measured]:
    """Tell the mean on the figure's scale, which few cells allow: many CTCs are rare."""
    scale, known = FIGURES[figure].scale, _known(cells, column)
    if len(known):
        middle = from_scale(scale, to_scale(scale, known).mean())
        yield Measured(figure, channel, role, len(known), float(middle))


def _known(cells: pd.DataFrame, column: str) -> pd.Series:
    """Values of a column, none where a table of an older version lacks it."""
    return cells[column].dropna() if column in cells else pd.Series(dtype=float)


def _share(figure: str, where: NDArray[np.bool_]) -> Iterator[Measured]:
    if where.size >= _MIN_CELLS:
        yield Measured(figure, "", "", where.size, float(where.mean()))
