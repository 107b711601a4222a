"""Cross-validated risks as a picture: told against happened, and the net benefit of acting on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
from matplotlib.figure import Figure

from ctc_imaging.report.figures import INK, STYLE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLOUR = "#0072b2"
_LINES = {"treat everybody": ("#777777", (0, (1, 1.5))), "treat nobody": ("#111111", "-")}
_OTHER = ("#b87800", (0, (5, 2)))
_TICKS = ([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])


def draw_validation(groups: pd.DataFrame, benefit: pd.DataFrame, model: str) -> Figure:
    """Draw calibration and decision curves side by side.

    Parameters
    ----------
    groups : DataFrame
        As of `recurrence.validation.Calibration.groups`.
    benefit : DataFrame
        As of `recurrence.net_benefit.decision_curve`.
    model : str
        The one whose calibration it is; its curve is bold, with limits.

    Returns
    -------
    Figure
    """
    with matplotlib.rc_context({**STYLE, "font.size": 8.5}):
        figure = Figure(figsize=(7.2, 2.9))
        _draw_calibration(figure.add_axes((0.09, 0.17, 0.33, 0.72)), groups)
        _draw_benefit(figure.add_axes((0.55, 0.17, 0.41, 0.72)), benefit, model)
    return figure


def _draw_calibration(axes: Axes, groups: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color="#777777", linewidth=0.9, linestyle=(0, (1, 1.5)))
    axes.vlines(groups["predicted"], groups["low"], groups["high"], COLOUR, linewidth=1.4)
    axes.plot(groups["predicted"], groups["observed"], "o", color=COLOUR, markersize=5, markeredgewidth=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="Risk told", ylabel="Recurred or died by then")
    axes.set_xticks(*_TICKS)
    axes.set_yticks(*_TICKS)
    axes.set_title("Did it happen as often as told?", fontsize=9, loc="left")
    _plain(axes)


def _draw_benefit(axes: Axes, benefit: pd.DataFrame, model: str) -> None:
    for name, curve in benefit.groupby("model", sort=False):
        colour, line = _LINES.get(str(name), (COLOUR, "-") if name == model else _OTHER)
        axes.plot(curve["threshold"], curve["value"], color=colour, linestyle=line, label=name,
                  linewidth=2 if name == model else 1.2)  # fmt: skip
        if name == model:
            axes.fill_between(curve["threshold"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
    top = float(benefit["value"].max())
    axes.set_ylim(-0.25 * top, 1.25 * top)
    axes.set_xlim(benefit["threshold"].min(), benefit["threshold"].max())
    axes.set_xticks([0.2, 0.4, 0.6, 0.8], ["20 %", "40 %", "60 %", "80 %"])
    axes.set(xlabel="Risk from which one would act", ylabel="Net benefit")
    axes.set_title("Would acting on it pay?", fontsize=9, loc="left")
    axes.legend(loc="upper right", frameon=False, fontsize=8, handlelength=2.4)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5, colors=INK)
