"""Opens a run, one slide of it, or any slide that `ctc-imaging inspect` reads, from napari's own file menu."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from napari import current_viewer
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QTimer

from ctc_imaging.errors import RunError
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.run_folder import RunFolder
from napari_ctc.far_view import FarFill
from napari_ctc.layers import LayerData, SlideView, dress, marker_layers, open_bare, open_view, slide_layers

if TYPE_CHECKING:
    from napari import Viewer

_FILES = (".tif", ".tiff", ".btf", ".czi", ".nd2", ".lif")
_ZARR = (".zarr",)
_REFRESH_MS = 700


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return the function that reads a path, or None where it isn't ours.

    Parameters
    ----------
    path : str or list of str
        RUN, RUN/run.json, RUN/slides/ID, or a scan; a list is never ours.

    Returns
    -------
    callable or None
    """
    if not isinstance(path, str):
        return None
    return read if _locate(Path(path)) or _is_scan(Path(path)) else None


def read(path: str) -> list[LayerData]:
    """Read a slide's layers; of a whole run those of its first slide.

    Parameters
    ----------
    path : str
        RUN, RUN/run.json, RUN/slides/ID, or a scan.

    Returns
    -------
    list of (data, metadata, type)

    Raises
    ------
    CtcImagingError
        If the run or the slide has no results, or the scan can't be read.
    """
    found = _locate(Path(path))
    if found is None:
        return _bare_layers(Path(path))
    run, slide_id = found
    view = open_view(run, slide_id or _first_slide(run))
    if view.fault:
        show_warning(f"Cells and outlines are shown without the scan. Why: {view.fault}.")
    viewer = current_viewer()
    if viewer is not None:
        viewer.layers.events.inserted.connect(_dress_inserted)
    fill_from_afar(viewer, view)
    return slide_layers(run, view)


def fill_from_afar(viewer: Viewer | None, view: SlideView) -> FarFill | None:
    """Read a slide as seen from afar in the background where nobody has kept it, and show it as it comes.

    Returns
    -------
    FarFill or None
        At work; None where there is nothing to do.
    """
    if view.scan is None or view.far is None or view.far.any():
        return None
    fill = FarFill(view.scan, view.far)
    fill.start()
    if viewer is not None:
        timer = QTimer(viewer.window._qt_window)

        def show() -> None:
            for layer in viewer.layers:
                if getattr(layer, "multiscale", False):
                    layer.refresh()
            if fill.is_done:
                timer.stop()

        timer.timeout.connect(show)
        timer.start(_REFRESH_MS)
    return fill


def _bare_layers(path: Path) -> list[LayerData]:
    if not _is_scan(path):
        raise RunError(path, "neither a run nor a slide", "give the folder that ctc-imaging run made, or a scan")
    view = open_bare(path)
    show_info(f"Channels are taken as panel {view.panel.name} has them.")
    fill_from_afar(current_viewer(), view)
    return marker_layers(view)


def _is_scan(path: Path) -> bool:
    """Whether it looks like a scan; a folder that is no Zarr image may hold anything, and is left to others."""
    name = path.name.lower()
    return name.endswith(_ZARR) if path.is_dir() else path.is_file() and name.endswith(_FILES)


def _locate(path: Path) -> tuple[RunFolder, str | None] | None:
    """Find the run, and the slide where one is meant."""
    path = path.absolute()
    folder = path.parent if path.name == "run.json" else path
    if (folder / "run.json").is_file():
        return RunFolder(folder), None
    run = RunFolder(folder.parent.parent)
    if (folder / "cells.parquet").is_file() and run.description.is_file():
        return run, folder.name
    return None


def _first_slide(run: RunFolder) -> str:
    with Ledger(run.ledger) as ledger:
        done = [slide_id for slide_id, state in ledger.slides().items() if state.state == "done"]
    if not done:
        raise RunError(run.path, "no slide is done", "finish it with ctc-imaging run")
    show_info(f"Slide {done[0]}, the first of {len(done)}. For all of them: Plugins > CTC review.")
    return done[0]


def _dress_inserted(event: object) -> None:
    dress(event.value)  # type: ignore[attr-defined]
