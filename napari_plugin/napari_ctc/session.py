"""A review going on: one key a call, each written to the ledger before the next cell is shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QInputDialog, QMainWindow, QMessageBox, QPushButton, QScrollArea, QVBoxLayout, QWidget

from ctc_imaging.cohort import load_cohort
from ctc_imaging.errors import CtcImagingError, SignedError
from ctc_imaging.sign_off import sign_sample
from napari_ctc.clicks import Clicks
from napari_ctc.crops import CropSource
from napari_ctc.gallery import Gallery
from napari_ctc.keys import CALLS, REASONS, Key
from napari_ctc.layers import CALL_COLOURS
from napari_ctc.panel import CellPanel
from napari_ctc.scene import NEW_OUTLINE, Scene

if TYPE_CHECKING:
    import napari
    import numpy as np
    from numpy.typing import NDArray
    from qtpy.QtGui import QKeyEvent

    from ctc_imaging.store.record import Review
    from napari_ctc.queue import ReviewQueue

_NAMED_KEYS = {Qt.Key.Key_Left: "Left", Qt.Key.Key_Right: "Right", Qt.Key.Key_Escape: "Escape"}


class ReviewSession(QWidget):
    """Ties a queue to the viewer, the panel, the gallery and the keys.

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
        self.gallery: Gallery | None = None
        self.ask_reason: Callable[[str], str] = self._ask_reason
        self.confirm: Callable[[str], bool] = self._confirm
        self._viewer = viewer
        self._scene = Scene(viewer, queue.run, queue.blinded)
        self._crops: CropSource | None = None
        self._samples = {entry.slide_id: entry.sample_id for entry in load_cohort(queue.run.table("cohort"))}
        self._make_panel()
        self._clicks = Clicks(viewer, self._clicked)
        self._show()
        self._bind(viewer)
        for layer in viewer.layers:
            self._bind(layer)
        viewer.layers.events.inserted.connect(self._bind_inserted)

    def close_run(self) -> None:
        """Take the keys, the gallery and the layers back."""
        self._crops = None
        self._viewer.layers.events.inserted.disconnect(self._bind_inserted)
        self._clicks.stop()
        if self.gallery is not None:
            self._viewer.window.remove_dock_widget(self.gallery)
            self.gallery = None
        self._scene.stop_drawing()
        self._scene.clear()
        for target in (self._viewer, *self._viewer.layers):
            for key in self._keys:
                target.bind_key(key, None)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Take keys while the panel has the focus as the viewer does while it has."""
        key = _NAMED_KEYS.get(event.key()) or event.text().upper()
        if event.modifiers() == Qt.KeyboardModifier.NoModifier and key in self._keys and not event.isAutoRepeat():
            self._keys[key]()
        else:
            super().keyPressEvent(event)

    def toggle_gallery(self) -> None:
        """Show the gallery below the slide, or put it away; a blinded reader has none, as it tells calls."""
        if self.queue.blinded:
            return
        if self.gallery is None:
            self.gallery = Gallery(self.queue)
            self.gallery.picked.connect(self._go_to)
            if isinstance(window := self.window(), QMainWindow):
                # The panel beside it keeps its height, with all keys in sight.
                window.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea)
            self._viewer.window.add_dock_widget(self.gallery, name="CTC gallery", area="bottom")
        else:
            self.gallery.parentWidget().setVisible(not self.gallery.isVisible())

    def sign(self) -> None:
        """Sign the sample of the current cell, after a question."""
        sample_id = self._samples[self.queue.current.slide_id]
        if self.confirm(f"Sign sample {sample_id} as {self.queue.record.reader}? Later calls will be amendments."):
            self._safely(lambda: self._signed(sample_id))

    def _make_panel(self) -> None:
        calls, moves, reasons = self._call_keys(), self._move_keys(), self._reason_keys()
        tools = [] if self.queue.blinded else self._tool_keys()
        self._keys = {key.key: key.action for key in (*calls, *moves, *reasons, *tools)}
        self._keys["Escape"] = self._stop_tools
        self.panel = CellPanel(calls, moves, tools, reasons)
        self.done, self.signing = QPushButton("Close this run"), QPushButton("Sign this sample")
        self.signing.clicked.connect(self.sign)
        self.signing.setHidden(self.queue.blinded)
        layout = QVBoxLayout(self)
        layout.addWidget(_scrolled(self.panel))
        for button in (self.signing, self.done):
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            layout.addWidget(button)
        # The keys also work after a click into the panel.
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def _call_keys(self) -> list[Key]:
        return [
            Key(key, label, partial(self._call, call, phenotype), "" if self.queue.blinded else CALL_COLOURS[call])
            for key, label, call, phenotype in CALLS
        ]

    def _reason_keys(self) -> list[Key]:
        if self.queue.blinded:
            return []
        return [Key(key, words, partial(self._give_reason, words)) for key, words in REASONS]

    def _move_keys(self) -> list[Key]:
        return [
            Key("Z", "undo", partial(self._write, self.queue.undo)),
            Key("Y", "redo", partial(self._write, self.queue.redo)),
            Key("Left", "back", partial(self._step, -1), sign="←"),
            Key("Right", "next", partial(self._step, 1), sign="→"),
        ]

    def _tool_keys(self) -> list[Key]:
        click = "click {}; Esc to leave it"
        return [
            Key("N", "missed cell", partial(self._use, "add", click.format("where the missed cell lies"))),
            Key("D", "doubled", partial(self._use, "merge", click.format("the other half of the current cell"))),
            Key("O", "outline wrong", self._mark_outline),
            Key("P", "draw outline", self._draw_outline),
            Key("G", "gallery", self.toggle_gallery),
        ]

    def _bind_inserted(self, event: Any) -> None:
        # While an outline is drawn, Escape and the like are the drawing's.
        if event.value.name != NEW_OUTLINE:
            self._bind(event.value)

    def _bind(self, target: Any) -> None:
        """Bind the keys to the viewer or a layer, whose own keys would come before the viewer's."""
        for key, action in self._keys.items():
            target.bind_key(key, lambda _, action=action: action(), overwrite=True)

    def _call(self, call: str, phenotype: str) -> None:
        reason = self._amending()
        if reason is not None:
            self._write(lambda: self.queue.call(call, phenotype, reason))

    def _give_reason(self, words: str) -> None:
        if self.isVisible():
            self._safely(lambda: self._written(self.queue.give_reason(words)), self._show)

    def _step(self, by: int) -> None:
        self.queue.step(by)
        self._safely(self._show)

    def _go_to(self, slide_id: str, cell_id: int) -> None:
        if self.queue.go_to(slide_id, cell_id):
            self._safely(self._show)

    def _write(self, act: Callable[[], Review | None]) -> None:
        """Write a row, then show the cell that the queue has come to."""
        # Who closed the panel and types on mustn't call cells unseen.
        if self.isVisible():
            self._safely(lambda: self._written(act()), self._show)

    def _written(self, row: Review | None) -> None:
        self._scene.recolour(row)
        if self.gallery is not None:
            self.gallery.follow(row)

    def _use(self, tool: str, words: str) -> None:
        self._clicks.tool = tool
        self.panel.message.setText(words[0].upper() + words[1:] + ".")

    def _stop_tools(self) -> None:
        self._clicks.tool = ""
        self._scene.stop_drawing()
        self._safely(self._show)

    def _clicked(self, tool: str, y_um: float, x_um: float) -> None:
        """Do with a click on the slide what the tool in hand says; without any it goes to the cell there."""
        cell_id = self._scene.cell_at(y_um, x_um)
        if tool == "add":
            self._correct(lambda reason: self.queue.add_missed(y_um, x_um, reason))
        elif cell_id is None:
            return
        elif tool == "merge":
            self._correct(lambda reason: self.queue.merge_into_current(cell_id, reason))
        else:
            self._go_to(self.queue.current.slide_id, cell_id)

    def _mark_outline(self) -> None:
        self._correct(lambda reason: self.queue.mark_outline(None, reason))
        self.panel.message.setText("The outline is marked as wrong.")

    def _draw_outline(self) -> None:
        def done(corners: NDArray[np.float64]) -> None:
            self._correct(lambda reason: self.queue.mark_outline(corners.tolist(), reason))

        self._scene.draw_outline(done)
        self.panel.message.setText("Draw the new outline of the current cell with the mouse; Esc to leave it.")

    def _correct(self, act: Callable[[str], Review]) -> None:
        reason = self._amending()
        if reason is not None:
            self._write(lambda: act(reason))

    def _amending(self) -> str | None:
        """Ask why a signed sample is amended; empty where none is, None where no answer comes."""
        signature = self.queue.locked
        if signature is None:
            return ""
        words = f"Sample {signature.sample_id} was signed by {signature.reader}. Why is it amended?"
        reason = self.ask_reason(words).strip()
        if not reason:
            self.panel.message.setText("Nothing was written: an amendment needs a reason.")
        return reason or None

    def _signed(self, sample_id: str) -> None:
        signature = sign_sample(self.queue.run, sample_id, self.queue.record.reader)
        self.queue.record.refresh_signatures()
        self._show()
        self.panel.message.setText(
            f"Signed, with {signature.counts['ctc']} CTCs. ctc-imaging counts RUN takes it over."
        )

    def _safely(self, *acts: Callable[[], None]) -> None:
        """Do one thing after the other up to the first that fails, and say why."""
        try:
            for act in acts:
                act()
        except SignedError as error:
            # Somebody else signed meanwhile: from now on a reason is asked for.
            self.panel.message.setText(str(error))
        except CtcImagingError as error:
            self.panel.message.setText(str(error))
            show_error(str(error))

    def _show(self) -> None:
        cell = self.queue.current
        self._clicks.tool = ""
        if self._scene.show(cell) or self._crops is None:
            self._crops = CropSource(self.queue.run, self._scene.slide, alike=self.queue.blinded)
        self.panel.show_cell(self.queue, self._crops.pictures(cell.cell_id, cell.y_um, cell.x_um))
        self.panel.show_sample(self._sample_words())
        self.panel.message.setText(self._fault())
        if self.gallery is not None:
            self.gallery.follow()
        # The next cell's pictures are drawn while the reader looks at this one.
        QTimer.singleShot(0, self._prepare_next)

    def _prepare_next(self) -> None:
        following = self.queue.following
        if self._crops is not None and following.slide_id == self._scene.slide.slide_id:
            self._crops.pictures(following.cell_id, following.y_um, following.x_um)

    def _sample_words(self) -> str:
        if self.queue.blinded:
            return ""
        sample_id, signature = self._samples[self.queue.current.slide_id], self.queue.locked
        if signature is None:
            return f"Sample {sample_id}, not signed"
        return f"Sample {sample_id}, signed by {signature.reader} on {signature.time[:10]}: calls are amendments"

    def _fault(self) -> str:
        """Why there is no scan; without its path for a blinded reader, as a path may name the patient."""
        fault = self._scene.slide.fault
        if fault and self.queue.blinded:
            fault = "the scan of this slide can't be read"
        return fault and f"Cells and outlines are shown without the scan. Why: {fault}."

    def _ask_reason(self, words: str) -> str:
        text, given = QInputDialog.getText(self, "Amendment", words)
        return text if given else ""

    def _confirm(self, words: str) -> bool:
        return QMessageBox.question(self, "Sign", words) == QMessageBox.StandardButton.Yes


def _scrolled(panel: QWidget) -> QScrollArea:
    """A low window scrolls its panel, rather than growing beyond the screen."""
    area = QScrollArea()
    area.setWidget(panel)
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setMinimumWidth(panel.minimumSizeHint().width())
    return area
