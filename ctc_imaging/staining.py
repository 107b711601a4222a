"""Whether each channel shows the stain its name says: nuclei lie inside their cells, and leukocytes are the many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ctc_imaging.errors import SlideError
from ctc_imaging.panel import Panel, Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# All figures are taken on means of about 1 x 1 µm and count in units of such a mean's noise. Pure noise passes four
# units in 3 of 100,000; a weak CD45 (median SNR 4 a pixel at 0.5 µm) has eight.
STAINED = 4.0

# An object ends where its stain falls to half of what three quarters of the stained area stay below.
_BODY_SHARE = 0.5
_BODY_CENTILE = 75

# Half a leukocyte's nucleus: medians over less than this are chance.
_LEAST_BODY = 20

# A leukocyte's nucleus and the whole cell, in µm².
_NUCLEUS_UM2 = 38.0
_LEUKOCYTE_UM2 = 69.0

# Below ten cells nothing is said about the nuclear stain; below fifty nothing about who is in the majority.
_FEW_CELLS = 10
_MANY_CELLS = 50

# How far a stain reaches over the edge of another, less how far the other reaches over its own: 0.5 to 0.9 for
# every marker of simulated leukocytes over their nuclei, and as much below zero when the two are swapped. A marker
# of the nucleus itself, or the nuclear stain seen through another filter, lies about zero.
_INSIDE = 0.3
_NO_WIDER = 0.1
_BRIGHTER = 2.0

# What is left of a nuclear stain just outside a cell: 0.04 to 0.28 on simulated slides and a real lymph follicle,
# where markers of other cells beside the nuclei leave 0.34 and more.
_MOST_OUTSIDE = 0.3
_BLEED_OUTSIDE = 0.45

# Shares of the leukocytes' area that lie by a nucleus: 0.95 and more on simulated slides, under 0.4 by CTCs alone.
_UNCOVERED = 0.5
_COVERED = 0.8

# Signals in the rim around nuclei: on simulated leukocytes CK reaches 0.2 of CD45, and 0.4 of vimentin in the
# cell's body with 15 % bleed-through; swapped, at least 3 and 2 times as much.
_SHOWS = 3.0
_MANY_TIMES = 3.0
_MORE = 1.5

# Area with the leukocytes' stain to area with CK: below it eight of nine cells have CK.
_HARDLY_ANY = 0.12

# Kinds of sample in which nearly all cells are leukocytes.
_MOSTLY_LEUKOCYTES = ("patient", "donor")

REMEDY = "check the channel order in the scanner's export, and the channel names"

_RIM = np.ones((3, 3), np.uint8)


def overlap_type(channels: int) -> np.dtype:
    """One block's figures: arrays by the channel whose objects are looked at, then by the channel seen there.

    ``stained`` and ``body`` are areas of about 1 µm², ``inside`` and ``around`` median signals in the objects and
    in the rim of 1 µm around them, ``near`` the stained area within 2 µm of the other channel's.
    """
    each, pair = (channels,), (channels, channels)
    return np.dtype(
        [
            ("stained", np.float32, each),
            ("body", np.float32, each),
            ("inside", np.float32, pair),
            ("around", np.float32, pair),
            ("near", np.float32, pair),
        ]
    )


def measure_overlap(signal: NDArray[np.float32]) -> NDArray:
    """Measure how the stains of one block lie to each other.

    Parameters
    ----------
    signal : ndarray of float32, shape (C, h, w)
        Means of about 1 x 1 µm over their background, in units of their noise.

    Returns
    -------
    structured ndarray, shape ()
        Of `overlap_type`; signals are NaN where a channel shows less than half a nucleus.
    """
    figures = np.zeros((), overlap_type(len(signal)))
    figures["inside"] = figures["around"] = np.nan
    # A median of 3 x 3 takes away what no cell is as small as: noise, and hot pixels.
    stained = np.array([cv2.medianBlur((plane > STAINED).view(np.uint8), 3) for plane in signal], bool)
    figures["stained"] = stained.sum(axis=(1, 2))
    near = np.array([cv2.dilate(mask, _RIM, iterations=2) for mask in stained.view(np.uint8)], bool)
    figures["near"] = [np.count_nonzero(mask & near, axis=(1, 2)) for mask in stained]
    for channel, plane in enumerate(signal):
        if figures["stained"][channel] >= _LEAST_BODY:
            level = _BODY_SHARE * np.percentile(plane[stained[channel]], _BODY_CENTILE)
            body = (stained[channel] & (plane > level)).view(np.uint8)
            rim = cv2.dilate(body, _RIM) > body
            figures["body"][channel] = np.count_nonzero(body)
            figures["inside"][channel] = np.median(signal[:, body.view(bool)], axis=1)
            if rim.any():
                figures["around"][channel] = np.median(signal[:, rim], axis=1)
    return figures


@dataclass(frozen=True, eq=False)
class StainOverlap:
    """How the stains of a slide lie to each other, each an array by channel, or by pairs of channels.

    Rows are the channels whose objects are looked at, columns the channels seen there, both in the order of
    `shorts`. `body_um2` and `stained_um2` are areas; `inside` and `around` the typical block's signals, NaN where
    unknown; `near` is the share of the stained area by the other stain's.
    """

    shorts: tuple[str, ...]
    body_um2: NDArray[np.float64]
    stained_um2: NDArray[np.float64]
    inside: NDArray[np.float64]
    around: NDArray[np.float64]
    near: NDArray[np.float64]

    @classmethod
    def of(cls, shorts: Sequence[str], blocks: NDArray) -> StainOverlap:
        """Sum up blocks measured by `measure_overlap`."""
        blocks = blocks.ravel()
        stained = blocks["stained"].sum(axis=0, dtype=np.float64)
        seen = blocks["body"] >= _LEAST_BODY
        return cls(
            tuple(shorts),
            blocks["body"].sum(axis=0, dtype=np.float64),
            stained,
            _medians(blocks["inside"], seen),
            _medians(blocks["around"], seen),
            blocks["near"].sum(axis=0, dtype=np.float64) / np.maximum(stained, 1)[:, None],
        )

    def reach(self, owner: int, seen: int) -> float:
        """How much of a stain's signal in another's objects is left just outside them."""
        return float(self.around[owner, seen] / self.inside[owner, seen])


def _medians(figures: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Median over the blocks in which each row's stain was seen, shape (C, C)."""
    channels = figures.shape[1]
    medians = np.full((channels, channels), np.nan)
    for row in range(channels):
        known = figures[:, row][seen[:, row]]
        known = known[np.isfinite(known).all(axis=1)]
        if len(known):
            medians[row] = np.median(known, axis=0)
    return medians


