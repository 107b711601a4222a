"""One picture of a slide's quality: what is assessed, focus, nuclei, saturation, and the light of each channel."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from ctc_imaging.verdict import MAX_BLUR_UM, MAX_NUCLEI_FRACTION, MAX_SATURATED_FRACTION, Quality

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.linewidth": 0.6,
    "savefig.dpi": "figure",
}

# Okabe and Ito's colours, told apart by colour-blind readers.
_ASSESSED = ("assessed", "#e8efe9")
_FAULTS = {
    "is out of focus": ("out of focus", "#0072b2"),
    "is saturated": ("saturated", "#d55e00"),
    "was never scanned": ("never scanned", "#999999"),
    "lies under a bubble or fold": ("bubble or fold", "#e69f00"),
}
_OTHER = ("not assessable", "#cc79a7")
_UNKNOWN = "#d0d0d0"

_COLUMNS = 4
_PANEL_INCHES = (3.0, 3.1)
_HEAD_INCHES = 0.7
_DPI = 100
_LINE_CHARACTERS = 170
_MOST_LINES = 3


@dataclass(frozen=True, eq=False)
class _Map:
    """One panel: a plane of values over the whole slide, its colours, and where its limit lies, if it has one."""

    plane: NDArray[np.float64]
    title: str
    unit: str
    colours: str
    low: float
    high: float
    limit: float | None = None


def quality_picture(quality: Quality, pixel_size_um: float | None = None) -> NDArray[np.uint8]:
    """Draw the maps behind a verdict.

    Parameters
    ----------
    quality : Quality
        As `assess` gives it.
    pixel_size_um : float, optional
        Side of a pixel in µm; without it axes are in px.

    Returns
    -------
    ndarray of uint8, shape (height, width, 3)
        Red, green, blue; the same verdict gives the same bytes.
    """
    maps = _maps(quality)
    rows = -(-(1 + len(maps)) // _COLUMNS)
    size = _COLUMNS * _PANEL_INCHES[0], rows * _PANEL_INCHES[1] + _HEAD_INCHES
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.1))
        figure.suptitle(_headline(quality), fontsize=10, ha="left", x=0.01)
        first, *others = figure.subplots(rows, _COLUMNS, squeeze=False).flat
        _draw_verdict(first, quality, pixel_size_um)
        for axis, shown in zip_longest(others, maps):
            if shown is None:
                axis.set_axis_off()
            else:
                _draw_map(axis, shown, quality, pixel_size_um)
        figure.supxlabel("grey: not measured    red mark: the limit", fontsize=8, ha="right", x=0.99)
        pixels = io.BytesIO()
        figure.savefig(pixels, format="rgba")
    width, height = (round(inches * _DPI) for inches in size)
    return np.frombuffer(pixels.getvalue(), np.uint8).reshape(height, width, 4)[..., :3].copy()


def _headline(quality: Quality) -> str:
    verdict = f"{quality.assessed_fraction:.1%} of the slide is assessed" if quality.assessable else "Not assessable"
    lines = textwrap.wrap("; ".join(quality.reasons), _LINE_CHARACTERS, max_lines=_MOST_LINES, placeholder=" ...")
    return "\n".join([verdict, *lines])


def _maps(quality: Quality) -> list[_Map]:
    maps = [_Map(quality.blur_um, "Focus", "blur of nuclei, µm", "viridis", 0, 2 * MAX_BLUR_UM, MAX_BLUR_UM)]
    if quality.maps is None:
        return maps
    covered, worst = 100 * quality.maps.nuclei_fraction, 100 * quality.maps.worst_saturation
    most, top = 100 * MAX_NUCLEI_FRACTION, 100 * MAX_SATURATED_FRACTION
    maps.append(_Map(covered, "Density", "nuclei, % of the area", "cividis", 0, 50, most))
    maps.append(_Map(worst, "Saturation, worst channel", "pixels at the top, %", "Purples", 0, 2 * top, top))
    for short, plane in quality.maps.light.items():
        maps.append(_Map(plane, f"Background of {short}", "times its median", "RdBu_r", 0.5, 1.5))
    return maps


def _draw_verdict(axis: Axes, quality: Quality, pixel_size_um: float | None) -> None:
    """Colour each block by the last thing that is wrong with it: under a bubble cells are out of focus, too."""
    kinds = [_ASSESSED, *(_FAULTS.get(what, _OTHER) for what in quality.faults), _OTHER]
    kind = np.where(quality.blocks_ok, 0, len(kinds) - 1)
    for number, where in enumerate(quality.faults.values(), start=1):
        kind[where] = number
    colours = ListedColormap([colour for _, colour in kinds])
    axis.imshow(
        kind,
        cmap=colours,
        norm=BoundaryNorm(np.arange(len(kinds) + 1) - 0.5, len(kinds)),
        **_place(quality, pixel_size_um),
    )
    _finish(axis, "Assessed", quality, pixel_size_um)
    found = [Patch(facecolor=kinds[i][1], edgecolor="#666666", label=kinds[i][0]) for i in np.unique(kind)]
    axis.legend(handles=found, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize=7, frameon=False)


def _draw_map(axis: Axes, shown: _Map, quality: Quality, pixel_size_um: float | None) -> None:
    """Draw one map with its colour bar, and its limit as a line on that."""
    colours = matplotlib.colormaps[shown.colours].with_extremes(bad=_UNKNOWN)
    image = axis.imshow(shown.plane, cmap=colours, vmin=shown.low, vmax=shown.high, **_place(quality, pixel_size_um))
    ends = "max" if shown.low == 0 else "both"
    bar = axis.figure.colorbar(image, ax=axis, extend=ends, location="bottom", aspect=30, label=shown.unit)
    if shown.limit is not None:
        bar.ax.axvline(shown.limit, color="#d02020", linewidth=2)
    _finish(axis, shown.title, quality, pixel_size_um)


def _place(quality: Quality, pixel_size_um: float | None) -> dict[str, Any]:
    """Where the grid of blocks, which may reach beyond the slide, lies on the axes."""
    side = quality.block_px * _scale(pixel_size_um)
    high, wide = quality.blocks_ok.shape
    return {"extent": (0, wide * side, high * side, 0), "interpolation": "nearest"}


def _finish(axis: Axes, title: str, quality: Quality, pixel_size_um: float | None) -> None:
    """Cut the last blocks where the slide ends, and name what is seen."""
    height, width = (size * _scale(pixel_size_um) for size in quality.shape_px)
    axis.set(xlim=(0, width), ylim=(height, 0), title=title, ylabel="px" if pixel_size_um is None else "mm")
    axis.locator_params(nbins=5)
    axis.set_anchor("N")


def _scale(pixel_size_um: float | None) -> float:
    """Side of a pixel on the axes."""
    return 1 if pixel_size_um is None else pixel_size_um / 1000
