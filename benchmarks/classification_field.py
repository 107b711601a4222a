"""A real field of lymphocytes (vectra_lymphocytes), where every CTC is false: the classifier beside gates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from classification_figures import share
from classification_gates import GATES, passing, swept
from classification_gating import Readings
from ctc_training.dataset import ArraySlide

from ctc_imaging.classification import Classifier, call_cells
from ctc_imaging.classification.classes import CLASSES, INDETERMINATE
from ctc_imaging.classification.crops import ROLES
from ctc_imaging.panel import load_panel
from ctc_imaging.segmentation import measure_background, segment_slide

PANEL = "emt-4"
IMAGE = "components_float32_cyx.tif"
UM_PER_PX = 0.5
CHANNELS = ("Alexa 594", "Cy3", "Cy5", "DAPI", "FITC")
ASSIGNMENTS = (
    {"dapi": "DAPI", "ck": "Cy5", "vim": "FITC", "cd45": "Cy3"},
    {"dapi": "DAPI", "ck": "Cy3", "vim": "FITC", "cd45": "Alexa 594"},
    {"dapi": "DAPI", "ck": "Cy3", "vim": "FITC", "cd45": "Cy5"},
)
"""Which dye stands for which marker, for the field has none of a tumour. Cy5 is on the lymphocytes' membranes."""


def compare(folder: Path | None, classifier: Classifier, standard: Readings | None) -> None:
    """Print what is called CTC, by the model and by gates.

    Parameters
    ----------
    folder : Path, optional
        Holds `IMAGE`.
    classifier : Classifier
    standard : Readings, optional
        Of the standard setting, on which the gates' strictness is found.
    """
    if folder is None:
        print("\nThe real field of lymphocytes is left out: name its folder by --vectra.")
        return
    image = tifffile.imread(folder / IMAGE)
    print("\nREAL field of lymphocytes: every CTC is false. Gates as set, and as strict as they are where they find as")
    print("many CTCs as the model on the simulated standard setting; the thresholds beneath are the field's own.")
    for assignment in ASSIGNMENTS:
        cells = call_field(ArraySlide(image, UM_PER_PX), assignment, classifier)
        counts = cells["call"].value_counts()
        told = ", ".join(f"{counts.get(name, 0)} {name}" for name in (*CLASSES, INDETERMINATE))
        stains = ", ".join(f"{short} = {stain}" for short, stain in assignment.items())
        print(f"\n{stains}. {len(cells)} cells; model: {told}\n")
        _print_table(cells, standard)


def call_field(slide: ArraySlide, assignment: Mapping[str, str], classifier: Classifier) -> pd.DataFrame:
    """Segment the field and call its cells, its dyes taken for the panel's markers."""
    panel = load_panel(PANEL)
    channels = {short: CHANNELS.index(stain) for short, stain in assignment.items()}
    background = measure_background(slide, channels)
    labels = np.zeros((2, *slide.shape[1:]), np.uint32)
    cells = segment_slide(slide, channels, panel, background, labels, UM_PER_PX)
    return call_cells(slide, channels, panel, background, labels, cells, classifier)


def _print_table(cells: pd.DataFrame, standard: Readings | None) -> None:
    panel = load_panel(PANEL)
    columns = [f"{channel.short}_snr" for role in ROLES if (channel := panel.channel(role))]
    signal = cells.loc[cells["nucleus_area_um2"] > 0, columns].to_numpy(float)
    false = int((cells["call"] == "ctc").sum())
    print("| Way | As set: CTCs | % of cells | At the model's sensitivity: CTCs | % of cells |")
    print("|---|---|---|---|---|")
    print(f"| model | {false} | {share(false, len(cells))} | {false} | {share(false, len(cells))} |")
    for gate in GATES:
        margins, no_ctc = gate.margins(signal), np.zeros(len(signal), bool)
        usual = passing(margins, no_ctc, (gate.usual,) * 2).false
        matched = "| "
        if standard is not None:
            found = swept(standard.margins[gate], standard.is_ctc, standard.of_model.found)
            count = passing(margins, no_ctc, found.strictness).false
            matched = f"{count}{'' if found.reached else ', finds fewer'} | {share(count, len(cells))}"
        print(f"| {gate} | {usual} | {share(usual, len(cells))} | {matched} |")
