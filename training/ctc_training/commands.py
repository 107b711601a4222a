"""The commands that make and measure models: train, evaluate, train-nuclei."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result

EPOCHS = 12
STEPS = 9000
GENTLE_RATE = 8e-4


def register(app: options.App) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Example: ctc-imaging train --out models/mine --data training-data --seed 0")(train)
    app.command(epilog="Example: ctc-imaging evaluate --model default --settings standard,dense --slides 2")(evaluate)
    example = "ctc-imaging train-nuclei --images labelled --out models/nuclei"
    app.command("train-nuclei", epilog=f"Example: {example}")(train_nuclei)


def train(
    out: Path = Path("trained"),
    data: Path | None = None,
    epochs: int = EPOCHS,
    small: bool = False,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a model on simulated slides and write it to the folder --out, named after it.

    --data keeps the simulated crops for another time (about 13 GB), --epochs is how long to learn, and
    --small uses a few small slides, which proves the way and makes no useful model.
    """
    from ctc_training.build import make_model
    from ctc_training.plan import full_plan, small_plan
    from ctc_training.train import Schedule

    _within("--epochs", epochs, 1, 1000)
    plan = small_plan(seed or 0) if small else full_plan(seed or 0)
    crops_per_epoch = 1024 if small else Schedule.crops_per_epoch
    schedule = Schedule(epochs=epochs, crops_per_epoch=crops_per_epoch, seed=seed or 0)
    classifier = make_model(out, plan, schedule, data, note)
    facts = {"model": classifier.name, "folder": str(out), "hash": classifier.hash}
    result(facts, f"model {classifier.name} ({classifier.hash[:12]})\n{out}", as_json)


def evaluate(
    model: options.Model = None,
    settings: str = "standard",
    slides: int = 2,
    data: Path | None = None,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure a model on simulated slides that it has never seen.

    --settings are the simulator's, parted by commas, or all; --slides is how many of each, of 9,000
    leukocytes and 50 CTCs; --data keeps the crops for another time. --seed is
    the one the model was trained with: its test slides are then none of those it was made from.
    """
    from ctc_imaging.classification import load_model
    from ctc_training.evaluate import evaluate as measure
    from ctc_training.evaluate import outputs_on
    from ctc_training.plan import MOST_SLIDES, test_slides

    _within("--slides", slides, 1, MOST_SLIDES)
    recipes = test_slides(seed or 0, dict.fromkeys(_settings(settings), slides))
    classifier = load_model(model or "default")
    figures = {
        "model": classifier.name,
        "hash": classifier.hash,
        "data": "simulated",
        **measure(classifier, outputs_on(classifier, recipes, data)),
    }
    result(figures, "\n".join(_lines(figures)), as_json)


def train_nuclei(
    images: Path,
    out: Path = Path("nuclei"),
    start: Path | None = None,
    steps: int = STEPS,
    everything: bool = False,
    gentle: bool = False,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a nucleus network on labelled images and write it to the folder --out, named after it.

    --images holds dsb2018_fluo and sbsst265_cytospin; simulated blood is added. --start is the folder of a
    model to go on from, --steps is how long to learn (10,000 take about an hour on two cores), --gentle ends the
    training on crops nearer to the images as they are, and --everything trains on the held-out images too, on which
    such a model can't be measured.
    """
    from ctc_training.nuclei.build import make_nucleus_model
    from ctc_training.nuclei.train import NucleusSchedule

    _within("--steps", steps, 1, 1_000_000)
    rate = GENTLE_RATE if gentle else NucleusSchedule.learning_rate
    schedule = NucleusSchedule(steps=steps, learning_rate=rate, gentle=gentle, seed=seed or 0)
    model = make_nucleus_model(out, images, schedule, start, everything, note)
    facts = {"model": model.name, "folder": str(out), "hash": model.hash}
    result(facts, f"model {model.name} ({model.hash[:12]})\n{out}", as_json)


def _settings(text: str) -> list[str]:
    from ctc_imaging.errors import ConfigError
    from ctc_imaging.simulation import SETTINGS

    names = list(SETTINGS) if text == "all" else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise ConfigError("--settings", f"no setting is called {unknown[0]!r}", f"use all, or of {', '.join(SETTINGS)}")
    return names


def _within(option: str, value: int, least: int, most: int) -> None:
    from ctc_imaging.errors import ConfigError

    if not least <= value <= most:
        raise ConfigError(option, f"{value} is out of range", f"use {least} to {most}")


def _lines(figures: dict[str, Any]) -> list[str]:
    rows = {**figures["by_source"], "all": figures}
    return [f"model {figures['model']} on simulated slides"] + [
        f"{source}: {row['sensitivity']['value']:.1%} of {row['ctc']} CTCs found, "
        f"{row['false_ctc']} false CTCs among {row['leukocytes']} leukocytes"
        for source, row in rows.items()
    ]
