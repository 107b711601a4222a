"""The batches of a run: their controls, and the stains that stand out, ready for the page."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ctc_imaging.assay import pool_recovery
from ctc_imaging.batch_quality import batch_shifts, judge_controls, stain_figures, stain_remarks
from ctc_imaging.panel import CutOff
from ctc_imaging.report.charts import draw_controls, draw_stains
from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.figures import to_svg
from ctc_imaging.report.sections import slide_verdicts
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import MISSING, is_missing, label, limits, marker, number, percent, plural

KINDS = ("blank", "donor", "spiked", "stain_control")
VERDICTS = ("passed", "failed", "not judged")


@dataclass(frozen=True, eq=False)
class BatchPage:
    """What the page says of batches; `controls`, `odd` and `shifts` also feed the list of warnings."""

    controls: pd.DataFrame
    odd: pd.DataFrame
    shifts: pd.DataFrame
    rows: tuple[dict[str, str], ...]
    control_rows: tuple[dict[str, str], ...]
    kinds: tuple[str, ...]
    stains: str
    stains_csv: str
    own_stains: tuple[str, ...]
    control_chart: str
    control_csv: str


def batch_page(run: Run) -> BatchPage:
    """Judge the stains and controls of a run, as they were judged for its tables.

    Parameters
    ----------
    run : Run
        Without a table of stains (made by an older version) there are no charts of stains.
    """
    figures, batches = stain_figures(run.stains), run.batches
    odd = stain_remarks(figures)
    controls = judge_controls(run.counts, batches, CutOff(**run.cutoff) if run.cutoff else None, odd)
    channels = [channel["short"] for channel in run.panel["channels"] if channel["short"] in set(figures["channel"])]
    on_ctcs = set(figures.loc[figures["carrier"] == "CTCs", "channel"]) | {
        short for short in channels if not ((figures["channel"] == short) & (figures["figure"] == "strength")).any()
    }
    return BatchPage(
        controls=controls,
        odd=odd,
        shifts=batch_shifts(figures),
        rows=tuple(_batch_row(run, batch, controls, odd) for batch in _by_date(batches)),
        control_rows=tuple(_control_row(row) for _, row in controls.iterrows()),
        kinds=tuple(kind for kind in KINDS if (controls["sample_kind"] == kind).any()),
        stains=_stain_chart(figures, odd, channels),
        stains_csv=csv_link(figures),
        own_stains=tuple(marker(short) for short in channels if short in on_ctcs),
        control_chart=_control_chart(controls),
        control_csv=csv_link(controls[controls["rate"].notna()]),
    )


def _by_date(batches: pd.DataFrame) -> list[pd.DataFrame]:
    """Split the cohort into its batches, in order of their first sample."""
    begun = batches.groupby("batch_name")["sample_date"].transform("min")
    ordered = batches.assign(begun=begun).sort_values(["begun", "batch_name"], kind="stable")
    return [batch for _, batch in ordered.groupby("batch_name", sort=False)]


def _stain_chart(figures: pd.DataFrame, odd: pd.DataFrame, channels: list[str]) -> str:
    if figures.empty:
        return ""
    named = ", ".join(sorted(set(odd["slide_id"]))) or "none"
    alt = f"Stains of {plural(figures['slide_id'].nunique(), 'slide')} by batch; standing out: {named}"
    return to_svg(draw_stains(figures, odd, channels), "stains", alt)


def _control_chart(controls: pd.DataFrame) -> str:
    drawn = controls[controls["rate"].notna()]
    if drawn.empty:
        return ""
    named = ", ".join(drawn.loc[drawn["verdict"] == "failed", "sample_id"]) or "none"
    return to_svg(draw_controls(drawn), "controls", f"{plural(len(drawn), 'control')} by date; failed: {named}")


def _batch_row(run: Run, batch: pd.DataFrame, controls: pd.DataFrame, odd: pd.DataFrame) -> dict[str, str]:
    name = str(batch["batch_name"].iloc[0])
    slides = run.slides[run.slides["slide_id"].isin(batch["slide_id"])]
    counted = int((slide_verdicts(slides) == "counted").sum())
    first, last = batch["sample_date"].min(), batch["sample_date"].max()
    own = controls[controls["batch_name"] == name]
    off = odd.loc[odd["slide_id"].isin(batch["slide_id"]), "slide_id"].nunique()
    return {
        "batch": name.removeprefix("batch "),
        "dates": first if first == last else f"{first} to {last}",
        "slides": f"{counted} of {len(batch)}",
        "odd": f"{off}" if off else "none",
        **{kind: _controls_of(own[own["sample_kind"] == kind]) for kind in KINDS},
        "false": _false_of(own),
        "recovery": _recovery_of(own),
    }


def _false_of(controls: pd.DataFrame) -> str:
    """CTCs of a batch's blanks and donors together; empty where none was counted."""
    counted = controls[controls["sample_kind"].isin(("blank", "donor")) & controls["rate"].notna()]
    return f"{number(counted['found'].sum())} in {number(counted['out_of'].sum())} mL" if len(counted) else ""


def _recovery_of(controls: pd.DataFrame) -> str:
    """Recovery of a batch's spiked samples together, with its limits; empty where none was counted."""
    counted = controls[(controls["sample_kind"] == "spiked") & controls["rate"].notna()]
    if len(counted) == 1:
        return _share(counted.iloc[0])
    pooled = pool_recovery(counted["found"].astype(float), counted["out_of"].astype(float))
    return _share(pd.Series({"rate": pooled.share, "low": pooled.low, "high": pooled.high})) if pooled else ""


def _share(row: pd.Series) -> str:
    return f"{percent(row['rate'])} ({_percents(row)})"


def _controls_of(controls: pd.DataFrame) -> str:
    if controls.empty:
        return "none"
    verdicts = controls["verdict"].value_counts()
    if len(controls) == 1:
        return str(controls["verdict"].iloc[0])
    return ", ".join(f"{verdicts[name]} {name}" for name in VERDICTS if name in verdicts)


def _control_row(row: pd.Series) -> dict[str, str]:
    share = row["sample_kind"] == "spiked"
    known = not is_missing(row["rate"])
    both = f"{number(row['found'])} of {number(row['out_of'])} {'cells' if share else 'mL'}"
    found = both if share else f"{number(row['found'])} in {number(row['out_of'])} mL"
    rate = _share(row) if share else f"{number(row['rate'])} per mL ({_limits(row)})"
    others = percent(row["others_rate"]) if share else f"{number(row['others_rate'])} per mL"
    return {
        "sample": str(row["sample_id"]),
        "kind": label(row["sample_kind"]),
        "date": str(row["sample_date"])[:10],
        "batch": str(row["batch"]) or MISSING,
        "found": found if known else MISSING,
        "rate": rate if known else MISSING,
        "others": MISSING if is_missing(row["others_rate"]) else others,
        "verdict": row["verdict"],
        "tone": {"passed": "counted", "failed": "failed"}.get(row["verdict"], "other"),
        "reason": row["reason"],
    }


def _limits(row: pd.Series) -> str:
    return limits(row["low"], row["high"])


def _percents(row: pd.Series) -> str:
    return f"{100 * row['low']:.0f}–{percent(row['high'])}"
