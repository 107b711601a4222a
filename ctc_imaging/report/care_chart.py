"""What was done and found beside the counts, on the same axis of time: imaging, treatment, events, other markers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter

from ctc_imaging.report.figures import EVENTS, INK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from ctc_imaging.report.risk_chart import Course

# Told apart by shape and filling, so that a photocopy shows them too.
SCANS = {"negative": ("v", "#ffffff"), "equivocal": ("v", "#9aa5b1"), "positive": ("v", INK)}
_LINES = {"recurrence": (0, (3, 2)), "death": "-"}
_LATEST = 1.5  # times the horizon: later events would press the rest together
_DECADES = 20.0  # values that differ by more are drawn on a logarithmic axis


def last_time(course: Course) -> float:
    """Tell where the axis of time ends: at the horizon, or somewhat later where something happened there."""
    scans = [] if course.scans is None else list(course.scans["time"])
    times = [*course.values["time"], *course.events.values(), *scans, *course.gaps]
    times += [time for table in course.others.values() for time in table["time"]]
    within = [float(time) for time in times if time <= _LATEST * course.horizon]
    return max([course.horizon, *within])


def draw_care(axes: Axes, course: Course) -> None:
    """Draw scans as triangles (filled: positive) above bars of treatment."""
    if course.scans is not None:
        for result, (mark, fill) in SCANS.items():
            own = course.scans[(course.scans["result"] == result) & (course.scans["time"] <= last_time(course))]
            heights = np.full(len(own), 1.0)
            axes.scatter(own["time"], heights, s=38, c=fill, marker=mark, edgecolors=INK, linewidths=1, zorder=3)
    for name, begin, end in course.treatments:
        axes.broken_barh([(begin, max(end - begin, 2.0))], (-0.35, 0.7), facecolor="#d3dae2", edgecolor=INK,
                         linewidth=0.6, hatch="////")  # fmt: skip
        axes.annotate(name, (end, 0), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_ylim(-0.6, 1.6)
    axes.set_yticks(*(([0, 1], ["adjuvant", "imaging"]) if course.treatments else ([1], ["imaging"])))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5, colors=INK)
    axes.tick_params(axis="y", length=0)


def draw_marker(axes: Axes, course: Course, name: str) -> None:
    """Draw another marker's values, on a logarithmic axis where they differ much."""
    table = course.others[name]
    table = table[table["time"] <= last_time(course)].sort_values("time", kind="stable")
    axes.plot(
        table["time"], table["value"], color=INK, linewidth=0.9, marker="D", markersize=4.5, markerfacecolor="#fff"
    )
    positive = table.loc[table["value"] > 0, "value"]
    if len(positive) == len(table) and len(table) and positive.max() > _DECADES * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif len(table):
        axes.set_ylim(0, max(1.1 * float(table["value"].max()), 1e-9))
    axes.set_ylabel(name)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5, colors=INK)


def draw_events(panels: Sequence[Axes], course: Course) -> None:
    """Draw a line for each event through all panels, named above the first."""
    left, right = panels[0].get_xlim()
    last, level = -np.inf, 0
    for name, time in sorted(course.events.items(), key=lambda event: event[1]):
        if time > right:
            continue
        for axes in panels:
            axes.axvline(
                time, color=EVENTS.get(name, INK), linewidth=1, linestyle=_LINES.get(name, (0, (1, 1))), zorder=1
            )
        level = 1 - level if time - last < 0.16 * (right - left) else 0
        last = time
        side = (
            "right"
            if time > right - 0.1 * (right - left)
            else "left"
            if time < left + 0.1 * (right - left)
            else "center"
        )
        panels[0].annotate(name, (time, 1), xycoords=("data", "axes fraction"), xytext=(0, 3 + 10 * level),
                           textcoords="offset points", ha=side, color=EVENTS.get(name, INK), fontsize=8.5)  # fmt: skip
