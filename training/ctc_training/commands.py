"""The commands that make training sets and models: dataset, train, retrain, evaluate, train-nuclei."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctc_imaging.cli import options
from ctc_imaging.cli import training_options as own
from ctc_imaging.cli.output import note, result
from ctc_training import model_commands

if TYPE_CHECKING:
    from ctc_training.retrain import HowToLearn, Show

STEPS = 9000
GENTLE_RATE = 8e-4


def register(app: options.App) -> None:
    """Add the commands to the command line."""
    app.command(epilog="Example: ctc-imaging dataset cells --run run --unreviewed 200")(dataset)
    app.command(epilog="Example: ctc-imaging train --data cells --out models/mine --seed 0")(train)
    app.command(epilog="Example: ctc-imaging retrain run --name mine")(retrain)
    app.command(epilog="Example: ctc-imaging evaluate --model default --settings standard,dense --slides 2")(evaluate)
    model_commands.register(app)
    example = "ctc-imaging train-nuclei --images labelled --out models/nuclei"
    app.command("train-nuclei", epilog=f"Example: {example}")(train_nuclei)


def dataset(
    out: own.NewDataset,
    run: own.Runs = None,
    crops: own.Crops = None,
    simulated: own.Simulated = "none",
    split_by: own.SplitBy = "batch",
    frozen: own.Frozen = False,
    unreviewed: own.Unreviewed = 0,
    without: own.Without = None,
    cache: own.Cache = None,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a training set of reviewed runs, labelled crops and simulated slides.

    It has three parts, train, calibration and test, which share no patient and no batch.
    """
    from ctc_training.collect import Choice, make_dataset
    from ctc_training.retrain import simulated_plan
    from ctc_training.split import SPLITS

    _one_of("--split-by", split_by, SPLITS)
    _within("--unreviewed", unreviewed, 0, 1_000_000)
    plan = simulated_plan(simulated, seed or 0)
    choice = Choice(tuple(run or ()), tuple(crops or ()), plan, split_by, frozen, unreviewed, without, seed or 0, cache)
    made = make_dataset(out, choice, note)
    parts = made.facts["parts"]
    lines = [
        f"{part}: {counts['cells']} cells, {counts['ctc']} CTCs, {counts['patients']} patients"
        for part, counts in parts.items()
    ]
    facts = {"dataset": str(out), "sha256": made.hash, "parts": parts, "left_out": made.facts["left_out"]}
    result(facts, "\n".join([*lines, str(out)]), as_json)


