"""A batch of small pretended slides, run by the real command in processes forked from one that has imported all."""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_pipeline
import numpy as np
import pytest
import zarr

from ctc_imaging import batch
from ctc_imaging.cli import main
from ctc_imaging.files import write_text


def process(*arguments: Any, **options: Any) -> dict[str, Any]:
    """Do as the stand-in of the suite does, and fill the groups and the picture that it leaves empty."""
    summary = fake_pipeline.process(*arguments, **options)
    folder = next(argument for argument in arguments if isinstance(argument, Path))
    for name in ("labels.ome.zarr", "crops.zarr"):
        group = zarr.open_group(folder / name, mode="w", zarr_format=2)
        array = group.create_array("0", shape=(2, 40, 40), chunks=(1, 40, 40), dtype=np.uint32)
        array[:] = np.arange(3200).reshape(2, 40, 40)
        group.attrs["named"] = name
    (folder / "overview.png").write_bytes(bytes(range(256)) * 40)
    return summary


def write_report(run: Path) -> Path:
    """Write a report that shows whether it is whole."""
    write_text(Path(run) / "report.html", "<html>" + "words " * 3000 + "</html>\n")
    return Path(run) / "report.html"


def serve() -> None:
    """Run a command line for each line of JSON on standard input, and answer its exit code."""
    whole = batch.run_cohort
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fake_pipeline, "write_report", write_report)
        fake_pipeline.use_in_commands(patched)
        # The worker's import of everything would take longer than the whole batch.
        patched.setattr(multiprocessing, "get_context", _forked(multiprocessing.get_context))
        patched.setattr(batch, "run_cohort", lambda *given, **options: whole(*given, **options, process=process))
        for line in sys.stdin:
            request = json.loads(line)
            child = os.fork()
            if child == 0:
                _run(request)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            sys.stdout.write(f"{code}\n")
            sys.stdout.flush()
            _import_what_it_did(request["stderr"])


def _import_what_it_did(said: str) -> None:
    """Import what the run imported when it came to it, so that it costs the next one nothing."""
    modules = _modules_of(said)
    for name in modules.read_text().split() if modules.is_file() else ():
        if name not in sys.modules:
            # A part of a package that can't be imported by itself.
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


def _modules_of(said: str) -> Path:
    return Path(said).with_suffix(".modules")


def _forked(get_context: Callable[..., Any]) -> Callable[..., Any]:
    return lambda method=None: get_context("fork" if method == "spawn" else method)


def _run(request: dict[str, Any]) -> None:
    """Run one command line in this process, which ends with it."""
    os.setsid()
    signal.alarm(request["seconds"])
    for handle, name in ((1, os.devnull), (2, request["stderr"])):
        with Path(name).open("wb") as stream:
            os.dup2(stream.fileno(), handle)
    tempfile.tempdir = request["temporary"]
    code = main(request["arguments"])
    _modules_of(request["stderr"]).write_text("\n".join(sys.modules))
    sys.exit(code)


if __name__ == "__main__":
    serve()
