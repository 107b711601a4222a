"""Drift for the page: which batches are unlike the slides that the model learnt from, and in what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.drift import DRIFT_COLUMNS, DRIFT_CSV, FALSE_ALARMS
from ctc_imaging.drift.judging import RUN, TRAINING
from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.drift_chart import draw_drift, title_of
from ctc_imaging.report.figures import to_svg
from ctc_imaging.report.source import Run, read_table
from ctc_imaging.report.words import number, percent

REMEDIES = {
    "intensity": "compare stain lots, exposure and lamp with those of earlier batches",
    "size": "check the pixel size, then fixation and drying of the slides",
    "sharpness": "check the focus map, and scan again where slides are blurred",
    "crowding": "put fewer cells on a slide, and look at how cells that touch were split",
    "balance": "look at cells called artefact and indeterminate: dirt, dye, or cells that broke",
    "confidence": "review cells of these slides, and train with them if the model errs",
}
_TEXTS = ("slide_id", "sample_id", "site", "batch", "batch_name", "panel", "kind", "figure", "channel", "role")


@dataclass(frozen=True, eq=False)
class DriftPage:
    """What the page says of drift; `rows` has one row a batch with an alarm, and also feeds the list of warnings."""

    tone: str
    sentence: str
    remarks: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    chart: str
    slides_csv: str
    batches_csv: str
    training: bool
    false_alarms: str


def drift_page(run: Run) -> DriftPage:
    """Gather what was judged when the run was counted.

    Parameters
    ----------
    run : Run
        Without drift.csv (made by an older version) the page says how to make it.
    """
    table = read_drift(run)
    judged = table[table["against"] != ""]
    reference = run.facts["model"].get("reference")
    rows = tuple(_batch_row(batch) for _, batch in _alarms(judged).groupby("batch_name", sort=False))
    tone, sentence = _verdict(table, judged, len(rows))
    return DriftPage(
        tone=tone,
        sentence=sentence,
        remarks=tuple(_remarks(judged, reference, run.simulated)),
        rows=rows,
        chart=_chart(judged, rows),
        slides_csv=csv_link(_slide_values(judged)),
        batches_csv=csv_link(_batch_values(judged)),
        training=bool((judged["against"] == TRAINING).any()),
        false_alarms=percent(FALSE_ALARMS),
    )


def read_drift(run: Run) -> pd.DataFrame:
    """Read drift.csv; empty where the run is of an older version."""
    table = read_table(run.folder.path / DRIFT_CSV, DRIFT_COLUMNS)
    words = {name: table[name].fillna("").astype(str) for name in (*_TEXTS, "against", "alarm")}
    numbers = {name: table[name].astype(float) for name in ("cells", "value", "expected", "batch_value", "low", "high")}
    return table.assign(**words, **numbers)


def shown(figure: str, value: float) -> str:
    """A figure's value as a person reads it.

    Examples
    --------
    >>> shown("artefact_share", 0.0312), shown("leukocyte_snr", 9.4556), shown("mean_top_probability", 0.99563)
    ('3.1 %', '9.46', '0.9956')
    """
    if figure.endswith("_share"):
        return percent(value, 1 if value >= 0.01 else 2)
    if figure == "mean_top_probability":
        return f"{value:.4f}"
    return f"{value:.2g}" if abs(value) < 1 else number(value, 3)


def _alarms(judged: pd.DataFrame) -> pd.DataFrame:
    """One row a batch and figure with an alarm, batches by their first sample."""
    begun = judged.groupby("batch_name")["sample_date"].transform("min")
    ordered = judged.assign(begun=begun).sort_values(["begun", "batch_name"], kind="stable")
    alarms = ordered[ordered["alarm"] != ""]
    return alarms.drop_duplicates(["batch_name", "figure", "channel"])


def _verdict(table: pd.DataFrame, judged: pd.DataFrame, drifted: int) -> tuple[str, str]:
    if table.empty:
        why = "no slide could be assessed, or the run was made by an older version (ctc-imaging counts RUN measures it)"
        return "", f"Drift wasn't measured: {why}."
    batches = judged["batch_name"].nunique()
    if not batches:
        why = "the model keeps no record of its training slides, and there are fewer than five batches to compare"
        return "", f"Drift can't be judged: {why}."
    training = (judged["against"] == TRAINING).any()
    like = "the slides that the model learnt from" if training else "the others"
    if not drifted:
        return "good", f"No drift: {'the batch is' if batches == 1 else f'all {batches} batches are'} like {like}."
    return "bad", f"{drifted} of {_batches(batches)} {'is' if drifted == 1 else 'are'} unlike {like}."


def _batches(count: int) -> str:
    return f"{count} batch{'' if count == 1 else 'es'}"


def _remarks(judged: pd.DataFrame, reference: Any, simulated: bool) -> list[str]:
    remarks = []
    if reference is None and len(judged):
        remarks.append(
            "The model has no record of its training slides, so each batch is compared with the others of its site "
            "instead: a drift that they all share doesn't show."
        )
    if reference is not None and reference["simulated"] and not simulated:
        remarks.append(
            "The model learnt from simulated slides. A real laboratory's slides differ from those, and so an alarm on "
            "every batch is to be expected until the model is trained with slides of your own."
        )
    return remarks


def _batch_row(alarms: pd.DataFrame) -> dict[str, Any]:
    kinds = list(dict.fromkeys(alarms["kind"]))
    return {
        "batch": str(alarms["batch_name"].iloc[0]),
        "figures": [_figure(row) for row in alarms.to_dict("records")],
        "remedy": "; ".join(REMEDIES[kind] for kind in kinds),
    }


def _figure(row: dict[Any, Any]) -> dict[str, str]:
    name = row["figure"]
    return {
        "title": title_of(name, row["channel"]),
        "value": shown(name, row["batch_value"]),
        "expected": shown(name, row["expected"]),
        "limits": _limits(name, row["low"], row["high"]),
        "rule": "with the two batches before it" if row["alarm"] == RUN else "",
    }


def _limits(figure: str, low: float, high: float) -> str:
    if np.isnan(low) or np.isnan(high):
        known = high if np.isnan(low) else low
        return "" if np.isnan(known) else f"at {'most' if np.isnan(low) else 'least'} {shown(figure, known)}"
    return f"{shown(figure, low)} to {shown(figure, high)}"


def _slide_values(judged: pd.DataFrame) -> pd.DataFrame:
    """One row a slide, one column a figure: far shorter than drift.csv, which has a row for each of both."""
    if judged.empty:
        return judged
    named = judged.assign(figure=_figure_names(judged))
    return named.pivot_table("value", ["slide_id", "sample_date", "batch_name"], "figure", sort=False).reset_index()


def _batch_values(judged: pd.DataFrame) -> pd.DataFrame:
    """One row a batch and figure: its value, what is expected, the limits."""
    own = judged.assign(figure=_figure_names(judged)).drop_duplicates(["batch_name", "figure"])
    return own[["batch_name", "figure", "batch_value", "expected", "low", "high", "alarm"]]


def _figure_names(judged: pd.DataFrame) -> pd.Series:
    return (judged["channel"] + "_" + judged["figure"]).str.removeprefix("_")


def _chart(judged: pd.DataFrame, rows: tuple[dict[str, Any], ...]) -> str:
    if judged.empty:
        return ""
    named = ", ".join(row["batch"] for row in rows) or "none"
    alt = f"Control charts of {_batches(judged['batch_name'].nunique())}; with an alarm: {named}"
    return to_svg(draw_drift(judged), "drift", alt)
