"""The model card: what a model is for, what it was made from, and what was measured on it."""

from __future__ import annotations

from typing import Any

from ctc_imaging.classification.classes import CLASSES
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
{real}{remark}

## Calibration and calls
Probabilities are calibrated at a prevalence of {prevalence} (CTCs, leukocytes, artefacts). A cell is called a CTC
from p {ctc} on: likelier than not where one cell in 2,000 is a CTC. Below that it is indeterminate if its
prediction set holds the CTC, or if it is liker to a CTC than to anything else, were all equally common.
The sets (class-conditional conformal prediction, chosen on held-out standard slides) are to hold the true class of
{coverage:.0%} of the cells of each class.

## Measured on the test slides
A CTC that was never segmented, or is called indeterminate, counts as missed; every call on anything else than a
true CTC, dirt included, counts as false. Found at 1, 10, 100: at the thresholds that let so many false CTCs per
100,000 leukocytes pass. Limits are exact 95 % limits. ECE: expected calibration error, classes
balanced. Coverage: share of CTCs, leukocytes and artefacts whose prediction set holds their class. Phenotype:
macro-F1 of epithelial, hybrid and mesenchymal where both markers' true SNR is outside of 2 to 4.5, and the
calibration error of the chance of being positive inside of it.

| Setting | CTCs | Found | Leukocytes | False CTCs | False per 100,000 leukocytes | Found at 1, 10, 100 |
|---|---|---|---|---|---|---|
{metrics}

| Setting | ECE | Coverage of CTCs, leukocytes, artefacts | Not indeterminate | Phenotype F1 | At the border |
|---|---|---|---|---|---|
{honesty}

## Limits
- Simulated cells are simpler than real ones: textures, stains and dirt that the simulator doesn't know are unknown
  to the model.
- Of two channels with one role, the panel's first is used. The network doesn't see markers of the role `tumour`.
- A cell that is positive for vimentin only, and a leukocyte that lost its CD45, differ by little: see
  `mesenchymal-only` and `weak-stain` above, and the panel's rule `mesenchymal_needs_tumour_marker`.
"""

_REAL = """On a third of the training slides most cells have the shape and chromatin of {count:,} real nuclei, cut from
public images of cultured cells and cytospins (DSB 2018 and S-BSST265, CC0); their markers are simulated all the same.
"""


def model_card(classifier: Classifier, notes: dict[str, Any]) -> str:
    """Write a model's card as Markdown.

    Parameters
    ----------
    classifier : Classifier
    notes : dict
        `training` and `metrics`, as in ``model.json``; a `remark` of the training is printed too.
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
        real=_REAL.format(count=training["real_nuclei"]) if training.get("real_nuclei") else "",
        prevalence=" : ".join(f"{share:g}" for share in classifier.calibration.prevalence),
        metrics="\n".join(_figures(source, row) for source, row in rows.items()),
        honesty="\n".join(_honesty(source, row) for source, row in rows.items()),
        ctc=classifier.thresholds.ctc,
        coverage=classifier.thresholds.coverage,
    )


def _slides(purpose: str, summary: dict[str, Any]) -> str:
    settings = ", ".join(f"{setting} {count}" for setting, count in summary["settings"].items())
    low, high = summary["seeds"]
    return f"| {purpose} | {settings} | {low}-{high} | {summary['ctc']:,} | {summary['leukocytes']:,} |"


def _figures(source: str, row: dict[str, Any]) -> str:
    found, false = _share(row["sensitivity"]), _rate(row["false_ctc_per_100k"])
    at_fp = ", ".join(f"{row['sensitivity_at_fp'][allowed]['value']:.1%}" for allowed in ("1", "10", "100"))
    return f"| {source} | {row['ctc']:,} | {found} | {row['leukocytes']:,} | {row['false_ctc']} | {false} | {at_fp} |"


def _honesty(source: str, row: dict[str, Any]) -> str:
    coverage, phenotype = row["coverage"], row["phenotype"]
    covered = ", ".join(f"{coverage[name]:.1%}" for name in CLASSES if coverage[name] is not None)
    f1, border = (_or_dash(phenotype[name]) for name in ("macro_f1", "border_ece"))
    return f"| {source} | {row['ece']:.4f} | {covered} | {row['decided']:.2%} | {f1} | {border} |"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: dict[str, float]) -> str:
    return f"{value['value']:.2%} ({value['low']:.2%}-{value['high']:.2%})"


def _rate(value: dict[str, float]) -> str:
    return f"{value['value']:.2f} ({value['low']:.2f}-{value['high']:.2f})"
