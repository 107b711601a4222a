"""Opens a run, or one slide of it, from napari's own file menu."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari import current_viewer
from napari.utils.notifications import show_info, show_warning

from ctc_imaging.errors import RunError
from ctc_imaging.store.ledger import Ledger
from ctc_imaging.store.run_folder import RunFolder
from napari_ctc.layers import LayerData, dress, open_view, slide_layers


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return the function that reads a path, or None where it isn't ours.

    Parameters
    ----------
    path : str or list of str
        RUN, RUN/run.json or RUN/slides/ID; a list is never ours.

    Returns
    -------
    callable or None
    """
    return read if isinstance(path, str) and _locate(Path(path)) else None


def read(path: str) -> list[LayerData]:
    """Read a slide's layers; of a whole run those of its first slide.

    Parameters
    ----------
    path : str
        RUN, RUN/run.json or RUN/slides/ID.

    Returns
    -------
    list of (data, metadata, type)

    Raises
    ------
    CtcImagingError
        If the run or the slide has no results.
    """
    found = _locate(Path(path))
    if found is None:
        raise RunError(path, "neither a run nor a slide of one", "give the folder that ctc-imaging run made")
    run, slide_id = found
    view = open_view(run, slide_id or _first_slide(run))
    if view.fault:
        show_warning(f"Cells and outlines are shown without the scan. Why: {view.fault}.")
    viewer = current_viewer()
    if viewer is not None:
        viewer.layers.events.inserted.connect(_dress_inserted)
    return slide_layers(run, view)


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
