"""Other ways to find nuclei, asked on the same images as ours: scikit-image here, networks in their own Python."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import regionprops_table
from skimage.segmentation import watershed

WORKER = Path(__file__).with_name("segmentation_peer_worker.py")

MEASURED = ("label", "area", "centroid", "eccentricity", "solidity", "intensity_mean")


class PeerError(Exception):
    """A peer can't do what it was asked, for the reason it gives."""


class Peers:
    """A process of the peers' own Python that does one thing after the other; a context manager.

    Attributes
    ----------
    versions : dict of str to (str or None)
        Of `stardist` and `cellpose`; None where that Python can't import it.
    """

    def __init__(self, python: Path, stardist_model: Path | None, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._log = (Path(self._folder.name) / "log.txt").open("w")
        self._process = subprocess.Popen(
            [python, WORKER, str(stardist_model or ""), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""},
        )
        self.versions: dict[str, str | None] = self._ask()

    def __enter__(self) -> Peers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._log.close()
        self._folder.cleanup()

    def segment(self, peer: str, image: np.ndarray) -> tuple[np.ndarray, float]:
        """Return a peer's labels (int32) and the seconds it took, without sending the image there and back."""
        out = Path(self._folder.name) / "labels.npy"
        told = self._ask(do="segment", peer=peer, image=self._sent(image, "image"), out=str(out))
        return np.load(out), told["seconds"]

    def stardist_speed(self, image: np.ndarray, truth: np.ndarray, name: str) -> dict[str, Any]:
        """Time StarDist on an image with its true nuclei; sent once for each `name`."""
        paths = [Path(self._folder.name) / f"{name} {part}.npy" for part in ("image", "truth")]
        for path, array in zip(paths, (image, truth), strict=True):
            if not path.exists():
                np.save(path, array)
        return self._ask(do="speed", peer="stardist", image=str(paths[0]), truth=str(paths[1]))

    def _sent(self, array: np.ndarray, name: str) -> str:
        path = Path(self._folder.name) / f"{name}.npy"
        np.save(path, array)
        return str(path)

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"the peers' process died: {Path(self._log.name).read_text()[-500:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer


def scikit_image(image: np.ndarray, diameter_px: float) -> np.ndarray:
    """Otsu's threshold, then the watershed of the distance to the outline, as scikit-image's own tutorials do.

    Parameters
    ----------
    image : ndarray, shape (Y, X)
    diameter_px : float
        Of the typical nucleus, for how near to each other two may be: told the truth, which ours isn't.

    Returns
    -------
    int32 ndarray, shape (Y, X)
    """
    smooth = gaussian(image, 1.0, preserve_range=True)
    stained = smooth > threshold_otsu(smooth)
    depth = ndimage.distance_transform_edt(stained)
    near_px = max(round(diameter_px / 3), 1)
    parts, _ = ndimage.label(stained)
    peaks = peak_local_max(depth, min_distance=near_px, labels=parts, exclude_border=False)
    seeds = np.zeros(image.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-depth, seeds, mask=stained)


def scikit_image_cells(pixels: np.ndarray, diameter_px: float) -> pd.DataFrame:
    """Measure the nuclei of a slide's pixels (C, Y, X), the first channel the nuclear stain, with scikit-image."""
    labels = scikit_image(pixels[0], diameter_px)
    return pd.DataFrame(regionprops_table(labels, np.moveaxis(pixels, 0, -1), properties=MEASURED))
