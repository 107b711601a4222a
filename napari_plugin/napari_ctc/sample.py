"""Sample data under napari's File menu: a small simulated run, made where it is first asked for."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from napari.utils.notifications import show_info
from platformdirs import user_cache_path

from ctc_imaging import __version__
from ctc_imaging.config import Settings
from ctc_imaging.store.run_folder import RunFolder
from napari_ctc.layers import LayerData, open_view, slide_layers

_SHAPE_PX, _CTC, _LEUKOCYTES, _SEED = (1536, 1536), 12, 500, 7


def sample_slide() -> list[LayerData]:
    """Return the layers of a simulated slide that the pipeline has processed.

    The first time it takes some seconds; afterwards the run lies in the user's cache, and can be reviewed like any.
    """
    run = sample_run()
    view = open_view(run, "sample")
    show_info(f"SIMULATED slide. To call its cells: Plugins > CTC review, run {run.path}")
    return slide_layers(run, view)


def sample_run(folder: Path | None = None) -> RunFolder:
    """Return the simulated run, made anew where it isn't there or wasn't finished.

    Parameters
    ----------
    folder : Path, optional
        Where it lies; by default in the user's cache, one for each version.
    """
    folder = folder or user_cache_path("ctc-imaging") / f"sample-{__version__}"
    run = RunFolder(folder / "run")
    if not (run.description.is_file() and run.is_complete("sample") and run.counts_csv.is_file()):
        _make(folder, run)
    return run


def _make(folder: Path, run: RunFolder) -> None:
    from ctc_imaging.batch import run_cohort
    from ctc_imaging.simulation import simulate_slide, write_slide

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as aside:
        write_slide(simulate_slide(_SHAPE_PX, ctc=_CTC, leukocytes=_LEUKOCYTES, seed=_SEED), Path(aside) / "slide")
        if not (folder / "slide").exists():
            (Path(aside) / "slide").rename(folder / "slide")
    # A cohort with its truth beside it is simulated, and every page of its report says so.
    (folder / "truth").mkdir(exist_ok=True)
    row = {"slide": "slide/slide.ome.tif", "slide_id": "sample", "patient_id": "SIMULATED", "sample_date": "2026-01-05"}
    pd.DataFrame([row | {"blood_volume_ml": 5}]).to_csv(folder / "cohort.csv", index=False)
    run_cohort(folder / "cohort.csv", run.path, Settings(), workers=1)
