"""Cells per second of the classifier as in use, beside plain torch: same cells, same cores, taken in turns."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median

import numpy as np
import pandas as pd
import torch
from ctc_training.dataset import ArraySlide
from safetensors.torch import load_file
from torch import Tensor, nn

from ctc_imaging.classification import Classifier, iterate_crops, load_model
from ctc_imaging.classification.crops import CropBatch, crop_order
from ctc_imaging.classification.model import BATCH, WEIGHTS, list_models
from ctc_imaging.classification.network import CellNetwork, _cues, _masked_mean
from ctc_imaging.panel import load_panel
from ctc_imaging.segmentation import Background, measure_background, segment_slide
from ctc_imaging.simulation import simulate_slide

CORES = 2
PANEL = "emt-4"
SEED = 940_000
SHAPE_PX = (3072, 3072)
CTC, LEUKOCYTES = 20, 5000
REPEATS = 3
"""Times the cells are classified in one measurement, so that it takes seconds."""

OURS, PLAIN = "classifier, 2 processes of 1 thread", "plain torch, 1 process of 2 threads"
PLAIN_APART = "plain torch, 2 processes of 1 thread"
CUT = "; crops cut too"


class PlainNetwork(CellNetwork):
    """The same network as one writes it down: nothing folded, no memory format, the arcsinh by torch."""

    def forward(self, planes: Tensor, present: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Return class and positivity logits of signal-to-noise that isn't squashed yet."""
        planes = torch.asinh(planes)
        maps = self.features(torch.cat([planes, masks], dim=1))
        own = nn.functional.adaptive_avg_pool2d(masks[:, :1], maps.shape[-2:])
        cues = self.cue_norm(_cues(planes, present, masks))
        hidden = self.trunk(torch.cat([maps.mean((2, 3)), _masked_mean(maps, own), cues], dim=1))
        return self.classes(hidden), self.positivity(hidden)

    def logits(self, batch: CropBatch) -> np.ndarray:
        """Return the class logits (n, 3) of a batch."""
        present = np.tile(batch.present, (len(batch.cell_ids), 1))
        with torch.inference_mode():
            classes, _ = self(*(torch.from_numpy(array) for array in (batch.roles, present, batch.masks)))
        return np.asarray(classes)


@dataclass(frozen=True)
class Work:
    """A segmented slide, whose cells are to be classified."""

    slide: ArraySlide
    channels: dict[str, int]
    background: Background
    labels: np.ndarray
    cells: pd.DataFrame

    def crops(self) -> Iterator[CropBatch]:
        """Cut the crops."""
        panel = load_panel(PANEL)
        return iterate_crops(self.slide, self.channels, panel, self.background, self.labels, self.cells, BATCH)

    def part(self, number: int) -> Work:
        """Return the share of one process: whole batches in turns."""
        own = np.arange(len(self.cells)) // BATCH % CORES == number
        cells = self.cells.iloc[crop_order(self.cells)[own]]
        return Work(self.slide, self.channels, self.background, self.labels, cells)


def compare(options: argparse.Namespace, classifier: Classifier) -> None:
    """Print the table.

    Parameters
    ----------
    options : Namespace
        `rounds`.
    classifier : Classifier
    """
    torch.set_num_threads(CORES)
    work, plain = _work(), _plain(classifier)
    batches = list(work.crops())
    off = max(float(np.abs(classifier.raw(batch)[0] - plain.logits(batch)).max()) for batch in batches)
    print(
        f"\n{len(work.cells):,} cells of a simulated slide, batches of {BATCH}, {CORES} cores; {options.rounds} rounds"
    )
    print(f"in turns, {REPEATS} passes each. Plain torch is the same network in eager float32: batch norm not folded,")
    print(f"planes contiguous, arcsinh by torch. Its logits are off by at most {off:.1e}.\n")
    context = get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, _prepare, (classifier.name, work.part(0))) as first,
        ProcessPoolExecutor(1, context, _prepare, (classifier.name, work.part(1))) as second,
    ):
        pools = first, second
        ways: dict[str, Callable[[], object]] = {
            OURS: lambda: _both(pools, _predict),
            PLAIN: lambda: _run(plain, batches),
            PLAIN_APART: lambda: _both(pools, _predict_plainly),
            OURS + CUT: lambda: _both(pools, _cut_and_predict),
            PLAIN + CUT: lambda: _run(plain, work.crops()),
        }
        _print(_in_turns(ways, len(work.cells), options.rounds))


def _work() -> Work:
    drawn = simulate_slide(SHAPE_PX, ctc=CTC, leukocytes=LEUKOCYTES, seed=SEED, panel=PANEL)
    slide, panel = ArraySlide(drawn.image, drawn.pixel_size_um), load_panel(PANEL)
    channels = panel.assign(drawn.channel_names, "slide")
    background = measure_background(slide, channels)
    labels = np.zeros((2, *SHAPE_PX), np.uint32)
    cells = segment_slide(slide, channels, panel, background, labels, drawn.pixel_size_um)
    return Work(slide, channels, background, labels, cells)


def _plain(classifier: Classifier) -> PlainNetwork:
    network = PlainNetwork(**classifier.description["architecture"])
    network.load_state_dict(load_file(list_models()[classifier.name] / WEIGHTS))
    return network.eval()


def _run(network: PlainNetwork, batches: Iterable[CropBatch]) -> None:
    for batch in batches:
        network.logits(batch)


@dataclass(frozen=True)
class _Share:
    classifier: Classifier
    plain: PlainNetwork
    work: Work
    batches: list[CropBatch]


_shares: list[_Share] = []
"""What a process of the pool works on: one, put there when it starts."""


def _prepare(model: str, work: Work) -> None:
    torch.set_num_threads(1)
    classifier = load_model(model)
    _shares.append(_Share(classifier, _plain(classifier), work, list(work.crops())))


def _predict() -> None:
    for batch in _shares[0].batches:
        _shares[0].classifier.predict(batch)


def _predict_plainly() -> None:
    _run(_shares[0].plain, _shares[0].batches)


def _cut_and_predict() -> None:
    for batch in _shares[0].work.crops():
        _shares[0].classifier.predict(batch)


def _both(pools: Iterable[ProcessPoolExecutor], task: Callable[[], None]) -> None:
    for future in [pool.submit(task) for pool in pools]:
        future.result()


def _in_turns(ways: dict[str, Callable[[], object]], cells: int, rounds: int) -> dict[str, list[float]]:
    """Cells per second of each way in each round, after one that doesn't count."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(REPEATS):
                way()
            if number:
                rates[name].append(REPEATS * cells / (time.perf_counter() - start))
    return rates


def _print(rates: dict[str, list[float]]) -> None:
    print("| Way | Cells per second, median (range) | Times as fast as plain torch, median (range) |")
    print("|---|---|---|")
    for name, values in rates.items():
        plain = rates[PLAIN + CUT if name.endswith(CUT) else PLAIN]
        ratios = [ours / theirs for ours, theirs in zip(values, plain, strict=True)]
        speed = f"{median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"
        print(f"| {name} | {speed} | {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |")
