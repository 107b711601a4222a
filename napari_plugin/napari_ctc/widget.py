"""The dock widget 'CTC review': asks for a run and a reader, then holds the review."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.store.run_folder import RunFolder
from napari_ctc.queue import ReviewQueue
from napari_ctc.queue_cells import DOUBT, LEARNING
from napari_ctc.session import ReviewSession

if TYPE_CHECKING:
    import napari


READINGS = ("open review", "blinded: calls, patient and visit hidden", "adjudication of disagreements")
ORDERS = {"doubtful cells first": DOUBT, "cells that teach a model most first": LEARNING}


class ReviewWidget(QWidget):
    """Review of a run.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    """

    def __init__(self, napari_viewer: napari.Viewer) -> None:
        super().__init__()
        self.session: ReviewSession | None = None
        self._viewer = napari_viewer
        self._form = StartForm()
        self._form.start.clicked.connect(self._start_from_form)
        self._pages = QStackedLayout(self)
        self._pages.addWidget(self._form)

    def start(self, queue: ReviewQueue) -> None:
        """Begin to read a queue, at the first cell its reader hasn't called yet."""
        self.stop()
        self.session = ReviewSession(self._viewer, queue)
        self.session.done.clicked.connect(self.stop)
        self._pages.addWidget(self.session)
        self._pages.setCurrentWidget(self.session)
        self.session.setFocus()

    def stop(self) -> None:
        """Put the run away, so that another can be opened; every call is already in its ledger."""
        if self.session is not None:
            self.session.close_run()
            self._pages.removeWidget(self.session)
            self.session.deleteLater()
            self.session = None

    def _start_from_form(self) -> None:
        try:
            self.start(self._form.queue())
        except CtcImagingError as error:
            self._form.message.setText(str(error))
        else:
            self._form.message.clear()


class StartForm(QWidget):
    """Asks which run is read, by whom, how and in what order."""

    def __init__(self) -> None:
        super().__init__()
        self.run, self.reader = QLineEdit(), QLineEdit()
        self.reading, self.order = QComboBox(), QComboBox()
        self.reading.addItems(READINGS)
        self.order.addItems(ORDERS)
        self.start = QPushButton("Start")
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.run.setPlaceholderText("folder made by ctc-imaging run")
        self.reader.setPlaceholderText("your name")
        choose = QPushButton("Choose ...")
        choose.clicked.connect(self._choose_run)
        fields = QFormLayout()
        fields.addRow("Run", self.run)
        fields.addRow("", choose)
        fields.addRow("Reader", self.reader)
        fields.addRow("Reading", self.reading)
        fields.addRow("Order", self.order)
        layout = QVBoxLayout(self)
        layout.addLayout(fields)
        layout.addWidget(self.start)
        layout.addWidget(self.message)
        layout.addStretch()

    def queue(self) -> ReviewQueue:
        """Open the queue that the fields describe.

        Raises
        ------
        RunError
            If the folder is no run, there is no cell to read, or the reader has no name.
        """
        reading, order = self.reading.currentText(), ORDERS[self.order.currentText()]
        run, blinded = RunFolder(Path(self.run.text())), reading == READINGS[1]
        return ReviewQueue(run, self.reader.text(), blinded, order, adjudicate=reading == READINGS[2])

    def _choose_run(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of the run", self.run.text())
        if folder:
            self.run.setText(folder)
