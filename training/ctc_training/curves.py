"""How a training went: its curve as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ctc_imaging.files import atomic_path, write_csv
from ctc_imaging.report.figures import STYLE
from ctc_training.checkpoint import Epoch
from ctc_training.learner import kept_epoch

TABLE, PICTURE = "curves.csv", "curves.png"
_TRAINING, _HELD_OUT = "#0072b2", "#d55e00"


def write_curves(folder: Path, curve: Sequence[Epoch]) -> None:
    """Write ``curves.csv`` (`epoch`, `loss`, `held_out_loss`, `kept`) and ``curves.png`` into a model's folder."""
    kept = kept_epoch(curve)
    write_csv(folder / TABLE, pd.DataFrame([{**asdict(epoch), "kept": epoch.epoch == kept} for epoch in curve]))
    with atomic_path(folder / PICTURE) as temporary:
        draw_curves(curve).savefig(temporary, format="png", dpi=120)


def draw_curves(curve: Sequence[Epoch]) -> Figure:
    """Draw the loss by epoch; the epoch whose weights were kept is marked."""
    epochs, kept = [epoch.epoch for epoch in curve], kept_epoch(curve)
    judged = [(epoch.epoch, epoch.held_out_loss) for epoch in curve if epoch.held_out_loss is not None]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.plot(epochs, [epoch.loss for epoch in curve], color=_TRAINING, marker="o", ms=3)
        axes.set(xlabel="epoch", ylabel="loss, varied training crops", ylim=(0, None))
        axes.yaxis.label.set_color(_TRAINING)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.axvline(kept, color="#888888", lw=0.8, ls=":")
        axes.annotate("kept", (kept, 1), xycoords=("data", "axes fraction"), xytext=(3, -9), textcoords="offset points")
        if judged:
            # Its terms aren't those of the training loss, so it has a scale of its own.
            other = axes.twinx()
            other.plot(*zip(*judged, strict=True), color=_HELD_OUT, marker="s", ms=3)
            other.set(ylabel="loss, held-out crops", ylim=(0, None))
            other.yaxis.label.set_color(_HELD_OUT)
    return figure
