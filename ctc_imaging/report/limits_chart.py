"""Estimates side by side: a row a group, a panel a quantity, a dot with its 95 % limits each."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from ctc_imaging.report.figures import INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR = "#0072b2"
_ROW, _ABOVE, _BELOW, _WIDTH = 0.27, 0.1, 0.62, 5.4
_INCHES_A_LETTER = 0.062
_RATIOS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


@dataclass(frozen=True)
class Panel:
    """One quantity.

    Parameters
    ----------
    name : str
    values : sequence of (float, float, float)
        Estimate and limits of each row; NaN where there is none.
    kind : str
        ``number`` from 0 on, ``share`` from 0 to 100 %, ``difference`` of shares, or ``ratio`` on a logarithmic axis.
    """

    name: str
    values: Sequence[tuple[float, float, float]]
    kind: str = "number"


def draw_limits(rows: Sequence[str], panels: Sequence[Panel]) -> Figure:
    """Draw the estimates; no effect, where a quantity has one, is a dotted line.

    Parameters
    ----------
    rows : sequence of str
        Names, top to bottom.
    panels : sequence of Panel
        Left to right.

    Returns
    -------
    Figure
    """
    with matplotlib.rc_context({**STYLE, "font.size": 8}):
        height = _ABOVE + _ROW * len(rows) + _BELOW
        figure = Figure(figsize=(_WIDTH, height))
        names = 0.06 * max(len(row) for row in rows) + 0.1
        left, wide = names / _WIDTH, (1 - names / _WIDTH) / len(panels)
        for place, panel in enumerate(panels):
            box = (left + place * wide, _BELOW / height, 0.76 * wide, _ROW * len(rows) / height)
            axes = figure.add_axes(box)
            _draw_panel(axes, panel, int(0.92 * wide * _WIDTH / _INCHES_A_LETTER))
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_yticks(range(len(rows)), rows if place == 0 else [""] * len(rows))
    return figure


def _draw_panel(axes: Axes, panel: Panel, letters: int) -> None:
    values = np.asarray(panel.values, dtype=float)
    places = np.arange(len(values))
    axes.hlines(places, values[:, 1], values[:, 2], COLOUR, linewidth=1.6)
    axes.plot(values[:, 0], places, "o", color=COLOUR, markersize=5, markeredgewidth=0)
    none = {"difference": 0.0, "ratio": 1.0}.get(panel.kind)
    if none is not None:
        axes.axvline(none, color="#777777", linewidth=0.9, linestyle=(0, (1, 1.5)), zorder=0)
    _SCALES[panel.kind](axes, values)
    axes.set_xlabel(textwrap.fill(panel.name, max(letters, 8)), labelpad=2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5, colors=INK)
    axes.tick_params(axis="y", length=0)


def _number(axes: Axes, values: np.ndarray[Any, Any]) -> None:
    axes.set_xlim(0, 1.06 * max(float(np.nanmax(values, initial=0.0)), 1e-9))
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))


def _share(axes: Axes, values: np.ndarray[Any, Any]) -> None:
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])


def _difference(axes: Axes, values: np.ndarray[Any, Any]) -> None:
    reach = 1.1 * max(float(np.nanmax(np.abs(values), initial=0.0)), 0.05)
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], symmetric=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:+.0f} %".replace("-", "−") if x else "0"))


def _ratio(axes: Axes, values: np.ndarray[Any, Any]) -> None:
    axes.set_xscale("log")
    known = values[np.isfinite(values) & (values > 0)]
    low, high = min(0.4, *known) / 1.1, max(2.5, *known) * 1.1
    shown = [ratio for ratio in _RATIOS if low <= ratio <= high]
    axes.set_xticks(shown, [f"{ratio:g}" for ratio in shown])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low, high)
    axes.tick_params(axis="x", which="minor", length=0)


_SCALES = {"number": _number, "share": _share, "difference": _difference, "ratio": _ratio}
