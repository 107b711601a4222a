"""The review in a real napari window: keys, blinding, a missing scan, and what is left after closing it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ctc_imaging.cli import main
from ctc_imaging.store.history import UNDO
from ctc_imaging.store.run_folder import RunFolder

from .napari_fixture import write_run
from .napari_window import rows_of, words_of

pytest.importorskip("napari")
from napari_ctc.layers import CALL_COLOURS, CELLS, NUCLEI, OUTLINES
from napari_ctc.queue import ReviewQueue
from napari_ctc.sample import sample_run
from napari_ctc.scene import CURRENT
from npe2 import PluginManifest
from qtpy.QtCore import Qt


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("made")).path


@pytest.fixture
def run(made, tmp_path) -> RunFolder:
    shutil.copytree(made, tmp_path / "run")
    return RunFolder(tmp_path / "run")


FIFTY = "EHMCLAULEA" * 5
CALLS = {"E": "ctc", "H": "ctc", "M": "ctc", "C": "ctc", "L": "leukocyte", "A": "artefact", "U": "indeterminate"}


def test_every_key_is_in_the_ledger_and_all_is_there_after_closing_without_saving(run, review, press):
    viewer, widget = review(run)
    cells = []
    for key in FIFTY:
        cells.append(widget.session.queue.current.key)
        press(viewer, key)
        assert len(rows_of(run)) == len(cells)
    assert [row.call for row in rows_of(run)] == [CALLS[key] for key in FIFTY]
    assert [row.phenotype for row in rows_of(run)][:4] == ["epithelial", "hybrid", "mesenchymal", ""]
    press(viewer, "ZZZ")
    viewer.close()

    rows = rows_of(run)
    assert [(row.slide_id, row.cell_id) for row in rows[:50]] == cells
    assert [row.reason for row in rows[50:]] == [UNDO] * 3
    _, again = review(run)
    queue = again.session.queue
    assert queue.progress.read == 47
    assert queue.current.key == cells[47]
    assert queue.record.history.called() == set(cells[:47])


def test_undo_redo_and_arrows(run, review, press):
    viewer, widget = review(run)
    queue, panel = widget.session.queue, widget.session.panel
    first = queue.current.key
    press(viewer, ["L", "Left"])
    assert queue.current.key == first
    assert panel.own.text() == "Your call: leukocyte"
    press(viewer, "Z")
    assert panel.own.text() == "Your call: none yet"
    press(viewer, "Y")
    assert panel.own.text() == "Your call: leukocyte"
    press(viewer, ["Right"])
    assert queue.current.key != first
    assert panel.own.text() == "Your call: none yet"
    assert queue.progress.read == 1


def test_the_cell_is_in_the_middle_of_the_view_and_takes_the_colour_of_its_call(run, review, press):
    viewer, widget = review(run)
    cell = widget.session.queue.current
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], [cell.y_um, cell.x_um])
    np.testing.assert_allclose(viewer.layers[CURRENT].data, [[cell.y_um, cell.x_um]])
    assert viewer.layers[OUTLINES].contour == 1
    assert not viewer.layers[CELLS].editable
    press(viewer, "A")
    layer = viewer.layers[CELLS]
    place = list(layer.metadata["cell_id"]).index(cell.cell_id)
    red, green, blue = (round(255 * value) for value in layer.border_color[place][:3])
    assert f"#{red:02x}{green:02x}{blue:02x}" == CALL_COLOURS["artefact"]


def test_our_keys_come_before_those_of_the_layer_that_is_active_and_work_in_the_panel(run, review, press, qtbot):
    viewer, widget = review(run)
    added = viewer.add_labels(np.zeros((8, 8), np.uint8), name="mine")
    for layer in (added, viewer.layers[NUCLEI], viewer.layers["DAPI"], viewer.layers[CELLS]):
        viewer.layers.selection.active = layer
        press(viewer, "MCEL")
    qtbot.keyClick(widget.session, Qt.Key.Key_A)
    qtbot.keyClick(widget.session, Qt.Key.Key_Z)
    assert [row.call for row in rows_of(run)[:16]] == ["ctc", "ctc", "ctc", "leukocyte"] * 4
    assert len(rows_of(run)) == 18
    assert added.selected_label == 1


def test_the_panel_tells_cell_model_progress_and_other_readers(run, review, press):
    ReviewQueue(run, "Prof").call("artefact")
    viewer, widget = review(run)
    cell, panel = widget.session.queue.current, widget.session.panel
    assert panel.title.text() == f"{cell.slide_id}, cell {cell.cell_id}"
    assert f"ctc {cell.p_ctc:.3f}" in panel.model.text()
    assert "Prof: artefact" in panel.model.text()
    assert panel.message.text() == ""
    press(viewer, "EE")
    assert panel.progress.value() == 2
    assert "2 of" in panel.pace.text()
    assert "a minute" in panel.pace.text()


def test_a_blinded_reader_sees_no_call_no_class_colour_no_patient_and_no_visit(run, review, press):
    ReviewQueue(run, "Prof").call("artefact")
    viewer, widget = review(run, "B", blinded=True)
    for _ in range(len(widget.session.queue)):
        press(viewer, "L")
        slide = widget.session.queue.current.slide_id
        text = " ".join(words_of(viewer.window._qt_window))
        assert not [word for word in (slide, "P1", "before", "month1", "Prof") if word in text]
        assert not [word for word in ("Model", "0.") if word in " ".join(words_of(widget))]
        assert not [colour for colour in CALL_COLOURS.values() if colour in text]
        if widget.session.queue.progress.read > 14:
            break
    for layer in viewer.layers:
        told = f"{layer.name} {layer.metadata} {getattr(layer, 'features', '')} {layer.source}"
        assert not [word for word in ("P1", "Prof", "leukocyte", "artefact", "ctc ") if word in told]
    for name in (CELLS, CURRENT):
        assert len(np.unique(viewer.layers[name].border_color, axis=0)) == 1
        assert len(np.unique(viewer.layers[name].face_color, axis=0)) == 1


@pytest.mark.parametrize("blinded", [False, True])
def test_a_missing_scan_is_said_once_and_cells_and_outlines_still_open(run, review, press, blinded):
    table = run.table("cohort")
    table.write_text(table.read_text().replace("slide.ome.tif", "gone.ome.tif"))
    viewer, widget = review(run, blinded=blinded)
    assert [layer.name for layer in viewer.layers] == [NUCLEI, OUTLINES, CELLS, CURRENT]
    message = widget.session.panel.message.text()
    assert message.startswith("Cells and outlines are shown without the scan. Why: ")
    assert ("gone.ome.tif" in message) is not blinded
    press(viewer, "E")
    assert len(rows_of(run)) == 1


def test_the_next_slide_takes_the_layers_over_and_what_was_hidden_stays_hidden(run, review, press):
    viewer, widget = review(run)
    queue = widget.session.queue
    layers, first = list(viewer.layers), queue.current.slide_id
    cells = viewer.layers[CELLS].data
    viewer.layers["CD45"].visible = False
    while queue.current.slide_id == first:
        press(viewer, ["Right"])
    assert list(viewer.layers) == layers
    assert not viewer.layers["CD45"].visible
    cells_here = viewer.layers[CELLS]
    assert not np.array_equal(cells_here.data, cells)
    assert len(cells_here.border_color) == len(cells_here.size) == len(cells_here.data)
    press(viewer, "E")
    assert rows_of(run)[0].slide_id != first


def test_layers_that_the_reader_renames_or_removes_do_no_harm(run, review, press):
    viewer, widget = review(run)
    viewer.layers[CELLS].name = "rings"
    press(viewer, "E")
    viewer.layers.remove("rings")
    viewer.layers.remove(CURRENT)
    press(viewer, "E")
    assert len(rows_of(run)) == 2
    cell = widget.session.queue.current
    np.testing.assert_allclose(viewer.layers[CURRENT].data, [[cell.y_um, cell.x_um]])
    assert CELLS in viewer.layers


def test_who_cannot_see_the_panel_calls_nothing(run, review, press):
    viewer, widget = review(run)
    widget.hide()
    press(viewer, "EZ")
    assert rows_of(run) == []
    widget.show()
    press(viewer, "E")
    assert len(rows_of(run)) == 1
    widget.stop()
    press(viewer, "E")
    assert len(rows_of(run)) == 1
    assert not viewer.layers


def test_a_call_that_cannot_be_written_is_said_and_the_queue_stays(run, review, press):
    viewer, widget = review(run)
    before = widget.session.queue.current.key
    sound = run.ledger.read_bytes()
    run.ledger.write_bytes(b"damaged" * 999)
    press(viewer, "E")
    assert "the ledger can't be used" in widget.session.panel.message.text()
    assert widget.session.queue.current.key == before
    assert widget.session.queue.progress.read == 0
    run.ledger.write_bytes(sound)
    press(viewer, "E")
    assert widget.session.panel.message.text() == ""
    assert widget.session.queue.progress.read == 1


def test_the_form_asks_for_run_and_reader(run, review, qtbot):
    _, widget = review(None)
    form = widget._form
    form.start.click()
    assert "no name" in form.message.text()
    form.reader.setText("A")
    form.start.click()
    assert "no run here" in form.message.text()
    assert widget.session is None
    form.run.setText(str(run.path))
    form.start.click()
    assert widget.session.queue.record.reader == "A"
    assert not form.message.text()


def test_a_slide_opens_from_the_file_menu_with_outlines_as_lines(run, make_napari_viewer):
    viewer = make_napari_viewer()
    viewer.open(str(run.slide("P1-month1")), plugin="ctc-imaging")
    assert [layer.name for layer in viewer.layers] == ["DAPI", "CK", "VIM", "CD45", NUCLEI, OUTLINES, CELLS]
    assert viewer.layers[OUTLINES].contour == 1


def test_the_manifest_is_that_of_the_distribution_and_valid():
    manifest = PluginManifest.from_distribution("ctc-imaging")
    manifest.validate_imports()
    assert manifest.contributions.widgets[0].display_name == "CTC review"


def test_sample_data_is_a_run_to_review_and_made_once(tmp_path, monkeypatch, review, make_napari_viewer):
    monkeypatch.setattr("napari_ctc.sample.user_cache_path", lambda name: tmp_path / name)
    viewer = make_napari_viewer()
    viewer.open_sample("ctc-imaging", "simulated-slide")
    assert [layer.name for layer in viewer.layers][-3:] == [NUCLEI, OUTLINES, CELLS]

    described = sample_run().description.stat().st_mtime_ns
    _, widget = review(sample_run())
    assert widget.session.queue.current is not None
    assert sample_run().description.stat().st_mtime_ns == described


def test_the_command_opens_the_window_on_the_queue(run, make_napari_viewer, monkeypatch):
    opened = []
    monkeypatch.setattr("napari.Viewer", lambda title: opened.append(make_napari_viewer(title=title)) or opened[0])
    monkeypatch.setattr("napari.run", lambda: opened.append("run"))
    assert main(["review", str(run.path), "--reader", "A. Reader", "--blinded"]) == 0
    assert opened[1] == "run"
    assert CELLS in opened[0].layers


@pytest.mark.parametrize("missing", ["run", "display"])
def test_the_command_refuses_before_any_window_opens(run, tmp_path, monkeypatch, capsys, missing):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    path = tmp_path / "none" if missing == "run" else run.path
    assert main(["review", str(path), "--reader", "A"]) == 2
    said = capsys.readouterr().err.strip()
    assert {"run": "no run here", "display": "no screen"}[missing] in said
    assert "\n" not in said
