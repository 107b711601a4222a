"""The panel beside the viewer: the cell's crops and calls, the keys, progress and pace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, count
from typing import TYPE_CHECKING, NamedTuple

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_ctc.record import Call

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_ctc.queue import Progress, ReviewQueue

_MARKER_PX = 96
_CAPTION_PX = 16
# As high as two markers with the caption and the gaps between them.
_COMPOSITE_PX = 2 * _MARKER_PX + _CAPTION_PX + 4


class Key(NamedTuple):
    """A key, what its button says, and what it does; `sign` is written for a key whose name is a word."""

    key: str
    label: str
    action: Callable[[], object]
    colour: str = ""
    sign: str = ""


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
        layout.setContentsMargins(0, 0, 0, 0)
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
            other = queue.record.other(cell.key)
            read = f"\n{other.reader}: {_words(Call(other.call, other.phenotype))}" if other else ""
            self.model.setText(f"Model: {_words(cell.machine)}\n{chances}{read}")
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
        self._grid.setVerticalSpacing(2)
        self._tiles: dict[str, QLabel] = {}
        self._laid_out: list[QLabel] = []
        self._none = QLabel("No picture of this cell: its scan can't be read.")
        self._none.setWordWrap(True)
        self._grid.addWidget(self._none, 0, 0)

    def show_pictures(self, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Show pictures by name, the composite first; none where there are none."""
        self._none.setVisible(not pictures)
        if pictures and list(pictures) != list(self._tiles):
            self._lay_out(list(pictures))
        for name, tile in self._tiles.items():
            tile.setEnabled(name in pictures)
            tile.clear()
            if name in pictures:
                tile.setPixmap(_pixmap(pictures[name], tile.width()))

    def _lay_out(self, names: list[str]) -> None:
        for widget in self._laid_out:
            self._grid.removeWidget(widget)
            widget.deleteLater()
        self._laid_out, self._tiles = [], {}
        self._place(f"{names[0]}, bar 10 µm", names[0], (0, 0), 2)
        # The composite takes the upper left four squares of a grid three wide, markers the rest.
        places = chain([(0, 2), (1, 2)], ((row, column) for row in count(2) for column in range(3)))
        for name, place in zip(names[1:], places, strict=False):
            self._place(name.upper(), name, place, 1)

    def _place(self, caption: str, name: str, place: tuple[int, int], span: int) -> None:
        """Put a picture with its caption below into `span` x `span` squares of the grid."""
        row, column = place
        tile = self._tiles[name] = QLabel()
        side_px = _MARKER_PX if span == 1 else _COMPOSITE_PX
        tile.setFixedSize(side_px, side_px)
        words = QLabel(caption)
        words.setFixedHeight(_CAPTION_PX)
        self._laid_out += [tile, words]
        self._grid.addWidget(tile, 1 + 2 * row, column, 2 * span - 1, span)
        self._grid.addWidget(words, 1 + 2 * (row + span) - 1, column, 1, span)


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
    button = QPushButton(f"{key.sign or key.key}  {key.label}")
    # The keyboard belongs to the calls: no button may take it.
    button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    if not key.sign:
        button.setStyleSheet("text-align: left" + (f"; border-left: 5px solid {key.colour}" if key.colour else ""))
    button.clicked.connect(lambda: key.action())
    return button


def _words(call: Call) -> str:
    name = "CTC" if call.call == "ctc" else call.call
    return f"{name}, {call.phenotype}" if call.phenotype else name
