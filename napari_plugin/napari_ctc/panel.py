"""The panel beside the viewer: the cell's crops and calls, the keys, progress and pace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_ctc.queue import Progress, ReviewQueue
    from napari_ctc.record import Call

_MARKER_PX = 96
_COMPOSITE_PX = 2 * _MARKER_PX + 24
# Row and column of each marker; the composite takes the upper left square.
_PLACES = [(0, 2), (1, 2), *((row, column) for row in (2, 3, 4) for column in range(3))]


class Key(NamedTuple):
    """A key, what it is called on its button, and what it does."""

    key: str
    label: str
    action: Callable[[], object]
    colour: str = ""


class CellPanel(QWidget):
    """Shows the current cell of a queue.

    Parameters
    ----------
    calls, moves : iterable of Key
        The keys, as buttons.
    """

    def __init__(self, calls: Iterable[Key], moves: Iterable[Key]) -> None:
        super().__init__()
        self.title, self.model, self.own = QLabel(), QLabel(), QLabel()
        self.message, self.pace = QLabel(), QLabel()
        self.progress = QProgressBar()
        self.crops = _Crops()
        for label in (self.title, self.model, self.own, self.message, self.pace):
            label.setWordWrap(True)
        self.title.setStyleSheet("font-weight: bold; font-size: 13pt")
        self.own.setStyleSheet("font-size: 12pt")
        self.message.setStyleSheet("color: #ffb454")
        layout = QVBoxLayout(self)
        for widget in (self.title, self.model, self.own, self.crops):
            layout.addWidget(widget)
        layout.addLayout(_button_grid(calls))
        layout.addLayout(_button_row(moves))
        for widget in (self.progress, self.pace, self.message):
            layout.addWidget(widget)
        layout.addStretch()

    def show_cell(self, queue: ReviewQueue, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Show the current cell: what the model says only where the reader isn't blinded."""
        cell, own = queue.current, queue.current_call
        self.title.setText(f"{queue.slide_name}, cell {cell.cell_id}")
        self.model.setVisible(not queue.blinded)
        if not queue.blinded:
            chances = ", ".join(f"{name} {p:.3f}" for name, p in cell.probabilities.items())
            self.model.setText(f"Model: {_words(cell.machine)}\n{chances}")
        self.own.setText(f"Your call: {_words(own) if own else 'none yet'}")
        self.crops.show_pictures(pictures)
        self._show_progress(queue.progress)

    def _show_progress(self, progress: Progress) -> None:
        self.progress.setMaximum(max(progress.candidates, 1))
        self.progress.setValue(progress.candidates_read)
        self.progress.setFormat(f"{progress.candidates_read} of {progress.candidates} candidates")
        pace = "" if progress.per_minute is None else f", {progress.per_minute:.0f} a minute"
        self.pace.setText(f"{progress.read} of {progress.total} cells read{pace}")


class _Crops(QWidget):
    """The composite and each marker of one cell."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(4)
        self._tiles: dict[str, QLabel] = {}
        self._none = QLabel("No picture of this cell: its scan can't be read.")
        self._none.setWordWrap(True)
        self._grid.addWidget(self._none, 5, 0, 1, 3)

    def show_pictures(self, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        self._none.setVisible(not pictures)
        if pictures and list(pictures) != list(self._tiles):
            self._lay_out(list(pictures))
        for name, tile in self._tiles.items():
            tile.setVisible(name in pictures)
            if name in pictures:
                tile.setPixmap(_pixmap(pictures[name], tile.property("side_px")))

    def _lay_out(self, names: list[str]) -> None:
        for tile in self._tiles.values():
            tile.deleteLater()
        self._tiles = {name: QLabel() for name in names}
        for name, (row, column) in zip(names[1:], _PLACES, strict=False):
            self._place(name, row, column, 1, _MARKER_PX)
        self._place(names[0], 0, 0, 2, _COMPOSITE_PX)

    def _place(self, name: str, row: int, column: int, span: int, side_px: int) -> None:
        tile = self._tiles[name]
        tile.setProperty("side_px", side_px)
        tile.setToolTip(f"{name}; the bar is 10 µm")
        self._grid.addWidget(tile, row, column, span, span)


def _pixmap(picture: NDArray[np.uint8], side_px: int) -> QPixmap:
    height, width, _ = picture.shape
    image = QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    smooth = Qt.TransformationMode.SmoothTransformation
    return QPixmap.fromImage(image).scaled(side_px, side_px, Qt.AspectRatioMode.KeepAspectRatio, smooth)


def _button_grid(keys: Iterable[Key]) -> QGridLayout:
    grid = QGridLayout()
    grid.setSpacing(4)
    for place, key in enumerate(keys):
        grid.addWidget(_button(key), place // 2, place % 2)
    return grid


def _button_row(keys: Iterable[Key]) -> QHBoxLayout:
    row = QHBoxLayout()
    for key in keys:
        row.addWidget(_button(key))
    return row


def _button(key: Key) -> QPushButton:
    button = QPushButton(f"{key.key}  {key.label}")
    # The keyboard belongs to the calls: no button may take it.
    button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    if key.colour:
        button.setStyleSheet(f"text-align: left; border-left: 5px solid {key.colour}")
    button.clicked.connect(lambda: key.action())
    return button


def _words(call: Call) -> str:
    name = "CTC" if call.call == "ctc" else call.call
    return f"{name}, {call.phenotype}" if call.phenotype else name
