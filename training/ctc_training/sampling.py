"""Which crops an epoch draws: classes in their shares, hard negatives oftener, reviewed and simulated mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ctc_imaging.classification.classes import CLASSES
from ctc_training.augment import Sample
from ctc_training.dataset import FRAGMENT, CropSet
from ctc_training.schedule import Schedule

EASY_CD45_SNR = 4.0
EASY_CK_SNR = 1.0
EFFECTIVE = 0.9999
"""How much of a further crop of a class is new (beta of Cui 2019, CVPR, arXiv 1901.05555)."""


@dataclass(frozen=True)
class Draw:
    """A batch of crops as drawn.

    Attributes
    ----------
    sample : Sample
    soft : Tensor of float32, shape (n, 3), optional
        Share of the readers for each class; None where no crop of the batch has been read.
    read : Tensor of bool, shape (n,), optional
        Which crops have been read; None where none has.
    """

    sample: Sample
    soft: Tensor | None
    read: Tensor | None


@dataclass(frozen=True)
class Mixture:
    """Crop sets drawn from together, each in its share, without copying them.

    Attributes
    ----------
    sets : tuple of CropSet
        May be mapped from disk.
    weights : Tensor of float64, shape (n,)
        Of every crop of all sets, one set after the other.
    """

    sets: tuple[CropSet, ...]
    weights: Tensor

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Draw so many rows of all sets, with replacement."""
        return torch.multinomial(self.weights, count, replacement=True, generator=generator)

    def sample(self, rows: np.ndarray) -> Draw:
        """Return the crops of some rows."""
        if len(self.sets) == 1:
            return draw_of(self.sets[0], rows)
        places, draws, first = [], [], 0
        for part in self.sets:
            place = np.flatnonzero((rows >= first) & (rows < first + len(part)))
            places.append(place)
            draws.append(draw_of(part, rows[place] - first))
            first += len(part)
        order = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable"))
        samples = [draw.sample for draw in draws]
        joined = {name: torch.cat([getattr(one, name) for one in samples])[order] for name in vars(samples[0])}
        read = torch.cat([torch.full((len(draw.sample.target),), draw.soft is not None) for draw in draws])
        return Draw(Sample(**joined), torch.cat([_soft_or_sure(draw) for draw in draws])[order], read[order])


def mixture(crops: CropSet, schedule: Schedule, simulated: CropSet | None = None) -> Mixture:
    """Mix crops with simulated ones, if there are any, in the schedule's share."""
    own = sampling_weights(crops, schedule)
    if simulated is None or schedule.simulated_share == 0:
        return Mixture((crops,), torch.from_numpy(own))
    share = schedule.simulated_share
    other = sampling_weights(simulated, schedule)
    weights = np.concatenate([own / own.sum() * (1 - share), other / other.sum() * share])
    return Mixture((crops, simulated), torch.from_numpy(weights))


def sampling_weights(crops: CropSet, schedule: Schedule) -> np.ndarray:
    """Weight of each crop when drawing: classes in their shares, hard negatives oftener.

    Hard are leukocytes that are dim in CD45 or bright in CK, and all dirt the simulator names but
    naked nuclei. Pieces of a true cell are left out, for they are neither a cell nor dirt.
    """
    ck, cd45 = crops.snr[:, 0], crops.snr[:, 2]
    leukocyte = crops.target == CLASSES.index("leukocyte")
    hard = leukocyte & ((cd45 < EASY_CD45_SNR) | (ck > EASY_CK_SNR))
    weights = np.where(hard, schedule.hard_weight, 1.0)
    if crops.weight is not None:
        weights *= crops.weight
    weights[crops.kind == FRAGMENT] = 0
    totals = [weights[crops.target == index].sum() for index in range(len(CLASSES))]
    counts = np.bincount(crops.target[weights > 0], minlength=len(CLASSES))
    for index, share in enumerate(class_shares(counts, schedule)):
        if totals[index] > 0:
            weights[crops.target == index] *= share / totals[index]
    return weights


def class_shares(counts: Sequence[int] | np.ndarray, schedule: Schedule) -> np.ndarray:
    """Share of each class in what the network sees, from the number of its crops.

    Returns
    -------
    ndarray of float64, shape (3,)
        They sum to 1, but where ``shares`` are given for classes that have no crops.
    """
    counts = np.asarray(counts, float)
    if schedule.balance == "shares":
        return np.array(schedule.class_shares, float)
    there = counts > 0
    if schedule.balance == "inverse":
        weights = there.astype(float)
    elif schedule.balance == "effective":
        # A class's share is its number times its weight, (1 - beta) / (1 - beta^n).
        weights = np.where(there, counts * (1 - EFFECTIVE) / (1 - EFFECTIVE ** np.maximum(counts, 1)), 0)
    else:
        weights = counts
    return weights / weights.sum()


def sample_of(crops: CropSet, rows: np.ndarray) -> Sample:
    """Return the crops of some rows as float32 tensors."""
    return Sample(
        roles=torch.from_numpy(crops.roles[rows].astype(np.float32)),
        masks=torch.from_numpy(crops.masks[rows].astype(np.float32) / 255),
        present=torch.from_numpy(crops.present[rows]),
        snr=torch.from_numpy(crops.snr[rows]),
        target=torch.from_numpy(crops.target[rows]),
    )


def draw_of(crops: CropSet, rows: np.ndarray) -> Draw:
    """Return some rows of one crop set."""
    sample = sample_of(crops, rows)
    if crops.soft is None:
        return Draw(sample, None, None)
    return Draw(sample, torch.from_numpy(crops.soft[rows]), torch.ones(len(rows), dtype=torch.bool))


def _soft_or_sure(draw: Draw) -> Tensor:
    if draw.soft is not None:
        return draw.soft
    return torch.nn.functional.one_hot(draw.sample.target, len(CLASSES)).float()
