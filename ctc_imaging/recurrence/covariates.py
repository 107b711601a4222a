"""What the Cox models are adjusted for: which covariates can be used, and why others can't."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ctc_imaging.errors import StatisticsError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

REFERENCE_VOLUME_ML = 5.0
CTC_TERM = "log2(1 + CTC in 5 mL)"
# Peduzzi, J Clin Epidemiol 1995;48:1503-10: with fewer events a term, Cox coefficients can't be trusted.
MIN_EVENTS_PER_TERM = 10
LEAST_KNOWN = 0.8

_YES_NO = {"no": 0, "absent": 0, "negative": 0, "m0": 0, "yes": 1, "present": 1, "positive": 1, "m1": 1, "m2": 1}
_STAGES = {"0": 0, "a": 1, "b": 2, "c": 3, "d": 4}
# Clinical column, in order of importance, to the term's name.
_TERMS = {
    "mvi": "MVI",
    "afp": "log2(1 + AFP)",
    "bclc": "BCLC stage",
    "size": "tumour size",
    "size_cm": "tumour size (cm)",
}


def log2_ctc(ctc_per_ml: ArrayLike) -> NDArray[np.float64]:
    """CTCs on the models' scale: one unit is a doubling of 1 + the count in `REFERENCE_VOLUME_ML`.

    Parameters
    ----------
    ctc_per_ml : array_like of float

    Returns
    -------
    ndarray of float64
        In the shape of `ctc_per_ml`.

    Examples
    --------
    >>> log2_ctc([0, 0.2, 0.6]).tolist()
    [0.0, 1.0, 2.0]
    """
    return np.log2(1 + REFERENCE_VOLUME_ML * np.asarray(ctc_per_ml, dtype=float))


def baseline_covariates(clinical: pd.DataFrame) -> pd.DataFrame:
    """Read microvascular invasion, AFP, BCLC stage and size from the clinical table, where it has them.

    Parameters
    ----------
    clinical : DataFrame
        As of `cohort.load_clinical`; columns `MVI`, `AFP`, `BCLC`, `size` or `size_cm`, in any case of letters.

    Returns
    -------
    DataFrame
        Index `patient_id`; one float64 column a covariate, most important first, NaN where unknown.
    """
    columns = {str(name).lower(): clinical[name] for name in clinical}
    found = {term: _encoded(columns[name], name) for name, term in _TERMS.items() if name in columns}
    return pd.DataFrame(found).set_axis(pd.Index(clinical["patient_id"], name="patient_id"))


def usable_terms(candidates: pd.DataFrame, event: pd.Series, needed: str, model: str) -> tuple[pd.DataFrame, list[str]]:
    """Choose the terms that the events can carry, and the patients in whom they are all known.

    Parameters
    ----------
    candidates : DataFrame
        One row a patient, one column a candidate term, most important first.
    event : Series of bool
        Whether the patient had the event, with the same index.
    needed : str
        The term that the model is about.
    model : str
        The model's name, for the error.

    Returns
    -------
    patients : DataFrame
        Patients by terms, nothing missing.
    notes : list of str
        A sentence for each term, and for the patients, left out.

    Raises
    ------
    StatisticsError
        If the needed term can't be used, or there are too few events.
    """
    faults = _faults(candidates, event)
    remedy = "follow more patients for longer"
    if needed in faults:
        raise StatisticsError(model, f"{needed} can't be used: {faults[needed]}", remedy)
    known = candidates.drop(columns=list(faults)).dropna()
    if event[known.index].sum() < MIN_EVENTS_PER_TERM:
        raise StatisticsError(model, "too few events in patients whose covariates are all known", remedy)
    notes = [f"{name} is left out: {fault}." for name, fault in faults.items()]
    if dropped := len(candidates) - len(known):
        notes.append(f"{dropped} patient(s) with an unknown covariate are left out.")
    return known, notes


def _faults(candidates: pd.DataFrame, event: pd.Series) -> dict[str, str]:
    """Say for each candidate that can't be used why not."""
    faults: dict[str, str] = {}
    events = int(event.sum())
    room = events // MIN_EVENTS_PER_TERM
    for name, values in candidates.items():
        too_many = f"a model carries one term per {MIN_EVENTS_PER_TERM} events and there are {events}"
        fault = _fault(values, event) if room else too_many
        if fault is None:
            room -= 1
        else:
            faults[str(name)] = fault
    return faults


def _encoded(values: pd.Series, name: str) -> pd.Series:
    codes = {"mvi": _YES_NO, "bclc": _STAGES}.get(name, {})
    texts = values.astype(object).where(values.notna(), "").astype(str).str.strip().str.lower()
    numbers = pd.to_numeric(texts.map(codes).fillna(pd.to_numeric(texts, errors="coerce")))
    return pd.Series(np.log2(1 + numbers.clip(lower=0)) if name == "afp" else numbers, dtype="float64").reset_index(
        drop=True
    )


def _fault(values: pd.Series, event: pd.Series) -> str | None:
    known = values.dropna()
    if len(known) < LEAST_KNOWN * len(values):
        return f"known for {len(known)} of {len(values)} patients only"
    levels = known.unique()
    if len(levels) < 2:
        return "it is the same in all patients"
    if len(levels) == 2 and event[known.index].groupby(known).mean().isin([0, 1]).any():
        return "all or none of the patients with one of its two values had the event"
    return None
