"""Takes the pictures of docs/review.md from the running plug-in, on a simulated slide.

xvfb-run -a -s "-screen 0 1600x1000x24" python docs/pictures/review.py docs/images
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import napari
from napari_ctc.queue import ReviewQueue
from napari_ctc.sample import sample_run
from napari_ctc.widget import ReviewWidget
from PIL import Image
from qtpy.QtWidgets import QApplication

from ctc_imaging.store.run_folder import RunFolder

_SIZE = (1560, 960)


def main() -> None:
    """Take all pictures into the folder that is given."""
    target = Path(sys.argv[1])
    with TemporaryDirectory() as folder:
        run = sample_run(Path(folder))
        _take_open_review(run, target)
        _take_adjudication(run, target)


def _take_open_review(run: RunFolder, target: Path) -> None:
    viewer, widget = _window()
    widget.start(ReviewQueue(run, "A. Reader"))
    session = widget.session
    for call in (("ctc", "epithelial"), ("ctc", "hybrid"), ("ctc", "mesenchymal")):
        session._call(*call)
        _settle(0.4)
    _shoot(viewer, target / "review.png")
    called = next(
        cell
        for cell in session.queue._cells
        if cell.call == "ctc" and session.queue.record.history.call(cell.key) is None
    )
    session._go_to(*called.key)
    session._call("artefact", "")
    _settle(0.5)
    _shoot(viewer, target / "review-reason.png")
    session._give_reason("dye, debris or fibre")
    session.toggle_gallery()
    session.gallery.setMinimumHeight(380)
    session.gallery.sort.setCurrentText("CTC probability")
    _settle(0.5)
    session.gallery.grid.wait()
    _shoot(viewer, target / "review-gallery.png")
    session.toggle_gallery()
    viewer.reset_view()
    _settle(1.0)
    _shoot(viewer, target / "review-slide.png")
    viewer.close()


def _take_adjudication(run: RunFolder, target: Path) -> None:
    for reader, other in (("B. Reader", "ctc"), ("C. Reader", "artefact")):
        queue = ReviewQueue(run, reader, blinded=True)
        for cell in sorted(queue._cells, key=lambda cell: cell.cell_id):
            queue.go_to(*cell.key)
            queue.call(
                "leukocyte" if cell.call == "leukocyte" else other,
                "hybrid" if other == "ctc" and cell.call == "ctc" else "",
            )
    viewer, widget = _window()
    widget.start(ReviewQueue(run, "A. Reader", adjudicate=True))
    _settle(1.0)
    _shoot(viewer, target / "review-adjudication.png")
    widget.start(ReviewQueue(run, "D. Reader", blinded=True))
    _settle(1.0)
    _shoot(viewer, target / "review-blinded.png")
    viewer.close()


def _window() -> tuple[napari.Viewer, ReviewWidget]:
    viewer = napari.Viewer(title="CTC review")
    widget = ReviewWidget(viewer)
    viewer.window.add_dock_widget(widget, name="CTC review", area="right")
    viewer.window.resize(*_SIZE)
    _settle(0.5)
    return viewer, widget


def _settle(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        QApplication.processEvents()


def _shoot(viewer: napari.Viewer, path: Path) -> None:
    _settle(0.5)
    viewer.window.resize(*_SIZE)
    _settle(0.2)
    picture = Image.fromarray(viewer.window.screenshot(canvas_only=False, flash=False)).convert("RGB")
    # 256 colours are enough for a page, at a third of the bytes.
    picture.quantize(256, kmeans=10, dither=Image.Dither.NONE).save(path, optimize=True)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
