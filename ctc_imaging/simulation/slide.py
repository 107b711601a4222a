"""A simulated slide: who is on it, what the microscope makes of it, and the truth beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from ctc_imaging.errors import ConfigError, PanelError
from ctc_imaging.files import atomic_path, write_csv
from ctc_imaging.panel import load_panel
from ctc_imaging.simulation import dirt, optics
from ctc_imaging.simulation.cells import Look, NucleusSource, render_cell
from ctc_imaging.simulation.placement import draw_groups, place
from ctc_imaging.simulation.population import MARKERS, draw_cells, phenotypes
from ctc_imaging.simulation.settings import SETTINGS, Setting
from ctc_imaging.simulation.shapes import Plane

CHANNEL_NAMES = {"dapi": "DAPI", "ck": "CK", "vim": "Vimentin", "cd45": "CD45"}

_WHERE = "simulate slide"
_SMALLEST_SIDE_PX = 64
_TILE_PX = 512
_OUTLINE_SHARE = 0.4
_CELL_KINDS = ("ctc", "leukocyte", "naked_nucleus")


@dataclass(frozen=True)
class SimulatedSlide:
    """Pixels and truth of a simulated slide.

    Attributes
    ----------
    image : ndarray of uint16, shape (C, Y, X)
    truth : DataFrame
        One row an object: `y_um`, `x_um`, `class`, `phenotype`, `diameter_um`, `cluster_id`, `kind`,
        `dying`, `snr_MARKER` (missing where the panel lacks the marker).
    nuclei : ndarray of int32, shape (Y, X)
        1 + the row in `truth` of the nucleus at each pixel; 0 where there is none.
    pixel_size_um : float
    channel_names : tuple of str
    """

    image: NDArray[np.uint16]
    truth: pd.DataFrame
    nuclei: NDArray[np.int32]
    pixel_size_um: float
    channel_names: tuple[str, ...]


def simulate_slide(
    shape_px: tuple[int, int] = (4096, 4096),
    ctc: int = 20,
    leukocytes: int = 8000,
    setting: str = "standard",
    seed: int = 0,
    pixel_size_um: float = 0.5,
    panel: str = "emt-4",
) -> SimulatedSlide:
    """Simulate a slide.

    Parameters
    ----------
    shape_px : tuple of int
        Rows and columns.
    ctc, leukocytes : int
        How many of each.
    setting : str
        One of `SETTINGS`.
    seed : int
        The same seed gives the same slide, to the byte.
    pixel_size_um : float
    panel : str
        A shipped panel.

    Returns
    -------
    SimulatedSlide

    Raises
    ------
    ConfigError
        If there is no such setting or panel, or the size, counts or scale have no meaning.

    Examples
    --------
    >>> slide = simulate_slide((256, 256), ctc=2, leukocytes=20, seed=1)
    >>> slide.image.shape, slide.channel_names
    ((4, 256, 256), ('DAPI', 'CK', 'Vimentin', 'CD45'))
    >>> int((slide.truth["class"] == "ctc").sum())
    2
    """
    return simulate_with(
        setting_named(setting, _WHERE),
        shape_px,
        ctc=ctc,
        leukocytes=leukocytes,
        seed=seed,
        pixel_size_um=pixel_size_um,
        panel=panel,
    )


def setting_named(name: str, where: str) -> Setting:
    """Look up a pinned setting; raise ConfigError, naming `where`, if there is none of this name."""
    if name not in SETTINGS:
        raise ConfigError(where, f"no setting is called {name!r}", f"use one of {', '.join(SETTINGS)}")
    return SETTINGS[name]


def simulate_with(
    setting: Setting,
    shape_px: tuple[int, int],
    *,
    ctc: int,
    leukocytes: int,
    seed: int,
    scan: int = 0,
    pixel_size_um: float = 0.5,
    panel: str = "emt-4",
    source: NucleusSource | None = None,
) -> SimulatedSlide:
    """Simulate a slide of any setting; `scan` counts the scans of one slide, which differ in optics and noise only.

    `source` may give the cells their nuclei, which then take only size and strength from the setting.
    Other parameters, result and errors as of `simulate_slide`.
    """
    check_options(_WHERE, shape_px, ctc, leukocytes, seed, pixel_size_um)
    shorts = _markers_of(panel)
    who, where, look = np.random.SeedSequence(seed).spawn(3)
    focus, haze_seed, noise = np.random.SeedSequence([seed, 1 + scan]).spawn(3)
    objects = _draw_objects(setting, ctc, leukocytes, shape_px, pixel_size_um, who, where)
    fields = optics.lay_fields(shape_px, setting, np.random.default_rng(focus))
    haze = optics.draw_haze(shape_px, len(shorts), np.random.default_rng(haze_seed))
    background = np.array([optics.BACKGROUND_E[short] for short in shorts], np.float32)
    per_snr = _electrons_per_snr(objects, background, haze, fields, setting, pixel_size_um)
    signal = np.zeros((len(shorts), *shape_px), np.float32)
    nuclei = np.zeros(shape_px, np.int32)
    for row, (top, left, stains) in enumerate(_render(objects, pixel_size_um, np.random.default_rng(look), source)):
        for channel, short in enumerate(shorts):
            if short in stains:
                _add(signal[channel], stains[short] * per_snr[channel, row], top, left)
        if objects["kind"].iat[row] in _CELL_KINDS and "dapi" in stains:
            _mark(nuclei, _nucleus(stains["dapi"], pixel_size_um), row + 1, top, left)
    image = optics.photograph(signal, background, haze, fields, setting, pixel_size_um, noise)
    names = tuple(CHANNEL_NAMES[short] for short in shorts)
    return SimulatedSlide(image, _truth(objects, shorts, pixel_size_um), nuclei, pixel_size_um, names)


def check_options(
    where: str, shape_px: tuple[int, int], ctc: int, leukocytes: int, seed: int, pixel_size_um: float
) -> None:
    """Raise ConfigError, naming `where`, if the size, a count, the seed or the scale has no meaning."""
    if len(shape_px) != 2 or min(shape_px) < _SMALLEST_SIDE_PX:
        fault = f"a slide of shape {'x'.join(str(side) for side in shape_px)} px can't be simulated"
        raise ConfigError(where, fault, f"give rows and columns, each at least {_SMALLEST_SIDE_PX}")
    if min(ctc, leukocytes, seed) < 0:
        raise ConfigError(where, "a count or the seed is negative", "use 0 or more")
    if not 0.1 <= pixel_size_um <= 2.0:
        raise ConfigError(where, f"{pixel_size_um} µm per pixel shows no cells", "use 0.1 to 2 µm")


def _markers_of(panel: str) -> tuple[str, ...]:
    try:
        shorts = load_panel(panel).shorts
    except PanelError as error:
        raise ConfigError(_WHERE, error.fault, error.remedy) from error
    unknown = set(shorts) - set(MARKERS)
    if unknown:
        raise ConfigError(_WHERE, f"can't simulate {', '.join(sorted(unknown))}", f"use only {', '.join(MARKERS)}")
    return shorts


def _draw_objects(
    setting: Setting,
    ctc: int,
    leukocytes: int,
    shape_px: tuple[int, int],
    pixel_um: float,
    who: np.random.SeedSequence,
    where: np.random.SeedSequence,
) -> pd.DataFrame:
    """Draw everything on the slide and where it lies (`y_px`, `x_px`)."""
    cell_rng, naked_rng, dirt_rng = (np.random.default_rng(seed) for seed in who.spawn(3))
    group_rng, place_rng, dirt_place_rng = (np.random.default_rng(seed) for seed in where.spawn(3))
    cells = draw_cells(setting, ctc, leukocytes, cell_rng)
    bodies = pd.concat([cells, dirt.draw_naked_nuclei(setting, leukocytes, naked_rng)], ignore_index=True)
    groups = draw_groups(bodies, setting, group_rng)
    size_um = tuple((side - 1) * pixel_um for side in shape_px)
    centres = place(bodies, groups, (size_um[0], size_um[1]), _WHERE, place_rng)
    rest = dirt.draw_dirt(setting, leukocytes, dirt_rng)
    rest_centres = dirt.scatter(rest, bodies, centres, (size_um[0], size_um[1]), setting, dirt_place_rng)
    objects = pd.concat([bodies, rest], ignore_index=True)
    objects[["y_px", "x_px"]] = np.concatenate([centres, rest_centres]) / pixel_um
    objects["cluster_id"] = np.concatenate([groups.cluster_id, np.zeros(len(rest), np.intp)])
    return objects


def _electrons_per_snr(
    objects: pd.DataFrame,
    background_e: NDArray[np.float32],
    haze: NDArray[np.float32],
    fields: list[optics.Field],
    setting: Setting,
    pixel_um: float,
) -> NDArray[np.float32]:
    """What an SNR of 1 is in electrons at full light, by channel and object: the noise of the background around it."""
    y, x = objects["y_px"].to_numpy(), objects["x_px"].to_numpy()
    light = optics.light_at(fields, setting.vignetting, y, x)
    local = [level * optics.haze_at(plane, y, x) for level, plane in zip(background_e, haze, strict=True)]
    return np.stack([optics.noise_e(level * light) / light for level in local])


def _render(
    objects: pd.DataFrame, pixel_um: float, rng: np.random.Generator, source: NucleusSource | None
) -> Iterator[tuple[int, int, dict[str, Plane]]]:
    """Render every object, giving its patch's top left pixel and its stains in SNR."""
    for row in objects.to_dict("records"):
        look = Look(
            kind=row["kind"],
            diameter_um=row["diameter_um"],
            nucleus=row["nucleus"],
            nucleus_ratio=row["nucleus_ratio"],
            dying=row["dying"],
            snr={marker: row[f"snr_{marker}"] for marker in MARKERS},
        )
        middle = round(row["y_px"]), round(row["x_px"])
        fraction = row["y_px"] - middle[0], row["x_px"] - middle[1]
        if look.kind in _CELL_KINDS:
            stains = render_cell(look, fraction, pixel_um, rng, source)
        else:
            stains = dirt.render_dirt(look, fraction, pixel_um, rng)
        half = next(iter(stains.values())).shape[0] // 2 if stains else 0
        yield middle[0] - half, middle[1] - half, stains


