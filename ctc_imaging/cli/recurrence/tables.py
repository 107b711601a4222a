"""Where the recurrence commands take their data from: a RUN, or any longitudinal table beside any event table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctc_imaging.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.recurrence.follow_up import FollowUp

Run = Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A folder made by run; or give tables by options.")]
Long = Annotated[Path | None, typer.Option("--long", metavar="F", help="Table with one row a measurement.")]
Events = Annotated[Path | None, typer.Option("--events", metavar="F", help="Table with one row a subject.")]
Id = Annotated[str | None, typer.Option("--id", metavar="COL", help="The subject, in both tables.")]
Time = Annotated[str | None, typer.Option("--time", metavar="COL", help="Time of a measurement.")]
EventTime = Annotated[str | None, typer.Option("--event-time", metavar="COL", help="End of follow-up, same clock.")]
Event = Annotated[str | None, typer.Option("--event", metavar="COL", help="1 if follow-up ended with the event.")]


def load(
    run: Path | None,
    long: Path | None,
    events: Path | None,
    id: str | None,
    time: str | None,
    event_time: str | None,
    event: str | None,
) -> FollowUp:
    """Read the follow-up that the options name.

    Raises
    ------
    ConfigError
        If neither a run nor all of the tables' options are given, or both.
    """
    named = {"--long": long, "--events": events, "--id": id, "--time": time}
    named |= {"--event-time": event_time, "--event": event}
    if run is not None:
        if given := [name for name, value in named.items() if value is not None]:
            raise ConfigError(given[0], "is for tables, and a RUN is given", "leave one of them out")
        from ctc_imaging.recurrence.follow_up import follow_up_of_run

        return follow_up_of_run(*run_tables(run))
    if missing := [name for name, value in named.items() if value is None]:
        raise ConfigError(missing[0], "is missing", f"give a RUN, or all of {', '.join(named)}")
    from ctc_imaging.recurrence.follow_up import follow_up_of_tables

    columns = {"id": id or "", "time": time or "", "event_time": event_time or "", "event": event or ""}
    return follow_up_of_tables(Path(long or ""), Path(events or ""), **columns)


def run_tables(run: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a run's timeline and clinical table; those of RUN/survival where it has them.

    Raises
    ------
    RunError
        If the folder isn't a run.
    ConfigError
        If the run was given no clinical table.
    """
    from ctc_imaging.report.source import read_run
    from ctc_imaging.report.survival import survival_tables

    timeline, clinical = survival_tables(read_run(run))
    if clinical is None:
        raise ConfigError(run, "knows nothing of recurrence", "run it with --clinical")
    return timeline, clinical
