"""Each write, fsync and rename fails in turn: nothing half-written is trusted, and the same command ends it well."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROBUSTNESS = Path(__file__).parent / "robustness"
# Spread over the batch; `make soak` lets every single call fail.
POINTS, SEED = 5, 3


@pytest.fixture(scope="module")
def faults():
    sys.path.insert(0, str(ROBUSTNESS))
    try:
        import faults
    finally:
        sys.path.remove(str(ROBUSTNESS))
    return faults


@pytest.fixture(scope="module")
def trials(faults, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    library = faults.build(folder)
    if library is None:
        pytest.skip("injecting faults needs Linux and a C compiler")
    trials = faults.Trials(folder, library)
    yield trials
    trials.close()


def test_faults_are_counted_and_come_where_they_were_asked_for(faults, trials):
    calls = trials.undisturbed.calls
    assert calls["broken"] > calls["once"] > calls["full"] > calls["short"] > 50
    what, _ = trials.trial("once", calls["once"] // 2)
    assert what.partition(" ")[2].startswith("/run/")
    assert trials.trial("once", 10 * calls["once"]) == ("nothing", [])


@pytest.mark.parametrize("mode", ["once", "broken", "full", "short"])
def test_whatever_fails_nothing_half_written_is_trusted(trials, mode):
    points = trials.points(mode, POINTS, SEED)
    assert points == sorted(points)
    tried = {number: trials.trial(mode, number) for number in points}
    assert {number: (what, wrong) for number, (what, wrong) in tried.items() if wrong} == {}
    assert sum(what != "nothing" for what, _ in tried.values()) >= POINTS - 1


def test_what_is_half_written_would_be_noticed(faults, trials, tmp_path):
    run = tmp_path / "run"
    (tmp_path / "tmp").mkdir()
    assert trials.run(run, tmp_path / "tmp")[0] == 0
    assert list(trials.untrue(run, 0)) == []
    for name in ("counts.csv", "run.json", "report.html", "slides/S1/crops.zarr/.zattrs"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[: len(whole) // 2])
        assert list(trials.untrue(run, 1)), name
        (run / name).write_bytes(whole)
    assert list(trials.untrue(run, 0)) == []
