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
        subcommand_metavar="RUN --reader NAME | import | export | set | agreement | status | sign | share",
        help="Review cells, in a window or as a table; read blinded, compare readers, sign.",
        epilog="Example: ctc-imaging review run --reader 'A. Reader'",
    )
    example = "Example: ctc-imaging review {} run reviews.csv"
    review.command(WINDOW, epilog="Example: ctc-imaging review run --reader 'A. Reader' --blinded")(open_window)
    review.command("import", epilog=example.format("import"))(import_table)
    review.command("export", epilog=example.format("export"))(export_table)
    review.command("set", epilog="Example: ctc-imaging review set run round-2 --rejected 300")(make_reading_set)
    review.command("agreement", epilog="Example: ctc-imaging review agreement run --set blinded")(compare_readers)
    review.command("status", epilog="Example: ctc-imaging review status run")(show_status)
    review.command("sign", epilog="Example: ctc-imaging review sign run S1 --reader 'A. Reader'")(sign)
    review.command("share", epilog="Example: ctc-imaging review share run postgresql://ctc@server/reviews")(share)
    app.add_typer(review, name="review")


def open_window(
    run: options.Run,
    reader: options.Reader,
    blinded: options.Blinded = False,
    order: options.Order = "doubt",
    set_name: options.SetName = "",
    round_number: options.Round = 1,
    adjudicate: options.Adjudicate = False,
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


def make_reading_set(
    run: options.Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name; with test in front calls count for nothing.")],
    rejected: Annotated[int, typer.Option(metavar="N", min=0, help="Cells drawn from what the model rejected.")] = 200,
    cells: Annotated[Path | None, typer.Option(metavar="FILE", help="Just the cells of this table instead.")] = None,
    seed: options.Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Make a set of cells for blinded reading: all candidates, and a weighted sample of what the model rejected."""
    from ctc_imaging.readings import cells_of_table, make_set, set_path
    from ctc_imaging.store.run_folder import RunFolder

    folder = RunFolder(run)
    folder.read()
    made = make_set(folder, name, rejected, seed or 0, cells_of_table(cells) if cells else None)
    kinds = made.cells["kind"].value_counts().to_dict()
    words = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    facts = {"run": run, "set": name, "cells": len(made.cells), "kinds": kinds, "file": set_path(folder, name)}
    result(facts, f"{words}; read it with ctc-imaging review {run} --reader NAME --set '{name}'", as_json)


def compare_readers(
    run: options.Run,
    set_name: options.SetName = "blinded",
    as_json: options.AsJson = False,
) -> None:
    """Compare blinded readers: kappa, agreement on CTCs, count differences, and CTCs that the model may have missed."""
    from ctc_imaging.reader_agreement import agreement_lines, agreement_of_readers
    from ctc_imaging.store.run_folder import RunFolder

    facts = agreement_of_readers(RunFolder(run), set_name)
    result({"run": run, **facts}, "\n".join(agreement_lines(facts)), as_json)


def show_status(run: options.Run, as_json: options.AsJson = False) -> None:
    """Say of every sample how far its review has come, and who signed it."""
    import json

    from ctc_imaging.recount import recount
    from ctc_imaging.sign_off import SIGN_OFF_CSV, status_lines
    from ctc_imaging.store.run_folder import RunFolder

    table = recount(RunFolder(run)).sign_off
    samples = json.loads(table.to_json(orient="records"))
    result({"run": run, "samples": samples, "file": run / SIGN_OFF_CSV}, "\n".join(status_lines(table)), as_json)


def sign(
    run: options.Run,
    sample: Annotated[str, typer.Argument(metavar="SAMPLE", help="As in counts.csv.", show_default=False)],
    reader: options.Reader,
    as_json: options.AsJson = False,
) -> None:
    """Sign a sample; from then on its calls change by amendments only."""
    from ctc_imaging.recount import recount
    from ctc_imaging.sign_off import sign_sample
    from ctc_imaging.store.run_folder import RunFolder

    signature = sign_sample(RunFolder(run), sample, reader)
    recount(RunFolder(run))
    facts = {"run": run, "sample": sample, "signed_by": signature.reader, "signed_on": signature.time}
    text = f"{sample} signed by {signature.reader} with {signature.counts['ctc']} CTCs"
    result({**facts, "counts": dict(signature.counts)}, text, as_json)


def share(
    run: options.Run,
    url: Annotated[str, typer.Argument(metavar="URL", help="Like postgresql://user@host/database.")],
    as_json: options.AsJson = False,
) -> None:
    """Move the run's reviews to a PostgreSQL database, for several readers at once; the password is PGPASSWORD."""
    from ctc_imaging.store.address import parse_url
    from ctc_imaging.store.ledger import Ledger
    from ctc_imaging.store.run_folder import RunFolder

    folder = RunFolder(run)
    folder.read()
    address = parse_url(url)
    with Ledger(folder.ledger) as ledger:
        moved = ledger.share(address)
    result({"run": run, "moved": moved, "table": address.table}, f"{moved} rows moved to {address.shown}", as_json)
