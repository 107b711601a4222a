"""The command verify, which checks a run."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result

if TYPE_CHECKING:
    from ctc_imaging.verify import Finding


def register(app: options.App) -> None:
    """Add the command."""
    app.command(epilog="Example: ctc-imaging verify run")(verify)


def verify(run: options.Run, as_json: options.AsJson = False) -> None:
    """Hash everything in a run again and count anew.

    One line for each fault; nothing is changed. Exit code 1 if there are faults.
    """
    from ctc_imaging.progress import show_progress
    from ctc_imaging.verify import verify_run

    with show_progress(sys.stderr, "slides verified") as progress:
        checked = verify_run(run, progress)
    for finding in checked.notes:
        note(str(finding))
    faults = [str(finding) for finding in checked.faults]
    facts = {
        "run": checked.run,
        "slides": checked.slides,
        "faults": [_plain(finding) for finding in checked.faults],
        "notes": [_plain(finding) for finding in checked.notes],
    }
    summary = f"{checked.slides} slides verified, {len(faults)} faults, {len(checked.notes)} notes"
    result(facts, "\n".join([*faults, summary]), as_json)
    if faults:
        raise typer.Exit(1)


def _plain(finding: Finding) -> dict[str, str]:
    return {"where": str(finding.where), "fault": finding.fault, "remedy": finding.remedy}
