"""The report's drawings as inline SVG: same data, same bytes, text kept as text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from ctc_imaging.report.words import label

if TYPE_CHECKING:
    from ctc_imaging.recurrence import Curve

# Okabe and Ito's colours, told apart by colour-blind readers; line styles tell them apart in grey print.
GROUPS = {
    "persistently_negative": ("#0072b2", "-"),
    "turned_negative": ("#009e73", (0, (6, 2))),
    "turned_positive": ("#b87800", (0, (4, 1.5, 1, 1.5))),
    "persistently_positive": ("#d55e00", (0, (1.5, 1.5))),
}
OTHER_GROUP = ("#555555", "-")
EVENTS = {"surgery": "#555555", "recurrence": "#c2410c", "death": "#111111"}
INK = "#1f2933"
NO_COUNT = -0.75  # where visits without a count stand, below zero on the counts' transformed axis
LINEAR_PER_ML = 0.3  # the counts' axis is linear below about this, logarithmic above, and shows zero
LINEAR_DAYS = 20.0  # the same for time, so that the visits of the first month stay apart
COUNT_TICKS = (0, 1, 10, 100, 1000, 10000, 0.3, 3, 30, 300, 3000)  # the ones that must stay come first
DAY_TICKS = {0: "0", 7: "1 wk", 30: "1 mo", 91: "3 mo", 183: "6 mo", 365: "1 y", 730: "2 y", 1826: "5 y", 3653: "10 y"}
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.family": "DejaVu Sans", "font.size": 8, "axes.linewidth": 0.6}


def to_svg(figure: Figure, name: str, alt: str) -> str:
    """Draw a figure as an SVG element for inlining.

    Parameters
    ----------
    figure : Figure
        A figure made without pyplot.
    name : str
        Unique on the page: it seeds the ids, so that two figures never share one.
    alt : str
        What the figure shows, for people who can't see it.

    Returns
    -------
    str
        ``<svg ...>...</svg>`` that scales with its container.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r" xmlns(:xlink)?=\"[^\"]*\"| (width|height)=\"[\d.]+pt\"| version=\"1.1\"", "", svg)
    svg = re.sub(r" transform=\"rotate\(-0 [^\"]*\"", "", svg)
    svg = svg.replace("xlink:href", "href").replace("'DejaVu Sans'", "inherit")
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([\w.-]+)"', lambda hit: hit[0] if hit[1] in used else "", svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1).strip()


def draw_patient(
    series: pd.DataFrame, cutoff_per_ml: float | None, events: dict[str, float], top_per_ml: float
) -> Figure:
    """Draw one patient's CTCs per mL over time.

    Parameters
    ----------
    series : DataFrame
        Rows of timeline.csv in order of `day`.
    cutoff_per_ml : float or None
        The cut-off over its own volume.
    events : dict of str to float
        Day of `surgery`, `recurrence`, `death`, as far as known.
    top_per_ml : float
        Upper end of the axis, the same for all patients so that they compare by eye.

    Returns
    -------
    Figure
        Counts with exact Poisson limits; visits without a count stand in a strip of their own below zero.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.1, 2.1))
        axes = figure.add_axes((0.135, 0.11, 0.855, 0.72))
        _frame_patient(axes, [*series["day"], *events.values()], top_per_ml)
        if cutoff_per_ml is not None:
            axes.axhline(float(_height(cutoff_per_ml)), color="#8a5a00", linewidth=0.9, linestyle=(0, (4, 2)))
        _draw_counts(axes, series)
        _draw_gaps(axes, series)
        _draw_events(axes, events)
    return figure


def draw_survival(curves: Sequence[Curve], at_risk: pd.DataFrame, landmark_day: float, horizon_days: float) -> Figure:
    """Draw Kaplan-Meier curves with limits and the numbers at risk beneath.

    Parameters
    ----------
    curves : sequence of Curve
        As made by `recurrence.analyse`: `group`, `days`, `survival`, `low`, `high`.
    at_risk : DataFrame
        Groups by days: patients at risk.
    landmark_day, horizon_days : float
        Days since surgery of the start, and of the time point that the tables give.
    """
    with matplotlib.rc_context({**STYLE, "font.size": 8.5}):
        below, plot = 0.62 + 0.2 * len(at_risk), 2.1
        total = below + plot + 0.45
        figure = Figure(figsize=(4.3, total))
        axes = figure.add_axes((0.26, below / total, 0.71, plot / total))
        for curve in curves:
            _draw_curve(axes, curve)
        axes.axvline(horizon_days, color="#999999", linewidth=0.7, linestyle=(0, (2, 2)))
        days = [float(day) for day in at_risk.columns]
        axes.set_xticks(days, [f"{day / 30.4375:.0f}" for day in days])
        axes.set_xlim(landmark_day, max([*days, horizon_days]) * 1.02)
        _percent_axis(axes, "Free of recurrence")
        axes.set_xlabel("Months since surgery")
        if curves:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8, handlelength=3)
        _plain(axes)
        _write_at_risk(axes, at_risk, plot)
    return figure


def draw_risk(table: pd.DataFrame) -> Figure:
    """Draw every patient's landmark risk with its limits, in order of risk.

    Parameters
    ----------
    table : DataFrame
        `risk`, `low`, `high`, each 0 to 1.
    """
    table = table.sort_values("risk", kind="stable").reset_index(drop=True)
    with matplotlib.rc_context({**STYLE, "font.size": 8.5}):
        figure = Figure(figsize=(4.3, 2.3))
        axes = figure.add_axes((0.16, 0.2, 0.81, 0.75))
        axes.fill_between(table.index, table["low"], table["high"], color="#0072b2", alpha=0.2, linewidth=0)
        axes.plot(table.index, table["risk"], color="#0072b2", linewidth=1.4)
        axes.set_xlim(0, max(1, len(table) - 1))
        _percent_axis(axes, "Risk of recurrence")
        axes.set_xlabel("Patients, from the lowest risk to the highest")
        _plain(axes)
    return figure


def group_colour(group: str) -> str:
    """Colour of a pattern's curve."""
    return GROUPS.get(group, OTHER_GROUP)[0]


