"""A study as plain data and files: clonality.csv, clonality.json, a picture a patient."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.clonality.mutations import CTC_KINDS
from ctc_imaging.clonality.origin import SURE, WORDS, Origin
from ctc_imaging.clonality.records import records
from ctc_imaging.clonality.study import PatientStudy, Study
from ctc_imaging.files import write_csv, write_json

SCHEMA = 1
CSV, JSON = "clonality.csv", "clonality.json"
STATEMENT = "For research use only: nothing here is a diagnosis or advice."
_RELAPSE = ("relapse", "metastasis")


def study_facts(study: Study) -> dict[str, Any]:
    """Everything of a study as plain data for JSON, the report and pictures; what isn't known is None.

    Returns
    -------
    dict
        `schema`, `statement`, `simulated`, `relatedness_only`, `build`, `words` (of the verdicts), `patients`,
        `breakpoints`, `notes`. Each patient has `patient_id`, `samples`, `mutations` (in the order of the clones, with
        `gene`, `clone`, and `calls`: 1, 0 or None by sample), `pairs`, `clones`, `clone_samples`, `tree_support`,
        `ctcs` (what of the relapse each CTC sample carries) and `notes`.
    """
    return _plain(
        {
            "schema": SCHEMA,
            "statement": STATEMENT,
            "simulated": study.simulated,
            "relatedness_only": study.relatedness_only,
            "build": study.build,
            "words": WORDS,
            "patients": [_patient(patient, study) for patient in study.patients],
            "breakpoints": records(study.breakpoints),
            "notes": list(study.notes),
        }
    )


def write_study(study: Study, out: Path) -> list[Path]:
    """Write clonality.csv, clonality.json and a picture of each patient with mutations.

    Parameters
    ----------
    study : Study
    out : Path
        Made if it isn't there; the same study gives the same bytes.

    Returns
    -------
    list of Path
    """
    from ctc_imaging.clonality.picture import write_picture

    facts = study_facts(study)
    write_csv(out / CSV, study.pairs)
    write_json(out / JSON, facts)
    written = [out / CSV, out / JSON]
    for patient in facts["patients"]:
        if patient["mutations"]:
            written.append(out / f"{file_name(patient['patient_id'])}.png")
            write_picture(patient, written[-1], simulated=study.simulated)
    return written


def file_name(patient: str) -> str:
    """Name a patient's file; whatever could leave the folder becomes an underscore.

    Examples
    --------
    >>> file_name("P001"), file_name("../A 1")
    ('clonality-P001', 'clonality-___A_1')
    """
    return "clonality-" + re.sub(r"[^A-Za-z0-9-]", "_", patient)


def _patient(patient: PatientStudy, study: Study) -> dict[str, Any]:
    origin = patient.origin
    tumour = [sample for sample in patient.samples if sample.is_tumour]
    return {
        "patient_id": patient.patient_id,
        "samples": [
            {**vars(sample), "mutations": int(seen), "drop_out": _drop_out(sample.sample_id, study)}
            for sample, seen in zip(tumour, _seen(patient.calls, [s.sample_id for s in tumour]), strict=True)
        ],
        "mutations": _mutations(patient, [sample.sample_id for sample in tumour], study.genes),
        "pairs": records(patient.pairs),
        "clones": _clones(origin) if origin else [],
        "clone_samples": records(origin.samples) if origin else [],
        "tree_support": origin.tree_support if origin else None,
        "ctcs": carried(patient),
        "notes": list(patient.notes),
    }


def _drop_out(sample: str, study: Study) -> float | None:
    return study.errors[sample].drop_out if sample in study.errors else None


def _seen(calls: pd.DataFrame, samples: list[str]) -> pd.Series:
    return calls.groupby("sample_id")["present"].sum().reindex(samples, fill_value=0)


def _clones(origin: Origin) -> list[dict[str, Any]]:
    rows = origin.clones.assign(parent=origin.clones["parent"].astype(object))
    return [{**row, "mutations": list(row["mutations"])} for row in records(rows)]


def _mutations(patient: PatientStudy, samples: list[str], genes: Mapping[str, str]) -> list[dict[str, Any]]:
    """List the mutations in the order of the clones: trunk first, then each clone after its parent."""
    if patient.calls.empty:
        return []
    calls = patient.calls.pivot(index="mutation", columns="sample_id", values="present").reindex(columns=samples)
    clone = clone_of_mutations(patient.origin) if patient.origin else {}
    order = clone_order(patient.origin) if patient.origin else []
    seen = {str(name): row for name, row in zip(calls.index, calls.to_numpy(float), strict=True)}

    def place(name: str) -> tuple[Any, ...]:
        row = np.nan_to_num(seen[name], nan=0.5)
        return order.index(clone[name]) if name in clone else len(order), -row.sum(), tuple(-row), name

    return [
        {
            "mutation": name,
            "gene": genes.get(name),
            "clone": clone.get(name),
            "calls": dict(zip(samples, seen[name].tolist(), strict=True)),
        }
        for name in sorted(seen, key=place)
    ]


def clone_of_mutations(origin: Origin) -> dict[str, int]:
    """Clone of each mutation, by its name."""
    return {str(name): int(row["clone"]) for row in records(origin.clones) for name in row["mutations"]}


def clone_order(origin: Origin) -> list[int]:
    """Return the clones from the root on, each branch to its end; those that fit nowhere come last."""
    clones = origin.clones
    children: dict[Any, list[int]] = {}
    for row in records(clones.sort_values(["trunk", "clone"], ascending=[False, True])):
        if row["placed"]:
            parent = None if pd.isna(row["parent"]) else int(row["parent"])
            children.setdefault(parent, []).append(int(row["clone"]))
    order, waiting = [], list(reversed(children.get(None, [])))
    while waiting:
        order.append(waiting.pop())
        waiting += reversed(children.get(order[-1], []))
    return order + [int(clone) for clone in clones["clone"] if int(clone) not in order]


def carried(patient: PatientStudy) -> list[dict[str, Any]]:
    """Say how many of the mutations of each relapse sample every CTC sample carries, and how many beyond the trunk.

    Returns
    -------
    list of dict
        `sample_id`, `relapse`, `relapse_mutations`, `carried`, `beyond_trunk` and `carried_beyond_trunk` (None
        without a tree), `known` (mutations of the relapse whose site was read), `verdict`.
    """
    present = patient.calls.pivot(index="mutation", columns="sample_id", values="present")
    trunk = _trunk(patient.origin) if patient.origin else None
    verdicts = {frozenset((row["sample_a"], row["sample_b"])): row["verdict"] for row in records(patient.pairs)}
    rows = []
    for ctc in (sample for sample in patient.samples if sample.kind in CTC_KINDS):
        for relapse in (sample for sample in patient.samples if sample.kind in _RELAPSE):
            if not {ctc.sample_id, relapse.sample_id} <= set(present.columns):
                continue
            theirs = present.index[present[relapse.sample_id] == 1]
            ours = present.loc[theirs, ctc.sample_id]
            beyond = None if trunk is None else ~theirs.isin(trunk)
            rows.append(
                {
                    "sample_id": ctc.sample_id,
                    "relapse": relapse.sample_id,
                    "relapse_mutations": len(theirs),
                    "known": int(ours.notna().sum()),
                    "carried": int((ours == 1).sum()),
                    "beyond_trunk": None if beyond is None else int(beyond.sum()),
                    "carried_beyond_trunk": None if beyond is None else int((ours[beyond] == 1).sum()),
                    "verdict": verdicts.get(frozenset((ctc.sample_id, relapse.sample_id))),
                }
            )
    return rows


def _trunk(origin: Origin) -> set[str]:
    clones = origin.clones[origin.clones["trunk"] >= SURE]
    return {name for names in clones["mutations"] for name in names}


def _plain(value: Any) -> Any:
    """Turn numpy's numbers into Python's, and what isn't known into None."""
    if isinstance(value, dict):
        return {str(key): _plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inside) for inside in value]
    if value is None or value is pd.NA:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
