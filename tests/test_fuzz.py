"""Damaged slides and tables end in a result or a typed error of one line; `make fuzz` tries twenty thousand."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROBUSTNESS = Path(__file__).parent / "robustness"
CASES, SEED = 600, 0


@pytest.fixture(scope="module")
def fuzz():
    if os.name != "posix":
        pytest.skip("limits on memory and time need POSIX")
    sys.path.insert(0, str(ROBUSTNESS))
    try:
        import fuzz
    finally:
        sys.path.remove(str(ROBUSTNESS))
    return fuzz


@pytest.fixture(scope="module")
def bases(fuzz, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    fuzz.make_bases(folder / "bases")
    return folder / "bases"


def test_every_base_is_whole(fuzz, bases):
    slides, tables = (sorted((bases / kind).iterdir()) for kind in ("slides", "tables"))
    assert len(slides) >= 25
    assert len(tables) == 7
    for path in (*slides, *tables):
        fuzz.read(path)


def test_a_case_is_the_same_whenever_it_is_made(fuzz, bases, tmp_path):
    for number in range(30):
        first, again = (fuzz.make_case(bases, number, SEED, tmp_path / work) for work in ("first", "again"))
        assert files_of(first.parent) == files_of(again.parent)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_may_not_happen_is_a_finding(fuzz, bases, monkeypatch):
    from ctc_imaging.errors import TableError

    errors = {
        "ValueError": ValueError("x"),
        "TooSlow": fuzz.TooSlow("x"),
        "one short line": TableError("x", "y", ""),
        None: TableError("x", "y", "z"),
    }
    for said, error in errors.items():

        def fail(path, error=error):
            raise error

        monkeypatch.setattr(fuzz, "read", fail)
        finding = fuzz.attempt(bases)
        assert finding is None if said is None else said in finding


def test_damaged_input_ends_in_a_result_or_a_typed_error(fuzz, tmp_path, capsys):
    code = fuzz.main(["--count", str(CASES), "--seed", str(SEED), "--keep", str(tmp_path / "findings")])
    said = capsys.readouterr().out
    assert code == 0, said
    assert said == f"fuzz: {CASES} cases, seed {SEED}, 0 findings of 0 kinds\n"
