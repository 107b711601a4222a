"""Cells as AnnData: markers as variables, cells with their calls as observations, places in `obsm`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ctc_imaging.disk import disk_errors
from ctc_imaging.errors import ConfigError, RunError
from ctc_imaging.export.cells import CALL_COLOURS, SlideCells
from ctc_imaging.files import atomic_path

if TYPE_CHECKING:
    from anndata import AnnData

_KINDS = ("snr", "mean", "spots")
_CORNER, _CENTRE = "corner", "centre"


def write_h5ad(slides: Iterable[SlideCells], target: Path, facts: dict[str, Any]) -> int:
    """Write the cells of a run to one .h5ad file.

    Parameters
    ----------
    slides : iterable of SlideCells
    target : Path
        Replaced in one step.
    facts : dict
        Of run.json.

    Returns
    -------
    int
        How many cells there are.

    Raises
    ------
    ConfigError
        If the package anndata isn't installed.
    RunError
        If there are no cells, or the file can't be written.
    """
    table = anndata_of(slides, facts)
    with disk_errors(target), atomic_path(target) as temporary:
        table.write_h5ad(temporary, compression="gzip")
    return int(table.n_obs)


def anndata_of(slides: Iterable[SlideCells], facts: dict[str, Any], origin: str = _CENTRE) -> AnnData:
    """Make an AnnData table of the cells of slides.

    Parameters
    ----------
    slides : iterable of SlideCells
    facts : dict
        Of run.json.
    origin : str
        Whether `obsm["spatial"]` counts from the "centre" of the first pixel, as all of a run does, or its "corner".

    Returns
    -------
    AnnData
        `X` the signal over noise of each marker (float32, NaN where a slide lacks it), `layers["mean"]` its mean over
        background, `obs` everything else of a cell, named SLIDE:CELL, `obsm["spatial"]` (x, y) in µm on its own slide,
        `uns["ctc_imaging"]` the run: version, hash, model, panel.

    Raises
    ------
    ConfigError
        If the package anndata isn't installed.
    RunError
        If there are no cells.
    """
    anndata = _anndata()
    given = [slide for slide in slides if len(slide.cells)]
    if not given:
        raise RunError("export", "there are no cells to export", "name other slides or other calls")
    cells = pd.concat([_with_slide(slide) for slide in given], ignore_index=True)
    variables = _variables(given)
    markers = list(variables.index)
    names = cells["slide_id"].astype(str) + ":" + cells["cell_id"].astype(str)
    layers = {
        kind: _values(cells, markers, kind) for kind in _KINDS if any(f"{name}_{kind}" in cells for name in markers)
    }
    table = anndata.AnnData(
        X=layers.pop("snr"),
        obs=_observations(cells, markers).set_index(pd.Index(names.to_numpy(object), name=None)),
        var=variables,
        layers=layers,
        obsm={"spatial": _places(given, origin)},
        uns={"ctc_imaging": _provenance(facts, given, origin)},
    )
    # scanpy's names for the colours of a category.
    table.uns["call_colors"] = [CALL_COLOURS.get(call, "#ffffff") for call in table.obs["call"].cat.categories]
    return table


def _anndata() -> Any:
    try:
        import anndata
    except ModuleNotFoundError as error:
        raise ConfigError("export", "anndata isn't installed", "pip install 'ctc-imaging[export]'") from error
    return anndata


def _with_slide(slide: SlideCells) -> pd.DataFrame:
    return slide.cells.assign(slide_id=slide.slide_id, sample_id=slide.sample_id, patient_id=slide.patient_id)


def _variables(slides: Sequence[SlideCells]) -> pd.DataFrame:
    channels = {channel.short: channel for slide in slides for channel in slide.panel.channels}
    return pd.DataFrame(
        {
            "role": [str(channel.role) for channel in channels.values()],
            "colour": [channel.colour for channel in channels.values()],
        },
        index=pd.Index(list(channels), dtype=object),
    )


def _values(cells: pd.DataFrame, markers: Sequence[str], kind: str) -> NDArray[np.float32]:
    return cells.reindex(columns=[f"{name}_{kind}" for name in markers]).to_numpy(np.float32)


def _observations(cells: pd.DataFrame, markers: Sequence[str]) -> pd.DataFrame:
    first = ["slide_id", "sample_id", "patient_id", "cell_id", "call", "phenotype"]
    measured = {f"{name}_{kind}" for name in markers for kind in _KINDS}
    rest = [name for name in cells.columns if name not in (*first, *measured)]
    table = cells[[*first, *rest]].copy()
    for name, kind in table.dtypes.items():
        if kind.kind == "O":
            table[name] = table[name].fillna("").astype(str).astype("category")
    return table


def _places(slides: Sequence[SlideCells], origin: str) -> NDArray[np.float64]:
    shifts = [slide.pixel_size_um / 2 if origin == _CORNER else 0.0 for slide in slides]
    places = [slide.cells[["x_um", "y_um"]].to_numpy() + shift for slide, shift in zip(slides, shifts, strict=True)]
    return np.concatenate(places)


def _provenance(facts: dict[str, Any], slides: Sequence[SlideCells], origin: str) -> dict[str, Any]:
    panels = {slide.panel.name: asdict(slide.panel) for slide in slides}
    return {
        "version": facts["version"],
        "run_hash": facts["hash"],
        "model": facts["model"]["name"],
        "model_hash": facts["model"]["hash"],
        "simulated": bool(facts["simulated"]),
        "spatial": f"x, y in um on the slide named in slide_id, from the {origin} of its first pixel",
        "panels": json.dumps(panels, ensure_ascii=False),
    }
