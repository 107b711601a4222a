"""A review going on: one key a call, each written to the ledger before the next cell is shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from ctc_imaging.errors import CtcImagingError
from napari_ctc.crops import CropSource
from napari_ctc.layers import CALL_COLOURS
from napari_ctc.panel import CellPanel, Key
from napari_ctc.scene import Scene

if TYPE_CHECKING:
    import napari
    from qtpy.QtGui import QKeyEvent

    from ctc_imaging.store.ledger import Review
    from napari_ctc.queue import ReviewQueue

# Key, what its button says, call, phenotype.
CALLS = (
    ("E", "CTC epithelial", "ctc", "epithelial"),
    ("H", "CTC hybrid", "ctc", "hybrid"),
    ("M", "CTC mesenchymal", "ctc", "mesenchymal"),
    ("C", "CTC", "ctc", ""),
    ("L", "leukocyte", "leukocyte", ""),
    ("A", "artefact", "artefact", ""),
    ("U", "unsure", "indeterminate", ""),
)
_ARROWS = {Qt.Key.Key_Left: "Left", Qt.Key.Key_Right: "Right"}


class ReviewSession(QWidget):
    """Ties a queue to the viewer, the panel and the keys.

    Parameters
    ----------
    viewer : napari.Viewer
    queue : ReviewQueue

    Raises
    ------
    CtcImagingError
        If the first slide has no results.
    """

    def __init__(self, viewer: napari.Viewer, queue: ReviewQueue) -> None:
        super().__init__()
        self.queue = queue
        self.done = QPushButton("Close this run")
        self.done.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._viewer = viewer
        self._scene = Scene(viewer, queue.run, queue.blinded)
        self._crops: CropSource | None = None
        calls, moves = self._call_keys(), self._move_keys()
        self._keys = {key.key: key.action for key in (*calls, *moves)}
        self.panel = CellPanel(calls, moves)
        layout = QVBoxLayout(self)
        layout.addWidget(self.panel)
        layout.addWidget(self.done)
        # The keys also work after a click into the panel.
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._show()
        self._bind(viewer)
        for layer in viewer.layers:
            self._bind(layer)
        viewer.layers.events.inserted.connect(self._bind_inserted)

    def close_run(self) -> None:
        """Take the keys and the layers back."""
        self._viewer.layers.events.inserted.disconnect(self._bind_inserted)
        self._scene.clear()
        for target in (self._viewer, *self._viewer.layers):
            for key in self._keys:
                target.bind_key(key, None)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Take keys while the panel has the focus as the viewer does while it has."""
        key = _ARROWS.get(event.key()) or event.text().upper()
        if event.modifiers() == Qt.KeyboardModifier.NoModifier and key in self._keys and not event.isAutoRepeat():
            self._keys[key]()
        else:
            super().keyPressEvent(event)

    def _call_keys(self) -> list[Key]:
        blinded = self.queue.blinded
        return [
            Key(
                key,
                label,
                partial(self._write, partial(self.queue.call, call, phenotype)),
                "" if blinded else CALL_COLOURS[call],
            )
            for key, label, call, phenotype in CALLS
        ]

    def _move_keys(self) -> list[Key]:
        return [
            Key("Z", "undo", partial(self._write, self.queue.undo)),
            Key("Y", "redo", partial(self._write, self.queue.redo)),
            Key("Left", "back", partial(self._step, -1), sign="←"),
            Key("Right", "next", partial(self._step, 1), sign="→"),
        ]

    def _bind_inserted(self, event: Any) -> None:
        self._bind(event.value)

    def _bind(self, target: Any) -> None:
        """Bind the keys to the viewer or a layer, whose own keys would come before the viewer's."""
        for key, action in self._keys.items():
            target.bind_key(key, lambda _, action=action: action(), overwrite=True)

    def _step(self, by: int) -> None:
        self.queue.step(by)
        self._safely(self._show)

    def _write(self, act: Callable[[], Review | None]) -> None:
        """Write a row, then show the cell that the queue has come to."""
        # Who closed the panel and types on mustn't call cells unseen.
        if self.isVisible():
            self._safely(lambda: self._scene.recolour(act()), self._show)

    def _safely(self, *acts: Callable[[], None]) -> None:
        """Do one thing after the other up to the first that fails, and say why."""
        try:
            for act in acts:
                act()
        except CtcImagingError as error:
            self.panel.message.setText(str(error))
            show_error(str(error))

    def _show(self) -> None:
        cell = self.queue.current
        if self._scene.show(cell) or self._crops is None:
            self._crops = CropSource(self.queue.run, self._scene.slide)
        self.panel.show_cell(self.queue, self._crops.pictures(cell.cell_id, cell.y_um, cell.x_um))
        self.panel.message.setText(self._fault())

    def _fault(self) -> str:
        """Why there is no scan; without its path for a blinded reader, as a path may name the patient."""
        fault = self._scene.slide.fault
        if fault and self.queue.blinded:
            fault = "the scan of this slide can't be read"
        return fault and f"Cells and outlines are shown without the scan. Why: {fault}."
