"""A plate for a paper: cells in rows, composite and channels in columns, with a scale bar, at 300 dpi."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from ctc_imaging.counting import counted_cells
from ctc_imaging.disk import disk_errors
from ctc_imaging.errors import RunError
from ctc_imaging.export.cells import SlideCells, class_name
from ctc_imaging.files import atomic_path
from ctc_imaging.report.pictures import BAR_UM, channel_tiles
from ctc_imaging.report.words import marker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 300
CELLS_A_PAGE = 30
"""Two columns of cells, as wide and high as a page of a journal allows."""

_TILE_MM, _GAP_MM, _LABEL_MM, _HEAD_MM, _FOOT_MM = 12.0, 0.6, 19.0, 5.0, 6.0
_MM = 25.4
_INK, _FONT, _LINE = "#111111", 6.0, 16


@dataclass(frozen=True)
class Plate:
    """What was drawn: the files, how many cells, and the cells that have no crop, as (slide, cell)."""

    files: tuple[Path, ...]
    cells: int
    without_crop: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Row:
    """A cell: its name and class, and its tiles (n, Y, X, 3) in 0 to 1, the composite first."""

    name: str
    words: str
    tiles: NDArray[np.float32]
    names: tuple[str, ...]
    pixel_size_um: float


def write_plate(
    slides: Iterable[SlideCells],
    target: Path,
    facts: dict[str, Any],
    chosen: Sequence[tuple[str, int]] | None = None,
) -> Plate:
    """Draw cells from the crops that a run keeps of its candidates.

    Parameters
    ----------
    slides : iterable of SlideCells
    target : Path
        A .png; from the second page on -2, -3 and so on are added to its name.
    facts : dict
        Of run.json.
    chosen : sequence of (slide_id, cell_id), optional
        Just these cells, in this order; by default all of the slides that count, surest first on each.

    Returns
    -------
    Plate

    Raises
    ------
    RunError
        If no cell has a crop, or a file can't be written.
    """
    rows: dict[tuple[str, int], _Row] = {}
    wanted: list[tuple[str, int]] = []
    for slide in slides:
        cells = _in_order(slide, chosen)
        rows |= {(slide.slide_id, cell_id): row for cell_id, row in _rows(slide, cells)}
        wanted.extend((slide.slide_id, int(cell_id)) for cell_id in cells["cell_id"])
    drawn = [cell for cell in (wanted if chosen is None else chosen) if cell in rows]
    if not drawn:
        fault = "no such cell has a crop" if wanted else "there is no such cell"
        raise RunError("export", fault, "a run keeps crops of its candidates only: name others")
    pages = [drawn[start : start + CELLS_A_PAGE] for start in range(0, len(drawn), CELLS_A_PAGE)]
    files = [_numbered(target, number) for number in range(1, len(pages) + 1)]
    for file, page in zip(files, pages, strict=True):
        _save(_draw([rows[cell] for cell in page], bool(facts["simulated"])), file, facts)
    missing = [cell for cell in (wanted if chosen is None else chosen) if cell not in rows]
    return Plate(tuple(files), len(drawn), tuple(missing))


def _in_order(slide: SlideCells, chosen: Sequence[tuple[str, int]] | None) -> pd.DataFrame:
    cells = slide.cells
    if chosen is not None:
        return cells[cells["cell_id"].isin([cell for slide_id, cell in chosen if slide_id == slide.slide_id])]
    return cells[counted_cells(cells)].sort_values(["p_ctc", "cell_id"], ascending=[False, True], kind="stable")


def _rows(slide: SlideCells, cells: pd.DataFrame) -> list[tuple[int, _Row]]:
    group: Any = zarr.open_group(slide.folder / "crops.zarr", mode="r")
    place = {int(cell_id): index for index, cell_id in enumerate(group["cell_id"][:])}
    shorts = list(group.attrs["channels"])
    colours = {channel.short: channel.colour for channel in slide.panel.channels}
    # Limits are in the slide's values, crops as stored: scale and offset lead from these to those.
    scale, offset, low, high = (np.array(group.attrs[name], float) for name in ("scale", "offset", "low", "high"))
    limits = (low - offset) / scale, (high - offset) / scale
    stains = [colours.get(short, "#ffffff") for short in shorts]
    names, size = tuple(marker(short) for short in shorts), float(group.attrs["pixel_size_um"])
    rows = []
    for cell in cells.to_dict("records"):
        if (cell_id := int(cell["cell_id"])) in place:
            crop = group["crops"][place[cell_id]]
            words = class_name(cell["call"], cell["phenotype"]).replace("ctc", "CTC").replace(": ", ", ")
            tiles = _tiles(crop, limits, stains)
            rows.append((cell_id, _Row(f"{_folded(slide.slide_id)}\ncell {cell_id}", words, tiles, names, size)))
    return rows


def _tiles(crop: NDArray, limits: tuple[NDArray, NDArray], stains: Sequence[str]) -> NDArray[np.float32]:
    """Composite in the panel's colours, then each channel in grey, in which faint signal is seen best."""
    composite = np.clip(channel_tiles(crop, *limits, stains).sum(0, keepdims=True), 0, 1)
    return np.concatenate([composite, channel_tiles(crop, *limits, ["#ffffff"] * len(stains))])


