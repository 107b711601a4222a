"""From folders of labelled images to a nucleus model with its card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ctc_imaging.errors import ModelError
from ctc_imaging.files import sha256_json
from ctc_imaging.segmentation.model import NucleusModel, read_nucleus_model, save_nucleus_model
from ctc_imaging.segmentation.network import NucleusNetwork
from ctc_training.nuclei.card import write_card
from ctc_training.nuclei.evaluate import measure
from ctc_training.nuclei.images import LabelledImage, held_out, read_dsb2018, read_sbsst265, simulate_images
from ctc_training.nuclei.train import NucleusSchedule, train_nuclei

ARCHITECTURE: dict[str, Any] = {"channels": [16, 32, 64, 96], "down": [1, 2, 3, 3], "up": [1, 2, 2]}
SIMULATED_SEEDS = range(1000, 1018)


def make_nucleus_model(
    out: Path,
    images: Path,
    schedule: NucleusSchedule,
    start: Path | None = None,
    everything: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> NucleusModel:
    """Train a nucleus network and write it to a folder with its card.

    Parameters
    ----------
    out : Path
        The model's folder, named after it.
    images : Path
        Holds ``dsb2018_fluo`` and ``sbsst265_cytospin``.
    schedule : NucleusSchedule
    start : Path, optional
        Folder of a model to go on from.
    everything : bool
        Train on the held-out sources too: such a model can't be measured on them.
    note : callable
        Gets a line now and then.

    Raises
    ------
    ModelError
        If a folder of images isn't there.
    """
    cultured, cytospins = read_sources(images)
    tested = [] if everything else [item for part in validation_part(cultured, cytospins) for item in part]
    if not everything:
        cultured, cytospins = training_part(cultured, cytospins)
    groups = [cultured, cytospins, simulate_images(SIMULATED_SEEDS)]
    before = _weights(start)

    def told(step: int, loss: float, _: NucleusNetwork) -> None:
        note(f"step {step} of {schedule.steps}: loss {loss:.4f}")

    network = train_nuclei(groups, schedule, before, ARCHITECTURE, told)
    training = {
        "schedule": asdict(schedule),
        "started_from": read_nucleus_model(start).hash if start else None,
        "held_out": sorted({item.source for item in tested}),
        "images": {"dsb2018_fluo": len(cultured), "sbsst265_cytospin": len(cytospins), "simulated": len(groups[2])},
        "images_sha256": sha256_json([_digest(item) for group in groups for item in group]),
    }
    # What the model before it did on images held out still stands beside one trained on everything.
    metrics = read_nucleus_model(start).description.get("metrics", {}) if start and everything else {}
    model = save_nucleus_model(out, network, ARCHITECTURE, {"training": training, "metrics": metrics})
    if tested:
        note(f"measuring on {len(tested)} images that were held out")
        model = save_nucleus_model(
            out, network, ARCHITECTURE, {"training": training, "metrics": measure(model, tested)}
        )
    write_card(model, out)
    return model


def read_sources(images: Path) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Read the real images: cultured and tissue nuclei, and cytospins.

    Raises
    ------
    ModelError
        If a folder isn't there.
    """
    for name in ("dsb2018_fluo", "sbsst265_cytospin"):
        if not (images / name / "index.csv").is_file():
            raise ModelError(images / name, "no labelled images here", "name the folder that holds them")
    return read_dsb2018(images / "dsb2018_fluo"), read_sbsst265(images / "sbsst265_cytospin")


def training_part(
    cultured: Sequence[LabelledImage], cytospins: Sequence[LabelledImage]
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Leave out what models are measured on: every fourth cluster, every third cytospin."""
    kept_back = held_out(cultured)
    tested = {item.name for item in cytospins[::3]}
    return [item for item in cultured if item.source not in kept_back], [
        item for item in cytospins if item.name not in tested
    ]


def validation_part(
    cultured: Sequence[LabelledImage], cytospins: Sequence[LabelledImage]
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Return what `training_part` leaves out."""
    kept_back = held_out(cultured)
    return [item for item in cultured if item.source in kept_back], list(cytospins[::3])


def _weights(start: Path | None) -> dict[str, Any] | None:
    if start is None:
        return None
    from safetensors.torch import load_file

    read_nucleus_model(start)
    return load_file(start / "weights.safetensors")


def _digest(item: LabelledImage) -> dict[str, Any]:
    return {
        "name": item.name,
        "shape": item.image.shape,
        "sum": float(np.sum(item.image, dtype=np.float64)),
        "nuclei": int(item.labels.max(initial=0)),
    }
