"""Mutations that leukocytes or germline carry too are no tumour's: they are taken out."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from ctc_imaging.clonality.read import Sequenced

_NAMED = 5


def without_control_mutations(cohort: Sequenced) -> Sequenced:
    """Take out of each patient the mutations that one of its controls carries.

    Parameters
    ----------
    cohort : Sequenced

    Returns
    -------
    Sequenced
        Controls keep their rows of the mutations that are left; `notes` says what was taken out of whom. That takes
        out a tumour's mutation where a leukocyte has a false call of it, which costs evidence and fakes none.
    """
    kinds = {sample.sample_id: sample.kind for sample in cohort.samples if not sample.is_tumour}
    calls = cohort.calls
    carried = calls[calls["sample_id"].isin(kinds) & (calls["present"] == 1)]
    if carried.empty:
        return cohort
    taken = pd.MultiIndex.from_frame(carried[["patient_id", "mutation"]])
    left = ~pd.MultiIndex.from_frame(calls[["patient_id", "mutation"]]).isin(taken)
    notes = [_note(str(patient), rows, kinds) for patient, rows in carried.groupby("patient_id", sort=False)]
    return replace(cohort, calls=calls[left].reset_index(drop=True), notes=(*cohort.notes, *notes))


def _note(patient: str, rows: pd.DataFrame, kinds: dict[str, str]) -> str:
    mutations = list(pd.unique(rows["mutation"]))
    names = sorted({kinds[sample] for sample in rows["sample_id"]})
    who = f"{' and '.join(names)} {'carries' if len(names) == 1 else 'carry'}"
    more = f" and {len(mutations) - _NAMED} more" if len(mutations) > _NAMED else ""
    return f"{patient}: taken out because {who} them too: {', '.join(mutations[:_NAMED])}{more}."
