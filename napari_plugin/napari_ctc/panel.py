"""The panel beside the viewer: the cell's crops and calls, the keys, progress and pace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from ctc_imaging.store.history import Call
from napari_ctc.keys import Key

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_ctc.queue import ReviewQueue

_MARKER_PX = 96
_CAPTION_PX = 16
# As high as two markers with the caption and the gaps between them.
_COMPOSITE_PX = 2 * _MARKER_PX + _CAPTION_PX + 4


class CellPanel(QWidget):
    """Shows the current cell of a queue.

    Parameters
    ----------
    calls, moves, tools, reasons : sequence of Key
        The keys, as buttons; reasons show only where one is wanted.
    """

    def __init__(
        self, calls: Sequence[Key], moves: Sequence[Key], tools: Sequence[Key], reasons: Sequence[Key]
    ) -> None:
        super().__init__()
        self.title, self.model, self.own = QLabel(), QLabel(), QLabel()
        self.message, self.pace, self.sample = QLabel(), QLabel(), QLabel()
        self.progress = QProgressBar()
        self.crops = _Crops()
        self.reasons = _Reasons(reasons)
        for label in (self.title, self.model, self.own, self.message, self.pace, self.sample):
            label.setWordWrap(True)
        self.title.setStyleSheet("font-weight: bold; font-size: 13pt")
        self.own.setStyleSheet("font-size: 12pt")
        self.message.setStyleSheet("color: #ffb454")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.title, self.model, self.own, self.crops):
            layout.addWidget(widget)
        layout.addLayout(_button_grid(calls))
        layout.addWidget(self.reasons)
        layout.addLayout(_button_row(moves))
        layout.addLayout(_button_grid(tools, columns=3))
        for widget in (self.progress, self.pace, self.sample, self.message):
            layout.addWidget(widget)
        layout.addStretch()

    def show_cell(self, queue: ReviewQueue, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Show the current cell: what the model and others say only where the reader isn't blinded."""
        own = queue.current_call
        self.title.setText(f"{queue.slide_name}, {queue.cell_name}")
        self.model.setVisible(not queue.blinded)
        self.model.setText("" if queue.blinded else _said_before(queue))
        self.own.setText(f"Your call: {_words(own) if own else 'none yet'}")
        self.crops.show_pictures(pictures)
        self.reasons.ask(queue.wants_reason is not None)
        self._show_progress(queue)

    def show_sample(self, words: str) -> None:
        """Say which sample this is, and whether it is signed; empty for a blinded reader."""
        self.sample.setText(words)
        self.sample.setVisible(bool(words))

    def _show_progress(self, queue: ReviewQueue) -> None:
        progress = queue.progress
        what = "cells" if queue.blinded else "disputed cells" if queue.adjudicates else "candidates"
        self.progress.setMaximum(max(progress.candidates, 1))
        self.progress.setValue(progress.candidates_read)
        self.progress.setFormat(f"{progress.candidates_read} of {progress.candidates} {what}")
        pace = "" if progress.per_minute is None else f", {progress.per_minute:.0f} a minute"
        self.pace.setText(f"{progress.read} of {progress.total} cells read{pace}")


class _Reasons(QWidget):
    """Asks why a CTC of the model is none; the question goes when it is answered or the next cell is called."""

    def __init__(self, reasons: Sequence[Key]) -> None:
        super().__init__()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        self._question = QLabel("The model called the last one a CTC. Why is it none?")
        self._question.setWordWrap(True)
        layout.addWidget(self._question)
        layout.addLayout(_button_grid(reasons))
        self.setVisible(False)

    def ask(self, wanted: bool) -> None:
        """Show or hide the question."""
        self.setVisible(wanted)


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


def _button_grid(keys: Iterable[Key], columns: int = 2) -> QGridLayout:
    grid = QGridLayout()
    grid.setSpacing(4)
    for place, key in enumerate(keys):
        grid.addWidget(_button(key), *divmod(place, columns))
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


def _said_before(queue: ReviewQueue) -> str:
    """What is said of the current cell: by the readers who disagree on it, side by side, or by the model and others."""
    cell = queue.current
    if queue.adjudicates:
        words = queue.words.get(cell.key, [])
        said = [f"{row.reader}: {_words(Call(row.call, row.phenotype))}" for row in words]
        return "\n".join([*said, f"Model: {_words(cell.machine)}"])
    if cell.is_added:
        return "Added by a reader: the model says nothing of it"
    chances = ", ".join(f"{name} {p:.3f}" for name, p in cell.probabilities.items())
    other = queue.record.other(cell.key)
    read = f"\n{other.reader}: {_words(Call(other.call, other.phenotype))}" if other else ""
    return f"Model: {_words(cell.machine)}\n{chances}{read}"


def _words(call: Call) -> str:
    name = "CTC" if call.call == "ctc" else call.call
    return f"{name}, {call.phenotype}" if call.phenotype else name
