"""Small pictures of cells: composite and each marker, at the scale and contrast of the run's own crops."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import zarr
from matplotlib.colors import to_rgb

from ctc_imaging.classification.crops import UM_PER_PX, read_crop
from ctc_imaging.report.pictures import channel_tiles, draw_bar
from ctc_imaging.store.run_folder import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ctc.layers import SlideView

# Crops are 48 px wide: on the screen they want to be larger.
ENLARGE = 5
COMPOSITE = "composite"
_KEPT = 64


class CropSource:
    """Pictures of a slide's cells, from the scan or, for candidates, from the crops that the run keeps.

    Parameters
    ----------
    run : RunFolder
    view : SlideView
    alike : bool
        Take all cells from the scan where there is one, so that no picture tells which cells are candidates.
    """

    def __init__(self, run: RunFolder, view: SlideView, alike: bool = False) -> None:
        self._view = view
        self._stored: Any = zarr.open_group(run.slide(view.slide_id) / "crops.zarr", mode="r")
        ids = self._stored["cell_id"][:] if not (alike and view.scan is not None) else ()
        self._place = {int(cell_id): place for place, cell_id in enumerate(ids)}
        self._crops = self._stored["crops"]
        facts = self._stored.attrs
        self._scale, self._offset = (np.array(facts[name])[:, None, None] for name in ("scale", "offset"))
        low, high = np.array([view.limits[short] for short in view.panel.shorts], np.float32).T[:, :, None, None]
        self._low, self._range = low, np.maximum(high - low, 1.0)
        self._colours = np.array([to_rgb(channel.colour) for channel in view.panel.channels], np.float32)
        self._kept: OrderedDict[int, dict[str, NDArray[np.uint8]]] = OrderedDict()
        self._blocks: OrderedDict[int, NDArray[Any]] = OrderedDict()

    @property
    def names(self) -> tuple[str, ...]:
        """The pictures there are of a cell: the composite, then each marker by its short name."""
        return (COMPOSITE, *self._view.panel.shorts)

    def pictures(self, cell_id: int, y_um: float, x_um: float) -> dict[str, NDArray[np.uint8]]:
        """Draw a cell; one drawn lately is kept.

        Parameters
        ----------
        cell_id : int
        y_um, x_um : float
            Where it lies on the slide.

        Returns
        -------
        dict of str to ndarray of uint8, shape (240, 240, 3)
            Red, green, blue, with a bar of 10 um: ``composite``, then each marker by its short name;
            empty where there is neither a scan nor a stored crop.
        """
        if cell_id not in self._kept:
            tiles = self._tiles(cell_id, y_um, x_um)
            self._kept[cell_id] = {name: enlarged(tile, ENLARGE) for name, tile in tiles.items()}
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[cell_id]

    def picture(self, cell_id: int, y_um: float, x_um: float, name: str, times: int) -> NDArray[np.uint8] | None:
        """Draw one of a cell's pictures, enlarged so many times; None where there is nothing to draw."""
        pixels = self._pixels(cell_id, y_um, x_um)
        if pixels is None:
            return None
        chosen = slice(None) if name == COMPOSITE else slice(place := self._view.panel.shorts.index(name), place + 1)
        shown = np.clip((pixels[chosen] - self._low[chosen]) / self._range[chosen], 0, 1)
        return enlarged(np.clip(np.einsum("cyx,cr->yxr", shown, self._colours[chosen]), 0, 1), times)

    def _tiles(self, cell_id: int, y_um: float, x_um: float) -> dict[str, NDArray[np.float32]]:
        pixels = self._pixels(cell_id, y_um, x_um)
        if pixels is None:
            return {}
        shorts = self._view.panel.shorts
        low, high = np.array([self._view.limits[short] for short in shorts]).T
        tiles = channel_tiles(pixels, low, high, [channel.colour for channel in self._view.panel.channels])
        return {COMPOSITE: np.clip(tiles.sum(0), 0, 1), **dict(zip(shorts, tiles, strict=True))}

    def _pixels(self, cell_id: int, y_um: float, x_um: float) -> NDArray[Any] | None:
        """Crop of shape (C, 48, 48) in the slide's values, channels in the panel's order."""
        place = self._place.get(cell_id)
        if place is not None:
            return (self._stored_crop(place) * self._scale + self._offset).astype(np.float32)
        if self._view.scan is None:
            return None
        scan, size = self._view.scan, self._view.pixel_size_um
        return read_crop(scan, scan.channels, y_um / size, x_um / size)

    def _stored_crop(self, place: int) -> NDArray[Any]:
        """Read a crop with its neighbours, which lie in one chunk and are wanted next."""
        crops = self._crops
        size = crops.chunks[0]
        block = place // size
        if block not in self._blocks:
            self._blocks[block] = crops[block * size : (block + 1) * size]
            if len(self._blocks) > 2:
                self._blocks.popitem(last=False)
        return self._blocks[block][place % size]


def enlarged(tile: NDArray[np.float32], times: int) -> NDArray[np.uint8]:
    """Enlarge a crop (48, 48, 3) of 0 to 1 so many times, with a bar of 10 um."""
    side = tile.shape[0] * times
    large = np.clip(cv2.resize(tile, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)
    return draw_bar(np.rint(large * 255).astype(np.uint8), UM_PER_PX / times)
