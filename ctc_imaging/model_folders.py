"""Where models lie: the folder chosen, the user's own, then those that came with the package."""

from __future__ import annotations

import json
import os
from pathlib import Path

import platformdirs

DESCRIPTION = "model.json"


def model_folders() -> list[Path]:
    """Return the folders that are searched for models, first come first served."""
    package = Path(__file__).resolve().parent
    # A wheel carries the models inside the package; a checkout keeps them beside it.
    shipped = package / "_models"
    folders = [user_models(), shipped if shipped.is_dir() else package.parent / "models"]
    chosen = os.environ.get("CTC_IMAGING_MODELS")
    return [Path(chosen), *folders] if chosen else folders


def user_models() -> Path:
    """Return the user's own model folder, where promoted models go."""
    return Path(platformdirs.user_data_dir("ctc_imaging")) / "models"


def find_models(kind: str) -> dict[str, Path]:
    """Find all models of a kind: name to folder, in the order of names; an earlier folder hides a later one.

    Parameters
    ----------
    kind : str
        How the `format` in ``model.json`` begins, for example ``ctc-imaging-classifier``.
    """
    found: dict[str, Path] = {}
    for folder in model_folders():
        for description in sorted(folder.glob(f"*/{DESCRIPTION}")):
            if _kind(description) in (kind, None):
                found.setdefault(description.parent.name, description.parent)
    return dict(sorted(found.items()))


def _kind(description: Path) -> str | None:
    """Say of which kind a model is; None where that can't be told, so that its loading says why."""
    try:
        return str(json.loads(description.read_text(encoding="utf-8"))["format"]).partition("/")[0]
    except (OSError, ValueError, KeyError, TypeError):
        return None
