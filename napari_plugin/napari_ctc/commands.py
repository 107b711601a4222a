"""The command ``ctc-imaging review RUN``: opens napari on the review queue."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from ctc_imaging.cli import options
from ctc_imaging.errors import ConfigError


def register(app: options.App) -> None:
    """Put the window in the place of core's hint how to install it, where napari is installed."""
    if find_spec("napari") is None or find_spec("qtpy") is None:
        return
    from ctc_imaging.cli.app import subcommands
    from ctc_imaging.cli.review import WINDOW

    review = subcommands(app, "review")
    review.command(WINDOW, epilog="Example: ctc-imaging review run --reader 'A. Reader' --blinded")(open_window)


def open_window(
    run: options.Run,
    reader: options.Reader,
    blinded: options.Blinded = False,
    order: options.Order = "doubt",
    set_name: options.SetName = "",
    round_number: options.Round = 1,
    adjudicate: options.Adjudicate = False,
) -> None:
    """Open the review queue; "open" can be left out.

    Every call is written to the run's ledger at once, so closing the window loses nothing.
    """
    from ctc_imaging.store.run_folder import RunFolder
    from napari_ctc.queue import ReviewQueue

    queue = ReviewQueue(RunFolder(run), reader, blinded, order, set_name, round_number, adjudicate)
    _check_display()
    import napari

    from napari_ctc.widget import ReviewWidget

    viewer = napari.Viewer(title="CTC review")
    widget = ReviewWidget(viewer)
    viewer.window.add_dock_widget(widget, name="CTC review", area="right")
    widget.start(queue)
    napari.run()


def _check_display() -> None:
    """Qt would end the process without a word that helps.

    Raises
    ------
    ConfigError
        If there is no screen to open a window on.
    """
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in screens):
        raise ConfigError("review", "there is no screen to open a window on", "use ctc-imaging review export|import")
