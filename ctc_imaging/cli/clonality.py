"""The command clonality: sequenced tumour, CTCs and relapse in, what they share out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctc_imaging.cli import options
from ctc_imaging.cli.output import note, result

if TYPE_CHECKING:
    from ctc_imaging.clonality.read_parts import Facts
    from ctc_imaging.clonality.study import PatientStudy, Study
    from ctc_imaging.report.source import Run

Mutations = Annotated[
    Path, typer.Argument(metavar="MUTATIONS", help="MAF, VCF, BCF, a folder of VCFs, or a table.", show_default=False)
]
Frequencies = Annotated[
    Path, typer.Option(metavar="F", help="CSV: mutation, freq, (carriers + 1) / (patients + 1).", show_default=False)
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where to write.", show_default=False)]
Samples = Annotated[
    Path | None, typer.Option(metavar="CSV", help="Samples: patient_id, kind, day, slide_id, cell_id, purity, ...")
]
CopyNumber = Annotated[Path | None, typer.Option("--copy-number", metavar="SEG", help="Copy-number segments.")]
Germline = Annotated[
    Path | None, typer.Option(metavar="SITES", help="Germline sites in every sample: identity, drop-out, false calls.")
]
RelatednessOnly = Annotated[bool, typer.Option("--relatedness-only", help="Leave out clones and trees.")]
OfRun = Annotated[
    Path | None, typer.Option("--run", metavar="RUN", help="Check picked cells against a run, show the result there.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="The same seed gives the same bytes.")]

_EXAMPLE = "Example: ctc-imaging clonality calls.maf --frequencies freq.csv --samples samples.csv --out clonality"
_MOST_LINES = 40


def register(app: options.App) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLE)(clonality)


def clonality(
    mutations: Mutations,
    frequencies: Frequencies,
    out: Out,
    samples: Samples = None,
    copy_number: CopyNumber = None,
    germline: Germline = None,
    relatedness_only: RelatednessOnly = False,
    run: OfRun = None,
    seed: Seed = 0,
    as_json: options.AsJson = False,
) -> None:
    """Tell whether sequenced samples share a subclone, and where CTCs and relapse left the primary.

    Writes clonality.csv, clonality.json and a picture of each patient. For research use only.
    """
    from ctc_imaging.clonality.genome import one_build
    from ctc_imaging.clonality.identity import check_identity, read_germline
    from ctc_imaging.clonality.output import STATEMENT, study_facts, write_study
    from ctc_imaging.clonality.read import read_frequencies, read_sequenced
    from ctc_imaging.clonality.segments import read_segments
    from ctc_imaging.clonality.study import study_of

    complete = _by_run(run) if run else None
    segments = read_segments(copy_number) if copy_number else None
    by_segments = set(segments.table["sample_id"]) if segments else set()
    cohort = read_sequenced(
        mutations,
        samples,
        kinds_needed=not relatedness_only,
        complete=complete,
        without_mutations=by_segments,
    )
    known = read_frequencies(frequencies)
    sites, build_of_sites = read_germline(germline) if germline else (None, None)
    builds = {str(mutations): cohort.build, str(germline): build_of_sites}
    one_build({**builds, str(copy_number): segments.build if segments else None})
    told = list(check_identity(cohort.samples, sites, germline)) if sites is not None and germline else []
    study = study_of(cohort, known, germline=sites, segments=segments, relatedness_only=relatedness_only, seed=seed)
    written = write_study(study, out)
    written += _into_run(study, run) if run else []
    told += [*study.notes, *(f"{patient.patient_id}: {text}" for patient in study.patients for text in patient.notes)]
    if study.simulated:
        told.append("SIMULATED patients: no figure here says anything about a real one.")
    for text in [*told, STATEMENT]:
        note(text)
    facts = {"files": [str(path) for path in written], **study_facts(study)}
    result(facts, "\n".join([*_lines(study), *map(str, written[:2])]), as_json)


def _by_run(folder: Path) -> Callable[[dict[str, Facts]], dict[str, Facts]]:
    """Return what checks samples against a run and fills in their days."""
    from ctc_imaging.clonality.read_samples import check_patients, check_picked, with_days
    from ctc_imaging.report.source import read_run

    source = read_run(folder)

    def complete(facts: dict[str, Facts]) -> dict[str, Facts]:
        check_patients(facts, set(source.counts["patient_id"].dropna()), _by_slide(source, "patient_id"), folder)
        wanted = {known.slide_id for known in facts.values() if known.cell_id is not None}
        cells = {name: _cells(source, name) if name in wanted else () for name in source.slides["slide_id"]}
        check_picked(facts, cells, folder)
        return with_days(facts, _surgery(source), _by_slide(source, "sample_date"))

    return complete


def _by_slide(source: Run, column: str) -> dict[str, str]:
    known = source.slides.dropna(subset=[column])
    return dict(zip(known["slide_id"].astype(str), known[column].astype(str), strict=True))


def _cells(source: Run, slide: str) -> set[str]:
    import pandas as pd

    path = source.folder.slide(slide) / "cells.parquet"
    return set(pd.read_parquet(path, columns=["cell_id"])["cell_id"].astype(str)) if path.is_file() else set()


def _surgery(source: Run) -> dict[str, str]:
    if source.clinical is None:
        return {}
    known = source.clinical.dropna(subset=["surgery_date"])
    return dict(zip(known["patient_id"], known["surgery_date"].dt.strftime("%Y-%m-%d"), strict=True))


def _into_run(study: Study, run: Path) -> list[Path]:
    """Leave the result in the run, where the report finds it."""
    from ctc_imaging.clonality.output import CSV, JSON, study_facts
    from ctc_imaging.files import write_csv, write_json

    write_csv(run / CSV, study.pairs)
    write_json(run / JSON, study_facts(study))
    note(f"ctc-imaging report {run} shows the result beside the counts.")
    return [run / CSV, run / JSON]


def _lines(study: Study) -> list[str]:
    """Say each pair in a line, or each patient where there are many."""
    from ctc_imaging.clonality.records import records

    pairs = study.pairs
    if len(pairs) > _MOST_LINES:
        return [_patient_line(patient) for patient in study.patients]
    return [
        "{patient_id}  {sample_a} – {sample_b}: {shared} shared, {private_a} + {private_b} private, "
        "log likelihood ratio {likelihood_ratio:.6g}, p {p_value:.2g}, {words}".format(
            **row, words=_words(row["verdict"])
        )
        for row in records(pairs)
    ]


def _patient_line(patient: PatientStudy) -> str:
    found = patient.pairs["verdict"].value_counts()
    parts = ", ".join(f"{_words(str(verdict))} {count}" for verdict, count in found.items())
    return f"{patient.patient_id}: {len(patient.pairs)} pairs: {parts or 'none'}"


def _words(verdict: str) -> str:
    from ctc_imaging.clonality.origin import WORDS

    return WORDS[verdict]
