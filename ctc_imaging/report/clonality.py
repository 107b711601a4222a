"""Whether a patient's CTCs carried the relapse's mutations, at which visit, and how long before imaging."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from ctc_imaging.errors import CtcImagingError
from ctc_imaging.report.clonality_words import Imaging, sentence, visits
from ctc_imaging.report.figures import to_svg
from ctc_imaging.report.patients import event_days
from ctc_imaging.report.source import Run
from ctc_imaging.report.words import MISSING, plural

CLONALITY_JSON = "clonality.json"
_DRAWN = 24


@dataclass(frozen=True)
class PatientClonality:
    """One patient's part: a sentence, a row a visit, the drawing, and pairs of other samples."""

    patient: str
    anchor: str
    sentence: str
    imaging: str
    rows: tuple[dict[str, str], ...]
    others: tuple[dict[str, str], ...]
    figure: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ClonalityPage:
    """The section; `shown` is false for a run without sequencing, `reason` tells why there is nothing."""

    shown: bool = False
    reason: str = ""
    simulated: bool = False
    relatedness_only: bool = False
    statement: str = ""
    words: dict[str, str] = field(default_factory=dict)
    patients: tuple[PatientClonality, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, patient: str) -> PatientClonality | None:
        """Return one patient's part, if the patient was sequenced."""
        return next((found for found in self.patients if found.patient == patient), None)


def clonality_page(run: Run) -> ClonalityPage:
    """Read RUN/clonality.json, which ``ctc-imaging clonality --run`` leaves there.

    Parameters
    ----------
    run : Run

    Returns
    -------
    ClonalityPage
        Of patients who aren't in the run nothing is shown but how many they are.
    """
    path = run.folder.path / CLONALITY_JSON
    if not path.is_file():
        return ClonalityPage()
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return _page(run, facts)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        reason = f"{CLONALITY_JSON} is damaged ({type(error).__name__}): make it anew with ctc-imaging clonality --run"
        return ClonalityPage(shown=True, reason=reason)


def _page(run: Run, facts: dict[str, Any]) -> ClonalityPage:
    ours = {str(patient) for patient in run.counts["patient_id"].dropna()}
    known = [patient for patient in facts["patients"] if patient["patient_id"] in ours]
    strangers = len(facts["patients"]) - len(known)
    notes = [note for note in facts["notes"] if not strangers]
    if strangers:
        notes.append(f"Left out: {plural(strangers, 'sequenced patient')} who {_are(strangers)} in this run.")
    scans = first_positive_scans(run)
    return ClonalityPage(
        shown=True,
        reason="" if known else "None of the sequenced patients is in this run",
        simulated=bool(facts["simulated"]),
        relatedness_only=bool(facts["relatedness_only"]),
        statement=str(facts["statement"]),
        words=dict(facts["words"]),
        patients=tuple(_patient(run, patient, place, facts, scans) for place, patient in enumerate(known, start=1)),
        notes=tuple(notes),
    )


def _are(count: int) -> str:
    return "isn't" if count == 1 else "aren't"


def _patient(
    run: Run, patient: dict[str, Any], place: int, facts: dict[str, Any], scans: dict[str, float]
) -> PatientClonality:
    from ctc_imaging.clonality.picture import draw_study

    name = str(patient["patient_id"])
    imaging = imaging_of(run, patient, scans)
    rows = visits(patient, imaging, facts["words"])
    figure = ""
    if patient["mutations"] and place <= _DRAWN:
        drawn = draw_study(patient, simulated=bool(facts["simulated"]))
        figure = to_svg(drawn, f"clonality-{place}", _describe(patient))
    others = [_pair(pair, facts["words"]) for pair in _other_pairs(patient)]
    return PatientClonality(
        patient=name,
        anchor=f"clonality-{place}",
        sentence=sentence(patient, imaging),
        imaging=f"{imaging.by} on day {imaging.day:.0f}" if imaging.day is not None else "",
        rows=tuple(rows),
        others=tuple(others),
        figure=figure,
        notes=tuple(patient["notes"]),
    )


def first_positive_scans(run: Run) -> dict[str, float]:
    """Day since surgery of each patient's first positive scan, as far as scans and surgery are known."""
    from ctc_imaging.clinical import load_imaging

    path = run.folder.table("imaging")
    if run.clinical is None or not path.is_file():
        return {}
    try:
        scans = load_imaging(path)
    except CtcImagingError:
        return {}
    surgery = run.clinical.set_index("patient_id")["surgery_date"]
    positive = scans[scans["result"] == "positive"]
    days = (positive["imaging_date"] - positive["patient_id"].map(surgery)).dt.days
    first = days.dropna().groupby(positive["patient_id"]).min()
    return {str(patient): float(day) for patient, day in first.items()}


def imaging_of(run: Run, patient: dict[str, Any], scans: dict[str, float]) -> Imaging:
    """Tell when a patient's relapse was known: by a scan, else by the clinical table, else by its own sample."""
    name = str(patient["patient_id"])
    if name in scans:
        return Imaging(scans[name], "first positive scan")
    recurrence = event_days(run.clinical, name).get("recurrence")
    if recurrence is not None:
        return Imaging(recurrence, "recurrence")
    taken = [s["day"] for s in patient["samples"] if s["kind"] in ("relapse", "metastasis") and s["day"] is not None]
    return Imaging(min(taken), "relapse sampled") if taken else Imaging(None, "")


def _other_pairs(patient: dict[str, Any]) -> list[dict[str, Any]]:
    """Pairs of tissue: those with CTCs stand in the rows by visit, and in the drawing."""
    tissue = {s["sample_id"] for s in patient["samples"] if s["kind"] in ("primary", "relapse", "metastasis")}
    return [pair for pair in patient["pairs"] if {pair["sample_a"], pair["sample_b"]} <= tissue]


def _pair(pair: dict[str, Any], words: dict[str, str]) -> dict[str, str]:
    return {
        "samples": f"{pair['sample_a']} and {pair['sample_b']}",
        "shared": f"{pair['shared']} of {pair['shared'] + pair['private_a'] + pair['private_b']}",
        "p": _p(pair["p_value"]),
        "verdict": words[pair["verdict"]],
    }


def _p(value: float | None) -> str:
    return MISSING if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _describe(patient: dict[str, Any]) -> str:
    samples, mutations = len(patient["samples"]), len(patient["mutations"])
    return (
        f"Mutations of patient {patient['patient_id']}: {plural(mutations, 'mutation')} in "
        f"{plural(samples, 'sample')}, ordered by clone, with the tree and the shared fractions"
    )
