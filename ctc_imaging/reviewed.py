"""A slide's cells as the readers left them: calls, corrected outlines, and clusters found anew where these changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctc_imaging.store.standing import apply_reviews

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from ctc_imaging.panel import Panel
    from ctc_imaging.store.record import Review
    from ctc_imaging.store.run_folder import RunFolder


def reviewed_cells(run: RunFolder, slide_id: str, reviews: Sequence[Review], panel: Panel) -> pd.DataFrame:
    """Read a slide's cells with the reviews applied; where they changed a call, its clusters are found anew.

    Parameters
    ----------
    run : RunFolder
    slide_id : str
        A slide that is done.
    reviews : sequence of Review
        Of that slide.
    panel : Panel
        Its cluster rule is used.

    Returns
    -------
    DataFrame
        The columns of cells.parquet and those of `apply_reviews`.
    """
    import pandas as pd

    folder = run.slide(slide_id)
    machine = pd.read_parquet(folder / "cells.parquet")
    cells = apply_reviews(machine, reviews)
    if len(cells) == len(machine) and (cells["call"] == cells["machine_call"]).all():
        return cells
    from ctc_imaging.clusters import find_clusters
    from ctc_imaging.store.labels import open_labels

    # By the contract y_um = y_px * pixel size, so any cell off the origin tells the scale.
    pixel_size_um = float((cells["y_um"] + cells["x_um"]).sum() / (cells["y_px"] + cells["x_px"]).sum())
    return find_clusters(cells, open_labels(folder / "labels.ome.zarr"), panel.clusters, pixel_size_um)
