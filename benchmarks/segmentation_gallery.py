"""The worst errors of each kind as one picture, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ctc_training.nuclei.images import LabelledImage
from ctc_training.nuclei.score import find_errors
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import ndimage
from skimage.measure import find_contours

COLUMNS = 8
TRUTH, OURS, UNKNOWN, MARK = "#56b4e9", "#ff9d00", "#ffffff", "#ff40ff"
MEANING = {
    "missed": "a nucleus that\nnothing answers to",
    "split": "one nucleus\nfound as several",
    "merged": "several nuclei\nfound as one",
    "false": "found where\nno nucleus is",
    "inexact": "found, but overlaps\nby less than half",
}
IN_FOUND = ("merged", "false")


@dataclass(frozen=True)
class Mistake:
    """One error to show.

    Attributes
    ----------
    item : LabelledImage
    labels : int ndarray, shape (Y, X)
        What was found in the image.
    place : tuple of slice
        Box of the nucleus, found or true, that is wrong.
    label : int
    size : float
        Its area as a multiple of the image's median nucleus: how much it matters.
    """

    item: LabelledImage
    labels: np.ndarray
    place: tuple[slice, slice]
    label: int
    size: float


def draw(path: Path, images: Sequence[LabelledImage], found: Sequence[np.ndarray], model: str) -> None:
    """Write the largest errors of each kind, one an image.

    Parameters
    ----------
    path : Path
        Of a PNG.
    images : sequence of LabelledImage
    found : sequence of int ndarray, shape (Y, X)
        Labels found in each.
    model : str
        Named in the title.
    """
    figure = Figure(figsize=(2 * COLUMNS + 1.9, 2.3 * len(MEANING) + 0.7), dpi=100, facecolor="white")
    grid = figure.add_gridspec(len(MEANING), COLUMNS, left=0.105, right=0.995, bottom=0.01, top=0.925, wspace=0.04)
    for row, kind in enumerate(MEANING):
        mistakes = _mistakes(kind, images, found)
        worst = sorted(_one_an_image(mistakes), key=lambda mistake: -mistake.size)[:COLUMNS]
        y = 0.925 - (row + 0.5) * 0.915 / len(MEANING)
        figure.text(0.005, y, f"{kind}: {len(mistakes)}", fontsize=15, weight="bold", va="bottom")
        figure.text(0.005, y - 0.004, MEANING[kind], fontsize=10, va="top")
        for column, mistake in enumerate(worst):
            _show(figure.add_subplot(grid[row, column]), mistake, kind)
    count = sum(len(np.unique(item.labels)) - 1 for item in images)
    _title(figure, f"Largest errors of {model}: {len(images)} images, {count:,} nuclei")
    figure.savefig(path)


def _title(figure: Figure, title: str) -> None:
    figure.text(0.005, 0.975, title, fontsize=17, weight="bold", va="center")
    lines = [
        Line2D([], [], color=TRUTH, lw=4, label="truth"),
        Line2D([], [], color=OURS, lw=2, label="ours"),
        Line2D([], [], color=UNKNOWN, lw=1.5, ls=":", label="truth unknown within"),
        Line2D([], [], color=MARK, marker="v", ms=9, mec="black", ls="", label="the nucleus meant"),
    ]
    figure.legend(
        handles=lines, loc="upper right", ncols=4, fontsize=12, facecolor="#404040", labelcolor="white", framealpha=1
    )


def _mistakes(kind: str, images: Sequence[LabelledImage], found: Sequence[np.ndarray]) -> list[Mistake]:
    mistakes = []
    for item, labels in zip(images, found, strict=True):
        wrong = vars(find_errors(labels, item.labels, item.ignore))[kind]
        if not len(wrong):
            continue
        source = (labels if kind in IN_FOUND else item.labels).astype(np.int64)
        places, areas = ndimage.find_objects(source), np.bincount(source.ravel())
        typical_px = np.pi / 4 * item.diameter_px**2
        mistakes += [Mistake(item, labels, places[label - 1], int(label), areas[label] / typical_px) for label in wrong]
    return mistakes


def _one_an_image(mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Keep the largest of each image."""
    return list({id(mistake.item): mistake for mistake in sorted(mistakes, key=lambda one: one.size)}.values())


def _show(axes: Axes, mistake: Mistake, kind: str) -> None:
    item = mistake.item
    window = _window(mistake.place, item.image.shape, 3.5 * item.diameter_px)
    crop = item.image[window]
    low, high = np.percentile(crop, (1, 99.7))
    bright = np.clip((crop - low) / max(high - low, 1e-6), 0, 1) ** 0.6
    axes.imshow(bright, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    wrong = mistake.label
    _outline(axes, item.labels[window], TRUTH, 3.0, None if kind in IN_FOUND else wrong)
    _outline(axes, mistake.labels[window], OURS, 1.3, wrong if kind in IN_FOUND else None)
    for line in find_contours(np.pad(item.ignore[window].astype(float), 1), 0.5):
        axes.plot(line[:, 1] - 1, line[:, 0] - 1, color=UNKNOWN, lw=1.2, ls=":")
    y, x = window[0].start, window[1].start
    _point_at(
        axes, mistake.place[0].start - y, (mistake.place[1].start + mistake.place[1].stop - 1) / 2 - x, crop.shape
    )
    axes.set_title(f"{item.name[:16]} ({y}, {x}), {crop.shape[1]} px", fontsize=7, pad=2)
    axes.set(xlim=(-0.5, crop.shape[1] - 0.5), ylim=(crop.shape[0] - 0.5, -0.5), xticks=[], yticks=[])


def _point_at(axes: Axes, top: float, middle: float, shape: tuple[int, ...]) -> None:
    """Set a mark above what is wrong, or on it where it touches the upper edge."""
    mark_y = max(top - 0.05 * shape[0], 0.05 * shape[0])
    axes.plot(middle, mark_y, marker="v", color=MARK, ms=9, mec="black", mew=0.8)


def _window(place: tuple[slice, slice], shape: tuple[int, ...], least_px: float) -> tuple[slice, slice]:
    """Return a square about a box, moved into the image."""
    side = round(max(least_px, 1.5 * max(part.stop - part.start for part in place)))
    sides = [min(side, length) for length in shape]
    starts = [
        min(max((part.start + part.stop - length) // 2, 0), whole - length)
        for part, length, whole in zip(place, sides, shape, strict=True)
    ]
    y, x = (slice(start, start + length) for start, length in zip(starts, sides, strict=True))
    return y, x


def _outline(axes: Axes, labels: np.ndarray, colour: str, width: float, wrong: int | None) -> None:
    """Draw the nuclei's outlines; where the wrong one is among them, it stands out."""
    for label in np.unique(labels[labels > 0]):
        faint = wrong is not None and label != wrong
        # An edge of its own round the crop, lest a nucleus that is cut have an open outline.
        for line in find_contours(np.pad((labels == label).astype(float), 1), 0.5):
            axes.plot(line[:, 1] - 1, line[:, 0] - 1, color=colour, lw=width * (0.7 if faint else 1), alpha=0.9)
