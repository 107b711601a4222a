"""What the slides of training are like: centre and spread of every figure, as kept in a model's description."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctc_imaging.drift.figures import FIGURES, Measured, cell_figures, slide_figures
from ctc_imaging.drift.scales import from_scale, to_scale
from ctc_imaging.panel import Panel

FORMAT = "ctc-imaging-drift/1"
# Of fewer slides nobody knows how slides differ.
MIN_SLIDES = 5
PART_UM = 512.0
"""Side of the parts of a slide that are compared: about a camera's field."""

CalledSlide = tuple[pd.DataFrame, Mapping[str, Any]]
"""A slide's cells with the model's calls, and its quality.json."""

_DIGITS = 6


def make_reference(slides: Iterable[CalledSlide], panel: Panel, simulated: bool) -> dict[str, Any]:
    """Sum up the figures of reference slides.

    Parameters
    ----------
    slides : iterable of (DataFrame, mapping)
        Of each slide the columns of cells.parquet and its quality.json; one that isn't assessable is passed over.
    panel : Panel
        Of all of them.
    simulated : bool
        Of simulated slides: grey levels then say nothing about a real camera's.

    Returns
    -------
    dict
        JSON values: `format`, `panel`, `roles`, `simulated`, `slides`, and for each of `figures` (named as by
        `key_of`) the `centre` in its own unit, and on its scale the `spread` between slides beyond what their cells
        explain, the error that `one_cell` alone would have, and the number of `slides`. Figures of fewer than five
        slides are left out.
    """
    wholes, parts = defaultdict(list), defaultdict(list)
    count = 0
    for cells, quality in slides:
        figures = slide_figures(cells, quality, panel)
        count += bool(figures)
        for row in figures:
            wholes[key_of(row.figure, row.role)].append(row)
        for key, same in _by_part(cells, panel).items() if figures else ():
            parts[key].append(same)
    summaries = {key: _summary(rows, parts[key]) for key, rows in sorted(wholes.items()) if len(rows) >= MIN_SLIDES}
    return {
        "format": FORMAT,
        "panel": panel.name,
        "roles": sorted({str(channel.role) for channel in panel.channels}),
        "simulated": simulated,
        "slides": count,
        "figures": {key: summary for key, summary in summaries.items() if summary is not None},
    }


def _by_part(cells: pd.DataFrame, panel: Panel) -> dict[str, list[Measured]]:
    """Measure every part of a slide by itself."""
    part = (cells[["y_um", "x_um"]] // PART_UM).astype(int)
    found: dict[str, list[Measured]] = defaultdict(list)
    for _, inside in cells.groupby([part["y_um"], part["x_um"]], sort=True):
        for row in cell_figures(inside, panel, least_ctcs=1):
            found[key_of(row.figure, row.role)].append(row)
    return found


def key_of(figure: str, role: str) -> str:
    """Name of a figure in a reference; stains go by role, as panels name them differently.

    Examples
    --------
    >>> key_of("leukocyte_snr", "nucleus"), key_of("artefact_share", "")
    ('leukocyte_snr/nucleus', 'artefact_share')
    """
    return f"{figure}/{role}" if role else figure


def comparable(reference: Mapping[str, Any], panel_roles: Iterable[str], simulated: bool) -> set[str]:
    """Return the keys of the figures that slides can be held against.

    Grey levels of simulated slides don't compare with those of a camera. Nor do class balance and confidence between
    panels of other roles, as a model is less sure with a marker less.

    Parameters
    ----------
    reference : mapping
        As from `make_reference`.
    panel_roles : iterable of str
        Roles of the slides' panel.
    simulated : bool
        Whether the slides are simulated.
    """
    same_panel, same_camera = sorted(panel_roles) == reference["roles"], simulated == reference["simulated"]
    return {
        key
        for key in reference["figures"]
        if (figure := FIGURES.get(key.partition("/")[0])) is not None
        and (same_panel or figure.kind not in ("balance", "confidence"))
        and (same_camera or not figure.own_camera)
    }


def _summary(rows: Sequence[Measured], parts: Sequence[Sequence[Measured]]) -> dict[str, Any] | None:
    scale = FIGURES[rows[0].figure].scale
    values = to_scale(scale, [row.value for row in rows])
    one_cell = _error_of_one_cell(scale, parts) if rows[0].cells else 0.0
    if np.isnan(one_cell):
        return None
    within = one_cell**2 / np.maximum([row.cells for row in rows], 1)
    spread = between_slides(values, within)
    centre = float(from_scale(scale, np.average(values, weights=1 / np.maximum(spread**2 + within, 1e-12))))
    figures = {"centre": centre, "spread": spread, "one_cell": one_cell}
    return {**{name: _rounded(value) for name, value in figures.items()}, "slides": len(rows)}


def _error_of_one_cell(scale: str, slides: Sequence[Sequence[Measured]]) -> float:
    """How far one cell would be off, from how far the parts of each slide are from one another.

    Cells of one field share its focus and its light, so that many cells tell less than their number. Parts of the size
    of a field have that in them; what is told of single cells hasn't. NaN where no slide has two parts to compare.
    """
    squares, freedom = 0.0, 0
    for parts in slides:
        values, cells = to_scale(scale, [part.value for part in parts]), np.array([part.cells for part in parts])
        squares += float((cells * (values - np.average(values, weights=cells)) ** 2).sum())
        freedom += len(parts) - 1
    return float(np.sqrt(squares / freedom)) if freedom else np.nan


def between_slides(values: NDArray[np.float64], within: NDArray[np.float64]) -> float:
    """Standard deviation between slides beyond what each value's own variance explains.

    By moments (DerSimonian and Laird, Control Clin Trials 1986;7:177-88).

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
    within : ndarray of float64, shape (n,)
        Variance of each value; 0 where it is exact.

    Returns
    -------
    float

    Examples
    --------
    >>> round(between_slides(np.array([1.0, 2, 3]), np.zeros(3)), 3)
    1.0
    """
    if len(values) < 2:
        return 0.0
    weights = 1 / np.maximum(within, 1e-12)
    total = weights.sum()
    centre = np.average(values, weights=weights)
    excess = float((weights * (values - centre) ** 2).sum()) - (len(values) - 1)
    return float(np.sqrt(max(0.0, excess / (total - (weights**2).sum() / total))))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
