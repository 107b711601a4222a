"""The gallery: all cells of a review as crops, sorted and filtered; a click goes to the cell on the slide."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from ctc_imaging.errors import CtcImagingError
from napari_ctc.crop_grid import TILE_PX, CropGrid, Key
from napari_ctc.crops import COMPOSITE, CropSource
from napari_ctc.gallery_cells import CHOICES, SORTS, Filters, chosen, gallery_table, with_call
from napari_ctc.layers import CALL_COLOURS, open_view

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ctc_imaging.store.record import Review
    from napari_ctc.queue import ReviewQueue

_SLIDES_OPEN = 12
_TIMES = TILE_PX // 48


class Gallery(QWidget):
    """The gallery of a review.

    Parameters
    ----------
    queue : ReviewQueue
        Its calls show here, and a click here moves it.
    """

    def __init__(self, queue: ReviewQueue) -> None:
        super().__init__()
        self._queue = queue
        self._table = gallery_table(queue)
        self._places = {key: place for place, key in enumerate(self._all_keys())}
        self._centres = self._table[["y_um", "x_um"]].to_numpy(float).tolist()
        self._sources: OrderedDict[str, CropSource | None] = OrderedDict()
        self.grid = CropGrid(self._picture)
        self.picked = self.grid.picked
        self.channel, self.sort = QComboBox(), QComboBox()
        self.filters = {name: QComboBox() for name in CHOICES}
        self.total = QLabel()
        self._fill()
        self._lay_out()
        self.refresh()

    def refresh(self) -> None:
        """Choose and sort the cells anew."""
        filters = Filters(**{name: box.currentText() for name, box in self.filters.items()})
        rows = self._table.iloc[chosen(self._table, self.sort.currentText(), filters)]
        keys = list(zip(rows["slide_id"], rows["cell_id"].astype(int), strict=True))
        captions = [_caption(*row) for row in zip(rows["call"], rows["phenotype"], rows["p_ctc"], strict=True)]
        self.grid.show_cells(keys, captions, [CALL_COLOURS.get(call, "") for call in rows["call"]])
        self.grid.mark(self._queue.current.key)
        self.total.setText(f"{len(keys):,} of {len(self._table):,} cells".replace(",", "\u2009"))

    def follow(self, row: Review | None = None) -> None:
        """Frame the current cell, and show a new call; it stays in its place until the cells are chosen anew."""
        if row is not None and row.cell in self._places:
            said = self._queue.record.history.call(row.cell)
            call, phenotype = (row.call, row.phenotype)
            with_call(self._table, row, call, phenotype, said is not None)
            p_ctc = float(self._table["p_ctc"].iloc[self._places[row.cell]])
            self.grid.relabel(row.cell, _caption(call, phenotype, p_ctc), CALL_COLOURS.get(call, ""))
        self.grid.mark(self._queue.current.key)

    def _all_keys(self) -> list[Key]:
        return list(zip(self._table["slide_id"], self._table["cell_id"].astype(int), strict=True))

    def _picture(self, key: Key) -> NDArray[np.uint8] | None:
        source = self._source(key[0])
        row = self._table.iloc[self._places[key]]
        if source is None:
            return None
        return source.picture(
            key[1], float(row["y_um"]), float(row["x_um"]), self.channel.currentText().lower(), _TIMES
        )

    def _source(self, slide_id: str) -> CropSource | None:
        if slide_id not in self._sources:
            try:
                run = self._queue.run
                self._sources[slide_id] = CropSource(run, open_view(run, slide_id))
            except CtcImagingError:
                self._sources[slide_id] = None
            if len(self._sources) > _SLIDES_OPEN:
                self._sources.popitem(last=False)
        return self._sources[slide_id]

    def _fill(self) -> None:
        first = self._source(self._queue.current.slide_id)
        self.channel.addItems([name if name == COMPOSITE else name.upper() for name in (first.names if first else ())])
        self.sort.addItems(SORTS)
        for name, box in self.filters.items():
            box.addItems(CHOICES[name])
            box.currentIndexChanged.connect(self.refresh)
        self.sort.currentIndexChanged.connect(self.refresh)
        self.channel.currentIndexChanged.connect(self.grid.forget_pictures)

    def _lay_out(self) -> None:
        bar = QHBoxLayout()
        shown = {"show": self.channel, "sort by": self.sort, **self.filters}
        for name, box in shown.items():
            box.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            bar.addWidget(QLabel(name))
            bar.addWidget(box)
        bar.addWidget(QLabel("bar 10 µm"))
        bar.addStretch()
        bar.addWidget(self.total)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 2, 4, 2)
        layout.addLayout(bar)
        layout.addWidget(self.grid)


def _caption(call: str, phenotype: str, p_ctc: float) -> str:
    name = {"ctc": "CTC", "indeterminate": "unsure", "": "added"}.get(call, call)
    chance = f"{p_ctc:.2f}" if p_ctc == p_ctc else ""
    return " ".join(part for part in (name, phenotype[:3], chance) if part)
