"""Folders of crops that somebody sorted by class: ``CLASS/*.tif`` and a crops.yaml that says what they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ctc_imaging.classification.classes import CALLS, CLASSES
from ctc_imaging.classification.crops import CROP_PX, UM_PER_PX, iterate_crops
from ctc_imaging.panel import Panel, load_panel
from ctc_imaging.readers.base import is_plausible_pixel_size
from ctc_imaging.segmentation import Background, segment_slide
from ctc_imaging.tables import read_table
from ctc_imaging.yaml_text import parse_yaml
from ctc_training.crop_arrays import CropArrays, stack
from ctc_training.dataset import ArraySlide
from ctc_training.errors import DatasetError

DESCRIPTION = "crops.yaml"
FARTHEST_UM = 6.0
"""A cell farther from the middle of its crop isn't the one that was labelled."""

_KEYS = ("panel", "pixel_size_um", "table")
_SUFFIXES = (".tif", ".tiff")
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class LabelledFolder:
    """A folder of crops; `table` has a row a file, with the columns of `ReviewedSlide.table` and `path`."""

    folder: Path
    panel: Panel
    pixel_size_um: float
    table: pd.DataFrame

    def cut(self, path: Path) -> CropArrays | None:
        """Segment one crop, and cut it about its cell; None where no cell is found in its middle."""
        image = _image(path, self.panel)
        slide = ArraySlide(image, self.pixel_size_um)
        channels = {short: index for index, short in enumerate(self.panel.shorts)}
        background = rim_background(image)
        labels = np.zeros((2, *image.shape[1:]), np.uint32)
        cells = segment_slide(slide, channels, self.panel, background, labels, self.pixel_size_um)
        middle = (np.array(image.shape[1:]) - 1) / 2
        away_um = np.hypot(*(cells[["y_px", "x_px"]].to_numpy(float) - middle).T) * self.pixel_size_um
        if not len(away_um) or away_um.min() > FARTHEST_UM:
            return None
        own = cells.iloc[[int(away_um.argmin())]]
        batches = iterate_crops(slide, channels, self.panel, background, labels, own)
        return stack(batches, own["cell_id"].to_numpy())


def labelled_folder(folder: Path) -> LabelledFolder:
    """Read what a folder of labelled crops says of itself.

    Parameters
    ----------
    folder : Path
        ``CLASS/*.tif`` of (C, Y, X) crops, cell in the middle, channels in the panel's order; ``crops.yaml``
        with `panel` (a name, or a file beside it), `pixel_size_um` and, optionally, `table`: a CSV with `file`
        (as ``CLASS/name.tif``), `patient_id` and `batch`. Without it all crops count as one patient's.

    Raises
    ------
    DatasetError
        If something is missing or wrong.
    """
    folder = Path(folder)
    facts = _description(folder / DESCRIPTION)
    files = [(name, path) for name in CLASSES for path in _files(folder / name)]
    if not files:
        raise DatasetError(folder, "no labelled crops here", f"lay them into {', '.join(CLASSES)} as .tif")
    own = folder / str(facts["panel"])
    panel = load_panel(str(own) if own.is_file() else str(facts["panel"]))
    origin = _origins(folder, facts.get("table"))
    rows = [_row(folder, name, path, *origin(path.relative_to(folder).as_posix())) for name, path in files]
    return LabelledFolder(folder, panel, float(facts["pixel_size_um"]), pd.DataFrame(rows))


def rim_background(image: np.ndarray) -> Background:
    """Level and noise of a crop from its rim, where the labelled cell isn't.

    Level is the median of the outermost pixels; noise is from differences between neighbours there, which
    the light of a cell that reaches the rim hardly changes.

    Parameters
    ----------
    image : ndarray, shape (C, Y, X)
    """
    pixels = image.astype(np.float32)
    width = max(min(pixels.shape[1:]) // 8, 1)
    rim = np.ones(pixels.shape[1:], bool)
    rim[width:-width, width:-width] = False
    level = np.median(pixels[:, rim], axis=1)
    steps = np.diff(pixels, axis=2)[:, rim[:, 1:]]
    spread = np.median(np.abs(steps - np.median(steps, axis=1, keepdims=True)), axis=1)
    noise = np.maximum(_MAD_TO_SIGMA * spread / np.sqrt(2), 1e-3)
    return Background(level[:, None, None].astype(np.float32), noise[:, None, None].astype(np.float32))


def _description(path: Path) -> dict[str, Any]:
    remedy = "write lines like 'panel: emt-4' and 'pixel_size_um: 0.5'"
    if not path.is_file():
        raise DatasetError(path, "nothing says what the crops are", remedy)
    try:
        facts = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise DatasetError(path, f"can't be read ({error})", remedy) from error
    if not isinstance(facts, dict) or not {"panel", "pixel_size_um"} <= facts.keys():
        raise DatasetError(path, "panel or pixel_size_um is missing", remedy)
    for name in facts:
        if name not in _KEYS:
            raise DatasetError(path, f"{name!r} isn't known", f"known are {', '.join(_KEYS)}")
    size = facts["pixel_size_um"]
    if type(size) not in (int, float) or not is_plausible_pixel_size(float(size)):
        raise DatasetError(path, f"pixel_size_um {size!r} isn't one of a light microscope", "give micrometres")
    return facts


def _files(folder: Path) -> list[Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.suffix.lower() in _SUFFIXES)


def _origins(folder: Path, name: Any) -> Any:
    """Return a function from a file's name to its patient and batch."""
    if name is None:
        return lambda file: (f"folder {folder.name}", "")
    table = read_table(folder / str(name), ("file", "patient_id"), ("batch",))
    known = {row.required("file"): (row.required("patient_id"), row.text("batch") or "") for row in table.rows}

    def origin(file: str) -> tuple[str, str]:
        if file not in known:
            raise DatasetError(folder / str(name), f"{file} isn't listed", "add its row")
        patient, batch = known[file]
        return patient, f"/{batch}" if batch else ""

    return origin


def _row(folder: Path, name: str, path: Path, patient_id: str, batch: str) -> dict[str, Any]:
    return {
        "cell_id": 0,
        **{call: int(call == name) for call in CALLS},
        **{"readers": "", "target": name, "agreement": np.nan, "disputed": False, "phenotype": ""},
        **{"origin": "labelled", "weight": 1.0, "stands_for": 1, "kind": name},
        **{"source": folder.name, "setting": folder.name, "run": "", "patient_id": patient_id, "batch": batch},
        "slide_id": path.relative_to(folder).as_posix(),
        "scan_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "path": path,
    }


def _image(path: Path, panel: Panel) -> np.ndarray:
    import tifffile

    try:
        image = tifffile.imread(path)
    except (OSError, ValueError, IndexError, KeyError, tifffile.TiffFileError) as error:
        raise DatasetError(path, f"can't be read as TIFF ({error})", "export the crop again") from error
    if image.ndim != 3 or image.shape[0] != len(panel.channels):
        fault = f"has the shape {image.shape}, panel {panel.name} needs ({len(panel.channels)}, Y, X)"
        raise DatasetError(path, fault, "export the panel's channels in its order")
    if min(image.shape[1:]) < CROP_PX // 3 or image.dtype.kind not in "uf":
        fault = f"{image.shape[1:]} pixels of {image.dtype} are no crop of a cell"
        raise DatasetError(
            path, fault, f"cut about {CROP_PX * UM_PER_PX:g} um around the cell, as uint8, uint16 or float"
        )
    # The background and outlines are measured on these types only.
    return image if image.dtype in (np.uint8, np.uint16, np.float32) else image.astype(np.float32)
