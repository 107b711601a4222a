"""The pathologist's page: a sample's count with all its limits, its CTCs in pictures, who read and signed it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from ctc_imaging.report.gallery import SHOWN, Gallery, choose, portraits_of
from ctc_imaging.report.pages.signing import Signing
from ctc_imaging.report.results import above_blank, statement
from ctc_imaging.report.sections import remark, sample_rows
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import MISSING, is_missing, label, limits, number, per_ml, percent, plural, whole


def sample_pages(run: Run, parts: dict[str, Any], signing: dict[str, Signing]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every sample's id and what its page shows.

    Parameters
    ----------
    run : Run
    parts : dict
        As of `page.context`.
    signing : dict of str to Signing
    """
    called, rows = parts["called"], {row["sample"]: row for row in sample_rows(run.counts)}
    samples = run.slides.set_index("slide_id")["sample_id"]
    by_sample = dict(iter(called.groupby(called["slide_id"].map(samples)))) if len(called) else {}
    rates = {str(row["sample_id"]): row for _, row in run.rates.iterrows()}
    for _, row in run.counts.iterrows():
        sample = str(row["sample_id"])
        own = by_sample.get(sample, called.iloc[:0])
        yield (
            sample,
            {
                "row": rows[sample],
                "control": row["sample_kind"] != "patient",
                "verdict": _verdict(row, rates.get(sample)),
                "figures": figures(row, rates.get(sample)),
                "phenotypes": _phenotypes(row, parts["shown_phenotypes"]),
                "signing": signing.get(sample),
                "own_slides": [slide for slide in parts["slides"] if slide["sample"] == sample],
                "gallery": gallery_of(run, own),
            },
        )


def gallery_of(run: Run, called: pd.DataFrame) -> Gallery:
    """Show the surest CTCs of a sample, of each of its slides in turn."""
    portraits = [
        portrait
        for slide_id, cells in choose(called, SHOWN).groupby("slide_id", sort=True)
        for portrait in portraits_of(run, str(slide_id), cells)
    ]
    return Gallery(tuple(portraits), len(called), called["slide_id"].nunique())


def _verdict(row: pd.Series, rates: pd.Series | None) -> tuple[str, str]:
    if not row["assessable"]:
        return "poor", f"No result, which is not a count of zero: {remark(row).removeprefix('not assessable: ')}."
    return ("good" if above_blank(row) else ""), f"{statement(row, rates)}."


def figures(row: pd.Series, rates: pd.Series | None) -> list[tuple[str, str, str]]:
    """Name, value and meaning of each figure of a sample with a result."""
    if not row["assessable"]:
        return []
    total = limits(row["ctc_per_ml_total_low"], row["ctc_per_ml_total_high"])
    known = rates is not None and not is_missing(rates["recovery"])
    recovery = "not known"
    if known and rates is not None:
        recovery = (
            f"{percent(rates['recovery'])} ({percent(rates['recovery_low'])} to {percent(rates['recovery_high'])})"
        )
    return [
        ("CTCs found", whole(row["ctc"]), f"by the model alone: {whole(row['ctc_machine'])}"),
        ("CTC per mL, limits of chance", per_ml(row), "exact 95 % Poisson limits of the count over the blood assessed"),
        ("Total limits per mL", total, "95 %, with false calls and lost cells, as far as controls tell of them"),
        ("False CTCs to expect", number(row["ctc_expected_false"]), "calls that a sample without CTCs would give"),
        ("Limit of blank", whole(row["limit_of_blank"]), "a sample without CTCs has more in at most 5 of 100 cases"),
        ("Limit of detection", number(row["limit_of_detection"]), "true CTCs that 95 of 100 such samples would show"),
        ("Recovery", recovery, "tumour cells found of those put into spiked samples"),
        ("Blood assessed", f"{number(row['assessed_volume_ml'])} of {number(row['blood_volume_ml'])} mL", ""),
        ("Leukocytes", whole(row["leukocyte"]), f"unsure cells, not counted: {whole(row['indeterminate'])}"),
        ("CTC clusters", whole(row["ctc_clusters"]), f"with leukocytes: {whole(row['ctc_leukocyte_clusters'])}"),
    ]


def _phenotypes(row: pd.Series, shown: list[str]) -> str:
    if not row["assessable"] or not shown or not row["ctc"]:
        return ""
    parts = (f"{whole(row[f'ctc_{name}'])} {label(name)}" for name in shown)
    return f"Of {plural(int(row['ctc']), 'CTC')}: {', '.join(part for part in parts if not part.startswith(MISSING))}."
