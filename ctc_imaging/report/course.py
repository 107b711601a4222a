"""One patient's course as a picture with its data: counts, risk, imaging, treatment and other markers on one axis."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ctc_imaging.report.downloads import csv_link
from ctc_imaging.report.figures import to_svg
from ctc_imaging.report.patients import event_days
from ctc_imaging.report.risk_chart import Course, draw_course
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import interval, number, percent, plural

_TICKS = {0.0: "0", 91.3: "3 mo", 182.6: "6 mo", 365.25: "1 y", 547.9: "1½ y", 730.0: "2 y", 1095.75: "3 y"}
_VALUES = {"day": "time", "ctc_per_ml": "value", "ctc_per_ml_low": "low", "ctc_per_ml_high": "high"}
NO_RISKS = pd.DataFrame({name: pd.Series(dtype=float) for name in ("time", "risk", "low", "high")})
MARKERS_SHOWN = 3


def course_figure(
    run: Run, patient: str, name: str, risks: pd.DataFrame = NO_RISKS, usual: pd.DataFrame | None = None
) -> tuple[str, str]:
    """Draw a patient's course.

    Parameters
    ----------
    run : Run
    patient : str
    name : str
        Unique on the page, and fit for an address.
    risks : DataFrame
        As of `recurrence.joint.prediction.updates`; empty where there are none.
    usual : DataFrame or None
        `time`, `risk`: mean risk of all patients.

    Returns
    -------
    svg, csv : str
        The picture, and a link with everything that is on it.
    """
    course = course_of(run, patient, risks, usual)
    return to_svg(draw_course(course), name, _describe(course, patient)), csv_link(course_table(course))


def course_of(run: Run, patient: str, risks: pd.DataFrame, usual: pd.DataFrame | None) -> Course:
    """Gather what the picture of a patient's course shows."""
    horizon = float(run.folder.settings().horizon_days)
    series = run.timeline[run.timeline["patient_id"] == patient].assign(day=lambda rows: rows["day"].astype(float))
    done = series[(series["visit_status"] == "done") & series["ctc_per_ml"].notna()].sort_values("day", kind="stable")
    gaps = series.loc[series["visit_status"].isin(["missed", "not_assessable"]), "day"].dropna()
    events = {name: day for name, day in event_days(run.clinical, patient).items() if name != "last_contact"}
    last = float(risks["time"].max()) if len(risks) else None
    return Course(
        values=done.rename(columns=_VALUES)[[*_VALUES.values(), "status"]].astype(
            dict.fromkeys(_VALUES.values(), float)
        ),
        risks=risks,
        value_name="CTC per mL",
        time_name="Time since surgery" if run.clinical is not None else "Time since the first sample",
        horizon=horizon,
        horizon_name=f"by {interval(horizon)}",
        cutoff=run.cutoff["ctc"] / run.cutoff["volume_ml"] if run.cutoff else None,
        usual=None if usual is None or last is None else usual[usual["time"] <= last + 60],
        ticks=_TICKS,
        cutoff_name=cutoff_name(run),
        known="" if last is None else f"as known on day {last:.0f}",
        events=events,
        gaps=list(gaps),
        scans=scans_of(run, patient),
        treatments=treatments_of(run, patient),
        others=markers_of(run, patient),
    )


def cutoff_name(run: Run) -> str:
    """The cut-off with its volume, as ``cut-off: 2 CTCs in 5 mL``."""
    return f"cut-off: {plural(run.cutoff['ctc'], 'CTC')} in {number(run.cutoff['volume_ml'])} mL" if run.cutoff else ""


def course_table(course: Course) -> pd.DataFrame:
    """Lay everything on the picture out in rows: `what`, `day`, `value`, `low`, `high`, `detail`."""
    rows: list[dict[str, Any]] = [
        {"what": "ctc_per_ml", "day": row["time"], "value": row["value"], "low": row["low"], "high": row["high"],
         "detail": row["status"]}
        for row in course.values.to_dict("records")
    ]  # fmt: skip
    rows += [
        {"what": f"risk by day {course.horizon:g}", "day": row["time"], "value": row["risk"], "low": row["low"],
         "high": row["high"]}
        for row in course.risks.to_dict("records")
    ]  # fmt: skip
    if course.usual is not None:
        rows += [
            {"what": "mean risk of all", "day": r["time"], "value": r["risk"]} for r in course.usual.to_dict("records")
        ]
    rows += [{"what": "visit without a count", "day": day} for day in course.gaps]
    rows += [{"what": name, "day": day} for name, day in course.events.items()]
    if course.scans is not None:
        rows += [{"what": "imaging", "day": r["time"], "detail": r["result"]} for r in course.scans.to_dict("records")]
    for name, begin, end in course.treatments:
        rows += [
            {"what": "treatment begins", "day": begin, "detail": name},
            {"what": "ends", "day": end, "detail": name},
        ]
    for name, table in course.others.items():
        rows += [{"what": name, "day": row["time"], "value": row["value"]} for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=["what", "day", "value", "low", "high", "detail"])


def scans_of(run: Run, patient: str) -> pd.DataFrame | None:
    """`time`, `modality`, `result` of a patient's scans by day since surgery; None without any."""
    own = _since_surgery(run, run.scans, patient, "imaging_date")
    return own[["time", "modality", "result"]] if len(own) else None


def markers_of(run: Run, patient: str) -> dict[str, pd.DataFrame]:
    """`time`, `value` of each further marker of a patient, AFP first."""
    own = _since_surgery(run, run.markers, patient, "date")
    names = sorted(own["marker"].unique(), key=lambda name: (str(name).upper() != "AFP", str(name)))
    return {str(name): own.loc[own["marker"] == name, ["time", "value"]] for name in names[:MARKERS_SHOWN]}


def treatments_of(run: Run, patient: str) -> list[tuple[str, float, float]]:
    """Name, first and last day of a patient's adjuvant treatment; one without an end lasts to the last contact."""
    row = clinical_row(run, patient)
    if row is None or "adjuvant_start_date" not in row or pd.isna(row["adjuvant_start_date"]):
        return []
    begin = float((row["adjuvant_start_date"] - row["surgery_date"]).days)
    until = row.get("adjuvant_end_date")
    end = row["last_contact_date"] if until is None or pd.isna(until) else until
    kind = row.get("adjuvant_kind")
    name = "treatment" if kind is None or pd.isna(kind) or not str(kind) else str(kind)
    return [(name, begin, max(begin, float((end - row["surgery_date"]).days)))]


def clinical_row(run: Run, patient: str) -> pd.Series | None:
    """A patient's row of clinical.csv; None where there is none."""
    if run.clinical is None:
        return None
    own = run.clinical[run.clinical["patient_id"] == patient]
    return own.iloc[0] if len(own) and not pd.isna(own.iloc[0]["surgery_date"]) else None


def _since_surgery(run: Run, table: pd.DataFrame, patient: str, column: str) -> pd.DataFrame:
    row, own = clinical_row(run, patient), table[table["patient_id"] == patient]
    if row is None:
        return own.iloc[:0].assign(time=pd.Series(dtype=float))
    days = (pd.to_datetime(own[column]) - row["surgery_date"]).dt.days.astype(float)
    return own.assign(time=days).sort_values("time", kind="stable")


def _describe(course: Course, patient: str) -> str:
    told = f"Course of patient {patient}: {plural(len(course.values), 'count')}, "
    told += f"{plural(len(course.gaps), 'visit')} without a count"
    return f"{told}; risk {percent(course.risks.iloc[-1]['risk'])} {course.known}" if len(course.risks) else told