def _numbered(target: Path, number: int) -> Path:
    return target if number == 1 else target.with_name(f"{target.stem}-{number}{target.suffix}")


def _draw(rows: Sequence[_Row], simulated: bool) -> Figure:
    from matplotlib.figure import Figure

    columns = max(len(row.tiles) for row in rows)
    blocks = 1 if len(rows) <= CELLS_A_PAGE // 2 else 2
    high = -(-len(rows) // blocks)
    step = _TILE_MM + _GAP_MM
    block_mm = _LABEL_MM + columns * step + 2 * _GAP_MM
    width_mm, height_mm = blocks * block_mm, _HEAD_MM + high * step + _FOOT_MM
    canvas = np.full((_px(height_mm), _px(width_mm), 3), 255, np.uint8)
    figure = Figure(figsize=(canvas.shape[1] / DPI, canvas.shape[0] / DPI), dpi=DPI, facecolor="white")
    for place, row in enumerate(rows):
        left, top = (place // high) * block_mm, _HEAD_MM + (place % high) * step
        _paste(canvas, row, left + _LABEL_MM, top)
        _text(figure, left + _GAP_MM, top + _TILE_MM / 2, f"{row.name}\n{row.words}", va="center")
        if place % high == 0:
            _heads(figure, row, left + _LABEL_MM)
    figure.figimage(canvas)
    scale = f"Scale bars {BAR_UM:.0f} µm. Contrast of a channel is the same for all cells of a slide."
    _text(figure, _GAP_MM, height_mm - _FOOT_MM / 2, f"{scale}\nSimulated slides." if simulated else scale, va="center")
    return figure


def _paste(canvas: NDArray[np.uint8], row: _Row, left_mm: float, top_mm: float) -> None:
    side, top = _px(_TILE_MM), _px(top_mm)
    for column, tile in enumerate(row.tiles):
        large = np.clip(cv2.resize(tile, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)
        if column == 0:
            length, inset = round(BAR_UM / row.pixel_size_um * side / tile.shape[1]), _px(0.8)
            large[side - inset - _px(0.4) : side - inset, side - inset - length : side - inset] = 1
        left = _px(left_mm + column * (_TILE_MM + _GAP_MM))
        canvas[top : top + side, left : left + side] = np.rint(large * 255).astype(np.uint8)


def _heads(figure: Figure, row: _Row, left_mm: float) -> None:
    for column, name in enumerate(("Composite", *row.names)):
        middle = left_mm + column * (_TILE_MM + _GAP_MM) + _TILE_MM / 2
        _text(figure, middle, _HEAD_MM - 1.2, name, ha="center", va="bottom")


def _text(figure: Figure, x_mm: float, y_mm: float, text: str, **how: Any) -> None:
    width, height = (side * _MM for side in figure.get_size_inches())
    figure.text(x_mm / width, 1 - y_mm / height, text, fontsize=_FONT, color=_INK, **how)


def _px(length_mm: float) -> int:
    return round(length_mm / _MM * DPI)


def _folded(name: str) -> str:
    """Fold a long name to two lines, which is all there is room for."""
    lines = [name[start : start + _LINE] for start in range(0, len(name), _LINE)]
    return "\n".join(lines if len(lines) <= 2 else [lines[0], f"{lines[1][:-1]}…"])


def _save(figure: Figure, target: Path, facts: dict[str, Any]) -> None:
    told = {"Software": f"ctc-imaging {facts['version']}", "Comment": f"run {facts['hash']}"}
    with disk_errors(target), atomic_path(target) as temporary:
        figure.savefig(temporary, dpi=DPI, format="png", metadata=told)