def _add(plane: Plane, patch: Plane, top: int, left: int) -> None:
    """Add a patch to a plane, cut where it reaches over the edge."""
    y, x = max(top, 0), max(left, 0)
    inner = patch[y - top : plane.shape[0] - top, x - left : plane.shape[1] - left]
    plane[y : y + inner.shape[0], x : x + inner.shape[1]] += inner


def _nucleus(dapi: Plane, pixel_um: float) -> NDArray[np.bool_]:
    """Mask of a nucleus: half its plateau, gaps between its lobes closed, as a person would draw it."""
    smooth = ndimage.gaussian_filter(dapi, 0.35 / pixel_um)
    mask = smooth > _OUTLINE_SHARE * np.percentile(smooth[smooth > 0.1 * smooth.max()], 80)
    radius_px = max(round(0.8 / pixel_um), 1)
    return ndimage.binary_fill_holes(ndimage.binary_closing(mask, iterations=radius_px))


def _mark(labels: NDArray[np.int32], mask: NDArray[np.bool_], label: int, top: int, left: int) -> None:
    """Set a label where a patch's mask says so, cut where it reaches over the edge."""
    y, x = max(top, 0), max(left, 0)
    inner = mask[y - top : labels.shape[0] - top, x - left : labels.shape[1] - left]
    labels[y : y + inner.shape[0], x : x + inner.shape[1]][inner] = label


