"""The worst errors of a model as one picture: missed CTCs and false ones, as composite and by marker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ctc_imaging.classification.calling import decide
from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.crops import CROP_PX, ROLES, UM_PER_PX
from ctc_imaging.classification.model import DECIMALS, Classifier
from ctc_imaging.files import atomic_path
from ctc_imaging.report.figures import STYLE
from ctc_training.dataset import FRAGMENT, CropSet
from ctc_training.outputs import Outputs

SHOWN = 12
"""Of each kind of error."""

BRIGHTEST_SNR = (40.0, 20.0, 20.0, 20.0)
"""Signal at which each role is shown in full, the same for all cells, so that they can be compared."""

BAR_UM = 10.0
_COLOURS = np.array([(0.25, 0.45, 1.0), (0.2, 0.95, 0.3), (1.0, 0.8, 0.1), (1.0, 0.25, 0.25)])
_NAMES = ("all", "nucleus", "epithelial", "mesenchymal", "leukocyte")
_ACROSS = 2
_CELL_INCHES = 0.78
_TEXT_INCHES = 1.25


@dataclass(frozen=True)
class Mistake:
    """One cell called wrongly: its planes (4, 48, 48) in signal-to-noise, outlines, and what was said of it."""

    planes: np.ndarray
    masks: np.ndarray
    present: np.ndarray
    p_ctc: float
    call: str
    truth: str
    source: str


@dataclass(frozen=True)
class Mistakes:
    """The worst of both kinds: CTCs with the least, other cells with the highest p_ctc; and how many there were."""

    missed: tuple[Mistake, ...] = ()
    false: tuple[Mistake, ...] = ()
    missed_in_all: int = 0
    false_in_all: int = 0


def find_mistakes(classifier: Classifier, crops: CropSet, outputs: Outputs, kept: np.ndarray | None = None) -> Mistakes:
    """Find the worst errors among crops.

    Parameters
    ----------
    classifier : Classifier
    crops : CropSet
    outputs : Outputs
        Of the classifier, on these crops.
    kept : ndarray of int, optional
        Rows of the crops that the outputs are of; by default all.
    """
    rows = np.arange(len(crops)) if kept is None else kept
    p = classifier.calibration.probabilities(outputs.logits).round(DECIMALS)
    calls = decide(p, classifier.thresholds, classifier.calibration.prevalence)
    calls[~outputs.nucleate] = "artefact"
    is_ctc, called = outputs.target == CLASSES.index("ctc"), calls == "ctc"

    def shown(chosen: np.ndarray, order: np.ndarray) -> tuple[Mistake, ...]:
        places = np.flatnonzero(chosen)
        worst = places[np.argsort(order[places], kind="stable")][:SHOWN]
        return tuple(_mistake(crops, int(rows[place]), float(p[place, 0]), str(calls[place])) for place in worst)

    missed = is_ctc & ~called & (outputs.kind != FRAGMENT)
    false = ~is_ctc & called
    return Mistakes(shown(missed, p[:, 0]), shown(false, -p[:, 0]), int(missed.sum()), int(false.sum()))


def worst(parts: Iterable[Mistakes]) -> Mistakes:
    """Keep the worst of several sets of mistakes."""
    parts = list(parts)
    missed = sorted((one for part in parts for one in part.missed), key=lambda one: one.p_ctc)
    false = sorted((one for part in parts for one in part.false), key=lambda one: -one.p_ctc)
    totals = (sum(part.missed_in_all for part in parts), sum(part.false_in_all for part in parts))
    return Mistakes(tuple(missed[:SHOWN]), tuple(false[:SHOWN]), *totals)


def write_gallery(path: Path, mistakes: Mistakes, title: str) -> None:
    """Write the picture as PNG."""
    with atomic_path(path) as temporary:
        draw_gallery(mistakes, title).savefig(temporary, format="png", dpi=150)


def draw_gallery(mistakes: Mistakes, title: str) -> Figure:
    """Draw missed CTCs above false ones, two cells a line, each as composite and by marker with the cell's outline."""
    groups = (
        (f"CTCs missed: {mistakes.missed_in_all}", mistakes.missed, mistakes.missed_in_all),
        (f"false CTCs: {mistakes.false_in_all}", mistakes.false, mistakes.false_in_all),
    )
    heights = [0.55, *(0.45 + -(-len(group) // _ACROSS) * (_CELL_INCHES + 0.06) for _, group, _ in groups)]
    width = _ACROSS * (_TEXT_INCHES + len(_NAMES) * _CELL_INCHES + 0.25) + 0.1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, sum(heights)))
        figure.text(0.1 / width, 1 - 0.22 / sum(heights), title, fontsize=10, weight="bold", va="center")
        scale = "; ".join(f"{name} to {snr:g}" for name, snr in zip(_NAMES[1:], BRIGHTEST_SNR, strict=True))
        says = f"bar {BAR_UM:g} µm; signal over noise from 0 up: {scale}"
        figure.text(0.1 / width, 1 - 0.42 / sum(heights), says, fontsize=7, va="center", color="#555555")
        top = sum(heights) - heights[0]
        for (head, group, total), height in zip(groups, heights[1:], strict=True):
            shown = f"{head}, the worst {len(group)} of them" if total > len(group) else head
            figure.text(0.1 / width, (top - 0.15) / sum(heights), shown, fontsize=9, va="center")
            _draw_group(figure, group, top - 0.4, (width, sum(heights)))
            top -= height
    return figure


def composite(planes: np.ndarray) -> np.ndarray:
    """Lay the roles over each other in their colours: (4, Y, X) signal-to-noise to (Y, X, 3) in 0 to 1."""
    shown = np.clip(planes.astype(np.float64) / np.array(BRIGHTEST_SNR)[:, None, None], 0, 1)
    return np.clip(np.tensordot(shown, _COLOURS, axes=(0, 0)), 0, 1)


def _draw_group(figure: Figure, group: Sequence[Mistake], top: float, size: tuple[float, float]) -> None:
    width, height = size
    for number, mistake in enumerate(group):
        line, column = divmod(number, _ACROSS)
        left = 0.1 + column * (width - 0.1) / _ACROSS
        bottom = top - line * (_CELL_INCHES + 0.06) - _CELL_INCHES
        text = f"{mistake.truth}, called\n{mistake.call}\np(CTC) {mistake.p_ctc:.4f}\n{_short(mistake.source)}"
        figure.text(left / width, (bottom + _CELL_INCHES / 2) / height, text, fontsize=6.5, va="center")
        pictures = [composite(mistake.planes), *_planes(mistake)]
        for place, (picture, name) in enumerate(zip(pictures, _NAMES, strict=True)):
            x = left + _TEXT_INCHES + place * _CELL_INCHES
            rectangle = (x / width, bottom / height, (_CELL_INCHES - 0.04) / width, (_CELL_INCHES - 0.04) / height)
            _draw_picture(figure.add_axes(rectangle), picture, mistake, name, line == 0, place > 0)


def _planes(mistake: Mistake) -> list[np.ndarray | None]:
    """Each role in grey; None where the panel has no such marker."""
    brightest = np.array(BRIGHTEST_SNR)
    return [
        np.clip(mistake.planes[role].astype(np.float64) / brightest[role], 0, 1) if mistake.present[role] else None
        for role in range(len(ROLES))
    ]


def _draw_picture(
    axes: Axes, picture: np.ndarray | None, mistake: Mistake, name: str, named: bool, outlined: bool
) -> None:
    axes.set(xticks=[], yticks=[])
    axes.set_frame_on(False)
    if named:
        axes.set_title(name, fontsize=6.5, pad=2)
    if picture is None:
        axes.text(0.5, 0.5, "not in\nthe panel", fontsize=6, ha="center", va="center", transform=axes.transAxes)
        return
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if outlined:
        axes.contour(mistake.masks[0], levels=[127], colors="#ffffff", linewidths=0.4, alpha=0.6)
    length = BAR_UM / UM_PER_PX
    axes.add_patch(Rectangle((CROP_PX - 3 - length, CROP_PX - 5), length, 1.6, color="white", lw=0))


def _short(source: str) -> str:
    return source if len(source) <= 24 else f"...{source[-21:]}"


def _mistake(crops: CropSet, row: int, p_ctc: float, call: str) -> Mistake:
    return Mistake(
        planes=np.array(crops.roles[row], np.float32),
        masks=np.array(crops.masks[row]),
        present=np.array(crops.present[row]),
        p_ctc=p_ctc,
        call=call,
        truth=str(crops.kind[row]),
        source=str(crops.source[row]),
    )
