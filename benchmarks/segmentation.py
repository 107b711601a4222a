"""How well and how fast nuclei are found, beside other ways: same images, same threads, taken in turns in one run.

    python benchmarks/segmentation.py --gallery errors.png
    python benchmarks/segmentation.py --skip-accuracy --speed --data /tmp/slides --peer-python PEER/bin/python

Accuracy is told on images that a network for this benchmark mustn't have seen: every fourth cluster of look-alikes
of the 2018 Data Science Bowl, and every third cytospin at its own scale. No pixel size is given, for none is known.
Peers are those that `--peer-python` can import (StarDist, Cellpose), and a pipeline of scikit-image.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import segmentation_gallery as gallery
import segmentation_speed as speed
import torch
from ctc_training.nuclei.images import LabelledImage, held_out, read_dsb2018, read_sbsst265
from ctc_training.nuclei.score import THRESHOLDS, aggregated_jaccard, average_precision, count_error, find_errors
from segmentation_peers import PeerError, Peers, scikit_image

from ctc_imaging.segmentation import segment_nuclei
from ctc_imaging.segmentation.image import UnknownScaleWarning
from ctc_imaging.segmentation.model import CLASSICAL, load_finder

THREADS = 2
CYTOSPIN_STEP = 3

Method = Callable[[LabelledImage], tuple[np.ndarray, float]]


def main() -> None:
    """Run the parts asked for."""
    options = _options()
    # The network trained without the images of the comparison; what ships was trained on all.
    os.environ.setdefault("CTC_IMAGING_MODELS", str(Path(__file__).with_name("models")))
    _hold_to_threads()
    warnings.simplefilter("ignore", UnknownScaleWarning)
    with Peers(options.peer_python, options.stardist_model, THREADS) as peers:
        if not options.skip_accuracy:
            _compare_accuracy(options, peers)
        if options.speed:
            speed.compare(options, peers, read_fold(options.images))


def _hold_to_threads() -> None:
    """Give this process and all that it starts the same few cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    cv2.setNumThreads(THREADS)
    torch.set_num_threads(THREADS)


def _options() -> argparse.Namespace:
    shared = Path(__file__).parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nuclei-held-out", help="our network; one that has not seen these images")
    parser.add_argument("--images", type=Path, default=shared, help="holds dsb2018_fluo and sbsst265_cytospin")
    parser.add_argument("--peer-python", type=Path, default=Path(sys.executable), help="Python with StarDist, Cellpose")
    parser.add_argument("--stardist-model", type=Path, help="folder of a trained StarDist model")
    parser.add_argument("--gallery", type=Path, metavar="FILE.png", help="picture of our worst errors")
    parser.add_argument("--skip-accuracy", action="store_true")
    parser.add_argument("--speed", action="store_true", help="time a simulated slide, too")
    parser.add_argument("--data", type=Path, default=Path("segmentation-data"), help="keeps the simulated slide")
    parser.add_argument("--rounds", type=int, default=3, help="of timing, taken in turns")
    return parser.parse_args()


def read_fold(folder: Path) -> list[LabelledImage]:
    """Read the images on which accuracy is told."""
    bowl = read_dsb2018(folder / "dsb2018_fluo")
    clusters = held_out(bowl)
    cytospins = read_sbsst265(folder / "sbsst265_cytospin")[::CYTOSPIN_STEP]
    return [item for item in bowl if item.source in clusters] + cytospins


def _compare_accuracy(options: argparse.Namespace, peers: Peers) -> None:
    images = read_fold(options.images)
    print(f"{len(images)} images, {sum(_count(item) for item in images):,} nuclei, {THREADS} threads.")
    print(_has_seen(options.model, images))
    methods = _methods(options.model, peers, images[0])
    rows, ours = [], []
    for item in images:
        for name, method in methods.items():
            labels, seconds = method(item)
            rows.append({"method": name, "cluster": _cluster(item), **_scores(item, labels), "seconds": seconds})
            if name == _ours(options.model):
                ours.append(labels)
    _print_accuracy(pd.DataFrame(rows))
    if options.gallery:
        gallery.draw(options.gallery, images, ours, options.model)
        print(f"worst errors of {options.model}: {options.gallery}")


