"""The table of samples: what each sequenced sample is, when it was taken, where a picked cell lay."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

from ctc_imaging.clonality.mutations import Sample
from ctc_imaging.clonality.plain_table import renamed
from ctc_imaging.clonality.read_parts import Facts, facts_of, merge_facts
from ctc_imaging.errors import TableError
from ctc_imaging.tables import check_unique, read_table

COLUMNS = ("sample_id", "patient_id", "kind", "day", "sample_date", "slide_id", "cell_id", "cells", "purity")


def read_samples(path: Path) -> dict[str, Facts]:
    """Read a table of samples.

    Parameters
    ----------
    path : Path
        One row a sample: `sample_id`; optional `patient_id`, `kind` (see `mutations.Sample`), `day` since surgery or
        `sample_date`, `slide_id` and `cell_id` of a picked cell, `cells`, `purity`, `simulated`.

    Returns
    -------
    dict of str to Facts

    Raises
    ------
    TableError
        A sample is there twice, or a value has no meaning.
    """
    table = renamed(read_table(path, ("sample_id",)))
    check_unique(table, "sample_id", [row.required("sample_id") for row in table.rows])
    return {row.required("sample_id"): facts_of(row) for row in table.rows}


def join_facts(own: Mapping[str, Facts], listed: Mapping[str, Facts], path: Path | None) -> dict[str, Facts]:
    """Put together what the mutation file and the table of samples say.

    Raises
    ------
    TableError
        A sample isn't in the table, or the two contradict each other.
    """
    if path is None:
        return dict(own)
    for sample in own:
        if sample not in listed:
            raise TableError(path, f"sample {sample} isn't in it", "list every sample of the mutations, with its kind")
    return {sample: merge_facts(sample, _own(own.get(sample), facts), facts, path) for sample, facts in listed.items()}


def _own(own: Facts | None, listed: Facts) -> Facts:
    """Leave it to the table what a caller's normal sample is: blood is leukocytes as well as germline."""
    known = own or Facts()
    return replace(known, kind=None) if (known.kind, listed.kind) == ("germline", "leukocyte") else known


def make_samples(facts: Mapping[str, Facts], source: Path, *, kinds_needed: bool) -> tuple[Sample, ...]:
    """Make the samples.

    Parameters
    ----------
    facts : mapping of str to Facts
    source : Path
        Named in errors.
    kinds_needed : bool
        Whether a sample without a kind is an error; else it is taken as tissue of a tumour.

    Raises
    ------
    TableError
        A sample's patient or kind isn't known.
    """
    remedy = "give --samples, a table with sample_id, patient_id and kind"
    samples = []
    for sample, known in facts.items():
        if known.patient_id is None:
            raise TableError(source, f"nothing says of which patient sample {sample} is", remedy)
        if known.kind is None and kinds_needed:
            fault = f"nothing says what sample {sample} is"
            raise TableError(source, fault, f"{remedy}, or ask for --relatedness-only")
        kind, cells = known.kind or "primary", known.cells or 1
        samples.append(Sample(known.patient_id, sample, kind, known.day, known.slide_id, known.cell_id, cells))
    return tuple(samples)


def check_picked(facts: Mapping[str, Facts], cells: Mapping[str, Collection[str]], where: Path) -> None:
    """Check that the slides and picked cells are those of a run.

    Parameters
    ----------
    facts : mapping of str to Facts
    cells : mapping of str to collection of str
        Ids of the cells found on each slide.
    where : Path
        The run, named in errors.

    Raises
    ------
    TableError
        A slide or a cell isn't there.
    """
    for sample, known in facts.items():
        if known.slide_id is None:
            if known.cell_id is not None:
                raise TableError(f"sample {sample}", f"cell {known.cell_id} without a slide", "give its slide_id too")
            continue
        if known.slide_id not in cells:
            fault = f"slide {known.slide_id} of sample {sample} isn't in it"
            raise TableError(where, fault, "check slide_id, or give the run that the cell was picked from")
        if known.cell_id is not None and known.cell_id not in cells[known.slide_id]:
            fault = f"slide {known.slide_id} has no cell {known.cell_id} (sample {sample})"
            raise TableError(where, fault, "check cell_id against cells.parquet")


def check_patients(
    facts: Mapping[str, Facts], patients: Collection[str], of_slide: Mapping[str, str], where: Path
) -> None:
    """Check that samples are of a run's patients, and picked cells of the patient their slide is of.

    In a pseudonymised run only its pseudonyms are known, so that no name gets in beside them.

    Parameters
    ----------
    facts : mapping of str to Facts
    patients : collection of str
        Of the run.
    of_slide : mapping of str to str
        Patient by slide.
    where : Path
        The run, named in errors.

    Raises
    ------
    TableError
        A patient isn't in the run, or a slide is of another.
    """
    for sample, known in facts.items():
        if known.patient_id is not None and known.patient_id not in patients:
            fault = f"patient {known.patient_id} of sample {sample} isn't in it"
            raise TableError(where, fault, "use the run's patient ids (its pseudonyms, if it is pseudonymised)")
        owner = of_slide.get(known.slide_id or "", known.patient_id)
        if known.patient_id is not None and owner != known.patient_id:
            fault = f"slide {known.slide_id} is of patient {owner}, sample {sample} of {known.patient_id}"
            raise TableError(where, fault, "check slide_id and patient_id")


def with_days(facts: Mapping[str, Facts], surgery: Mapping[str, str], slides: Mapping[str, str]) -> dict[str, Facts]:
    """Fill in the days since surgery that follow from dates.

    Parameters
    ----------
    facts : mapping of str to Facts
    surgery : mapping of str to str
        ISO date by patient.
    slides : mapping of str to str
        When the blood on each slide was drawn, ISO date: that of a picked cell without one of its own.
    """
    filled = {}
    for sample, known in facts.items():
        taken = known.sample_date or slides.get(known.slide_id or "")
        operated = surgery.get(known.patient_id or "")
        filled[sample] = known
        if known.day is None and taken and operated:
            days = (date.fromisoformat(str(taken)[:10]) - date.fromisoformat(operated)).days
            filled[sample] = replace(known, day=float(days))
    return filled
