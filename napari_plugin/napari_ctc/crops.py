"""Small pictures of one cell: its composite and each marker, at the scale and contrast of the run's own crops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
import zarr

from ctc_imaging.classification.crops import UM_PER_PX, iterate_raw_crops
from ctc_imaging.report.pictures import channel_tiles, draw_bar
from ctc_imaging.store.run_folder import RunFolder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ctc.layers import SlideView

# Crops are 48 px wide: on the screen they want to be larger.
ENLARGE = 5


class CropSource:
    """Pictures of a slide's cells, from the scan or, for candidates, from the crops that the run keeps.

    Parameters
    ----------
    run : RunFolder
    view : SlideView
    """

    def __init__(self, run: RunFolder, view: SlideView) -> None:
        self._view = view
        self._stored: Any = zarr.open_group(run.slide(view.slide_id) / "crops.zarr", mode="r")
        self._place = {int(cell_id): place for place, cell_id in enumerate(self._stored["cell_id"][:])}

    def pictures(self, cell_id: int, y_um: float, x_um: float) -> dict[str, NDArray[np.uint8]]:
        """Draw a cell.

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
        pixels = self._pixels(cell_id, y_um, x_um)
        if pixels is None:
            return {}
        shorts = self._view.panel.shorts
        low, high = np.array([self._view.limits[short] for short in shorts]).T
        tiles = channel_tiles(pixels, low, high, [channel.colour for channel in self._view.panel.channels])
        shown = {"composite": np.clip(tiles.sum(0), 0, 1), **dict(zip(shorts, tiles, strict=True))}
        return {name: _enlarged(tile) for name, tile in shown.items()}

    def _pixels(self, cell_id: int, y_um: float, x_um: float) -> NDArray[Any] | None:
        """Crop of shape (C, 48, 48) in the slide's values, channels in the panel's order."""
        place = self._place.get(cell_id)
        if place is not None:
            scale, offset = (np.array(self._stored.attrs[name])[:, None, None] for name in ("scale", "offset"))
            return (self._stored["crops"][place] * scale + offset).astype(np.float32)
        if self._view.scan is None:
            return None
        scan, size = self._view.scan, self._view.pixel_size_um
        cell = pd.DataFrame({"cell_id": [cell_id], "y_px": [y_um / size], "x_px": [x_um / size]})
        _, crops = next(iterate_raw_crops(scan, scan.channels, cell))
        return crops[0]


def _enlarged(tile: NDArray[np.float32]) -> NDArray[np.uint8]:
    side = tile.shape[0] * ENLARGE
    large = np.clip(cv2.resize(tile, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)
    return draw_bar(np.rint(large * 255).astype(np.uint8), UM_PER_PX / ENLARGE)