def _has_seen(model: str, images: list[LabelledImage]) -> str:
    """Say whether a model was trained on these images, by its own ``model.json``."""
    if model == CLASSICAL:
        return "No network is asked."
    training = load_finder(model).description.get("training", {})
    if "held_out" not in training:
        return f"CAUTION: {model} doesn't say what it was trained on; it may have seen these very images."
    sources = {item.source for item in images}
    seen = sources - set(training["held_out"])
    if not seen:
        return f"{model}: trained without any of these images."
    return f"CAUTION: {model} was TRAINED on {len(seen)} of these {len(sources)} sources: its figures are flattered."


def _ours(model: str) -> str:
    return f"ours: {model}"


def _methods(model: str, peers: Peers, example: LabelledImage) -> dict[str, Method]:
    """Return the ways that work here, each tried once so that nothing is compiled or loaded on the clock."""
    methods: dict[str, Method] = {_ours(name): _our_method(name) for name in dict.fromkeys([model, CLASSICAL])}
    methods["scikit-image"] = lambda item: _timed(lambda: scikit_image(item.image, item.diameter_px))
    for peer, version in peers.versions.items():
        if version is None:
            print(f"{peer}: not there; name a Python that has it by --peer-python.")
        else:
            methods[f"{peer} {version}"] = lambda item, peer=peer: peers.segment(peer, item.image)
    for name, method in list(methods.items()):
        try:
            method(example)
        except PeerError as error:
            print(f"{name}: left out here ({error}).")
            del methods[name]
    return methods


def _our_method(model: str) -> Method:
    return lambda item: _timed(lambda: segment_nuclei(item.image, model=model))


def _timed(segment: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    return segment(), time.perf_counter() - start


def _cluster(item: LabelledImage) -> str:
    return "cytospins" if item.source == item.name else item.source


def _count(item: LabelledImage) -> int:
    return len(np.unique(item.labels)) - 1


def _scores(item: LabelledImage, labels: np.ndarray) -> dict[str, Any]:
    triple = labels, item.labels, item.ignore
    errors = {kind: len(wrong) for kind, wrong in vars(find_errors(*triple)).items()}
    off = count_error(*triple)
    return {
        "nuclei": _count(item),
        "px": labels.size,
        **dict(zip(THRESHOLDS, average_precision(*triple), strict=True)),
        "AJI": aggregated_jaccard(*triple),
        "off": off,
        "far": abs(off),
        **errors,
    }


def _print_accuracy(rows: pd.DataFrame) -> None:
    print(
        "\nAP: average precision TP / (TP + FP + FN), mean of images; count: sum of errors, and of their sizes, in % of"
    )
    print("nuclei; missed, split, merged, false, inexact (IoU below 0.5): per 100 nuclei.")
    for method, part in rows.groupby("method", sort=False):
        print(f"\n{method}\n{_HEAD}")
        for cluster, group in part.groupby("cluster"):
            print(_line(str(cluster), group))
    bowl = rows[rows["cluster"] != "cytospins"]
    for title, part in (("Data Science Bowl", bowl), ("cytospins", rows[rows["cluster"] == "cytospins"])):
        print(f"\n{title}, all methods\n{_HEAD}")
        for method, group in part.groupby("method", sort=False):
            print(_line(str(method), group))


_HEAD = (
    f"{'':22} {'images':>6} {'nuclei':>6}  AP " + " ".join(f"{threshold:5.2f}" for threshold in THRESHOLDS)
    + "  mean   AJI  count %      missed split merged false inexact  Mpx/s"
)  # fmt: skip


def _line(name: str, rows: pd.DataFrame) -> str:
    nuclei = rows["nuclei"].sum()
    precision = rows[list(THRESHOLDS)].mean()
    shares = 100 * rows[["off", "far", "missed", "split", "merged", "false", "inexact"]].sum() / nuclei
    columns = [
        f"{name:22} {len(rows):6} {nuclei:6}     " + " ".join(f"{value:5.3f}" for value in precision),
        f"{precision.mean():.3f} {rows['AJI'].mean():.3f}",
        f"{shares['off']:+6.1f} {shares['far']:5.1f}",
        f"{shares['missed']:6.1f} {shares['split']:5.1f} {shares['merged']:6.1f} {shares['false']:5.1f}",
        f"{shares['inexact']:6.1f}  {1e-6 * rows['px'].sum() / rows['seconds'].sum():5.2f}",
    ]
    return " ".join(columns)


if __name__ == "__main__":
    main()
