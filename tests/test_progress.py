"""Progress: a bar on a terminal, few plain lines elsewhere."""

from __future__ import annotations

import io

import pytest

from ctc_imaging import progress
from ctc_imaging.progress import Tally, show_progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_what_is_left():
    assert Tally(total=10, done=3, failed=1).left == 6


def test_a_log_gets_few_plain_lines_with_the_time_left(monkeypatch):
    clock = iter(range(0, 200, 2))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    with show_progress(stream) as report:
        for done in range(10):
            report(Tally(10, done, 0))
        report(Tally(10, 9, 1))
    assert stream.getvalue().splitlines() == [
        "0 of 10 slides",
        "3 of 10 slides, about 14 s left",
        "6 of 10 slides, about 8 s left",
        "9 of 10 slides, about 2 s left",
        "10 of 10 slides, 1 failed",
    ]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_batch_with_nothing_to_do_is_fine(stream):
    with show_progress(stream) as report:
        report(Tally(0, 0, 0))
    assert "\x1b[31m" not in stream.getvalue()


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    with show_progress(stream, "slides simulated") as report:
        report(Tally(4, 0, 0))
        report(Tally(4, 2, 1))
    shown = stream.getvalue()
    assert "slides simulated" in shown
    assert "3/4" in shown
    assert "1 failed" in shown
