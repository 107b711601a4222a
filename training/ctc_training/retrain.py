"""From reviewed runs to a promoted model in one go: training set, training, evaluation, promotion."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctc_imaging.classification.model import Classifier
from ctc_imaging.errors import ConfigError
from ctc_imaging.files import write_json
from ctc_imaging.model_folders import DESCRIPTION
from ctc_training.checkpoint import Epoch, checkpoint_of
from ctc_training.collect import Choice, make_dataset
from ctc_training.dataset_folder import Dataset, open_dataset
from ctc_training.fine_tune import Lesson, make_model_of
from ctc_training.gallery import write_gallery
from ctc_training.measure import measure_on_dataset
from ctc_training.plan import Plan, full_plan, small_plan
from ctc_training.promote import Promotion, promote
from ctc_training.schedule import FINE_TUNING, SMALL, Schedule, load_schedule
from ctc_training.start import NONE, Start, load_start

SIMULATED = ("none", "small", "full")
DEVICES = ("auto", "cpu", "cuda")

Note = Callable[[str], None]
Show = Callable[[int], AbstractContextManager[Callable[[Epoch], None]]]


@dataclass(frozen=True)
class Retrained:
    """What came out: the training set, the model as trained, its figures, and its promotion."""

    dataset: Dataset
    classifier: Classifier
    figures: dict[str, Any]
    promotion: Promotion


@dataclass(frozen=True)
class HowToLearn:
    """What `train` and `retrain` are told of learning.

    Attributes
    ----------
    config : Path, optional
        See `load_schedule`.
    start : str
        A model's name or folder, or ``none``.
    simulated : str
        One of `SIMULATED`: slides mixed in.
    cache : Path, optional
    seed : int, optional
    epochs : int, optional
        Both go before the configuration.
    device : str
        One of `DEVICES`.
    resume : bool
    """

    config: Path | None = None
    start: str = "default"
    simulated: str = "none"
    cache: Path | None = None
    seed: int | None = None
    epochs: int | None = None
    device: str = "auto"
    resume: bool = True

    def plan(self) -> Plan | None:
        """Return the simulated slides."""
        return simulated_plan(self.simulated, self.seed or 0)

    def start_model(self) -> Start | None:
        """Load the model to go on from."""
        return None if self.start == NONE else load_start(self.start)

    def schedule(self, start: Start | None) -> tuple[Schedule, dict[str, int]]:
        """Return how to learn, and the network's arguments."""
        default = FINE_TUNING if start else SMALL if self.simulated == "small" else Schedule()
        schedule, size = load_schedule(self.config, default, start.architecture if start else None)
        if self.seed is not None:
            schedule = replace(schedule, seed=self.seed)
        if self.epochs is not None:
            schedule = replace(schedule, epochs=self.epochs)
        return schedule, size


def retrain(
    choice: Choice,
    how: HowToLearn,
    out: Path,
    name: str,
    consensus: Path | None = None,
    current: str | None = None,
    note: Note = lambda line: None,
    show: Show = lambda epochs: nullcontext(lambda epoch: None),
) -> Retrained:
    """Make a training set, train, evaluate and promote.

    Parameters
    ----------
    choice : Choice
    how : HowToLearn
    out : Path
        Gets ``dataset/``, the model under its name, ``evaluation.json`` and ``errors.png``. What a call that was
        stopped has left there is gone on with.
    name : str
    consensus : Path, optional
        Whose part `test` decides; by default that of the training set, which the new model hasn't seen.
    current : str, optional
        See `promote`.
    note, show : callable
        Lines of text; what shows the epochs.

    Raises
    ------
    ModelError
        If the new model is worse than the current one; then nothing is installed.
    """
    folder = out / "dataset"
    if folder.exists() and how.resume:
        note(f"going on with the training set in {folder}; name another --out for a new one")
        dataset = open_dataset(folder)
    else:
        dataset = make_dataset(folder, choice, note)
    if (out / name / DESCRIPTION).is_file() and not checkpoint_of(out / name).is_file() and not how.resume:
        raise ConfigError(out / name, "a model is there already", "name another --out")
    classifier = train_on(out / name, dataset, how, note, show)
    measured = measure_on_dataset(classifier, dataset)
    write_json(out / "evaluation.json", {"model": classifier.name, "hash": classifier.hash, **measured.figures})
    write_gallery(out / "errors.png", measured.mistakes, f"{name} on its test part")
    promotion = promote(out / name, consensus or folder, name, current)
    return Retrained(dataset, classifier, measured.figures, promotion)


def train_on(folder: Path, dataset: Dataset, how: HowToLearn, note: Note, show: Show) -> Classifier:
    """Train a model on a training set."""
    start = how.start_model()
    schedule, size = how.schedule(start)
    lesson = Lesson(dataset, schedule, size, start, how.plan(), how.cache)
    checkpoint = ready_checkpoint(folder, how.resume, note)
    with show(schedule.epochs) as told:
        return make_model_of(folder, lesson, checkpoint, device_named(how.device), note, told)


def ready_checkpoint(folder: Path, resume: bool, note: Note) -> Path:
    """Return where the training's state lies; one of an earlier training is gone on with, or removed."""
    checkpoint = checkpoint_of(folder)
    if checkpoint.is_file() and not resume:
        checkpoint.unlink()
    if checkpoint.is_file():
        note("going on with a training that was stopped; --no-resume begins anew")
    return checkpoint


def simulated_plan(size: str, seed: int) -> Plan | None:
    """Return the simulated slides of a size.

    Raises
    ------
    ConfigError
        If there is no such size.
    """
    if size not in SIMULATED:
        raise ConfigError("--simulated", f"{size!r} isn't known", f"use one of {', '.join(SIMULATED)}")
    return None if size == NONE else small_plan(seed) if size == "small" else full_plan(seed)


def device_named(name: str) -> str:
    """Return where to compute, as torch calls it.

    Raises
    ------
    ConfigError
        If there is no such device.
    """
    import torch

    if name not in DEVICES:
        raise ConfigError("--device", f"{name!r} isn't known", f"use one of {', '.join(DEVICES)}")
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ConfigError("--device", "torch sees no GPU", "use cpu, or install a driver and a torch that fit")
    return "cuda" if there and name == "auto" else "cpu" if name == "auto" else name
