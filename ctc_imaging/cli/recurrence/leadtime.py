"""The command recurrence leadtime: how much earlier than imaging CTCs turn positive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result
from ctc_imaging.cli.recurrence import tables
from ctc_imaging.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from ctc_imaging.recurrence.lead_time import LeadTimes
    from ctc_imaging.report.source import Run

Positive = Annotated[
    str | None, typer.Option("--positive", metavar="COL", help="Tables: 1 where the sample was positive, 0 where not.")
]
LastNegative = Annotated[
    str | None, typer.Option("--last-negative", metavar="COL", help="Tables: last scan free of relapse, since surgery.")
]
FirstPositive = Annotated[
    str | None,
    typer.Option("--first-positive", metavar="COL", help="Tables: scan that found it; empty if none did."),
]
CutOffName = Annotated[
    str | None,
    typer.Option("--cutoff", metavar="NAME", help="A published cut-off, like guo-2018; else the panel's."),
]
Marker = Annotated[str, typer.Option(metavar="NAME", help="RUN: the marker of markers.csv to compare with.")]
PositiveFrom = Annotated[
    float, typer.Option(metavar="X", help="RUN: from which value it is positive, in the table's unit.")
]
Horizon = Annotated[float, typer.Option(metavar="DAYS", min=1, help="Relapses by this day since surgery are meant.")]
Window = Annotated[
    float, typer.Option(metavar="DAYS", min=1, help="An alarm is false if no relapse follows for so long.")
]
PromptedDays = Annotated[
    float, typer.Option(metavar="DAYS", help="RUN: an early scan so soon after a positive sample counts as prompted.")
]


def leadtime(
    run: tables.Run = None,
    long: tables.Long = None,
    events: tables.Events = None,
    id: tables.Id = None,
    time: tables.Time = None,
    positive: Positive = None,
    last_negative: LastNegative = None,
    first_positive: FirstPositive = None,
    cutoff: CutOffName = None,
    marker: Marker = "AFP",
    positive_from: PositiveFrom = 20.0,
    horizon: Horizon = 730.0,
    window: Window = 365.0,
    prompted_days: PromptedDays = 30.0,
    as_json: options.AsJson = False,
) -> None:
    """Tell how much earlier than imaging CTC positivity speaks, corrected for the visits of both.

    Times of tables are days since surgery.
    """
    from ctc_imaging.recurrence.lead_time.words import lead_facts, lead_lines

    columns = {"--long": long, "--events": events, "--id": id, "--time": time, "--positive": positive}
    columns |= {"--last-negative": last_negative, "--first-positive": first_positive}
    simulated = False
    told: list[str] = []
    if run is not None:
        if given := [name for name, value in columns.items() if value is not None]:
            raise ConfigError(given[0], "is for tables, and a RUN is given", "leave one of them out")
        settings = {"marker": marker, "positive_from": positive_from, "prompted_days": prompted_days}
        found, simulated, told = _of_run(run, cutoff, horizon_days=horizon, window_days=window, **settings)
    else:
        if missing := [name for name, value in columns.items() if value is None]:
            raise ConfigError(missing[0], "is missing", f"give a RUN, or all of {', '.join(columns)}")
        if cutoff is not None:
            raise ConfigError("--cutoff", "is for a RUN", f"{positive} already says which samples are positive")
        found = _of_tables({name: str(value) for name, value in columns.items()}, horizon, window)
    told += found.notes
    if simulated:
        told.append("SIMULATED patients: no figure here says anything about a real one.")
    for line in told:
        note(line)
    result({"simulated": simulated, **lead_facts(found), "notes": told}, "\n".join(lead_lines(found)), as_json)


def _of_run(run: Path, cutoff: str | None, **settings: object) -> tuple[LeadTimes, bool, list[str]]:
    from ctc_imaging.clinical import load_imaging, load_markers
    from ctc_imaging.recurrence.lead_time import lead_times
    from ctc_imaging.report.source import read_run
    from ctc_imaging.report.survival import is_separate

    timeline, clinical = tables.run_tables(run)
    source = read_run(run)
    separate = is_separate(source)
    places = {
        name: source.folder.survival / f"{name}.csv" if separate else source.folder.table(name)
        for name in ("imaging", "markers")
    }
    if not places["imaging"].is_file():
        raise ConfigError(run, "knows nothing of scans", "run it with --imaging")
    markers = load_markers(places["markers"]) if places["markers"].is_file() else None
    timeline, rule, told = _status(timeline, source, cutoff)
    if markers is None:
        told.append("Without a table of markers (--markers) CTCs can't be compared with another marker.")
    found = lead_times(timeline, clinical, load_imaging(places["imaging"]), markers, rule=rule, **settings)  # type: ignore[arg-type]
    return found, source.simulated or separate, told


def _status(timeline: pd.DataFrame, source: Run, name: str | None) -> tuple[pd.DataFrame, str, list[str]]:
    """Read the status by the panel's cut-off, or by a published one, and say which in words."""
    own = source.cutoff
    if name is None:
        if own is None:
            raise ConfigError(source.folder.path, "its panel has no cut-off", "name a published one by --cutoff")
        return timeline, f"{own['ctc']} CTC or more in {own['volume_ml']:g} mL ({own['assay']}, {own['source']})", []
    import pandas as pd

    from ctc_imaging.recurrence.cutoffs import usable_cutoff
    from ctc_imaging.recurrence.dynamics import with_cutoff

    volumes = pd.to_numeric(timeline["blood_volume_ml"]).dropna().tolist()
    chosen, mark = usable_cutoff(name, volumes, own["assay"] if own else None)
    rule = f"{chosen.ctc} CTC or more in {chosen.volume_ml:g} mL ({chosen.assay}, {chosen.source})"
    return with_cutoff(timeline, chosen), rule, [f"The cut-off {name} is used with a mark: {mark}."] if mark else []


