"""Clicks on the slide: which tool is in hand, and where was clicked; a drag is no click."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari

_STILL_PX = 4


class Clicks:
    """Hands over clicks on the slide.

    Parameters
    ----------
    viewer : napari.Viewer
    clicked : callable
        Gets the tool in hand, and the place (y, x) in um.

    Attributes
    ----------
    tool : str
        "add", "merge", or empty for none.
    """

    def __init__(self, viewer: napari.Viewer, clicked: Callable[[str, float, float], None]) -> None:
        self.tool = ""
        self._viewer = viewer
        self._clicked = clicked
        viewer.mouse_drag_callbacks.append(self._follow)

    def stop(self) -> None:
        """Listen no more."""
        if self._follow in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._follow)

    def _follow(self, viewer: napari.Viewer, event: Any) -> Iterator[None]:
        """From pressing the button to letting it go, as napari hands it over."""
        # Drawing an outline is the shape layer's affair.
        drawing = getattr(viewer.layers.selection.active, "mode", "pan_zoom") not in ("pan_zoom", "transform")
        pressed = event.pos
        yield
        while event.type == "mouse_move":
            yield
        moved = max(abs(event.pos[0] - pressed[0]), abs(event.pos[1] - pressed[1]))
        if event.button == 1 and moved <= _STILL_PX and not drawing:
            y_um, x_um = event.position[-2:]
            self._clicked(self.tool, float(y_um), float(x_um))
