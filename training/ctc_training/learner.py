"""A network that learns, epoch by epoch, and all of its state between two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ctc_imaging.classification.classes import CLASSES
from ctc_imaging.classification.network import CellNetwork, squash
from ctc_training.augment import Sample, augment
from ctc_training.checkpoint import Epoch, State, random_states, restore_random
from ctc_training.dataset import CropSet
from ctc_training.sampling import Draw, Mixture, draw_of
from ctc_training.schedule import Schedule

POSITIVE_SNR = 3.0
"""True signal-to-noise from which a marker is positive."""

POSITIVITY_WEIGHT = 0.5
_BATCH = 512


class Learner:
    """A network with its optimiser and random numbers, one epoch after the other."""

    def __init__(
        self,
        schedule: Schedule,
        architecture: dict[str, int],
        start: Mapping[str, Tensor] | None,
        teacher: CellNetwork | None,
        device: torch.device,
    ) -> None:
        self._schedule, self._device = schedule, device
        network = CellNetwork(**architecture)
        if start is not None:
            network.load_state_dict(start)
        self._network: CellNetwork = network.to(device).to(memory_format=torch.channels_last)
        self._teacher = None if teacher is None else deepcopy(teacher).to(device=device).eval()
        self._optimiser = torch.optim.AdamW(
            self._network.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self._generator = torch.Generator().manual_seed(schedule.seed)
        self._curve: list[Epoch] = []
        self._best: dict[str, Tensor] = {}

    def is_done(self) -> bool:
        """Say whether all epochs are over, or the last ones gained nothing."""
        ended, patience = len(self._curve), self._schedule.patience
        if ended >= self._schedule.epochs:
            return True
        return bool(patience and self._best) and ended - kept_epoch(self._curve) >= patience

    def epoch(self, mixed: Mixture) -> float:
        """Learn for one epoch; return the mean loss."""
        schedule = self._schedule
        steps_an_epoch = -(-schedule.crops_per_epoch // schedule.batch)
        step, steps = len(self._curve) * steps_an_epoch, schedule.epochs * steps_an_epoch
        losses = []
        self._network.train()
        for rows in torch.split(mixed.draw(schedule.crops_per_epoch, self._generator), schedule.batch):
            drawn = mixed.sample(rows.numpy())
            for group in self._optimiser.param_groups:
                group["lr"] = schedule.learning_rate * _rate(step, steps)
            loss = self._loss(vary(drawn, self._generator), drawn.soft)
            self._optimiser.zero_grad()
            torch.autograd.backward(loss)
            self._optimiser.step()
            losses.append(loss.item())
            step += 1
        return float(np.mean(losses))

    def judge(self, crops: CropSet, rows: np.ndarray) -> float:
        """Mean loss of the class on held-out crops, every class weighing the same."""
        self._network.eval()
        losses, weights = [], 1 / np.maximum(np.bincount(crops.target[rows], minlength=len(CLASSES)), 1)
        with torch.inference_mode():
            for part in np.array_split(rows, -(-len(rows) // _BATCH)):
                drawn = draw_of(crops, part)
                logits, _ = self._network(*self._inputs(drawn.sample))
                target = (drawn.sample.target if drawn.soft is None else drawn.soft).to(self._device)
                entropy = functional.cross_entropy(logits.float(), target, reduction="none").cpu().numpy()
                losses.append(float((entropy * weights[crops.target[part]]).sum()))
        return sum(losses) / float(weights[crops.target[rows]].sum())

    def note(self, loss: float, held_out_loss: float | None) -> Epoch:
        """Write an epoch into the curve, and keep its weights if none were better."""
        earlier = [epoch.held_out_loss for epoch in self._curve if epoch.held_out_loss is not None]
        if held_out_loss is not None and held_out_loss < min(earlier, default=math.inf):
            self._best = {name: value.detach().cpu().clone() for name, value in self._network.state_dict().items()}
        self._curve.append(Epoch(len(self._curve) + 1, loss, held_out_loss))
        return self._curve[-1]

    def state(self) -> State:
        """Return all that the next epoch depends on."""
        optimiser = self._optimiser.state_dict()["state"]
        random = random_states(self._generator, self._device)
        return State(self._network.state_dict(), self._best, optimiser, random, self._curve)

    def restore(self, state: State) -> None:
        """Go back to a state."""
        self._network.load_state_dict(state.network)
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state.optimiser, "param_groups": groups})
        restore_random(state.random, self._generator, self._device)
        self._curve, self._best = list(state.curve), state.best

    def learned(self) -> tuple[CellNetwork, tuple[Epoch, ...]]:
        """Return the best network, or the last where nothing was held out, and the curve."""
        if self._best:
            self._network.load_state_dict(self._best)
        return self._network.cpu().eval(), tuple(self._curve)

    def _loss(self, sample: Sample, soft: Tensor | None) -> Tensor:
        on_device = Sample(**{name: value.to(self._device) for name, value in vars(sample).items()})
        inputs = self._inputs(sample)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._schedule.precision == "bfloat16"):
            logits, positivity = self._network(*inputs)
        taught = None
        if self._teacher is not None:
            with torch.inference_mode():
                taught = torch.sigmoid(self._teacher(*inputs)[1]).clone()
        target = None if soft is None else soft.to(self._device)
        return loss_of(logits.float(), positivity.float(), on_device, target, taught)

    def _inputs(self, sample: Sample) -> tuple[Tensor, Tensor, Tensor]:
        planes = torch.from_numpy(squash(sample.roles.numpy()))
        return planes.to(self._device), sample.present.to(self._device), sample.masks.to(self._device)


def vary(drawn: Draw, generator: torch.Generator) -> Sample:
    """Augment a batch.

    Augmenting takes markers away from every crop but from CTCs that would no longer show as such. Of a crop that
    was read nobody knows which do: it counts as a CTC here, whatever it is, or missing markers would speak
    against CTCs.
    """
    if drawn.read is None:
        return augment(drawn.sample, generator)
    ctc = torch.full_like(drawn.sample.target, CLASSES.index("ctc"))
    shown = replace(drawn.sample, target=torch.where(drawn.read, ctc, drawn.sample.target))
    return replace(augment(shown, generator), target=drawn.sample.target)


def kept_epoch(curve: Sequence[Epoch]) -> int:
    """Return the epoch whose weights are kept: that of the lowest held-out loss, or the last."""
    judged = [(epoch.held_out_loss, epoch.epoch) for epoch in curve if epoch.held_out_loss is not None]
    return min(judged)[1] if judged else curve[-1].epoch


def training_loss(network: CellNetwork, sample: Sample, soft: Tensor | None = None) -> Tensor:
    """Cross-entropy of the class, and of each marker's positivity where the truth is known."""
    planes = torch.from_numpy(squash(sample.roles.numpy()))
    logits, positivity = network(planes, sample.present, sample.masks)
    return loss_of(logits, positivity, sample, soft)


def loss_of(
    logits: Tensor, positivity: Tensor, sample: Sample, soft: Tensor | None = None, taught: Tensor | None = None
) -> Tensor:
    """Loss of a network's outputs.

    Parameters
    ----------
    logits, positivity : Tensor, shape (n, 3)
    sample : Sample
    soft : Tensor, shape (n, 3), optional
        Share of the readers for each class, in the place of the one class.
    taught : Tensor, shape (n, 3), optional
        Positivity that a teacher sees, for markers whose truth isn't known.
    """
    known = ~torch.isnan(sample.snr)
    positive = (sample.snr >= POSITIVE_SNR).float()
    if taught is not None:
        positive = torch.where(known, positive, taught)
        known = known | (sample.present[:, 1:] > 0)
    loss = functional.cross_entropy(logits, sample.target if soft is None else soft)
    if not known.any():
        return loss
    return loss + POSITIVITY_WEIGHT * functional.binary_cross_entropy_with_logits(positivity[known], positive[known])


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: a short linear rise, then half a cosine down to zero."""
    rise = max(steps // 20, 1)
    return min((step + 1) / rise, 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))))
