"""Training the nucleus network, in about an hour on two processor cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from ctc_imaging.segmentation.network import NucleusNetwork, squash
from ctc_training.nuclei.augment import draw_crop
from ctc_training.nuclei.images import LabelledImage, rescaled
from ctc_training.nuclei.targets import targets_of

DEPTH_WEIGHT, OFFSET_WEIGHT = 2.0, 0.5
AVERAGING = 0.998
"""Share of its own past in the moving average of the weights, which is what is kept."""


@dataclass(frozen=True)
class NucleusSchedule:
    """How long and how fast to learn.

    Attributes
    ----------
    steps, batch : int
    learning_rate, weight_decay : float
        Of AdamW (Loshchilov 2019, arXiv 1711.05101); the rate falls along a cosine.
    shares : tuple of float
        Share of crops from cultured and tissue nuclei, from cytospins, and simulated.
    workers : int
        Processes that draw crops; which crops are drawn doesn't depend on it.
    gentle : bool
        Draw crops nearer to the images as they are, see `draw_crop`.
    seed : int
    """

    steps: int = 10_000
    batch: int = 24
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    shares: tuple[float, float, float] = (0.72, 0.13, 0.15)
    workers: int = 1
    threads: int = 2
    gentle: bool = False
    seed: int = 0


class Crops(IterableDataset):
    """An endless row of crops; source first, then image, so that no experiment drowns the others."""

    def __init__(
        self, groups: Sequence[Sequence[LabelledImage]], shares: Sequence[float], seed: int, gentle: bool = False
    ) -> None:
        self.groups = [[rescaled(item) for item in group] for group in groups]
        self.shares, self.seed, self.gentle = shares, seed, gentle

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield squashed signal (1, h, w), maps (4, h, w) and weight (h, w)."""
        worker = torch.utils.data.get_worker_info()
        number, of = (worker.id, worker.num_workers) if worker else (0, 1)
        torch.set_num_threads(1)
        weights = [_image_weights(group) for group in self.groups]
        index = number
        while True:
            rng = np.random.default_rng([self.seed, index])
            group = int(rng.choice(len(self.groups), p=self.shares))
            item = self.groups[group][int(rng.choice(len(self.groups[group]), p=weights[group]))]
            signal, labels, ignore = draw_crop(item, rng, self.gentle)
            yield squash(signal)[None], *targets_of(labels, ignore)
            index += of


def _image_weights(images: Sequence[LabelledImage]) -> np.ndarray:
    """Sources weigh by the root of their number of images."""
    sources = [item.source for item in images]
    count = {source: sources.count(source) for source in set(sources)}
    weights = np.array([count[source] ** -0.5 for source in sources])
    return weights / weights.sum()


def loss_of(maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy and overlap of the foreground, distance of depth and of the steps to the centre."""
    inside = target[:, 0]
    total = weight.sum().clamp(min=1)
    entropy = functional.binary_cross_entropy_with_logits(maps[:, 0], inside, weight, reduction="sum") / total
    share = torch.sigmoid(maps[:, 0]) * (weight > 0)
    overlap = 1 - (2 * (share * inside).sum() + 1) / (share.sum() + inside.sum() + 1)
    depth = (functional.smooth_l1_loss(maps[:, 1], target[:, 1], reduction="none", beta=0.1) * weight).sum() / total
    steps = functional.smooth_l1_loss(maps[:, 2:], target[:, 2:], reduction="none", beta=0.25).sum(1)
    offset = (steps * inside).sum() / inside.sum().clamp(min=1)
    return entropy + 0.5 * overlap + DEPTH_WEIGHT * depth + OFFSET_WEIGHT * offset


def train_nuclei(
    groups: Sequence[Sequence[LabelledImage]],
    schedule: NucleusSchedule,
    start: dict[str, Tensor] | None = None,
    architecture: dict[str, Any] | None = None,
    progress: Callable[[int, float, NucleusNetwork], None] = lambda step, loss, network: None,
) -> NucleusNetwork:
    """Train the network.

    Parameters
    ----------
    groups : sequence of three sequences of LabelledImage
        Cultured and tissue nuclei, cytospins, simulated blood; drawn in the schedule's shares.
    schedule : NucleusSchedule
    start : dict, optional
        Weights to go on from.
    architecture : dict, optional
        Arguments of `NucleusNetwork`.
    progress : callable
        Called every 100 steps with the step, the mean loss since, and the averaged network.

    Returns
    -------
    NucleusNetwork
        The moving average of the weights, in evaluation mode.
    """
    torch.manual_seed(schedule.seed)
    torch.set_num_threads(schedule.threads)
    network = NucleusNetwork(**(architecture or {})).to(memory_format=torch.channels_last)
    if start is not None:
        network.load_state_dict(start)
    average = deepcopy(network).eval()
    optimiser = torch.optim.AdamW(network.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, schedule.steps))
    loader = DataLoader(
        Crops(groups, schedule.shares, schedule.seed, schedule.gentle),
        batch_size=schedule.batch,
        num_workers=schedule.workers,
        prefetch_factor=4 if schedule.workers else None,
    )
    network.train()
    losses = []
    for step, (signal, target, weight) in zip(range(1, schedule.steps + 1), loader, strict=False):
        with torch.autocast("cpu", torch.bfloat16):
            maps = network(signal.contiguous(memory_format=torch.channels_last))
        loss = loss_of(maps.float(), target, weight)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        rate.step()
        _follow(average, network, min(AVERAGING, step / (step + 10)))
        losses.append(loss.item())
        if step % 100 == 0:
            progress(step, float(np.mean(losses)), average)
            losses = []
    return average.eval()


def _follow(average: NucleusNetwork, network: NucleusNetwork, share: float) -> None:
    with torch.no_grad():
        for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - share)
            else:
                mine.copy_(theirs)


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a short linear rise, then half a cosine down to zero."""
    rise = max(steps // 30, 1)
    return min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))))
