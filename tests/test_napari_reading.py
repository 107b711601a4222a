"""Blinded reading, adjudication, corrections, signatures and the gallery in a real napari window."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ctc_imaging.readings import make_set
from ctc_imaging.sign_off import sign_sample
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.outline_marks import ADDED_FROM
from ctc_imaging.store.run_folder import RunFolder

from .napari_fixture import write_run
from .napari_window import rows_of, words_of

pytest.importorskip("napari")
from napari_ctc.layers import CELLS
from napari_ctc.queue import ReviewQueue
from napari_ctc.scene import NEW_OUTLINE
from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtWidgets import QApplication, QWidget


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("made")).path


@pytest.fixture
def run(made, tmp_path) -> RunFolder:
    shutil.copytree(made, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def turned_round(run: RunFolder, folder: Path) -> RunFolder:
    """Copy a run with other calls, probabilities, phenotypes and names of slides' patients, all else the same."""
    other = RunFolder(Path(shutil.copytree(run.path, folder)))
    for slide in other.slides.iterdir():
        cells = pd.read_parquet(slide / "cells.parquet")
        order = np.roll(np.arange(len(cells)), len(cells) // 2)
        said = ["call", "phenotype", "p_ctc", "p_leukocyte", "p_artefact"]
        cells[said] = cells[said].iloc[order].to_numpy()
        cells.to_parquet(slide / "cells.parquet", index=False)
    return other


def everything_shown(viewer, widget: QWidget) -> dict[str, object]:
    """All that a reader can see or find in the window: words, styles, pictures, and every property of every layer."""
    window = viewer.window._qt_window
    pictures = [
        label.pixmap().toImage().constBits().tobytes() if not label.pixmap().isNull() else b""
        for label in widget.findChildren(QWidget)
        if hasattr(label, "pixmap") and label.pixmap() is not None
    ]
    layers = [
        {
            "name": layer.name,
            "metadata": str(layer.metadata),
            "source": str(layer.source),
            "features": str(getattr(layer, "features", "")),
            "help": layer.help,
            "visible": layer.visible,
            "colours": [str(getattr(layer, name, "")) for name in ("border_color", "face_color", "colormap")],
            "contrast": str(getattr(layer, "contrast_limits", "")),
            "size": str(getattr(layer, "size", "")),
            "data": np.asarray(layer.data if not getattr(layer, "multiscale", False) else layer.data[-1]).tobytes(),
        }
        for layer in viewer.layers
    ]
    status = (str(viewer.status), viewer.title, str(viewer.canvas.overlays.text.text))
    return {
        "words": {words for words in words_of(window) if "a minute" not in words},
        "pictures": pictures,
        "layers": layers,
        "status": status,
    }


def test_a_blinded_window_is_the_same_whatever_the_model_and_other_readers_said(run, review, press, tmp_path):
    cells = pd.read_parquet(run.slide("P1-before") / "cells.parquet")["cell_id"]
    make_set(run, "round 1", chosen=[("P1-before", int(cell)) for cell in cells])
    other = turned_round(run, tmp_path / "other")
    ReviewQueue(other, "Prof").call("ctc", "hybrid")
    shown = []
    viewer, widget = review(None)
    for one in (run, other):
        widget.start(ReviewQueue(one, "B", set_name="round 1"))
        # What is left of the session before goes for good.
        QApplication.sendPostedEvents(None, QEvent.DeferredDelete)
        seen = []
        for key in "ELAUZ":
            press(viewer, key)
            seen.append(everything_shown(viewer, widget))
        shown.append(seen)
    for one, two in zip(*shown, strict=True):
        assert one["words"] == two["words"]
        assert one["pictures"] == two["pictures"]
        assert one["status"] == two["status"]
        for layer, again in zip(one["layers"], two["layers"], strict=True):
            assert layer == again, layer["name"]


def test_the_open_window_does_change_with_the_calls(run, review, tmp_path):
    """The test above would be worth nothing if it looked past what tells a call."""
    shown = []
    viewer, widget = review(None)
    for one in (run, turned_round(run, tmp_path / "other")):
        widget.start(ReviewQueue(one, "B"))
        shown.append(everything_shown(viewer, widget))
    assert shown[0]["words"] != shown[1]["words"]
    colours = [next(layer for layer in one["layers"] if layer["name"] == CELLS)["colours"] for one in shown]
    assert colours[0] != colours[1]


def test_a_blinded_reader_has_no_tools_no_gallery_no_reasons_and_signs_nothing(run, review, press):
    viewer, widget = review(run, "B", blinded=True)
    press(viewer, "GNDO1")
    assert rows_of(run) == []
    assert widget.session.gallery is None
    assert not widget.session.signing.isVisible()
    press(viewer, "L")
    assert [(row.reading, row.action) for row in rows_of(run)] == [("blinded", "call")]


def test_repeats_begin_anew_and_adjudication_gets_just_the_disagreements(run, review, press):
    for reader, calls in (("A", "ELE"), ("B", "EEE")):
        queue = ReviewQueue(run, reader, blinded=True)
        order = sorted(cell.key for cell in queue._cells)[:3]
        for key, call in zip(order, calls, strict=True):
            queue.go_to(*key)
            queue.call(*{"E": ("ctc", "epithelial"), "L": ("leukocyte", "")}[call])
    assert ReviewQueue(run, "A", blinded=True, round_number=2).progress.read == 0
    viewer, widget = review(run, "C", adjudicate=True)
    session = widget.session
    assert [cell.key for cell in session.queue._cells] == [order[1]]
    assert session.panel.model.text().splitlines()[:2] == ["A: leukocyte", "B: CTC, epithelial"]
    press(viewer, "L")
    row = rows_of(run)[-1]
    assert (row.reading, row.call, row.cell) == ("adjudication", "leukocyte", order[1])


def test_a_reason_is_asked_for_when_a_ctc_of_the_model_is_overruled_and_is_one_key(run, review, press):
    viewer, widget = review(run)
    session = widget.session
    assert not session.panel.reasons.isVisible()
    session.queue.go_to(*next(cell.key for cell in session.queue._cells if cell.call == "ctc"))
    session._show()
    press(viewer, "A")
    assert session.panel.reasons.isVisible()
    press(viewer, "4")
    assert not session.panel.reasons.isVisible()
    assert [(row.call, row.reason) for row in rows_of(run)] == [("artefact", ""), ("artefact", "dye, debris or fibre")]
    press(viewer, "Z")
    assert session.queue.progress.read == 0


def click(viewer, y_um: float, x_um: float) -> None:
    """Press and let go the mouse on the slide, as the canvas tells napari."""
    events = [
        SimpleNamespace(type=kind, pos=(5, 5), position=(y_um, x_um), button=1) for kind in ("mouse_press", "end")
    ]
    (follow,) = [call for call in viewer.mouse_drag_callbacks if "Clicks" in str(call)]
    moving = follow(viewer, events[0])
    next(moving)
    events[0].type = "mouse_release"
    with pytest.raises(StopIteration):
        next(moving)


def test_a_missed_cell_is_added_by_a_click_called_by_a_key_and_there_again_later(run, review, press):
    viewer, widget = review(run)
    rings = len(viewer.layers[CELLS].data)
    press(viewer, "N")
    assert "missed cell" in widget.session.panel.message.text()
    click(viewer, 100.0, 120.0)
    assert widget.session.queue.current.cell_id == ADDED_FROM
    assert len(viewer.layers[CELLS].data) == rings + 1
    press(viewer, "E")
    assert [(row.action, row.cell_id, row.call) for row in rows_of(run)] == [
        ("add", ADDED_FROM, ""),
        ("call", ADDED_FROM, "ctc"),
    ]
    viewer.close()
    again, other = review(run, "B")
    assert len(again.layers[CELLS].data) == rings + 1
    queue = other.session.queue
    assert queue.go_to(rows_of(run)[0].slide_id, ADDED_FROM)


def test_undo_takes_an_added_cell_away_again(run, review, press):
    viewer, widget = review(run)
    rings = len(viewer.layers[CELLS].data)
    press(viewer, "N")
    click(viewer, 100.0, 120.0)
    press(viewer, "Z")
    assert len(viewer.layers[CELLS].data) == rings
    assert (rows_of(run)[0].slide_id, ADDED_FROM) in widget.session.queue.gone()
    press(viewer, "Y")
    assert len(viewer.layers[CELLS].data) == rings + 1


def test_a_doubled_cell_is_merged_by_a_click_and_an_outline_marked_or_drawn(run, review, press, qtbot):
    viewer, widget = review(run)
    queue = widget.session.queue
    layer, current = viewer.layers[CELLS], queue.current
    ids = layer.metadata["cell_id"]
    place = next(place for place, cell in enumerate(ids) if cell != current.cell_id)
    other = int(ids[place])
    press(viewer, "D")
    click(viewer, *layer.data[place])
    assert other not in viewer.layers[CELLS].metadata["cell_id"]
    assert queue.current.key == current.key
    press(viewer, "O")
    press(viewer, "P")
    drawn = viewer.layers[NEW_OUTLINE]
    drawn.add([[10.0, 10.0], [10.0, 20.0], [20.0, 20.0], [20.0, 10.0]], shape_type="polygon")
    qtbot.waitUntil(lambda: NEW_OUTLINE not in viewer.layers)
    merged, wrong, polygon = rows_of(run)
    assert (merged.action, merged.cell_id, merged.details) == ("merge", other, {"into": current.cell_id})
    assert (wrong.action, wrong.details) == ("outline", {"wrong": True})
    assert len(polygon.details["polygon_um"]) == 4


def test_a_click_on_a_cell_goes_to_it_and_a_drag_does_not(run, review):
    viewer, widget = review(run)
    layer = viewer.layers[CELLS]
    place = int(np.argmax(layer.metadata["cell_id"] != widget.session.queue.current.cell_id))
    click(viewer, *layer.data[place])
    assert widget.session.queue.current.cell_id == layer.metadata["cell_id"][place]
    before = widget.session.queue.position
    click(viewer, -500.0, -500.0)
    assert widget.session.queue.position == before


def test_calls_of_a_signed_sample_ask_for_a_reason_and_are_amendments(run, review, press):
    queue = ReviewQueue(run, "A")
    first = queue.current.slide_id
    while queue.current.call in ("ctc", "indeterminate"):
        queue.call("ctc")
    sample = pd.read_csv(run.table("cohort"))
    assert "sample_id" not in sample
    viewer, widget = review(run, "B")
    session = widget.session
    session.queue.go_to(*next(cell.key for cell in session.queue._cells if cell.slide_id == first))
    session.confirm = lambda words: "Sign sample P1" in words
    session.sign()
    assert "Signed, with" in session.panel.message.text()
    assert "signed by B" in session.panel.sample.text()
    before = len(rows_of(run))
    answers = ["", "seen under another light"]
    session.ask_reason = lambda words: answers.pop(0)
    press(viewer, "L")
    assert len(rows_of(run)) == before
    assert "an amendment needs a reason" in session.panel.message.text()
    press(viewer, "L")
    row = rows_of(run)[-1]
    assert (row.reason, list(row.details)) == ("seen under another light", ["amends"])


def test_a_sample_that_someone_else_signs_meanwhile_is_locked_at_once(run, review, press):
    viewer, widget = review(run, "B")
    queue = ReviewQueue(run, "A")
    first = queue.current.slide_id
    while queue.current.call in ("ctc", "indeterminate"):
        queue.call("ctc")
    sign_sample(run, widget.session._samples[first], "A")
    widget.session.ask_reason = lambda words: ""
    press(viewer, "L")
    assert "signed by A" in widget.session.panel.message.text()
    assert rows_of(run)[-1].reader == "A"


# The gallery


@pytest.fixture
def gallery(run, review, press, qtbot):
    viewer, widget = review(run)
    press(viewer, "G")
    shown = widget.session.gallery
    qtbot.waitUntil(shown.isVisible)
    shown.grid.resize(700, 260)
    return viewer, widget.session, shown


def test_the_gallery_shows_all_cells_sorted_and_filtered(gallery):
    _, session, shown = gallery
    table, keys = shown._table, lambda: shown.grid._keys
    assert len(keys()) == len(table) == len(session.queue)
    for name, column, sign in (("CTC probability", "p_ctc", -1), ("size", "diameter_um", -1), ("doubt", "doubt", 1)):
        shown.sort.setCurrentText(name)
        values = table.set_index(["slide_id", "cell_id"]).loc[keys(), column].to_numpy() * sign
        assert (np.diff(values) >= 0).all(), name
    shown.filters["call"].setCurrentText("ctc")
    assert len(keys()) == (table["call"] == "ctc").sum() > 0
    shown.filters["reviewed"].setCurrentText("reviewed")
    assert keys() == []
    assert shown.total.text().startswith("0 of")


def test_a_click_in_the_gallery_goes_to_the_cell_and_the_gallery_follows_the_queue(gallery, press, qtbot):
    viewer, session, shown = gallery
    shown.grid.wait()
    target = shown.grid._keys[3]
    tile = shown.grid._tile(3).center()
    qtbot.mouseClick(shown.grid.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(tile.x(), tile.y()))
    assert session.queue.current.key == target
    assert shown.grid._current == target
    press(viewer, "A")
    place = shown.grid._keys.index(target)
    assert shown.grid._captions[place].startswith("artefact")
    assert shown.grid._current == session.queue.current.key


def test_the_gallery_reads_no_more_than_what_is_on_the_screen(gallery):
    _, session, shown = gallery
    shown.grid.forget_pictures()
    shown.grid.wait()
    on_screen = (shown.grid.page_rows + 2) * shown.grid.columns
    assert 0 < len(shown.grid._pixmaps) <= on_screen < len(session.queue)
    assert all(pixmap is not None for pixmap in shown.grid._pixmaps.values())
    shown.channel.setCurrentIndex(1)
    assert len(shown.grid._pixmaps) == 0


def test_keys_work_while_the_gallery_is_in_front(gallery, qtbot):
    _, session, shown = gallery
    assert shown.grid.focusPolicy() == Qt.FocusPolicy.NoFocus
    qtbot.keyClick(session, Qt.Key.Key_L)
    assert len(rows_of(session.queue.run)) == 1
    session.toggle_gallery()
    assert not shown.isVisible()


# Killed in the middle

READ_UNTIL_KILLED = """
import sys
import napari
from pathlib import Path
from qtpy.QtCore import QTimer
from ctc_imaging.store.run_folder import RunFolder
from napari_ctc.queue import ReviewQueue
from napari_ctc.widget import ReviewWidget

viewer = napari.Viewer()
widget = ReviewWidget(viewer)
viewer.window.add_dock_widget(widget)
widget.start(ReviewQueue(RunFolder(Path(sys.argv[1])), sys.argv[2]))
keys = iter("ELAUHMCZYE" * 20)

def press():
    from qtpy.QtTest import QTest
    from qtpy.QtCore import Qt
    key = next(keys)
    QTest.keyClick(viewer.window._qt_viewer.canvas.native, getattr(Qt.Key, "Key_" + key))
    print(key, flush=True)

timer = QTimer()
timer.timeout.connect(press)
timer.start(5)
napari.run()
"""


@pytest.mark.parametrize("strokes", [1, 9])
def test_a_window_killed_after_any_keystroke_loses_none(run, strokes, qapp):
    reader = subprocess.Popen(
        [sys.executable, "-c", READ_UNTIL_KILLED, str(run.path), "A"], stdout=subprocess.PIPE, text=True
    )
    pressed = [reader.stdout.readline().strip() for _ in range(strokes)]
    os.kill(reader.pid, signal.SIGKILL)
    pressed += reader.stdout.read().split()
    reader.wait()
    reader.stdout.close()
    rows = rows_of(run)
    # A stroke may have been written and not yet told when the process died; none that was told is missing.
    assert len(pressed) <= len(rows) <= len(pressed) + 1
    with Ledger(run.ledger) as ledger:
        assert ledger.faults() == []
    assert ReviewQueue(run, "A").record.history.called() <= {row.cell for row in rows}


TWO_READERS = """
import sys
from pathlib import Path
from ctc_imaging.store.run_folder import RunFolder
from napari_ctc.queue import ReviewQueue
queue = ReviewQueue(RunFolder(Path(sys.argv[1])), sys.argv[2])
for place in range(30):
    queue.position = place
    queue.call("ctc" if sys.argv[2] == "A" else "leukocyte")
queue.add_missed(50.0, 60.0)
"""


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_two_readers_in_two_processes_lose_no_row(run, where):
    from .postgres_fixture import server

    if where == "sqlite":
        _two_readers(run)
        return
    from ctc_imaging.store.address import parse_url

    with server() as url:
        with Ledger(run.ledger) as ledger:
            ledger.share(parse_url(url))
        _two_readers(run)


def _two_readers(run: RunFolder) -> None:
    readers = [subprocess.Popen([sys.executable, "-c", TWO_READERS, str(run.path), name]) for name in "AB"]
    assert [reader.wait() for reader in readers] == [0, 0]
    rows = rows_of(run)
    assert [sum(row.reader == name and row.action == "call" for row in rows) for name in "AB"] == [30, 30]
    assert len({row.cell_id for row in rows if row.action == "add"}) == 2
    with Ledger(run.ledger) as ledger:
        assert ledger.faults() == []
