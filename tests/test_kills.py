"""Kill -9 of a batch or of its workers at random moments, then resume: every byte as if nothing had happened."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

ROBUSTNESS = Path(__file__).parent / "robustness"
# `make soak` kills fifty times, a batch of twelve.
KILLS, SEED, SLIDES = 3, 1, 6


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    if not Path("/proc/self/task").is_dir():
        pytest.skip("finding the workers needs Linux's /proc")
    sys.path.insert(0, str(ROBUSTNESS))
    try:
        import kills
    finally:
        sys.path.remove(str(ROBUSTNESS))
    return kills.Batch(tmp_path_factory.mktemp("kills"), slides=SLIDES)


def test_the_undisturbed_batch_has_all_its_results(batch):
    assert len(batch.undisturbed) == SLIDES + 3


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_and_resumed_is_byte_identical(batch, number):
    draw = random.Random(f"{SEED}-{number}")
    kill = batch.kill(number % 2 == 0, (number + draw.random()) / KILLS, draw)
    assert kill.who != "nobody" or number == KILLS - 1
    assert kill.wrong == (), str(kill)