def _truth(objects: pd.DataFrame, shorts: tuple[str, ...], pixel_um: float) -> pd.DataFrame:
    snr = {f"snr_{m}": objects[f"snr_{m}"].to_numpy() if m in shorts else np.nan for m in MARKERS}
    is_ctc = (objects["kind"] == "ctc").to_numpy()
    vimentin = np.broadcast_to(snr["snr_vim"], len(objects))
    return pd.DataFrame(
        {
            "y_um": objects["y_px"] * pixel_um,
            "x_um": objects["x_px"] * pixel_um,
            "class": objects["kind"].where(objects["kind"].isin(["ctc", "leukocyte"]), "artefact"),
            "phenotype": np.where(is_ctc, phenotypes(objects["snr_ck"].to_numpy(), vimentin), ""),
            "diameter_um": objects["diameter_um"],
            "cluster_id": objects["cluster_id"].where(objects["cluster_id"] > 0).astype("Int64"),
            "kind": objects["kind"],
            "dying": objects["dying"].astype(bool),
            **snr,
        }
    )


def write_slide(simulated: SimulatedSlide, folder: Path) -> None:
    """Write ``slide.ome.tif`` and ``truth.csv`` into a folder.

    The same slide gives the same bytes: the file carries neither a time nor a random identifier.

    Parameters
    ----------
    simulated : SimulatedSlide
    folder : Path
        Made if needed.
    """
    write_image(simulated, folder / "slide.ome.tif")
    write_truth(simulated, folder / "truth.csv")


def write_image(simulated: SimulatedSlide, target: Path) -> None:
    """Write the pixels as a tiled, deflated OME-TIFF."""
    with atomic_path(target) as temporary:
        tifffile.imwrite(
            temporary,
            simulated.image,
            photometric="minisblack",
            planarconfig=None,
            tile=(_TILE_PX, _TILE_PX),
            compression="zlib",
            compressionargs={"level": 1},
            resolution=(1e4 / simulated.pixel_size_um,) * 2,
            resolutionunit="CENTIMETER",
            description=_ome_xml(simulated),
            software="ctc-imaging",
            metadata=None,
        )


def write_truth(simulated: SimulatedSlide, target: Path) -> None:
    """Write the truth table, lengths to a nanometre."""
    write_csv(target, simulated.truth.round(3))


def _ome_xml(simulated: SimulatedSlide) -> str:
    channels, rows, columns = simulated.image.shape
    scale = " ".join(
        f'PhysicalSize{axis}="{simulated.pixel_size_um}" PhysicalSize{axis}Unit="&#181;m"' for axis in "XY"
    )
    named = "".join(
        f'<Channel ID="Channel:0:{i}" Name={quoteattr(name)} SamplesPerPixel="1"/>'
        for i, name in enumerate(simulated.channel_names)
    )
    planes = "".join(
        f'<TiffData IFD="{i}" PlaneCount="1" FirstC="{i}" FirstT="0" FirstZ="0"/>' for i in range(channels)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xsi:schemaLocation="http://www.openmicroscopy.org/Schemas/OME/2016-06 '
        'http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd">'
        '<Image ID="Image:0" Name="simulated slide">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{columns}" SizeY="{rows}" '
        f'SizeC="{channels}" SizeZ="1" SizeT="1" {scale}>{named}{planes}</Pixels></Image></OME>'
    )
