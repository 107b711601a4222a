"""The commands `recurrence fit | predict | validate | leadtime | decide | plan`."""

from __future__ import annotations

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.recurrence.decide import decide
from ctc_imaging.cli.recurrence.fit import fit
from ctc_imaging.cli.recurrence.leadtime import leadtime
from ctc_imaging.cli.recurrence.plan import plan
from ctc_imaging.cli.recurrence.predict import predict
from ctc_imaging.cli.recurrence.validate import validate

_EXAMPLE = "Example: ctc-imaging recurrence"


def register(app: options.App) -> None:
    """Add the commands."""
    words = "From counts and follow-up to the risk of recurrence."
    group = typer.Typer(help=words, epilog=f"{_EXAMPLE} fit run --json")
    group.command(epilog=f"{_EXAMPLE} fit run --json")(fit)
    group.command(epilog=f"{_EXAMPLE} predict run --patient P007")(predict)
    group.command(epilog=f"{_EXAMPLE} validate run --horizons 730")(validate)
    group.command(epilog=f"{_EXAMPLE} leadtime run")(leadtime)
    group.command(epilog=f"{_EXAMPLE} decide run --scheme scheme.yaml")(decide)
    group.command(epilog=f"{_EXAMPLE} plan --hazard-ratio 0.6")(plan)
    app.add_typer(group, name="recurrence")
