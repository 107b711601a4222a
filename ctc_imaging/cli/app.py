"""The application: its own commands, and those that plug-ins bring by entry point."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

import ctc_imaging
from ctc_imaging.cli import check, clonality, export, look, recurrence, review, run, simulate
from ctc_imaging.cli.output import note

GROUP = "ctc_imaging.commands"


def make_app() -> typer.Typer:
    """Make the application with all commands; each module's function `register` adds its own."""
    app = typer.Typer(
        name="ctc-imaging",
        help="Circulating tumour cells, from the slide scan to the risk of recurrence. For research use only.",
        epilog="Example: ctc-imaging demo --out demo",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    app.callback()(_root)
    for module in (run, look, review, export, simulate, recurrence, clonality, check):
        module.register(app)
    for entry_point in metadata.entry_points(group=GROUP):
        _plug_in(app, entry_point)
    return app


def subcommands(app: typer.Typer, name: str) -> typer.Typer:
    """Return the group of sub-commands of this name, so that a plug-in can add to it.

    Raises
    ------
    KeyError
        If there is none.
    """
    for group in app.registered_groups:
        if group.name == name and group.typer_instance is not None:
            return group.typer_instance
    raise KeyError(name)


def _plug_in(app: typer.Typer, entry_point: metadata.EntryPoint) -> None:
    try:
        register = entry_point.load()
    except ModuleNotFoundError:
        # Its extra isn't installed: then its commands aren't there either.
        return
    except (ImportError, AttributeError) as error:
        note(f"the commands of plug-in {entry_point.name} are left out ({error})")
        return
    register(app)


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Hold the options that stand before any command."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ctc-imaging {ctc_imaging.__version__}")
        raise typer.Exit
