"""The commands `recurrence fit | predict | validate | leadtime | decide | plan`."""

from __future__ import annotations

import importlib

import typer

from ctc_imaging.cli import options

_EXAMPLES = {
    "fit": "ctc-imaging recurrence fit run --json",
    "predict": "ctc-imaging recurrence predict run --patient P007",
    "validate": "ctc-imaging recurrence validate run --landmarks 90,180 --horizons 730",
    "leadtime": "ctc-imaging recurrence leadtime run",
    "decide": "ctc-imaging recurrence decide run --scheme scheme.yaml",
    "plan": "ctc-imaging recurrence plan --hazard-ratio 0.6",
}


def register(app: options.App) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="From counts and follow-up to the risk of recurrence.", epilog=f"Example: {_EXAMPLES['fit']}"
    )
    for name, example in _EXAMPLES.items():
        try:
            module = importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError:
            continue
        group.command(name, epilog=f"Example: {example}")(getattr(module, name))
    app.add_typer(group, name="recurrence")
