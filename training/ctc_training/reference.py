"""The reference of drift: what slides are like on which a model is at home, told by its own calls on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ctc_imaging.classification import Classifier, call_cells
from ctc_imaging.drift import CalledSlide, make_reference
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.quality import assess
from ctc_imaging.segmentation import measure_background, segment_slide
from ctc_imaging.simulation import SimulatedSlide, simulate_slide
from ctc_training.dataset import ArraySlide

# Far from the seeds of training, calibration and test slides, and from those of the benchmarks.
FIRST_SEED = 700_000
SLIDES = 48
# Slides differ in size, density and CTCs, and the reference has to know by how much figures follow that. Twice as many
# cells on the same area are split wrongly twice as often, for example, and the model doubts the pieces.
_SIDES_PX = (1024, 2048)
_LEUKOCYTES_PER_MM2 = (1000, 1700, 2400, 3100)
_CTCS_PER_MM2 = (0, 2, 5, 10, 20, 40)
_PX_PER_MM = 2000


def reference_of(tables: Iterable[CalledSlide], panel: Panel, simulated: bool = False) -> dict[str, Any]:
    """Make the drift reference of a model, to be kept in its ``model.json`` under ``reference``.

    Parameters
    ----------
    tables : iterable of (DataFrame, mapping)
        Of each slide the cells as the model called them, with the columns of cells.parquet, and its quality.json.
        At least five slides, better 40, none of which the model was trained on: on slides that it knows by heart it
        would be too sure.
    panel : Panel
        Of all of them.
    simulated : bool
        Whether the slides are simulated: their grey levels then aren't held against those of a camera.

    Returns
    -------
    dict
        See `ctc_imaging.drift.make_reference`.
    """
    return make_reference(tables, panel, simulated)


def simulated_reference(classifier: Classifier, slides: int = SLIDES, seed: int = 0) -> dict[str, Any]:
    """Make the reference of a model from simulated slides of the setting ``standard``, about 3 s each.

    Parameters
    ----------
    classifier : Classifier
        Calibrated, with its final thresholds.
    slides : int
        A multiple of 48 has every combination of size, density and CTCs equally often.
    seed : int
        The model's own.
    """
    return reference_of(standard_slides(classifier, slides, FIRST_SEED + seed * SLIDES), load_panel("emt-4"), True)


def standard_slides(classifier: Classifier, slides: int, first_seed: int) -> Iterator[CalledSlide]:
    """Simulate slides of `standard_plan`, and call their cells as in use."""
    for seed, ctc, leukocytes, shape_px in standard_plan(slides, first_seed):
        yield called_slide(classifier, "standard", seed, ctc, leukocytes, shape_px)


def standard_plan(slides: int, first_seed: int) -> Iterator[tuple[int, int, int, tuple[int, int]]]:
    """Seed, CTCs, leukocytes and shape of slides that differ as a laboratory's do."""
    for number in range(slides):
        side_px = _SIDES_PX[number % 2]
        area_mm2 = (side_px / _PX_PER_MM) ** 2
        leukocytes = round(_LEUKOCYTES_PER_MM2[number // 2 % 4] * area_mm2)
        ctc = round(_CTCS_PER_MM2[number // 8 % 6] * area_mm2)
        yield first_seed + number, ctc, leukocytes, (side_px, side_px)


def called_slide(
    classifier: Classifier,
    setting: str,
    seed: int,
    ctc: int,
    leukocytes: int,
    shape_px: tuple[int, int] = (2048, 2048),
) -> CalledSlide:
    """Simulate a slide and call its cells as in use; see `call_simulated`."""
    return call_simulated(classifier, simulate_slide(shape_px, ctc, leukocytes, setting, seed))


def call_simulated(classifier: Classifier, simulated: SimulatedSlide) -> CalledSlide:
    """Judge the quality of a simulated slide, segment it and call its cells as in use.

    Returns
    -------
    cells : DataFrame
        The columns of cells.parquet, but for clusters.
    quality : dict
        As quality.json.
    """
    panel, shape_px = load_panel("emt-4"), simulated.image.shape[1:]
    # Any: the verdict on quality asks for a Slide, of which it uses what an array has too.
    slide: Any = _Slide(simulated.image, simulated.pixel_size_um)
    channels = panel.assign(simulated.channel_names, Path("simulated slide"))
    quality = assess(slide, channels, panel)
    background = measure_background(slide, channels)
    labels = np.zeros((2, *shape_px), np.uint32)
    cells = segment_slide(slide, channels, panel, background, labels, slide.pixel_size_um)
    cells = call_cells(slide, channels, panel, background, labels, cells, classifier)
    area_um2 = shape_px[0] * shape_px[1] * slide.pixel_size_um**2
    quality = quality.without(cells.attrs["oversized_um2"] / area_um2)
    assessed = quality.contains(cells["y_px"].to_numpy(), cells["x_px"].to_numpy())
    return cells.assign(assessed=assessed), quality.to_json()


class _Slide(ArraySlide):
    """A slide in memory that also tells its type, which the verdict on exposure needs."""

    @property
    def dtype(self) -> np.dtype:
        """Type of the pixels."""
        return self.image.dtype
