"""The laboratory's scheme as table and flow chart, with its text's fingerprint, and what it says of a patient."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

import pandas as pd

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.report.decision import SCHEME
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import interval, label, number, percent

if TYPE_CHECKING:
    from ctc_imaging.recurrence.scheme import Condition, Scheme

_SAYS = {1.0: "names this patient", 0.0: "doesn't name this patient"}


@dataclass(frozen=True)
class SchemeCard:
    """The scheme; `reason` tells why there is none."""

    reason: str = ""
    name: str = ""
    version: str = ""
    suggests: str = ""
    source: str = ""
    day: str = ""
    horizon: str = ""
    conditions: tuple[str, ...] = ()
    any_of: bool = False
    visits: tuple[dict[str, str], ...] = ()
    cutoff: str = ""
    answers: pd.Series | None = None

    def says(self, patient: str, free_until: float | None) -> str:
        """Say in a sentence what the scheme says of a patient.

        Parameters
        ----------
        patient : str
        free_until : float or None
            Day up to which the patient is known to be free of recurrence and alive.
        """
        if self.reason:
            return ""
        if self.answers is None or patient not in self.answers.index:
            free = f"under observation and free of recurrence on day {self.day}"
            return f"It says nothing of this patient, who wasn't {free}."
        answer = self.answers[patient]
        if pd.isna(answer):
            return "It can't be applied: the sample it asks for was missed, couldn't be assessed or has no status."
        return f"It {_SAYS[float(answer)]}{f' ({self.suggests})' if answer else ''}."


def scheme_card(run: Run) -> SchemeCard:
    """Read RUN/tables/scheme.yaml, else the shipped scheme, and ask it of the run's patients.

    Parameters
    ----------
    run : Run

    Returns
    -------
    SchemeCard
        A scheme that asks for a predicted risk isn't asked of patients: the model behind their risks may know them.
    """
    from ctc_imaging.recurrence.scheme_yaml import parse_scheme

    own = run.folder.path / "tables" / "scheme.yaml"
    shipped = resources.files("ctc_imaging") / "recurrence" / "schemes" / f"{SCHEME}.yaml"
    try:
        text = own.read_text(encoding="utf-8-sig") if own.is_file() else shipped.read_text(encoding="utf-8")
        scheme = parse_scheme(text, own if own.is_file() else SCHEME)
    except (CtcImagingError, OSError, UnicodeDecodeError) as error:
        return SchemeCard(reason=str(error))
    return SchemeCard(
        name=scheme.name,
        version=hashlib.sha256(text.encode()).hexdigest()[:12],
        suggests=scheme.suggests,
        source=scheme.source,
        day=f"{scheme.decision_day:g}",
        horizon=interval(scheme.horizon_day),
        conditions=tuple(condition_words(one) for one in scheme.conditions),
        any_of=scheme.any_of,
        visits=tuple(_visit_rows(run)),
        cutoff=_cutoff(run),
        answers=_answers(run, scheme),
    )


def condition_words(condition: Condition) -> str:
    """Say a condition of a scheme in words."""
    from ctc_imaging.recurrence.scheme import Pattern, Risk

    if isinstance(condition, Risk):
        return f"the predicted risk is {percent(condition.at_least)} or more"
    if isinstance(condition, Pattern):
        return f"the CTC status {' or '.join(label(name) for name in condition.names)}"
    first, last = condition.day - condition.early_days, condition.day + condition.late_days
    when = f"the last sample from day {first:g} to day {last:g}"
    volume = f", in {number(condition.volume_ml)} mL" if condition.volume_ml is not None else ""
    if condition.equals is not None:
        what = (
            f"CTC-{condition.equals}" if condition.marker == "status" else f"of {condition.marker} {condition.equals}"
        )
        return f"{when} is {what}{volume}"
    return f"{when} has {label(condition.marker)} of {condition.at_least:g} or more{volume}"


def _answers(run: Run, scheme: Scheme) -> pd.Series | None:
    from ctc_imaging.recurrence.follow_up import follow_up_of_run

    if run.clinical is None or scheme.needs_risk:
        return None
    try:
        return scheme.names(follow_up_of_run(run.timeline, run.clinical))
    except CtcImagingError:
        return None


def _visit_rows(run: Run) -> list[dict[str, str]]:
    return [
        {"name": visit.name, "day": f"{visit.day:g}".replace("-", "−"),
         "window": f"{visit.day - visit.early_days:g} to {visit.day + visit.late_days:g}".replace("-", "−")}
        for visit in run.schedule
    ]  # fmt: skip


def _cutoff(run: Run) -> str:
    if not run.cutoff:
        return ""
    found = f"{run.cutoff['ctc']} CTC or more in {number(run.cutoff['volume_ml'])} mL"
    return f"{found} ({run.cutoff['assay']}; {run.cutoff['source']})"
