"""How the CTC status moved up to the landmark, by what came after it: early or late recurrence, its site, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.figures import GROUPS, INK, STYLE, to_svg
from ctc_imaging.report.source import Run
from ctc_imaging.report.survival import survival_tables
from ctc_imaging.report.words import label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ctc_imaging.recurrence.dynamics import Dynamics

NO_PATTERN = "#c3cad2"
# So that a photocopy tells them apart; a number stands on a plain ground.
HATCHES = {
    "persistently_negative": "",
    "turned_negative": "...",
    "turned_positive": "\\\\\\",
    "persistently_positive": "xxx",
    "no_pattern": "",
}
_NAMES = {
    "early": "recurrence within {years}",
    "late": "recurrence later",
    "none": "no recurrence within {years}",
    "death_without_recurrence": "death without recurrence",
    "lost": "seen for less than {years}",
}
_LEAST_WRITTEN = 0.05  # of the bar: a narrower part holds no number


@dataclass(frozen=True)
class DynamicsPage:
    """The part of the section; `reason` tells why there is nothing."""

    reason: str = ""
    figure: str = ""
    csv: str = ""
    rows: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def dynamics_page(run: Run) -> DynamicsPage:
    """Lay patterns and changes up to the landmark beside what came after it.

    Parameters
    ----------
    run : Run
        Its own patients, or those of RUN/survival/ where it has them.

    Returns
    -------
    DynamicsPage
    """
    from ctc_imaging.recurrence.dynamics import dynamics, recurrence_outcomes

    try:
        timeline, clinical = survival_tables(run)
        if clinical is None or timeline.empty:
            return DynamicsPage("There is no clinical table, or no sample of a patient")
        outcomes = recurrence_outcomes(clinical)
        seen = outcomes[outcomes.index.isin(timeline["patient_id"])]
        found = dynamics(timeline, seen, float(run.folder.settings().landmark_day))
    except CtcImagingError as error:
        return DynamicsPage(str(error))
    if found.patients.empty:
        return DynamicsPage(f"Nobody was followed beyond day {found.landmark_day:g}")
    return _page(found)


def _page(found: Dynamics) -> DynamicsPage:
    everyone = found.table[(found.table["site"] == "all") & (found.table["patients"] > 0)]
    alt = f"Patterns of CTC status by day {found.landmark_day:g}, by what came after it"
    named = found.table[found.table["patients"] > 0].to_dict("records")
    return DynamicsPage(
        figure=to_svg(draw_patterns(everyone), "dynamics", alt),
        csv=csv_link(found.table),
        rows=tuple(_row(row) for row in named),
        notes=found.notes,
    )


def draw_patterns(table: pd.DataFrame) -> Figure:
    """Draw one bar an outcome, divided by pattern.

    Parameters
    ----------
    table : DataFrame
        Rows of `recurrence.dynamics.Dynamics.table`, one an outcome.

    Returns
    -------
    Figure
        Every bar is as long as the others; the numbers in it are patients.
    """
    with matplotlib.rc_context({**STYLE, "font.size": 8.5, "hatch.linewidth": 0.5}):
        height = 0.75 + 0.32 * len(table)
        figure = Figure(figsize=(5.4, height))
        axes = figure.add_axes((0.42, 0.08 / height, 0.56, 0.32 * len(table) / height))
        left = [0.0] * len(table)
        for pattern, colour in {**{name: GROUPS[name][0] for name in GROUPS}, "no_pattern": NO_PATTERN}.items():
            parts = list(table[pattern] / table["patients"])
            name = "not known" if pattern == "no_pattern" else label(pattern)
            axes.barh(range(len(table)), parts, left=left, height=0.74, color=colour, label=name,
                      hatch=HATCHES[pattern], edgecolor="#ffffff", linewidth=0.8)  # fmt: skip
            _write_numbers(
                axes, list(table[pattern]), parts, left, colour, INK if pattern == "no_pattern" else "#ffffff"
            )
            left = [start + part for start, part in zip(left, parts, strict=True)]
        names = [f"{outcome_name(row['outcome'])}, {row['patients']}" for row in table.to_dict("records")]
        axes.set_yticks(range(len(table)), names)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(table) - 0.5, -0.5)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=INK)
        figure.legend(loc="upper center", ncols=3, frameon=False, fontsize=8, handlelength=1, columnspacing=1.2)
    return figure


def outcome_name(outcome: str) -> str:
    """Words for a code of `recurrence.dynamics.OUTCOMES`."""
    return _NAMES[outcome].format(years="2 years")


def _write_numbers(
    axes: Axes, counts: list[int], parts: list[float], left: list[float], ground: str, colour: str
) -> None:
    for place, (count, part, start) in enumerate(zip(counts, parts, left, strict=True)):
        if part >= _LEAST_WRITTEN:
            axes.text(start + part / 2, place, f"{count}", ha="center", va="center", color=colour, fontsize=8,
                      bbox={"facecolor": ground, "linewidth": 0, "pad": 1.5})  # fmt: skip


def _row(row: dict[Any, Any]) -> dict[str, str]:
    site = str(row["site"])
    return {
        "name": outcome_name(str(row["outcome"])) if site == "all" else site,
        "whole": "yes" if site == "all" else "",
        **{name: f"{row[name]}" for name in ("patients", *GROUPS, "no_pattern")},
        **{name: f"{row[name]}" for name in ("rise", "fall", "not_distinguishable", "not_comparable")},
    }
