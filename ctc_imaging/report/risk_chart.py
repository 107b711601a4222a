"""One patient's course as a picture: what was measured above, the risk as known at each visit below."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ctc_imaging.errors import ConfigError
from ctc_imaging.files import atomic_path
from ctc_imaging.report.figures import INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint import JointModel

RISK, EARLIER, CUTOFF = "#0072b2", "#8fb8d9", "#8a5a00"
_KINDS = (".svg", ".png")


@dataclass(frozen=True)
class Course:
    """What the picture shows.

    Parameters
    ----------
    values : DataFrame
        `time`, `value`, `low`, `high` of the marker; limits may be NaN.
    risks : DataFrame
        As of `recurrence.joint.prediction.updates`: `time`, `risk`, `low`, `high`.
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


def draw_course(course: Course) -> Figure:
    """Draw the two panels, one above the other on one axis of time."""
    with matplotlib.rc_context({**STYLE, "font.size": 9}):
        figure = Figure(figsize=(6.6, 4.6))
        upper = figure.add_axes((0.11, 0.6, 0.86, 0.36))
        lower = figure.add_axes((0.11, 0.11, 0.86, 0.4), sharex=upper)
        _draw_values(upper, course)
        _draw_risks(lower, course)
        first = min([0.0, *course.values["time"]])
        upper.set_xlim(first - 0.03 * course.horizon, course.horizon * 1.03)
        if course.ticks is not None:
            upper.set_xticks(list(course.ticks), list(course.ticks.values()))
        upper.tick_params(labelbottom=False)
        lower.set_xlabel(course.time_name)
    return figure


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
    above = values["value"] >= (np.inf if course.cutoff is None else course.cutoff)
    colours = np.where(above, INK, "#ffffff")
    axes.scatter(values["time"], values["value"], s=30, c=colours, edgecolors=INK, linewidths=1.1, zorder=3)
    if course.cutoff is not None:
        axes.axhline(course.cutoff, color=CUTOFF, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.annotate("cut-off", (1, course.cutoff), xycoords=("axes fraction", "data"), xytext=(0, 2),
                      textcoords="offset points", color=CUTOFF, ha="right")  # fmt: skip
    axes.set_ylabel(course.value_name)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=bool(values["value"].max() >= 4)))
    if (values["value"] >= 0).all():
        axes.set_ylim(bottom=-0.06 * max(1.0, float(values[["value", "high"]].max().max())))
    _plain(axes)


def _draw_risks(axes: Axes, course: Course) -> None:
    risks = course.risks
    axes.axvline(course.horizon, color="#999999", linewidth=0.8, linestyle=(0, (2, 2)))
    if course.usual is not None and len(course.usual):
        axes.plot(course.usual["time"], course.usual["risk"], color="#777777", linewidth=1, linestyle=(0, (1, 1.5)))
        last = course.usual.iloc[-1]
        axes.annotate("all patients", (last["time"], last["risk"]), xytext=(5, -3), textcoords="offset points",
                      color="#555555")  # fmt: skip
    axes.plot(risks["time"], risks["risk"], color=EARLIER, linewidth=1, zorder=2)
    for rows, colour, width, size in ((risks.iloc[:-1], EARLIER, 1.4, 30), (risks.iloc[-1:], RISK, 2.4, 70)):
        axes.vlines(rows["time"], rows["low"], rows["high"], colour, linewidth=width, zorder=2)
        axes.scatter(rows["time"], rows["risk"], s=size, color=colour, zorder=3)
    if len(risks):
        _name_latest(axes, course)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylabel(f"Risk {course.horizon_name}")
    _plain(axes)


def _name_latest(axes: Axes, course: Course) -> None:
    latest = course.risks.iloc[-1]
    right = latest["time"] < 0.72 * course.horizon
    text = f"now {latest['risk']:.0%} ({latest['low']:.0%} to {latest['high']:.0%})".replace("%", " %")
    axes.annotate(text, (latest["time"], latest["risk"]), xytext=(9 if right else -9, 5), textcoords="offset points",
                  ha="left" if right else "right", color=RISK, fontweight="bold", fontsize=10)  # fmt: skip


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5, colors=INK)
