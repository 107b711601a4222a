"""The card of a nucleus model: what it is for, what it was made from, and what was measured on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctc_imaging.files import write_text
from ctc_imaging.segmentation.model import NucleusModel

_TEXT = """# Model card: {name}

A network of {parameters:,} weights that finds nuclei in one fluorescence channel (DAPI, Hoechst and the like). For
research use only, not for diagnosis.

Hash: `{hash}`

## What it does
It reads stain over background in units of noise, squashed by arcsinh, at about 0.5 um a pixel (nuclei of 9 to 34
pixels across were trained on), and gives four maps: foreground, depth, and the step to the nucleus's centre in rows
and columns. Each foreground pixel belongs to the nucleus that its step leads to. No weights of others were used.

## What it was made from
| Images | Number | Licence |
|---|---|---|
| Data Science Bowl 2018, fluorescence (BBBC038v1; Caicedo 2019, doi 10.1038/s41592-019-0612-7) | {cultured} | CC0 |
| S-BSST265 bone-marrow cytospins and touch imprints (Kromp 2020, doi 10.1038/s41597-020-00608-w) | {cytospins} | CC0 |
| Simulated blood, by this package | {simulated} | - |

{held_out}
SHA-256 of the list of images: `{images_sha256}`. Schedule: {schedule}.

## Measured
{metrics}

## Limits
- No CTC slide with nuclei outlined by hand could be had. Cytospins of bone marrow are the nearest; there are 12.
- Overlapping nuclei are parted, not laid over each other: each pixel belongs to one nucleus.
- Out-of-focus nuclei are outlined where a person would often leave them out.
"""

_HELD_OUT = {
    True: "Every fourth cluster of look-alikes (133 images) and every third cytospin (4) were held out, for measuring.",
    False: (
        "All images were trained on, those of the measurements too: the figures below are those of a model trained\n"
        "without them, from which this one went on."
    ),
}


def write_card(model: NucleusModel, folder: Path) -> None:
    """Write ``CARD.md`` into a model's folder."""
    write_text(folder / "CARD.md", card_text(model))


def card_text(model: NucleusModel) -> str:
    """Return a model's card as Markdown."""
    training = model.description["training"]
    images = training["images"]
    return _TEXT.format(
        name=model.name,
        parameters=sum(weights.numel() for weights in model.network.parameters()),
        hash=model.hash,
        cultured=images["dsb2018_fluo"],
        cytospins=images["sbsst265_cytospin"],
        simulated=images["simulated"],
        held_out=_HELD_OUT[bool(training["held_out"])],
        images_sha256=training["images_sha256"],
        schedule=", ".join(f"{key} {value}" for key, value in training["schedule"].items()),
        metrics=_metrics(model.description.get("metrics") or {}),
    )


def _metrics(metrics: dict[str, Any]) -> str:
    if not metrics:
        return "Not measured yet."
    rows = ["| Images | Number | AP at IoU 0.5 | at 0.75 | at 0.9 | AJI |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {name} | {row['images']} | {row['ap']['0.50']:.3f} | {row['ap']['0.75']:.3f} | {row['ap']['0.90']:.3f} "
        f"| {row['aji']:.3f} |"
        for name, row in metrics.items()
    ]
    return "\n".join(["Average precision TP / (TP + FP + FN), averaged over images never trained on.", "", *rows])
