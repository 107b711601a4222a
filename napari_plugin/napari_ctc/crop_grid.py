"""A grid of crops that scrolls through any number of cells: only those on the screen are read and drawn."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QRect, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QFont, QImage, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QAbstractScrollArea

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from qtpy.QtGui import QKeyEvent, QMouseEvent, QPaintEvent, QResizeEvent

Key = tuple[str, int]
Picture = Callable[[Key], "NDArray[np.uint8] | None"]
"""Draws one cell, or says that there is nothing to draw."""

TILE_PX = 96
_CAPTION_PX = 16
_GAP_PX = 6
_KEPT = 2000
# So long the window may stand still while pictures are read.
_SLICE_S = 0.03
_BACK, _EMPTY, _WORDS, _CURRENT = QColor("#262930"), QColor("#3a3f4a"), QColor("#d5d8de"), QColor("#ffd23f")


class CropGrid(QAbstractScrollArea):
    """Shows cells as tiles, each with a caption and the colour of its call.

    Parameters
    ----------
    picture : callable
        Draws a cell; called for those on the screen, and kept.
    """

    picked = Signal(str, int)
    """Slide and cell of the tile that was clicked."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self._picture = picture
        self._keys: list[Key] = []
        self._captions: list[str] = []
        self._colours: list[str] = []
        self._current: Key | None = None
        self._pixmaps: OrderedDict[Key, QPixmap | None] = OrderedDict()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._load_some)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setMinimumHeight(TILE_PX + _CAPTION_PX + 2 * _GAP_PX)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def show_cells(self, keys: Sequence[Key], captions: Sequence[str], colours: Sequence[str]) -> None:
        """Show these cells; what was drawn of them before is still there."""
        self._keys, self._captions, self._colours = list(keys), list(captions), list(colours)
        self._lay_out()
        self.viewport().update()

    def relabel(self, key: Key, caption: str, colour: str) -> None:
        """Change a cell's caption and colour, where it is shown."""
        if key in self._keys:
            place = self._keys.index(key)
            self._captions[place], self._colours[place] = caption, colour
            self.viewport().update()

    def forget_pictures(self) -> None:
        """Draw everything anew, as another picture of each cell is wanted."""
        self._pixmaps.clear()
        self.viewport().update()

    def mark(self, key: Key, follow: bool = True) -> None:
        """Frame the current cell, and scroll to it where it is among those shown."""
        self._current = key
        if follow and key in self._keys:
            row = self._keys.index(key) // self.columns
            bar, height = self.verticalScrollBar(), self._row_px
            if not bar.value() <= row * height <= bar.value() + self.viewport().height() - height:
                bar.setValue(row * height - (self.viewport().height() - height) // 2)
        self.viewport().update()

    @property
    def columns(self) -> int:
        """Tiles beside each other."""
        return max((self.viewport().width() - _GAP_PX) // (TILE_PX + _GAP_PX), 1)

    @property
    def page_rows(self) -> int:
        """Whole rows on the screen."""
        return max(self.viewport().height() // self._row_px, 1)

    @property
    def is_drawn(self) -> bool:
        """Whether every tile on the screen has its picture."""
        return all(self._keys[place] in self._pixmaps for place in self._visible())

    def page(self, by: int) -> None:
        """Scroll by so many pages."""
        bar = self.verticalScrollBar()
        bar.setValue(bar.value() + by * self.page_rows * self._row_px)

    def wait(self) -> None:
        """Read all pictures on the screen at once."""
        while not self.is_drawn:
            self._load_some()

    @property
    def _row_px(self) -> int:
        return TILE_PX + _CAPTION_PX + _GAP_PX

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay the tiles out anew."""
        self._lay_out()
        super().resizeEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Leave the keys to the review."""
        event.ignore()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Tell which tile was clicked."""
        place = self._place_at(event.pos().x(), event.pos().y())
        if place is not None:
            self.picked.emit(*self._keys[place])

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the tiles on the screen, with those pictures that are there."""
        painter = QPainter(self.viewport())
        painter.fillRect(self.viewport().rect(), _BACK)
        font = QFont(self.font())
        font.setPixelSize(11)
        painter.setFont(font)
        for place in self._visible():
            self._draw(painter, place)
        painter.end()
        if not self.is_drawn and not self._timer.isActive():
            self._timer.start(0)

    def _draw(self, painter: QPainter, place: int) -> None:
        key, tile = self._keys[place], self._tile(place)
        pixmap = self._pixmaps.get(key)
        if pixmap is not None:
            painter.drawPixmap(tile, pixmap)
        else:
            painter.fillRect(tile, _EMPTY)
        if self._colours[place]:
            painter.fillRect(QRect(tile.left(), tile.bottom() + 1, tile.width(), 3), QColor(self._colours[place]))
        caption = QRect(tile.left(), tile.bottom() + 4, tile.width(), _CAPTION_PX - 4)
        painter.setPen(QPen(_WORDS))
        painter.drawText(caption, int(Qt.AlignmentFlag.AlignLeft), self._captions[place])
        if key == self._current:
            painter.setPen(QPen(_CURRENT, 3))
            painter.drawRect(tile.adjusted(-1, -1, 0, 0))

    def _load_some(self) -> None:
        """Read pictures for a moment, then let the window breathe."""
        until = time.perf_counter() + _SLICE_S
        for place in self._visible():
            key = self._keys[place]
            if key in self._pixmaps:
                self._pixmaps.move_to_end(key)
                continue
            self._pixmaps[key] = _pixmap(self._picture(key))
            if time.perf_counter() > until:
                break
        while len(self._pixmaps) > _KEPT:
            self._pixmaps.popitem(last=False)
        self.viewport().update()

    def _lay_out(self) -> None:
        rows = -(-len(self._keys) // self.columns)
        bar = self.verticalScrollBar()
        bar.setSingleStep(self._row_px // 2)
        bar.setPageStep(self.page_rows * self._row_px)
        bar.setRange(0, max(rows * self._row_px + _GAP_PX - self.viewport().height(), 0))

    def _visible(self) -> range:
        first = max(self.verticalScrollBar().value() - _GAP_PX, 0) // self._row_px
        last = (self.verticalScrollBar().value() + self.viewport().height()) // self._row_px + 1
        return range(first * self.columns, min(last * self.columns, len(self._keys)))

    def _tile(self, place: int) -> QRect:
        row, column = divmod(place, self.columns)
        x = _GAP_PX + column * (TILE_PX + _GAP_PX)
        y = _GAP_PX + row * self._row_px - self.verticalScrollBar().value()
        return QRect(x, y, TILE_PX, TILE_PX)

    def _place_at(self, x: int, y: int) -> int | None:
        return next((place for place in self._visible() if self._tile(place).contains(x, y)), None)


def _pixmap(picture: NDArray[np.uint8] | None) -> QPixmap | None:
    if picture is None:
        return None
    height, width, _ = picture.shape
    image = QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(image)
