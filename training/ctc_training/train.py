"""Training the network on labelled crops, in minutes on two processor cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.network import CellNetwork, squash
from ctc_training.augment import Sample, augment
from ctc_training.dataset import FRAGMENT, CropSet

POSITIVE_SNR = 3.0
"""True signal-to-noise from which a marker is positive."""

POSITIVITY_WEIGHT = 0.5
EASY_CD45_SNR = 4.0
EASY_CK_SNR = 1.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    Attributes
    ----------
    epochs : int
    crops_per_epoch : int
        Drawn with replacement, classes in the shares of `class_shares`.
    batch : int
    learning_rate, weight_decay : float
        Of AdamW (Loshchilov 2019, arXiv 1711.05101); the rate falls along a cosine.
    class_shares : tuple of float
        Share of CTCs, leukocytes and artefacts in what the network sees.
    hard_weight : float
        How much oftener a hard negative is drawn than an easy one of its class.
    threads : int
    seed : int
    """

    epochs: int = 12
    crops_per_epoch: int = 60_000
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    class_shares: tuple[float, float, float] = (0.35, 0.35, 0.30)
    hard_weight: float = 5.0
    threads: int = 2
    seed: int = 0


def train_network(
    crops: CropSet,
    schedule: Schedule,
    architecture: dict[str, int] | None = None,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> CellNetwork:
    """Train a network from scratch.

    Parameters
    ----------
    crops : CropSet
    schedule : Schedule
    architecture : dict, optional
        Arguments of `CellNetwork`.
    progress : callable
        Called after each epoch with its number from 1 and its mean loss.

    Returns
    -------
    CellNetwork
        In evaluation mode; the same on one machine for the same crops, schedule and architecture.
    """
    with _reproducible(schedule):
        network = CellNetwork(**(architecture or {})).to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(schedule.seed)
        optimiser = torch.optim.AdamW(network.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay)
        steps = schedule.epochs * -(-schedule.crops_per_epoch // schedule.batch)
        rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
        weights = torch.from_numpy(sampling_weights(crops, schedule))
        network.train()
        for epoch in range(1, schedule.epochs + 1):
            drawn = torch.multinomial(weights, schedule.crops_per_epoch, replacement=True, generator=generator)
            losses = []
            for rows in torch.split(drawn, schedule.batch):
                loss = training_loss(network, augment(sample_of(crops, rows.numpy()), generator))
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
                rate.step()
                losses.append(loss.item())
            progress(epoch, float(np.mean(losses)))
    return network.eval()


def training_loss(network: CellNetwork, sample: Sample) -> Tensor:
    """Cross-entropy of the class, and of each marker's positivity where the truth is known."""
    planes = torch.from_numpy(squash(sample.roles.numpy()))
    logits, positivity = network(planes, sample.present, sample.masks)
    known = ~torch.isnan(sample.snr)
    positive = (sample.snr >= POSITIVE_SNR).float()
    marker = functional.binary_cross_entropy_with_logits(positivity[known], positive[known])
    return functional.cross_entropy(logits, sample.target) + POSITIVITY_WEIGHT * marker


def sampling_weights(crops: CropSet, schedule: Schedule) -> np.ndarray:
    """Weight of each crop when drawing: classes in their shares, hard negatives oftener.

    Hard are leukocytes that are dim in CD45 or bright in CK, and all dirt the simulator names but
    naked nuclei. Pieces of a true cell are left out, for they are neither a cell nor dirt.
    """
    ck, cd45 = crops.snr[:, 0], crops.snr[:, 2]
    leukocyte = crops.target == CLASSES.index("leukocyte")
    hard = leukocyte & ((cd45 < EASY_CD45_SNR) | (ck > EASY_CK_SNR))
    weights = np.where(hard, schedule.hard_weight, 1.0)
    weights[crops.kind == FRAGMENT] = 0
    for index, share in enumerate(schedule.class_shares):
        members = crops.target == index
        total = weights[members].sum()
        if total > 0:
            weights[members] *= share / total
    return weights


def sample_of(crops: CropSet, rows: np.ndarray) -> Sample:
    """Return the crops of some rows as float32 tensors."""
    return Sample(
        roles=torch.from_numpy(crops.roles[rows].astype(np.float32)),
        masks=torch.from_numpy(crops.masks[rows].astype(np.float32) / 255),
        present=torch.from_numpy(crops.present[rows]),
        snr=torch.from_numpy(crops.snr[rows]),
        target=torch.from_numpy(crops.target[rows]),
    )


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a short linear rise, then half a cosine down to zero."""
    rise = max(steps // 20, 1)
    return min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))))


@contextmanager
def _reproducible(schedule: Schedule) -> Iterator[None]:
    """Seed the network's first weights and bound the threads, and leave the caller's state as it was."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        torch.set_num_threads(schedule.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
