"""What the viewer shows of the run under review: one slide at a time, and where on it the current cell lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QTimer

from ctc_imaging.store.record import CALL
from napari_ctc.layers import (
    BLIND_COLOUR,
    CALL_COLOURS,
    CELLS,
    RING_UM,
    UNITS,
    LayerData,
    SlideView,
    cell_layer,
    dress,
    open_view,
    slide_layers,
)
from napari_ctc.reader import fill_from_afar

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from numpy.typing import NDArray

    from ctc_imaging.store.record import Review
    from ctc_imaging.store.run_folder import RunFolder
    from napari_ctc.far_view import FarFill
    from napari_ctc.queue_cells import Cell

CURRENT, NEW_OUTLINE = "Current cell", "New outline"
# The side of the square around the current cell is that of a crop.
_SQUARE_UM = 24.0
_ZOOM_PX_PER_UM = 8.0


class Scene:
    """The layers of a run under review.

    Parameters
    ----------
    viewer : napari.Viewer
    run : RunFolder
    blinded : bool
        Show nothing that tells a call.
    """

    def __init__(self, viewer: napari.Viewer, run: RunFolder, blinded: bool) -> None:
        self._view: SlideView | None = None
        self._viewer = viewer
        self._run = run
        self._blinded = blinded
        # By the names they were made with: a reader may rename them.
        self._layers: dict[str, Layer] = {}
        self._fill: FarFill | None = None

    @property
    def slide(self) -> SlideView:
        """The slide that is shown.

        Raises
        ------
        LookupError
            If nothing has been shown yet.
        """
        if self._view is None:
            raise LookupError("no slide is shown")
        return self._view

    def show(self, cell: Cell) -> bool:
        """Go to a cell, opening its slide where another one is shown.

        Returns
        -------
        bool
            Whether the slide was changed.

        Raises
        ------
        CtcImagingError
            If the slide has no results.
        """
        changed = self._view is None or self._view.slide_id != cell.slide_id or not self._whole()
        if changed:
            self._open(cell.slide_id)
        self._viewer.scene.camera.center = (cell.y_um, cell.x_um)
        self._layers[CURRENT].data = np.array([[cell.y_um, cell.x_um]])
        return changed

    def recolour(self, row: Review | None) -> None:
        """Give a cell of the slide the colour of its new call; a blinded reader's cells keep theirs."""
        if row is None or self._view is None or row.slide_id != self._view.slide_id:
            return
        if row.action != CALL:
            data, metadata, _ = cell_layer(self._run, self._view, self._blinded)
            _refill(self._layers[CELLS], data, metadata)
        elif not self._blinded:
            layer = self._layers[CELLS]
            colours = np.array(layer.border_color)
            colours[layer.metadata["cell_id"] == row.cell_id] = _rgba(CALL_COLOURS.get(row.call, BLIND_COLOUR))
            layer.border_color = colours

    def cell_at(self, y_um: float, x_um: float) -> int | None:
        """Return the cell of the slide whose ring holds a place, the nearest of several; None where none does."""
        layer = self._layers.get(CELLS)
        if layer is None or not len(layer.data):
            return None
        distance = np.hypot(*(layer.data - [y_um, x_um]).T)
        distance[distance > np.asarray(layer.size) / 2] = np.inf
        nearest = int(np.argmin(distance))
        return int(layer.metadata["cell_id"][nearest]) if np.isfinite(distance[nearest]) else None

    def draw_outline(self, done: Callable[[NDArray[np.float64]], None]) -> None:
        """Let the reader draw a polygon; when it is closed, hand over its corners (y, x) in um."""
        self.stop_drawing()
        layer = self._viewer.add_shapes(
            name=NEW_OUTLINE, ndim=2, edge_color="#ffd23f", face_color="transparent", edge_width=RING_UM, units=UNITS
        )
        layer.mode = "add_polygon_lasso"

        def finished(event: Any) -> None:
            if str(event.action) == "added" and len(layer.data):
                corners = np.asarray(layer.data[-1], float)
                # The layer can't go while its own mouse event is under way.
                QTimer.singleShot(0, lambda: (self.stop_drawing(), done(corners)))

        layer.events.data.connect(finished)
        self._layers[NEW_OUTLINE] = layer

    def stop_drawing(self) -> None:
        """Put an outline that isn't finished away."""
        layer = self._layers.pop(NEW_OUTLINE, None)
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def clear(self) -> None:
        """Remove the layers."""
        self._stop_filling()
        there = [layer for layer in self._layers.values() if layer in self._viewer.layers]
        if there:
            # napari collects garbage after each removal, which takes long with thousands of reviews in memory.
            with self._viewer.layers.batched_update():
                for layer in there:
                    self._viewer.layers.remove(layer)
        self._layers = {}
        self._view = None

    def _open(self, slide_id: str) -> None:
        view = open_view(self._run, slide_id)
        described = slide_layers(self._run, view, self._blinded)
        # New data in the layers that are there is faster than new layers, and what the reader hid stays hidden.
        if self._whole() and self._fits(described):
            for data, metadata, _ in described:
                _refill(self._layers[metadata["name"]], data, metadata)
        else:
            self._lay(described)
        self._view = view
        self._stop_filling()
        self._fill = fill_from_afar(self._viewer, view)

    def _stop_filling(self) -> None:
        if self._fill is not None:
            self._fill.stop()
            self._fill = None

    def _whole(self) -> bool:
        """Whether the reader has left all layers in the viewer."""
        return bool(self._layers) and all(layer in self._viewer.layers for layer in self._layers.values())

    def _fits(self, described: list[LayerData]) -> bool:
        """Whether these are the same layers as those of the slide before, each with levels or without."""
        shown = {name: layer.multiscale for name, layer in self._layers.items() if name not in (CURRENT, NEW_OUTLINE)}
        return shown == {metadata["name"]: metadata.get("multiscale", False) for _, metadata, _ in described}

    def _lay(self, described: list[LayerData]) -> None:
        first, zoom = self._view is None, self._viewer.scene.camera.zoom
        self.clear()
        for data, metadata, kind in described:
            self._add(metadata["name"], Layer.create(data, metadata, kind))
        self._add(CURRENT, _current_cell())
        self._viewer.layers.selection.clear()
        self._viewer.scene.camera.zoom = _ZOOM_PX_PER_UM if first else zoom
        self._viewer.canvas.overlays.scale_bar.visible = True

    def _add(self, name: str, layer: Layer) -> None:
        self._layers[name] = self._viewer.add_layer(layer)
        dress(layer)


def _refill(layer: Layer, data: Any, metadata: dict[str, Any]) -> None:
    layer.data = data
    for name in ("scale", "translate", "contrast_limits", "size", "border_color", "metadata"):
        if name in metadata:
            setattr(layer, name, metadata[name])


def _current_cell() -> Layer:
    metadata = {
        "name": CURRENT,
        "units": UNITS,
        "symbol": "square",
        "size": _SQUARE_UM,
        "face_color": "transparent",
        "border_color": "white",
        "border_width": RING_UM,
        "border_width_is_relative": False,
    }
    return Layer.create(np.zeros((1, 2)), metadata, "points")


def _rgba(colour: str) -> list[float]:
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] + [1.0]
