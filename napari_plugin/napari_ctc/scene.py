"""What the viewer shows of the run under review: one slide at a time, and where on it the current cell lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer

from napari_ctc.layers import CALL_COLOURS, CELLS, RING_UM, UNITS, LayerData, SlideView, dress, open_view, slide_layers

if TYPE_CHECKING:
    import napari

    from ctc_imaging.store.ledger import Review
    from ctc_imaging.store.run_folder import RunFolder
    from napari_ctc.queue import Cell

CURRENT = "Current cell"
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
        if self._blinded or row is None or self._view is None or row.slide_id != self._view.slide_id:
            return
        layer = self._layers[CELLS]
        colours = np.array(layer.border_color)
        colours[layer.metadata["cell_id"] == row.cell_id] = _rgba(CALL_COLOURS[row.call])
        layer.border_color = colours

    def clear(self) -> None:
        """Remove the layers."""
        with self._viewer.layers.batched_update():
            for layer in self._layers.values():
                if layer in self._viewer.layers:
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

    def _whole(self) -> bool:
        """Whether the reader has left all layers in the viewer."""
        return bool(self._layers) and all(layer in self._viewer.layers for layer in self._layers.values())

    def _fits(self, described: list[LayerData]) -> bool:
        """Whether these are the same layers as those of the slide before, each with levels or without."""
        shown = {name: layer.multiscale for name, layer in self._layers.items() if name != CURRENT}
        return shown == {metadata["name"]: metadata.get("multiscale", False) for _, metadata, _ in described}

    def _lay(self, described: list[LayerData]) -> None:
        first, zoom = self._view is None, self._viewer.scene.camera.zoom
        self.clear()
        with self._viewer.layers.batched_update():
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
