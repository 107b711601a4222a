"""The command review: the window of the napari plug-in, or reviews as a table without any window."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result
from ctc_imaging.errors import ConfigError

# The sub-command of `review RUN`; a plug-in that registers one of this name brings the window.
WINDOW = "open"

Source = Annotated[Path, typer.Argument(metavar="FILE", help="Reviews as .csv or .parquet.", show_default=False)]
Target = Annotated[Path, typer.Argument(metavar="FILE", help="A .csv or .parquet to write.", show_default=False)]


class _WindowByDefault(TyperGroup):
    """Takes `review RUN ...` for `review open RUN ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Name the window where no sub-command is named."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [WINDOW, *args]
        return super().parse_args(ctx, args)


def register(app: options.App) -> None:
    """Add the commands."""
    review = typer.Typer(
        cls=_WindowByDefault,
        subcommand_metavar="RUN --reader NAME | import RUN FILE | export RUN FILE",
        help="Review cells, in a window or as a table.",
        epilog="Example: ctc-imaging review run --reader 'A. Reader'",
    )
    example = "Example: ctc-imaging review {} run reviews.csv"
    review.command(WINDOW, epilog="Example: ctc-imaging review run --reader 'A. Reader' --blinded")(open_window)
    review.command("import", epilog=example.format("import"))(import_table)
    review.command("export", epilog=example.format("export"))(export_table)
    app.add_typer(review, name="review")


def open_window(
    run: options.Run, reader: options.Reader, blinded: options.Blinded = False, order: options.Order = "doubt"
) -> None:
    """Open the review queue; "open" can be left out."""
    raise ConfigError("review", "the review window isn't installed", "pip install 'ctc-imaging[review]'")


def import_table(run: options.Run, file: Source, as_json: options.AsJson = False) -> None:
    """Add a table's reviews to the run, all or none."""
    from ctc_imaging.store.reviews import import_reviews
    from ctc_imaging.store.run_folder import RunFolder

    imported = import_reviews(RunFolder(run), file)
    for line in imported.notes:
        note(line)
    facts = {"run": run, "added": imported.added, "known": imported.known, "notes": list(imported.notes)}
    text = f"{imported.added} reviews added, {imported.known} known before; ctc-imaging counts {run} counts with them"
    result(facts, text, as_json)


def export_table(run: options.Run, file: Target, as_json: options.AsJson = False) -> None:
    """Write the run's reviews as a table."""
    from ctc_imaging.store.reviews import export_reviews
    from ctc_imaging.store.run_folder import RunFolder

    count = export_reviews(RunFolder(run), file)
    result({"run": run, "reviews": count, "file": file}, f"{count} reviews\n{file}", as_json)