def _height(per_ml: ArrayLike) -> NDArray[np.float64]:
    return np.arcsinh(np.asarray(per_ml, dtype=float) / LINEAR_PER_ML)


def _spread(day: ArrayLike) -> NDArray[np.float64]:
    return np.arcsinh(np.asarray(day, dtype=float) / LINEAR_DAYS)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5, colors=INK)


def _percent_axis(axes: Axes, name: str) -> None:
    axes.set_ylim(0, 1.01)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel(name)


def _frame_patient(axes: Axes, days: Iterable[float], top_per_ml: float) -> None:
    known = [float(day) for day in days if np.isfinite(day)] or [0.0]
    left, right = (float(end) for end in _spread([min(known), max([*known, 30.0])]))
    top = float(_height(top_per_ml))
    axes.set_xlim(left - 0.35, right + 0.25)
    axes.set_ylim(NO_COUNT - 0.35, top * 1.04)
    ticks = {day: text for day, text in DAY_TICKS.items() if left <= _spread(day) <= right + 0.2}
    axes.set_xticks(_spread(list(ticks)), list(ticks.values()))
    shown = _apart([value for value in COUNT_TICKS if value <= top_per_ml], gap=0.12 * top)
    axes.set_yticks([NO_COUNT, *_height(shown)], ["none", *(f"{value:g}" for value in shown)])
    axes.axhspan(NO_COUNT - 0.35, NO_COUNT + 0.35, color="#e8ebef", linewidth=0)
    axes.set_ylabel("CTC per mL", labelpad=1)
    _plain(axes)


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Keep the values whose heights lie at least `gap` from those kept before them."""
    kept: list[float] = []
    for value in values:
        if all(abs(_height(value) - _height(other)) >= gap for other in kept):
            kept.append(value)
    return sorted(kept)


def _draw_counts(axes: Axes, series: pd.DataFrame) -> None:
    done = series["visit_status"].eq("done") & series["ctc_per_ml"].notna()
    stretch = (~done).cumsum()
    for _, part in series[done].groupby(stretch[done]):
        axes.plot(_spread(part["day"]), _height(part["ctc_per_ml"]), color="#7b8794", linewidth=0.9)
    rows = series[done]
    days, low, high = _spread(rows["day"]), _height(rows["ctc_per_ml_low"]), _height(rows["ctc_per_ml_high"])
    axes.vlines(days, low, high, INK, linewidth=1)
    fills = {"positive": INK, "negative": "#ffffff"}
    colours = [fills.get(str(status), "#b8c0c9") for status in rows["status"]]
    axes.scatter(days, _height(rows["ctc_per_ml"]), s=22, c=colours, edgecolors=INK, linewidths=1, zorder=3)


def _draw_gaps(axes: Axes, series: pd.DataFrame) -> None:
    for status, mark in {"missed": "x", "not_assessable": "s"}.items():
        days = series.loc[series["visit_status"] == status, "day"]
        if len(days):
            axes.scatter(_spread(days), np.full(len(days), NO_COUNT), s=18, c="#5f6b7a", marker=mark, linewidths=1.2)


def _draw_events(axes: Axes, events: dict[str, float]) -> None:
    last = (-np.inf, 0)
    left, right = axes.get_xlim()
    for name, day in sorted(events.items(), key=lambda event: event[1]):
        place = float(_spread(day))
        axes.axvline(place, color=EVENTS[name], linewidth=1, linestyle=(0, (3, 2)) if name == "recurrence" else "-")
        # Names of events close to one another stand on two lines above the frame.
        level = 1 - last[1] if place - last[0] < 0.2 * (right - left) else 0
        last = (place, level)
        side = "right" if place > right - 0.12 * (right - left) else "center"
        height = 1.03 + 0.1 * level
        axes.text(place, height, name, color=EVENTS[name], ha=side, transform=axes.get_xaxis_transform())


def _draw_curve(axes: Axes, curve: Curve) -> None:
    colour, line = GROUPS.get(curve.group, OTHER_GROUP)
    axes.fill_between(curve.days, curve.low, curve.high, step="post", color=colour, alpha=0.13, linewidth=0)
    name = label(curve.group)
    axes.step(curve.days, curve.survival, where="post", color=colour, linestyle=line, linewidth=1.6, label=name)


def _write_at_risk(axes: Axes, at_risk: pd.DataFrame, axes_inches: float) -> None:
    """Write the numbers at risk beneath the axis, in the curves' colours, each under its day."""
    beside, under = axes.transAxes, axes.get_xaxis_transform()
    axes.text(-0.05, -0.5 / axes_inches, "At risk", transform=beside, ha="right", fontsize=8)
    for row, group in enumerate(at_risk.index):
        height, colour = -(0.68 + 0.2 * row) / axes_inches, group_colour(str(group))
        axes.text(-0.05, height, label(group), transform=beside, ha="right", fontsize=8, color=colour)
        for day, count in zip(at_risk.columns, at_risk.loc[group], strict=True):
            axes.text(float(day), height, str(int(count)), transform=under, ha="center", fontsize=8, color=colour)