def check_stains(overlap: StainOverlap | None, panel: Panel, sample_kind: str, path: str | Path) -> None:
    """Refuse a slide whose channels show each other's stains.

    A swap of two stains that lie alike in the same cells (vimentin and CD45 of leukocytes) can't be seen, nor can
    one on a slide with hardly a cell; a blank is therefore never refused. In a sample with many CTCs (``spiked``,
    ``stain_control``) CK and CD45 can't be told apart.

    Parameters
    ----------
    overlap : StainOverlap or None
        Of the slide, as in `Quality.overlap`; nothing is checked without it.
    panel : Panel
    sample_kind : str
        As in cohort.csv.
    path : str or Path
        The slide, for the error message.

    Raises
    ------
    SlideError
        If two channels look swapped, or three in turn.
    """
    if overlap is None or sample_kind == "blank":
        return
    swap = find_swap(overlap, panel, sample_kind in _MOSTLY_LEUKOCYTES)
    if swap is not None:
        first, second, why = swap
        raise SlideError(path, f"channels {first} and {second} don't show the stains they are named for: {why}", REMEDY)


def find_swap(overlap: StainOverlap, panel: Panel, mostly_leukocytes: bool) -> tuple[str, str, str] | None:
    """Name two channels that look swapped, and why, or None.

    Parameters
    ----------
    overlap : StainOverlap
    panel : Panel
    mostly_leukocytes : bool
        Whether nearly all cells of the sample must be leukocytes.

    Returns
    -------
    tuple of str or None
        Two short names and the evidence.
    """
    at = {role: [i for i, channel in enumerate(panel.channels) if channel.role == role] for role in Role}
    if overlap.shorts != panel.shorts or not at[Role.LEUKOCYTE]:
        return None
    nucleus, leukocyte = at[Role.NUCLEUS][0], at[Role.LEUKOCYTE][0]
    tumour = [*at[Role.EPITHELIAL], *at[Role.TUMOUR]]
    others = [other for other in range(len(overlap.shorts)) if other != nucleus]
    if inner := [other for other in others if _is_the_nucleus(overlap, nucleus, leukocyte, other)]:
        # With bleed-through a neighbouring channel is a dim copy of the nuclei: the brightest is the original.
        short = panel.shorts[max(inner, key=lambda other: overlap.inside[other, other])]
        return panel.shorts[nucleus], short, f"{short} lies in the cells as their nuclei do"
    for other in tumour:
        if mostly_leukocytes and _is_the_leukocytes(overlap, nucleus, leukocyte, other):
            return panel.shorts[other], panel.shorts[leukocyte], f"nearly every cell shows {panel.shorts[other]}"
        for mesenchymal in at[Role.MESENCHYMAL]:
            if _is_on_leukocytes(overlap, leukocyte, mesenchymal, other):
                names = panel.shorts[other], panel.shorts[mesenchymal]
                return *names, f"leukocytes show {names[0]} and no {names[1]}"
    return None


