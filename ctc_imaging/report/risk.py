"""What each patient's counts say of recurrence: the risk now, how sure it is, and what changed since the last visit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.report.course import course_figure
from ctc_imaging.report.names import page_names
from ctc_imaging.report.patients import event_days
from ctc_imaging.report.risk_words import (
    count_change,
    direction,
    on_day,
    risk_change,
    standing,
    sureness,
    visits_without_count,
)
from ctc_imaging.report.source import Run
from ctc_imaging.report.survival import is_separate, survival_tables
from ctc_imaging.report.words import interval, number, percent, plural

if TYPE_CHECKING:
    from ctc_imaging.recurrence.follow_up import FollowUp
    from ctc_imaging.recurrence.joint import JointModel

# With more patients only those at the highest risk get a card here, and who is still at risk before others.
PAGES = 60
_WORDS = {"MVI": "microvascular invasion (MVI)", "size_cm": "tumour size, each cm"}


@dataclass(frozen=True)
class PatientRisk:
    """What is said of one patient; `open` if neither the event nor the horizon has come."""

    patient: str
    anchor: str
    risk: str
    low: str
    high: str
    bar: float
    day: str
    on_day: str
    sure: str
    change: str
    why: str
    count: str
    figure: str
    csv: str
    open: bool
    standing: str
    outcome: str


@dataclass(frozen=True)
class RiskPage:
    """The section; `reason` tells why there is nothing. `patients` have a card, `everyone` is also of the others."""

    horizon: str
    reason: str = ""
    patients: tuple[PatientRisk, ...] = ()
    everyone: tuple[PatientRisk, ...] = ()
    left_out: int = 0
    model: tuple[dict[str, str], ...] = ()
    basis: str = ""
    causes: str = ""
    own: bool = True
    notes: tuple[str, ...] = ()

    def of(self, patient: str) -> PatientRisk | None:
        """Return one patient's part, if there is a risk."""
        return next((found for found in self.everyone if found.patient == patient), None)


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
        timeline, clinical = _known(survival_tables(run))
        training = follow_up_of_run(timeline, clinical)
        model = fit_joint(default_spec(training), training)
        own = follow_up_of_run(run.timeline, run.clinical)
    except CtcImagingError as error:
        return RiskPage(words, str(error))
    if not model.converged:
        return RiskPage(words, " ".join(model.notes))
    if horizon > model.longest:
        return RiskPage(words, f"Nobody is followed to day {horizon:g}, so no model knows the risk by then")
    page = _page(run, model, own, horizon, words)
    return replace(page, causes=_causes(clinical, training.subjects), own=not is_separate(run))


def _known(tables: tuple[pd.DataFrame, pd.DataFrame | None]) -> tuple[pd.DataFrame, pd.DataFrame]:
    timeline, clinical = tables
    if clinical is None:
        raise CtcImagingError("recurrence", "there is no clinical table", "run with --clinical")
    return timeline, clinical


def _causes(clinical: pd.DataFrame, subjects: pd.Index) -> str:
    """Say of what the events are that the model knows: it tells the first of either, not the one from the other."""
    own = clinical[clinical["patient_id"].isin(subjects)]
    recurred = int(own["recurrence_date"].notna().sum())
    died = int((own["recurrence_date"].isna() & own["death_date"].notna()).sum())
    return f"{plural(recurred, 'recurrence')} and {plural(died, 'death')} without one"


def _page(run: Run, model: JointModel, own: FollowUp, horizon: float, words: str) -> RiskPage:
    usual, anchors = _usual(model, own, horizon), page_names(str(one) for one in own.subjects)
    cards = [_card(run, model, own.subset([one]), horizon, usual, anchors[str(one)]) for one in own.subjects]
    shown = sorted((card for card in cards if card is not None), key=lambda card: (not card.open, -card.bar))
    counts = plural(sum(model.measurements), "count")
    return RiskPage(
        horizon=words,
        reason="" if shown else "No patient has a count from after surgery to predict from",
        patients=tuple(shown[:PAGES]),
        everyone=tuple(shown),
        left_out=max(0, len(shown) - PAGES),
        model=_model_rows(model),
        basis=f"{counts} of {plural(model.subjects, 'patient')}, {model.events} recurrences or deaths",
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


def _card(
    run: Run, model: JointModel, own: FollowUp, horizon: float, usual: pd.DataFrame, anchor: str
) -> PatientRisk | None:
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
    known = series[series["day"].astype(float) <= now].sort_values("day", kind="stable")
    events = event_days(run.clinical, patient)
    stands = standing(events, now, horizon)
    missed = visits_without_count(series, now, _until(events, horizon))
    figure, csv = course_figure(run, patient, f"course-{anchor}", course, usual)
    return PatientRisk(
        patient=patient,
        anchor=f"risk-{anchor}",
        risk=percent(latest["risk"]),
        low=percent(latest["low"]),
        high=percent(latest["high"]),
        bar=float(latest["risk"]),
        day=f"{now:.0f}",
        on_day=on_day(now),
        sure=sureness(float(latest["low"]), float(latest["high"])),
        change=risk_change(course),
        why=direction(course, known),
        count=" ".join(part for part in (count_change(known), missed) if part),
        figure=figure,
        csv=csv,
        open=stands.open,
        standing=stands.short,
        outcome=stands.sentence,
    )


def _until(events: dict[str, float], horizon: float) -> float:
    """Day up to which missed visits tell something of the time that the risk is of."""
    return min([horizon, *(events[name] for name in ("recurrence", "death") if name in events)])


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
