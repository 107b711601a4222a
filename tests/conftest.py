"""What all tests share: hypothesis without deadlines, threads held to one, the copy under test."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import settings

import ctc_imaging

# torch's optimisers load triton, whose LLVM crashes the process when Mesa's, which a napari window loads, came first.
with contextlib.suppress(ImportError):
    import triton._C.libtriton  # noqa: F401

settings.register_profile("suite", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("suite")

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="session", autouse=True)
def tested_copy():
    """With CTC_IMAGING_TEST_WHEEL the suite must run on the installed wheel, else on the checkout."""
    in_checkout = Path(ctc_imaging.__file__).parent.parent == CHECKOUT
    assert in_checkout != bool(os.environ.get("CTC_IMAGING_TEST_WHEEL")), ctc_imaging.__file__


@pytest.fixture
def shared_data() -> Path:
    """Return the real data beside the checkout, or skip, saying so."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not at {folder}")
    return folder


# A real napari window


@pytest.fixture(scope="session")
def qapp_cls():
    """Come before the application is made, as Qt ends the process where there is no display."""
    from .napari_fixture import need_display

    need_display()
    from qtpy.QtWidgets import QApplication

    return QApplication


@pytest.fixture
def review(make_napari_viewer, qtbot):
    """Open a window on a run and return its viewer and widget."""
    from napari_ctc.queue import ReviewQueue
    from napari_ctc.widget import ReviewWidget

    def open_window(run, reader: str = "A", blinded: bool = False, **how):
        viewer = make_napari_viewer(show=True)
        widget = ReviewWidget(viewer)
        viewer.window.add_dock_widget(widget, name="CTC review")
        # Software rendering is the slowest part of these tests.
        viewer.window.resize(600, 400)
        qtbot.waitUntil(widget.isVisible)
        if run is not None:
            widget.start(ReviewQueue(run, reader, blinded, **how))
        return viewer, widget

    return open_window


@pytest.fixture
def press(qtbot):
    """Press keys, one letter or one Qt key each, in the canvas of a viewer."""
    from qtpy.QtCore import Qt

    def press_keys(viewer, keys) -> None:
        canvas = viewer.window._qt_viewer.canvas.native
        for key in keys:
            qtbot.keyClick(canvas, getattr(Qt.Key, f"Key_{key}") if isinstance(key, str) else key)

    return press_keys