def _is_the_nucleus(overlap: StainOverlap, nucleus: int, leukocyte: int, other: int) -> bool:
    """Tell whether another stain than the nuclear one lies in the cells as nuclei do."""
    least_um2 = _FEW_CELLS * _NUCLEUS_UM2
    if overlap.stained_um2[other] < least_um2:
        return False
    if other != leukocyte and _leaves_out_leukocytes(overlap, nucleus, leukocyte, other):
        return _lies_inside(overlap, leukocyte, other) >= _INSIDE
    if overlap.body_um2[[nucleus, other]].min() < least_um2 or overlap.inside[nucleus, other] < _SHOWS:
        return False
    brighter = overlap.inside[nucleus, other] > _BRIGHTER * overlap.inside[nucleus, nucleus]
    deeper = _lies_inside(overlap, nucleus, other) > (_NO_WIDER if brighter else _INSIDE)
    return deeper and overlap.reach(nucleus, other) < _MOST_OUTSIDE


def _leaves_out_leukocytes(overlap: StainOverlap, nucleus: int, leukocyte: int, other: int) -> bool:
    """Tell whether most leukocytes have no nuclear stain, but nearly all of them the other one."""
    return bool(
        overlap.stained_um2[leukocyte] >= _FEW_CELLS * _LEUKOCYTE_UM2
        and overlap.near[leukocyte, nucleus] < _UNCOVERED
        and overlap.near[leukocyte, other] > _COVERED
    )


def _lies_inside(overlap: StainOverlap, outer: int, inner: int) -> float:
    """How much deeper the inner stain's objects lie in the outer's than the other way round; NaN where unknown."""
    return overlap.reach(inner, outer) - overlap.reach(outer, inner)


def _is_the_leukocytes(overlap: StainOverlap, nucleus: int, leukocyte: int, tumour: int) -> bool:
    """Tell whether nearly all nuclei are ringed by a tumour stain and hardly any by the leukocytes'."""
    shown, missing = overlap.around[nucleus, tumour], overlap.around[nucleus, leukocyte]
    many = overlap.body_um2[nucleus] >= _MANY_CELLS * _NUCLEUS_UM2
    # What bleeds through from the nuclei has their shape, and is no leukocyte.
    hardly_any = overlap.stained_um2[leukocyte] < _HARDLY_ANY * overlap.stained_um2[tumour]
    brighter = overlap.inside[leukocyte, tumour] > overlap.inside[leukocyte, leukocyte]
    hardly_any |= brighter and overlap.reach(nucleus, leukocyte) < _BLEED_OUTSIDE
    return bool(many and hardly_any and shown >= _SHOWS and shown > _MANY_TIMES * missing)


def _is_on_leukocytes(overlap: StainOverlap, leukocyte: int, mesenchymal: int, tumour: int) -> bool:
    """Tell whether leukocytes carry a tumour stain, nearly as bright as their own, in place of the mesenchymal."""
    shown, missing = overlap.inside[leukocyte, tumour], overlap.inside[leukocyte, mesenchymal]
    many = overlap.body_um2[leukocyte] >= _MANY_CELLS * _NUCLEUS_UM2
    own = overlap.inside[leukocyte, leukocyte]
    return bool(many and shown >= _SHOWS and shown > _MORE * missing and shown > own / _MANY_TIMES)