def _of_tables(names: dict[str, str], horizon_days: float, window_days: float) -> LeadTimes:
    import numpy as np
    import pandas as pd

    from ctc_imaging.recurrence.lead_time import LeadTimes, marker_lead
    from ctc_imaging.tables import read_table

    who = names["--id"]
    long = read_table(Path(names["--long"]), (who, names["--time"], names["--positive"]))
    events = read_table(Path(names["--events"]), (who, names["--last-negative"], names["--first-positive"]))
    # A sample without a time or a result tells nothing.
    samples = pd.DataFrame(
        {
            "patient_id": [row.required(who) for row in long.rows],
            "day": [row.number(names["--time"]) for row in long.rows],
            "positive": [row.number(names["--positive"]) for row in long.rows],
        }
    ).dropna()
    intervals = pd.DataFrame(
        {
            "left": [row.number(names["--last-negative"]) for row in events.rows],
            "right": [row.number(names["--first-positive"]) for row in events.rows],
        },
        index=pd.Index([row.required(who) for row in events.rows], name="patient_id"),
        dtype=float,
    ).fillna({"left": 0.0, "right": np.inf})
    _check(samples, intervals, names)
    ctc = marker_lead("CTC", names["--positive"], samples, intervals, horizon_days, window_days)
    return LeadTimes(ctc, None, None, (), horizon_days, ())


def _check(samples: pd.DataFrame, intervals: pd.DataFrame, names: dict[str, str]) -> None:
    from ctc_imaging.errors import TableError

    if not samples["positive"].isin([0.0, 1.0]).all():
        raise TableError(names["--long"], f"{names['--positive']} isn't 0 or 1 everywhere", "write 1 where positive")
    if intervals.index.has_duplicates:
        twice = intervals.index[intervals.index.duplicated()][0]
        raise TableError(names["--events"], f"{twice} is there twice", "give each one row")
    wrong = (intervals["left"] < 0) | (intervals["left"] >= intervals["right"])
    if wrong.any():
        fault = f"relapse of {intervals.index[wrong][0]} isn't after the last scan free of it"
        raise TableError(names["--events"], fault, "correct the one or the other")
