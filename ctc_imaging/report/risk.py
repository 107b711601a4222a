"""What each patient's counts say of recurrence: the risk now, how sure it is, and what changed since the last visit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.report.figures import to_svg
from ctc_imaging.report.patients import event_days
from ctc_imaging.report.risk_chart import Course, draw_course
from ctc_imaging.report.source import Run
from ctc_imaging.report.survival import is_separate, survival_tables
from ctc_imaging.report.words import interval, number, percent, plural

if TYPE_CHECKING:
    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint import JointModel

# With more patients only those at the highest risk get a page of their own.
PAGES = 60
_SURE, _LOW, _HIGH = 0.2, 0.3, 0.6
_LEAST_STEP = 0.02
_WORDS = {"MVI": "microvascular invasion (MVI)", "size_cm": "tumour size, each cm"}
_TICKS = {0.0: "surgery", 91.3: "3 mo", 182.6: "6 mo", 365.25: "1 y", 547.9: "1½ y", 730.0: "2 y", 1095.75: "3 y"}


@dataclass(frozen=True)
class PatientRisk:
    """One patient's page."""

    patient: str
    anchor: str
    risk: str
    low: str
    high: str
    bar: float
    day: str
    sure: str
    change: str
    count: str
    figure: str
    outcome: str


@dataclass(frozen=True)
class RiskPage:
    """The section; `reason` tells why there is nothing."""

    horizon: str
    reason: str = ""
    patients: tuple[PatientRisk, ...] = ()
    left_out: int = 0
    model: tuple[dict[str, str], ...] = ()
    basis: str = ""
    own: bool = True
    notes: tuple[str, ...] = ()


def risk_page(run: Run) -> RiskPage:
    """Fit the default joint model, and predict every patient's risk at each visit from what was known then.

    Parameters
    ----------
    run : Run
        With RUN/survival/ the model is fitted to that cohort, else to the run's own patients.

    Returns
    -------
    RiskPage
    """
    horizon = float(run.folder.settings().horizon_days)
    words = f"{interval(horizon)} after surgery"
    if run.clinical is None:
        return RiskPage(words, "The run was given no clinical table (--clinical)")
    from ctc_imaging.recurrence.follow_up import follow_up_of_run
    from ctc_imaging.recurrence.joint import fit_joint
    from ctc_imaging.recurrence.joint.defaults import default_spec

    try:
        training = follow_up_of_run(*_known(survival_tables(run)))
        model = fit_joint(default_spec(training), training)
        own = follow_up_of_run(run.timeline, run.clinical)
    except CtcImagingError as error:
        return RiskPage(words, str(error))
    if not model.converged:
        return RiskPage(words, " ".join(model.notes))
    if horizon > model.longest:
        return RiskPage(words, f"Nobody is followed to day {horizon:g}, so no model knows the risk by then")
    return _page(run, model, own, horizon, words, not is_separate(run))


def _known(tables: tuple[pd.DataFrame, pd.DataFrame | None]) -> tuple[pd.DataFrame, pd.DataFrame]:
    timeline, clinical = tables
    if clinical is None:
        raise CtcImagingError("recurrence", "there is no clinical table", "run with --clinical")
    return timeline, clinical


def _page(run: Run, model: JointModel, own: FollowUp, horizon: float, words: str, same: bool) -> RiskPage:
    usual = _usual(model, own, horizon)
    cards = [_card(run, model, own.subset([patient]), horizon, usual) for patient in own.subjects]
    shown = sorted((card for card in cards if card is not None), key=lambda card: -card.bar)
    size = f"{plural(model.subjects, 'patient')}, {model.events} recurrences or deaths"
    return RiskPage(
        horizon=words,
        reason="" if shown else "No patient has a count from after surgery to predict from",
        patients=tuple(shown[:PAGES]),
        left_out=max(0, len(shown) - PAGES),
        model=_model_rows(model),
        basis=size,
        own=same,
        notes=tuple(note.replace("before time 0", "before surgery") for note in model.notes),
    )


def _usual(model: JointModel, own: FollowUp, horizon: float) -> pd.DataFrame:
    """Mean risk of all patients at risk at a few days, for comparison."""
    from ctc_imaging.recurrence.joint.prediction import JointPredictor

    rows = []
    for day in (7.0, 30.0, 90.0, 180.0, 365.0, 540.0):
        known = own.at(day)
        if day < horizon and len(known.events) > 1:
            risks = JointPredictor(model).risk(known, day, [horizon])[horizon]
            rows.append((day, float(np.nanmean(risks)) if risks.notna().any() else np.nan))
    return pd.DataFrame(rows, columns=["time", "risk"]).dropna()