def train(
    out: own.Out = Path("trained"),
    data: own.Data = None,
    simulated: own.Simulated | None = None,
    nuclei_images: own.NucleiImages = None,
    cache: own.Cache = None,
    config: own.TrainConfig = None,
    start: own.Start = None,
    epochs: own.Epochs = None,
    device: own.Device = "auto",
    resume: own.Resume = True,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a model and write it to the folder --out, named after it.

    On a training set with --data, going on from a model; simulated slides are mixed in with --simulated. Without
    --data on simulated slides only, from scratch: small proves the way and makes no useful model. The shipped model
    was made by --simulated full with --nuclei-images, whose real nuclei lend shape and chromatin to simulated cells.
    After a stop the same command goes on.
    """
    from ctc_training.retrain import HowToLearn

    if epochs is not None:
        _within("--epochs", epochs, 1, 10_000)
    size = simulated or ("none" if data else "full")
    begin = start or ("default" if data else "none")
    how = HowToLearn(config, begin, size, cache, seed, epochs, device, resume)
    classifier = _train(out, data, how, nuclei_images)
    facts = {"model": classifier.name, "folder": str(out), "hash": classifier.hash}
    result(facts, f"model {classifier.name} ({classifier.hash[:12]})\n{out}", as_json)


def retrain(
    runs: own.ReviewedRuns,
    name: own.Name,
    crops: own.Crops = None,
    simulated: own.Simulated = "small",
    split_by: own.SplitBy = "batch",
    unreviewed: own.Unreviewed = 100,
    consensus: own.OwnConsensus = None,
    current: own.Current = None,
    out: own.Work = None,
    cache: own.Cache = None,
    config: own.TrainConfig = None,
    start: own.Start = None,
    device: own.Device = "auto",
    resume: own.Resume = True,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """From reviewed runs to a model in use: dataset, train, evaluate and promote in a row.

    The model is refused, and nothing changed, if it is worse than the current one. After a stop the same command
    goes on.
    """
    from ctc_training.collect import Choice
    from ctc_training.retrain import HowToLearn
    from ctc_training.retrain import retrain as make
    from ctc_training.split import SPLITS

    _one_of("--split-by", split_by, SPLITS)
    _within("--unreviewed", unreviewed, 0, 1_000_000)
    choice = Choice(tuple(runs), tuple(crops or ()), None, split_by, False, unreviewed, consensus, seed or 0)
    how = HowToLearn(config, start or "default", simulated, cache, seed, None, device, resume)
    work = out or Path(f"{name}-training")
    made = make(choice, how, work, name, consensus, current, note, _shower())
    model_commands.tell_promotion(made.promotion, {"work": str(work), "figures": made.figures}, as_json)


def evaluate(
    model: options.Model = None,
    data: own.Data = None,
    settings: own.Settings = "standard",
    slides: own.Slides = 2,
    gallery: own.Gallery = None,
    cache: own.Cache = None,
    seed: options.Seed = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure a model on cells that it has never seen.

    On the test part of a training set with --data; else on simulated slides of --settings, --slides of each. --seed is
    then the one the model was trained with: its test slides are none of those it was made from.
    """
    from ctc_imaging.classification import read_model
    from ctc_training.dataset_folder import open_dataset
    from ctc_training.gallery import write_gallery
    from ctc_training.measure import measure_on_dataset, measure_on_slides
    from ctc_training.plan import MOST_SLIDES, test_slides
    from ctc_training.promote import check_unseen
    from ctc_training.start import model_folder

    _within("--slides", slides, 1, MOST_SLIDES)
    folder = model_folder(model or "default")
    if data is not None:
        cells, classifier = open_dataset(data), read_model(folder)
        check_unseen(folder, classifier, cells)
        measured, on = measure_on_dataset(classifier, cells), f"the test part of {data.name}"
    else:
        recipes = test_slides(seed or 0, dict.fromkeys(_settings(settings), slides))
        classifier = read_model(folder)
        measured, on = measure_on_slides(classifier, recipes, cache), "simulated slides"
    if gallery is not None:
        write_gallery(gallery, measured.mistakes, f"{classifier.name} on {on}")
    source = "simulated" if data is None else {"dataset": data.name, "sha256": cells.hash}
    figures = {"model": classifier.name, "hash": classifier.hash, "data": source, **measured.figures}
    result(figures, "\n".join(_lines(figures, on)), as_json)


def train_nuclei(
    images: own.Images,
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


def _train(out: Path, data: Path | None, how: HowToLearn, nuclei_images: Path | None) -> Any:
    from ctc_imaging.errors import ConfigError
    from ctc_training.build import make_model
    from ctc_training.dataset_folder import open_dataset
    from ctc_training.retrain import device_named, ready_checkpoint, train_on
    from ctc_training.textures import read_bank

    device, plan = device_named(how.device), how.plan()
    bank = None if nuclei_images is None else read_bank(nuclei_images)
    if data is not None:
        return train_on(out, open_dataset(data), how, note, _shower())
    if plan is None:
        raise ConfigError("--simulated", "there is nothing to learn from", "use small or full, or name --data")
    start = how.start_model()
    schedule, size = how.schedule(start)
    checkpoint = ready_checkpoint(out, how.resume, note)
    with _shower()(schedule.epochs) as told:
        return make_model(
            out,
            plan,
            schedule,
            how.cache,
            note,
            architecture=size,
            start=start,
            bank=bank,
            checkpoint=checkpoint,
            device=device,
            told=told,
        )


def _shower() -> Show:
    from ctc_training.training_progress import show_epochs

    return lambda epochs: show_epochs(sys.stderr, epochs, note)


def _settings(text: str) -> list[str]:
    from ctc_imaging.errors import ConfigError
    from ctc_imaging.simulation import SETTINGS

    names = list(SETTINGS) if text == "all" else [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in SETTINGS]
    if unknown:
        raise ConfigError("--settings", f"no setting is called {unknown[0]!r}", f"use all, or of {', '.join(SETTINGS)}")
    return names


def _one_of(option: str, value: str, words: tuple[str, ...]) -> None:
    from ctc_imaging.errors import ConfigError

    if value not in words:
        raise ConfigError(option, f"{value!r} isn't known", f"use one of {', '.join(words)}")


def _within(option: str, value: int, least: int, most: int) -> None:
    from ctc_imaging.errors import ConfigError

    if not least <= value <= most:
        raise ConfigError(option, f"{value} is out of range", f"use {least} to {most}")


def _lines(figures: dict[str, Any], on: str) -> list[str]:
    rows = {**figures["by_source"], "all": figures}
    return [f"model {figures['model']} on {on}"] + [
        f"{source}: {_share(row['sensitivity']['value'])} of {row['ctc']} CTCs found, "
        f"{row['false_ctc']} false CTCs among {row['leukocytes']} leukocytes"
        for source, row in rows.items()
    ]


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"
