"""The notebooks as a reader gets them: kept without outputs, and running from nothing, with pictures, to the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.font_manager  # noqa: F401  (its first import builds a cache, and says so)
import nbformat
import pytest

from .conftest import CHECKOUT

FOLDER = CHECKOUT / "notebooks"
NAMES = ["cohort-recurrence", "reading-a-report", "retrain-and-promote", "slides-to-counts"]
SKIPPED = "Skipped: the data aren't here"


def execute(name: str, folder: Path, shared: Path) -> nbformat.NotebookNode:
    """Run a copy in a fresh kernel of this Python, in a folder of its own, away from what the user has set."""
    copy = Path(shutil.copy(FOLDER / f"{name}.ipynb", folder))
    own = {"JUPYTER_DATA_DIR": "jupyter", "JUPYTER_CONFIG_DIR": "jupyter", "IPYTHONDIR": "ipython", "TMPDIR": "tmp"}
    (folder / "tmp").mkdir()
    paths = {variable: str(folder / place) for variable, place in own.items()}
    environment = os.environ | paths | {"CTC_IMAGING_SHARED": str(shared), "OMP_NUM_THREADS": "1"}
    environment.pop("MPLBACKEND", None)
    command = [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", "--timeout=300", str(copy)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(copy, as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in outputs(notebook) if output.output_type == "stream")


def check(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """No error and no warning, at least one picture, and nothing left behind."""
    kinds = {(output.output_type, output.get("name")) for output in outputs(notebook)}
    assert kinds <= {("stream", "stdout"), ("display_data", None), ("execute_result", None)}
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert not [path.name for path in (folder / "tmp").glob("ctc-imaging-*")]
    expected = {f"{name}.ipynb" for name in NAMES} | {"tmp", "jupyter", "ipython"}
    assert {path.name for path in folder.iterdir()} <= expected


def test_these_are_all_notebooks():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_kept_short_and_without_outputs(name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert 10 <= len(notebook.cells) <= 25
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert "research use only" in " ".join(notebook.cells[0].source.split())
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.execution_count is None
            assert cell.outputs == []


@pytest.mark.pages
@pytest.mark.parametrize("name", [name for name in NAMES if name != "cohort-recurrence"])
def test_on_simulated_slides(name, tmp_path):
    notebook = execute(name, tmp_path, tmp_path / "nothing")
    check(notebook, tmp_path)
    assert "SIMULATED" in notebook.cells[0].source
    if name == "retrain-and-promote":
        assert "worse than default" in printed(notebook)
        assert "nothing was installed" in printed(notebook)


@pytest.mark.pages
def test_on_real_data(shared_data, tmp_path):
    notebook = execute("cohort-recurrence", tmp_path, shared_data)
    check(notebook, tmp_path)
    assert SKIPPED not in printed(notebook)
    # The published difference of restricted means (tests/test_recurrence_survival.py).
    assert "-4.93 (-8.15 to -1.71)" in printed(notebook)


@pytest.mark.pages
def test_on_what_lifelines_ships_alone(tmp_path):
    notebook = execute("cohort-recurrence", tmp_path, tmp_path / "nothing")
    check(notebook, tmp_path)
    assert SKIPPED in printed(notebook)
