"""The batch charts: stains by slide, and controls by date, each against its own kind."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctc_imaging.report.figures import INK, STYLE
from ctc_imaging.report.words import marker

ODD = "#b42318"
MEDIAN = "#0072b2"
SHADE = "#f1f3f6"
COLUMNS = {"strength": "stain", "background": "background"}
_LEAST_SPAN = 2.4  # the axis reaches at least this many times up and down, so that limits at half and double show
_TICKS = {1 / 16: "¹⁄₁₆", 1 / 8: "⅛", 1 / 4: "¼", 1 / 2: "½", 1.0: "1", 2.0: "2", 4.0: "4", 8.0: "8", 16.0: "16"}
_NAMED = 12  # more names than this on one drawing can't be read


def draw_stains(figures: pd.DataFrame, odd: pd.DataFrame, channels: Sequence[str]) -> Figure:
    """Draw strength and background of every stain by slide, in order of date within batches in order of date.

    Parameters
    ----------
    figures : DataFrame
        As from `batch_quality.stain_figures`.
    odd : DataFrame
        Of those the rows that stand out, as from `batch_quality.stain_remarks`.
    channels : sequence of str
        Short names, one line of the drawing each.

    Returns
    -------
    Figure
        Times the median of all slides; each batch's own median is a line, and what stands out is marked and named.
    """
    places = slide_places(figures)
    batches = figures.drop_duplicates("slide_id").set_index("slide_id")["batch_name"].reindex(places.index)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 1.25 * len(channels) + 0.5))
        grid = figure.subplots(len(channels), len(COLUMNS), squeeze=False, sharex=True)
        figure.subplots_adjust(0.065, 0.03, 0.995, 1 - 0.36 / (1.25 * len(channels) + 0.5), wspace=0.1, hspace=0.12)
        for column, (name, words) in enumerate(COLUMNS.items()):
            for row, channel in enumerate(channels):
                axes: Axes = grid[row, column]
                shade_batches(axes, places, batches, label=row == 0)
                chosen = (figures["channel"] == channel) & (figures["figure"] == name)
                which = (odd["channel"] == channel) & (odd["figure"] == name)
                _draw_slides(axes, figures[chosen], set(odd.loc[which, "slide_id"]), places)
                axes.set_ylabel(f"{marker(channel)} {words}" if name == "strength" else words, fontsize=7.5)
                axes.set_xlim(-0.8, len(places) - 0.2)
                axes.set_xticks([])
                plain_axes(axes)
    return figure


def slide_places(figures: pd.DataFrame) -> pd.Series:
    """Place of every slide on the axis, by `slide_id`: batches by their first date, slides by theirs."""
    slides = figures.drop_duplicates("slide_id")
    begun = slides.groupby("batch_name")["sample_date"].transform("min")
    ordered = slides.assign(begun=begun).sort_values(["begun", "batch_name", "sample_date", "slide_id"], kind="stable")
    return pd.Series(range(len(ordered)), index=ordered["slide_id"].to_numpy())


def draw_controls(controls: pd.DataFrame) -> Figure:
    """Draw blanks and donors as CTCs per mL, spiked samples as the share recovered, each kind in order of date.

    Parameters
    ----------
    controls : DataFrame
        As from `batch_quality.judge_controls`, of these three kinds, with a rate.

    Returns
    -------
    Figure
        With exact 95 % limits and a dashed line at the rate of all of a kind; failed ones are marked and named.
    """
    kinds = [kind for kind in ("blank", "donor", "spiked") if (controls["sample_kind"] == kind).any()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 2.0))
        grid = figure.subplots(1, len(kinds), squeeze=False)
        figure.subplots_adjust(0.065, 0.17, 0.995, 0.87, wspace=0.2)
        for axes, kind in zip(grid[0], kinds, strict=True):
            _draw_kind(axes, controls[controls["sample_kind"] == kind].reset_index(drop=True), kind == "spiked")
            axes.set_title({"blank": "Blanks", "donor": "Donors", "spiked": "Spiked samples"}[kind], fontsize=8.5)
    return figure


def shade_batches(axes: Axes, places: pd.Series, batches: pd.Series, label: bool) -> None:
    """Shade every other batch, and name them above where there is room.

    Parameters
    ----------
    axes : Axes
    places, batches : Series
        Place and batch of every slide, by `slide_id`.
    label : bool
    """
    names = list(dict.fromkeys(batches))
    for number, name in enumerate(names):
        own = places[batches == name]
        if number % 2 == 0 and len(names) > 1:
            axes.axvspan(own.min() - 0.5, own.max() + 0.5, color=SHADE, linewidth=0)
        if label and len(names) <= _NAMED:
            axes.text((own.min() + own.max()) / 2, 1.04, name, transform=axes.get_xaxis_transform(), ha="center")


def _draw_slides(axes: Axes, rows: pd.DataFrame, odd: set[str], places: pd.Series) -> None:
    if rows.empty:
        axes.set_yticks([])
        axes.text(0.5, 0.45, "not measured on any slide", transform=axes.transAxes, ha="center", color="#52606d")
        return
    place = rows["slide_id"].map(places).to_numpy(dtype=float)
    level = (rows["log_value"] - rows["log_value"].median()).to_numpy(dtype=float)
    own = np.array(rows["slide_id"].isin(odd), dtype=bool)
    for _, part in rows.assign(place=place, level=level).groupby("peers", sort=False):
        ends = (part["place"].min() - 0.5, part["place"].max() + 0.5)
        axes.hlines(part["level"].median(), *ends, color=MEDIAN, linewidth=1)
        if len(part) > 1:
            axes.hlines(part["level"].median() + np.log([0.5, 2]), *ends, color=MEDIAN, linewidth=0.5, linestyle=":")
    axes.plot(place[~own], level[~own], "o", markersize=2.6, color=INK, markeredgewidth=0)
    axes.plot(place[own], level[own], "D", markersize=4.2, color=ODD, markeredgewidth=0)
    span = max(np.log(_LEAST_SPAN), 1.2 * float(np.abs(level).max()))
    axes.set_ylim(-span, span)
    shown = [value for value in _TICKS if abs(np.log(value)) < span]
    axes.set_yticks(np.log(shown), [_TICKS[value] for value in shown])
    _write_names(axes, place[own], level[own], list(rows.loc[own, "slide_id"]))


def _draw_kind(axes: Axes, rows: pd.DataFrame, as_share: bool) -> None:
    failed = np.array(rows["verdict"] == "failed", dtype=bool)
    place, rate = np.arange(len(rows)), rows["rate"].to_numpy(dtype=float)
    pooled = rows["found"].sum() / rows["out_of"].sum()
    axes.axhline(pooled, color=MEDIAN, linewidth=0.9, linestyle=(0, (4, 2)))
    for which, colour, shape in ((~failed, INK, "o"), (failed, ODD, "D")):
        axes.vlines(place[which], rows.loc[which, "low"], rows.loc[which, "high"], color=colour, linewidth=1)
        axes.plot(place[which], rate[which], shape, markersize=4, color=colour, markeredgewidth=0)
    top = max(1.0, float(rows["high"].max()))
    axes.set_ylim(-0.04 * top, 1.08 * top)
    axes.set_xlim(-0.7, len(rows) - 0.3)
    if as_share:
        axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        axes.axhline(0.5, color="#999999", linewidth=0.6, linestyle=":")
    axes.set_ylabel("recovered" if as_share else "CTC per mL", labelpad=1)
    step = -(-len(rows) // 8)
    labels = rows["batch"].where(rows["batch"] != "", rows["sample_date"])
    axes.set_xticks(place[::step], list(labels[::step]))
    _write_names(axes, place[failed], rate[failed], list(rows.loc[failed, "sample_id"]))
    plain_axes(axes)


def _write_names(axes: Axes, place: np.ndarray, level: np.ndarray, names: Sequence[str]) -> None:
    """Name what stands out, on the side of the point where there is room."""
    middle = sum(axes.get_xlim()) / 2
    for x, y, name in list(zip(place, level, names, strict=True))[:_NAMED]:
        side, shift = ("right", -4) if x > middle else ("left", 4)
        axes.annotate(name, (x, y), (shift, 0), textcoords="offset points", ha=side, va="center", color=ODD)


def plain_axes(axes: Axes) -> None:
    """Take off what isn't needed of a drawing's frame."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5, colors=INK)
