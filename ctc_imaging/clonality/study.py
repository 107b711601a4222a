"""A cohort's verdicts: are two samples related, and if so, do they share more than the primary's trunk?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from ctc_imaging.clonality.cell_rates import cell_errors_of
from ctc_imaging.clonality.cell_tree import CellErrors
from ctc_imaging.clonality.controls import without_control_mutations
from ctc_imaging.clonality.identity import germline_rows
from ctc_imaging.clonality.mutations import CTC_KINDS, Sample
from ctc_imaging.clonality.origin import CANNOT_TELL, Origin, origin_of
from ctc_imaging.clonality.read import Sequenced
from ctc_imaging.clonality.records import records
from ctc_imaging.clonality.relatedness import relatedness_of
from ctc_imaging.clonality.segments import Segments, breakpoint_relatedness, with_copies
from ctc_imaging.clonality.verdicts import CONTRADICTION, verdicts_of

PAIR_COLUMNS = (
    *("patient_id", "sample_a", "sample_b", "shared", "private_a", "private_b"),
    *("likelihood_ratio", "p_value", "p_clonal", "verdict"),
)
"""Columns of clonality.csv."""

_BREAKPOINTS_P, _LEAST_BREAKPOINTS = 0.001, 3


@dataclass(frozen=True)
class PatientStudy:
    """One patient's samples and what they share.

    Attributes
    ----------
    patient_id : str
    samples : tuple of Sample
        In the order of `calls`; tumour samples and controls.
    calls : DataFrame
        As in `Sequenced`, without mutations of controls and those no tumour sample has.
    pairs : DataFrame
        `PAIR_COLUMNS`, and `support` (posterior of the verdict by the tree, missing where the test alone decided),
        `p_value_se`, `log_likelihood_ratio`, `signal`, `cell_errors`, `by_breakpoints` (the verdict is that of
        breakpoints, one of the two having no mutations).
    origin : Origin or None
        None where only relatedness was asked for, or nothing is left to tell it from.
    notes : tuple of str
    """

    patient_id: str
    samples: tuple[Sample, ...]
    calls: pd.DataFrame
    pairs: pd.DataFrame
    origin: Origin | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """All patients' verdicts.

    Attributes
    ----------
    patients : tuple of PatientStudy
    breakpoints : DataFrame
        As from `segments.breakpoint_relatedness`; empty without segments.
    errors : mapping of str to CellErrors
        Of single cells and pools, by sample.
    simulated, relatedness_only : bool
    build : str or None
    notes : tuple of str
        Of the whole cohort.
    genes : mapping of str to str
        Gene by mutation, as far as it is known.
    """

    patients: tuple[PatientStudy, ...]
    breakpoints: pd.DataFrame
    errors: Mapping[str, CellErrors]
    simulated: bool
    relatedness_only: bool
    build: str | None
    notes: tuple[str, ...]
    genes: Mapping[str, str]

    @property
    def pairs(self) -> pd.DataFrame:
        """Every pair of every patient, the columns of clonality.csv; `likelihood_ratio` is its natural log."""
        tables = [patient.pairs for patient in self.patients if len(patient.pairs)]
        if not tables:
            return pd.DataFrame(columns=list(PAIR_COLUMNS))
        pairs = pd.concat(tables, ignore_index=True)
        # As the field quotes it (Ostrovnaya, Seshan & Begg 2015): the ratio itself passes what a number can hold.
        return pairs.assign(likelihood_ratio=pairs["log_likelihood_ratio"])[list(PAIR_COLUMNS)]


def study_of(
    cohort: Sequenced,
    frequencies: pd.Series,
    *,
    germline: pd.DataFrame | None = None,
    segments: Segments | None = None,
    relatedness_only: bool = False,
    seed: int = 0,
) -> Study:
    """Tell of every pair of a patient's tumour samples whether they are related, and by what.

    Parameters
    ----------
    cohort : Sequenced
    frequencies : Series of float
        Marginal frequency among patients, by mutation.
    germline : DataFrame, optional
        As from `identity.read_germline`: rates of drop-out and false calls come from its heterozygous sites.
    segments : Segments, optional
        Copies at the mutations' places, and breakpoints.
    relatedness_only : bool
        Leave out clones and trees: then related samples read `common_origin` and no more.
    seed : int
        The same seed gives the same study.

    Returns
    -------
    Study

    Raises
    ------
    TableError, StatisticsError
        The data are malformed.
    """
    cohort = _informative(without_control_mutations(cohort))
    if segments is not None:
        cohort = replace(cohort, calls=with_copies(cohort.calls, segments))
    rows = None if germline is None else germline_rows(cohort.samples, germline)
    errors = cell_errors_of(cohort.samples, cohort.calls, rows)
    related = relatedness_of(cohort.samples, cohort.calls, frequencies, errors=errors, seed=seed)
    nothing = Segments(pd.DataFrame(columns=["sample_id"]))
    breakpoints = breakpoint_relatedness(cohort.samples, segments or nothing, seed=seed)
    related = _with_breakpoints(related, breakpoints, cohort.calls)
    patients = [
        _patient(patient, cohort, related[related["patient_id"] == patient], errors, relatedness_only, seed)
        for patient in dict.fromkeys(sample.patient_id for sample in cohort.samples)
    ]
    notes = (*cohort.notes, *_about_frequencies(cohort, frequencies))
    return Study(
        tuple(patients), breakpoints, errors, cohort.simulated, relatedness_only, cohort.build, notes, cohort.genes
    )


def _informative(cohort: Sequenced) -> Sequenced:
    """Leave out mutations that no tumour sample has: they tell nothing of a pair."""
    tumour = {sample.sample_id for sample in cohort.samples if sample.is_tumour}
    calls = cohort.calls
    seen = calls[calls["sample_id"].isin(tumour) & (calls["present"] == 1)]
    kept = pd.MultiIndex.from_frame(calls[["patient_id", "mutation"]]).isin(
        pd.MultiIndex.from_frame(seen[["patient_id", "mutation"]])
    )
    return replace(cohort, calls=calls[kept].reset_index(drop=True))


def _with_breakpoints(related: pd.DataFrame, breakpoints: pd.DataFrame, calls: pd.DataFrame) -> pd.DataFrame:
    """Mark the pairs of which only breakpoints tell something, and do."""
    known = set(calls.loc[calls["present"].notna(), "sample_id"])
    told = {
        frozenset((row["sample_a"], row["sample_b"]))
        for row in records(breakpoints)
        if row["p_value"] <= _BREAKPOINTS_P and row["shared_breakpoints"] >= _LEAST_BREAKPOINTS
    }
    pairs = [frozenset(pair) for pair in zip(related["sample_a"], related["sample_b"], strict=True)]
    return related.assign(by_breakpoints=[pair in told and not pair <= known for pair in pairs])


def _about_frequencies(cohort: Sequenced, frequencies: pd.Series) -> list[str]:
    mutations = pd.Index(cohort.calls["mutation"].unique())
    listed = int(mutations.isin(frequencies.index).sum())
    if len(mutations) and not listed:
        return [
            f"None of the {len(mutations)} mutations is among the frequencies, so all count as the rarest there is: "
            "check names and genome build."
        ]
    return [f"Among the frequencies are {listed} of {len(mutations)} mutations; the others count as the rarest there."]


def _patient(
    patient: str,
    cohort: Sequenced,
    related: pd.DataFrame,
    errors: Mapping[str, CellErrors],
    relatedness_only: bool,
    seed: int,
) -> PatientStudy:
    samples = tuple(sample for sample in cohort.samples if sample.patient_id == patient)
    calls = cohort.calls[cohort.calls["patient_id"] == patient].reset_index(drop=True)
    origin = None if relatedness_only or calls.empty else _origin(samples, calls, errors, seed)
    pairs = verdicts_of(related.reset_index(drop=True), samples, origin, errors)
    notes = list(origin.notes) if origin else []
    if calls.empty:
        notes.append("No tumour sample has a mutation that is the tumour's alone.")
    if pairs["by_breakpoints"].any():
        notes.append("Samples without mutations are judged by shared breakpoints alone, an approximation.")
    if origin is not None and (pairs["verdict"] == CONTRADICTION).any():
        notes.append("The test of relatedness and the tree contradict each other on a pair: it can't be told.")
    pairs["verdict"] = pairs["verdict"].replace(CONTRADICTION, CANNOT_TELL)
    return PatientStudy(patient, samples, calls, pairs, origin, tuple(notes))


def _origin(samples: Sequence[Sample], calls: pd.DataFrame, errors: Mapping[str, CellErrors], seed: int) -> Origin:
    groups = {"primary": ("primary",), "ctcs": CTC_KINDS, "relapse": ("relapse", "metastasis")}
    primary, ctcs, relapse = (
        calls[calls["sample_id"].isin([s.sample_id for s in samples if s.kind in kinds])] for kinds in groups.values()
    )
    cells = {sample.sample_id: sample.cells for sample in samples if sample.kind in CTC_KINDS}
    return origin_of(primary, ctcs, relapse, cells=cells, errors=errors, seed=seed)
