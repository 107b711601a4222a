"""The model card: what a model is for, what it was made from, and what was measured on it."""

from __future__ import annotations

from typing import Any

from ctc_imaging.classification.model import Classifier

_TEXT = """# Model card: {name}

**Trained on simulated slides only.** No cell of a patient or donor was seen in training, calibration or testing.
The figures below say how the model does on slides from this package's own simulator; on a laboratory's slides
they have still to be measured. For research use only, not for diagnosis.

## What it does
It sorts segmented cells of immunofluorescence slides into `ctc`, `leukocyte` and `artefact`, and tells whether the
epithelial, mesenchymal and leukocyte markers are positive. It takes panels of three or four markers (nucleus,
epithelial, leukocyte, and with or without mesenchymal), at any pixel size, for crops are brought to 0.5 um a pixel.

Hash: `{hash}`

## What it was made from
Slides of the simulator, by setting (see the documentation of `ctc-imaging simulate`):

| Purpose | Slides by setting | Seeds | CTCs | Leukocytes |
|---|---|---|---|---|
{slides}

Purposes share no seed. Training used {crops} crops (SHA-256 `{crops_sha256}`), ctc-imaging {version}.
{remark}

## Calibration and thresholds
Probabilities are calibrated at a prevalence of {prevalence}
(CTCs, leukocytes, artefacts). Where CTCs are rarer or commoner than that, they are off by the ratio of odds.
A cell is called a CTC from p {ctc} on, indeterminate from p {doubtful} on, or where no other class
reaches p {clear}.

## Measured on the test slides
A CTC that was never segmented, or is called indeterminate, counts as missed; every call on anything else than a
true CTC, dirt included, counts as false. Limits are exact 95 % limits.

| Setting | CTCs | Found | Leukocytes | False CTCs | False per 100,000 leukocytes | ECE | Coverage |
|---|---|---|---|---|---|---|---|
{metrics}

## Limits
- Simulated cells are simpler than real ones: textures, stains and dirt that the simulator doesn't know are unknown
  to the model.
- Of two channels with one role, the panel's first is used. The network doesn't see markers of the role `tumour`.
- A cell that is positive for vimentin only, and a leukocyte that lost its CD45, differ by little: see
  `mesenchymal-only` and `weak-stain` above, and the panel's rule `mesenchymal_needs_tumour_marker`.
"""


def model_card(classifier: Classifier, notes: dict[str, Any], prevalence: tuple[float, float, float]) -> str:
    """Write a model's card as Markdown.

    Parameters
    ----------
    classifier : Classifier
    notes : dict
        `training` and `metrics`, as in ``model.json``; a `remark` of the training is printed too.
    prevalence : tuple of float
        At which its probabilities were calibrated.
    """
    training, metrics = notes["training"], notes["metrics"]
    rows = {**metrics["by_source"], "all": metrics}
    return _TEXT.format(
        name=classifier.name,
        hash=classifier.hash,
        slides="\n".join(_slides(purpose, summary) for purpose, summary in training["slides"].items()),
        crops=f"{training['crops']:,}",
        crops_sha256=training["crops_sha256"],
        version=training["ctc_imaging"],
        remark=training.get("remark", ""),
        prevalence=" : ".join(f"{share:g}" for share in prevalence),
        metrics="\n".join(_figures(source, row) for source, row in rows.items()),
        **vars(classifier.thresholds),
    )


def _slides(purpose: str, summary: dict[str, Any]) -> str:
    settings = ", ".join(f"{setting} {count}" for setting, count in summary["settings"].items())
    low, high = summary["seeds"]
    return f"| {purpose} | {settings} | {low}-{high} | {summary['ctc']:,} | {summary['leukocytes']:,} |"


def _figures(source: str, row: dict[str, Any]) -> str:
    found, false = _share(row["sensitivity"]), _rate(row["false_ctc_per_100k"])
    return (
        f"| {source} | {row['ctc']:,} | {found} | {row['leukocytes']:,} | {row['false_ctc']} | {false} "
        f"| {row['ece']:.4f} | {row['coverage']:.2%} |"
    )


def _share(value: dict[str, float]) -> str:
    return f"{value['value']:.2%} ({value['low']:.2%}-{value['high']:.2%})"


def _rate(value: dict[str, float]) -> str:
    return f"{value['value']:.2f} ({value['low']:.2f}-{value['high']:.2f})"