def _card(run: Run, model: JointModel, own: FollowUp, horizon: float, usual: pd.DataFrame) -> PatientRisk | None:
    from ctc_imaging.recurrence.joint.prediction import updates

    patient = str(own.subjects[0])
    visits = own.long[(own.long["day"] >= 0) & (own.long["day"] < horizon)]
    if visits.empty:
        return None
    now = float(visits["day"].max())
    try:
        course = updates(model, own, horizon, None, now)
    except CtcImagingError:
        return None
    latest, series = course.iloc[-1], run.timeline[run.timeline["patient_id"] == patient]
    return PatientRisk(
        patient=patient,
        anchor=f"risk-{patient}",
        risk=percent(latest["risk"]),
        low=percent(latest["low"]),
        high=percent(latest["high"]),
        bar=float(latest["risk"]),
        day=f"{now:.0f}",
        sure=_sureness(float(latest["low"]), float(latest["high"])),
        change=_change(course),
        count=_count_change(series[series["day"].astype(float) <= now]),
        figure=_figure(run, own, course, horizon, usual, patient),
        outcome=_outcome(event_days(run.clinical, patient), now),
    )


def _sureness(low: float, high: float) -> str:
    if high - low < _SURE:
        return "The limits are close: the counts so far leave little doubt about this patient within the model."
    if low < _LOW and high > _HIGH:
        return "The limits are very wide: the counts so far fit a low risk as well as a high one."
    return "The limits are wide: take the risk as a rough figure."


def _change(course: pd.DataFrame) -> str:
    earlier = course[course["time"] > 0].iloc[:-1]
    if earlier.empty:
        return "This is the first count after surgery, so there is no earlier risk to compare with."
    before, latest = earlier.iloc[-1], course.iloc[-1]
    step = float(latest["risk"] - before["risk"])
    moved = "hardly changed" if abs(step) < _LEAST_STEP else "went up" if step > 0 else "went down"
    was = f"{percent(before['risk'])} ({percent(before['low'])} to {percent(before['high'])})"
    passed = " Part of that is the time passed without recurrence." if step <= -_LEAST_STEP else ""
    return f"The risk {moved} since day {before['time']:.0f}, when it was {was}.{passed}"


def _count_change(series: pd.DataFrame) -> str:
    done = series[series["visit_status"] == "done"]
    if len(done) < 2:
        return ""
    before, last = done.iloc[-2], done.iloc[-1]
    told = {
        "rise": "a rise that chance would hardly make",
        "fall": "a fall that chance would hardly make",
        "not_distinguishable": "within what chance makes",
    }.get(str(last["change"]), "")
    counts = (
        f"{int(one['ctc'])} in {number(one['assessed_volume_ml'])} mL on day {float(one['day']):.0f}"
        for one in (before, last)
    )
    return f"The count went from {' to '.join(counts)}" + (f": {told} (exact test)." if told else ".")


def _outcome(events: dict[str, float], now: float) -> str:
    """Say what became of the patient after the last count, which the risk doesn't know of."""
    for name, words in (("recurrence", "Recurrence was found"), ("death", "The patient died")):
        if name in events:
            return f"{words} on day {events[name]:.0f}; the risk is what was known before."
    last = events.get("last_contact")
    if last is not None and last > now:
        return f"Free of recurrence at last contact, day {last:.0f}; the risk is as of the last count."
    return ""


def _figure(run: Run, own: FollowUp, course: pd.DataFrame, horizon: float, usual: pd.DataFrame, patient: str) -> str:
    names = {"day": "time", "ctc_per_ml": "value", "ctc_per_ml_low": "low", "ctc_per_ml_high": "high"}
    values = own.long[own.long["day"] < horizon].rename(columns=names)[list(names.values())].astype(float)
    cutoff = run.cutoff["ctc"] / run.cutoff["volume_ml"] if run.cutoff else None
    ticks = {day: text for day, text in _TICKS.items() if day <= horizon + 1}
    shown = usual[usual["time"] <= course["time"].max() + 60]
    words = f"within {interval(horizon)}"
    picture = Course(values, course, "CTC per mL", "Time since surgery", horizon, words, cutoff, shown, ticks)
    latest = course.iloc[-1]
    alt = f"Counts of patient {patient}, and the risk as known at each visit; now {percent(latest['risk'])}"
    return to_svg(draw_course(picture), f"risk-{patient}", alt)


def _model_rows(model: JointModel) -> tuple[dict[str, str], ...]:
    """Hazard ratios as people read them."""
    rows = []
    for name, row in model.table.iterrows():
        kind, _, short = str(name).partition(":")
        if kind not in ("event", "association"):
            continue
        # One doubling of the rate is log 2 on its natural logarithm.
        unit = np.log(2) if kind == "association" else 1.0
        ratio, low, high = (float(np.exp(unit * row[column])) for column in ("estimate", "low", "high"))
        words = "each doubling of the patient's rate of CTCs" if kind == "association" else _term(short)
        rows.append({"term": words, "ratio": number(ratio), "limits": f"{number(low)} to {number(high)}"})
    return tuple(rows)


def _term(name: str) -> str:
    plain = name.replace("`", "")
    if plain.startswith("np.log2(1 + "):
        return f"each doubling of 1 + {plain[len('np.log2(1 + ') : -1]}"
    return _WORDS.get(plain, plain)
