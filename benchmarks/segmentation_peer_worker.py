"""The peers' side of the segmentation benchmark, run by a peer's own Python: a request a line, an answer a line (JSON).

Needs numpy and the peer, nothing of this project. See `segmentation_peers.Peers` for who asks.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

PROB_THRESHOLD, NMS_THRESHOLD = 0.479, 0.3
"""Of StarDist's own model 2D_versatile_fluo."""

TILE_PX = 1536
"""Of 512 to 2,500 about the quickest, on two threads."""


class StarDist:
    """StarDist 2D (Schmidt 2018, doi 10.1007/978-3-030-00934-2_30), with 32 rays on every second pixel.

    With a folder of trained weights it segments; without, its network has random ones, and only its time tells.
    """

    def __init__(self, folder: str | None, threads: int) -> None:
        import tensorflow
        from stardist.models import Config2D, StarDist2D

        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        if folder:
            self.model = StarDist2D(None, name=Path(folder).name, basedir=str(Path(folder).parent))
        else:
            self.model = StarDist2D(Config2D(n_rays=32, grid=(2, 2), n_channel_in=1), name=None, basedir=None)
        self.trained = bool(folder)
        self.truths: dict[str, tuple[np.ndarray, ...]] = {}

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Segment as its documentation shows."""
        if not self.trained:
            raise ValueError("no trained weights: give --stardist-model")
        from csbdeep.utils import normalize

        return self.model.predict_instances(normalize(image, 1, 99.8), n_tiles=_tiles(image), **_QUIET)[0]

    def speed(self, image: np.ndarray, truth: str) -> dict[str, Any]:
        """Time the network, and what makes nuclei of its maps on the maps of the true nuclei.

        Random weights cost the network as much as trained ones, but what they say would make the second step find
        nothing, or choke: it gets what perfect weights would say.
        """
        probability, distances, points = self._perfect(truth)
        stain = image.astype(np.float32) / np.float32(image.max())
        start, cpu = time.perf_counter(), time.process_time()
        # Above 1: no candidates, which come from the truth.
        self.model.predict_sparse(stain, prob_thresh=1.1, n_tiles=_tiles(image), **_QUIET)
        middle = time.perf_counter()
        labels, _ = self.model._instances_from_prediction(
            image.shape, probability, distances, points=points, nms_thresh=NMS_THRESHOLD
        )
        return {
            "seconds": time.perf_counter() - start,
            "network_seconds": middle - start,
            "cpu_seconds": time.process_time() - cpu,
            "nuclei": len(np.unique(labels)) - 1,
        }

    def _perfect(self, path: str) -> tuple[np.ndarray, ...]:
        if path not in self.truths:
            from stardist.geometry import star_dist
            from stardist.utils import edt_prob

            truth = np.load(path)
            grid = slice(None, None, 2), slice(None, None, 2)
            probability, distances = edt_prob(truth)[grid], star_dist(truth, 32, mode="cpp")[grid]
            inner = probability > PROB_THRESHOLD
            self.truths[path] = probability[inner], np.maximum(distances[inner], 1e-3), np.argwhere(inner) * 2
        return self.truths[path]


class Cellpose:
    """Cellpose (Stringer 2021, doi 10.1038/s41592-020-01018-x), where its weights are on this machine."""

    def __init__(self, threads: int) -> None:
        import torch
        from cellpose import models

        torch.set_num_threads(threads)
        self.model = models.CellposeModel(gpu=False)

    def segment(self, image: np.ndarray) -> np.ndarray:
        """Segment with its defaults."""
        return self.model.eval(image)[0]


_QUIET: dict[str, Any] = {"show_tile_progress": False, "verbose": False}


def _tiles(image: np.ndarray) -> tuple[int, int]:
    rows, columns = (-(-side // TILE_PX) for side in image.shape)
    return rows, columns


def main() -> None:
    """Answer requests until there are no more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # lest a library's chatter be taken for an answer
    folder, threads = sys.argv[1] or None, int(sys.argv[2])
    made: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), made, folder, threads)
        except Exception as error:  # noqa: BLE001 whatever ails a peer is its answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(request: dict[str, Any], made: dict[str, Any], folder: str | None, threads: int) -> dict[str, Any]:
    peer = request.get("peer")
    if peer is None:
        return {name: _version(name) for name in ("stardist", "cellpose")}
    if peer not in made:
        made[peer] = StarDist(folder, threads) if peer == "stardist" else Cellpose(threads)
    image = np.load(request["image"])
    if request["do"] == "speed":
        return made[peer].speed(image, request["truth"])
    start = time.perf_counter()
    labels = made[peer].segment(image)
    seconds = time.perf_counter() - start
    np.save(request["out"], labels.astype(np.int32))
    return {"seconds": seconds}


def _version(name: str) -> str | None:
    return importlib.metadata.version(name) if importlib.util.find_spec(name) else None


if __name__ == "__main__":
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    main()
