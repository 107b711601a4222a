"""What a user's Python sees: three packages, no folders of the checkout, a light core."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, requires

import pytest


def python(code: str, tmp_path) -> str:
    """Run code in a fresh interpreter, away from the checkout."""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    return done.stdout


def test_folders_of_the_checkout_are_not_importable(tmp_path):
    folders = ("models", "tests", "training", "benchmarks")
    code = f"import importlib.util as u; print([name for name in {folders} if u.find_spec(name)])"
    assert python(code, tmp_path).strip() == "[]"


@pytest.mark.parametrize("package", ["ctc_imaging", "ctc_training", "napari_ctc"])
def test_the_three_packages_are(package, tmp_path):
    assert python(f"import {package}; print({package}.__name__)", tmp_path).strip() == package


def test_the_core_brings_neither_qt_nor_napari(tmp_path):
    code = (
        "import sys, ctc_imaging.batch, ctc_imaging.pipeline, ctc_imaging.report;"
        "print([m for m in sys.modules if m.split('.')[0] in ('napari', 'qtpy', 'PySide6', 'torchvision')])"
    )
    assert python(code, tmp_path).strip() == "[]"


def test_counting_cells_installs_no_qt_and_reading_calls_no_training_tools():
    base = [line for line in requires("ctc-imaging") if "extra ==" not in line]
    review = [line for line in requires("ctc-imaging") if "extra == 'review'" in line.replace('"', "'")]
    assert not [line for line in base if line.lower().startswith(("napari", "pyside", "qtpy", "torchvision"))]
    assert review
    assert not [line for line in review if "torchvision" in line]


def test_commands_and_the_napari_manifest_are_registered():
    assert {entry.name for entry in entry_points(group="ctc_imaging.commands")} == {"train", "review"}
    assert [entry.name for entry in entry_points(group="napari.manifest") if "napari_ctc" in entry.value]
