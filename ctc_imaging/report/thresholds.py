"""From which signal a marker is positive, slide by slide, ready for the page."""

from __future__ import annotations

from dataclasses import dataclass

from ctc_imaging.report.source import Run
from ctc_imaging.report.words import MISSING, marker


@dataclass(frozen=True)
class ThresholdPage:
    """The markers a phenotype is made of, and of each slide their thresholds, as text."""

    markers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def threshold_page(run: Run) -> ThresholdPage:
    """Line up the thresholds of a run's slides, in the order of the slides.

    Parameters
    ----------
    run : Run
        Without thresholds in its table of stains (made by an older version) there are no rows.
    """
    known = run.stains.assign(snr=run.stains["positive_from_snr"].astype(float)).dropna(subset="snr")
    present = set(known["channel"])
    shorts = [channel["short"] for channel in run.panel["channels"] if channel["short"] in present]
    by_slide = known.pivot_table(index="slide_id", columns="channel", values="snr", sort=False)
    rows = [
        (str(slide), *(MISSING if snr != snr else f"{snr:.1f}" for snr in by_slide.loc[slide, shorts]))
        for slide in by_slide.index
    ]
    return ThresholdPage(tuple(marker(short) for short in shorts), tuple(rows))
