"""The card of a model that was trained on reviewed cells, and which card a model has."""

from __future__ import annotations

from typing import Any

from ctc_imaging.classification.model import Classifier
from ctc_training.calibrate import PREVALENCE
from ctc_training.card import model_card

_TEXT = """# Model card: {name}

**{headline}**
For research use only, not for diagnosis.

## What it does
It sorts segmented cells of immunofluorescence slides into `ctc`, `leukocyte` and `artefact`, and tells whether the
epithelial, mesenchymal and leukocyte markers are positive.

Hash: `{hash}`

## What it was made from
Training set `{dataset}`: {patients} patients, {batches} batches.
SHA-256 `{dataset_sha256}`.

| Part | Cells | CTCs | Leukocytes | Artefacts | Patients |
|---|---|---|---|---|---|
{parts}

{sources}

{readers}

No {apart} is in two parts.{by_patient}
{start}
{simulated}

## Calibration and thresholds
Probabilities are calibrated at a prevalence of {prevalence} (CTCs, leukocytes, artefacts),
on held-out cells among which were {leukocytes:,} leukocytes.{kept}
A cell is called a CTC from p {ctc:g} on.

## Measured on the test part
Among the cells that were labelled, which readers saw because they looked like something: rates among all cells of a
slide are others. A CTC that is called indeterminate counts as missed. Limits are exact 95 % limits. Cells on which as
many readers said one thing as another are left out.

{metrics}

## Limits
- Labels are those of the readers named; nobody else has confirmed them.
- On slides of another laboratory, stain or scanner the figures have still to be measured.
- Of two channels with one role, the panel's first is used. The network doesn't see markers of the role `tumour`.
- Which cells it was trained on stands in `seen.csv`, by hash: validate it on none of them.
"""


def card_of(classifier: Classifier) -> str:
    """Write a model's card anew from its ``model.json``, as Markdown."""
    description = classifier.description
    if description.get("training", {}).get("kind") != "dataset":
        return model_card(classifier, description)
    return dataset_card(classifier, description["training"], description.get("metrics") or {})


def dataset_card(classifier: Classifier, training: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Write the card of a model that was made from a training set."""
    return _TEXT.format(
        name=classifier.name,
        hash=classifier.hash,
        headline=_headline(training),
        parts="\n".join(_part(name, counts) for name, counts in training["parts"].items()),
        sources="\n".join(_sources(training)) or "No scan: simulated crops only.",
        readers=_readers(training),
        apart="patient" if training["split"]["by"] == "patient" else "patient and no batch",
        by_patient=_shared_batches(training),
        start=_start(training),
        simulated=_simulated(training),
        prevalence=" : ".join(f"{share:g}" for share in PREVALENCE),
        leukocytes=training.get("calibrated_on", {}).get("leukocytes", 0),
        kept=_kept(training),
        ctc=classifier.thresholds.ctc,
        metrics="\n".join(_metrics(metrics)),
        **{name: training[name] for name in ("dataset", "dataset_sha256", "patients", "batches")},
    )


def _headline(training: dict[str, Any]) -> str:
    runs = training["runs"]
    if not runs and not training["labelled"]:
        return "Trained on simulated slides only: the figures below are no evidence about patients."
    if runs and all(run["simulated"] for run in runs):
        return "Trained on cells of simulated slides, reviewed: the figures below are no evidence about patients."
    return "Trained on cells that readers reviewed."


def _part(name: str, counts: dict[str, int]) -> str:
    figures = (counts["cells"], counts["ctc"], counts["leukocyte"], counts["artefact"], counts["patients"])
    return f"| {name} | {' | '.join(f'{figure:,}' for figure in figures)} |"


def _sources(training: dict[str, Any]) -> list[str]:
    runs = [
        f"- run `{run['run']}` (hash `{run['run_hash'][:12]}`, model {run['model']['name']}"
        f"{', simulated' if run['simulated'] else ''}): {run['cells']:,} cells of {run['slides']} slides"
        for run in training["runs"]
    ]
    folders = [f"- labelled crops `{one['folder']}`: {one['crops']:,}" for one in training["labelled"]]
    origins = [f"- of which {name}: {count:,}" for name, count in training["origins"].items()]
    return [*runs, *folders, *origins]


def _readers(training: dict[str, Any]) -> str:
    named = ", ".join(f"{name} ({count:,} cells)" for name, count in training["readers"].items())
    several, apart = training["cells_of_several_readers"], training["cells_disagreed_on"]
    if not named:
        return "No reader is named."
    return f"Readers: {named}. {several:,} cells had several readers, who disagreed on {apart:,}; all votes are kept."


def _shared_batches(training: dict[str, Any]) -> str:
    if training["split"]["by"] == "batch":
        return ""
    return " Batches are: the figures don't tell how the model does on another batch."


def _start(training: dict[str, Any]) -> str:
    start = training["started_from"]
    return f"It started from model {start['name']} (`{start['hash']}`)." if start else "It was trained from scratch."


def _simulated(training: dict[str, Any]) -> str:
    mixed = training["simulated"]
    return f"Simulated crops of {mixed['slides']} slides were mixed in, {mixed['share']:.0%} of all." if mixed else ""


def _kept(training: dict[str, Any]) -> str:
    kept = training.get("calibrated_on", {}).get("kept_from_start", [])
    if not kept:
        return ""
    return f"\nThose are too few to fit all anew: {' and '.join(kept)} are those of the model before."


def _metrics(metrics: dict[str, Any]) -> list[str]:
    if not metrics:
        return ["Nothing was measured: the training set has no test part."]
    head = ["| Source | CTCs | Found | Leukocytes | False CTCs | ECE | Decided |", "|---|---|---|---|---|---|---|"]
    return head + [_row(name, row) for name, row in {**metrics["by_source"], "all": metrics}.items()]


def _row(source: str, row: dict[str, Any]) -> str:
    found = row["sensitivity"]
    share = "" if found["value"] is None else f"{found['value']:.1%} ({found['low']:.1%}-{found['high']:.1%})"
    ece = "" if row["ece"] is None else f"{row['ece']:.4f}"
    decided = "" if row["decided"] is None else f"{row['decided']:.1%}"
    figures = (source, f"{row['ctc']:,}", share, f"{row['leukocytes']:,}", f"{row['false_ctc']:,}", ece, decided)
    return f"| {' | '.join(figures)} |"
