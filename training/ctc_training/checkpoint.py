"""A training's state on disk, whole at any moment and without pickle: a killed training goes on as if it weren't."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ctc_imaging.errors import ConfigError
from ctc_imaging.files import atomic_path

_FORMAT = "ctc-imaging-checkpoint/1"


@dataclass(frozen=True)
class Epoch:
    """One line of the curves: mean training loss, and the loss on held-out crops where there are any."""

    epoch: int
    loss: float
    held_out_loss: float | None = None


@dataclass
class State:
    """All that the next epoch depends on.

    Attributes
    ----------
    network, best : dict of str to Tensor
        Weights now, and at the epoch of the lowest held-out loss.
    optimiser : dict of int to dict of str to Tensor
        Moments of AdamW by parameter.
    random : dict of str to Tensor
        States of the random number generators.
    curve : list of Epoch
    """

    network: dict[str, Tensor]
    best: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]
    random: dict[str, Tensor]
    curve: list[Epoch] = field(default_factory=list)


def checkpoint_of(folder: Path) -> Path:
    """Where the state of the training of a model folder lies: beside it."""
    return folder.with_name(f".{folder.name}.training.safetensors")


def write_checkpoint(path: Path, state: State, identity: str) -> None:
    """Write a state, in one step.

    Parameters
    ----------
    path : Path
    state : State
    identity : str
        Hash of all that was chosen: data, schedule, network, start.
    """
    from safetensors.torch import save_file

    tensors = {f"network/{name}": value for name, value in state.network.items()}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    tensors |= {f"random/{name}": value for name, value in state.random.items()}
    for index, moments in state.optimiser.items():
        tensors |= {f"optimiser/{index}/{name}": value for name, value in moments.items()}
    facts = {"format": _FORMAT, "identity": identity, "curve": json.dumps([asdict(epoch) for epoch in state.curve])}
    # Clones, as the format refuses tensors that share memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=facts)


def read_checkpoint(path: Path, identity: str) -> State:
    """Read a state back.

    Raises
    ------
    ConfigError
        If the file is damaged, or of a training of something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        curve = [Epoch(**epoch) for epoch in json.loads(facts.get("curve", ""))]
    except (SafetensorError, ValueError, TypeError) as error:
        raise ConfigError(
            path, "the state of the training is damaged", "remove it and train without --resume"
        ) from error
    if facts.get("format") != _FORMAT or facts.get("identity") != identity:
        fault = "a training of other data, settings or start lies here"
        raise ConfigError(path, fault, "give what it was started with, or remove it and train without --resume")
    optimiser: dict[int, dict[str, Tensor]] = {}
    for name, value in _under(tensors, "optimiser").items():
        index, _, moment = name.partition("/")
        optimiser.setdefault(int(index), {})[moment] = value
    return State(_under(tensors, "network"), _under(tensors, "best"), optimiser, _under(tensors, "random"), curve)


def random_states(generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """Return the states of all generators a training draws from."""
    states = {"draws": generator.get_state(), "torch": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random(states: dict[str, Tensor], generator: torch.Generator, device: torch.device) -> None:
    """Put all generators back to their states."""
    generator.set_state(states["draws"])
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{prefix}/")}
