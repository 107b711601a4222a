"""Training the network on labelled crops: minutes on two processor cores, resumable at every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctc_imaging.classification.network import CellNetwork
from ctc_training.checkpoint import Epoch, read_checkpoint, write_checkpoint
from ctc_training.dataset import FRAGMENT, CropSet
from ctc_training.learner import Learner, kept_epoch, loss_of, training_loss
from ctc_training.sampling import mixture, sample_of, sampling_weights
from ctc_training.schedule import Schedule

__all__ = [
    "Learned",
    "Schedule",
    "learn",
    "loss_of",
    "sample_of",
    "sampling_weights",
    "train_network",
    "training_loss",
]

HELD_OUT_MOST = 20_000
"""Held-out crops that are looked at after each epoch; more tell nothing more."""


@dataclass(frozen=True)
class Learned:
    """What a training came to: the network in evaluation mode, and how it got there."""

    network: CellNetwork
    curve: tuple[Epoch, ...]

    @property
    def kept(self) -> int:
        """The epoch whose weights were kept."""
        return kept_epoch(self.curve)


def train_network(
    crops: CropSet,
    schedule: Schedule,
    architecture: dict[str, int] | None = None,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> CellNetwork:
    """Train a network from scratch on the processor.

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
    return learn(crops, schedule, architecture, lambda epoch: progress(epoch.epoch, epoch.loss)).network


def learn(
    crops: CropSet,
    schedule: Schedule,
    architecture: dict[str, int] | None = None,
    told: Callable[[Epoch], None] = lambda epoch: None,
    *,
    start: Mapping[str, Tensor] | None = None,
    teacher: CellNetwork | None = None,
    simulated: CropSet | None = None,
    held_out: CropSet | None = None,
    checkpoint: Path | None = None,
    identity: str = "",
    device: str = "cpu",
) -> Learned:
    """Train a network, from scratch or from given weights.

    Parameters
    ----------
    crops : CropSet
    schedule : Schedule
    architecture : dict, optional
        Arguments of `CellNetwork`.
    told : callable
        Called after each epoch.
    start : mapping of str to Tensor, optional
        Weights to go on from.
    teacher : CellNetwork, optional
        Says how positive markers are on crops where no truth is known, so that what a model knew of
        markers isn't lost where readers name classes only (learning without forgetting, Li 2016,
        arXiv 1606.09282).
    simulated : CropSet, optional
        Mixed in, in the schedule's share.
    held_out : CropSet, optional
        The network of the epoch with the lowest loss on it is kept.
    checkpoint : Path, optional
        Where the state is kept after each epoch. If it is there, training goes on from it, to the same
        weights as if it had never stopped.
    identity : str
        Hash of the data and the start, which a checkpoint must share.
    device : str
        As torch calls it: ``cpu``, ``cuda``.

    Returns
    -------
    Learned
        On the processor; the same on one machine and device for the same input.
    """
    place = torch.device(device)
    with _reproducible(schedule, place):
        learner = Learner(schedule, architecture or {}, start, teacher, place)
        if checkpoint is not None and checkpoint.is_file():
            learner.restore(read_checkpoint(checkpoint, identity))
        mixed = mixture(crops, schedule, simulated)
        judged = None if held_out is None else held_out_rows(held_out, schedule.seed)
        while not learner.is_done():
            loss = learner.epoch(mixed)
            held_out_loss = None if held_out is None or judged is None else learner.judge(held_out, judged)
            told(learner.note(loss, held_out_loss))
            if checkpoint is not None:
                write_checkpoint(checkpoint, learner.state(), identity)
        return Learned(*learner.learned())


def held_out_rows(crops: CropSet, seed: int) -> np.ndarray:
    """Rows of held-out crops to judge by: whole cells with a label, at most `HELD_OUT_MOST`."""
    rows = np.flatnonzero(crops.kind != FRAGMENT)
    if len(rows) <= HELD_OUT_MOST:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, HELD_OUT_MOST, replace=False))


@contextmanager
def _reproducible(schedule: Schedule, device: torch.device) -> Iterator[None]:
    """Seed the network's first weights and bound the threads, and leave the caller's state as it was."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(schedule.seed)
        torch.set_num_threads(schedule.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
