"""One patient's course as a picture: what was measured above, the risk as known at each visit below."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ctc_imaging.errors import ConfigError
from ctc_imaging.files import atomic_path
from ctc_imaging.report.care_chart import draw_care, draw_events, draw_marker, last_time
from ctc_imaging.report.figures import INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint import JointModel

RISK, EARLIER, CUTOFF = "#0072b2", "#8fb8d9", "#8a5a00"
# White behind words that a line may cross.
HALO: dict[str, Any] = {"facecolor": "#ffffff", "alpha": 0.85, "linewidth": 0, "pad": 1}
_KINDS = (".svg", ".png")
_ABOVE, _BETWEEN, _BELOW = 0.36, 0.2, 0.5  # inches


@dataclass(frozen=True)
class Course:
    """What the picture shows.

    Parameters
    ----------
    values : DataFrame
        `time`, `value`, `low`, `high` of the marker; limits may be NaN. With `status` positive ones are filled,
        and those without one are grey.
    risks : DataFrame
        As of `recurrence.joint.prediction.updates`: `time`, `risk`, `low`, `high`; without a row there is no panel.
    value_name, time_name : str
        Of the axes.
    horizon : float
        Time that the risk is by.
    horizon_name : str
        As ``within 2 years``.
    cutoff : float or None
        Of the values.
    usual : DataFrame or None
        `time`, `risk`: mean risk of the others at the same times.
    ticks : dict of float to str or None
        Marks of the axis of time.
    cutoff_name : str
    known : str
        What is said after the latest risk, as ``known on day 347``.
    events : dict of str to float
        Time of what happened, by its name.
    gaps : sequence of float
        Times of visits without a value.
    scans : DataFrame or None
        `time`, `result` of imaging (`negative`, `positive`, `equivocal`).
    treatments : sequence of (str, float, float)
        Name, begin and end.
    others : dict of str to DataFrame
        `time`, `value` of further markers, a panel each.
    """

    values: pd.DataFrame
    risks: pd.DataFrame
    value_name: str
    time_name: str
    horizon: float
    horizon_name: str
    cutoff: float | None = None
    usual: pd.DataFrame | None = None
    ticks: dict[float, str] | None = None
    cutoff_name: str = "cut-off"
    known: str = ""
    events: dict[str, float] = field(default_factory=dict)
    gaps: Sequence[float] = ()
    scans: pd.DataFrame | None = None
    treatments: Sequence[tuple[str, float, float]] = ()
    others: dict[str, pd.DataFrame] = field(default_factory=dict)


def draw_course(course: Course) -> Figure:
    """Draw the panels, one above the other on one axis of time: care, counts, risk, other markers."""
    care = bool(course.treatments) or course.scans is not None
    panels: list[tuple[Callable[[Axes, Course], None], float]] = [
        *([(draw_care, 0.5)] if care else []),
        (_draw_values, 1.65),
        *([(_draw_risks, 1.85)] if len(course.risks) else []),
        *((partial(draw_marker, name=name), 1.05) for name in course.others),
    ]
    with matplotlib.rc_context({**STYLE, "font.size": 9}):
        total = _ABOVE + sum(height + _BETWEEN for _, height in panels) - _BETWEEN + _BELOW
        figure = Figure(figsize=(6.6, total))
        top, shared = total - _ABOVE, None
        for draw, height in panels:
            axes = figure.add_axes((0.11, (top - height) / total, 0.86, height / total), sharex=shared)
            draw(axes, course)
            shared, top = shared or axes, top - height - _BETWEEN
        _frame_time(figure.axes, course)
        draw_events(figure.axes, course)
    return figure


def _frame_time(panels: Sequence[Axes], course: Course) -> None:
    first = min([0.0, *course.values["time"]])
    panels[0].set_xlim(first - 0.045 * course.horizon, last_time(course) * 1.03)
    if course.ticks is not None:
        shown = {time: name for time, name in course.ticks.items() if time <= last_time(course) + 1}
        panels[0].set_xticks(list(shown), list(shown.values()))
    for axes in panels[:-1]:
        axes.tick_params(labelbottom=False)
    panels[-1].set_xlabel(course.time_name)


def save_updates(path: Path, own: FollowUp, risks: pd.DataFrame, model: JointModel) -> None:
    """Draw one subject's measurements and risks into a file.

    Parameters
    ----------
    path : Path
        Ends in .svg or .png.
    own : FollowUp
        Of the subject.
    risks : DataFrame
        As of `recurrence.joint.prediction.updates`.
    model : JointModel

    Raises
    ------
    ConfigError
        If the name ends in something else.
    """
    if path.suffix.lower() not in _KINDS:
        raise ConfigError("--picture", f"{path.name} is neither .svg nor .png", "name a file that ends in one")
    marker = model.design.markers[0]
    shown = own.long[own.long[own.time] <= risks["time"].max()]
    outcome = marker.outcome.get_model_matrix(shown, na_action="ignore").to_numpy(dtype=float)[:, 0]
    values = pd.DataFrame({"time": shown[own.time].to_numpy(float), "value": outcome, "low": np.nan, "high": np.nan})
    horizon = float(risks["horizon"].max())
    course = Course(values, risks, marker.spec.name, own.time, horizon, f"by {horizon:g} {own.time_unit}")
    figure = draw_course(course)
    with atomic_path(path) as partial:
        figure.savefig(partial, format=path.suffix.lower()[1:], dpi=150)


def _draw_values(axes: Axes, course: Course) -> None:
    values = course.values.dropna(subset=["value"])
    axes.plot(values["time"], values["value"], color="#7b8794", linewidth=0.9)
    limited = values.dropna(subset=["low", "high"])
    axes.vlines(limited["time"], limited["low"], limited["high"], INK, linewidth=1)
    colours = _fills(values, course.cutoff)
    axes.scatter(values["time"], values["value"], s=30, c=colours, edgecolors=INK, linewidths=1.1, zorder=3)
    if course.cutoff is not None:
        axes.axhline(course.cutoff, color=CUTOFF, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.annotate(course.cutoff_name, (1, course.cutoff), xycoords=("axes fraction", "data"), xytext=(0, 2),
                      textcoords="offset points", color=CUTOFF, ha="right", bbox=HALO)  # fmt: skip
    if len(course.gaps):
        axes.scatter(course.gaps, np.zeros(len(course.gaps)), s=30, c="#5f6b7a", marker="x", linewidths=1.4, zorder=3)
    if (values["time"] < 0).any() and "surgery" in course.events:
        axes.annotate("before surgery", (min(values["time"]), 0.5), xycoords=("data", "axes fraction"), xytext=(-5, 0),
                      textcoords="offset points", ha="right", va="center", rotation=90, fontsize=7,
                      color="#52606d")  # fmt: skip
    axes.set_ylabel(course.value_name)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=bool(values["value"].max() >= 4)))
    if (values["value"] >= 0).all():
        top = float(np.nanmax([1.0, course.cutoff or 0.0, *values["value"], *values["high"]]))
        axes.set_ylim(-0.08 * top, 1.08 * top)
    _plain(axes)


def _fills(values: pd.DataFrame, cutoff: float | None) -> list[str]:
    if "status" in values:
        return [{"positive": INK, "negative": "#ffffff"}.get(str(status), "#b8c0c9") for status in values["status"]]
    return [INK if value >= (np.inf if cutoff is None else cutoff) else "#ffffff" for value in values["value"]]


def _draw_risks(axes: Axes, course: Course) -> None:
    risks = course.risks
    axes.axvline(course.horizon, color="#777777", linewidth=0.9, linestyle=(0, (2, 2)))
    axes.annotate("the risk\nis by here", (course.horizon, 0.02), xytext=(-4, 0), textcoords="offset points",
                  ha="right", va="bottom", fontsize=7.5, color="#52606d")  # fmt: skip
    if course.usual is not None and len(course.usual):
        axes.plot(course.usual["time"], course.usual["risk"], color="#555555", linewidth=1.8, linestyle=(0, (1, 1.2)))
        last = course.usual.iloc[-1]
        axes.annotate("mean of all patients", (last["time"], last["risk"]), xytext=(5, -3), textcoords="offset points",
                      color="#555555", bbox=HALO)  # fmt: skip
    axes.plot(risks["time"], risks["risk"], color=EARLIER, linewidth=1, zorder=2)
    for rows, colour, width, size in ((risks.iloc[:-1], EARLIER, 1.4, 30), (risks.iloc[-1:], RISK, 2.4, 70)):
        axes.vlines(rows["time"], rows["low"], rows["high"], colour, linewidth=width, zorder=2)
        axes.scatter(rows["time"], rows["risk"], s=size, color=colour, zorder=3)
    if len(risks):
        _name_latest(axes, course)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel(f"Risk {course.horizon_name}")
    _plain(axes)


def _name_latest(axes: Axes, course: Course) -> None:
    latest = course.risks.iloc[-1]
    right = latest["time"] < 0.72 * course.horizon
    limited = f"{latest['risk']:.0%} ({latest['low']:.0%} to {latest['high']:.0%})".replace("%", " %")
    text = f"{limited}\n{course.known}" if course.known else limited
    axes.annotate(text, (latest["time"], latest["risk"]), xytext=(9 if right else -9, 5), textcoords="offset points",
                  ha="left" if right else "right", color=RISK, fontweight="bold", fontsize=9, va="bottom",
                  bbox=HALO)  # fmt: skip


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5, colors=INK)
