"""The control charts of drift: every figure by slide and batch, with what training's slides have, and the limits."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ctc_imaging.drift import FIGURES
from ctc_imaging.report.charts import MEDIAN, ODD, plain_axes, shade_batches, slide_places
from ctc_imaging.report.figures import INK, STYLE
from ctc_imaging.report.words import marker

TITLES = {
    "leukocyte_snr": "{} on leukocytes, SNR",
    "ctc_snr": "{} on CTCs, SNR",
    "background": "{} background, grey levels",
    "noise": "{} noise, grey levels",
    "leukocyte_diameter_um": "Leukocyte diameter, µm",
    "leukocyte_nucleus_um2": "Leukocyte nucleus, µm²",
    "ctc_diameter_um": "CTC diameter, µm",
    "leukocyte_focus": "Sharpness of nuclei, per µm",
    "touching_share": "Touching another, % of cells",
    "artefact_share": "Artefacts, % of cells",
    "indeterminate_share": "Indeterminate, % of cells",
    "ctc_share": "CTCs, % of cells",
    "mean_top_probability": "Mean top probability",
    "mean_entropy": "Mean entropy, nats",
    "low_confidence_share": "Low confidence, % of cells",
}
_ACROSS = 4
_PANEL_IN = (2.35, 1.12)
# More dots than this on one drawing only blacken it.
_MOST_SLIDES = 300
_MOST_NAMES = 8


def draw_drift(judged: pd.DataFrame) -> Figure:
    """Draw one control chart a figure, slides in order of date within batches in order of date.

    Parameters
    ----------
    judged : DataFrame
        Rows of drift.csv that could be judged.

    Returns
    -------
    Figure
        Dots are slides, a bar is a batch. What is expected is a line across, the limits are dashed. A batch with an
        alarm is a diamond, named, and its chart has a title in bold with a mark: neither rests on colour.
    """
    places = slide_places(judged)
    batches = judged.drop_duplicates("slide_id").set_index("slide_id")["batch_name"].reindex(places.index)
    charts = _in_order(judged)
    rows = -(-len(charts) // _ACROSS)
    height = rows * _PANEL_IN[1] + 0.35
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_ACROSS * _PANEL_IN[0], height))
        grid = figure.subplots(rows, _ACROSS, squeeze=False)
        figure.subplots_adjust(0.045, 0.02, 0.995, 1 - 0.36 / height, wspace=0.25, hspace=0.42)
        for axes in grid.ravel()[len(charts) :]:
            axes.remove()
        for place, (axes, (title, part)) in enumerate(zip(grid.ravel(), charts, strict=False)):
            shade_batches(axes, places, batches, label=False)
            _draw_chart(axes, part, places, title)
            axes.set_xlim(-0.8, len(places) - 0.2)
            if place < _ACROSS:
                _name_batches(axes, places, batches)
    return figure


def title_of(figure: str, channel: str) -> str:
    """Name a figure, with its stain where it has one.

    Examples
    --------
    >>> title_of("leukocyte_snr", "cd45"), title_of("artefact_share", "")
    ('CD45 on leukocytes, SNR', 'Artefacts, % of cells')
    """
    return TITLES[figure].format(marker(channel))


def _in_order(judged: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Charts in the order of `FIGURES`, stains in that of the panel."""
    order = {name: place for place, name in enumerate(FIGURES)}
    groups = judged.groupby(["figure", "channel"], sort=False)
    found = [(str(figure), str(channel), part) for (figure, channel), part in groups]
    found.sort(key=lambda chart: order[chart[0]])
    return [(title_of(figure, channel), part) for figure, channel, part in found]


def _draw_chart(axes: Axes, part: pd.DataFrame, places: pd.Series, title: str) -> None:
    place = part["slide_id"].map(places).to_numpy(dtype=float)
    batches = part.assign(place=place).groupby("batch_name", sort=False)
    verdicts = batches.first().assign(start=batches["place"].min() - 0.4, stop=batches["place"].max() + 0.4)
    off = verdicts[verdicts["alarm"] != ""]
    _bars(axes, verdicts, "expected", color="#7b8794", linewidth=0.7)
    for limit in ("low", "high"):
        _bars(axes, verdicts, limit, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    if len(places) <= _MOST_SLIDES:
        axes.plot(place, part["value"], "o", markersize=2, color=INK, markeredgewidth=0, alpha=0.55)
    _bars(axes, verdicts.drop(off.index), "batch_value", color=MEDIAN, linewidth=1.4)
    _bars(axes, off, "batch_value", color=ODD, linewidth=1.4)
    axes.plot((off["start"] + off["stop"]) / 2, off["batch_value"], "D", markersize=5, color=ODD, markeredgewidth=0)
    bold = len(off) > 0
    axes.set_title(f"▲ {title}" if bold else title, fontsize=7.5, pad=3, fontweight="bold" if bold else "normal")
    _scale(axes, part)
    plain_axes(axes)
    axes.set_xticks([])


def _bars(axes: Axes, batches: pd.DataFrame, name: str, **style: Any) -> None:
    """Draw a level across each batch; as one line with gaps, which takes a tenth of the space on the page."""
    level = batches[name].to_numpy(dtype=float)
    gap = np.full(len(level), np.nan)
    across = np.column_stack([batches["start"], batches["stop"], gap]).ravel()
    axes.plot(across, np.column_stack([level, level, gap]).ravel(), solid_capstyle="butt", **style)


def _scale(axes: Axes, part: pd.DataFrame) -> None:
    """Leave air around all that is drawn, and write shares in per cent."""
    drawn = part[["value", "expected", "batch_value", "low", "high"]].to_numpy(dtype=float)
    low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    air = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - air, high + air)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(labelsize=6.5)
    if str(part["figure"].iloc[0]).endswith("_share"):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))


def _name_batches(axes: Axes, places: pd.Series, batches: pd.Series) -> None:
    """Name the batches above the first row, as many as there is room for."""
    names = list(dict.fromkeys(batches))
    if len(names) > _MOST_NAMES:
        return
    for name in names:
        own = places[batches == name]
        short = name.removeprefix("batch ")
        across = axes.get_xaxis_transform()
        axes.text((own.min() + own.max()) / 2, 1.26, short, transform=across, ha="center", fontsize=6.5, color=INK)
